"""The metrics: their names, what becomes of labels, and what it costs to look."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

import txqmp.monitor.metrics
from support.web import Face
from txqmp.fleet.vm import VMState
from txqmp.monitor.metrics import MAX_REASONS, Metrics
from txqmp.monitor.pump import PumpState
from txqmp.monitor.qmpevents import KNOWN
from txqmp.monitor.web.source import (
    ConfigStatus,
    SinkStatus,
    SpoolStatus,
    Status,
    VMStatus,
)


ORDER = ["version", "vm", "sink", "state", "event", "reason", "outcome", "le"]

STATUS = Status(
    version="0.1.0",
    node="node7.example",
    started=0.0,
    vms=(
        VMStatus(name="vm1", where="a", state=VMState.UP, last_event=90.25),
        VMStatus(name="vm2", where="b", state=VMState.BUSY),
        VMStatus(name="vm3", where="c", state=VMState.UP, last_event=91.0),
    ),
    sinks=(
        SinkStatus(name="ops", kind="webhook", state=PumpState.UP),
        SinkStatus(name="bus", kind="amqp", state=PumpState.FAILING, lag_events=7, lag_seconds=2.5),
    ),
    spool=SpoolStatus(events=7, size=3500, max_size=1 << 28, oldest_age=2.5),
    config=ConfigStatus(successful=True, loaded=3.5),
)


class World:
    """Metrics, and a status that can be changed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.status = STATUS
        self.asked = 0
        self.metrics = Metrics(clock, self._status)

    def _status(self) -> Status:
        self.asked += 1
        return self.status

    def families(self) -> dict[str, Metric]:
        """All of it, as Prometheus's own parser reads it, a second later."""
        self.clock.advance(1)
        return families(self.metrics.text())

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by its labels' values, what it is about first."""
        return {
            tuple(
                sample.labels[key] for key in sorted(sample.labels, key=ORDER.index)
            ): sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name
        }


def families(text: bytes) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    series = set()
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in found
        found[family.name] = family
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in series
            series.add(key)
    return found


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock)


def test_the_docstring_has_them_all(world: World) -> None:
    documented = set(re.findall(r"^``(txqmp_\w+)", txqmp.monitor.metrics.__doc__ or "", re.M))
    there = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in world.families().values()
    }
    assert documented == there


def test_types_and_help(world: World) -> None:
    for family in world.families().values():
        assert family.type in ("counter", "gauge", "histogram")
        assert family.documentation.endswith(".")


def test_gauges(world: World) -> None:
    assert world.values("txqmp_build_info") == {("0.1.0",): 1}
    assert world.values("txqmp_vm_up") == {("vm1",): 1, ("vm2",): 0, ("vm3",): 1}
    states = world.values("txqmp_vm_state")
    assert len(states) == 15
    assert {key for key, value in states.items() if value} == {
        ("vm1", "up"),
        ("vm2", "busy"),
        ("vm3", "up"),
    }
    last = world.values("txqmp_vm_last_event_timestamp_seconds")
    assert last == {("vm1",): 90.25, ("vm3",): 91.0}
    assert world.values("txqmp_vms") == {
        ("connecting",): 0,
        ("busy",): 1,
        ("up",): 2,
        ("gap",): 0,
        ("gone",): 0,
    }
    assert world.values("txqmp_spool_events") == {(): 7}
    assert world.values("txqmp_spool_bytes") == {(): 3500}
    assert world.values("txqmp_spool_max_bytes") == {(): 1 << 28}
    assert world.values("txqmp_spool_oldest_age_seconds") == {(): 2.5}
    assert world.values("txqmp_sink_up") == {("ops",): 1, ("bus",): 0}
    assert world.values("txqmp_sink_lag_events") == {("ops",): 0, ("bus",): 7}
    assert world.values("txqmp_sink_lag_seconds") == {("ops",): 0, ("bus",): 2.5}
    assert world.values("txqmp_config_last_reload_successful") == {(): 1}
    assert world.values("txqmp_config_last_reload_success_timestamp_seconds") == {(): 3.5}


