"""Lines, and events as lines: what the sinks that write them share."""

from __future__ import annotations

import os
import select
from collections.abc import Collection, Sequence
from typing import Protocol

from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)


class WriteError(OSError):
    """
    A write came to nothing, or not to its end.

    :ivar written: how many lines were written whole.
    """

    def __init__(self, cause: OSError, written: int) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.written = written


class Target(Protocol):
    """What lines are written to. Its methods may block; they are called in one thread."""

    def write(self, lines: Sequence[bytes]) -> None:
        """
        Write whole lines, which lack their line ends.

        :raises WriteError: not all were written.
        """

    def reopen(self) -> None:
        """Open it anew before the next write."""

    def close(self) -> None:
        """The end."""


class LineWriter:
    """
    Writes lines to a descriptor.

    :param piece: how many bytes to write at once, where it is more than one line: what is no
        larger than ``PIPE_BUF`` goes into a pipe as a whole, or not yet, and is not mixed with what
        others write there.
    """

    def __init__(self, piece: int) -> None:
        self._piece = piece
        # The part of a line that was written last, where its rest was not.
        self._torn = b""

    def write(self, descriptor: int, lines: Sequence[bytes]) -> None:
        """
        Write whole lines, which lack their line ends. A line that was torn before is written to its
        end if it comes first now; else it is left as it is, and what comes begins a line.

        :raises WriteError: not all were written.
        """
        begun = 0
        while begun < len(lines):
            end, size = begun + 1, len(lines[begun]) + 1
            while end < len(lines) and size + len(lines[end]) + 1 <= self._piece:
                size += len(lines[end]) + 1
                end += 1
            self._write_piece(descriptor, lines[begun:end], begun)
            begun = end

    def _write_piece(self, descriptor: int, lines: Sequence[bytes], before: int) -> None:
        text = b"\n".join(lines) + b"\n"
        there, end = self._torn, b""
        if there and not lines[0].startswith(there):
            there, end = b"", b"\n"
        text = end + text[len(there) :]
        written, problem = write_all(descriptor, text)
        if problem is not None:
            done = text[:written]
            if done:
                last = done.rfind(b"\n")
                self._torn = done[last + 1 :] if last >= 0 else there + done
            raise WriteError(problem, before + done[len(end) :].count(b"\n")) from problem
        self._torn = b""


def write_all(descriptor: int, text: bytes) -> tuple[int, OSError | None]:
    """
    Write as much as can be written; what does not block is waited for.

    :returns: how many bytes were written, and why no more were.
    """
    left = memoryview(text)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Whoever opened it made it so; here is time to wait.
            wait = select.poll()
            wait.register(descriptor, select.POLLOUT)
            wait.poll()
        except OSError as problem:
            return len(text) - len(left), problem
    return len(text), None


class EventLines:
    """
    Events as lines: a :class:`~txqmp.monitor.sinks.threaded.BlockingReceiver`.

    :param target: what to write to.
    :param gone: the numbers of the errors that are the end for good.
    """

    def __init__(self, target: Target, gone: Collection[int] = ()) -> None:
        self._target = target
        self._gone = frozenset(gone)

    def take(self, events: Sequence[OutgoingEvent]) -> None:
        """
        Write the events' texts.

        :raises DeliveryError: not all were written.
        """
        lines = [event.text for event in events]
        broken = next((place for place, line in enumerate(lines) if b"\n" in line), None)
        try:
            self._target.write(lines[:broken])
        except WriteError as problem:
            if problem.errno in self._gone:
                raise GoneError("nobody reads any more", problem.written) from problem
            reason = f"cannot write: {problem.strerror}"
            raise UnavailableError(reason, problem.written) from problem
        if broken is not None:
            raise EventRejectedError("the event has a line end in it", broken)

    def reopen(self) -> None:
        """Open the target anew."""
        self._target.reopen()

    def close(self) -> None:
        """Close the target."""
        self._target.close()
