"""
What the HTTP face is told, and by whom: the daemon implements :class:`Source` and :class:`Feed`.

All of it is made anew for each request and never changed, so that what is shown is of one moment.
Times are in seconds since the epoch, durations in seconds. A text may hold anything: it is made
harmless where it is shown.
"""

from __future__ import annotations

from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from txqmp.fleet.vm import VMState
from txqmp.monitor.pump.state import PumpState


# What happens


@attrs.frozen(slots=True)
class FeedEvent:
    """
    One thing that happened.

    :ivar position: its place in the feed; each is greater than the one before.
    :ivar data: a JSON object, the CloudEvent.
    """

    position: int
    data: bytes


@attrs.frozen(slots=True)
class FeedGap:
    """
    Events that are not there any more.

    :ivar first: the position of the first one.
    :ivar last: the position of the last one.
    """

    first: int
    last: int


@attrs.frozen(slots=True)
class FeedBatch:
    """
    What is read at once, in order.

    :ivar gap: what is missing before the first event; ``None`` where nothing is.
    :ivar events: the events.
    :ivar through: the position up to which this is all that there is: where to read on.
    """

    gap: FeedGap | None
    events: tuple[FeedEvent, ...]
    through: int


class Feed(Protocol):
    """
    The events of the daemon, kept for a while and found by their positions: the spool, most often.
    """

    @property
    def identity(self) -> str:
        """What tells this feed from one that begins anew with its positions."""

    @property
    def first(self) -> int:
        """The position of the oldest event; one more than ``last`` where there is none."""

    @property
    def last(self) -> int:
        """The position of the newest event that there ever was; 0 where there was none."""

    def read(self, after: int, count: int) -> Deferred[FeedBatch]:
        """
        The events after a position. There may be fewer than asked for, or none, though there are
        more: read on after :attr:`FeedBatch.through`.

        :param after: the position; from 0 to ``last``.
        :param count: how many at most.
        """

    def when_beyond(self, position: int) -> Deferred[None]:
        """A Deferred that fires when there is an event after a position; it can be cancelled."""


# How things stand


@attrs.frozen(kw_only=True, slots=True)
class VMStatus:
    """
    How a VM stands.

    :ivar name: as in its records.
    :ivar where: its monitor's place.
    :ivar session: the number of its newest session; 0 before the first.
    :ivar sequence: the number of its newest record; 0 before the first.
    :ivar last_event: when something last came from it.
    :ivar events: how many events came in all.
    :ivar problem: what is wrong, in words; ``None`` where nothing is.
    """

    name: str
    where: str
    state: VMState
    session: int = 0
    sequence: int = 0
    last_event: float | None = None
    events: int = 0
    problem: str | None = None


@attrs.frozen(kw_only=True, slots=True)
class SinkStatus:
    """
    How a sink stands.

    :ivar name: as configured.
    :ivar kind: such as ``"webhook"``.
    :ivar lag_events: how many events it has not passed on.
    :ivar lag_seconds: how old the first of them is; 0 where there is none.
    :ivar sent: how many it has passed on.
    :ivar attempts: how often it tried.
    :ivar dead: how many it has put aside, because they cannot be delivered.
    :ivar last_error: why its last failure was one, in words without secrets.
    :ivar next_attempt: when it tries again; ``None`` where nothing is due.
    """

    name: str
    kind: str
    state: PumpState
    lag_events: int = 0
    lag_seconds: float = 0.0
    sent: int = 0
    attempts: int = 0
    dead: int = 0
    last_error: str | None = None
    next_attempt: float | None = None


@attrs.frozen(kw_only=True, slots=True)
class SpoolStatus:
    """
    How the spool stands.

    :ivar events: how many it holds.
    :ivar size: how large they are, in bytes.
    :ivar max_size: how large they may become.
    :ivar oldest_age: how old the oldest is; ``None`` where there is none.
    :ivar dropped: how many were lost because it was full.
    """

    events: int = 0
    size: int = 0
    max_size: int = 0
    oldest_age: float | None = None
    dropped: int = 0


@attrs.frozen(kw_only=True, slots=True)
class ConfigStatus:
    """
    What became of the configuration.

    :ivar successful: whether it could be used when it was last loaded; if not, the one before it is
        still in force.
    :ivar loaded: when the one in force was loaded.
    """

    successful: bool = True
    loaded: float | None = None


@attrs.frozen(slots=True)
class Rates:
    """
    How many events came, for as long as it is remembered (:class:`~.rates.RateMeter`).

    :ivar interval: the time that each value is about.
    :ivar until: the end of the newest one.
    :ivar values: events per second, the oldest first.
    """

    interval: float
    until: float
    values: tuple[float, ...]


@attrs.frozen(kw_only=True, slots=True)
class Status:
    """
    How everything stands.

    :ivar version: of the daemon.
    :ivar node: the name of this host.
    :ivar started: when the daemon began.
    :ivar spool: ``None`` where there is none.
    """

    version: str
    node: str
    started: float
    vms: tuple[VMStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    spool: SpoolStatus | None = None
    config: ConfigStatus = ConfigStatus()
    rates: Rates = Rates(1.0, 0.0, ())


@attrs.frozen(kw_only=True, slots=True)
class Readiness:
    """
    Whether the daemon can do its work. A VM or a sink that is down does not count: to start the
    daemon anew would not help.

    :ivar config: whether a configuration is loaded.
    :ivar spool: whether the spool can be written.
    :ivar listeners: whether everything that it listens on is open.
    """

    config: bool
    spool: bool
    listeners: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What it is not ready for, in words."""
        return tuple(
            text
            for ready, text in (
                (self.config, "the configuration is not loaded"),
                (self.spool, "the spool cannot be written"),
                (self.listeners, "not every listener is open"),
            )
            if not ready
        )


class Source(Protocol):
    """The daemon, as the HTTP face sees it."""

    @property
    def feed(self) -> Feed:
        """What happens."""

    def status(self) -> Status:
        """How everything stands. It is asked for often, and must cost little."""

    def readiness(self) -> Readiness:
        """Whether the daemon can do its work."""
