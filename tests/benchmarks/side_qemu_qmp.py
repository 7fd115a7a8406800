"""The side of ``qemu.qmp``: the same tasks as a user of that library would write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from qemu.qmp import EventListener, QMPClient

from benchmarks.meters import Stopwatch, Taken, resident_bytes


BATCH = 50


def run(serve: Callable[[Any], Coroutine[Any, Any, None]], path: str) -> None:
    """Serve tasks under asyncio."""
    asyncio.run(serve(Tasks(path)))


class Tasks:
    """What can be measured."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def _connect(self) -> QMPClient:
        qmp = QMPClient("bench")
        await qmp.connect(self._path)
        return qmp

    async def _connect_many(self, count: int) -> list[QMPClient]:
        clients: list[QMPClient] = []
        while len(clients) < count:
            batch = min(BATCH, count - len(clients))
            clients += await asyncio.gather(*[self._connect() for _ in range(batch)])
        return clients

    async def serial(self, count: int) -> Taken:
        """One command after another."""
        qmp = await self._connect()
        await qmp.execute("query-status")
        watch = Stopwatch()
        for _ in range(count):
            await qmp.execute("query-status")
        taken = watch.read()
        await qmp.disconnect()
        return taken

    async def callers(self, callers: int, count: int, window: int) -> Taken:
        """Many tasks at once, each with one command after another. There is no window."""
        qmp = await self._connect()
        await qmp.execute("query-status")

        async def call() -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await asyncio.gather(*[call() for _ in range(callers)])
        taken = watch.read()
        await qmp.disconnect()
        return taken

    async def events(self, count: int) -> Taken:
        """Events to one listener."""
        qmp = await self._connect()
        listener = EventListener()
        qmp.register_listener(listener)
        await qmp.execute("query-status")

        async def take() -> None:
            for _ in range(count):
                await listener.get()

        watch = Stopwatch()
        await asyncio.gather(take(), qmp.execute("flood", {"events": count}))
        taken = watch.read()
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
        for qmp in await self._connect_many(BATCH):
            await qmp.disconnect()
        before = resident_bytes()
        clients = await self._connect_many(connections)
        grown = resident_bytes() - before
        return grown / len(clients)

    async def commands(self, connections: int, count: int) -> Taken:
        """Some commands on each of many connections."""
        clients = await self._connect_many(connections)

        async def call(qmp: QMPClient) -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await asyncio.gather(*[call(qmp) for qmp in clients])
        return watch.read()
