"""The sink that publishes, with a broker in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from pika import spec
from pika.frame import ProtocolHeader
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock

from support.amqp import BrokerEnd, FakeBroker, data, returned, settings
from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from support.outgoing import event, events
from txqmp.monitor.sinks.amqp.connection import CLOSING
from txqmp.monitor.sinks.amqp.delivery import WINDOWS, AMQPDelivery
from txqmp.monitor.sinks.delivery import (
    DeliveryError,
    EventRejectedError,
    GoneError,
    UnavailableError,
)
from txqmp.reconnect import Backoff


EVERY_SECOND = Backoff(initial=1.0, maximum=8.0, factor=2.0, jitter=0.0)


class World:
    """A sink, and a broker in memory."""

    def __init__(self, clock: Clock, **changes: Any) -> None:
        self.clock = clock
        self.broker = FakeBroker()
        self.sink = AMQPDelivery(
            clock, settings(**changes), endpoint=self.broker, backoff=EVERY_SECOND
        )

    @property
    def dials(self) -> int:
        return len(self.broker.attempts)

    def run(self) -> BrokerEnd:
        """Start the sink; return the broker's end of its connection."""
        self.sink.start()
        return self.broker.serve()

    def stop(self, *ends: BrokerEnd) -> None:
        """Stop the sink, which cuts off the connections."""
        stopped = self.sink.stop()
        self.clock.advance(CLOSING)
        for end in ends:
            end.end()
        success(stopped)


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock)


@pytest.fixture
def end(world: World) -> Iterator[BrokerEnd]:
    """The broker's end of the connection, which is up."""
    end = world.run()
    yield end
    world.stop(end)


def error(delivering: Deferred[None]) -> Any:
    """What a delivery failed with."""
    return failure(delivering, DeliveryError).value


# Batches


def test_a_batch(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(3))
    published = end.published()
    assert [each.properties.message_id for each in published] == [each.id for each in events(3)]
    assert [each.body for each in published] == [each.text for each in events(3)]
    first = published[0]
    assert (first.exchange, first.mandatory) == ("qmp", True)
    assert first.key == "qmp.STOP.4c4c4544-0042-3510-8052-b4c04f4d3532"
    assert first.properties.delivery_mode == 2
    end.ack(2, multiple=True)
    pending(delivering)
    end.ack(3)
    assert success(delivering) is None


def test_batch_after_batch(world: World, end: BrokerEnd) -> None:
    for start in range(0, 9, 3):
        delivering = world.sink.deliver(events(3, start=start))
        assert len(end.published()) == 3
        end.ack(start + 3, multiple=True)
        success(delivering)


def test_an_empty_batch(world: World, end: BrokerEnd) -> None:
    success(world.sink.deliver([]))
    assert end.heard() == []


def test_no_more_than_the_window(clock: Clock) -> None:
    world = World(clock, window=2)
    end = world.run()
    assert world.sink.batch == 2 * WINDOWS
    delivering = world.sink.deliver(events(5))
    for tag, more in [(1, 1), (3, 2)]:
        assert len(end.published()) == (2 if tag == 1 else 1)
        end.ack(tag, multiple=True)
        assert tag + more <= 5
    assert len(end.published()) == 2
    end.ack(5, multiple=True)
    success(delivering)
    world.stop(end)


def test_a_large_event_goes_in_pieces(world: World, end: BrokerEnd) -> None:
    large = event(1, data=data(b"x" * 300_000))
    delivering = world.sink.deliver([large])
    (message,) = end.published()
    assert message.body == large.text
    end.ack(1)
    success(delivering)


def test_one_batch_at_a_time(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(1))
    with pytest.raises(RuntimeError, match="has not ended"):
        world.sink.deliver(events(1))
    end.ack(1)
    success(delivering)