def test_gauges_of_what_is_not_there(world: World) -> None:
    world.status = Status(version="1", node="n", started=0.0)
    assert world.values("txqmp_spool_events") == {}
    assert world.values("txqmp_vm_up") == {}
    assert world.values("txqmp_config_last_reload_success_timestamp_seconds") == {}


def test_counters(world: World) -> None:
    metrics = world.metrics
    metrics.event_received("STOP")
    metrics.event_received("STOP")
    metrics.gap("disconnected")
    metrics.vm_disconnected("shutdown")
    metrics.spool_dropped("ops", "full", 5)
    metrics.sink_sent("ops", 3)
    metrics.sink_sent("ops")
    metrics.sink_attempt("ops", "ok", 0.02)
    metrics.sink_attempt("ops", "retry")
    metrics.sink_dead("ops", "rejected")
    metrics.reactor_lag(0.003)
    assert world.values("txqmp_events_received_total") == {("STOP",): 2}
    assert world.values("txqmp_events_gaps_total") == {("disconnected",): 1}
    assert world.values("txqmp_vm_disconnects_total") == {("shutdown",): 1}
    assert world.values("txqmp_spool_dropped_events_total") == {("ops", "full"): 5}
    assert world.values("txqmp_sink_sent_events_total") == {("ops",): 4}
    attempts = world.values("txqmp_sink_attempts_total")
    assert attempts == {("ops", "ok"): 1, ("ops", "retry"): 1}
    assert world.values("txqmp_sink_dead_events_total") == {("ops", "rejected"): 1}
    assert world.values("txqmp_reactor_lag_seconds") == {(): 0.003}


def test_histograms(world: World) -> None:
    world.metrics.spool_committed(0.0007)
    world.metrics.spool_committed(9.0)
    world.metrics.sink_attempt("ops", "ok", 0.02)
    assert world.values("txqmp_spool_commit_duration_seconds_count") == {(): 2}
    commits = world.values("txqmp_spool_commit_duration_seconds_bucket")
    assert (commits["0.0005",], commits["0.001",], commits["+Inf",]) == (0, 1, 2)
    requests = world.values("txqmp_sink_request_duration_seconds_count")
    assert requests == {("ops",): 1}


def test_nothing_about_when_a_series_began(world: World) -> None:
    world.metrics.event_received("STOP")
    world.metrics.spool_committed(0.1)
    assert b"_created" not in world.metrics.text()


def test_a_sink_that_is_gone(world: World) -> None:
    for sink in ("ops", "old"):
        world.metrics.sink_sent(sink)
        world.metrics.sink_attempt(sink, "ok", 0.1)
        world.metrics.sink_attempt(sink, "retry", 0.1)
        world.metrics.sink_dead(sink, "rejected")
        world.metrics.spool_dropped(sink, "full")
    world.metrics.sink_gone("old")
    assert b'"old"' not in world.metrics.text()
    assert world.values("txqmp_sink_sent_events_total") == {("ops",): 1}
    world.metrics.sink_sent("old")
    assert world.values("txqmp_sink_sent_events_total") == {("ops",): 1, ("old",): 1}
    world.metrics.sink_gone("never was")


# Labels


def test_an_event_has_a_label_only_if_it_is_known(world: World) -> None:
    for name in sorted(KNOWN):
        world.metrics.event_received(name)
    for number in range(1000):
        world.metrics.event_received(f"__com.guest_EVENT_{number}")
    world.metrics.event_received("stop")
    counted = world.values("txqmp_events_received_total")
    assert counted.pop(("other",)) == 1001
    assert counted == {(name,): 1 for name in KNOWN}


