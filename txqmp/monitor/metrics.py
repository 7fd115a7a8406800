"""
The daemon's metrics, for Prometheus: :class:`Metrics`.

Counters and histograms are what the daemon tells, as it happens; the gauges
(:mod:`txqmp.monitor.gauges`) are read from the same snapshot as the status page, when somebody
looks.

``txqmp_build_info{version}``
    1
``txqmp_vm_up{vm}``
    1 while there is a session, else 0
``txqmp_vm_state{vm,state}``
    1 for the state that the VM is in, else 0
``txqmp_vm_last_event_timestamp_seconds{vm}``
    when something last came from it
``txqmp_vms{state}``
    how many VMs are in a state
``txqmp_vm_disconnects_total{reason}``
    sessions that ended
``txqmp_events_received_total{event}``
    QEMU's events; ``other`` for unknown names
``txqmp_events_gaps_total{reason}``
    holes in what was seen
``txqmp_spool_events``
    what the spool holds
``txqmp_spool_bytes``
    the size of that
``txqmp_spool_max_bytes``
    how large the spool may become
``txqmp_spool_oldest_age_seconds``
    the age of the oldest; 0 where there is none
``txqmp_spool_commit_duration_seconds``
    how long commits took (a histogram)
``txqmp_spool_dropped_events_total{sink,reason}``
    lost to a sink
``txqmp_sink_up{sink}``
    1 while its state is ``up``, else 0
``txqmp_sink_lag_events{sink}``
    what it has not passed on
``txqmp_sink_lag_seconds{sink}``
    the age of the first of that
``txqmp_sink_sent_events_total{sink}``
    what it has passed on
``txqmp_sink_attempts_total{sink,outcome}``
    how often it tried
``txqmp_sink_dead_events_total{sink,reason}``
    put aside, because it cannot be delivered
``txqmp_sink_request_duration_seconds{sink}``
    how long attempts took (a histogram)
``txqmp_config_last_reload_successful``
    1, or 0 while the newest cannot be used
``txqmp_config_last_reload_success_timestamp_seconds``
    when the one in force was loaded
``txqmp_reactor_lag_seconds``
    how late the daemon was when it last looked

No metric has both a VM and an event: a thousand VMs with six events each would stop the daemon for
a tenth of a second whenever somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from txqmp.monitor.gauges import clean, gauges_text
from txqmp.monitor.qmpevents import KNOWN
from txqmp.monitor.web.source import Status


CACHED = 1.0
"""How long a text is shown again, in seconds."""

OTHER = "other"
"""What stands for all that has no label of its own."""

MAX_REASONS = 20
"""How many reasons a metric tells apart: they are words, and a guest's may get into one."""

COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class Metrics:
    """
    The metrics of one daemon.

    :param clock: tells the time.
    :param status: how everything stands.

    :ivar content_type: what the text is.
    :ivar registry: has the counters and the histograms, and no others.
    """

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, clock: IReactorTime, status: Callable[[], Status]) -> None:
        self._clock = clock
        self._status = status
        self._text = b""
        self._made: float | None = None
        self.registry = registry = _Registry()

        def counter(name: str, what: str, *labels: str, maximum: int = MAX_REASONS) -> _Family:
            return _Family(Counter(name, what, labels, registry=registry), maximum)

        self._disconnects = counter("txqmp_vm_disconnects_total", "Sessions that ended.", "reason")
        self._events = counter(
            "txqmp_events_received_total", "Events of QEMU's.", "event", maximum=len(KNOWN)
        )
        self._gaps = counter("txqmp_events_gaps_total", "Holes in what was seen.", "reason")
        self._commits = Histogram(
            "txqmp_spool_commit_duration_seconds",
            "How long commits took.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self._dropped = counter(
            "txqmp_spool_dropped_events_total", "Events lost to a sink.", "sink", "reason"
        )
        self._sent = counter("txqmp_sink_sent_events_total", "Events passed on.", "sink")
        self._attempts = counter(
            "txqmp_sink_attempts_total", "Attempts to pass on.", "sink", "outcome"
        )
        self._dead = counter(
            "txqmp_sink_dead_events_total", "Events put aside for good.", "sink", "reason"
        )
        self._requests = _Family(
            Histogram(
                "txqmp_sink_request_duration_seconds",
                "How long attempts took.",
                ["sink"],
                buckets=REQUEST_BUCKETS,
                registry=registry,
            )
        )
        self._lag = Gauge(
            "txqmp_reactor_lag_seconds", "How late the daemon was.", registry=registry
        )

    def text(self) -> bytes:
        """All of it in Prometheus's text format, as it is now or was up to a second ago."""
        now = self._clock.seconds()
        # A clock that was set back makes it anew.
        if self._made is None or not 0 <= now - self._made < CACHED:
            self._text = gauges_text(self._status()) + generate_latest(self.registry)
            self._made = now
        return self._text

    # What the daemon tells

    def event_received(self, name: str) -> None:
        """QEMU sent an event."""
        self._events.of(name if name in KNOWN else OTHER).inc()

    def gap(self, reason: str) -> None:
        """
        There is a hole in what was seen.

        :param reason: one of a few words, such as ``"disconnected"``.
        """
        self._gaps.of(reason).inc()

    def vm_disconnected(self, reason: str) -> None:
        """
        A session ended.

        :param reason: one of a few words, such as ``"shutdown"`` or ``"lost"``.
        """
        self._disconnects.of(reason).inc()

    def spool_committed(self, seconds: float) -> None:
        """The spool has written, and it took so long."""
        self._commits.observe(seconds)

    def spool_dropped(self, sink: str, reason: str, events: int = 1) -> None:
        """
        A sink has lost events.

        :param reason: one of a few words, such as ``"full"``.
        """
        self._dropped.of(reason, sink).inc(events)

    def sink_sent(self, sink: str, events: int = 1) -> None:
        """A sink has passed events on."""
        self._sent.of(None, sink).inc(events)

    def sink_attempt(self, sink: str, outcome: str, seconds: float | None = None) -> None:
        """
        A sink has tried.

        :param outcome: one of a few words, such as ``"ok"``, ``"retry"`` or ``"rejected"``.
        :param seconds: how long it took, where that is known.
        """
        self._attempts.of(outcome, sink).inc()
        if seconds is not None:
            self._requests.of(None, sink).observe(seconds)

    def sink_dead(self, sink: str, reason: str, events: int = 1) -> None:
        """
        A sink has put events aside.

        :param reason: one of a few words, such as ``"rejected"`` or ``"too old"``.
        """
        self._dead.of(reason, sink).inc(events)

    def sink_gone(self, sink: str) -> None:
        """A sink is not configured any more: what was counted of it is forgotten."""
        for family in (self._dropped, self._sent, self._attempts, self._dead, self._requests):
            family.forget(sink)

    def reactor_lag(self, seconds: float) -> None:
        """Something that was due came so late."""
        self._lag.set(seconds)


class _Family:
    """
    A metric with labels: a sink, a reason or both, in this order.

    To find a child by its labels costs three times what counting does, so they are kept.

    :param maximum: how many reasons are told apart.
    """

    def __init__(self, metric: Any, maximum: int = MAX_REASONS) -> None:
        self._metric = metric
        self._maximum = maximum
        self._children: dict[tuple[str | None, str | None], Any] = {}
        self._reasons = {OTHER}

    def of(self, reason: str | None, sink: str | None = None) -> Any:
        """The child with these labels."""
        child = self._children.get((sink, reason))
        return self._make(sink, reason) if child is None else child

    def _make(self, sink: str | None, reason: str | None) -> Any:
        if reason is not None and reason not in self._reasons:
            if len(self._reasons) > self._maximum:
                return self.of(OTHER, sink)
            self._reasons.add(reason)
        child = self._metric.labels(*_labels(sink, reason))
        self._children[sink, reason] = child
        return child

    def forget(self, sink: str) -> None:
        """There is no such sink any more."""
        keys = [key for key in self._children if key[0] == sink]
        for labels in {_labels(*key) for key in keys}:
            self._metric.remove(*labels)
        for key in keys:
            del self._children[key]


def _labels(sink: str | None, reason: str | None) -> tuple[str, ...]:
    return tuple(clean(each) for each in (sink, reason) if each is not None)


class _Registry(CollectorRegistry):
    """The library's, without the times at which each series began: nobody asks for them."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample for sample in metric.samples if not sample.name.endswith("_created")
            ]
            yield metric