def test_the_next_batch_from_the_callback_of_the_last(world: World, end: BrokerEnd) -> None:
    following: list[Deferred[None]] = []
    delivering = world.sink.deliver(events(1))
    delivering.addCallback(lambda _: following.append(world.sink.deliver(events(1, start=1))))
    end.ack(1)
    success(delivering)
    assert len(end.published()) == 2
    end.ack(2)
    success(following[0])


# What the broker does not take


def test_nobody_takes_it(world: World, end: BrokerEnd) -> None:
    """One confirmation covers three events, of which one has come back: that one is blamed."""
    delivering = world.sink.deliver([event(1), event(2, "RESUME"), event(3)])
    published = end.published()
    end.say(returned(published[1]), spec.Basic.Ack(3, multiple=True))
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert (problem.delivered, problem.retry_after) == (1, None)
    assert problem.reason == (f"no queue takes '{published[1].key}' from exchange 'qmp': NO_ROUTE")
    assert str(problem) == problem.reason


def test_two_that_nobody_takes(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(5))
    published = end.published()
    end.say(returned(published[3]), returned(published[2]), spec.Basic.Ack(5, multiple=True))
    assert error(delivering).delivered == 2


def test_a_nack(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(3))
    end.ack(1)
    end.nack(2)
    pending(delivering)
    end.ack(3)
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert problem.delivered == 1
    assert "nack" in problem.reason


def test_after_a_refusal_one_event_goes_ahead(world: World, end: BrokerEnd) -> None:
    """Those behind it would arrive again with each attempt."""
    delivering = world.sink.deliver(events(3))
    end.published()
    end.nack(1)
    end.ack(3, multiple=True)
    assert error(delivering).delivered == 0

    delivering = world.sink.deliver(events(3))
    assert len(end.published()) == 1
    end.nack(4)
    assert error(delivering).delivered == 0

    delivering = world.sink.deliver(events(3))
    assert len(end.published()) == 1
    end.ack(5)
    assert len(end.published()) == 2
    end.ack(7, multiple=True)
    success(delivering)

    delivering = world.sink.deliver(events(3))
    assert len(end.published()) == 3
    end.ack(10, multiple=True)
    success(delivering)


# Events that are at fault


@pytest.mark.parametrize(
    "wrong", [{"id": "x" * 256}, {"type": "ü" * 128}, {"id": "\ud800"}], ids=["id", "type", "text"]
)
def test_an_event_that_makes_no_message(
    world: World, end: BrokerEnd, wrong: dict[str, str]
) -> None:
    batch = events(4)
    batch[2] = attrs.evolve(batch[2], **wrong)
    delivering = world.sink.deliver(batch)
    assert len(end.published()) == 2
    end.ack(2, multiple=True)
    problem = error(delivering)
    assert isinstance(problem, EventRejectedError)
    assert problem.delivered == 2
    assert "makes no AMQP message" in problem.reason

    # Those behind it are not held up, and need no care.
    delivering = world.sink.deliver(batch[3:])
    assert len(end.published()) == 1
    end.ack(3)
    success(delivering)


def test_the_whole_batch_makes_no_message(world: World, end: BrokerEnd) -> None:
    problem = error(world.sink.deliver([attrs.evolve(event(1), id="x" * 256)]))
    assert isinstance(problem, EventRejectedError)
    assert problem.delivered == 0
    assert end.heard() == []


TOO_LARGE = "PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000"


def test_an_event_that_the_broker_finds_too_large(world: World, end: BrokerEnd) -> None:
    """Which one it was, it does not say, and those before it are not accounted for."""
    batch = [event(1), event(2), event(3, data=data(b"x" * 3000)), event(4)]
    delivering = world.sink.deliver(batch)
    end.published()
    end.ack(1)
    end.close_channel(406, TOO_LARGE)
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert problem.delivered == 1
    assert TOO_LARGE in problem.reason

    # Now it is known.
    delivering = world.sink.deliver(batch[1:])
    end.open_channel()
    assert len(end.published()) == 1
    end.ack(1)
    problem = error(delivering)
    assert isinstance(problem, EventRejectedError)
    assert problem.delivered == 1
    assert problem.reason == f"the event has {len(batch[2].text)} bytes, and the broker takes 2000"
    assert not end.left


