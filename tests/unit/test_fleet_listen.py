"""A source of VMs that dial us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from support.deferreds import success
from support.leaks import LoggedErrors
from txqmp.errors import ConnectError
from txqmp.fleet import DialSource, Fleet, ListenSource, Record, VMState
from txqmp.testing import MemoryEndpoint, Pump, SimulatedVM


UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"


@implementer(IStreamServerEndpoint)
class MemoryListener:
    """A place to listen on in memory, where the test dials."""

    def __init__(self) -> None:
        self.factory: Any = None
        self.answer: Any = None
        self.address: Any = UNIXAddress("/run/qmp.sock")
        self.stopped = 0

    def __str__(self) -> str:
        return "unix:/run/qmp.sock"

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return succeed(self) if self.answer is None else self.answer

    def getHost(self) -> Any:
        return self.address

    def stopListening(self) -> None:
        self.stopped += 1


class World:
    """A fleet that listens, and simulated VMs that dial it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pump = Pump(clock)
        self.records: list[Record] = []
        self.fleet = Fleet(clock, self.records.append)
        self.listener = MemoryListener()
        self.source = ListenSource(self.fleet, self.listener)
        self.source.setServiceParent(self.fleet)
        self.peers = 0

    def start(self) -> None:
        self.fleet.privilegedStartService()
        self.fleet.startService()

    def vm(self, name: str | None = None, **options: Any) -> SimulatedVM:
        return SimulatedVM(self.clock, name=name, **options)

    def dial(self, vm: SimulatedVM, port: int | None = None) -> None:
        """Have a VM dial; without a name it is known by its port."""
        self.peers += 1
        address = IPv4Address("TCP", "10.0.0.1", port or self.peers)
        session = self.listener.factory.buildProtocol(address)
        assert session is not None
        server = vm.buildProtocol(address)
        assert server is not None
        connection = self.pump.join(session, server)
        connection.client_transport.peerAddr = address
        self.pump()

    def told(self, name: str) -> list[str]:
        return [
            record.event.name if record.event is not None else record.kind.value
            for record in self.records
            if record.vm == name
        ]

    def details(self, kind: str) -> list[dict[str, Any]]:
        return [dict(each.details) for each in self.records if each.kind.value == kind]

    @property
    def names(self) -> set[str]:
        return {record.vm for record in self.records}


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    world.start()
    yield world
    stopped = world.fleet.stopService()
    world.pump()
    success(stopped)
    assert world.listener.stopped == 1


def test_vms_are_told_apart(world: World) -> None:
    web, database = world.vm("web"), world.vm("database", uuid=UUID)
    for vm in (web, database):
        world.dial(vm)
    web.pause()
    database.send_event("RTC_CHANGE", {"offset": 1})
    world.pump()
    assert world.told("web") == ["connected", "snapshot", "STOP"]
    assert world.told("database") == ["connected", "snapshot", "RTC_CHANGE"]
    assert [each["is"] for each in world.details("connected")] == ["name web", f"uuid {UUID}"]
    assert world.details("connected")[0]["where"] == "unix:/run/qmp.sock"
    assert world.details("connected")[0]["peer"] == "10.0.0.1:1"


def test_a_vm_returns(world: World) -> None:
    vm = world.vm("web")
    world.dial(vm)
    vm.kill()
    world.pump()
    (known,) = world.fleet.vms
    assert known.state is VMState.GAP
    vm.boot()
    world.clock.advance(2)
    world.dial(vm)
    assert world.told("web") == [
        "connected",
        "snapshot",
        "disconnected",
        "connected",
        "gap",
        "snapshot",
    ]
    assert [record.seq for record in world.records] == [1, 2, 3, 4, 5, 6]
    assert [record.session for record in world.records] == [1, 1, 1, 2, 2, 2]


def test_without_a_name_it_is_its_uuid(world: World) -> None:
    world.dial(world.vm(uuid=UUID))
    assert world.names == {UUID}


def test_without_either_it_is_its_peer(world: World) -> None:
    world.dial(world.vm(), port=7)
    assert world.names == {"10.0.0.1:7"}


def test_two_uuids_of_one_name_are_two_vms(world: World) -> None:
    other = UUID.replace("4c", "5d")
    world.dial(world.vm("web", uuid=UUID))
    world.dial(world.vm("web", uuid=other))
    assert world.names == {"web", other}


def test_one_uuid_of_two_names_is_one_vm(world: World) -> None:
    world.dial(world.vm("web", uuid=UUID))
    second = world.vm("clone", uuid=UUID)
    world.dial(second)
    assert world.names == {"web"}
    (refused,) = world.details("refused")
    assert refused["peer"] == "10.0.0.1:2"
    assert UUID in refused["reason"]


def test_the_second_of_one_identity_is_refused(world: World) -> None:
    first, second = world.vm("web"), world.vm("web")
    world.dial(first)
    world.dial(second)
    second.pause()
    first.pause()
    world.pump()
    assert world.told("web") == ["connected", "snapshot", "refused", "STOP"]
    assert world.source.refused == 1
    # It is not heard, and in the end it is cut off: then it may try again.
    assert len(second.clients) == 1
    world.pump.advance(31)
    assert second.clients == ()
    world.dial(second)
    assert world.details("refused")[-1]["count"] == 2


