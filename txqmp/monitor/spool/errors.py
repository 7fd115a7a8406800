"""
What can go wrong with a spool::

    SpoolError
    ├── SpoolLockedError      another process owns the spool
    ├── SpoolVersionError     a later version of this program made it
    ├── SpoolStorageError     it cannot be read or written; .kind says why
    ├── SpoolFullError        there is no room for a record
    ├── SpoolClosedError      it is closed, or not open yet
    ├── UnknownSinkError      no sink of this name is known to it
    └── PositionError         (ValueError) nothing was ever at this position

Of a :class:`SpoolStorageError` a spool does not recover: see :class:`~txqmp.monitor.spool.Spool`.
The others fail one call.
"""

from __future__ import annotations

import enum
import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from txqmp.errors import QMPError


class SpoolError(QMPError):
    """The base of what a spool raises."""


class SpoolLockedError(SpoolError):
    """
    Another process owns the spool.

    :ivar pid: its number, ``None`` where it has not said yet.
    """

    def __init__(self, directory: str, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{holder} holds the spool in {directory}")
        self.pid = pid


class SpoolVersionError(SpoolError):
    """A later version of this program made the spool."""


class StorageFailure(enum.Enum):
    """Why a spool cannot be read or written (:attr:`SpoolStorageError.kind`)."""

    ABSENT = "absent"
    """There is none."""
    DENIED = "denied"
    """Its files cannot be opened, or not for writing: permissions, a read-only disk."""
    CORRUPT = "corrupt"
    """What is in them is not a spool, or not any more."""
    FULL = "full"
    """The disk is full."""
    IO = "io"
    """The disk failed, or somebody else keeps the database locked."""


class SpoolStorageError(SpoolError):
    """
    The spool cannot be read or written.

    :ivar kind: why, as one of :class:`StorageFailure`.
    """

    def __init__(self, message: str, kind: StorageFailure) -> None:
        super().__init__(message)
        self.kind = kind


class SpoolFullError(SpoolError):
    """There is no room for a record: it was not taken in."""


class SpoolClosedError(SpoolError):
    """The spool is closed, or not open yet."""


class UnknownSinkError(SpoolError):
    """No sink of this name is known to the spool."""

    def __init__(self, sink: str) -> None:
        super().__init__(f"the spool knows no sink {sink!r}")


class PositionError(SpoolError, ValueError):
    """Nothing was ever at this position of the spool."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the spool has never had a record {position}")


# What SQLite says, in the texts of sqlite3_errstr(): Python 3.10 does not give the codes.
_TEXTS = {
    "database or disk is full": StorageFailure.FULL,
    "unable to open database file": StorageFailure.DENIED,
    "attempt to write a readonly database": StorageFailure.DENIED,
}
_NUMBERS: dict[int | None, StorageFailure] = {
    errno.ENOENT: StorageFailure.ABSENT,
    errno.ENOSPC: StorageFailure.FULL,
    errno.EDQUOT: StorageFailure.FULL,
    errno.EIO: StorageFailure.IO,
}


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """
    Turn what SQLite and the operating system raise into a :class:`SpoolStorageError`.

    :param path: of what is read or written, for the message.
    """
    try:
        yield
    except sqlite3.Error as problem:
        kind = _TEXTS.get(str(problem), StorageFailure.IO)
        # SQLite's word for a file that is damaged or no database; all others are subclasses.
        if type(problem) is sqlite3.DatabaseError:
            kind = StorageFailure.CORRUPT
        raise SpoolStorageError(f"{path}: {problem}", kind) from problem
    except OSError as problem:
        kind = _NUMBERS.get(problem.errno, StorageFailure.DENIED)
        raise SpoolStorageError(f"{path}: {problem.strerror or problem}", kind) from problem
