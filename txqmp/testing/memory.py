"""
Connections in memory: a client and a server joined without a reactor.

::

    clock = Clock()
    vm = SimulatedVM(clock)
    client, server, pump = connect_in_memory(vm)
    status = client.execute("query-status")
    pump()
    assert success(status)["running"]

Nothing moves but by the pump, and no time passes but by :meth:`Pump.advance`: what happens is the
same in each run.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    FileDescriptorOverrun,
)
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.protocol import QMPProtocol
from txqmp.settings import DEFAULT_SETTINGS, SessionSettings
from txqmp.testing.transports import DescriptorTransport, MemoryTransport, Piece


KERNEL_BUFFER = 1 << 18
"""How many bytes are on their way to an end that does not read, before its peer's buffer grows."""

MAX_TURNS = 100_000
"""How many turns a pump makes before it says that the two ends never come to rest."""


class _End:
    """One end of a connection."""

    def __init__(self, protocol: IProtocol, transport: MemoryTransport, chunk: int | None) -> None:
        self.protocol = protocol
        self.transport = transport
        self.over = False
        # How the peer has ended; told when all that it sent has been received.
        self.peer_end: Exception | None = None
        self.on_the_way = 0
        self._chunk = chunk
        self._incoming: deque[Piece] = deque()
        self._begun = 0

    def arrive(self, pieces: list[Piece]) -> None:
        if self.over:
            _close_descriptors(pieces)
        else:
            self._incoming.extend(pieces)
            self.on_the_way += sum(len(piece.data) for piece in pieces)

    def receive(self) -> bool:
        """Receive what has arrived, and the peer's end; whether there was anything."""
        moved = False
        while not self.over and not self.transport.disconnecting:
            if self.transport.producerState != "producing":
                break
            if self._incoming:
                self._receive_piece()
            elif self.peer_end is not None:
                self.close(self.peer_end)
            else:
                break
            moved = True
        return moved

    def _receive_piece(self) -> None:
        piece, begun = self._incoming[0], self._begun
        self._begun = len(piece.data) if self._chunk is None else begun + self._chunk
        data = piece.data[begun : self._begun]
        if self._begun >= len(piece.data):
            self._incoming.popleft()
            self._begun = 0
        self.on_the_way -= len(data)
        if not begun:
            for descriptor in piece.descriptors:
                if IFileDescriptorReceiver.providedBy(self.protocol):
                    self.protocol.fileDescriptorReceived(descriptor)
                else:
                    os.close(descriptor)
        self.protocol.dataReceived(data)

    def close(self, reason: Exception) -> None:
        self.over = True
        _close_descriptors(self._incoming)
        self._incoming.clear()
        self.transport.lost()
        self.protocol.connectionLost(Failure(reason))


