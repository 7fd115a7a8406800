"""A QMP server, for as many clients as come: :class:`QMPServerFactory`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from txqmp.framing import DEFAULT_MAX_MESSAGE
from txqmp.messages import Event
from txqmp.server.commands import (
    NEGOTIATE,
    Argument,
    Call,
    CommandError,
    CommandTable,
    Handler,
    Kind,
    RegisteredCommand,
)
from txqmp.server.output import encode
from txqmp.server.protocol import QMPServerProtocol


DEFAULT_MAX_OUTPUT = 16 << 20
"""How many bytes are held for a client that does not read."""

_H = TypeVar("_H", bound=Handler)


class QMPServerFactory(Factory):
    """
    A QMP server, for as many clients as come.

    :param clock: where the time limits come from; the reactor by default.
    :param version: what the greeting says: major, minor, micro.
    :param package: the packager's version text, in the greeting.
    :param capabilities: what clients are offered.
    :param exclusive: serve one client at a time, as QEMU's monitors do (fact G1): the others are
        connected and hear nothing until it leaves.
    :param max_waiting: how many may wait in that way; more are refused.
    :param max_output: how many bytes are held for a client that does not read. One message more,
        and it is cut off. Its commands wait from a quarter of it on.
    :param max_message: the limit on the size of a command, in bytes.
    :param close_timeout: how long a client that is disconnected has to read what was written, in
        seconds.
    :param wall_clock: gives the time for events, in seconds since the epoch.

    :ivar commands_run: how many commands were given to handlers.
    :ivar commands_dropped: commands that waited, and were not run because their client left.
    :ivar replies_dropped: replies to clients that had gone.
    :ivar cut_off: clients cut off because they did not read.
    :ivar refused: connections refused because too many waited.
    """

    noisy = False
    client_class: type[QMPServerProtocol] = QMPServerProtocol
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime | None = None,
        *,
        version: tuple[int, int, int] = (7, 2, 0),
        package: str = "",
        capabilities: tuple[str, ...] = ("oob",),
        exclusive: bool = False,
        max_waiting: int = 16,
        max_output: int = DEFAULT_MAX_OUTPUT,
        max_message: int = DEFAULT_MAX_MESSAGE,
        close_timeout: float = 3.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.version = version
        self.package = package
        self.capabilities = capabilities
        self.exclusive = exclusive
        self.max_waiting = max_waiting
        self.max_output = max_output
        self.max_message = max_message
        self.close_timeout = close_timeout
        self.commands = CommandTable()
        self.commands_run = 0
        self.commands_dropped = 0
        self.replies_dropped = 0
        self.cut_off = 0
        self.refused = 0
        self._clock = clock
        self._wall_clock = wall_clock
        self._clients: dict[QMPServerProtocol, None] = {}
        self._waiting: dict[QMPServerProtocol, None] = {}
        known = Kind("string", values=tuple(dict.fromkeys(("oob", *capabilities))))
        enable = Argument("enable", "enable", Kind("array", element=known), optional=True)
        self._negotiate = RegisteredCommand(NEGOTIATE, self._negotiated, False, (enable,))

    @property
    def clock(self) -> IReactorTime:
        """Where the time limits come from."""
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        return self._clock

    @property
    def clients(self) -> tuple[QMPServerProtocol, ...]:
        """The clients that are served, in the order in which they came."""
        return tuple(self._clients)

    @property
    def waiting(self) -> tuple[QMPServerProtocol, ...]:
        """The clients that wait until the one that is served leaves."""
        return tuple(self._waiting)

    # Commands and events

    def register(self, name: str, handler: Handler, *, oob: bool = False) -> None:
        """
        :meth:`txqmp.server.commands.CommandTable.register`.

        :raises ValueError: the name is ``qmp_capabilities``, which the server runs itself.
        """
        if name == NEGOTIATE:
            raise ValueError(f"{NEGOTIATE} is the server's own")
        self.commands.register(name, handler, oob=oob)

    def command(self, name: str, *, oob: bool = False) -> Callable[[_H], _H]:
        """:meth:`register` as a decorator."""

        def decorate(handler: _H) -> _H:
            self.register(name, handler, oob=oob)
            return handler

        return decorate

    def find(self, name: str) -> RegisteredCommand | None:
        """The command of this name, or ``None``; called for each call."""
        return self._negotiate if name == NEGOTIATE else self.commands.find(name)

    def send_event(self, name: str, data: Mapping[str, Any] | None = None) -> Event:
        """
        Tell all clients that have negotiated that something happened, now.

        :param name: the event's name.
        :param data: its data; left out where ``None``.
        :returns: the event.
        :raises UnwritableError: it has no JSON text.
        """
        event = Event.make(name, data, at=self._wall_clock())
        self.publish(event)
        return event

    def publish(self, event: Event) -> None:
        """:meth:`send_event` for an event that is made already, such as another server's."""
        text = encode(dict(event.raw))
        for client in self.clients:
            client.send_event_text(text)

    # The end

    def disconnect_all(self) -> Deferred[None]:
        """
        Disconnect all clients, those that wait included.

        :returns: a Deferred that fires when all connections are closed.
        """
        everybody = [*self._waiting, *self._clients]
        closed = DeferredList([client.disconnect() for client in everybody])
        return closed.addCallback(lambda _: None)

    # What clients call

    def greeting(self) -> dict[str, Any]:
        """What a client hears first (QMP spec, *Server Greeting*)."""
        return {
            "QMP": {"version": self.version_info(), "capabilities": list(self.capabilities)},
        }

    def version_info(self) -> dict[str, Any]:
        """The version, as the greeting and ``query-version`` give it."""
        major, minor, micro = self.version
        return {
            "qemu": {"micro": micro, "minor": minor, "major": major},
            "package": self.package,
        }

    def may_serve(self) -> bool:
        """Whether one client more can be served now."""
        return not (self.exclusive and self._clients)

    def serve_waiting(self) -> None:
        """Serve the clients that wait, as far as that can be done now."""
        for client in self.waiting:
            if client in self._waiting and not client.leaving and self.may_serve():
                del self._waiting[client]
                self._clients[client] = None
                client.serve()

    def client_connected(self, client: QMPServerProtocol) -> None:
        """A client is connected: serve it, or let it wait."""
        self._waiting[client] = None
        self.serve_waiting()
        if client in self._waiting:
            client.wait()

    def client_lost(self, client: QMPServerProtocol) -> None:
        """A client's connection is closed: the next one's turn, if one waits."""
        self._waiting.pop(client, None)
        self._clients.pop(client, None)
        self.serve_waiting()

    def _negotiated(self, call: Call, enable: tuple[str, ...] = ()) -> None:
        client = call.client
        if client.negotiated:
            raise CommandError(
                "Capabilities negotiation is already complete, command ignored", "CommandNotFound"
            )
        missing = [name for name in enable if name not in self.capabilities]
        if missing:
            raise CommandError(f"Capability {', '.join(missing)} not available")
        client.oob_enabled = "oob" in enable
        client.negotiated = True

    # What Twisted calls

    def buildProtocol(self, addr: IAddress | None) -> QMPServerProtocol | None:
        if len(self._waiting) >= self.max_waiting:
            self.refused += 1
            return None
        return self.client_class(self)