def test_one_that_was_refused_may_come_when_the_first_has_gone(world: World) -> None:
    first, second = world.vm("web"), world.vm("web")
    world.dial(first)
    world.dial(second)
    first.kill()
    world.pump()
    assert second.clients == ()
    world.dial(second)
    second.pause()
    world.pump()
    assert world.told("web")[-1] == "STOP"
    assert world.details("connected")[-1]["peer"] == "10.0.0.1:3"


def test_one_that_was_refused_may_go(world: World) -> None:
    world.dial(world.vm("web"))
    second = world.vm("web")
    world.dial(second)
    second.kill()
    world.pump()
    assert world.told("web") == ["connected", "snapshot", "refused"]


def test_a_name_that_a_dialled_vm_has_is_refused(world: World) -> None:
    dialled = DialSource(world.fleet, MemoryEndpoint(world.pump, world.vm()), "web")
    dialled.setServiceParent(world.fleet)
    world.pump()
    world.dial(world.vm("web"))
    assert world.told("web") == ["connected", "snapshot", "refused"]


def test_too_many_vms_are_refused(clock: Clock) -> None:
    world = World(clock)
    world.fleet._max_vms = 1
    world.start()
    world.dial(world.vm("a"))
    world.dial(world.vm("b"))
    assert world.names == {"a"}
    assert world.source.refused == 1
    stopped = world.fleet.stopService()
    world.pump()
    success(stopped)


def test_events_wait_for_the_name(world: World) -> None:
    vm = world.vm("web")
    held = vm.hold("query-name")
    world.dial(vm)
    for number in range(1500):
        vm.send_event("NOISE", {"number": number})
    world.pump()
    assert world.records == []
    held.release()
    world.pump()
    vm.send_event("LAST")
    world.pump()
    told = world.told("web")
    assert told[:2] == ["connected", "dropped"]
    assert told[2:1002] == ["NOISE"] * 1000
    assert told[-1] == "LAST"
    (dropped,) = world.details("dropped")
    assert dropped["count"] == 500
    first = next(each.event for each in world.records if each.event is not None)
    assert first.data["number"] == 500


def test_one_that_leaves_before_it_said_its_name(world: World) -> None:
    vm = world.vm("web")
    vm.hold("query-name")
    world.dial(vm)
    vm.kill()
    world.pump()
    assert world.records == []


def test_one_that_does_not_say_its_name_is_its_peer(world: World) -> None:
    vm = world.vm("web")
    held = vm.hold("query-name")
    world.dial(vm, port=9)
    world.pump.advance(11)
    assert world.names == {"10.0.0.1:9"}
    held.release()
    world.pump()


def test_one_that_says_nonsense_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("txqmp.fleet.listen.identify", broken)
    vm = world.vm("web")
    world.dial(vm)
    world.pump()
    assert vm.clients == ()
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_the_socket_is_not_to_be_dialled(clock: Clock) -> None:
    world = World(clock)
    world.start()
    assert world.fleet.is_occupied("/run/qmp.sock")
    success(world.fleet.stopService())
    assert not world.fleet.is_occupied("/run/qmp.sock")


@pytest.mark.parametrize(
    "address", [IPv4Address("TCP", "127.0.0.1", 4444), UNIXAddress(None), UNIXAddress("")]
)
def test_other_places_are_nobodys(clock: Clock, address: Any) -> None:
    world = World(clock)
    world.listener.address = address
    world.start()
    success(world.fleet.stopService())


def test_starts_anew(clock: Clock) -> None:
    world = World(clock)
    world.start()
    success(world.fleet.stopService())
    # As twist does it, without the privileged part.
    world.fleet.startService()
    world.dial(world.vm("web"))
    assert world.names == {"web"}
    stopped = world.fleet.stopService()
    world.pump()
    success(stopped)


def test_a_place_that_another_source_has(clock: Clock) -> None:
    """As when a glob has found what a daemon before us left."""
    world = World(clock)
    world.fleet.occupy("/run/qmp.sock")
    world.start()
    success(world.fleet.stopService())
    assert world.fleet.is_occupied("/run/qmp.sock")


def test_stops_before_it_began(clock: Clock) -> None:
    success(World(clock).source.stopService())


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            CannotListenError("any", "/run/qmp.sock", OSError(98, "Address in use")),
            "Address in use",
        ),
        (OSError(13, "Permission denied"), "Permission denied"),
        (ValueError("no such thing"), "no such thing"),
    ],
)
def test_cannot_listen(clock: Clock, problem: Exception, text: str) -> None:
    world = World(clock)
    world.listener.answer = fail(problem)
    with pytest.raises(ConnectError, match=f"cannot listen on unix:/run/qmp.sock: {text}"):
        world.start()
    success(world.fleet.stopService())


def test_cannot_listen_after_a_while(clock: Clock, logged_errors: LoggedErrors) -> None:
    world = World(clock)
    world.listener.answer = Deferred()
    world.start()
    world.listener.answer.errback(OSError(98, "Address in use"))
    assert len(logged_errors.flush(OSError)) == 1
    success(world.fleet.stopService())


def test_no_endpoint(clock: Clock) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        ListenSource(Fleet(clock, print), "nothing:here")


def test_a_place_that_cannot_be_left(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    """As when somebody has deleted the socket: the sessions end all the same."""
    world.dial(world.vm("web"))
    with monkeypatch.context() as patch:
        patch.setattr(world.listener, "stopListening", lambda: fail(FileNotFoundError("gone")))
        stopped = world.source.stopService()
        world.pump()
        success(stopped)
    assert len(logged_errors.flush(FileNotFoundError)) == 1
    assert world.told("web")[-1] == "disconnected"
    world.source.startService()
