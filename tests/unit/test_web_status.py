"""What is shown: the status, whether the daemon is ready, and the files of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from twisted.internet.task import Clock

from support.web import Face
from support.wheel import REQUIRED
from txqmp.fleet.vm import VMState
from txqmp.monitor.pump import PumpState
from txqmp.monitor.web.pages import PAGE, STATIC
from txqmp.monitor.web.rates import INTERVAL, SPAN, RateMeter
from txqmp.monitor.web.source import (
    ConfigStatus,
    Rates,
    Readiness,
    SinkStatus,
    SpoolStatus,
    Status,
    VMStatus,
)
from txqmp.monitor.web.status import MAX_TEXT


@pytest.fixture
def face(clock: Clock) -> Iterator[Face]:
    face = Face(clock)
    yield face
    face.close()


# The status


def test_everything(face: Face, clock: Clock) -> None:
    clock.advance(100.5)
    face.feed.add(b"{}", b"{}", b"{}")
    face.feed.drop(1)
    face.source.now = Status(
        version="0.1.0",
        node="node7.example",
        started=40.0,
        vms=(
            VMStatus(
                name="vm1",
                where="unix:/run/vm1.sock",
                state=VMState.GAP,
                session=2,
                sequence=17,
                last_event=90.25,
                events=12,
                problem="the peer closed the connection",
            ),
            VMStatus(name="vm2", where="tcp:::1:4444", state=VMState.CONNECTING),
        ),
        sinks=(
            SinkStatus(
                name="ops",
                kind="webhook",
                state=PumpState.FAILING,
                lag_events=3,
                lag_seconds=4.5,
                sent=10,
                attempts=12,
                dead=1,
                last_error="answered 503",
                next_attempt=105.0,
            ),
        ),
        spool=SpoolStatus(events=2, size=900, max_size=1 << 28, oldest_age=5.5, dropped=1),
        config=ConfigStatus(successful=False, loaded=40.0),
        rates=Rates(5.0, 100.0, (0.0, 2.4)),
    )
    answer = face.get("/api/v1/status")
    assert answer.header("Content-Type") == "application/json"
    assert answer.json == {
        "version": "0.1.0",
        "node": "node7.example",
        "time": "1970-01-01T00:01:40.500000Z",
        "started": "1970-01-01T00:00:40.000000Z",
        "vms": [
            {
                "name": "vm1",
                "where": "unix:/run/vm1.sock",
                "state": "gap",
                "session": 2,
                "sequence": 17,
                "last_event": "1970-01-01T00:01:30.250000Z",
                "events": 12,
                "problem": "the peer closed the connection",
            },
            {
                "name": "vm2",
                "where": "tcp:::1:4444",
                "state": "connecting",
                "session": 0,
                "sequence": 0,
                "last_event": None,
                "events": 0,
                "problem": None,
            },
        ],
        "sinks": [
            {
                "name": "ops",
                "kind": "webhook",
                "state": "failing",
                "lag_events": 3,
                "lag_seconds": 4.5,
                "sent": 10,
                "attempts": 12,
                "dead": 1,
                "last_error": "answered 503",
                "next_attempt": "1970-01-01T00:01:45.000000Z",
            }
        ],
        "spool": {
            "events": 2,
            "bytes": 900,
            "max_bytes": 268435456,
            "oldest_age_seconds": 5.5,
            "dropped": 1,
        },
        "config": {"successful": False, "loaded": "1970-01-01T00:00:40.000000Z"},
        "rate": {
            "interval_seconds": 5.0,
            "until": "1970-01-01T00:01:40.000000Z",
            "events_per_second": [0.0, 2.4],
        },
        "feed": {"identity": "feed-1", "first": 2, "last": 3},
        "streams": {"clients": 0, "refused": 0, "stalled": 0, "skipped": 0},
    }


def test_nothing(face: Face) -> None:
    shown = face.get("/api/v1/status").json
    assert (shown["vms"], shown["sinks"], shown["spool"]) == ([], [], None)
    assert shown["config"] == {"successful": True, "loaded": None}


@pytest.mark.parametrize("name", ["<b>x</b>", "\udcff", "\x00\x1b[31m", '"', "💾", "\u202e"])
def test_any_name_can_be_shown(face: Face, name: str) -> None:
    vm = VMStatus(name=name, where=name, state=VMState.UP, problem=name)
    face.source.now = Status(version="1", node=name, started=0, vms=(vm,))
    (shown,) = face.get("/api/v1/status").json["vms"]
    assert shown["name"] == (name if name != "\udcff" else "\\udcff")


def test_texts_are_cut(face: Face) -> None:
    sink = SinkStatus(
        name="s", kind="exec", state=PumpState.DISABLED, last_error="x" * 10 * MAX_TEXT
    )
    face.source.now = Status(version="1", node="n", started=0, sinks=(sink,))
    (shown,) = face.get("/api/v1/status").json["sinks"]
    assert shown["last_error"] == "x" * (MAX_TEXT - 1) + "…"


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e30, -1e30])
def test_numbers_that_are_none(face: Face, time: float) -> None:
    vm = VMStatus(name="a", where="b", state=VMState.UP, last_event=time)
    rates = Rates(5.0, 0.0, (float("nan"),))
    face.source.now = Status(version="1", node="n", started=time, vms=(vm,), rates=rates)
    shown = face.get("/api/v1/status").json
    assert shown["started"] is None
    assert shown["vms"][0]["last_event"] is None
    assert shown["rate"]["events_per_second"] == [None]


def test_it_is_of_one_moment(face: Face) -> None:
    face.get("/api/v1/status")
    assert face.source.asked == 1


# Whether it is ready


def test_ready(face: Face) -> None:
    answer = face.get("/readyz")
    assert (answer.status, answer.body) == (200, b"ready\n")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config", "the configuration is not loaded"),
        ("spool", "the spool cannot be written"),
        ("listeners", "not every listener is open"),
    ],
)
def test_not_ready(face: Face, missing: str, words: str) -> None:
    parts = {"config": True, "spool": True, "listeners": True}
    face.source.ready = Readiness(**{**parts, missing: False})
    answer = face.get("/readyz")
    assert (answer.status, answer.body) == (503, f"{words}\n".encode())
    assert face.get("/readyz", method="HEAD").status == 503
    # It answers still: to start it anew is not what helps.
    assert face.get("/healthz").status == 200


def test_not_ready_in_many_ways(face: Face) -> None:
    face.source.ready = Readiness(config=False, spool=False, listeners=False)
    assert face.get("/readyz").body.count(b"\n") == 3


def test_vms_and_sinks_do_not_count(face: Face) -> None:
    vm = VMStatus(name="a", where="b", state=VMState.GONE, problem="gone")
    sink = SinkStatus(name="s", kind="webhook", state=PumpState.DISABLED)
    face.source.now = Status(version="1", node="n", started=0, vms=(vm,), sinks=(sink,))
    assert face.get("/readyz").status == 200


# The page


def test_files(face: Face) -> None:
    assert face.get("/").body.startswith(b"<!doctype html>")
    assert face.get("/").header("Content-Type") == "text/html; charset=utf-8"
    assert face.get("/static/page.css").header("Content-Type") == "text/css; charset=utf-8"
    assert face.get("/static/page.js").header("Content-Type") == "text/javascript; charset=utf-8"


def source(name: str) -> str:
    return (files("txqmp.monitor.web") / "static" / name).read_text(encoding="utf-8")


def test_the_wheel_must_have_the_files() -> None:
    for name in (PAGE, *STATIC):
        assert f"txqmp/monitor/web/static/{name}" in REQUIRED


def test_the_page_is_made_of_nothing_else() -> None:
    page = source(PAGE)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sorted(links) == [
        "api/v1/status",
        "api/v1/status",
        "metrics",
        "readyz",
        "static/page.css",
        "static/page.js",
    ]
    assert "style=" not in page
    assert not re.search(r"\son\w+=", page)
    assert "http" not in page.replace("http-equiv", "") + source("page.css")
    assert "url(" not in source("page.css") and "@import" not in source("page.css")


def test_the_script_makes_no_markup() -> None:
    script = source("page.js")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "srcdoc",
    ):
        assert word not in script
    addresses = set(re.findall(r"https?://[^\"]*", script))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place


# The rate


def test_rates(clock: Clock) -> None:
    meter = RateMeter(clock)
    assert meter.rates() == Rates(INTERVAL, 0.0, ())
    meter.count()
    meter.count(9)
    assert meter.rates().values == ()  # the interval is not over
    clock.advance(INTERVAL)
    assert meter.rates() == Rates(INTERVAL, INTERVAL, (2.0,))
    clock.advance(2 * INTERVAL)
    meter.count(5)
    assert meter.rates().values == (2.0, 0.0, 0.0)
    clock.advance(INTERVAL)
    assert meter.rates().values == (2.0, 0.0, 0.0, 1.0)


def test_rates_are_forgotten(clock: Clock) -> None:
    meter = RateMeter(clock)
    for number in range(200):
        meter.count(number)
        clock.advance(INTERVAL)
    values = meter.rates().values
    assert len(values) == SPAN / INTERVAL
    assert values[-1] == 199 / INTERVAL
    clock.advance(10 * SPAN)
    assert set(meter.rates().values) == {0.0}
    assert len(meter.rates().values) == SPAN / INTERVAL


def test_rates_when_the_clock_is_set_back(clock: Clock) -> None:
    clock.advance(1000)
    meter = RateMeter(clock)
    meter.count(5)
    clock.rightNow = 500.0
    meter.count(5)
    assert meter.rates() == Rates(INTERVAL, 500.0, ())
    clock.advance(INTERVAL)
    assert meter.rates().values == (2.0,)
