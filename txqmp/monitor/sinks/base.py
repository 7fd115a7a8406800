"""What all sinks have in common."""

from __future__ import annotations

from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from txqmp.monitor.records import Entry


GRACE = 5.0
"""How long a sink has to pass on what it holds when the daemon ends, in seconds."""


@attrs.define
class Counters:
    """
    What became of a sink's records. What is in none of the last three is in its queue still.

    :ivar taken: were given to it.
    :ivar delivered: were passed on.
    :ivar dropped: were left out, because the queue was full or the sink was closed.
    :ivar rejected: were refused by the receiver, for good.
    :ivar failures: how many attempts failed; each was followed by another, if there was time.
    """

    taken: int = 0
    delivered: int = 0
    dropped: int = 0
    rejected: int = 0
    failures: int = 0


class Sink(Protocol):
    """
    A place where records go.

    :ivar name: for logs and for the records themselves, without secrets.
    :ivar counters: what became of the records.
    """

    @property
    def name(self) -> str: ...

    @property
    def counters(self) -> Counters: ...

    def start(self) -> None:
        """Begin to pass on."""

    def put(self, entry: Entry) -> None:
        """Take a record. This returns at once and does not raise."""

    def reopen(self) -> None:
        """Open anew what may have been moved away: a log file that was rotated."""

    def stop(self) -> Deferred[None]:
        """
        Pass on what is held, for :data:`GRACE` seconds at most, and end. What is left is counted
        and logged. The Deferred does not fail.
        """
