"""What is counted on the way: :class:`Observation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from txqmp.monitor.web.rates import RateMeter
from txqmp.monitor.web.source import Status


if TYPE_CHECKING:
    from txqmp.monitor.metrics import Metrics


class Observation:
    """
    Is told what the parts of the daemon do. It counts how many events come, and passes all of it on
    to the metrics, once somebody wants those.

    :ivar rates: how many events came lately.
    :ivar metrics: ``None`` before somebody wants them.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.rates = RateMeter(clock)
        self.metrics: Metrics | None = None
        self._clock = clock

    def want_metrics(self, status: Callable[[], Status]) -> Metrics:
        """
        The metrics, which begin to count if they did not yet.

        :param status: how everything stands.
        :raises ImportError: ``prometheus-client`` is not installed.
        """
        if self.metrics is None:
            # Not above: it takes its time to import, and is for those who want it.
            from txqmp.monitor.metrics import Metrics

            self.metrics = Metrics(self._clock, status)
        return self.metrics

    # The fleet

    def event_received(self, name: str) -> None:
        """QEMU sent an event."""
        self.rates.count()
        if self.metrics is not None:
            self.metrics.event_received(name)

    def gap(self, reason: str) -> None:
        """There is a hole in what was seen."""
        if self.metrics is not None:
            self.metrics.gap(reason)

    def vm_disconnected(self, reason: str) -> None:
        """A session ended."""
        if self.metrics is not None:
            self.metrics.vm_disconnected(reason)

    # The spool

    def spool_committed(self, seconds: float) -> None:
        """The spool has written."""
        if self.metrics is not None:
            self.metrics.spool_committed(seconds)

    def spool_dropped(self, sink: str, reason: str, events: int = 1) -> None:
        """A sink has lost events."""
        if self.metrics is not None:
            self.metrics.spool_dropped(sink, reason, events)

    # The sinks

    def sink_sent(self, sink: str, events: int = 1) -> None:
        """A receiver has taken events."""
        if self.metrics is not None:
            self.metrics.sink_sent(sink, events)

    def sink_attempt(self, sink: str, outcome: str, seconds: float | None = None) -> None:
        """There was an attempt."""
        if self.metrics is not None:
            self.metrics.sink_attempt(sink, outcome, seconds)

    def sink_dead(self, sink: str, reason: str, events: int = 1) -> None:
        """Events became dead letters."""
        if self.metrics is not None:
            self.metrics.sink_dead(sink, reason, events)

    def sink_gone(self, sink: str) -> None:
        """A sink is not configured any more."""
        if self.metrics is not None:
            self.metrics.sink_gone(sink)