def test_the_first_is_found_too_large(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver([event(1, data=data(b"x" * 3000)), event(2)])
    end.published()
    end.close_channel(406, TOO_LARGE)
    problem = error(delivering)
    assert isinstance(problem, EventRejectedError)
    assert problem.delivered == 0


# The channel


def test_no_such_exchange(world: World) -> None:
    world.sink.start()
    end = world.broker.log_in()
    delivering = world.sink.deliver(events(1))
    end.expect(spec.Channel.Open)
    end.say(spec.Channel.OpenOk())
    end.expect(spec.Exchange.Declare)
    end.close_channel(404, "NOT_FOUND - no exchange 'qmp' in vhost '/'")
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert problem.reason == (
        "the broker refused: NOT_FOUND - no exchange 'qmp' in vhost '/' (404)"
    )
    # The connection is kept, and asked again later.
    assert not end.left
    assert end.heard() == []
    world.clock.advance(1)
    end.open_channel()
    assert world.dials == 1
    world.stop(end)


def test_the_channel_ends_under_a_batch(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(3))
    end.published()
    end.ack(1)
    end.close_channel(404, "NOT_FOUND - no exchange 'qmp' in vhost '/'")
    assert error(delivering).delivered == 1

    delivering = world.sink.deliver(events(2, start=1))
    end.open_channel()
    assert world.dials == 1
    assert len(end.published()) == 1
    # The tags begin anew.
    end.ack(1)
    assert len(end.published()) == 1
    end.ack(2)
    success(delivering)


def test_a_confirmation_that_comes_late(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(1))
    end.ack(1)
    success(delivering)
    end.ack(1)
    end.nack(7)


# Connecting


def test_the_login(clock: Clock) -> None:
    world = World(clock, vhost="vms", heartbeat=7)
    world.sink.start()
    end = world.broker.accept()
    end.expect(ProtocolHeader)
    end.greet()
    start = end.expect(spec.Connection.StartOk)
    assert (start.mechanism, start.response) == ("PLAIN", b"\0qmp\0swordfish")
    assert start.client_properties["connection_name"] == "qmp-monitor"
    end.say(spec.Connection.Tune(2047, 131072, 60), channel=0)
    words = end.heard()
    assert words[0].heartbeat == 7
    assert words[1].virtual_host == "vms"
    world.stop(end)


def test_a_batch_dials(world: World) -> None:
    """Even if nobody has started it."""
    delivering = world.sink.deliver(events(1))
    end = world.broker.serve()
    end.published()
    end.ack(1)
    success(delivering)
    world.stop(end)


def test_a_batch_waits_for_the_attempt_that_is_under_way(world: World) -> None:
    world.sink.start()
    delivering = world.sink.deliver(events(1))
    assert world.dials == 1
    end = world.broker.serve()
    end.published()
    end.ack(1)
    success(delivering)
    world.stop(end)


def test_refused(world: World) -> None:
    world.sink.start()
    delivering = world.sink.deliver(events(1))
    world.broker.refuse(ConnectionRefusedError())
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert problem.reason.startswith("no connection: Connection was refused")
    assert problem.delivered == 0

    # It goes on trying, and less and less often.
    for dials, wait in [(2, 1), (3, 2), (4, 4), (5, 8), (6, 8)]:
        world.clock.advance(wait - 0.1)
        assert world.dials == dials - 1
        world.clock.advance(0.1)
        assert world.dials == dials
        world.broker.refuse(ConnectionRefusedError())
    world.stop()


@pytest.mark.parametrize("how", ["deliver", "reopen"])
def test_the_wait_ends_where_somebody_asks(world: World, how: str) -> None:
    world.sink.start()
    world.broker.refuse(ConnectionRefusedError())
    delivering = world.sink.deliver(events(1)) if how == "deliver" else world.sink.reopen()
    assert world.dials == 2
    end = world.broker.serve()
    if delivering is not None:
        end.ack(1)
        success(delivering)
    world.stop(end)


def test_a_retry_from_the_errback(world: World) -> None:
    """It is not asked for, but must not go round and round."""
    again: list[Deferred[None]] = []
    delivering = world.sink.deliver(events(1))
    delivering.addErrback(lambda _: again.append(world.sink.deliver(events(1))))
    world.broker.refuse(ConnectionRefusedError())
    success(delivering)
    assert world.dials == 2
    end = world.broker.serve()
    end.ack(1)
    success(again[0])
    world.stop(end)


def test_nobody_is_there(world: World) -> None:
    delivering = world.sink.deliver(events(1))
    world.clock.advance(9.9)
    pending(delivering)
    world.clock.advance(0.1)
    assert error(delivering).reason == "no connection within 10 s"
    assert world.broker.cancelled == 1
    world.stop()


def test_somebody_is_there_and_says_nothing(world: World) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    world.clock.advance(10)
    assert end.left
    pending(delivering)
    end.end()
    assert error(delivering).reason == (
        "connected, but nobody answers as a broker does within 10 s"
    )
    world.stop()


@pytest.mark.parametrize("last", [spec.Channel.OpenOk(), None])
def test_the_channel_does_not_come(world: World, last: Any) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.log_in()
    if last is not None:
        end.say(last)
    world.clock.advance(10)
    assert error(delivering).reason == "connected, but the broker opens no channel within 10 s"
    assert end.left
    end.end()
    world.stop()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x0a", "what answers there speaks TLS"),
        (b"AMQP\x00\x01\x00\x00", "the broker does not speak AMQP 0-9-1"),
        (
            b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
            "what answers there does not speak AMQP: it begins with b'SSH-2.0-OpenSSH_'",
        ),
    ],
)
def test_something_else_answers(world: World, said: bytes, reason: str) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    end.protocol.dataReceived(said)
    assert end.left
    end.end()
    assert error(delivering).reason == reason
    world.stop()


