"""
The durable spool: records on the disk, until every sink has delivered them.

The promise: *at least once from the moment a record is committed to the spool; in order per sink;
every hole is told.*

It is a SQLite database, written by one thread (:class:`Spool`, :mod:`~.store`), which commits
whatever waits at once. A record that was put in is committed, and safe, when its Deferred fires.
Each sink has a cursor, and moves it when it has delivered; what all have had is deleted, but for
what is kept for replay::

    spool = make_spool(reactor, "/var/lib/qmp-monitor/spool", failed=end_the_daemon)
    yield spool.start()
    yield spool.add_sink("ops")
    spool.put(Item("vm1", "STOP", reactor.seconds(), b"{...}"))

    # a sink
    while True:
        batch = yield spool.read_for("ops")
        if batch.gap is not None:
            ...                                      # tell that records are missing
        for record in batch.records:
            ...                                      # deliver it
        yield spool.ack("ops", batch.through)
        yield spool.when_beyond(batch.through)

Other processes read it with a :class:`Reader`, whether or not a daemon runs, and change cursors and
dead letters with :class:`Control`, while none does.
"""

from txqmp.monitor.spool.control import Control
from txqmp.monitor.spool.cursors import Start
from txqmp.monitor.spool.errors import (
    PositionError,
    SpoolClosedError,
    SpoolError,
    SpoolFullError,
    SpoolLockedError,
    SpoolStorageError,
    SpoolVersionError,
    StorageFailure,
    UnknownSinkError,
)
from txqmp.monitor.spool.filter import Filter
from txqmp.monitor.spool.intake import SpoolCounters
from txqmp.monitor.spool.limits import SpoolLimits, WhenFull
from txqmp.monitor.spool.owner import holder
from txqmp.monitor.spool.reader import Reader
from txqmp.monitor.spool.records import Batch, DeadLetter, Item, SpoolGap, Stored
from txqmp.monitor.spool.spool import Spool, make_spool
from txqmp.monitor.spool.state import SinkState, SpoolState
from txqmp.monitor.spool.vms import LastHeard


__all__ = [
    "Spool",
    "make_spool",
    "SpoolLimits",
    "WhenFull",
    "Start",
    "Item",
    "Stored",
    "Batch",
    "SpoolGap",
    "DeadLetter",
    "Filter",
    "SpoolState",
    "SinkState",
    "SpoolCounters",
    "LastHeard",
    "Reader",
    "Control",
    "holder",
    "SpoolError",
    "SpoolLockedError",
    "SpoolVersionError",
    "SpoolStorageError",
    "StorageFailure",
    "SpoolFullError",
    "SpoolClosedError",
    "UnknownSinkError",
    "PositionError",
]
