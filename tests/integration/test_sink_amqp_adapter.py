"""What pika's adapter for Twisted does wrong, and is put right: seen with a real RabbitMQ.

Each of these fails where the adapter is left to itself.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from support.amqp import data
from support.outgoing import VM, event
from support.rabbitmq import CLOSED_VHOST, PASSWORD, USER, MakeQueue, MakeSink, RabbitMQ
from support.waiting import within
from txqmp.monitor.sinks.amqp import AMQPSettings, publisher
from txqmp.monitor.sinks.amqp.dial import dial
from txqmp.monitor.sinks.amqp.message import properties
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError


pytest_plugins = ["support.rabbitmq"]
pytestmark = pytest.mark.timeout(180)


async def problem(delivering: Deferred[None]) -> UnavailableError:
    """What a delivery fails with."""
    with pytest.raises(UnavailableError) as caught:
        await within(delivering, what="the delivery")
    assert PASSWORD not in f"{caught.value!r} {caught.value.reason}"
    return caught.value


# 1. A message that came back is blamed on another one


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("classic", 1), ("classic", 2), ("quorum", 2)],
    ids=["classic, transient", "classic, persistent", "quorum, persistent"],
)
@pytest_twisted.ensureDeferred
async def test_the_right_one_is_blamed(
    kind: str,
    mode: int,
    make_queue: MakeQueue,
    make_sink: MakeSink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker confirms in groups, in which some have come back. Transient messages make the
    largest ones: of these batches the adapter gets one in three wrong."""

    def altered(each: OutgoingEvent) -> dict[str, Any]:
        return {**properties(each), "delivery_mode": mode}

    monkeypatch.setattr(publisher, "properties", altered)
    rng = random.Random(kind)
    queue = make_queue(kind, key="qmp.STOP.#")
    sink = make_sink()
    for start in range(0, 4000, 20):
        lost = sorted(rng.sample(range(20), 5))
        batch = [
            event(start + place, "LOST" if place in lost else "STOP", vm=f"vm{place}")
            for place in range(20)
        ]
        sink._careful = False
        wrong = await problem(sink.deliver(batch))
        assert wrong.delivered == lost[0]
        assert f"'qmp.LOST.vm{lost[0]}'" in wrong.reason
    assert len(queue) == 3000


# 2. The reason is lost; for those of TLS see test_sink_amqp_tls.py


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"password": "a wrong one"},
            "the broker refused the login of user 'qmp': ACCESS_REFUSED - Login was refused",
        ),
        (
            {"user": "nobody"},
            "the broker refused the login of user 'nobody': ACCESS_REFUSED - Login was refused",
        ),
        (
            {"vhost": "nope"},
            "the broker refused the virtual host 'nope': NOT_ALLOWED - vhost nope not found (530)",
        ),
        (
            {"vhost": CLOSED_VHOST},
            f"the broker refused the virtual host '{CLOSED_VHOST}': NOT_ALLOWED - access to vhost",
        ),
    ],
    ids=["password", "user", "vhost", "closed vhost"],
)
@pytest_twisted.ensureDeferred
async def test_the_reason_is_told(
    changes: dict[str, str], reason: str, make_sink: MakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = await problem(make_sink(**changes).deliver([event(1)]))
    assert wrong.reason.startswith(reason)
    assert caplog.text == ""


@pytest_twisted.ensureDeferred
async def test_nobody_listens(make_sink: MakeSink) -> None:
    wrong = await problem(make_sink(port=1).deliver([event(1)]))
    assert wrong.reason.startswith("no connection: Connection was refused by other side")


@pytest_twisted.ensureDeferred
async def test_no_such_host(make_sink: MakeSink) -> None:
    wrong = await problem(make_sink(host="nowhere.invalid", allow_plaintext=True).deliver([]))
    assert wrong.reason.startswith("no connection: DNS lookup failed")


# 3. A listener that says nothing is waited for, for ever


@pytest_twisted.ensureDeferred
async def test_a_silent_listener(make_sink: MakeSink, rabbitmq: RabbitMQ) -> None:
    """The system takes the connection for a process that is stopped."""
    with rabbitmq.paused():
        wrong = await problem(make_sink(connect_timeout=0.3).deliver([event(1)]))
    assert wrong.reason == "connected, but nobody answers as a broker does within 0.3 s"


# 4. Asking for a channel raises


@pytest_twisted.ensureDeferred
async def test_a_channel_of_a_connection_that_has_ended(rabbitmq: RabbitMQ) -> None:
    settings = AMQPSettings(host="127.0.0.1", port=rabbitmq.port, user=USER, password=PASSWORD)
    connection = await within(dial(reactor, settings))
    connection.leave()
    await within(connection.when_lost())
    asking = Deferred.fromCoroutine(connection.open_channel())
    with pytest.raises(UnavailableError, match="closed by us"):
        await within(asking)


# 8. What comes back is logged, with what a guest may have said


@pytest_twisted.ensureDeferred
async def test_nothing_of_an_event_is_logged(
    make_queue: MakeQueue, make_sink: MakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    make_queue("classic", key="qmp.STOP.#", max_length=1, overflow="reject-publish")
    batch = [event(1), event(2, data=data(b"private")), event(3, "RESUME", data=data(b"private"))]
    wrong = await problem(make_sink().deliver(batch))
    assert wrong.delivered == 1
    assert caplog.text == ""
    assert VM not in wrong.reason
