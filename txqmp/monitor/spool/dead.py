"""
The dead letters: what a sink gave up on, kept for a person to look at.

These functions are called within a transaction. They check before they change anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from txqmp.monitor.spool.cursors import acknowledged
from txqmp.monitor.spool.limits import SpoolLimits
from txqmp.monitor.spool.records import OVERHEAD, DeadLetter, Stored


MAX_REASON = 1000
"""How much of a reason is kept, in characters."""


def bury(
    db: sqlite3.Connection,
    limits: SpoolLimits,
    sink: str,
    record: Stored,
    reason: str,
    attempts: int,
    now: float,
) -> int:
    """
    Keep a record that a sink could not deliver; if that is too much, drop the oldest. One that was
    there already keeps its number, and is not to be tried again any more.

    :returns: the dead letter's number.
    :raises UnknownSinkError: there is no such sink.
    """
    acknowledged(db, sink)
    place = (sink, record.run, record.position)
    reason = reason[:MAX_REASON].encode(errors="replace").decode()
    before = db.execute(
        "SELECT number FROM dead WHERE sink = ? AND run = ? AND position = ?", place
    ).fetchone()
    if before is not None:
        db.execute(
            "UPDATE dead SET reason = ?, attempts = ?, since = ?, retrying = 0 WHERE number = ?",
            (reason, attempts, now, *before),
        )
        return int(before[0])
    size = len(record.data) + OVERHEAD
    cursor = db.execute(
        "INSERT INTO dead"
        " (sink, run, position, vm, type, time, data, size, reason, attempts, since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *place,
            record.vm,
            record.type,
            record.time,
            record.data,
            size,
            reason,
            attempts,
            now,
        ),
    )
    number = cursor.lastrowid
    assert number is not None
    _count(db, sink, 1, size)
    _bound(db, limits, sink)
    return number


def _bound(db: sqlite3.Connection, limits: SpoolLimits, sink: str) -> None:
    """Drop the oldest until the others are few enough, the newest never."""
    while True:
        letters, size = db.execute(
            "SELECT dead, dead_size FROM cursor WHERE sink = ?", (sink,)
        ).fetchone()
        if letters <= limits.max_dead and (size <= limits.max_dead_bytes or letters == 1):
            return
        (oldest,) = db.execute(
            "SELECT number FROM dead WHERE sink = ? ORDER BY number LIMIT 1", (sink,)
        ).fetchone()
        _delete(db, sink, oldest)
        db.execute("UPDATE cursor SET dead_dropped = dead_dropped + 1 WHERE sink = ?", (sink,))


def _delete(db: sqlite3.Connection, sink: str, number: int) -> int:
    row = db.execute(
        "SELECT size FROM dead WHERE sink = ? AND number = ?", (sink, number)
    ).fetchone()
    if row is None:
        return 0
    db.execute("DELETE FROM dead WHERE number = ?", (number,))
    _count(db, sink, -1, -row[0])
    return 1


def _count(db: sqlite3.Connection, sink: str, letters: int, size: int) -> None:
    db.execute(
        "UPDATE cursor SET dead = dead + ?, dead_size = dead_size + ? WHERE sink = ?",
        (letters, size, sink),
    )


def drop(db: sqlite3.Connection, sink: str, numbers: Sequence[int] | None) -> int:
    """
    Forget dead letters of a sink: a person says so, or they are delivered after all.

    :param numbers: which; ``None`` for all.
    :returns: how many there were.
    :raises UnknownSinkError: there is no such sink.
    """
    acknowledged(db, sink)
    if numbers is not None:
        return sum(_delete(db, sink, number) for number in numbers)
    db.execute("UPDATE cursor SET dead = 0, dead_size = 0 WHERE sink = ?", (sink,))
    return db.execute("DELETE FROM dead WHERE sink = ?", (sink,)).rowcount


def retry(db: sqlite3.Connection, sink: str, numbers: Sequence[int] | None) -> int:
    """
    Have dead letters of a sink tried again.

    :param numbers: which; ``None`` for all.
    :returns: how many there were.
    :raises UnknownSinkError: there is no such sink.
    """
    acknowledged(db, sink)
    mark = "UPDATE dead SET retrying = 1 WHERE sink = ?"
    if numbers is None:
        return db.execute(mark, (sink,)).rowcount
    return sum(db.execute(f"{mark} AND number = ?", (sink, number)).rowcount for number in numbers)


_COLUMNS = "number, sink, reason, attempts, since, retrying, position, run, vm, type, time, data"


def letters(
    db: sqlite3.Connection, sink: str | None, *, retrying: bool, after: int, count: int
) -> list[DeadLetter]:
    """
    Dead letters, the oldest first.

    :param sink: whose; ``None`` for everybody's.
    :param retrying: only those that are to be tried again.
    :param after: only those with greater numbers.
    :param count: how many at most.
    """
    terms: list[str] = ["number > ?"]
    values: list[object] = [after]
    if sink is not None:
        terms.append("sink = ?")
        values.append(sink)
    if retrying:
        terms.append("retrying")
    query = f"SELECT {_COLUMNS} FROM dead WHERE {' AND '.join(terms)}"  # noqa: S608
    rows = db.execute(f"{query} ORDER BY number LIMIT ?", (*values, count))
    return [
        DeadLetter(number, sink, Stored(*record), reason, attempts, since, bool(again))
        for number, sink, reason, attempts, since, again, *record in rows
    ]
