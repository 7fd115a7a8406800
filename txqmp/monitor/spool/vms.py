"""
What is known of each VM: its last numbers, so that they go on when the daemon is started anew.

They are written with the records that have them, so they never tell of a record that was not
committed. These functions are called within a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import attrs

from txqmp.monitor.spool.records import Item


REMEMBERED = 10_000
"""Of how many VMs this is known at most: those that were heard last."""


@attrs.frozen(slots=True)
class LastHeard:
    """
    What came last of a VM.

    :ivar session: the number of its session.
    :ivar seq: the number of its record.
    :ivar time: when it came to our notice, in seconds since the epoch.
    :ivar identity: what identified it; ``""`` for its name.
    :ivar over: whether that was the last that was to be said of it, if it does not return.
    """

    session: int
    seq: int
    time: float
    identity: str = ""
    over: bool = False


def note(db: sqlite3.Connection, items: Sequence[Item]) -> None:
    """These records are committed."""
    newest = {item.vm: item for item in items if item.seq}
    db.executemany(
        "INSERT OR REPLACE INTO vm VALUES (?, ?, ?, ?, ?, ?)",
        [
            (item.vm, item.session, item.seq, item.time, item.identity, item.over)
            for item in newest.values()
        ],
    )


def tidy(db: sqlite3.Connection) -> None:
    """Forget the VMs beyond :data:`REMEMBERED`."""
    db.execute(
        "DELETE FROM vm WHERE vm IN (SELECT vm FROM vm ORDER BY time DESC LIMIT -1 OFFSET ?)",
        (REMEMBERED,),
    )


def last_heard(db: sqlite3.Connection) -> dict[str, LastHeard]:
    """What came last of each VM, by its name."""
    rows = db.execute("SELECT vm, session, seq, time, identity, over FROM vm")
    return {
        vm: LastHeard(session, seq, time, identity, bool(over))
        for vm, session, seq, time, identity, over in rows
    }
