"""
Events at the end of a file, a line for each: :func:`jsonl_delivery`.

What a crash, or a disk that is full, leaves of a line is mended, so that every line can be read.
Others may append to the file, and follow it, so nothing is taken from it that may not be ours:

* What a failed write has left of a line is cut off again, if it is the end of the file still.
* A torn line that is found when there is something to write is one that was never acknowledged, so
  its event comes again, and it does so in the batch with which this goes on. Then what lacks of the
  line is appended. Whoever has read its beginning reads the rest, and nothing has been cut off.
* If its event does not come again (it was given up meanwhile), it is cut off, if it can be told
  from the id of our spool, which nobody else has, that it is ours.
* All else, such as what another program has torn, is ended with a line end. A line that only lacked
  its line end is whole then; if not, it is for its owner to mend, and the next ones can be read.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from collections.abc import Sequence
from typing import Any

import orjson

from txqmp.monitor.sinks.lines import EventLines, LineWriter, WriteError, write_all
from txqmp.monitor.sinks.settings import JSONLSettings
from txqmp.monitor.sinks.threaded import ThreadedDelivery
from txqmp.monitor.worker import Worker


MODE = 0o640
"""The permissions of a new file, before the umask."""

BATCH = 1000
"""How many events are written at a time, at most."""

MAX_TORN = 1 << 22
"""How long a torn line may be that is mended, in bytes; one that is longer is only ended."""

# How an event begins, as far as the id of the spool (cloudevents.numbered).
_OURS = re.compile(rb'\{"specversion":"1\.0","id":"[0-9a-f]{16}-')


class AppendedFile:
    """
    Lines to the end of a file, which is opened when there is a line and made where it is missing.
    It is opened anew when its path has become that of another file, or of none (it was rotated).

    What is no regular file, such as a terminal or a FIFO, is written to as well, but keeps nothing.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._identity = (0, 0)
        # For what is no regular file.
        self._writer: LineWriter | None = None

    def write(self, lines: Sequence[bytes]) -> None:
        """
        Write whole lines. They are on the disk when this returns.

        :raises WriteError: not all were written, or not all are on the disk for sure.
        """
        if not lines:
            return
        try:
            descriptor = self._current()
            if self._writer is None:
                self._append(descriptor, lines)
            else:
                self._writer.write(descriptor, lines)
        except WriteError:
            self.close()
            raise
        except OSError as problem:
            self.close()
            raise WriteError(problem, 0) from problem

    def reopen(self) -> None:
        """Open it anew before the next write: it may have been rotated."""
        self.close()

    def close(self) -> None:
        """Close it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    # Opening

    def _current(self) -> int:
        """The descriptor of what is at the path now."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if self._descriptor is not None:
            if there is not None and self._identity == (there.st_dev, there.st_ino):
                return self._descriptor
            self.close()
        self._descriptor = descriptor = self._open(there)
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        if stat.S_ISREG(status.st_mode):
            self._writer = None
            _sync_directory(self._path)
        elif stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
            self._writer = LineWriter(select.PIPE_BUF)
        else:
            raise OSError(errno.EINVAL, "nothing that lines can be appended to")
        return descriptor

    def _open(self, there: os.stat_result | None) -> int:
        # A FIFO without a reader is an error instead of a wait. It must not be opened for reading,
        # because then it would be us who read.
        flags = os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        if there is None:
            return os.open(self._path, flags | os.O_RDWR | os.O_CREAT, MODE)
        if stat.S_ISREG(there.st_mode):
            return os.open(self._path, flags | os.O_RDWR)
        try:
            return os.open(self._path, flags | os.O_WRONLY)
        except OSError as problem:
            if problem.errno == errno.ENXIO and stat.S_ISFIFO(there.st_mode):
                raise OSError(errno.ENXIO, "nobody reads the FIFO") from problem
            raise

    # Regular files

    def _append(self, descriptor: int, lines: Sequence[bytes]) -> None:
        before = _mended(descriptor, lines)
        text = b"%b%b\n" % (before, b"\n".join(lines))
        start = os.fstat(descriptor).st_size
        written, problem = write_all(descriptor, text)
        whole = text.rfind(b"\n", 0, written) + 1
        if whole < written:
            _cut_off(descriptor, start + written, start + whole)
        # If this fails, what was written may be lost, though reading the file shows it still.
        os.fdatasync(descriptor)
        if problem is not None:
            raise WriteError(problem, text.count(b"\n", len(before), whole))


def _sync_directory(path: str) -> None:
    """Let a new file's name be on the disk, as far as this can be asked for."""
    directory = os.path.dirname(os.path.realpath(path))
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # Files may be made in a directory that may not be read.
        return
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # the file system has no such thing
            raise
    finally:
        os.close(descriptor)


def _mended(descriptor: int, lines: Sequence[bytes]) -> bytes:
    """
    See to it that the last line in a file ends.

    :param lines: those that are about to be written.
    :returns: what is to be written before them.
    """
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return b""
    start = max(0, size - MAX_TORN)
    end = os.pread(descriptor, size - start, start)
    torn = end[end.rfind(b"\n") + 1 :]
    if len(torn) == MAX_TORN:
        return b"\n"
    for line in lines:
        if line.startswith(torn):
            return line[len(torn) :] + b"\n"
    try:
        orjson.loads(torn)
    except ValueError:
        ours = _OURS.match(lines[0])
        is_ours = ours is not None and torn.startswith(ours.group())
        if is_ours and _cut_off(descriptor, size, size - len(torn)):
            return b""
    return b"\n"


def _cut_off(descriptor: int, size: int, keep: int) -> bool:
    """
    Cut off the end of a file, if nobody has appended to it.

    :param size: how large it should be.
    :param keep: how much of it is to stay.
    :returns: whether it was cut off. If not, it is mended as what is found at the next write.
    """
    try:
        if os.fstat(descriptor).st_size != size:
            return False
        os.ftruncate(descriptor, keep)
    except OSError:
        # Such as a file that can only be appended to (chattr +a).
        return False
    return True


def jsonl_delivery(reactor: Any, settings: JSONLSettings) -> ThreadedDelivery:
    """
    Appends events to a file. They are delivered when they are on the disk (``fdatasync``).

    :param reactor: the running one.
    :param settings: which file.
    """
    receiver = EventLines(AppendedFile(settings.path))
    name = f"jsonl {settings.path}"
    return ThreadedDelivery(name, BATCH, receiver, Worker(reactor, "jsonl"), reactor)
