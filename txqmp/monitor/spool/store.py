"""Writing to a spool: a group of records and changes at a time, each group on the disk or not."""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from twisted.python.failure import Failure

from txqmp.monitor.spool import vms
from txqmp.monitor.spool.cursors import lose, slowest
from txqmp.monitor.spool.database import DATABASE_NAME, open_for_writing
from txqmp.monitor.spool.errors import SpoolStorageError, StorageFailure, storage_errors
from txqmp.monitor.spool.limits import DEFAULT_LIMITS, SpoolLimits, WhenFull
from txqmp.monitor.spool.owner import Ownership, make_directory
from txqmp.monitor.spool.records import Item
from txqmp.monitor.spool.state import Extent, SpoolState, read_extent, read_state


TRIM = 10_000
"""How many records that nobody needs any more are deleted with a group at most."""

Change = Callable[[sqlite3.Connection], Any]
"""Something beside records that is to be written."""


# What SQLite's module raises for a mistake of the caller's.
_CALLERS = (
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
)


@attrs.frozen(slots=True)
class Outcome:
    """
    What became of a group.

    :ivar results: what each change returned, or a Failure: then it changed nothing.
    :ivar first: the position of the first record.
    :ivar taken: how many records were taken in; there was no room for the others.
    :ivar state: how the spool stands now.
    :ivar seconds: how long it took.
    """

    results: tuple[Any, ...]
    first: int
    taken: int
    state: SpoolState
    seconds: float


class Store:
    """
    Owns a spool and writes to it. It may block; it is used in the thread in which it was made.

    After a :class:`~txqmp.monitor.spool.errors.SpoolStorageError` it is not to be written to any
    more: what the kernel could not write to the disk it does not try to write again, and yet says
    the next time that all is well.

    :param directory: of the spool; made where it is missing, but not its parents.
    :param create: whether to make a spool where there is none.
    :raises SpoolLockedError: another process owns it.
    :raises SpoolVersionError: a later version of this program made it.
    :raises SpoolStorageError: it cannot be opened.
    """

    def __init__(
        self, directory: str, limits: SpoolLimits = DEFAULT_LIMITS, *, create: bool = True
    ) -> None:
        self._limits = limits
        self._path = os.path.join(directory, DATABASE_NAME)
        self._file: os.stat_result | None = None
        self._closed = False
        self._run = secrets.randbits(63)
        if create:
            with storage_errors(directory):
                make_directory(directory)
        self._ownership = Ownership(directory)
        try:
            self._db = open_for_writing(directory, create=create)
        except BaseException:
            self._ownership.release()
            raise

    def commit(self, changes: Sequence[Change], items: Sequence[Item], now: float) -> Outcome:
        """
        Write a group. When this returns it is on the disk.

        :param changes: what to change, first.
        :param items: the records to take in. With :attr:`WhenFull.BLOCK` it may be only the first
            ones.
        :param now: in seconds since the epoch.
        :raises SpoolStorageError: nobody knows whether it is on the disk.
        """
        begun = time.perf_counter()
        with self._transaction():
            self._check_file()
            results = tuple([self._attempt(change) for change in changes])
            extent = read_extent(self._db)
            taken = self._insert(extent, items)
            self._trim(now)
            state = read_state(self._db)
        seconds = time.perf_counter() - begun
        return Outcome(results, extent.last + 1, taken, state, seconds)

    def change(self, change: Change) -> Any:
        """
        Change something, and touch no record.

        :returns: what the change returns.
        :raises SpoolStorageError: nobody knows whether it is on the disk.
        """
        with self._transaction():
            return change(self._db)

    def close(self) -> None:
        """
        Tidy up, and let others own the spool; a second time does nothing. What was committed is on
        the disk already: if this fails nothing is lost.

        :raises SpoolStorageError: the database could not be tidied up.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with storage_errors(self._path):
                try:
                    # All back into one file, even while others read it.
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                finally:
                    self._db.close()
        finally:
            self._ownership.release()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with storage_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # which an error can have ended
                    self._db.execute("ROLLBACK")
                raise

    def _check_file(self) -> None:
        """SQLite writes on into a file that has no name any more, and that nobody can read."""
        file = os.stat(self._path)
        if self._file is not None and not os.path.samestat(file, self._file):
            raise SpoolStorageError(f"{self._path} is another file now", StorageFailure.ABSENT)
        self._file = file

    def _attempt(self, change: Change) -> Any:
        """What a change returns, or a Failure: one that cannot be is not to fail the others."""
        self._db.execute("SAVEPOINT change")
        try:
            result = change(self._db)
        except Exception as problem:
            if isinstance(problem, sqlite3.Error) and not isinstance(problem, _CALLERS):
                raise
            result = Failure()
            self._db.execute("ROLLBACK TO change")
        self._db.execute("RELEASE change")
        return result

    def _insert(self, extent: Extent, items: Sequence[Item]) -> int:
        """Take records in, as many as there is room for."""
        position, ends = extent.last, extent.ends
        limit = self._limit(extent)
        rows = []
        for item in items:
            position, ends = position + 1, ends + item.size
            if limit is not None and ends > limit:
                break
            rows.append(
                (position, self._run, item.time, item.vm, item.type, item.size, ends, item.data)
            )
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        vms.note(self._db, items[: len(rows)])
        return len(rows)

    def _limit(self, extent: Extent) -> int | None:
        """How many bytes there may ever have been after a group; ``None`` for no limit."""
        needed = slowest(self._db, extent)
        if needed is None or self._limits.when_full is not WhenFull.BLOCK:
            return None
        delivered = extent.begins
        if needed >= extent.first:
            (delivered,) = self._db.execute(
                "SELECT ends FROM event WHERE position = ?", (needed,)
            ).fetchone()
        return delivered + self._limits.max_bytes

    def _trim(self, now: float) -> None:
        """Delete what nobody needs any more, and what there is no room for."""
        extent = read_extent(self._db)
        needed = slowest(self._db, extent)
        if needed is None:
            needed = extent.last
        through = self._not_kept(extent, min(needed, extent.first - 1 + TRIM), now)
        too_much = extent.ends - self._limits.max_bytes
        if too_much > extent.begins:
            least = self._first("ends >= ?", (too_much,))
            assert least is not None
            through = max(through, least)
            if self._limits.when_full is WhenFull.BLOCK:
                through = min(through, needed)  # else the limits were other ones before
        if through > needed:
            lose(self._db, extent, through)
        if through >= extent.first:
            self._db.execute("DELETE FROM event WHERE position <= ?", (through,))

    def _not_kept(self, extent: Extent, delivered: int, now: float) -> int:
        """
        The position up to which records need not be kept for replay.

        This goes from the oldest on to the first one that is to be kept, by its time too, although
        clocks can be set back: then some are kept for longer.
        """
        keep_seconds = self._limits.keep_seconds
        oldest = self._first(
            "position > ? OR ends > ? OR time > ?",
            (
                delivered,
                extent.ends - self._limits.keep_bytes,
                now - keep_seconds if keep_seconds else math.inf,
            ),
        )
        return delivered if oldest is None else oldest - 1

    def _first(self, condition: str, values: tuple[float, ...]) -> int | None:
        """The position of the first record that fulfils a condition."""
        row = self._db.execute(
            f"SELECT position FROM event WHERE {condition} ORDER BY position LIMIT 1",  # noqa: S608
            values,
        ).fetchone()
        return None if row is None else int(row[0])
