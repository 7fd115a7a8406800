"""How the daemon stands."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deferreds import pending, success
from support.pump import PumpWorld
from txqmp.fleet import DialSource, Fleet
from txqmp.fleet.vm import VMState
from txqmp.monitor.pump import PumpState
from txqmp.monitor.sinks.delivery import EventRejectedError, UnavailableError
from txqmp.monitor.spool import SpoolLimits
from txqmp.monitor.status import MonitorStatus
from txqmp.monitor.web.rates import RateMeter
from txqmp.monitor.web.source import ConfigStatus, FeedGap


LIMITS = SpoolLimits(max_bytes=3000, keep_bytes=1000)


class World(PumpWorld):
    """A pump, a fleet, and what is said of them."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, LIMITS)
        self.pump = self.make()
        self.fleet = Fleet(self.clock, lambda record: None)
        self.listening = True
        self.rates = RateMeter(self.clock)
        self.status = MonitorStatus(
            self.clock,
            version="1.2",
            node="node7",
            fleet=self.fleet,
            spool=self.spool,
            limits=LIMITS,
            rates=self.rates,
            pumps=lambda: [("webhook", self.pump)],
            listening=lambda: self.listening,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    success(world.pump.stop())
    world.close()


def test_all_is_well(world: World) -> None:
    world.pump.start()
    world.send("a", "b")
    world.rates.count(10)
    world.clock.advance(5)
    status = world.status.status()
    assert (status.version, status.node) == ("1.2", "node7")
    assert status.started == world.clock.seconds() - 5
    assert status.rates.values[-1] == 2
    (sink,) = status.sinks
    assert (sink.name, sink.kind, sink.state) == ("ops", "webhook", PumpState.UP)
    assert (sink.sent, sink.attempts, sink.lag_events, sink.lag_seconds) == (2, 2, 0, 0)
    assert status.spool is not None
    assert status.spool.events == 2
    assert status.spool.oldest_age == 5
    assert (status.spool.max_size, status.spool.dropped) == (3000, 0)


def test_a_sink_that_is_behind(world: World) -> None:
    world.pump.start()
    world.receiver.outcomes = [EventRejectedError("no"), UnavailableError("down")]
    world.send("a", "b", "c")
    world.clock.advance(0.5)
    (sink,) = world.status.status().sinks
    assert sink.state is PumpState.FAILING
    assert (sink.dead, sink.lag_events, sink.lag_seconds) == (1, 2, 0.5)
    assert sink.last_error == "down"
    assert sink.next_attempt == world.clock.seconds() + 0.5
    # A clock that was set back makes nobody younger than new.
    world.clock.rightNow -= 100
    status = world.status.status()
    assert status.sinks[0].lag_seconds == 0
    assert status.spool is not None
    assert status.spool.oldest_age == 0


def test_a_sink_that_the_spool_does_not_know_yet(world: World) -> None:
    (sink,) = world.status.status().sinks
    assert (sink.lag_events, sink.dead, sink.sent) == (0, 0, 0)


def test_vms(world: World) -> None:
    DialSource(world.fleet, "/nowhere/vm1.sock")
    (vm,) = world.status.status().vms
    assert (vm.name, vm.state) == ("vm1", VMState.CONNECTING)
    assert vm.where == "unix:/nowhere/vm1.sock"


def test_readiness(world: World) -> None:
    assert world.status.readiness().missing == ("the configuration is not loaded",)
    world.status.config = ConfigStatus(loaded=1.0)
    assert world.status.readiness().missing == ()
    world.listening = False
    assert world.status.readiness().missing == ("not every listener is open",)


def test_the_feed(world: World) -> None:
    success(world.spool.add_sink("slow"))
    feed = world.status.feed
    assert (feed.first, feed.last) == (1, 0)
    waiting = feed.when_beyond(0)
    pending(waiting)
    world.send("a", "b", "c")
    success(waiting)
    assert feed.identity == world.spool.state.identity
    batch = success(feed.read(1, 10))
    assert [event.position for event in batch.events] == [2, 3]
    assert json.loads(batch.events[0].data)["sequence"] == f"{2:020d}"
    assert (batch.gap, batch.through) == (None, 3)
    with sqlite3.connect(f"{world.directory}/spool.db") as db:
        db.execute("UPDATE event SET data = ? WHERE position = 2", (b"\x00",))
    assert [event.position for event in success(feed.read(0, 10)).events] == [1, 3]
    world.send(*"defghijklmnopqrstuvwxyz", size=200)
    batch = success(feed.read(2, 1))
    assert batch.gap == FeedGap(3, feed.first - 1)
    assert [event.position for event in batch.events] == [feed.first]
