"""How a spool stands: what it holds, and how far each sink has come."""

from __future__ import annotations

import sqlite3

import attrs


@attrs.frozen(kw_only=True, slots=True)
class SinkState:
    """
    How a sink stands.

    :ivar name: of the sink.
    :ivar acked: the position up to which it has acknowledged.
    :ivar attached: whether it was added since the spool was opened last, and not detached since:
        one that is not has been taken out of the configuration, and what it has not had is kept for
        nobody, until it is forgotten.
    :ivar lag: how many records it has not acknowledged, of those that are there.
    :ivar lag_bytes: how large they are together.
    :ivar since: the time of the first of them, in seconds since the epoch.
    :ivar dropped: how many it has lost since it was first added, because the spool was full. What
        was on its way at that moment counts too.
    :ivar dead: how many dead letters it has.
    :ivar retrying: how many of them are to be tried again.
    :ivar dead_dropped: how many it has lost because there were too many.
    """

    name: str
    acked: int
    attached: bool
    lag: int
    lag_bytes: int
    since: float | None
    dropped: int
    dead: int
    retrying: int
    dead_dropped: int


@attrs.frozen(kw_only=True, slots=True)
class SpoolState:
    """
    How a spool stands.

    :ivar identity: of the database, made up when it was made: 16 hexadecimal digits.
    :ivar first: the position of the oldest record; one more than ``last`` where there is none.
    :ivar last: the position of the newest record that there ever was.
    :ivar size: how large all records are together, in bytes.
    :ivar since: the time of the oldest record, in seconds since the epoch.
    :ivar sinks: how each sink stands, by name.
    """

    identity: str = ""
    first: int = 1
    last: int = 0
    size: int = 0
    since: float | None = None
    sinks: tuple[SinkState, ...] = ()

    @property
    def depth(self) -> int:
        """How many records there are."""
        return self.last - self.first + 1

    @property
    def abandoned(self) -> tuple[SinkState, ...]:
        """The sinks that nobody uses, and that records are kept for."""
        return tuple(each for each in self.sinks if each.lag and not each.attached)


@attrs.frozen(slots=True)
class Extent:
    """
    What of all the records that there ever were is there.

    :ivar first: the position of the oldest; one more than ``last`` where there is none.
    :ivar last: the position of the newest that there ever was.
    :ivar begins: how many bytes there ever were before the first.
    :ivar ends: how many with the last.
    :ivar since: the time of the first.
    """

    first: int
    last: int
    begins: int
    ends: int
    since: float | None


def read_extent(db: sqlite3.Connection) -> Extent:
    """What of all the records is there. All of a transaction sees the same."""
    oldest = db.execute(
        "SELECT position, ends - size, time FROM event ORDER BY position LIMIT 1"
    ).fetchone()
    if oldest is None:
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        position = last[0] if last else 0
        return Extent(position + 1, position, 0, 0, None)
    first, begins, since = oldest
    last, ends = db.execute(
        "SELECT position, ends FROM event ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return Extent(first, last, begins, ends, since)


_SINKS = """
SELECT sink, acked, attached, dropped, dead, dead_dropped,
    (SELECT COUNT(*) FROM dead WHERE dead.sink = cursor.sink AND retrying),
    next.time, :ends - (next.ends - next.size)
FROM cursor LEFT JOIN event AS next ON next.position = MAX(acked + 1, :first)
ORDER BY sink
"""


def read_state(db: sqlite3.Connection) -> SpoolState:
    """How the spool stands. All of a transaction sees the same."""
    extent = read_extent(db)
    (identity,) = db.execute("SELECT identity FROM meta").fetchone()
    sinks = [
        SinkState(
            name=name,
            acked=acked,
            attached=bool(attached),
            lag=extent.last - max(acked, extent.first - 1),
            lag_bytes=lag_bytes or 0,
            since=since,
            dropped=dropped,
            dead=dead,
            retrying=retrying,
            dead_dropped=dead_dropped,
        )
        for name, acked, attached, dropped, dead, dead_dropped, retrying, since, lag_bytes in (
            db.execute(_SINKS, {"first": extent.first, "ends": extent.ends})
        )
    ]
    return SpoolState(
        identity=identity,
        first=extent.first,
        last=extent.last,
        size=extent.ends - extent.begins,
        since=extent.since,
        sinks=tuple(sinks),
    )
