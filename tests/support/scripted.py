"""A peer on a real UNIX socket that does what a script says, be it QMP or not.

It is for what a real QEMU does too rarely to wait for, or never.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure


GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
        "capabilities": ["oob"],
    }
}


class Caller(LineOnlyReceiver):
    """One client, from the script's side."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 30

    def __init__(self) -> None:
        self._commands: DeferredQueue[dict[str, Any]] = DeferredQueue()
        self._gone: Deferred[None] | None = None
        self.connected_now = False

    def connectionMade(self) -> None:
        self.connected_now = True

    def lineReceived(self, line: bytes) -> None:
        if line.strip():
            self._commands.put(json.loads(line))

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        self.connected_now = False
        gone, self._gone = self._gone, None
        if gone is not None:
            gone.callback(None)

    # What a script calls

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Write messages, or bytes as they are."""
        self.transport.write(
            b"".join(
                each if isinstance(each, bytes) else json.dumps(each).encode() + b"\r\n"
                for each in messages
            )
        )

    def receive(self) -> Deferred[dict[str, Any]]:
        """Return a Deferred of the next command."""
        return self._commands.get()

    async def negotiate(self) -> None:
        """Greet, and take what the client says to it."""
        self.send(GREETING)
        await self.answer()

    async def answer(self, value: Any = None) -> dict[str, Any]:
        """Answer the next command with success, and return it."""
        command = await self.receive()
        self.send({"return": {} if value is None else value, "id": command.get("id")})
        return command

    def gone(self) -> Deferred[None]:
        """Return a Deferred that fires when the client has gone."""
        self._gone = Deferred()
        if not self.connected_now:
            self._gone.callback(None)
        return self._gone


Script = Callable[[Caller], Coroutine[Any, Any, None]]


class ScriptedPeer:
    """Listens, and runs the script for each client. What a script raises fails :meth:`close`.

    :param path: of the UNIX socket.
    :ivar callers: the clients that came.
    """

    def __init__(self, reactor: Any, path: str, script: Script) -> None:
        self._reactor = reactor
        self._script = script
        self._runs: list[Deferred[None]] = []
        self._problems: list[BaseException] = []
        self._port: IListeningPort | None = None
        self.path = path
        self.callers: list[Caller] = []

    async def open(self) -> ScriptedPeer:
        """Start to listen."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        self._port = await UNIXServerEndpoint(self._reactor, self.path).listen(factory)
        return self

    def _build(self, _: object) -> Caller:
        caller = Caller()
        made = caller.connectionMade

        def begin() -> None:
            made()
            self.callers.append(caller)
            run = ensureDeferred(self._script(caller)).addErrback(self._failed)
            self._runs.append(run)

        caller.connectionMade = begin  # type: ignore[method-assign]
        return caller

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._problems.append(failure.value)

    async def close(self) -> None:
        """Listen no more, cut off the clients, and say what went wrong."""
        if self._port is not None:
            await self._port.stopListening()
        for run in self._runs:
            run.cancel()
        for caller in self.callers:
            if caller.connected_now:
                gone = caller.gone()
                caller.transport.abortConnection()
                await gone
        if self._problems:
            raise self._problems[0]


class Stranger(Protocol):
    """A client that is no QEMU: it says something at once, or nothing.

    :ivar gone: a Deferred that fires when the connection is closed.
    """

    def __init__(self, says: bytes) -> None:
        self._says = says
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._says)

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        self.gone.callback(None)


async def stranger(reactor: Any, path: str, says: bytes = b"") -> Stranger:
    """Connect to a UNIX socket as a :class:`Stranger`."""
    return await connectProtocol(UNIXClientEndpoint(reactor, path), Stranger(says))