def test_no_way_to_log_in(world: World, caplog: pytest.LogCaptureFixture) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    end.greet("EXTERNAL")
    end.end()
    assert error(delivering).reason == "the broker does not offer the way to log in, PLAIN"
    assert "swordfish" not in caplog.text
    world.stop()


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        ("greeting", " in place of a greeting"),
        ("login", " at the login"),
        ("vhost", " when the virtual host was asked for"),
    ],
)
def test_the_broker_hangs_up(world: World, phase: str, where: str) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    if phase != "greeting":
        end.greet()
    if phase == "vhost":
        end.say(spec.Connection.Tune(2047, 131072, 60), channel=0)
    end.end()
    assert error(delivering).reason == (
        f"the broker closed the connection{where} (Connection was closed cleanly)"
    )
    world.stop()


def test_the_broker_says_why_it_hangs_up(world: World) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    end.greet()
    end.say(spec.Connection.Close(403, "ACCESS_REFUSED - no", 0, 0), channel=0)
    assert end.left
    end.end()
    assert error(delivering).reason == (
        "the broker refused the login of user 'qmp': ACCESS_REFUSED - no (403)"
    )
    world.stop()


# Connections that end


def test_lost_under_a_batch(world: World, end: BrokerEnd) -> None:
    delivering = world.sink.deliver(events(5))
    end.ack(2, multiple=True)
    end.ack(4)
    end.end(ConnectionLost())
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert problem.delivered == 2
    assert problem.reason.startswith("the connection to the broker was lost (Connection to the")

    delivering = world.sink.deliver(events(3, start=2))
    again = world.broker.serve()
    assert len(again.published()) == 1
    again.ack(1)
    assert len(again.published()) == 2
    again.ack(3, multiple=True)
    success(delivering)
    world.stop(again)


