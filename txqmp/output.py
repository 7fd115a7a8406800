"""
What is written to one transport, in order: :class:`Output`.

Twisted sends what it is given in the reactor's next turn. For a command that has a reply at once
that turn costs more than all the rest, so here bytes go out at once where they can; and what is
written while a chunk is read goes out as one piece when the chunk has been read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IPullProducer,
    IReactorTime,
    ISSLTransport,
    IUNIXTransport,
)
from twisted.internet.tcp import Connection
from zope.interface import implementer


@implementer(IPullProducer)
class Output:
    """
    The way out to one peer.

    :param transport: where to; nobody else writes to it.
    """

    __slots__ = (
        "_draining",
        "_held",
        "_holding",
        "_nudge",
        "_nudge_clock",
        "_socket",
        "_transport",
        "_when_drained",
    )

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        # Twisted's own sockets can be written to at once. A wrapper of one lends its methods,
        # but going past the wrapper would go past its TLS.
        self._socket = transport if isinstance(transport, Connection) else None
        self._held: list[bytes] = []
        self._holding = False
        self._draining = False
        self._when_drained: Callable[[], None] | None = None
        self._nudge_clock: IReactorTime | None = None
        self._nudge: IDelayedCall | None = None

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        """
        Write bytes.

        :param descriptor: a file descriptor to travel with the first byte; the transport's
            buffer must be empty (:meth:`call_when_drained`). It stays open until the peer has
            answered: closing it is the caller's part.
        """
        if self._holding and descriptor is None:
            self._held.append(data)
            return
        if descriptor is not None:
            self._send_held()
            self._transport.sendFileDescriptor(descriptor)
        self._send(data)

    def hold(self) -> None:
        """Gather what is written, until :meth:`release`."""
        self._holding = True

    def release(self) -> None:
        """Send what was gathered, and gather no more."""
        self._holding = False
        if self._held:
            self._send_held()

    def close(self) -> None:
        """Close the connection, when what was written has been sent."""
        self._send_held()
        self._transport.loseConnection()

    def _send_held(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._can_send_at_once():
            assert self._socket is not None
            sent = self._socket.writeSomeData(data)
            if sent == len(data):
                return
            self._watch()
            # An error is left to the reactor, which meets it again and ends the connection.
            self._transport.write(data[sent:] if isinstance(sent, int) else data)
            return
        self._transport.write(data)
        if self._nudge_clock is not None and self._nudge is None:
            self._nudge = self._nudge_clock.callLater(0, self._nudge_peer)

    def _can_send_at_once(self) -> bool:
        """Whether the transport is a plain socket with nothing in its buffer."""
        socket = self._socket
        if socket is None or self._draining or not socket.connected:
            return False
        return not socket.disconnecting and not socket.TLS

    # The transport's buffer

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """
        Call back when all that was written has left the transport's buffer: at once where that
        is known, else from the reactor.

        Twisted attaches a descriptor to the front of what is buffered (fact G33), so one that is
        to travel with its own command must find the buffer empty. One caller at a time.
        """
        self._send_held()
        if self._can_send_at_once():
            callback()
            return
        self._when_drained = callback
        if not self._draining:
            self._watch()
            # The space between two messages: it makes sure that there is something to drain.
            self._transport.write(b"\n")

    def _watch(self) -> None:
        """Be told when the transport's buffer is empty."""
        self._transport.registerProducer(self, False)
        self._draining = True

    def resumeProducing(self) -> None:
        """Called by the transport when its buffer is empty, and first when it is told of us."""
        if self._draining:
            self._draining = False
            self._transport.unregisterProducer()
            callback, self._when_drained = self._when_drained, None
            if callback is not None:
                callback()

    def stopProducing(self) -> None:
        """Called by the transport when the connection is lost."""
        self._draining = False
        self._when_drained = None

    # What the transport can do

    @property
    def carries_descriptors(self) -> bool:
        """Whether file descriptors can be sent: only over a UNIX socket."""
        return bool(IUNIXTransport.providedBy(self._transport))

    def nudge_over_tls(self, clock: IReactorTime) -> None:
        """
        If the connection is TLS, follow what is written with a record of one byte.

        QEMU waits for the socket before each byte that it reads, and so takes the rest of a record
        only when more comes (fact G47).
        """
        if ISSLTransport.providedBy(self._transport):
            self._nudge_clock = clock

    def stop_nudging(self) -> None:
        """The connection is closed."""
        self._nudge_clock = None
        nudge, self._nudge = self._nudge, None
        if nudge is not None:
            nudge.cancel()

    def _nudge_peer(self) -> None:
        # Twisted gathers what is written in one turn into one record; this is the next turn.
        self._nudge = None
        self._transport.write(b"\n")
