"""The fleet and real QEMUs: their states, their ends, their identities."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred

from support.qemu import RealQEMU
from support.waiting import until, wait_stopped, within
from txqmp.fleet import (
    DialSource,
    Fleet,
    GlobSource,
    ListenSource,
    Past,
    Peers,
    Record,
    VMState,
)


pytest_plugins = ["support.sessions"]
pytestmark = pytest.mark.timeout(120)

MakeQEMU = Callable[..., RealQEMU]

UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"


class World:
    """A fleet in the reactor."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.records: list[Record] = []
        self.fleet = Fleet(reactor, self.records.append)
        self.fleet.startService()

    def dial(self, path: str | Path, name: str | None = None) -> DialSource:
        source = DialSource(self.fleet, str(path), name)
        source.setServiceParent(self.fleet)
        return source

    def listen(self, where: str, allowed: Peers | None = None) -> ListenSource:
        source = ListenSource(self.fleet, where, allowed)
        source.setServiceParent(self.fleet)
        return source

    def told(self, name: str) -> list[str]:
        return [
            record.event.name if record.event is not None else record.kind.value
            for record in self.records
            if record.vm == name
        ]

    async def expect(self, name: str, what: str, count: int = 1) -> Record:
        """The record of a kind or an event, when it has come."""
        await until(lambda: self.told(name).count(what) >= count)
        return [
            record
            for record in self.records
            if record.vm == name and what in (record.kind.value, record.event and record.event.name)
        ][count - 1]


@pytest_twisted.async_yield_fixture
async def world(place: Path) -> AsyncIterator[World]:
    """It ends before the directory goes in which it listens."""
    world = World()
    yield world
    await within(maybeDeferred(world.fleet.stopService), what="the end of the fleet")


def monitor(path: Path) -> tuple[str, ...]:
    """QEMU's words for a monitor on a socket."""
    return ("-chardev", f"socket,id=m,path={path},server=on,wait=off", "-mon", "m,mode=control")


def dialling(path: Path) -> tuple[str, ...]:
    """QEMU's words for a monitor that dials."""
    return ("-chardev", f"socket,id=m,path={path},reconnect=1", "-mon", "m,mode=control")


# States


@pytest_twisted.ensureDeferred
async def test_a_monitor_that_is_held(world: World, qemu: RealQEMU) -> None:
    with socket.socket(socket.AF_UNIX) as holder:
        holder.settimeout(20)
        holder.connect(qemu.path())
        assert holder.recv(65536)
        source = world.dial(qemu.path(), "a")
        await world.expect("a", "busy")
        assert source.vm.state is VMState.BUSY
        assert "another client" in (source.vm.problem or "")
    await world.expect("a", "snapshot")
    assert source.vm.state is VMState.UP
    assert world.told("a") == ["busy", "connected", "gap", "snapshot"]
    gap = world.records[2]
    assert "another client" in gap.details["reason"]
    assert gap.details["seconds"] > 0


@pytest_twisted.ensureDeferred
async def test_a_monitor_that_was_taken_meanwhile(world: World, qemu: RealQEMU) -> None:
    """It is heard, lost, held by another, and heard again: one gap, since the loss."""
    source = world.dial(qemu.path(), "a")
    await world.expect("a", "snapshot")
    lost = source.factory.stop()
    await within(lost)
    with socket.socket(socket.AF_UNIX) as holder:
        holder.settimeout(20)
        holder.connect(qemu.path())
        assert holder.recv(65536)
        source.startService()
        await world.expect("a", "busy")
        assert source.vm.state is VMState.BUSY
    gap = await world.expect("a", "gap")
    disconnected = await world.expect("a", "disconnected")
    assert gap.details["since"] == disconnected.time.replace(tzinfo=None).isoformat() + "Z"
    assert "we disconnected; then " in gap.details["reason"]
    await world.expect("a", "snapshot", 2)


@pytest_twisted.ensureDeferred
async def test_a_qemu_that_is_stopped(world: World, qemu: RealQEMU) -> None:
    """It looks as if its monitor were held, and nobody holds it."""
    qemu.pause()
    wait_stopped(qemu.pid)
    source = world.dial(qemu.path(), "a")
    await world.expect("a", "busy")
    assert "the peer is stopped" in (source.vm.problem or "")
    qemu.resume()
    await world.expect("a", "snapshot")
    assert source.vm.state is VMState.UP


