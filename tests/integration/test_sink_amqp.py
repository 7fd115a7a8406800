"""Events to a real RabbitMQ: what it takes, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from support.amqp import data
from support.deferreds import failure, pending
from support.outgoing import VM, WHEN, event, events
from support.rabbitmq import (
    WRITER,
    MakeQueue,
    MakeSink,
    RabbitMQ,
    unique,
)
from support.waiting import until, within
from txqmp.monitor.sinks.delivery import (
    DeliveryError,
    EventRejectedError,
    OutgoingEvent,
    UnavailableError,
)


pytest_plugins = ["support.rabbitmq"]
pytestmark = pytest.mark.timeout(180)


async def problem(delivering: Deferred[None]) -> DeliveryError:
    """What a delivery fails with."""
    with pytest.raises(DeliveryError) as caught:
        await within(delivering, what="the delivery")
    assert "swordfish" not in f"{caught.value!r} {caught.value.reason}"
    return caught.value


def ids(batch: list[OutgoingEvent]) -> list[str]:
    return [each.id for each in batch]


@pytest.fixture
def exchange(rabbitmq: RabbitMQ) -> Iterator[str]:
    """An exchange that a test may do anything to."""
    name = unique("exchange")
    with rabbitmq.channel() as channel:
        channel.exchange_declare(name, "topic", durable=True)
    yield name
    with rabbitmq.channel() as channel:
        channel.exchange_delete(name)


# What it takes


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest_twisted.ensureDeferred
async def test_events_arrive_in_order(
    kind: str, make_queue: MakeQueue, make_sink: MakeSink
) -> None:
    queue = make_queue(kind)
    sink = make_sink()
    sent = events(1000)
    for start in range(0, 1000, 200):
        await within(sink.deliver(sent[start : start + 200]))
    taken = queue.take(1000)
    assert [properties.message_id for _, properties, _ in taken] == ids(sent)
    assert [body for _, _, body in taken] == [each.text for each in sent]
    method, properties, _ = taken[7]
    assert method.routing_key == f"qmp.STOP.{VM}"
    assert properties.delivery_mode == 2
    assert properties.type == "org.qemu.qmp.STOP"
    assert properties.content_type == "application/cloudevents+json; charset=utf-8"
    assert properties.app_id == "qmp-monitor"
    assert properties.timestamp == int(WHEN.timestamp())
    assert len(queue) == 0


@pytest_twisted.ensureDeferred
async def test_a_batch_larger_than_the_window(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    queue = make_queue()
    sent = events(300)
    await within(make_sink(window=7).deliver(sent))
    assert queue.ids(300) == ids(sent)


@pytest_twisted.ensureDeferred
async def test_routing(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    everything = make_queue()
    of_one_kind = make_queue(key="qmp.BLOCK_IO_ERROR.#")
    of_one_vm = make_queue(key="qmp.*.web_1")
    sent = [event(1, "STOP"), event(2, "BLOCK_IO_ERROR"), event(3, "STOP", vm="web.1")]
    await within(make_sink().deliver(sent))
    assert everything.ids(3) == ids(sent)
    assert of_one_kind.ids(1) == [sent[1].id]
    assert of_one_vm.ids(1) == [sent[2].id]


@pytest_twisted.ensureDeferred
async def test_to_write_is_all_it_needs(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    queue = make_queue()
    await within(make_sink(user=WRITER).deliver(events(3)))
    assert queue.ids(3) == ids(events(3))


# What it refuses


@pytest_twisted.ensureDeferred
async def test_no_such_exchange(make_sink: MakeSink, rabbitmq: RabbitMQ) -> None:
    name = unique("exchange")
    sink = make_sink(exchange=name)
    wrong = await problem(sink.deliver(events(1)))
    assert isinstance(wrong, UnavailableError)
    assert f"NOT_FOUND - no exchange '{name}' in vhost '/'" in wrong.reason
    assert wrong.delivered == 0


@pytest_twisted.ensureDeferred
async def test_no_permission_to_write(
    make_sink: MakeSink, exchange: str, make_queue: MakeQueue
) -> None:
    make_queue(exchange=exchange)
    sink = make_sink(user=WRITER, exchange=exchange)
    for _ in range(2):
        wrong = await problem(sink.deliver(events(3)))
        assert isinstance(wrong, UnavailableError)
        assert f"ACCESS_REFUSED - access to exchange '{exchange}' in vhost '/'" in wrong.reason


@pytest_twisted.ensureDeferred
async def test_nobody_takes_it(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    queue = make_queue(key="qmp.STOP.#")
    sink = make_sink()
    batch = [event(1), event(2), event(3, "RESUME"), event(4), event(5)]
    wrong = await problem(sink.deliver(batch))
    assert isinstance(wrong, UnavailableError)
    assert wrong.reason == f"no queue takes 'qmp.RESUME.{VM}' from exchange 'qmp': NO_ROUTE"
    assert wrong.delivered == 2
    assert queue.ids(4) == ids([batch[0], batch[1], batch[3], batch[4]])

    # Those behind it do not arrive again with each attempt, but with the one that succeeds.
    for _ in range(3):
        assert (await problem(sink.deliver(batch[2:]))).delivered == 0
    assert len(queue) == 0
    resumed = make_queue(key="qmp.RESUME.#")
    await within(sink.deliver(batch[2:]))
    assert resumed.ids(1) == [batch[2].id]
    assert queue.ids(2) == ids(batch[3:])


@pytest_twisted.ensureDeferred
async def test_a_full_queue(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    queue = make_queue("classic", max_length=10, overflow="reject-publish")
    sink = make_sink()
    batch = events(30)
    wrong = await problem(sink.deliver(batch))
    assert isinstance(wrong, UnavailableError)
    assert "nack" in wrong.reason
    assert wrong.delivered == 10
    assert (await problem(sink.deliver(batch[10:]))).delivered == 0
    first = queue.ids(10)
    await within(sink.deliver(batch[10:20]))
    assert [*first, *queue.ids(10)] == ids(batch[:20])


@pytest_twisted.ensureDeferred
async def test_an_event_that_is_too_large(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    queue = make_queue()
    sink = make_sink()
    batch = [event(1), event(2), event(3, data=data(b"x" * 1_100_000)), event(4)]
    left = list(batch)
    size = len(batch[2].text)
    attempts = 0
    while True:
        wrong = await problem(sink.deliver(left))
        del left[: wrong.delivered]
        attempts += 1
        if isinstance(wrong, EventRejectedError):
            break
        assert f"PRECONDITION_FAILED - message size {size} is larger than" in wrong.reason
    assert attempts <= 2
    assert left == batch[2:]
    assert wrong.reason == f"the event has {size} bytes, and the broker takes 1048576"
    await within(sink.deliver(left[1:]))
    arrived = queue.ids(10)
    assert list(dict.fromkeys(arrived)) == ids([batch[0], batch[1], batch[3]])


@pytest_twisted.ensureDeferred
async def test_large_events_that_are_not(make_queue: MakeQueue, make_sink: MakeSink) -> None:
    """Each goes in several frames."""
    queue = make_queue()
    batch = [event(number, data=data(b"%d" % number * 1_000_000)) for number in range(10)]
    await within(make_sink().deliver(batch))
    assert [body for _, _, body in queue.take(10)] == [each.text for each in batch]


@pytest_twisted.ensureDeferred
async def test_the_exchange_goes_and_comes_back(
    make_sink: MakeSink, make_queue: MakeQueue, exchange: str, rabbitmq: RabbitMQ
) -> None:
    """The channel ends with it; the connection is kept."""
    make_queue(exchange=exchange)
    sink = make_sink(exchange=exchange)
    await within(sink.deliver(events(3)))
    connection = sink._connection
    with rabbitmq.channel() as channel:
        channel.exchange_delete(exchange)
    for _ in range(2):
        wrong = await problem(sink.deliver(events(3, start=3)))
        assert f"NOT_FOUND - no exchange '{exchange}' in vhost '/'" in wrong.reason
        assert wrong.delivered == 0
    with rabbitmq.channel() as channel:
        channel.exchange_declare(exchange, "topic", durable=True)
    queue = make_queue(exchange=exchange)
    await within(sink.deliver(events(3, start=3)))
    assert queue.ids(3) == ids(events(3, start=3))
    assert sink._connection is connection


# A broker that is stuck


@pytest_twisted.ensureDeferred
async def test_out_of_memory(
    make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ
) -> None:
    queue = make_queue()
    sink = make_sink(blocked_timeout=1, confirm_timeout=0.5)
    await within(sink.deliver(events(1)))
    rabbitmq.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        delivering = sink.deliver(events(200, start=1))
        await until(lambda: sink.blocked)
        assert sink.blocked == "low on memory"
        wrong = await problem(delivering)
        assert isinstance(wrong, UnavailableError)
        assert wrong.reason == "the broker took nothing for 1 s: low on memory"
    finally:
        rabbitmq.control("set_vm_memory_high_watermark", "0.4")
    await within(sink.deliver(events(200, start=1 + wrong.delivered)))
    arrived = queue.ids(1000)
    assert list(dict.fromkeys(arrived)) == ids(events(201))


@pytest_twisted.ensureDeferred
async def test_stopped_while_the_broker_is_stuck(
    make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ
) -> None:
    make_queue()
    sink = make_sink()
    await within(sink.deliver(events(1)))
    with rabbitmq.paused():
        # More than the system holds for a connection.
        large = data(b"x" * 200_000)
        delivering = sink.deliver([event(number, data=large) for number in range(200)])
        await a_while()
        pending(delivering)
        stopped = sink.stop()
        assert failure(delivering, UnavailableError).value.reason == "given up"
        await within(stopped, 5, "the sink's end")


@pytest_twisted.ensureDeferred
async def test_stopped_in_good_order_while_the_broker_is_stuck(
    make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ
) -> None:
    make_queue()
    sink = make_sink()
    await within(sink.deliver(events(1)))
    with rabbitmq.paused():
        await within(sink.stop(), 5, "the sink's end")


@pytest_twisted.ensureDeferred
async def test_no_confirmation(
    make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ
) -> None:
    queue = make_queue()
    sink = make_sink(confirm_timeout=0.3)
    await within(sink.deliver(events(1)))
    with rabbitmq.paused():
        wrong = await problem(sink.deliver(events(3, start=1)))
        assert isinstance(wrong, UnavailableError)
        assert wrong.reason == "the broker confirmed nothing for 0.3 s"
    await within(sink.deliver(events(3, start=1)))
    arrived = queue.ids(10)
    assert list(dict.fromkeys(arrived)) == ids(events(4))


@pytest_twisted.ensureDeferred
async def test_cancelled(make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ) -> None:
    """The connection is of no use any more, even if the next batch comes at once."""
    make_queue()
    sink = make_sink()
    await within(sink.deliver(events(1)))
    with rabbitmq.paused():
        delivering = sink.deliver(events(3, start=1))
        delivering.cancel()
        assert failure(delivering, UnavailableError).value.reason == "given up"
        delivering = sink.deliver(events(3, start=1))
    await within(delivering)


async def a_while() -> None:
    """Let the reactor turn for a moment in which something must not happen."""
    from twisted.internet import reactor

    await deferLater(reactor, 0.3)
