"""Spools without threads: what would run in one runs at once, or when it is let."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from support.deferreds import success
from txqmp.monitor.spool import Item, Spool, SpoolError, SpoolLimits
from txqmp.monitor.spool.database import DATABASE_NAME


#: When it is, in seconds since the epoch.
NOW = 1_800_000_000.0

#: The size of what :func:`item` makes.
SIZE = 100


class Turns:
    """A runner that runs at once, or when it is let.

    :ivar held: what waits; None while nothing has to.
    """

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] | None = None
        self.stopped = 0
        self.joined = 0

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        """Run what waits, and what comes."""
        held, self.held = self.held or [], None
        for call in held:
            call()

    def step(self) -> None:
        """Run the first of what waits."""
        assert self.held
        self.held.pop(0)()

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(function, *args)
        deferred: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(function, *args).chainDeferred(deferred))
        return deferred

    def stop(self) -> None:
        self.stopped += 1

    def join(self) -> None:
        assert self.stopped
        self.joined += 1


class SpoolWorld:
    """A spool and what is around it.

    :ivar failures: what it said when it ended.
    :ivar commits: how many commits it told of.
    """

    def __init__(
        self, directory: Path | str, limits: SpoolLimits | None = None, **options: Any
    ) -> None:
        self.directory = str(directory)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.writer = Turns()
        self.reader = Turns()
        self.failures: list[SpoolError] = []
        self.commits = 0
        self.spool = Spool(
            self.clock,
            self.directory,
            self.writer,
            self.reader,
            limits or SpoolLimits(keep_bytes=0),
            **{"failed": self.failures.append, "observe": self._committed, **options},
        )

    def _committed(self, seconds: float) -> None:
        assert seconds >= 0
        self.commits += 1

    def start(self) -> SpoolWorld:
        success(self.spool.start())
        return self

    def item(self, text: str = "", *, vm: str = "vm", kind: str = "STOP", size: int = SIZE) -> Item:
        """Return a record that counts for so many bytes."""
        return item(text, vm=vm, kind=kind, time=self.clock.seconds(), size=size)

    def put(self, *texts: str, **options: Any) -> list[Deferred[int]]:
        return [self.spool.put(self.item(text, **options)) for text in texts]

    def texts(self, after: int | None = None) -> list[str]:
        """Return what is in the spool."""
        return [text_of(record.data) for record in success(self.spool.read(after)).records]

    def next_for(self, sink: str, **options: Any) -> list[str]:
        """Return what a sink gets next, gaps as ``first-last``, and acknowledge it."""
        batch = success(self.spool.read_for(sink, **options))
        success(self.spool.ack(sink, batch.through))
        gap = [f"{batch.gap.first}-{batch.gap.last}"] if batch.gap else []
        return gap + [text_of(record.data) for record in batch.records]

    def close(self) -> None:
        success(self.spool.close())
        assert not self.clock.getDelayedCalls()


def item(
    text: str = "",
    *,
    vm: str = "vm",
    kind: str = "STOP",
    time: float = NOW,
    size: int = SIZE,
) -> Item:
    """Return a record that counts for so many bytes."""
    short = Item(vm, kind, time, text.encode())
    return Item(vm, kind, time, short.data.ljust(len(short.data) + size - short.size))


def text_of(data: bytes) -> str:
    return data.decode().rstrip()


def copy_spool(directory: str, to: str) -> None:
    """Copy a spool that is open, as a crash would leave it."""
    os.mkdir(to)
    for suffix in ("", "-wal"):
        path = os.path.join(directory, DATABASE_NAME + suffix)
        if os.path.exists(path):
            shutil.copy(path, to)


class FaultyConnection:
    """A connection to a database on a disk that fails.

    :ivar faults: what the statements with such a beginning raise.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.faults: dict[str, Exception] = {}

    def execute(self, statement: str, *args: Any) -> Any:
        for beginning, fault in self.faults.items():
            if statement.startswith(beginning):
                raise fault
        return self._db.execute(statement, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)
