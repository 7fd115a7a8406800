"""The first words with a VM, whatever source it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from support.deferreds import success
from support.leaks import LoggedErrors
from txqmp.fleet import (
    HARMLESS,
    DialSource,
    Fleet,
    Kind,
    ListenSource,
    Past,
    Record,
    VMState,
)
from txqmp.fleet.introduction import MAX_EARLY, MAX_EARLY_SIZE, QUERIES
from txqmp.messages import Event
from txqmp.server import CommandError
from txqmp.testing import Instead, MemoryEndpoint, Pump, SimulatedVM


UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"
OTHER = "5d4c4544-0042-3510-8051-b4c04f4d4e31"


@implementer(IStreamServerEndpoint)
class MemoryListener:
    """A place to listen on in memory, where the test dials."""

    def __init__(self) -> None:
        self.factory: Any = None

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return succeed(self)

    def getHost(self) -> UNIXAddress:
        return UNIXAddress("/run/in.sock")

    def stopListening(self) -> None:
        self.factory = None


class World:
    """A fleet that dials and listens."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.clock = clock
        self.pump = Pump(clock)
        self.records: list[Record] = []
        self.fleet = Fleet(clock, self.records.append, **options)
        self.listener = MemoryListener()
        self.listen = ListenSource(self.fleet, self.listener)
        self.listen.setServiceParent(self.fleet)
        self.peers = 0

    def watch(self, vm: SimulatedVM, name: str, *, configured: bool = False) -> DialSource:
        """Dial a VM; it is called after its socket, or by a configuration."""
        where = MemoryEndpoint(self.pump, vm)
        source = DialSource(
            self.fleet, where, name if configured else None, called=None if configured else name
        )
        source.setServiceParent(self.fleet)
        self.pump()
        return source

    def dial_in(self, vm: SimulatedVM) -> None:
        self.peers += 1
        address = IPv4Address("TCP", "10.0.0.1", self.peers)
        connection = self.pump.join(
            self.listener.factory.buildProtocol(address), vm.buildProtocol(address)
        )
        connection.client_transport.peerAddr = address
        self.pump()

    def vm(self, name: str | None = None, **options: Any) -> SimulatedVM:
        return SimulatedVM(self.clock, name=name, **options)

    def told(self, name: str) -> list[str]:
        return [
            record.event.name if record.event is not None else record.kind.value
            for record in self.records
            if record.vm == name
        ]

    def details(self, kind: Kind) -> list[dict[str, Any]]:
        return [dict(record.details) for record in self.records if record.kind is kind]


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    world.fleet.startService()
    yield world
    stopped = world.fleet.stopService()
    world.pump.advance(3)
    success(stopped)


# Who it is


@pytest.mark.parametrize(
    ("configured", "options", "key", "identity"),
    [
        (True, {"uuid": UUID, "name": "web"}, "configured a", UUID),
        (True, {"name": "web"}, "configured a", "a"),
        (False, {"uuid": UUID, "name": "web"}, f"uuid {UUID}", UUID),
        (False, {"name": "web"}, "name web", "a"),
        (False, {}, "socket a", "a"),
    ],
)
def test_one_that_we_dial(
    world: World, configured: bool, options: Any, key: str, identity: str
) -> None:
    source = world.watch(world.vm(**options), "a", configured=configured)
    assert world.told("a") == ["connected", "snapshot"]
    (connected,) = world.details(Kind.CONNECTED)
    assert connected["is"] == key
    assert connected["where"] == source.vm.where
    assert {record.identity for record in world.records} == {identity} == {source.vm.identity}


@pytest.mark.parametrize(("uuid", "identity"), [(UUID, UUID), (None, "web")])
def test_one_that_dials_us(world: World, uuid: str | None, identity: str) -> None:
    world.dial_in(world.vm("web", **({} if uuid is None else {"uuid": uuid})))
    (vm,) = world.fleet.vms
    assert (vm.name, vm.identity, vm.state) == ("web", identity, VMState.UP)
    assert {record.identity for record in world.records} == {identity}
    assert "MemoryListener" in vm.where


# What comes meanwhile


def test_events_keep_the_time_at_which_they_came(world: World, clock: Clock) -> None:
    vm = world.vm()
    held = vm.hold("query-status")
    clock.advance(100)
    source = world.watch(vm, "a")
    for _ in range(2):
        clock.advance(1)
        vm.send_event("NOISE")
        world.pump()
    assert world.records == []
    assert source.vm.state is VMState.CONNECTING
    clock.advance(1)
    held.release()
    world.pump()
    assert world.told("a") == ["connected", "NOISE", "NOISE", "snapshot"]
    assert [record.received for record in world.records] == [100, 101, 102, 103]
    assert source.vm.last_event == 102
    assert source.vm.events == 2


