"""
Frames on their way out: made when they are asked for, and not before.

A :class:`FrameSource` gives the frames of one message, a :class:`Scheduler` lets several take
turns. What waits here is not encoded yet, so it can wait for as long as it has to: a receiver must
decode what comes at once, in order, and cannot set a frame aside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from txqmp.frames.codec import BYTES_RESPONSE, COMMAND_DATA, CONTINUATION, EOS, ERROR_RESPONSE
from txqmp.frames.commands import Part
from txqmp.frames.errors import FrameUsageError
from txqmp.frames.streams import OutputStream


_COUNTED = (BYTES_RESPONSE, COMMAND_DATA)


class Credit(Protocol):
    """What says how much may be sent."""

    def spend(self, source: FrameSource, size: int) -> int:
        """
        How many of so many bytes of a source's message may be sent now; they are then counted. At
        0 the source is woken when more may be sent.
        """


class Gate:
    """
    Lets a number of sources be sent in part at a time; the others wait in a queue.

    :param limit: how many.
    :param size_limit: how large their messages may be together, in bytes; one that is larger goes
        alone.
    """

    __slots__ = ("_inside", "_queue", "_size", "limit", "size_limit")

    def __init__(self, limit: int, size_limit: int) -> None:
        self.limit = limit
        self.size_limit = size_limit
        self._inside: set[FrameSource] = set()
        self._size = 0
        self._queue: dict[FrameSource, None] = {}

    @property
    def waiting(self) -> int:
        """How many sources wait."""
        return len(self._queue)

    def _fits(self, source: FrameSource) -> bool:
        if not self._inside:
            return True
        return len(self._inside) < self.limit and self._size + source.size <= self.size_limit

    def enter(self, source: FrameSource) -> bool:
        """Whether a source may begin; else it is woken when it may."""
        first = next(iter(self._queue), source)
        if first is not source or not self._fits(source):
            self._queue[source] = None
            return False
        self._queue.pop(source, None)
        self._inside.add(source)
        self._size += source.size
        self._wake()
        return True

    def leave(self, source: FrameSource) -> None:
        """A source is finished, or begins no more."""
        self._queue.pop(source, None)
        if source in self._inside:
            self._inside.discard(source)
            self._size -= source.size
        self._wake()

    def _wake(self) -> None:
        first = next(iter(self._queue), None)
        if first is not None and first.wake is not None and self._fits(first):
            first.wake(first)


class FrameSource:
    """
    The frames of one message, or of a message that goes on until it is closed.

    To iterate over it gives the frames that can be sent now. Each is encoded when it is given: send
    them in that order.

    :param stream: what they travel on.
    :param request_id: the request that they belong to.
    :param parts: what they say.
    :param open: whether parts can be added.
    :param credit: what limits how much is sent; ``None`` for no limit.
    :param gate: what it passes before its first frame, if more than one is known then. It leaves
        with its last frame; one that is cut leaves when it is told to, as its receiver goes on
        waiting for the rest.
    :param plain: leave the stream's encoding off.
    :param done: called when nothing more is said.

    :ivar size: how large the message is, in bytes, as far as the gate must know.
    :ivar open: whether parts can be added.
    :ivar begun: whether a frame has been given.
    :ivar finished: whether nothing more is said.
    :ivar cut: whether that is less than was to be said.
    :ivar wake: called with the source when there may be frames again; set by who asks for them.
    """

    # Most never have these.
    cut = False
    size = 0
    wake: Callable[[FrameSource], Any] | None = None
    _after: Part | None = None
    _later: deque[Iterator[Part]] | None = None

    def __init__(
        self,
        stream: OutputStream,
        request_id: int,
        parts: Iterable[Part] = (),
        *,
        open: bool = False,
        credit: Credit | None = None,
        gate: Gate | None = None,
        plain: bool = False,
        done: Callable[[FrameSource], Any] | None = None,
    ) -> None:
        self.stream = stream
        self.request_id = request_id
        self.begun = False
        self.finished = False
        self.open = open
        self._credit = credit
        self.gate = gate
        self._plain = plain
        self._done = done
        # What is said next and after that, as far as it is known; the rest; what was added while
        # that lasts.
        self._next: Part | None = None
        self._rest: Iterator[Part] | None = None
        if type(parts) is tuple and len(parts) == 1:
            self._next = parts[0]
        else:
            self._rest = iter(parts)

    @property
    def fails(self) -> bool:
        """Whether what is said next is an error."""
        return self._next is not None and self._next[0] == ERROR_RESPONSE

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.next_frame, None)

    def next_frame(self) -> bytes | None:
        """
        The next frame; ``None`` where there is none now, or none any more.

        An error in reading a file comes out here; nothing more is said then.
        """
        part = self._next
        if part is None:
            if self.finished:
                return None
            part = self._pull()
            if part is None:
                if not self.open:
                    self._finish()
                return None
        following, rest = self._after, None
        if following is None and self._rest is not None and not self.open:
            # Before there is a frame, which would be lost if a file could not be read.
            following = self._pull()
        type, flags, payload = part
        if following is not None and not self.begun and self.gate is not None:
            if not self.gate.enter(self):
                self._next, self._after = part, following
                return None
        elif self._credit is not None and payload and type in _COUNTED:
            size = self._credit.spend(self, len(payload))
            if not size:
                self._next, self._after = part, following
                return None
            if size < len(payload):
                following, rest = (type, flags, payload[size:]), following
                flags, payload = CONTINUATION, payload[:size]
        stream, last = self.stream, following is None and not self.open
        if last and stream.closing and stream.messages == {self}:
            frame = stream.frame(
                self.request_id, type, flags, payload, plain=self._plain, last=True
            )
        else:
            frame = stream.frame(self.request_id, type, flags, payload, plain=self._plain)
        self.begun = True
        self._next = following
        if last:
            self._finish()
        else:
            self._after = rest
        return frame

    def _pull(self) -> Part | None:
        try:
            while self._rest is not None:
                part = next(self._rest, None)
                if part is not None:
                    return part
                self._rest = self._later.popleft() if self._later else None
        except BaseException:
            self.drop()
            raise
        return None

    def _finish(self) -> None:
        self.finished = True
        if self.stream.closing:
            self.stream.messages.discard(self)
        if self.gate is not None and not self.cut:
            self.gate.leave(self)
        if self._done is not None:
            self._done(self)

    def add(self, parts: Iterable[Part], *, last: bool = False) -> None:
        """
        Have more to say.

        :param last: nothing follows.
        :raises FrameUsageError: the last has been said already.
        """
        if not self.open:
            raise FrameUsageError(f"request {self.request_id}: nothing follows the last frame")
        self.open = not last
        if self._rest is None:
            self._rest = iter(parts)
        elif self._later is None:
            self._later = deque([iter(parts)])
        else:
            self._later.append(iter(parts))
        if self.wake is not None:
            self.wake(self)

    def replace(self, parts: Iterable[Part]) -> None:
        """Say this, as the last, in place of all that was not said yet; nothing if all was."""
        if not self.finished:
            self._forget()
            self.open = True
            self.add(parts, last=True)

    def drop(self) -> None:
        """Say nothing more."""
        if not self.finished:
            self._forget()
            self.open = False
            self._finish()

    def _forget(self) -> None:
        self.cut = True
        self._next = self._after = self._rest = self._later = None


class ResponseWriter:
    """A response that comes in pieces."""

    __slots__ = ("_max_payload", "_waiting", "source")

    def __init__(self, source: FrameSource, max_payload: int) -> None:
        self.source = source
        self._max_payload = max_payload
        self._waiting = 0

    @property
    def finished(self) -> bool:
        """Whether nothing more can be written: it has ended, or was cancelled."""
        return not self.source.open

    @property
    def waiting(self) -> int:
        """How many of the bytes that were written wait to be put into frames."""
        return 0 if self.source.cut else self._waiting

    def write(self, data: bytes) -> None:
        """
        Send a piece; it goes into frames of its own. It waits where the client must grant credit
        first: see :attr:`waiting`.

        :raises FrameUsageError: the response has ended.
        """
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # its owner may change it while it waits
        self.source.add(self._pieces(data))
        self._waiting += len(data)

    def _pieces(self, data: bytes) -> Iterator[Part]:
        size = self._max_payload
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._waiting -= len(piece)
            yield BYTES_RESPONSE, CONTINUATION, piece

    def finish(self) -> None:
        """
        End the response.

        :raises FrameUsageError: it has ended already.
        """
        self.source.add(((BYTES_RESPONSE, EOS, b""),), last=True)


class Scheduler:
    """Lets frame sources take turns, a frame each; what is urgent goes first."""

    __slots__ = ("_made", "_queued", "_ready", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[FrameSource] = deque()
        self._ready: deque[FrameSource] = deque()
        # What is in one of the queues: a source must not be there twice.
        self._queued: set[FrameSource] = set()
        self._made: list[bytes] = []

    def __bool__(self) -> bool:
        """Whether there may be something to send."""
        return bool(self._queued or self._made)

    def add(self, *sources: FrameSource, urgent: bool = False) -> None:
        """Let sources take part, until they are finished."""
        wake = self._wake_urgent if urgent else self._wake
        for source in sources:
            source.wake = wake
            wake(source)

    def _wake(self, source: FrameSource) -> None:
        if source not in self._queued:
            self._queued.add(source)
            self._ready.append(source)

    def _wake_urgent(self, source: FrameSource) -> None:
        if source not in self._queued:
            self._queued.add(source)
            self._urgent.append(source)

    def data_to_send(self, size: int = 65_536) -> bytes:
        """
        The next frames.

        An error in reading a file comes out here; what was made before it comes the next time.

        :param size: stop when there are so many bytes.
        :returns: whole frames, in the order in which they must be sent; empty where there are none.
        """
        made, queued = self._made, self._queued
        gathered = sum(map(len, made))
        for queue in (self._urgent, self._ready):
            while queue and gathered < size:
                source = queue.popleft()
                queued.discard(source)
                frame = source.next_frame()
                if frame is not None:
                    made.append(frame)
                    gathered += len(frame)
                    if not source.finished and source not in queued:
                        queued.add(source)
                        queue.append(source)
        data = b"".join(made)
        made.clear()
        return data
