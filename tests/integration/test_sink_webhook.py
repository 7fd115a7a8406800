"""Posts to real servers on loopback, good ones and bad ones."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from support.leaks import LeakCheck
from support.outgoing import event, events
from support.waiting import until, within
from support.webhook import Raw, Receiver
from txqmp.monitor.cloudevents import BATCHED
from txqmp.monitor.signature import SigningKey, verify
from txqmp.monitor.sinks.delivery import (
    DeliveryError,
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.settings import WebhookMode
from txqmp.monitor.sinks.webhook.answer import MAX_RETRY_AFTER
from txqmp.monitor.sinks.webhook.connection import MAX_ANSWER
from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery


pytest_plugins = ["support.sessions", "support.webhook"]

Make = Callable[..., WebhookDelivery]


async def refused(work: Deferred[None], kind: type[DeliveryError] = UnavailableError) -> Any:
    """The error that a delivery ends with."""
    with pytest.raises(kind) as caught:
        await within(work)
    assert type(caught.value) is kind
    return caught.value


def ids(receiver: Receiver) -> list[str]:
    """What arrived: the ids, shortened to their number."""
    parts = [each.headers["webhook-id"].split("_") for each in receiver.arrived]
    return ["-".join(str(int(part[-20:])) for part in each) for each in parts]


# What is posted


@pytest_twisted.ensureDeferred
async def test_posts(receiver: Receiver, make: Make, leak_check: LeakCheck) -> None:
    sink = make(receiver.url(path="/qmp?token=secret"), authorization="Bearer swordfish")
    assert sink.name == f"webhook http://127.0.0.1:{receiver.number}/qmp"
    assert sink.batch == 1
    sink.start()
    assert receiver.connections == 0
    for each in events(3):
        await within(sink.deliver([each]))
    await within(sink.deliver(events(2, start=3)))
    await within(sink.deliver([]))
    assert [each.body for each in receiver.arrived] == [each.text for each in events(5)]
    assert receiver.connections == 1
    first = receiver.arrived[0]
    assert (first.method, first.path) == ("POST", "/qmp?token=secret")
    assert first.headers["user-agent"] == "txqmp qmp-monitor"
    assert first.headers["authorization"] == "Bearer swordfish"
    assert first.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert first.headers["webhook-id"] == events(1)[0].id
    assert "webhook-signature" not in first.headers
    assert "secret" not in repr(sink)
    # Twisted would say of each connection that it starts and stops.
    await within(sink.stop())
    assert not [line for line in leak_check.collector.text if "HTTP11" in line]
    assert "swordfish" not in repr(sink)


@pytest_twisted.ensureDeferred
async def test_signs_each_attempt_anew(receiver: Receiver, make: Make) -> None:
    keys = (SigningKey(b"new" * 10), SigningKey(b"old" * 10))
    sink = make(receiver.url(), signing_keys=keys)
    times = [1000.0, 1000.0, 2000.0]  # the middle one reads the answer
    sink._now = lambda: times.pop(0)
    receiver.posts.answers = [500]
    await refused(sink.deliver(events(1)))
    await within(sink.deliver(events(1)))
    one, other = receiver.arrived
    assert one.body == other.body
    assert one.headers["webhook-id"] == other.headers["webhook-id"]
    assert one.headers["webhook-signature"] != other.headers["webhook-signature"]
    for arrived, now in ((one, 1000), (other, 2000)):
        assert arrived.headers["webhook-timestamp"] == str(now)
        for key in keys:
            verify([key], arrived.headers, arrived.body, now=now, tolerance=0)


@pytest_twisted.ensureDeferred
async def test_posts_in_batches(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url(), mode=WebhookMode.BATCHED, batch=3)
    assert sink.batch == 3
    await within(sink.deliver(events(3)))
    await within(sink.deliver(events(1)))
    # No pump does this, but nothing is lost by it.
    await within(sink.deliver(events(7)))
    assert ids(receiver) == ["0-2", "0-0", "0-2", "3-5", "6-6"]
    assert {each.headers["content-type"] for each in receiver.arrived} == {BATCHED}


@pytest_twisted.ensureDeferred
async def test_a_batch_is_the_same_at_each_attempt(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url(), mode=WebhookMode.BATCHED)
    receiver.posts.answers = [503]
    assert (await refused(sink.deliver(events(5)))).delivered == 0
    await within(sink.deliver(events(5)))
    one, other = receiver.arrived
    assert one.body == other.body
    assert one.headers["webhook-id"] == other.headers["webhook-id"]


@pytest_twisted.ensureDeferred
async def test_no_proxy(receiver: Receiver, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    await within(make(receiver.url()).deliver(events(1)))
    assert len(receiver.arrived) == 1


# What is answered


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest_twisted.ensureDeferred
async def test_taken(status: int, receiver: Receiver, make: Make) -> None:
    receiver.posts.answers = [status]
    await within(make(receiver.url()).deliver(events(1)))


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest_twisted.ensureDeferred
async def test_the_events_fault(status: int, receiver: Receiver, make: Make) -> None:
    receiver.posts.answers = [204, receiver.posts.say(status, b"too\nodd")]
    error = await refused(make(receiver.url()).deliver(events(3)), EventRejectedError)
    assert (error.reason, error.delivered) == (f"answered {status}: too odd", 1)
    assert ids(receiver) == ["0", "1"]


@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 307, 308, 401, 403, 404, 405, 408, 409, 421, 425, 429, 500, 599]
)
@pytest_twisted.ensureDeferred
async def test_the_receivers_fault(status: int, receiver: Receiver, make: Make) -> None:
    elsewhere = receiver.url(path="/elsewhere")
    receiver.posts.answers = [204, receiver.posts.say(status, Location=elsewhere)]
    error = await refused(make(receiver.url()).deliver(events(3)))
    assert (error.reason, error.delivered) == (f"answered {status}", 1)
    assert error.retry_after is None
    assert [each.path for each in receiver.arrived] == ["/qmp", "/qmp"]


@pytest_twisted.ensureDeferred
async def test_gone(receiver: Receiver, make: Make) -> None:
    receiver.posts.answers = [204, 410]
    error = await refused(make(receiver.url()).deliver(events(3)), GoneError)
    assert (error.reason, error.delivered) == ("answered 410", 1)


@pytest_twisted.ensureDeferred
async def test_retry_after(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    for values, wait in (
        (["7"], 7.0),
        (["nan", "-1", "3", b"\xff\xfe", "soon"], 3.0),
        (["9" * 400], MAX_RETRY_AFTER),
        ([b"\xff"], None),
    ):
        receiver.posts.answers = [receiver.posts.say(429, Retry_After=values)]
        assert (await refused(sink.deliver(events(1)))).retry_after == wait


@pytest_twisted.ensureDeferred
async def test_the_reason_has_no_secrets(receiver: Receiver, make: Make) -> None:
    """A receiver for tests may show all that came."""
    url = receiver.url(path="/qmp?token=sec%21ret&x=1")
    sink = make(url, authorization="Bearer swordfish")
    body = b"Bearer swordfish, swordfish, token=sec%21ret&x=1, sec!ret, \x1b[2J\x00"
    receiver.posts.answers = [receiver.posts.say(401, body)]
    reason = (await refused(sink.deliver(events(1)))).reason
    hidden = "[redacted]"
    assert reason == f"answered 401: {hidden}, {hidden}, {hidden}, {hidden}, ?[2J?"


# A batch with an event that is refused


class Picky:
    """Refuses posts with certain events in them."""

    def __init__(self, receiver: Receiver, *refused: int, status: int = 422) -> None:
        self.taken: list[bytes] = []
        texts = [event(number).text for number in refused]

        def answer(request: Any) -> bytes:
            request.content.seek(0)
            body = request.content.read()
            if any(text in body for text in texts):
                request.setResponseCode(status)
            else:
                self.taken.append(body)
            return b""

        receiver.posts.answers = [answer] * 1000


@pytest.mark.parametrize("guilty", range(8))
@pytest.mark.parametrize("status", [400, 413])
@pytest_twisted.ensureDeferred
async def test_only_the_guilty_is_refused(
    guilty: int, status: int, receiver: Receiver, make: Make
) -> None:
    picky = Picky(receiver, guilty, status=status)
    sink = make(receiver.url(), mode=WebhookMode.BATCHED)
    some = events(8)
    error = await refused(sink.deliver(some), EventRejectedError)
    assert error.delivered == guilty
    assert error.reason == f"answered {status}"
    assert len(receiver.arrived) <= 7
    await within(sink.deliver(some[guilty + 1 :]))
    # Each of the good ones came once, in its order.
    together = b"".join(picky.taken)
    good = [each for each in some if each.id != some[guilty].id]
    places = [together.index(each.text) for each in good]
    assert places == sorted(places)
    assert all(together.count(each.text) == 1 for each in good)


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_refuses_only_many(receiver: Receiver, make: Make) -> None:
    receiver.posts.answers = [413, 413, 413]
    await within(make(receiver.url(), mode=WebhookMode.BATCHED).deliver(events(8)))
    assert ids(receiver) == ["0-7", "0-3", "0-1", "0-0", "1-1", "2-3", "4-7"]


@pytest_twisted.ensureDeferred
async def test_trouble_while_the_guilty_is_looked_for(receiver: Receiver, make: Make) -> None:
    receiver.posts.answers = [422, 204, 503]
    sink = make(receiver.url(), mode=WebhookMode.BATCHED)
    assert (await refused(sink.deliver(events(8)))).delivered == 4
    receiver.posts.answers = [422, 204, 410]
    assert (await refused(sink.deliver(events(8)), GoneError)).delivered == 4


@pytest.mark.parametrize("mode", [WebhookMode.BINARY, WebhookMode.BATCHED])
@pytest_twisted.ensureDeferred
async def test_what_is_no_event(mode: WebhookMode, receiver: Receiver, make: Make) -> None:
    some = events(4)
    some[2] = OutgoingEvent(id=some[2].id, type="t", vm="v", text=b"\x1b nonsense")
    error = await refused(make(receiver.url(), mode=mode).deliver(some), EventRejectedError)
    assert error.delivered == 2
    assert error.reason.startswith("cannot be posted: not an event")
    assert "\x1b" not in error.reason


@pytest.mark.parametrize("id", ["", "a.b", "a\r\nb: c", "\u00e9"])
@pytest_twisted.ensureDeferred
async def test_an_id_that_no_header_takes(id: str, receiver: Receiver, make: Make) -> None:
    some = [OutgoingEvent(id=id, type="t", vm="v", text=b"{}")]
    error = await refused(make(receiver.url()).deliver(some), EventRejectedError)
    assert "cannot be the id" in error.reason
    assert receiver.arrived == []


@pytest_twisted.ensureDeferred
async def test_events_in_another_order(receiver: Receiver, make: Make) -> None:
    """Such as those that are sent anew from the dead letters."""
    sink = make(receiver.url(), mode=WebhookMode.BATCHED)
    await within(sink.deliver([event(each) for each in (3, 4, 1, 2)]))
    assert ids(receiver) == ["3-4", "1-2"]


# Receivers that are slow, endless, or no receivers


@pytest_twisted.ensureDeferred
async def test_no_answer_in_time(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url(), timeout=0.1)
    receiver.posts.answers = [receiver.posts.hang]
    error = await refused(sink.deliver(events(1)))
    assert error.reason == "connected, but no answer within 0.1 s"
    await until(lambda: receiver.open == 0)
    await within(sink.deliver(events(1)))
    assert receiver.connections == 2


@pytest_twisted.ensureDeferred
async def test_an_answer_without_an_end(receiver: Receiver, make: Make) -> None:
    """Its status has come, and counts; the connection is cut off."""
    sink = make(receiver.url(), timeout=0.1)
    receiver.posts.answers = [receiver.posts.hang_in_body(200)]
    await within(sink.deliver(events(1)))
    await until(lambda: receiver.open == 0)
    receiver.posts.answers = [receiver.posts.hang_in_body(503, b"sorry")]
    assert (await refused(sink.deliver(events(1)))).reason == "answered 503: sorry"
    await until(lambda: receiver.open == 0)


@pytest.mark.parametrize("status", [200, 500])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_long(status: int, receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    body = b"x" * (8 << 20)
    receiver.posts.answers = [receiver.posts.say(status, body)]
    if status == 200:
        await within(sink.deliver(events(1)))
    else:
        error = await refused(sink.deliver(events(1)))
        assert error.reason == f"answered 500: {'x' * 200}\u2026"
    await until(lambda: receiver.open == 0)
    await within(sink.deliver(events(1)))
    assert receiver.connections == 2


@pytest_twisted.ensureDeferred
async def test_a_body_that_can_be_read_keeps_the_connection(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.say(500, b"x" * 4096)]
    await refused(sink.deliver(events(1)))
    await within(sink.deliver(events(1)))
    assert receiver.connections == 1


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_long_is_not_waited_for(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.hang_in_body(500, b"x" * 5000)]
    assert (await refused(sink.deliver(events(1)))).reason.startswith("answered 500: xxx")
    await until(lambda: receiver.open == 0)


@pytest_twisted.ensureDeferred
async def test_the_limit_is_for_each_answer(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.say(200, b"x" * 4096)] * 20
    assert MAX_ANSWER < 20 * 4096
    await within(sink.deliver(events(20)))
    assert receiver.connections == 1


@pytest_twisted.ensureDeferred
async def test_compressed_answers_and_cookies_are_left_alone(
    receiver: Receiver, make: Make
) -> None:
    """Little of the one becomes much, and the others gather."""
    sink = make(receiver.url())
    packed = gzip.compress(b"A" * (64 << 20), 1)[:4000]
    cookie = {"Content_Encoding": "gzip", "Set_Cookie": ["a=b", b"\xff\xfe=\xff"]}
    receiver.posts.answers = [
        receiver.posts.say(500, packed, **cookie),
        receiver.posts.say(200, b"", **cookie),
    ]
    assert "AAA" not in (await refused(sink.deliver(events(1)))).reason
    await within(sink.deliver(events(1)))
    await within(sink.deliver(events(1)))
    assert receiver.connections == 1
    assert "cookie" not in receiver.arrived[-1].headers
    assert receiver.arrived[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "endless",
    [b"HTTP/1.1 100 Continue\r\n\r\n" * 100, b"X-More: and more\r\n" * 100],
    ids=["100", "headers"],
)
@pytest_twisted.ensureDeferred
async def test_a_beginning_without_an_end(endless: bytes, make: Make) -> None:
    raw = Raw(b"HTTP/1.1 200 OK\r\n" if endless[:1] == b"X" else b"", endless=endless)
    error = await refused(make(raw.url()).deliver(events(1)))
    assert error.reason == f"answered with more than {MAX_ANSWER} bytes"
    await within(raw.lost)
    await raw.stop()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers there does not speak HTTP"),
        (b"\x1b[31m\r\n\r\n", "what answers there does not speak HTTP"),
        (b"x" * 20000, "the receiver closed the connection without an answer"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_http(answer: bytes, why: str, make: Make) -> None:
    raw = Raw(answer)
    error = await refused(make(raw.url()).deliver(events(1)))
    assert error.reason.startswith(why)
    await within(raw.lost)
    await raw.stop()


@pytest_twisted.ensureDeferred
async def test_nobody_listens(receiver: Receiver, make: Make) -> None:
    url = receiver.url()
    await within(receiver.stop())
    error = await refused(make(url).deliver(events(1)))
    assert error.reason.startswith("no connection: Connection was refused")


@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_closed_meanwhile(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    await within(sink.deliver(events(1)))
    receiver.cut()
    await until(lambda: not sink._endpoint.open)
    await within(sink.deliver(events(1)))
    assert receiver.connections == 2


@pytest_twisted.ensureDeferred
async def test_nothing_is_posted_twice(receiver: Receiver, make: Make) -> None:
    """A kept connection that ends without an answer is nobody's reason to post once more."""
    sink = make(receiver.url())

    def close(request: Any) -> int:
        request.notifyFinish().addErrback(lambda reason: reason.trap(ConnectionDone, Exception))
        request.transport.abortConnection()
        return receiver.posts.hang(request)

    await within(sink.deliver(events(1)))
    receiver.posts.answers = [close]
    error = await refused(sink.deliver(events(1, start=1)))
    assert error.reason.startswith("the receiver closed the connection without an answer")
    assert ids(receiver) == ["0", "1"]


