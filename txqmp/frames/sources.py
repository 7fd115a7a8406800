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

from txqmp.frames.codec import BYTES_RESPONSE, COMMAND_DATA, CONTINUATION, EOS
from txqmp.frames.commands import Part
from txqmp.frames.errors import FrameUsageError
from txqmp.frames.streams import OutputStream


_COUNTED = (BYTES_RESPONSE, COMMAND_DATA)


class Credit(Protocol):
    """What says how much may be sent."""

    def spend(self, source: FrameSource, size: int) -> bool:
        """
        Whether so many bytes of a source's message may be sent; they are then counted. Else the
        source is woken when more may be sent.
        """


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
    :param plain: leave the stream's encoding off.
    :param done: called when the last frame has been given.

    :ivar open: whether parts can be added.
    :ivar begun: whether a frame has been given.
    :ivar finished: whether the last one has been given.
    :ivar wake: called when there may be frames again; set by who asks for them.
    """

    __slots__ = (
        "_credit",
        "_done",
        "_later",
        "_next",
        "_plain",
        "_rest",
        "begun",
        "finished",
        "open",
        "request_id",
        "stream",
        "wake",
    )

    def __init__(
        self,
        stream: OutputStream,
        request_id: int,
        parts: Iterable[Part] = (),
        *,
        open: bool = False,
        credit: Credit | None = None,
        plain: bool = False,
        done: Callable[[FrameSource], Any] | None = None,
    ) -> None:
        self.stream = stream
        self.request_id = request_id
        self.begun = False
        self.finished = False
        self.wake: Callable[[], Any] | None = None
        self.open = open
        self._credit = credit
        self._plain = plain
        self._done = done
        # What is said next, if that is known; then the rest, then what was added while that lasts.
        self._next: Part | None = None
        self._rest: Iterator[Part] | None = None
        self._later: deque[Iterator[Part]] | None = None
        if type(parts) is tuple and len(parts) == 1:
            self._next = parts[0]
        else:
            self._rest = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        frame = None if self.finished else self.next_frame()
        if frame is None:
            raise StopIteration
        return frame

    def next_frame(self) -> bytes | None:
        """The next frame; ``None`` where there is none now, or none any more."""
        part = self._next
        if part is None:
            part = self._pull()
            if part is None:
                return None
        type, flags, payload = part
        if (
            self._credit is not None
            and payload
            and type in _COUNTED
            and not self._credit.spend(self, len(payload))
        ):
            self._next = part
            return None
        frame = self.stream.frame(self.request_id, type, flags, payload, plain=self._plain)
        self.begun = True
        self._next = None if self._rest is None else self._pull()
        if self._next is None and not self.open:
            self.finished = True
            if self._done is not None:
                self._done(self)
        return frame

    def _pull(self) -> Part | None:
        while self._rest is not None:
            part = next(self._rest, None)
            if part is not None:
                return part
            self._rest = self._later.popleft() if self._later else None
        return None

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
            self.wake()

    def replace(self, parts: Iterable[Part]) -> None:
        """Say this, as the last, in place of all that was not said yet; nothing if all was."""
        if not self.finished:
            self._next = self._rest = self._later = None
            self.open = True
            self.add(parts, last=True)

    def drop(self) -> None:
        """Say nothing more."""
        self._next = self._rest = self._later = None
        self.open = False
        if not self.finished:
            self.finished = True
            if self._done is not None:
                self._done(self)


class ResponseWriter:
    """A response that comes in pieces."""

    __slots__ = ("_max_payload", "source")

    def __init__(self, source: FrameSource, max_payload: int) -> None:
        self.source = source
        self._max_payload = max_payload

    @property
    def finished(self) -> bool:
        """Whether nothing more can be sent: it has ended, or was cancelled."""
        return self.source.finished or not self.source.open

    def write(self, data: bytes) -> None:
        """
        Send a piece; it goes into frames of its own.

        :raises FrameUsageError: the response has ended.
        """
        size = self._max_payload
        self.source.add(
            (BYTES_RESPONSE, CONTINUATION, data[start : start + size])
            for start in range(0, len(data), size)
        )

    def finish(self) -> None:
        """
        End the response.

        :raises FrameUsageError: it has ended already.
        """
        self.source.add([(BYTES_RESPONSE, EOS, b"")], last=True)


class Scheduler:
    """Lets frame sources take turns, a frame each; what is urgent goes first."""

    __slots__ = ("_ready", "_urgent")

    def __init__(self) -> None:
        # Dicts, as a source must be in them once only.
        self._urgent: dict[FrameSource, None] = {}
        self._ready: dict[FrameSource, None] = {}

    def __bool__(self) -> bool:
        """Whether there may be something to send."""
        return bool(self._urgent or self._ready)

    def add(self, *sources: FrameSource, urgent: bool = False) -> None:
        """Let sources take part, until they are finished."""
        queue = self._urgent if urgent else self._ready
        for source in sources:
            source.wake = lambda source=source: queue.setdefault(source)
            queue[source] = None

    def data_to_send(self, size: int = 65_536) -> bytes:
        """
        The next frames.

        :param size: stop when there are so many bytes.
        :returns: whole frames, in the order in which they must be sent; empty where there are none.
        """
        pieces: list[bytes] = []
        gathered = 0
        for queue in (self._urgent, self._ready):
            while queue and gathered < size:
                source = next(iter(queue))
                del queue[source]
                frame = source.next_frame()
                if frame is not None:
                    pieces.append(frame)
                    gathered += len(frame)
                    if not source.finished:
                        queue[source] = None
        return b"".join(pieces)
