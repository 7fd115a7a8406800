"""The side of txqmp: each task as a user of the library would write it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.meters import Stopwatch, Taken, resident_bytes
from txqmp import Event, QMPClientFactory, QMPProtocol, SessionSettings, connect


BATCH = 50


def run(serve: Callable[[Any], Awaitable[None]], path: str) -> None:
    """Serve tasks under the reactor."""
    react(lambda reactor: Deferred.fromCoroutine(serve(Tasks(reactor, path))))


class Tasks:
    """What can be measured."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    async def _connect(self, window: int = 8) -> QMPProtocol:
        settings = SessionSettings(window=window)
        qmp = await connect(self._reactor, self._path, settings=settings)
        await qmp.execute("query-status")
        return qmp

    async def _connect_many(self, count: int) -> list[QMPProtocol]:
        sessions: list[QMPProtocol] = []
        while len(sessions) < count:
            batch = min(BATCH, count - len(sessions))
            sessions += await gatherResults(
                [connect(self._reactor, self._path) for _ in range(batch)]
            )
        return sessions

    async def serial(self, count: int) -> Taken:
        """One command after another."""
        qmp = await self._connect()
        watch = Stopwatch()
        for _ in range(count):
            await qmp.execute("query-status")
        taken = watch.read()
        await qmp.disconnect()
        return taken

    async def callers(self, callers: int, count: int, window: int) -> Taken:
        """Many callers at once, each with one command after another."""
        qmp = await self._connect(window)

        async def call() -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await gatherResults([Deferred.fromCoroutine(call()) for _ in range(callers)])
        taken = watch.read()
        await qmp.disconnect()
        return taken

    async def events(self, count: int) -> Taken:
        """Events to one subscriber."""
        qmp = await self._connect()
        came = 0

        def take(event: Event) -> None:
            nonlocal came
            came += 1

        qmp.subscribe(take)
        watch = Stopwatch()
        await qmp.execute("flood", {"events": count})
        taken = watch.read()
        if came != count:
            raise RuntimeError(f"{came} of {count} events came")
        await qmp.disconnect()
        return taken

    async def bulk(self, size: int) -> Taken:
        """One large reply."""
        qmp = await self._connect()
        watch = Stopwatch()
        text = await qmp.execute("bulk", {"bytes": size})
        taken = watch.read()
        if len(text) != size:
            raise RuntimeError(f"{len(text)} of {size} bytes came")
        await qmp.disconnect()
        return taken

    async def memory(self, connections: int) -> float:
        """Bytes for each connection."""
        warm = await self._connect_many(BATCH)
        await gatherResults([qmp.disconnect() for qmp in warm])
        del warm
        before = resident_bytes()
        sessions = await self._connect_many(connections)
        grown = resident_bytes() - before
        return grown / len(sessions)

    async def kept_up_memory(self, connections: int) -> float:
        """Bytes for each connection, where a factory keeps it up and somebody subscribed."""
        warm = await self._connect_many(BATCH)
        await gatherResults([qmp.disconnect() for qmp in warm])
        del warm
        before = resident_bytes()
        factories = []
        while len(factories) < connections:
            batch = min(BATCH, connections - len(factories))
            new = [QMPClientFactory(self._reactor) for _ in range(batch)]
            for factory in new:
                factory.subscribe(print)
                factory.dial(self._path)
            await gatherResults([factory.when_ready() for factory in new])
            factories += new
        grown = resident_bytes() - before
        return grown / len(factories)

    async def commands(self, connections: int, count: int) -> Taken:
        """Some commands on each of many connections."""
        sessions = await self._connect_many(connections)

        async def call(qmp: QMPProtocol) -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await gatherResults([Deferred.fromCoroutine(call(qmp)) for qmp in sessions])
        return watch.read()
