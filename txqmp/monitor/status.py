"""How the daemon stands, for who looks at it: :class:`MonitorStatus`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txqmp.fleet import Fleet
from txqmp.fleet.vm import VM
from txqmp.monitor.outgoing import outgoing
from txqmp.monitor.pump import SinkPump
from txqmp.monitor.spool import Batch, SinkState, Spool, SpoolLimits
from txqmp.monitor.web.rates import RateMeter
from txqmp.monitor.web.source import (
    ConfigStatus,
    FeedBatch,
    FeedEvent,
    FeedGap,
    Readiness,
    SinkStatus,
    SpoolStatus,
    Status,
    VMStatus,
)


class SpoolFeed:
    """
    The events in the spool: a :class:`~txqmp.monitor.web.source.Feed`.

    :param spool: it has to be open.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    @property
    def identity(self) -> str:
        """The spool's."""
        return self._spool.state.identity

    @property
    def first(self) -> int:
        """The position of the oldest event; one more than ``last`` where there is none."""
        return self._spool.state.first

    @property
    def last(self) -> int:
        """The position of the newest event that there ever was; 0 where there was none."""
        return self._spool.state.last

    def read(self, after: int, count: int) -> Deferred[FeedBatch]:
        """The events after a position."""
        return self._spool.read(after, count=count).addCallback(_feed_batch)

    def when_beyond(self, position: int) -> Deferred[None]:
        """A Deferred that fires when there is an event after a position; it can be cancelled."""
        return self._spool.when_beyond(position)


def _feed_batch(batch: Batch) -> FeedBatch:
    gap = None if batch.gap is None else FeedGap(batch.gap.first, batch.gap.last)
    events = []
    for stored in batch.records:
        try:
            events.append(FeedEvent(stored.position, outgoing(stored).text))
        except ValueError:  # the disk has changed it
            continue
    return FeedBatch(gap, tuple(events), batch.through)


class MonitorStatus:
    """
    How the daemon stands: a :class:`~txqmp.monitor.web.source.Source`.

    :param clock: tells the time.
    :param version: of the daemon.
    :param node: the name of this host.
    :param rates: how many events came lately.
    :param pumps: the pumps that there are, and what kind of sink each is for.
    :param listening: whether everything that the daemon listens on is open.

    :ivar config: what became of the configuration.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        version: str,
        node: str,
        fleet: Fleet,
        spool: Spool,
        limits: SpoolLimits,
        rates: RateMeter,
        pumps: Callable[[], Iterable[tuple[str, SinkPump]]],
        listening: Callable[[], bool],
    ) -> None:
        self.config = ConfigStatus()
        self._clock = clock
        self._version = version
        self._node = node
        self._started = clock.seconds()
        self._fleet = fleet
        self._spool = spool
        self._limits = limits
        self._rates = rates
        self._pumps = pumps
        self._listening = listening
        self._feed = SpoolFeed(spool)

    @property
    def feed(self) -> SpoolFeed:
        """What happens."""
        return self._feed

    def status(self) -> Status:
        """How everything stands."""
        now = self._clock.seconds()
        return Status(
            version=self._version,
            node=self._node,
            started=self._started,
            vms=tuple([_vm(each) for each in self._fleet.vms]),
            sinks=self._sinks(now),
            spool=self._spool_status(now),
            config=self.config,
            rates=self._rates.rates(),
        )

    def readiness(self) -> Readiness:
        """Whether the daemon can do its work."""
        return Readiness(
            config=self.config.loaded is not None,
            spool=bool(self._spool.state.identity) and self._spool.problem is None,
            listeners=self._listening(),
        )

    def _sinks(self, now: float) -> tuple[SinkStatus, ...]:
        cursors = {each.name: each for each in self._spool.state.sinks}
        return tuple([_sink(kind, pump, cursors, now) for kind, pump in self._pumps()])

    def _spool_status(self, now: float) -> SpoolStatus:
        state = self._spool.state
        return SpoolStatus(
            events=state.depth,
            size=state.size,
            max_size=self._limits.max_bytes,
            oldest_age=None if state.since is None else max(0.0, now - state.since),
            dropped=_dropped(state.sinks) + self._spool.counters.refused,
        )


def _dropped(sinks: Sequence[SinkState]) -> int:
    return sum(each.dropped for each in sinks)


def _vm(vm: VM) -> VMStatus:
    return VMStatus(
        name=vm.name,
        where=vm.where,
        state=vm.state,
        session=vm.session,
        sequence=vm.seq,
        last_event=vm.last_event,
        events=vm.events,
        problem=vm.problem,
    )


def _sink(kind: str, pump: SinkPump, cursors: dict[str, SinkState], now: float) -> SinkStatus:
    cursor = cursors.get(pump.name)
    since = None if cursor is None else cursor.since
    return SinkStatus(
        name=pump.name,
        kind=kind,
        state=pump.state,
        lag_events=0 if cursor is None else cursor.lag,
        lag_seconds=0.0 if since is None else max(0.0, now - since),
        sent=pump.counters.sent,
        attempts=pump.counters.attempts,
        dead=0 if cursor is None else cursor.dead,
        last_error=pump.problem,
        next_attempt=pump.next_attempt,
    )