@pytest_twisted.ensureDeferred
async def test_a_qemu_that_is_stopped_while_it_is_up(world: World, qemu: RealQEMU) -> None:
    """There is nothing to tell: it says nothing, as one to which nothing happens."""
    source = world.dial(qemu.path(), "a")
    await world.expect("a", "snapshot")
    qemu.pause()
    wait_stopped(qemu.pid)
    assert source.vm.state is VMState.UP
    qemu.resume()
    qemu.execute("cont")
    await world.expect("a", "RESUME")
    assert world.told("a") == ["connected", "snapshot", "RESUME"]
    assert source.vm.events == 1
    assert source.vm.last_event is not None


@pytest_twisted.ensureDeferred
async def test_bound_but_not_listening(world: World, qemu_factory: MakeQEMU, place: Path) -> None:
    path = place / "vm1.sock"
    with socket.socket(socket.AF_UNIX) as early:
        early.bind(str(path))
        source = GlobSource(world.fleet, str(place / "*.sock"), rescan=0.1)
        source.setServiceParent(world.fleet)
        vm = world.fleet.find("vm1")
        assert vm is not None
        assert vm.state is VMState.CONNECTING
        assert "nobody listens" in (vm.problem or "")
        early.listen()
        early.settimeout(20)
        await until(lambda: vm.problem is not None and "nobody" not in vm.problem)
    path.unlink()
    qemu_factory(*monitor(path))
    await world.expect("vm1", "snapshot")


@pytest_twisted.ensureDeferred
async def test_a_restart_on_the_same_socket(
    world: World, qemu_factory: MakeQEMU, place: Path
) -> None:
    path = place / "vm1.sock"
    first = qemu_factory(*monitor(path), "-uuid", UUID)
    source = world.dial(path)
    await world.expect("vm1", "snapshot")
    assert source.vm.identity == UUID
    first.kill()
    lost = await world.expect("vm1", "disconnected")
    assert lost.details["ended"] == {
        "by": "unknown",
        "graceful": False,
        "reason": "without a word",
    }
    await until(lambda: source.vm.state is VMState.GONE)
    qemu_factory(*monitor(path), "-uuid", UUID)
    gap = await world.expect("vm1", "gap")
    assert gap.session == 2
    await world.expect("vm1", "snapshot", 2)
    assert {record.identity for record in world.records} == {UUID}
    assert [record.seq for record in world.records] == list(range(1, 7))


@pytest_twisted.ensureDeferred
async def test_a_socket_that_vanishes(world: World, qemu_factory: MakeQEMU, place: Path) -> None:
    path = place / "vm1.sock"
    qemu = qemu_factory(*monitor(path))
    source = GlobSource(world.fleet, str(place / "*.sock"), rescan=0.1)
    source.setServiceParent(world.fleet)
    await world.expect("vm1", "snapshot")
    qemu.execute("quit")
    lost = await world.expect("vm1", "disconnected")
    assert lost.details["ended"] == {"by": "host", "graceful": True, "reason": "host-qmp-quit"}
    await world.expect("vm1", "gone")
    assert world.fleet.find("vm1") is None
    assert world.told("vm1") == ["connected", "snapshot", "SHUTDOWN", "disconnected", "gone"]


@pytest_twisted.ensureDeferred
async def test_a_socket_that_was_replaced(
    world: World, qemu_factory: MakeQEMU, place: Path
) -> None:
    """The old QEMU runs on, and nobody can find it any more; the new one is the VM."""
    path = place / "vm1.sock"
    qemu_factory(*monitor(path), "-uuid", UUID)
    source = GlobSource(world.fleet, str(place / "*.sock"), rescan=0.1)
    source.setServiceParent(world.fleet)
    await world.expect("vm1", "snapshot")
    path.unlink()
    new = qemu_factory(*monitor(path))
    lost = await world.expect("vm1", "disconnected")
    assert lost.details["reason"] == "its socket was replaced by another"
    assert "ended" not in lost.details
    gap = await world.expect("vm1", "gap")
    assert gap.details["reason"] == "its socket was replaced by another"
    new.execute("cont")
    await world.expect("vm1", "RESUME")
    vm = world.fleet.find("vm1")
    assert vm is not None
    assert vm.identity == "vm1"


# Ends


@pytest_twisted.ensureDeferred
async def test_an_end_by_a_signal(world: World, qemu: RealQEMU) -> None:
    source = world.dial(qemu.path(), "a")
    await world.expect("a", "snapshot")
    qemu.signal(15)
    lost = await world.expect("a", "disconnected")
    assert lost.details["ended"] == {"by": "host", "graceful": True, "reason": "host-signal"}
    assert lost.details["expected"] is True
    assert source.vm.state is VMState.GONE


