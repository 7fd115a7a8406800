"""What is counted on the way: :class:`Observation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txqmp.monitor.web.rates import RateMeter
from txqmp.monitor.web.source import Status


if TYPE_CHECKING:
    from txqmp.monitor.metrics import Metrics


LOOK_EVERY = 1.0
"""How often it is looked how late the reactor is, in seconds."""


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
        :raises ImportError: ``prometheus-client`` is not installed; the message says how to get it.
        """
        if self.metrics is None:
            # Not above: it takes its time to import, and is for those who want it.
            try:
                from txqmp.monitor.metrics import Metrics
            except ModuleNotFoundError as error:
                if error.name != "prometheus_client":
                    raise
                message = (
                    "the status page needs prometheus-client, which is not installed:"
                    " pip install 'txqmp[monitor]'"
                )
                raise ImportError(message, name="prometheus_client") from error

            self.metrics = Metrics(self._clock, status)
        return self.metrics

    def reactor_lag(self, seconds: float) -> None:
        """Something that was due came so late."""
        if self.metrics is not None:
            self.metrics.reactor_lag(seconds)

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


class ReactorLag(Service):
    """Sees how late the reactor is: whoever holds it up holds up all."""

    def __init__(self, clock: IReactorTime, observation: Observation) -> None:
        self._clock = clock
        self._observation = observation
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._again()

    def stopService(self) -> None:
        super().stopService()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _again(self) -> None:
        self._due = self._clock.seconds() + LOOK_EVERY
        self._call = self._clock.callLater(LOOK_EVERY, self._look)

    def _look(self) -> None:
        # A clock that was set back makes nobody early.
        self._observation.reactor_lag(max(0.0, self._clock.seconds() - self._due))
        self._again()