def test_the_snapshot_stands_where_it_was_taken(world: World, clock: Clock) -> None:
    """What came before is in it, and what came after is not."""
    vm = world.vm(faults=[Instead("query-name")])
    clock.advance(100)
    world.watch(vm, "a")
    clock.advance(1)
    vm.pause()
    world.pump.advance(30)
    assert world.told("a") == ["connected", "snapshot", "STOP"]
    (snapshot,) = world.details(Kind.SNAPSHOT)
    assert snapshot["query-status"]["running"] is True
    assert set(snapshot["errors"]) == {"query-name"}
    assert [record.received for record in world.records] == [100, 100, 101]


def test_of_too_many_the_last_are_kept_and_the_snapshot(world: World, clock: Clock) -> None:
    vm = world.vm()
    held = vm.hold("query-uuid")
    source = world.watch(vm, "a")
    # As if the status were known before all of them.
    introduction: Any = source._introduction
    introduction._held.append((0.0, 0, None))
    for number in range(MAX_EARLY + 10):
        vm.send_event("NOISE", {"number": number})
    world.pump()
    held.release()
    world.pump()
    assert world.told("a")[:3] == ["connected", "dropped", "snapshot"]
    (dropped,) = world.details(Kind.DROPPED)
    assert dropped["reason"] == "too many came before the VM said who it is"
    assert len(world.told("a")) + dropped["count"] >= MAX_EARLY + 13
    numbers = [each.event.data["number"] for each in world.records if each.event is not None]
    assert numbers == list(range(dropped["count"], MAX_EARLY + 10))