def _close_descriptors(pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        for descriptor in piece.descriptors:
            os.close(descriptor)


class Connection:
    """
    A connection in memory.

    :ivar client: the client's protocol.
    :ivar server: the server's protocol.
    :ivar client_transport: the client's transport; ``value()`` tells all that the client wrote.
    :ivar server_transport: the server's transport.
    """

    def __init__(self, client: _End, server: _End) -> None:
        self._ends = (client, server)
        self.client = client.protocol
        self.server = server.protocol
        self.client_transport = client.transport
        self.server_transport = server.transport

    @property
    def over(self) -> bool:
        """Whether it is closed at both ends."""
        return all(end.over for end in self._ends)

    def break_off(self, reason: Exception | None = None) -> None:
        """
        Close it at both ends at once, as when the network fails.

        :param reason: what both are told; a ``ConnectionLost`` by default.
        """
        for end in self._ends:
            if not end.over:
                end.close(reason or ConnectionLost())

    def turn(self) -> bool:
        """Carry what was written, both ways; whether anything happened."""
        client, server = self._ends
        sent = [_send(client, server), _send(server, client)]
        return any([*sent, server.receive(), client.receive()])


def _send(source: _End, target: _End) -> bool:
    """Carry what one end has written, and its end; whether there was anything."""
    if source.over:
        return False
    transport = source.transport
    try:
        pieces = transport.flush(max(0, KERNEL_BUFFER - target.on_the_way))
    except (FileDescriptorOverrun, OSError) as error:
        source.close(error)
        target.peer_end = ConnectionLost()
        return True
    target.arrive(pieces)
    if pieces and target.over:
        source.close(ConnectionLost())
    elif transport.aborted:
        source.close(ConnectionAborted())
        target.peer_end = ConnectionLost()
    elif transport.closing:
        source.close(ConnectionDone())
        target.peer_end = ConnectionDone()
    return bool(pieces) or source.over


class Pump:
    """
    Does for connections in memory what the kernel and the reactor do for sockets. Call it to have
    everything happen that can happen without time passing.

    :param clock: the clock of both ends; what is due on it happens too.

    :ivar connections: the connections that are open, at one end at least.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connections: list[Connection] = []
        self._running = False

    def join(
        self,
        client: IProtocol,
        server: IProtocol,
        *,
        chunk: int | None = None,
        descriptors: bool = True,
    ) -> Connection:
        """
        Connect two protocols.

        :param chunk: how many bytes each of them receives at a time; ``None`` for all there are.
        :param descriptors: whether file descriptors can be sent, as over UNIX sockets.
        """
        kind = DescriptorTransport if descriptors else MemoryTransport
        ends = [_End(protocol, kind(), chunk) for protocol in (client, server)]
        connection = Connection(*ends)
        self.connections.append(connection)
        for end in reversed(ends):
            end.protocol.makeConnection(end.transport)
        return connection

    def __call__(self) -> None:
        """
        Carry everything that was written, and make the calls that are due.

        :raises RuntimeError: the ends do not come to rest.
        """
        if self._running:
            return
        self._running = True
        try:
            for _ in range(MAX_TURNS):
                moved = [connection.turn() for connection in tuple(self.connections)]
                self.connections = [each for each in self.connections if not each.over]
                if not any(moved) and self._due(self.clock.seconds()) is None:
                    return
                self.clock.advance(0)
            raise RuntimeError(f"still busy after {MAX_TURNS} turns")
        finally:
            self._running = False

    def advance(self, seconds: float) -> None:
        """Let time pass: from one delayed call to the next, the pump run after each."""
        until = self.clock.seconds() + seconds
        self()
        while (due := self._due(until)) is not None:
            self.clock.advance(max(0.0, due - self.clock.seconds()))
            self()
        self.clock.advance(max(0.0, until - self.clock.seconds()))

    def _due(self, until: float) -> float | None:
        """When the next delayed call is due, if by then."""
        due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)
        return due if due is not None and due <= until else None


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    An endpoint whose connections are made in memory.

    :param pump: carries their bytes.
    :param server_factory: makes the other ends.
    :param chunk: as for :meth:`Pump.join`, and so ``descriptors``.

    :ivar problem: what the next attempts fail with, such as a ``ConnectionRefusedError``; ``None``
        for nothing.
    :ivar attempts: how many there were.
    """

    def __init__(
        self,
        pump: Pump,
        server_factory: IProtocolFactory,
        *,
        chunk: int | None = None,
        descriptors: bool = True,
    ) -> None:
        self.problem: Exception | None = None
        self.attempts = 0
        self._pump = pump
        self._server_factory = server_factory
        self._chunk = chunk
        self._descriptors = descriptors
        _give_clock(server_factory, pump.clock)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, at once; what is then sent moves with the pump."""
        self.attempts += 1
        if self.problem is not None:
            return fail(self.problem)
        address = UNIXAddress("memory")
        server = self._server_factory.buildProtocol(address)
        if server is None:
            return fail(ConnectionRefusedError())
        client = protocolFactory.buildProtocol(address)
        if client is None:
            return fail(ConnectionAborted())
        self._pump.join(client, server, chunk=self._chunk, descriptors=self._descriptors)
        return succeed(client)


class InMemory(NamedTuple):
    """
    What :func:`connect_in_memory` returns.

    :ivar client: the session.
    :ivar server: the server's end of it.
    :ivar pump: moves everything.
    """

    client: QMPProtocol
    server: Any
    pump: Pump


def connect_in_memory(
    server_factory: Factory,
    clock: Clock | None = None,
    *,
    settings: SessionSettings = DEFAULT_SETTINGS,
    name: str = "qmp",
    chunk: int | None = None,
    descriptors: bool = True,
) -> InMemory:
    """
    A session with a server, in memory. When this returns it runs, unless the server hinders it.

    :param server_factory: such as a :class:`~txqmp.testing.SimulatedVM`, a
        :class:`~txqmp.testing.ScriptedServer` or a :class:`~txqmp.server.QMPServerFactory`.
    :param clock: of both ends; by default the server's, if it has one of this kind, or a new one.
    :param settings: of the session, and so ``name``.
    :param chunk: how many bytes each end receives at a time; ``None`` for all there are.
    :param descriptors: whether file descriptors can be sent, as over UNIX sockets.
    :raises ValueError: the server takes no connection.
    """
    if clock is None:
        own = getattr(server_factory, "_clock", None)
        clock = own if isinstance(own, Clock) else Clock()
    _give_clock(server_factory, clock)
    pump = Pump(clock)
    server = server_factory.buildProtocol(UNIXAddress("memory"))
    if server is None:
        raise ValueError("the server takes no connection")
    client = QMPProtocol(clock, settings, name)
    pump.join(client, server, chunk=chunk, descriptors=descriptors)
    pump()
    return InMemory(client, server, pump)


def _give_clock(server_factory: Any, clock: Clock) -> None:
    """A server that was made without a clock gets this one, rather than the reactor."""
    if getattr(server_factory, "_clock", clock) is None:
        server_factory._clock = clock