# The end


@pytest_twisted.ensureDeferred
async def test_cancelling(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [204, receiver.posts.hang]
    work = sink.deliver(events(3))
    await until(lambda: bool(receiver.posts.hanging))
    work.cancel()
    error = await refused(work)
    assert (error.reason, error.delivered) == ("given up", 1)
    await until(lambda: receiver.open == 0)
    await within(sink.deliver(events(1)))


@pytest_twisted.ensureDeferred
async def test_cancelling_where_the_status_has_come(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.hang_in_body(200)]
    work = sink.deliver(events(2))
    await until(lambda: bool(receiver.posts.hanging))
    # The status is on its way to us, as this is on its way to the receiver.
    await until(lambda: all(each.received for each in sink._endpoint.open))
    work.cancel()
    error = await refused(work)
    assert (error.reason, error.delivered) == ("given up", 1)


@pytest_twisted.ensureDeferred
async def test_beginning_anew_when_cancelled(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.hang]
    work = sink.deliver(events(1))
    await until(lambda: bool(receiver.posts.hanging))
    again = work.addErrback(lambda _: sink.deliver(events(1)))
    work.cancel()
    await within(again)
    assert ids(receiver) == ["0", "0"]


@pytest.mark.parametrize("how", ["hang", "hang in the body", "idle", "unused"])
@pytest_twisted.ensureDeferred
async def test_stopping(how: str, receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    work = None
    if how.startswith("hang"):
        posts = receiver.posts
        posts.answers = [posts.hang if how == "hang" else posts.hang_in_body(503)]
        work = sink.deliver(events(1))
        await until(lambda: bool(posts.hanging))
    elif how == "idle":
        await within(sink.deliver(events(1)))
    stopping = sink.stop()
    if work is not None:
        assert (await refused(work)).reason == "stopped"
    await within(stopping)
    assert not sink._endpoint.open
    await until(lambda: receiver.open == 0)
    assert (await refused(sink.deliver(events(1)))).reason == "stopped"
    await within(sink.stop())


@pytest_twisted.ensureDeferred
async def test_one_at_a_time(receiver: Receiver, make: Make) -> None:
    sink = make(receiver.url())
    work = sink.deliver(events(1))
    with pytest.raises(RuntimeError, match="has not ended"):
        sink.deliver(events(1))
    await within(work)


@pytest_twisted.ensureDeferred
async def test_reopening(receiver: Receiver, make: Make) -> None:
    """What is under way goes on; the next post is on a new connection."""
    sink = make(receiver.url())
    receiver.posts.answers = [receiver.posts.hang]
    work = sink.deliver(events(1))
    await until(lambda: bool(receiver.posts.hanging))
    sink.reopen()
    receiver.posts.hanging.pop().finish()
    await within(work)
    assert receiver.connections == 1
    await within(sink.deliver(events(2)))
    assert receiver.connections == 2
    await until(lambda: receiver.open == 1)