def test_what_is_kept_is_not_too_large(world: World, clock: Clock) -> None:
    vm = world.vm()
    held = vm.hold("query-uuid")
    source = world.watch(vm, "a")
    introduction: Any = source._introduction
    for number in range(5):
        vm.send_event("NOISE", {"number": number, "text": "x" * (MAX_EARLY_SIZE // 3)})
        world.pump()
    assert len([each for each in introduction._held if each[2] is not None]) == 2
    # One alone may be as large as a message.
    introduction._event(Event.make("HUGE", {"text": "x" * MAX_EARLY_SIZE}))
    # What cannot be written may be of any size.
    deep: Any = 1
    for _ in range(2000):
        deep = {"deep": deep}
    introduction._event(Event.make("DEEP", {"deep": deep}))
    held.release()
    world.pump()
    (dropped,) = world.details(Kind.DROPPED)
    assert dropped["count"] == 6
    names = [each.event.name for each in world.records if each.event is not None]
    assert names == ["DEEP"]


def test_nothing_is_kept_any_more(world: World) -> None:
    """Neither of one that is known, nor of one that is refused."""
    first, second = world.vm("web"), world.vm("web")
    held = second.hold("query-name")
    world.dial_in(first)
    world.dial_in(second)
    second.send_event("NOISE")
    world.pump()
    held.release()
    world.pump()
    for vm in (first, second):
        vm.send_event("NOISE")
    world.pump()
    assert world.told("web") == ["connected", "snapshot", "refused", "NOISE"]
    introductions = tuple(world.listen._introductions.values())
    assert len(introductions) == 2
    for introduction in introductions:
        assert not introduction._held


def test_one_that_ends_before_it_has_answered(world: World) -> None:
    vm = world.vm(uuid=UUID)
    for command in QUERIES:
        vm.hold(command)
    world.watch(vm, "a")
    vm.send_event("STOP")
    vm.shut_down()
    world.pump()
    assert world.told("a") == ["connected", "STOP", "SHUTDOWN", "disconnected"]
    assert world.records[-1].details["ended"]["by"] == "guest"
    assert {record.identity for record in world.records} == {"a"}


def test_one_that_dials_us_and_ends_before_it_has_answered(world: World) -> None:
    vm = world.vm("web")
    for command in QUERIES:
        vm.hold(command)
    world.dial_in(vm)
    vm.send_event("STOP")
    vm.kill()
    world.pump()
    assert world.told("10.0.0.1:1") == ["connected", "STOP", "disconnected"]


# Answers that do not come


def refuse(vm: SimulatedVM, *commands: str) -> None:
    """Have a VM answer with errors, as one too old."""

    def no(call: Any) -> None:
        raise CommandError("no such command", "CommandNotFound")

    for command in commands:
        vm.register(command, no)


def test_errors_lose_nobody(world: World) -> None:
    vm = world.vm("web", uuid=UUID)
    refuse(vm, *QUERIES)
    source = world.watch(vm, "a")
    assert source.vm.state is VMState.UP
    assert world.told("a") == ["connected", "snapshot"]
    assert world.details(Kind.CONNECTED)[0]["is"] == "socket a"
    assert set(world.details(Kind.SNAPSHOT)[0]) == {"errors"}
    assert set(world.details(Kind.SNAPSHOT)[0]["errors"]) == set(QUERIES)


def test_silence_loses_nobody(world: World) -> None:
    vm = world.vm("web", uuid=UUID)
    source = world.watch(vm, "a")
    assert source.vm.identity == UUID
    vm.kill()
    world.pump()
    vm.boot()
    held = [vm.hold(command) for command in QUERIES]
    world.pump.advance(1)
    vm.send_event("NOISE")
    world.pump.advance(11)
    # It is known who it was.
    assert source.vm.state is VMState.UP
    assert world.told("a")[-4:] == ["connected", "gap", "NOISE", "snapshot"]
    assert source.vm.identity == UUID
    for each in held:
        each.release()
    world.pump()
    assert world.told("a")[-1] == "snapshot"


def test_another_at_the_same_place(world: World) -> None:
    vm = world.vm(uuid=UUID)
    source = world.watch(vm, "a")
    for uuid in (OTHER, "00000000-0000-0000-0000-000000000000"):
        vm.kill()
        world.pump()
        vm.uuid = uuid
        vm.boot()
        world.pump.advance(5)
    identities = list(dict.fromkeys(record.identity for record in world.records))
    assert identities == [UUID, OTHER, "a"]
    assert source.vm.session == 3


def test_what_we_do_wrong_ends_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    vm = world.vm()
    with monkeypatch.context() as patch:
        patch.setattr("txqmp.fleet.dial.identify", broken)
        source = world.watch(vm, "a")
    assert len(logged_errors.flush(RuntimeError)) == 1
    world.pump.advance(5)
    assert source.vm.state is VMState.UP


# Two that are one


def test_one_uuid_at_two_sockets(world: World) -> None:
    """As two monitors of one VM are."""
    first, second = world.vm(uuid=UUID), world.vm(uuid=UUID)
    one = world.watch(first, "a")
    two = world.watch(second, "b", configured=True)
    second.pause()
    world.pump()
    assert world.told("a") == ["connected", "snapshot", "refused"]
    assert world.told("b") == []
    assert (one.vm.state, two.vm.state) == (VMState.UP, VMState.CONNECTING)
    assert two.vm.problem == f"uuid {UUID} is connected already"
    assert world.fleet.refused == 1
    # Its monitor is free for others.
    assert second.clients == ()
    world.pump.advance(29)
    assert world.fleet.refused == 1
    world.pump.advance(2)
    assert world.fleet.refused == 2
    assert world.details(Kind.REFUSED)[-1]["count"] == 2
    # When the first has gone, the second comes at once.
    first.kill()
    world.pump.advance(0.1)
    assert two.vm.state is VMState.UP
    assert world.told("b") == ["connected", "snapshot"]
    # And now the first is the second.
    first.boot()
    world.pump.advance(5)
    assert one.vm.state is VMState.GAP
    assert world.told("b")[-1] == "refused"


@pytest.mark.parametrize("options", [{"uuid": UUID}, {"name": "web"}])
def test_one_that_is_dialled_and_dials_us(world: World, options: Any) -> None:
    world.watch(world.vm(**options), "a")
    world.dial_in(world.vm(**options))
    assert world.told("a") == ["connected", "snapshot", "refused"]
    assert world.listen.refused == world.fleet.refused == 1
    world.pump.advance(31)


def test_one_that_dials_us_and_is_dialled(world: World) -> None:
    first = world.vm("web", uuid=UUID)
    world.dial_in(first)
    source = world.watch(world.vm(uuid=UUID), "a")
    assert world.told("web") == ["connected", "snapshot", "refused"]
    first.kill()
    world.pump.advance(0.1)
    assert source.vm.state is VMState.UP


def test_one_name_at_two_sockets(world: World) -> None:
    world.watch(world.vm("web"), "a")
    second = world.watch(world.vm("web"), "b")
    assert second.vm.problem == "name web is connected already"


def test_one_name_is_no_matter_of_those_that_are_configured(world: World) -> None:
    world.watch(world.vm("web"), "a", configured=True)
    world.watch(world.vm("web"), "b", configured=True)
    assert world.told("b") == ["connected", "snapshot"]


def test_one_name_is_no_matter_of_those_with_a_uuid(world: World) -> None:
    world.watch(world.vm("web", uuid=UUID), "a")
    world.watch(world.vm("web", uuid=OTHER), "b")
    assert world.told("b") == ["connected", "snapshot"]


def test_one_that_is_refused_may_be_stopped_and_started(world: World) -> None:
    first = world.vm(uuid=UUID)
    world.watch(first, "a")
    second = world.watch(world.vm(uuid=UUID), "b")
    for _ in range(2):
        stopped = second.stopService()
        second.startService()
        world.pump.advance(3)
        success(stopped)
    assert world.fleet.refused == 3
    first.kill()
    world.pump.advance(1)
    assert second.vm.state is VMState.UP
    world.pump.advance(40)
    assert world.told("b") == ["connected", "snapshot"]


def test_one_that_waits_may_be_dropped(world: World) -> None:
    world.watch(world.vm(uuid=UUID), "a")
    second = world.watch(world.vm(uuid=UUID), "b")
    dropped = second.drop("its socket has vanished")
    world.pump()
    success(dropped)
    world.pump.advance(31)
    assert world.fleet.refused == 1


def test_one_that_is_dropped_before_it_has_answered(world: World) -> None:
    world.watch(world.vm(uuid=UUID), "a")
    vm = world.vm(uuid=UUID)
    held = vm.hold("query-uuid")
    second = world.watch(vm, "b")
    dropped = second.drop("its socket has vanished")
    held.release()
    world.pump()
    success(dropped)
    world.pump.advance(31)
    assert world.told("b") == ["connected", "disconnected", "gone"]
    assert second.vm.state is VMState.GONE


# Numbers that go on


def test_numbers_go_on_where_they_were(clock: Clock) -> None:
    world = World(clock)
    vm = world.vm("web")
    clock.advance(1000)
    where = MemoryEndpoint(world.pump, vm)
    DialSource(world.fleet, where, "a").setServiceParent(world.fleet)
    world.fleet.restore({"a": Past(3, 30, 900.0), "in": Past(5, 50, 950.0)})
    world.fleet.startService()
    world.pump()
    world.dial_in(world.vm("in"))
    assert [(each.vm, each.session, each.seq, each.kind.value) for each in world.records] == [
        ("a", 4, 31, "connected"),
        ("a", 4, 32, "gap"),
        ("a", 4, 33, "snapshot"),
        ("in", 6, 51, "connected"),
        ("in", 6, 52, "gap"),
        ("in", 6, 53, "snapshot"),
    ]
    gap = world.details(Kind.GAP)[0]
    assert (gap["seconds"], gap["reason"]) == (100, "the daemon did not run")
    stopped = world.fleet.stopService()
    world.pump()
    success(stopped)


# What is sent


def test_nothing_else_is_sent_in_a_whole_life(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte by byte: as VMs that are dialled, that dial us, return, are refused, and fail."""
    received: list[bytes] = []

    def record(vm: SimulatedVM) -> SimulatedVM:
        build = vm.buildProtocol

        def recording(addr: Any) -> Any:
            server = build(addr)
            if server is not None:
                take = server.dataReceived

                def data_received(data: bytes) -> None:
                    received.append(data)
                    take(data)

                monkeypatch.setattr(server, "dataReceived", data_received)
            return server

        monkeypatch.setattr(vm, "buildProtocol", recording)
        return vm

    vm = record(world.vm("web", uuid=UUID))
    old = record(world.vm("old"))
    refuse(old, *QUERIES)
    world.watch(vm, "a")
    world.watch(record(world.vm(uuid=UUID)), "twin")
    world.watch(old, "old")
    for _ in range(3):
        vm.pause()
        vm.resume()
        vm.reset()
        vm.send_event("BLOCK_IO_ERROR", {"execute": "quit"})
        world.pump.advance(40)
        vm.shut_down()
        world.pump.advance(10)
        vm.boot()
        held = vm.hold("query-name")
        guest = record(world.vm("guest"))
        world.dial_in(guest)
        world.dial_in(record(world.vm("guest")))
        world.pump.advance(40)
        held.release()
        guest.kill()
        world.pump.advance(10)
    assert {"connected", "gap", "snapshot", "disconnected", "refused"} <= {
        record.kind.value for record in world.records
    }
    messages = [json.loads(line) for line in b"".join(received).splitlines()]
    assert {message["execute"] for message in messages} == HARMLESS
    for message in messages:
        execute = message["execute"]
        more = {"arguments"} if execute == "qmp_capabilities" else set()
        assert {"execute", "id"} <= set(message) <= {"execute", "id"} | more, message
        assert message.get("arguments", {}) in ({}, {"enable": []})


def test_what_is_asked_is_harmless() -> None:
    assert set(QUERIES) <= HARMLESS
