"""
The cursors: up to where each sink has acknowledged, and what it has lost.

These functions are called within a transaction. They check before they change anything.
"""

from __future__ import annotations

import enum
import sqlite3

from txqmp.monitor.spool.errors import PositionError, UnknownSinkError
from txqmp.monitor.spool.state import Extent, read_extent


class Start(enum.Enum):
    """Where a new sink begins."""

    END = "end"
    """With what is committed from then on."""
    BEGINNING = "beginning"
    """With the oldest record that is there."""


def detach_all(db: sqlite3.Connection) -> None:
    """No sink has been added yet."""
    db.execute("UPDATE cursor SET attached = 0")


def add(db: sqlite3.Connection, sink: str, start: Start) -> int:
    """
    Have a sink's place remembered, and what it has not had kept. One that is known already goes on
    where it was.

    :returns: the position that it goes on after.
    """
    extent = read_extent(db)
    acked = extent.last if start is Start.END else extent.first - 1
    db.execute(
        "INSERT INTO cursor (sink, acked, attached) VALUES (?, ?, 1)"
        " ON CONFLICT (sink) DO UPDATE SET attached = 1",
        (sink, acked),
    )
    return acknowledged(db, sink)


def detach(db: sqlite3.Connection, sink: str) -> None:
    """A sink is not used any more; what it has not had is kept all the same."""
    db.execute("UPDATE cursor SET attached = 0 WHERE sink = ?", (sink,))


def acknowledged(db: sqlite3.Connection, sink: str) -> int:
    """
    The position up to which a sink has acknowledged.

    :raises UnknownSinkError: there is no such sink.
    """
    row = db.execute("SELECT acked FROM cursor WHERE sink = ?", (sink,)).fetchone()
    if row is None:
        raise UnknownSinkError(sink)
    return int(row[0])


def acknowledge(db: sqlite3.Connection, sink: str, position: int) -> None:
    """
    A sink has delivered everything up to a position, and told of every gap before it. Less than
    before changes nothing.

    :raises UnknownSinkError: there is no such sink.
    :raises PositionError: there never was such a record.
    """
    acknowledged(db, sink)
    extent = read_extent(db)
    if position > extent.last:
        raise PositionError(position)
    db.execute("UPDATE cursor SET acked = MAX(acked, ?) WHERE sink = ?", (position, sink))
    if position >= extent.first - 1:
        db.execute(
            "UPDATE cursor SET lost_since = NULL, lost_until = NULL"
            " WHERE sink = ? AND lost_since IS NOT NULL",
            (sink,),
        )


def rewind(db: sqlite3.Connection, sink: str, position: int) -> int:
    """
    Have a sink deliver again what comes after a position, as far as it is there. What it has not
    delivered yet stays as it is.

    :returns: how many records it gets again.
    :raises UnknownSinkError: there is no such sink.
    :raises PositionError: there never was such a record.
    """
    acked = acknowledged(db, sink)
    extent = read_extent(db)
    if not 0 <= position <= extent.last:
        raise PositionError(position)
    # Not to before the oldest that is there: the sink has had the ones that are missing.
    position = max(position, extent.first - 1)
    if position >= acked:
        return 0
    db.execute("UPDATE cursor SET acked = ? WHERE sink = ?", (position, sink))
    return acked - position


def slowest(db: sqlite3.Connection, extent: Extent) -> int | None:
    """
    The position up to which nobody needs the records any more; ``None`` where there is no sink.
    """
    (acked,) = db.execute("SELECT MIN(acked) FROM cursor").fetchone()
    return None if acked is None else max(acked, extent.first - 1)


def lose(db: sqlite3.Connection, extent: Extent, through: int) -> None:
    """
    The records up to a position are about to go: whoever has not acknowledged them loses them.
    """
    db.execute(
        """
        UPDATE cursor SET
            dropped = dropped + :through - MAX(acked, :before),
            lost_since = COALESCE(
                lost_since, (SELECT time FROM event WHERE position = MAX(acked, :before) + 1)
            ),
            lost_until = (SELECT time FROM event WHERE position = :through)
        WHERE acked < :through
        """,
        {"through": through, "before": extent.first - 1},
    )


def forget(db: sqlite3.Connection, sink: str) -> None:
    """
    Know nothing of a sink any more: nothing is kept for it, and its dead letters are gone.

    :raises UnknownSinkError: there is no such sink.
    """
    acknowledged(db, sink)
    db.execute("DELETE FROM dead WHERE sink = ?", (sink,))
    db.execute("DELETE FROM cursor WHERE sink = ?", (sink,))
