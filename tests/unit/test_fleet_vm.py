"""One VM: its states, its numbers, its records."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock

from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    DisconnectedError,
    GreetingError,
    QMPError,
)
from txqmp.fleet.records import Kind, Past, Record
from txqmp.fleet.vm import VM, VMState
from txqmp.messages import Event
from txqmp.observer import Snapshot
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

    def come(self, uuid: str | None = None, peer: Any = None) -> None:
        self.session, _, self.pump = connect_in_memory(self.simulated, self.clock)
        self.session.transport.peerAddr = peer or IPv4Address("TCP", "10.0.0.1", 4444)
        self.vm.came(self.session, {"where": "here"}, self.clock.seconds(), uuid)

    def lose(self, cause: Exception | None = None, error: QMPError | None = None) -> None:
        """The session ends by itself, as the cause says."""
        if error is None:
            error = DisconnectedError("the peer closed the connection")
            error.__cause__ = cause or ConnectionDone()
        self.vm.lost(self.session, error)
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
    assert world.vm.state is VMState.UP
    world.vm.snapshot(Snapshot({"query-name": {"name": "web"}}, {}))
    world.clock.advance(1)
    world.vm.event(Event.make("STOP", at=7))
    assert (world.vm.events, world.vm.last_event) == (1, 101)
    world.lose()
    assert world.vm.state is VMState.GAP
    assert world.vm.problem == "the peer closed the connection"
    world.clock.advance(2.5)
    world.come()
    world.vm.snapshot(Snapshot({}, {"query-name": ValueError("no")}))
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
    connected, snapshot, event, disconnected, _, gap, failed = world.records
    assert connected.details == {"where": "here", "qemu": "7.2.22"}
    assert connected.received == 100
    assert snapshot.details == {"query-name": {"name": "web"}}
    assert failed.details == {"errors": {"query-name": "no"}}
    assert event.event is not None
    assert event.event.name == "STOP"
    assert disconnected.details == {
        "reason": "the peer closed the connection",
        "expected": False,
        "ended": {"by": "unknown", "graceful": False, "reason": "without a word"},
    }
    assert gap.details == {
        "since": "1970-01-01T00:01:41.000000Z",
        "until": "1970-01-01T00:01:43.500000Z",
        "seconds": 2.5,
        "reason": "the peer closed the connection",
    }
    world.lose()


def test_packages_are_told(world: World) -> None:
    world.simulated.package = "Debian 1:7.2"
    world.come()
    assert world.records[0].details["package"] == "Debian 1:7.2"
    world.lose()


@pytest.mark.parametrize(
    ("data", "ended"),
    [
        (
            {"guest": True, "reason": "guest-shutdown"},
            {"by": "guest", "graceful": True, "reason": "guest-shutdown"},
        ),
        (
            {"guest": True, "reason": "guest-panic"},
            {"by": "guest", "graceful": False, "reason": "guest-panic"},
        ),
        (
            {"guest": False, "reason": "host-signal"},
            {"by": "host", "graceful": True, "reason": "host-signal"},
        ),
        (
            {"guest": False, "reason": "host-error"},
            {"by": "host", "graceful": False, "reason": "host-error"},
        ),
        ({"guest": True}, {"by": "guest", "graceful": True, "reason": "no reason given"}),
        (
            {"guest": [1], "reason": {"a": 1}},
            {"by": "unknown", "graceful": True, "reason": "no reason given"},
        ),
        (
            {"guest": 1, "reason": "a\x1b[31m"},
            {"by": "unknown", "graceful": True, "reason": "a?[31m"},
        ),
    ],
)
def test_how_it_ended(world: World, data: dict[str, Any], ended: dict[str, Any]) -> None:
    world.come()
    world.simulated.send_event("SHUTDOWN", data)
    world.pump()
    world.lose()
    assert world.records[-1].details == {
        "reason": "the peer closed the connection",
        "expected": False,
        "ended": ended,
        "shutdown": data,
    }
    assert world.vm.state is VMState.GONE


def test_one_that_went_on_after_its_shutdown(world: World) -> None:
    """As with ``-no-shutdown``."""
    world.come()
    world.simulated.send_event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
    world.simulated.send_event("RESUME")
    world.pump()
    world.lose()
    assert world.records[-1].details["ended"]["reason"] == "without a word"
    assert world.vm.state is VMState.GAP


def test_an_end_of_ours_is_none_of_the_vms(world: World) -> None:
    world.come()
    world.simulated.send_event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
    world.pump()
    world.session.abort()
    world.lose(error=DisconnectedError("we disconnected", expected=True))
    assert "ended" not in world.records[-1].details
    assert world.records[-1].details["shutdown"]["guest"] is True
    assert world.vm.state is VMState.GAP


def test_a_network_that_fails_is_no_end_and_the_gap_is_since_it_was_silent(world: World) -> None:
    world.clock.advance(100)
    world.come()
    world.clock.advance(1)
    world.vm.event(Event.make("STOP"))
    world.clock.advance(7200)
    world.lose(ConnectionLost())
    assert world.records[-1].details == {
        "reason": "the peer closed the connection",
        "expected": False,
    }
    assert world.records[-1].received == 7301
    world.come()
    assert world.records[-1].details["since"] == "1970-01-01T00:01:41.000000Z"
    world.lose()


def test_a_unix_socket_does_not_fail(world: World) -> None:
    """What cuts it off is the end of the process."""
    world.come(peer=UNIXAddress("/run/a.sock"))
    world.clock.advance(100)
    world.lose(ConnectionLost())
    assert world.records[-1].details["ended"]["reason"] == "without a word"
    world.come()
    assert world.records[-1].details["since"] == "1970-01-01T00:01:40.000000Z"
    world.lose()


def test_a_session_that_broke_tells_nothing_of_the_vms_end(world: World) -> None:
    world.come()
    world.lose(error=GreetingError("a second greeting"))
    assert "ended" not in world.records[-1].details
    assert world.vm.state is VMState.GAP


def test_we_may_know_better_why(world: World) -> None:
    world.come()
    world.session.abort()
    world.vm.lost(world.session, DisconnectedError("we disconnected"), "it was replaced")
    assert world.records[-1].details["reason"] == world.vm.problem == "it was replaced"
    world.pump()


# Who it is


def test_identity(world: World) -> None:
    world.vm.dropped(1, "why")
    world.come("uuid 1")
    world.vm.event(Event.make("STOP"))
    world.lose()
    world.vm.failed(BUSY)
    world.come()
    assert world.vm.identity == "a"
    assert [record.identity for record in world.records] == ["a", *["uuid 1"] * 4, "a", "a"]
    world.lose()


# Numbers that go on


def test_one_that_is_remembered(clock: Clock) -> None:
    world = World(clock)
    clock.advance(100)
    world.vm = VM("a", clock, world.records.append, Past(7, 70, 40.5, "uuid 1"))
    assert (world.vm.session, world.vm.seq, world.vm.identity) == (7, 70, "uuid 1")
    assert world.vm.state is VMState.CONNECTING
    world.vm.failed(ABSENT)
    assert world.vm.state is VMState.CONNECTING
    world.come("uuid 1")
    assert [(record.seq, record.session) for record in world.records] == [(71, 8), (72, 8)]
    assert world.records[-1].details == {
        "since": "1970-01-01T00:00:40.500000Z",
        "until": "1970-01-01T00:01:40.000000Z",
        "seconds": 59.5,
        "reason": "the daemon did not run",
    }
    world.lose()


def test_a_clock_that_was_set_back(clock: Clock) -> None:
    world = World(clock)
    world.vm = VM("a", clock, world.records.append, Past(1, 1, 1000.0))
    world.come()
    details = world.records[-1].details
    assert details["since"] == details["until"] == "1970-01-01T00:00:00.000000Z"
    assert details["seconds"] == 0
    world.lose()


def test_a_monitor_that_was_held_is_a_gap(world: World) -> None:
    world.vm.failed(BUSY)
    world.clock.advance(10)
    world.vm.failed(MUTE)
    world.come()
    assert world.kinds == ["busy", "connected", "gap"]
    assert world.records[-1].details["seconds"] == 10
    assert world.records[-1].details["reason"] == "held"
    world.lose()
    world.vm.failed(BUSY)
    world.vm.failed(GARBAGE)
    world.vm.failed(BUSY)
    world.come()
    assert world.records[-1].details["reason"] == "the peer closed the connection; then held"
    world.lose()


def test_malformed_messages_are_told(world: World) -> None:
    world.come()
    world.session.malformed = 3
    world.lose(error=GreetingError("a second greeting"))
    assert world.records[-1].details == {
        "reason": "a second greeting",
        "expected": False,
        "malformed": 3,
    }


def test_early_events_that_were_dropped_are_told(world: World) -> None:
    session, _, pump = connect_in_memory(world.simulated, world.clock)
    session.early_events_dropped = 5
    world.vm.came(session, {}, 0.0)
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