def test_lost_when_nothing_was_under_way(world: World, end: BrokerEnd) -> None:
    world.clock.advance(5)
    end.say(spec.Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0), channel=0)
    end.end()
    assert world.dials == 1
    world.clock.advance(1)
    assert world.dials == 2
    again = world.broker.serve()
    delivering = world.sink.deliver(events(1))
    again.ack(1)
    success(delivering)
    world.stop(again)


def test_lost_after_the_channel(world: World, end: BrokerEnd) -> None:
    end.close_channel(541, "INTERNAL_ERROR")
    end.end()
    world.clock.advance(1)
    assert world.dials == 2
    world.stop(world.broker.serve())


def test_asking_for_a_channel_of_a_lost_connection(world: World, end: BrokerEnd) -> None:
    """It fails, and does not raise."""
    end.end()
    asking = Deferred.fromCoroutine(end.protocol.open_channel())
    assert failure(asking, UnavailableError).value.reason.startswith("the connection to")
    success(end.protocol.when_lost())


def test_what_a_broker_must_not_say(
    world: World, end: BrokerEnd, logged_errors: LoggedErrors
) -> None:
    """A reactor ends the connection then."""
    delivering = world.sink.deliver(events(1))
    with pytest.raises(KeyError) as caught:
        end.protocol.dataReceived(b"\x01\x00\x01\x00\x00\x00\x04\xff\xff\xff\xff\xce")
    end.end(caught.value)
    assert error(delivering).reason.startswith("KeyError: ")


def test_no_sign_of_life(clock: Clock) -> None:
    world = World(clock, heartbeat=10)
    end = world.run()
    delivering = world.sink.deliver(events(1))
    clock.pump([5] * 6)
    assert end.left
    # It does not take the news either.
    assert not end.transport.aborting
    clock.advance(CLOSING)
    assert end.transport.aborting
    end.end()
    assert error(delivering).reason == "the broker gives no sign of life"
    world.stop()


def test_no_confirmation(clock: Clock) -> None:
    world = World(clock, confirm_timeout=60)
    end = world.run()
    delivering = world.sink.deliver(events(2))
    clock.advance(59)
    end.ack(1)
    clock.advance(59)
    pending(delivering)
    assert not end.left
    clock.advance(1)
    assert end.left
    end.end()
    problem = error(delivering)
    assert (problem.delivered, problem.reason) == (1, "the broker confirmed nothing for 60 s")
    world.stop()


def test_blocked(clock: Clock) -> None:
    world = World(clock, confirm_timeout=5, blocked_timeout=60)
    end = world.run()
    delivering = world.sink.deliver(events(1))
    assert world.sink.blocked is None
    end.say(spec.Connection.Blocked("low on memory"), channel=0)
    assert world.sink.blocked == "low on memory"
    clock.pump([5] * 11)
    end.say(spec.Connection.Unblocked(), channel=0)
    assert world.sink.blocked is None
    clock.advance(4)
    end.say(spec.Connection.Blocked("low on disk"), channel=0)
    clock.pump([5] * 12)
    assert end.left
    end.end()
    assert error(delivering).reason == "the broker took nothing for 60 s: low on disk"
    assert world.sink.blocked is None
    world.stop()


# The end


def test_stopped_in_good_order(world: World) -> None:
    end = world.run()
    stopped = world.sink.stop()
    end.expect(spec.Channel.Close)
    end.say(spec.Channel.CloseOk())
    end.expect(spec.Connection.Close)
    end.say(spec.Connection.CloseOk(), channel=0)
    assert end.left
    pending(stopped)
    end.end()
    success(stopped)
    success(world.sink.stop())
    assert error(world.sink.deliver(events(1))).reason == "stopped"
    world.sink.start()
    assert world.dials == 1