# Identities


@pytest_twisted.ensureDeferred
async def test_two_monitors_of_one_vm(world: World, qemu_factory: MakeQEMU, place: Path) -> None:
    """It is watched once, and the other monitor is left to others."""
    incoming = place / "in.sock"
    qemu = qemu_factory("-uuid", UUID, *dialling(incoming), monitors=("one", "two"))
    world.dial(qemu.path("one"))
    await world.expect("one", "snapshot")
    second = world.dial(qemu.path("two"))
    refused = await world.expect("one", "refused")
    assert refused.details == {
        "peer": f"unix:{qemu.path('two')}",
        "reason": f"uuid {UUID} is connected already",
        "count": 1,
    }
    listening = world.listen(f"unix:{incoming}")
    await until(lambda: listening.refused == 1)
    assert (await world.expect("one", "refused", 2)).details["peer"] == f"pid {qemu.pid}"
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(20)
        other.connect(qemu.path("two"))
        assert other.recv(65536)
    assert second.vm.state is VMState.CONNECTING
    qemu.execute("cont")
    await world.expect("one", "RESUME")
    assert {record.vm for record in world.records} == {"one"}


@pytest_twisted.ensureDeferred
async def test_two_without_names_behind_one_socket(
    world: World, qemu_factory: MakeQEMU, place: Path
) -> None:
    world.listen(f"unix:{place}/in.sock")
    for _ in range(2):
        qemu = qemu_factory(*dialling(place / "in.sock"))
        connected = await world.expect(f"pid {qemu.pid}", "connected")
        assert connected.details["is"] == f"pid {qemu.pid}"
        assert connected.identity == f"pid {qemu.pid}"


@pytest_twisted.ensureDeferred
async def test_numbers_go_on(world: World, qemu_factory: MakeQEMU, place: Path) -> None:
    from twisted.internet import reactor

    qemu = qemu_factory("-name", "web", *dialling(place / "in.sock"))
    world.listen(f"unix:{place}/in.sock")
    last = await world.expect("web", "snapshot")
    await within(maybeDeferred(world.fleet.stopService))
    again = World.__new__(World)
    again.records = []
    again.fleet = Fleet(reactor, again.records.append)
    again.fleet.restore({"web": Past(last.session, last.seq, last.received)})
    again.listen(f"unix:{place}/in.sock")
    again.fleet.startService()
    try:
        gap = await again.expect("web", "gap")
        assert gap.details["reason"] == "the daemon did not run"
        await again.expect("web", "snapshot")
        assert [record.seq for record in again.records] == [last.seq + n for n in (1, 2, 3)]
        assert {record.session for record in again.records} == {2}
        qemu.execute("cont")
        await again.expect("web", "RESUME")
    finally:
        await within(maybeDeferred(again.fleet.stopService))


# Who may connect


@pytest_twisted.ensureDeferred
async def test_who_may_connect(world: World, qemu_factory: MakeQEMU, place: Path) -> None:
    good, bad = place / "good.sock", place / "bad.sock"
    world.listen(f"unix:{good}", Peers(uids={os.getuid()}))
    closed = world.listen(f"unix:{bad}", Peers(uids={os.getuid() + 1}))
    qemu_factory("-name", "good", *dialling(good))
    # Each is refused as it starts, and again and again: none may crash (fact G48).
    others = [qemu_factory("-name", "bad", *dialling(bad)) for _ in range(8)]
    await world.expect("good", "snapshot")
    await until(lambda: closed.denied >= 3 * len(others))
    assert all(qemu.running for qemu in others)
    for qemu in others:
        assert qemu.execute("query-status")["status"] == "prelaunch"
    assert {record.vm for record in world.records} == {"good"}


@pytest_twisted.ensureDeferred
async def test_a_refused_one_hears_nothing(world: World, place: Path) -> None:
    source = world.listen(f"unix:{place}/in.sock", Peers(gids={os.getgid() + 1}))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{place}/in.sock")
        client.setblocking(False)
        await until(lambda: source.denied == 1)
        client.send(b'{"QMP": {}}')
        told: list[bytes] = []

        def over() -> bool:
            try:
                told.append(client.recv(100))
            except BlockingIOError:
                return False
            return True

        await until(over)
        assert told == [b""]
    assert world.records == []
