"""What is counted on the way."""

from __future__ import annotations

import sys

import pytest
from twisted.internet.task import Clock

from txqmp.monitor.observation import LOOK_EVERY, Observation, ReactorLag
from txqmp.monitor.web.source import Status


def tell_all(observation: Observation) -> None:
    observation.event_received("STOP")
    observation.gap("disconnected")
    observation.vm_disconnected("lost")
    observation.spool_committed(0.25)
    observation.spool_dropped("ops", "full", 3)
    observation.sink_sent("ops", 2)
    observation.sink_attempt("ops", "ok", 0.5)
    observation.sink_dead("ops", "rejected")


def test_nobody_wants_metrics() -> None:
    clock = Clock()
    observation = Observation(clock)
    tell_all(observation)
    observation.sink_gone("ops")
    clock.advance(5)
    assert observation.rates.rates().values == (0.2,)
    assert observation.metrics is None


@pytest.mark.parametrize("missing", ["prometheus_client", "txqmp.monitor.gauges"])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delitem(sys.modules, "txqmp.monitor.metrics", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    observation = Observation(Clock())
    with pytest.raises(ImportError) as caught:
        observation.want_metrics(lambda: Status(version="1", node="n", started=0.0))
    assert ("pip install 'txqmp[monitor]'" in str(caught.value)) is (missing == "prometheus_client")


def test_metrics_count_from_when_they_are_wanted() -> None:
    observation = Observation(Clock())
    tell_all(observation)
    metrics = observation.want_metrics(lambda: Status(version="1", node="n", started=0.0))
    tell_all(observation)
    assert observation.want_metrics(lambda: Status(version="2", node="n", started=0.0)) is metrics
    text = metrics.text().decode()
    for line in (
        'txqmp_events_received_total{event="STOP"} 1.0',
        'txqmp_events_gaps_total{reason="disconnected"} 1.0',
        'txqmp_vm_disconnects_total{reason="lost"} 1.0',
        "txqmp_spool_commit_duration_seconds_count 1.0",
        'txqmp_spool_dropped_events_total{reason="full",sink="ops"} 3.0',
        'txqmp_sink_sent_events_total{sink="ops"} 2.0',
        'txqmp_sink_attempts_total{outcome="ok",sink="ops"} 1.0',
        'txqmp_sink_dead_events_total{reason="rejected",sink="ops"} 1.0',
        'txqmp_sink_request_duration_seconds_count{sink="ops"} 1.0',
    ):
        assert line in text, line


def test_what_was_counted_of_a_sink_that_is_gone_is_forgotten() -> None:
    clock = Clock()
    observation = Observation(clock)
    metrics = observation.want_metrics(lambda: Status(version="1", node="n", started=0.0))
    tell_all(observation)
    observation.sink_gone("ops")
    assert 'sink="ops"' not in metrics.text().decode()


def test_how_late_the_reactor_is() -> None:
    clock = Clock()
    observation = Observation(clock)
    lag = ReactorLag(clock, observation)
    lag.startService()
    clock.advance(LOOK_EVERY)  # nobody wants to know
    metrics = observation.want_metrics(lambda: Status(version="1", node="n", started=0.0))
    clock.advance(LOOK_EVERY + 0.25)
    assert "txqmp_reactor_lag_seconds 0.25" in metrics.text().decode()
    clock.rightNow -= 100
    clock.advance(LOOK_EVERY + 100)
    assert "txqmp_reactor_lag_seconds 0.0" in metrics.text().decode()
    lag.stopService()
    assert clock.getDelayedCalls() == []
