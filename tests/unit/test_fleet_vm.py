"""One VM: its states, its numbers, its records."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from txqmp.errors import ConnectError, ConnectFailure, DisconnectedError, GreetingError
from txqmp.fleet.records import Kind, Record
from txqmp.fleet.vm import VM, VMState
from txqmp.messages import Event
from txqmp.testing import Pump, SimulatedVM, connect_in_memory


class World:
    """A VM, and all that it says."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.simulated = SimulatedVM(clock, name="web")
        self.records: list[Record] = []
        self.vm = VM("a", clock, self.records.append)
        self.session: Any = None
        self.pump = Pump(clock)

    def come(self) -> None:
        self.session, _, self.pump = connect_in_memory(self.simulated, self.clock)
        self.vm.came(self.session, {"where": "here"})

    def lose(self, error: Any = None) -> None:
        self.vm.lost(self.session, error or DisconnectedError("the peer closed the connection"))
        self.session.abort()
        self.pump()

    @property
    def kinds(self) -> list[str]:
        return [record.kind.value for record in self.records]


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock)


def test_before_anything(world: World) -> None:
    assert world.vm.state is VMState.CONNECTING
    assert (world.vm.session, world.vm.seq, world.vm.problem) == (0, 0, None)
    assert "a connecting" in repr(world.vm)


def test_a_life(world: World) -> None:
    world.clock.advance(100)
    world.come()
    world.pump()
    assert world.vm.state is VMState.UP
    world.vm.event(Event.make("STOP", at=7))
    world.lose()
    assert world.vm.state is VMState.GAP
    assert world.vm.problem == "the peer closed the connection"
    world.clock.advance(2.5)
    world.come()
    world.pump()
    assert world.kinds == [
        "connected",
        "snapshot",
        "event",
        "disconnected",
        "connected",
        "gap",
        "snapshot",
    ]
    assert [record.seq for record in world.records] == [1, 2, 3, 4, 5, 6, 7]
    assert [record.session for record in world.records] == [1, 1, 1, 1, 2, 2, 2]
    assert {record.vm for record in world.records} == {"a"}
    connected, snapshot, event, disconnected, _, gap, _ = world.records
    assert connected.details == {"where": "here", "qemu": "7.2.22"}
    assert connected.received == 100
    assert set(snapshot.details) == {"query-status", "query-name", "query-uuid"}
    assert snapshot.details["query-name"] == {"name": "web"}
    assert event.event is not None
    assert event.event.name == "STOP"
    assert disconnected.details == {
        "reason": "the peer closed the connection",
        "expected": False,
    }
    assert gap.details == {
        "since": "1970-01-01T00:01:40.000000Z",
        "until": "1970-01-01T00:01:42.500000Z",
        "seconds": 2.5,
        "reason": "the peer closed the connection",
    }
    world.lose()


def test_packages_are_told(world: World) -> None:
    world.simulated.package = "Debian 1:7.2"
    world.come()
    assert world.records[0].details["package"] == "Debian 1:7.2"
    world.lose()


def test_a_shutdown_is_told(world: World) -> None:
    world.come()
    shutdown = Event.make("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
    world.lose(DisconnectedError("the end", expected=True, shutdown=shutdown))
    assert world.records[-1].details == {
        "reason": "the end",
        "expected": True,
        "shutdown": {"guest": True, "reason": "guest-shutdown"},
    }
    assert world.vm.state is VMState.GONE


def test_malformed_messages_are_told(world: World) -> None:
    world.come()
    world.session.malformed = 3
    world.lose(GreetingError("a second greeting"))
    assert world.records[-1].details == {
        "reason": "a second greeting",
        "expected": False,
        "malformed": 3,
    }


def test_early_events_that_were_dropped_are_told(world: World) -> None:
    session, _, pump = connect_in_memory(world.simulated, world.clock)
    session.early_events_dropped = 5
    world.vm.came(session, {})
    assert world.records[1].kind is Kind.DROPPED
    assert world.records[1].details["count"] == 5
    session.abort()
    pump()


def test_only_the_running_session_ends_it(world: World) -> None:
    world.come()
    old = world.session
    world.lose()
    world.come()
    world.vm.lost(old, DisconnectedError("again"))
    assert world.vm.state is VMState.UP
    world.lose()


def test_a_snapshot_of_a_session_that_is_over_is_nothing(world: World) -> None:
    world.come()
    world.lose()
    world.pump()
    assert "snapshot" not in world.kinds


def test_a_snapshot_that_fails_says_so(world: World) -> None:
    world.simulated.faults = []
    held = world.simulated.hold("query-status")
    world.come()
    world.pump.advance(1000)
    record = world.records[-1]
    assert record.kind is Kind.SNAPSHOT
    assert "query-status" in record.details["errors"]
    held.release()
    world.lose()


BUSY = ConnectError("held", ConnectFailure.BUSY)
MUTE = ConnectError("mute", ConnectFailure.SILENT, "greeting")
UNREACHABLE = ConnectError("no route", ConnectFailure.SILENT, "connect")
ABSENT = ConnectError("no such socket", ConnectFailure.ABSENT)
REFUSED = ConnectError("nobody listens", ConnectFailure.REFUSED)
GARBAGE = GreetingError("garbage")


@pytest.mark.parametrize(
    ("failures", "states"),
    [
        ([BUSY, MUTE, BUSY], ["busy", "busy", "busy"]),
        ([UNREACHABLE, ABSENT, REFUSED, GARBAGE], ["connecting"] * 4),
        ([BUSY, ABSENT, BUSY], ["busy", "connecting", "busy"]),
    ],
)
def test_failures_before_the_first_session(
    world: World, failures: list[Any], states: list[str]
) -> None:
    seen = []
    for error in failures:
        world.vm.failed(error)
        seen.append(world.vm.state.value)
        assert world.vm.problem == str(error)
    assert seen == states


@pytest.mark.parametrize(
    ("failures", "states"),
    [
        ([ABSENT], ["gone"]),
        ([REFUSED, GARBAGE], ["gone", "gone"]),
        ([GARBAGE, UNREACHABLE], ["gap", "gap"]),
        ([BUSY, GARBAGE], ["busy", "gap"]),
        ([BUSY, REFUSED], ["busy", "gone"]),
    ],
)
def test_failures_after_a_session(world: World, failures: list[Any], states: list[str]) -> None:
    world.come()
    world.lose()
    seen = []
    for error in failures:
        world.vm.failed(error)
        seen.append(world.vm.state.value)
    assert seen == states


def test_busy_is_told_once(world: World) -> None:
    for error in (BUSY, MUTE, BUSY, GARBAGE, MUTE):
        world.vm.failed(error)
    assert world.kinds == ["busy", "busy"]
    assert [record.details["reason"] for record in world.records] == ["held", "mute"]
    assert world.records[0].session == 0


def test_refusals_are_told_ever_less_often(world: World) -> None:
    told = [world.vm.refused("pid 7", "uuid x is connected already") for _ in range(9)]
    assert told == [True, True, False, True, False, False, False, True, False]
    assert [record.details["count"] for record in world.records] == [1, 2, 4, 8]
    assert world.records[0].details["peer"] == "pid 7"
    assert world.vm.refusals == 9


def test_gone(world: World) -> None:
    world.vm.gone("its socket has vanished")
    assert world.vm.state is VMState.GONE
    assert world.kinds == ["gone"]
    assert world.records[0].details == {"reason": "its socket has vanished"}
