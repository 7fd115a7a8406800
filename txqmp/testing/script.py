"""
A peer that says what a script says: :class:`ScriptedServer`.

::

    server = ScriptedServer(
        [greeting(), Expect("qmp_capabilities"), Reply(), Expect("query-status"), GARBAGE, Close()],
        [greeting(), Expect("qmp_capabilities"), Silence()],      # for the second connection
    )
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.interfaces import IAddress, IFileDescriptorReceiver, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.server.jsonstream import JSONStream, ParsedValue
from txqmp.server.output import ReceivedDescriptors
from txqmp.testing.steps import Close, Player, Reset, Step, reset_when_sent


@attrs.frozen
class Expect:
    """
    Wait for a command.

    :ivar name: the command's name; ``None`` for any. Another command ends the script with an
        entry in :attr:`ScriptedServer.surprises`.
    """

    name: str | None = None


@attrs.frozen
class Reply:
    """
    Answer the command that was expected last, with its id.

    :ivar value: what it returns.
    """

    value: Any = attrs.field(factory=dict)


@attrs.frozen
class Refuse:
    """
    Answer the command that was expected last with an error, with its id.

    :ivar desc: the error's text.
    :ivar error_class: its class.
    """

    desc: str
    error_class: str = "GenericError"


ScriptStep = Step | Expect | Reply | Refuse
"""A line of a script: a :data:`~txqmp.testing.steps.Step`, or one of the classes here."""


_REMEMBERED = 1000


@implementer(IFileDescriptorReceiver)
class ScriptedProtocol(Protocol):
    """One connection of a :class:`ScriptedServer`."""

    def __init__(self, server: ScriptedServer, script: Iterable[ScriptStep]) -> None:
        self.server = server
        self.factory = server
        self._script = deque(script)
        self._stream = JSONStream()
        self._descriptors = ReceivedDescriptors()
        self._commands: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        self._last: dict[str, Any] = {}
        self._player = Player(self._write, self._end, lambda: server.clock)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "bufferSize") and Reset() in self._script:
            transport.bufferSize = 1
        self._go_on()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._descriptors.add(descriptor)

    def dataReceived(self, data: bytes) -> None:
        self._descriptors.received()
        self._stream.feed(data)
        for item in self._stream:
            if isinstance(item, ParsedValue) and isinstance(item.value, dict):
                self.server.received.append(item.value)
                self._commands.append(item.value)
        self._go_on()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._player.stop()
        self._script.clear()
        self._descriptors.close()

    def _go_on(self) -> None:
        while self._script:
            step = self._script[0]
            if isinstance(step, Expect):
                if not self._commands:
                    return
                self._last = self._commands.popleft()
                name = self._last.get("execute", self._last.get("exec-oob"))
                if step.name not in (None, name):
                    self.server.surprises.append((step, self._last))
                    self._script.clear()
                    return
            elif isinstance(step, Reply):
                self._player.play([self._with_id({"return": step.value})])
            elif isinstance(step, Refuse):
                error = {"class": step.error_class, "desc": step.desc}
                self._player.play([self._with_id({"error": error})])
            else:
                self._player.play([step])
            if self._script:
                self._script.popleft()

    def _with_id(self, reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "id": self._last["id"]} if "id" in self._last else reply

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _end(self, how: Close | Reset) -> None:
        assert self.transport is not None
        if isinstance(how, Reset):
            reset_when_sent(self.transport)
        else:
            self.transport.loseConnection()


class ScriptedServer(Factory):
    """
    A server that carries out a script on each connection.

    :param scripts: for the first connection, the second and so on; the last for all that follow.
    :param clock: where its pauses come from; the reactor by default.

    :ivar received: the commands that came on all connections; the last thousand.
    :ivar surprises: what was expected and what came instead.
    :ivar connections: how many there were.
    """

    noisy = False

    def __init__(self, *scripts: Iterable[ScriptStep], clock: IReactorTime | None = None) -> None:
        self.received: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        self.surprises: list[tuple[Expect, dict[str, Any]]] = []
        self.connections = 0
        self._scripts = [list(script) for script in scripts]
        self._clock = clock

    @property
    def clock(self) -> IReactorTime:
        """Where its pauses come from."""
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        return self._clock

    def buildProtocol(self, addr: IAddress | None) -> ScriptedProtocol:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        return ScriptedProtocol(self, script)
