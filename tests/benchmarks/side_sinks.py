"""The side of the sinks: what is in a spool is delivered as the daemon delivers it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.events import ENVELOPE, item
from benchmarks.meters import Stopwatch, Taken
from txqmp.monitor.config import SinkSettings
from txqmp.monitor.pump import SinkPump
from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.amqp import AMQPSettings
from txqmp.monitor.sinks.make import make_delivery
from txqmp.monitor.sinks.settings import JSONLSettings, WebhookMode, WebhookSettings
from txqmp.monitor.spool import Spool, SpoolLimits, Start, make_spool
from txqmp.monitor.spool.store import Store


LIMITS = SpoolLimits(max_bytes=1 << 30, keep_bytes=1 << 30)


def run(serve: Callable[[Any], Awaitable[None]], path: str) -> None:
    """Serve tasks under the reactor."""
    react(lambda reactor: Deferred.fromCoroutine(serve(Tasks(reactor))))


class Tasks:
    """What can be measured."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def jsonl(self, count: int) -> Taken:
        """To a file."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "events.jsonl")
            taken = await self._deliver(JSONLSettings(path=path), count)
            with open(path, "rb") as file:
                written = sum(1 for _ in file)
        if written != count:
            raise RuntimeError(f"{written} of {count} lines were written")
        return taken

    async def webhook(self, count: int, port: int, mode: str) -> Taken:
        """To a webhook, each post signed."""
        settings = WebhookSettings(
            url=f"http://127.0.0.1:{port}/",
            mode=WebhookMode(mode),
            signing_keys=(SigningKey(bytes(32)),),
        )
        return await self._deliver(settings, count)

    async def amqp(self, count: int, port: int, user: str, password: str) -> Taken:
        """To a broker, each event confirmed."""
        settings = AMQPSettings(host="127.0.0.1", port=port, user=user, password=password)
        return await self._deliver(settings, count)

    async def _deliver(self, settings: SinkSettings, count: int) -> Taken:
        """Deliver so many events, until it is written down that the last one is delivered."""
        with tempfile.TemporaryDirectory() as directory:
            store = Store(directory, LIMITS)
            for begin in range(0, count, 5000):
                items = [item(number) for number in range(begin, min(begin + 5000, count))]
                store.commit((), items, self._reactor.seconds())
            store.close()
            spool = make_spool(self._reactor, directory, LIMITS)
            await spool.start()
            delivery = make_delivery(self._reactor, settings)
            pump = SinkPump(self._reactor, spool, "sink", delivery, ENVELOPE, begin=Start.BEGINNING)
            watch = Stopwatch()
            pump.start()
            await self._until_delivered(spool, count)
            taken = watch.read()
            await pump.stop()
            await spool.close()
        if pump.counters.sent != count or pump.counters.failures:
            raise RuntimeError(f"{pump.counters.sent} of {count} events sent: {pump.problem}")
        return taken

    def _until_delivered(self, spool: Spool, count: int) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def look() -> None:
            if spool.state.sinks and spool.state.sinks[0].acked == count:
                done.callback(None)
            else:
                self._reactor.callLater(0.002, look)

        look()
        return done
