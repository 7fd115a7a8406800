"""Lines, and events as lines: what the sinks that write them share."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.records import Entry
from txqmp.monitor.sinks.base import GRACE, Counters
from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.queue import DEFAULT_MAX_SIZE, RecordQueue
from txqmp.monitor.sinks.worker import Runner
from txqmp.reconnect import Backoff


RETRY = Backoff(initial=0.5, maximum=30.0, factor=2.0)
"""How often a write is tried that has failed, such as to a disk that is full."""

_BATCH_COUNT = 1000
_BATCH_SIZE = 1 << 16


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


class LineSink:
    """
    A sink that writes each record as a line. A write that fails is tried again, and the records
    wait meanwhile; only a pipe whose reader has gone is the end.

    :param name: of the sink.
    :param clock: where the waits come from.
    :param runner: runs what blocks.
    :param target: what to write to.
    :param closed: called when nobody reads any more.
    :param max_size: how many bytes of records may wait.

    :ivar counters: what became of the records.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        runner: Runner,
        target: Target,
        *,
        closed: Callable[[], object] = lambda: None,
        max_size: int = DEFAULT_MAX_SIZE,
        grace: float = GRACE,
    ) -> None:
        self.name = name
        self.counters = Counters()
        self._clock = clock
        self._runner = runner
        self._target = target
        self._tell_closed = closed
        self._grace = grace
        self._queue = RecordQueue(name, self.counters, clock, max_size)
        self._batch: list[Entry] = []
        self._writing = False
        self._failures = 0
        self._retry: IDelayedCall | None = None
        self._closed = False
        self._stopping: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def start(self) -> None:
        """Nothing needs to be opened before there is a record."""

    def put(self, entry: Entry) -> None:
        """Take a record."""
        if self._closed:
            self.counters.taken += 1
            self.counters.dropped += 1
            return
        self._queue.put(entry)
        self._write()

    def reopen(self) -> None:
        """Open the target anew before the next record is written."""
        if not self._closed:
            self._runner.run(self._target.reopen).addErrback(self._cannot, "reopen")
            self._try_now()

    def stop(self) -> Deferred[None]:
        """Write what is held, for a limited time, and end."""
        if self._closed:
            return succeed(None)
        self._stopping = Deferred()
        stopping = self._stopping
        self._deadline = self._clock.callLater(self._grace, self._end)
        self._try_now()
        return stopping

    # Writing

    def _try_now(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()
        self._write()

    def _write(self) -> None:
        if self._writing or self._retry is not None or self._closed:
            return
        if not self._batch:
            self._batch = self._queue.take(_BATCH_COUNT, _BATCH_SIZE)
        if self._batch:
            self._writing = True
            lines = [entry.text for entry in self._batch]
            self._runner.run(self._target.write, lines).addCallbacks(self._wrote, self._failed)
        elif self._stopping is not None:
            self._end()

    def _wrote(self, _: None) -> None:
        if self._closed:
            return
        self._writing = False
        self.counters.delivered += len(self._batch)
        self._batch = []
        if self._failures:
            self._failures = 0
            self._log.info("{sink}: writes again", sink=self.name)
        self._write()

    def _failed(self, failure: Failure) -> None:
        if self._closed:
            return
        self._writing = False
        self._failures += 1
        self.counters.failures += 1
        problem = failure.value
        if isinstance(problem, WriteError):
            self.counters.delivered += problem.written
            del self._batch[: problem.written]
            if problem.errno == errno.EPIPE:
                self._log.warn("{sink}: nobody reads any more", sink=self.name)
                self._end()
                self._tell_closed()
                return
        if self._failures == 1:
            self._log.error(
                "{sink}: cannot write, and will try again: {problem}",
                sink=self.name,
                problem=problem,
            )
        if self._stopping is not None:
            self._end()
        else:
            delay = RETRY.delay(self._failures)
            self._retry = self._clock.callLater(delay, self._try_now)

    def _cannot(self, failure: Failure, what: str) -> None:
        self._log.failure("{sink}: cannot {what}", failure, sink=self.name, what=what)

    def _end(self) -> None:
        """Write no more."""
        self._closed = True
        for timer in (self._deadline, self._retry):
            if timer is not None and timer.active():
                timer.cancel()
        left = len(self._batch) + len(self._queue)
        if left:
            self.counters.dropped += left
            self._log.warn("{sink}: {count} records were not written", sink=self.name, count=left)
        self._runner.run(self._target.close).addErrback(self._cannot, "close")
        self._runner.stop()
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(None)
