"""RabbitMQ is killed while events are on their way to it."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from support.outgoing import events
from support.rabbitmq import MakeQueue, MakeSink, RabbitMQ
from support.waiting import until, within
from txqmp.monitor.sinks.amqp.delivery import AMQPDelivery
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError


pytest_plugins = ["support.rabbitmq"]
pytestmark = pytest.mark.timeout(300)

COUNT = 5000


class Pump:
    """Hands over all events, as the daemon does: a batch after another, and again what failed.

    :ivar crossed_off: how many have been taken.
    :ivar reasons: why batches failed.
    """

    def __init__(self, sink: AMQPDelivery, sent: list[OutgoingEvent]) -> None:
        self._sink = sink
        self._sent = sent
        self.crossed_off = 0
        self.reasons: list[str] = []

    async def run(self) -> None:
        while self.crossed_off < len(self._sent):
            batch = self._sent[self.crossed_off : self.crossed_off + self._sink.batch]
            try:
                await self._sink.deliver(batch)
            except UnavailableError as problem:
                self.crossed_off += problem.delivered
                self.reasons.append(problem.reason)
                await deferLater(reactor, 0.1)
            else:
                self.crossed_off += len(batch)


@pytest_twisted.ensureDeferred
async def test_killed_in_mid_stream(
    make_queue: MakeQueue, make_sink: MakeSink, rabbitmq: RabbitMQ
) -> None:
    """All that was handed over arrives, in its order; what arrives twice has the same id."""
    queues = [make_queue("quorum"), make_queue("classic")]
    await until(lambda: rabbitmq.would_remember(queues[0].name))
    sink = make_sink()
    sent = events(COUNT)
    pump = Pump(sink, sent)
    pumping = Deferred.fromCoroutine(pump.run())
    await until(lambda: pump.crossed_off >= 1000)
    await deferLater(reactor, 0.002)
    rabbitmq.kill()
    crossed_off = pump.crossed_off
    assert crossed_off < COUNT
    await until(lambda: pump.reasons)
    await within(deferToThread(rabbitmq.start), 90, "the broker's start")
    await within(pumping, 90, "the pump")

    for queue in queues:
        taken = queue.take(2 * COUNT)
        ids = [properties.message_id for _, properties, _ in taken]
        assert list(dict.fromkeys(ids)) == [each.id for each in sent]
        assert len(ids) - COUNT <= sink.batch
        texts = {each.id: each.text for each in sent}
        assert all(texts[properties.message_id] == body for _, properties, body in taken)
