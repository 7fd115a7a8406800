"""
Transports in memory that behave like Twisted's: they buffer, they pause and resume producers, and
a file descriptor travels with a single byte.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.error import FileDescriptorOverrun
from twisted.internet.interfaces import IUNIXTransport
from twisted.internet.testing import StringTransport
from zope.interface import implementer


BUFFER_SIZE = 1 << 16
"""How many bytes a transport buffers before it pauses a streaming producer, as Twisted's do."""


@attrs.frozen
class Piece:
    """
    What one receive brings.

    :ivar data: the bytes.
    :ivar descriptors: the file descriptors that came with them; the receiver's to close.
    """

    data: bytes
    descriptors: tuple[int, ...] = ()


class MemoryTransport(StringTransport):
    """
    A ``StringTransport`` with a buffer: what is written stays in it until :meth:`flush`.
    ``value()`` tells all that was written, as ever.

    :ivar aborted: whether ``abortConnection`` was called.
    """

    aborted = False

    def __init__(self, name: str = "memory") -> None:
        address = UNIXAddress(name)
        super().__init__(hostAddress=address, peerAddress=address)
        self._buffer = bytearray()
        self._producer_paused = False
        self._woken = False

    @property
    def buffered(self) -> int:
        """How many bytes were written and not flushed."""
        return len(self._buffer)

    @property
    def closing(self) -> bool:
        """Whether all was flushed that was written before ``loseConnection``."""
        waits = self.producer is not None and (self._producer_paused or not self.streaming)
        return bool(self.disconnecting and not self._buffer and not waits)

    def write(self, data: bytes) -> None:
        if not self.connected or self.aborted:
            return
        super().write(data)
        self._buffer += data
        producer: Any = self.producer
        if producer is not None and self.streaming and len(self._buffer) > BUFFER_SIZE:
            self._producer_paused = True
            producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def startWriting(self) -> None:
        """Ask to be flushed, even if there is nothing in the buffer."""
        self._woken = True

    def abortConnection(self) -> None:
        self.aborted = True
        self._buffer.clear()
        super().abortConnection()

    def flush(self, room: int | None = None) -> list[Piece]:
        """
        Let the other end have what was written; a producer is then asked for more.

        :param room: how many bytes the other end takes at most; ``None`` for all.
        :returns: what the other end receives.
        """
        pieces = self._take(len(self._buffer) if room is None else room)
        producer: Any = self.producer
        wants = producer is not None and (self._producer_paused or not self.streaming)
        woken, self._woken = self._woken, False
        if wants and (pieces or woken) and not self._buffer:
            self._producer_paused = False
            producer.resumeProducing()
        return pieces

    def _take(self, room: int) -> list[Piece]:
        data = bytes(self._buffer[:room])
        del self._buffer[:room]
        return [Piece(data)] if data else []

    def lost(self) -> None:
        """The connection is closed: for who plays the reactor."""
        self.connected = False
        self._buffer.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()


@implementer(IUNIXTransport)
class DescriptorTransport(MemoryTransport):
    """
    A transport in memory that sends file descriptors, by Twisted's rule: each travels with one
    byte from the front of what is buffered when it is flushed (fact G33), and is not duplicated
    before.

    :ivar descriptors: the file descriptors sent, each with the offset of its byte in all that was
        written.
    """

    def __init__(self, name: str = "memory") -> None:
        super().__init__(name)
        self.descriptors: list[tuple[int, int]] = []
        self._queue: list[int] = []
        self._flushed = 0

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.descriptors.append((descriptor, self._flushed + len(self._queue)))
        self._queue.append(descriptor)

    def _take(self, room: int) -> list[Piece]:
        """
        :raises FileDescriptorOverrun: there are more descriptors than bytes.
        :raises OSError: a descriptor was closed before it was sent.
        """
        if len(self._queue) > len(self._buffer):
            raise FileDescriptorOverrun
        pieces = []
        while self._queue and room > 0:
            duplicate = os.dup(self._queue.pop(0))
            pieces.append(Piece(bytes(self._buffer[:1]), (duplicate,)))
            del self._buffer[:1]
            room -= 1
        pieces += super()._take(room)
        self._flushed += sum(len(piece.data) for piece in pieces)
        return pieces
