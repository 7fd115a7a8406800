"""The floor under txqmp: Twisted with the least protocol that can do the tasks, and no checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from benchmarks.meters import Stopwatch, Taken


def run(serve: Callable[[Any], Awaitable[None]], path: str) -> None:
    """Serve tasks under the reactor."""
    react(lambda reactor: Deferred.fromCoroutine(serve(Tasks(reactor, path))))


class BareQMP(Protocol):
    """A dict of Deferreds, and a counter of events."""

    def __init__(self) -> None:
        self.events = 0
        self.lost: Deferred[None] = Deferred()
        self._number = 0
        self._held = b""
        self._pending: dict[Any, Deferred[Any]] = {}

    def execute(self, cmd: str, arguments: dict[str, Any] | None = None) -> Deferred[Any]:
        self._number += 1
        deferred: Deferred[Any] = Deferred()
        self._pending[f"b-{self._number}"] = deferred
        message = {"execute": cmd, "arguments": arguments or {}, "id": f"b-{self._number}"}
        self.transport.write(orjson.dumps(message) + b"\n")
        return deferred

    def disconnect(self) -> Deferred[None]:
        self.transport.loseConnection()
        return self.lost

    def connectionLost(self, reason: Any) -> None:
        self.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        lines = (self._held + data).split(b"\n")
        self._held = lines.pop()
        for line in lines:
            message = orjson.loads(line)
            if "event" in message:
                self.events += 1
            elif "id" in message:
                self._pending.pop(message["id"]).callback(message["return"])


class Tasks:
    """What can be measured."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._endpoint = UNIXClientEndpoint(reactor, path)

    async def _connect(self) -> BareQMP:
        factory = Factory.forProtocol(BareQMP)
        factory.noisy = False
        qmp: BareQMP = await self._endpoint.connect(factory)
        await qmp.execute("qmp_capabilities")
        return qmp

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
        """Many callers at once, each with one command after another. There is no window."""
        qmp = await self._connect()

        async def call() -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await gatherResults([Deferred.fromCoroutine(call()) for _ in range(callers)])
        taken = watch.read()
        await qmp.disconnect()
        return taken

    async def events(self, count: int) -> Taken:
        """Events that are counted."""
        qmp = await self._connect()
        watch = Stopwatch()
        await qmp.execute("flood", {"events": count})
        taken = watch.read()
        if qmp.events != count:
            raise RuntimeError(f"{qmp.events} of {count} events came")
        await qmp.disconnect()
        return taken

    async def commands(self, connections: int, count: int) -> Taken:
        """Some commands on each of many connections."""
        sessions = [await self._connect() for _ in range(connections)]

        async def call(qmp: BareQMP) -> None:
            for _ in range(count):
                await qmp.execute("query-status")

        watch = Stopwatch()
        await gatherResults([Deferred.fromCoroutine(call(qmp)) for qmp in sessions])
        return watch.read()