def test_stopped_while_the_broker_does_not_answer(world: World) -> None:
    end = world.run()
    stopped = world.sink.stop()
    world.clock.advance(CLOSING)
    assert end.transport.aborting
    pending(stopped)
    end.end()
    success(stopped)


def test_stopped_under_a_batch(world: World) -> None:
    end = world.run()
    delivering = world.sink.deliver(events(3))
    end.ack(1)
    stopped = world.sink.stop()
    problem = error(delivering)
    assert isinstance(problem, UnavailableError)
    assert (problem.delivered, problem.reason) == (1, "given up")
    assert end.transport.aborting
    end.end()
    success(stopped)


def test_stopped_while_it_connects(world: World) -> None:
    delivering = world.sink.deliver(events(1))
    success(world.sink.stop())
    assert world.broker.cancelled == 1
    assert error(delivering).reason == "given up"


def test_stopped_while_it_logs_in(world: World) -> None:
    delivering = world.sink.deliver(events(1))
    end = world.broker.accept()
    stopped = world.sink.stop()
    assert error(delivering).reason == "given up"
    pending(stopped)
    assert end.transport.aborting
    end.end()
    success(stopped)


def test_stopped_while_it_opens_a_channel(world: World) -> None:
    world.sink.start()
    end = world.broker.log_in()
    stopped = world.sink.stop()
    assert end.transport.aborting
    pending(stopped)
    end.end()
    success(stopped)


def test_stopped_while_it_waits(world: World) -> None:
    world.sink.start()
    world.broker.refuse(ConnectionRefusedError())
    success(world.sink.stop())


def test_cancelled(world: World, end: BrokerEnd) -> None:
    """Its messages may be confirmed later: the connection is of no use any more."""
    delivering = world.sink.deliver(events(2))
    end.ack(1)
    delivering.cancel()
    assert error(delivering).delivered == 1
    assert end.transport.aborting
    end.ack(2)
    delivering = world.sink.deliver(events(1, start=1))
    end.end()
    again = world.broker.serve()
    again.ack(1)
    success(delivering)
    world.stop(again)


# What people see


def test_names_and_secrets(clock: Clock) -> None:
    sink = AMQPDelivery(clock, settings(vhost="vms"))
    assert sink.name == "amqp://localhost:5672 vhost vms exchange qmp"
    assert sink.batch == 200 * WINDOWS
    assert "swordfish" not in f"{sink!r} {vars(sink)!r}"


def test_pikas_words_are_not_for_everybody(
    world: World, end: BrokerEnd, caplog: pytest.LogCaptureFixture
) -> None:
    """At its default level it logs the bodies of what is returned, and each nack."""
    delivering = world.sink.deliver([event(1, data=data(b"what a guest has said")), event(2)])
    message, _ = end.published()
    end.say(returned(message), spec.Basic.Ack(1, False), spec.Basic.Nack(2, False))
    assert error(delivering).delivered == 0
    assert caplog.text == ""


def test_errors() -> None:
    for kind in (EventRejectedError, UnavailableError, GoneError):
        problem: DeliveryError = kind("why", 3)
        assert (str(problem), problem.reason, problem.delivered) == ("why", "why", 3)
    assert UnavailableError("why", retry_after=5).retry_after == 5


PROGRAM = """
import sys
from txqmp.monitor.sinks.amqp import AMQPSettings, amqp_delivery
from txqmp.monitor.sinks.delivery import Delivery
assert not {"pika", "twisted.internet.reactor"} & set(sys.modules)
sys.modules["pika"] = None
try:
    amqp_delivery(None, AMQPSettings(host="localhost", user="u"))
except ImportError as error:
    print(error)
"""


def test_pika_is_not_needed_before() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout == (
        "RabbitMQ needs pika, which is not installed: pip install 'txqmp[amqp]'\n"
    )
