"""A source that dials one monitor."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from support.deferreds import success
from txqmp.fleet import DialSource, Fleet, NameTakenError, Record, VMState
from txqmp.testing import GARBAGE, MemoryEndpoint, Pump, ScriptedServer, SimulatedVM, greeting


pytest_plugins = ["support.sessions"]


class World:
    """A fleet, and simulated VMs for it to watch."""

    def __init__(self, clock: Clock, *events: str) -> None:
        self.clock = clock
        self.pump = Pump(clock)
        self.records: list[Record] = []
        self.fleet = Fleet(clock, self.records.append, events=events)

    def watch(self, vm: SimulatedVM | ScriptedServer, name: str) -> DialSource:
        source = DialSource(self.fleet, MemoryEndpoint(self.pump, vm), name)
        source.setServiceParent(self.fleet)
        return source

    def start(self) -> None:
        self.fleet.startService()
        self.pump()

    def stop(self) -> None:
        stopped = self.fleet.stopService()
        self.pump()
        success(stopped)

    def told(self, name: str) -> list[str]:
        return [
            record.event.name if record.event is not None else record.kind.value
            for record in self.records
            if record.vm == name
        ]


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    yield world
    world.stop()


def test_comes_goes_and_returns(world: World, clock: Clock) -> None:
    vm = SimulatedVM(clock)
    source = world.watch(vm, "a")
    world.start()
    assert source.vm.state is VMState.UP
    vm.pause()
    vm.resume()
    vm.terminate()
    world.pump()
    assert source.vm.state is VMState.GONE
    vm.boot()
    world.pump.advance(6)
    assert world.told("a") == [
        "connected",
        "snapshot",
        "STOP",
        "RESUME",
        "SHUTDOWN",
        "disconnected",
        "connected",
        "gap",
        "snapshot",
    ]
    assert [record.seq for record in world.records] == list(range(1, 10))


def test_the_end_of_the_watch_is_told(clock: Clock) -> None:
    world = World(clock)
    world.watch(SimulatedVM(clock), "a")
    world.start()
    world.stop()
    assert world.told("a") == ["connected", "snapshot", "disconnected"]
    assert world.records[-1].details["reason"] == "we disconnected"


def test_starts_anew(clock: Clock) -> None:
    world = World(clock)
    source = world.watch(SimulatedVM(clock), "a")
    world.start()
    world.stop()
    world.start()
    assert source.vm.session == 2
    assert world.told("a")[3:] == ["connected", "gap", "snapshot"]
    world.stop()


def test_a_vm_that_is_not_there_yet(world: World, clock: Clock) -> None:
    vm = SimulatedVM(clock)
    endpoint = MemoryEndpoint(world.pump, vm)
    endpoint.problem = ConnectionRefusedError()
    source = DialSource(world.fleet, endpoint, "a")
    source.setServiceParent(world.fleet)
    world.start()
    world.pump.advance(60)
    assert source.vm.state is VMState.CONNECTING
    assert source.vm.problem == "Connection was refused by other side."
    attempts = endpoint.attempts
    # However long it takes, it is tried for every few seconds.
    assert attempts >= 12
    endpoint.problem = None
    world.pump.advance(5)
    assert source.vm.state is VMState.UP


def test_only_the_events_asked_for_get_a_number(clock: Clock) -> None:
    world = World(clock, "BLOCK_*", "STOP")
    vm = SimulatedVM(clock)
    world.watch(vm, "a")
    world.start()
    vm.pause()
    vm.resume()
    vm.send_event("BLOCK_IO_ERROR", {"device": "d0"})
    world.pump()
    assert world.told("a") == ["connected", "snapshot", "STOP", "BLOCK_IO_ERROR"]
    assert [record.seq for record in world.records] == [1, 2, 3, 4]
    world.stop()


def test_a_monitor_that_another_client_holds(world: World, clock: Clock) -> None:
    vm = SimulatedVM(clock)
    other = world.watch(vm, "holder")
    world.start()
    source = world.watch(vm, "a")
    world.pump.advance(7)
    assert source.vm.state is VMState.BUSY
    assert world.told("a") == ["busy"]
    stopped = other.stopService()
    world.pump()
    success(stopped)
    world.pump.advance(11)
    assert source.vm.state is VMState.UP


def test_one_that_sends_garbage_hurts_no_other(world: World, clock: Clock) -> None:
    vm = SimulatedVM(clock)
    good = world.watch(vm, "good")
    bad = world.watch(ScriptedServer([greeting(), GARBAGE], clock=clock), "bad")
    world.start()
    world.pump.advance(30)
    vm.pause()
    world.pump()
    assert good.vm.state is VMState.UP
    assert world.told("good") == ["connected", "snapshot", "STOP"]
    assert bad.vm.state is not VMState.UP


def test_one_that_hangs_hurts_no_other(world: World, clock: Clock) -> None:
    frozen, vm = SimulatedVM(clock), SimulatedVM(clock)
    world.watch(frozen, "frozen")
    world.watch(vm, "good")
    world.start()
    frozen.freeze()
    vm.pause()
    world.pump.advance(30)
    assert world.told("good") == ["connected", "snapshot", "STOP"]
    stopped = world.fleet.stopService()
    world.pump.advance(3)
    success(stopped)


def test_one_that_floods_keeps_its_order(world: World, clock: Clock) -> None:
    flood, vm = SimulatedVM(clock), SimulatedVM(clock)
    world.watch(flood, "flood")
    world.watch(vm, "good")
    world.start()
    for number in range(5000):
        flood.send_event("NOISE", {"number": number})
    vm.pause()
    world.pump()
    assert world.told("good")[-1] == "STOP"
    numbers = [
        record.event.data["number"]
        for record in world.records
        if record.vm == "flood" and record.event is not None
    ]
    assert numbers == list(range(5000))


def test_an_event_that_is_too_large_ends_the_session(world: World, clock: Clock) -> None:
    vm = SimulatedVM(clock)
    source = world.watch(vm, "a")
    world.start()
    vm.send_event("HUGE", {"data": "x" * (2 << 20)})
    world.pump()
    assert source.vm.state is VMState.GAP
    world.pump.advance(5)
    assert source.vm.state is VMState.UP
    assert "gap" in world.told("a")


def test_name_and_place_of_a_unix_socket(clock: Clock, place: Path) -> None:
    fleet = Fleet(clock, print)
    source = DialSource(fleet, f"unix:{place}/vm1.sock")
    assert source.vm.name == "vm1"
    assert source.path == str(place / "vm1.sock")
    with pytest.raises(NameTakenError, match="watched already"):
        DialSource(fleet, str(place / "vm1.sock"), "other")
    with pytest.raises(NameTakenError, match="'vm1'"):
        DialSource(fleet, str(place / "b.sock"), "vm1")
    # What was refused holds nothing.
    DialSource(fleet, str(place / "b.sock"), "b")


def test_no_endpoint(clock: Clock) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        DialSource(Fleet(clock, print), "nothing:here")


def test_drop(clock: Clock, place: Path) -> None:
    records: list[Record] = []
    fleet = Fleet(clock, records.append)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "vm1.sock"))  # nobody listens
        source = DialSource(fleet, str(place / "vm1.sock"))
        source.setServiceParent(fleet)
        fleet.startService()
        assert source.vm.state is VMState.CONNECTING
        success(source.drop("its socket has vanished"))
    assert [record.kind.value for record in records] == ["gone"]
    assert list(fleet) == []
    DialSource(fleet, str(place / "vm1.sock"))