def test_reasons_are_limited(world: World) -> None:
    for number in range(1000):
        world.metrics.gap(f"the guest said {number}")
        world.metrics.sink_attempt("ops", f"answered {number}")
    gaps = world.values("txqmp_events_gaps_total")
    assert len(gaps) == MAX_REASONS + 1
    assert gaps["other",] == 1000 - MAX_REASONS
    assert sum(world.values("txqmp_sink_attempts_total").values()) == 1000


NASTY = ['"', "\\", "\n", 'a"} 1\ntxqmp_vm_up{vm="b', "\\n", "é", "\x00", "\udcff", "x" * 5000, ""]


@pytest.mark.parametrize("name", NASTY)
def test_any_name_can_be_a_label(world: World, name: str) -> None:
    vm = VMStatus(name=name, where="", state=VMState.UP)
    sink = SinkStatus(name=name, kind="exec", state=PumpState.UP)
    world.status = Status(version=name, node="n", started=0.0, vms=(vm,), sinks=(sink,))
    world.metrics.sink_sent(name)
    world.metrics.gap(name)
    ((shown,),) = world.values("txqmp_vm_up")
    assert shown == name[:200].encode(errors="backslashreplace").decode()
    assert list(world.values("txqmp_sink_up")) == [(shown,)]
    assert list(world.values("txqmp_sink_sent_events_total")) == [(shown,)]
    assert list(world.values("txqmp_events_gaps_total")) == [(shown,)]


def test_names_that_look_alike_are_one_series(world: World) -> None:
    """Two would make Prometheus refuse all of it, which the parse here does not allow either."""
    vms = tuple(VMStatus(name="x" * 300 + end, where="", state=VMState.UP) for end in "ab")
    sinks = tuple(SinkStatus(name=vm.name, kind="exec", state=PumpState.UP) for vm in vms)
    world.status = Status(version="1", node="n", started=0.0, vms=vms, sinks=sinks)
    for sink in sinks:
        world.metrics.sink_sent(sink.name)
    assert len(world.values("txqmp_vm_up")) == 1
    assert world.values("txqmp_sink_sent_events_total") == {("x" * 200,): 2}
    world.metrics.sink_gone(sinks[0].name)
    world.metrics.sink_sent(sinks[1].name)
    world.families()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, -0.5])
def test_any_number(world: World, value: float) -> None:
    vm = VMStatus(name="a", where="", state=VMState.UP, last_event=value)
    world.status = Status(version="1", node="n", started=0.0, vms=(vm,))
    (shown,) = world.values("txqmp_vm_last_event_timestamp_seconds").values()
    assert shown == value or value != value


def test_a_thousand_vms(world: World) -> None:
    vms = tuple(VMStatus(name=f"vm{i}", where="", state=VMState.UP) for i in range(1000))
    world.status = Status(version="1", node="n", started=0.0, vms=vms)
    for name in KNOWN:
        world.metrics.event_received(name)
    assert world.metrics.text().count(b"\n") < 7000


# The text


def test_the_text_is_kept_for_a_second(world: World, clock: Clock) -> None:
    text = world.metrics.text()
    world.metrics.event_received("STOP")
    clock.advance(0.999)
    assert world.metrics.text() is text
    assert world.asked == 1
    clock.advance(0.002)
    assert b'event="STOP"' in world.metrics.text()
    assert world.asked == 2


def test_the_text_when_the_clock_is_set_back(world: World, clock: Clock) -> None:
    clock.advance(1000)
    world.metrics.text()
    world.metrics.event_received("STOP")
    clock.rightNow = 10.0
    assert b'event="STOP"' in world.metrics.text()


def test_served(clock: Clock) -> None:
    source: list[Any] = []
    face = Face(clock, metrics=Metrics(clock, lambda: source[0].now))
    source.append(face.source)
    answer = face.get("/metrics")
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert "txqmp_build_info" in families(answer.body)
    head = face.get("/metrics", method="HEAD")
    assert head.header("Content-Length") == answer.header("Content-Length")
    face.close()
