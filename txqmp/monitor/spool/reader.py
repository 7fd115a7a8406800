"""
Reading a spool: what sinks, streams and the commands of the daemon get from it.

Any number of readers may be open beside the one that writes, in this process or in others. None
holds a transaction longer than a call lasts, so none keeps the database from being tidied up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from txqmp.monitor.spool import dead, vms
from txqmp.monitor.spool.cursors import acknowledged
from txqmp.monitor.spool.database import DATABASE_NAME, open_for_reading
from txqmp.monitor.spool.errors import PositionError, storage_errors
from txqmp.monitor.spool.filter import EVERYTHING, Filter
from txqmp.monitor.spool.records import Batch, DeadLetter, SpoolGap, Stored
from txqmp.monitor.spool.state import Extent, SpoolState, read_extent, read_state


BATCH = 200
"""How many records to read at once, where nothing else is said."""

BATCH_BYTES = 1 << 20
"""How large they may be together, where it is more than one, in bytes."""

SCAN = 5000
"""How many records are looked through at once for those that are wanted."""

_RECORDS = """
SELECT position, run, vm, type, time, data FROM event WHERE position > ? AND position <= ?
"""


class Reader:
    """
    Reads a spool. It may block; it is used in the thread in which it was made.

    :param directory: of the spool.
    :raises SpoolVersionError: a later version of this program made it.
    :raises SpoolStorageError: it cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, DATABASE_NAME)
        self._db = open_for_reading(directory)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no more; a second time does nothing."""
        self._db.close()

    def state(self) -> SpoolState:
        """How the spool stands."""
        with self._snapshot():
            return read_state(self._db)

    def read(
        self,
        after: int | None = None,
        *,
        wanted: Filter = EVERYTHING,
        count: int = BATCH,
        size: int = BATCH_BYTES,
    ) -> Batch:
        """
        The records after a position. There may be fewer than asked for, or none, though there are
        more: read on after :attr:`Batch.through` until that is the last.

        :param after: the position; ``None`` to begin with the oldest that is there.
        :param wanted: which of them.
        :param count: how many at most, where it is more than one.
        :param size: how large they may be together, likewise, in bytes.
        :raises PositionError: there never was such a record: the reader comes from another spool,
            or this one was put back from a copy.
        :raises SpoolStorageError: the spool cannot be read.
        """
        with self._snapshot():
            return self._batch(after, None, wanted, count, size)

    def read_for(
        self,
        sink: str,
        after: int | None = None,
        *,
        wanted: Filter = EVERYTHING,
        count: int = BATCH,
        size: int = BATCH_BYTES,
    ) -> Batch:
        """
        The records that a sink has not acknowledged. What is not said here is as for :meth:`read`.

        :param after: where it read to before, if not all of that is acknowledged yet.
        :raises UnknownSinkError: there is no such sink.
        """
        with self._snapshot():
            acked = acknowledged(self._db, sink)
            return self._batch(max(acked, after or 0), sink, wanted, count, size)

    def dead(
        self,
        sink: str | None = None,
        *,
        retrying: bool = False,
        after: int = 0,
        count: int = BATCH,
    ) -> list[DeadLetter]:
        """
        Dead letters, the oldest first.

        :param sink: whose; ``None`` for everybody's.
        :param retrying: only those that are to be tried again.
        :param after: only those with greater numbers.
        :param count: how many at most.
        :raises SpoolStorageError: the spool cannot be read.
        """
        with self._snapshot():
            return dead.letters(self._db, sink, retrying=retrying, after=after, count=count)

    def last_heard(self) -> dict[str, vms.LastHeard]:
        """
        What came last of each VM, by its name.

        :raises SpoolStorageError: the spool cannot be read.
        """
        with self._snapshot():
            return vms.last_heard(self._db)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read meanwhile is of one moment."""
        with storage_errors(self._path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:  # which an error can have ended
                    self._db.execute("ROLLBACK")

    def _batch(
        self, after: int | None, sink: str | None, wanted: Filter, count: int, size: int
    ) -> Batch:
        extent = read_extent(self._db)
        begin = extent.first - 1
        if after is not None:
            if not 0 <= after <= extent.last:
                raise PositionError(after)
            begin = max(begin, after)
        gap = None
        if after is not None and after < begin:
            gap = SpoolGap(after + 1, begin, *self._times_lost(sink))
        records, through = self._records(begin, extent, wanted, count, size)
        return Batch(gap, tuple(records), through)

    def _times_lost(self, sink: str | None) -> tuple[float | None, float | None]:
        row = self._db.execute(
            "SELECT lost_since, lost_until FROM cursor WHERE sink = ?", (sink,)
        ).fetchone()
        return row or (None, None)

    def _records(
        self, begin: int, extent: Extent, wanted: Filter, count: int, size: int
    ) -> tuple[list[Stored], int]:
        """The records after a position, and how far was looked."""
        count = max(count, 1)
        end = min(begin + SCAN, extent.last) if wanted else extent.last
        condition, values = wanted.condition()
        query = f"{_RECORDS} AND {condition} ORDER BY position LIMIT ?"
        rows = self._db.execute(query, (begin, end, *values, count + 1))
        records: list[Stored] = []
        for row in rows:
            record = Stored(*row)
            size -= len(record.data)
            if records and (size < 0 or len(records) == count):
                return records, records[-1].position
            records.append(record)
        return records, end
