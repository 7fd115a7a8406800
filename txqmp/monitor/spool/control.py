"""Changing a spool while no daemon runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from txqmp.monitor.spool import cursors, dead
from txqmp.monitor.spool.store import Store


class Control:
    """
    Owns a spool for a moment, to change something by hand. It may block. It takes no record in and
    deletes none: the daemon's limits are not known here.

    :param directory: of the spool.
    :raises SpoolLockedError: a daemon runs.
    :raises SpoolVersionError: a later version of this program made it.
    :raises SpoolStorageError: it cannot be written to.
    """

    def __init__(self, directory: str) -> None:
        self._store = Store(directory, create=False)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others own the spool; a second time does nothing."""
        self._store.close()

    def retry_dead(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        """
        Have dead letters tried again, when the daemon runs.

        :param numbers: which; ``None`` for all.
        :returns: how many there were.
        :raises UnknownSinkError: there is no such sink.
        """
        return int(self._store.change(partial(dead.retry, sink=sink, numbers=numbers)))

    def drop_dead(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        """
        Forget dead letters.

        :param numbers: which; ``None`` for all.
        :returns: how many there were.
        :raises UnknownSinkError: there is no such sink.
        """
        return int(self._store.change(partial(dead.drop, sink=sink, numbers=numbers)))

    def rewind(self, sink: str, position: int) -> int:
        """
        Have a sink deliver again what comes after a position, when the daemon runs.

        :returns: how many records it gets again.
        :raises UnknownSinkError: there is no such sink.
        :raises PositionError: there never was such a record.
        """
        return int(self._store.change(partial(cursors.rewind, sink=sink, position=position)))

    def forget_sink(self, sink: str) -> None:
        """
        Keep nothing for a sink any more; its dead letters are gone too.

        :raises UnknownSinkError: there is no such sink.
        """
        self._store.change(partial(cursors.forget, sink=sink))
