"""
From the spool to a receiver: a :class:`SinkPump` for each sink.

It reads what its sink has not had, hands it over in order, and acknowledges what was taken. What
becomes of what was not taken:

============================ =======================================================================
the event's fault            it becomes a dead letter, and the next one's turn is at once
the receiver's fault         the same events again after a wait: a random time up to twice the bound
                             of the time before, from 2 s to :data:`~.courier.MAX_WAIT`; or longer,
                             where the receiver asks for it
… and it is too old          it becomes a dead letter, with what was wrong
the receiver wants no more   nothing more is handed over until the pump is told to try again; the
                             spool keeps what it can
============================ =======================================================================

No pump waits for another, and QEMU for none.
"""

from txqmp.monitor.pump.courier import MAX_AGE, Courier, Parcel
from txqmp.monitor.pump.pump import GRACE, SinkPump
from txqmp.monitor.pump.state import PumpCounters, PumpObserver, PumpState


__all__ = [
    "SinkPump",
    "GRACE",
    "MAX_AGE",
    "PumpState",
    "PumpCounters",
    "PumpObserver",
    "Courier",
    "Parcel",
]
