"""Where a daemon's VMs come from, and how that is changed while it runs."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred

from support.leaks import LoggedErrors
from txqmp.fleet import Fleet, Record
from txqmp.fleet.peers import Peers
from txqmp.monitor.config import Dial, Glob, Listen
from txqmp.monitor.sources import Sources


pytest_plugins = ["support.sessions"]


class World:
    """A fleet that runs, and its sources."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records: list[Record] = []
        self.fleet = Fleet(reactor, self.records.append)
        self.sources = Sources(self.fleet)
        self.fleet.startService()

    def listen(self, name: str, **options: Peers) -> Listen:
        return Listen(where=f"unix:{self.directory / name}", **options)

    @property
    def names(self) -> set[str]:
        """What is in the directory, beside the locks of Twisted's."""
        return {path.name for path in self.directory.iterdir() if path.suffix != ".lock"}

    def gone(self) -> list[str]:
        return [record.vm for record in self.records if record.kind.value == "gone"]


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await maybeDeferred(world.fleet.stopService)


def exchange(world: World, *sources: Dial | Glob | Listen) -> Deferred[None]:
    return Deferred.fromCoroutine(world.sources.exchange(sources))


@pytest_twisted.ensureDeferred
async def test_listening(world: World) -> None:
    assert world.sources.listening
    first, second = world.listen("first"), world.listen("second")
    world.sources.add([first])
    assert world.sources.listening
    await exchange(world, second, first)
    assert world.names == {"first", "second"}
    await exchange(world, second)
    assert world.names == {"second"}
    # The same place with other rules is another source.
    await exchange(world, world.listen("second", allow=Peers(uids=frozenset({0}))))
    assert world.names == {"second"}
    assert world.sources.listening
    await exchange(world)
    assert world.names == set()


# Twisted 24.7 leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_listened_on_is_said(world: World) -> None:
    (world.directory / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        await exchange(world, Listen(where=where), world.listen("good"))
    assert world.names == {"file", "good"}
    assert not world.sources.listening
    # It is tried again when the configuration is loaded the next time.
    await exchange(world, Listen(where=where), world.listen("good"))
    assert world.sources.listening
    gc.collect()


@pytest_twisted.ensureDeferred
async def test_sockets_that_are_found(world: World) -> None:
    for name in ("a.sock", "b.sock"):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(world.directory / name))
    kept, left = (
        Glob(patterns=(f"{world.directory}/a*",)),
        Glob(patterns=(f"{world.directory}/b*",)),
    )
    await exchange(world, kept, left)
    assert {vm.name for vm in world.fleet.vms} == {"a", "b"}
    await exchange(world, kept)
    assert world.gone() == ["b"]
    assert world.fleet.find("b") is None
    await exchange(world, kept, left)
    assert world.fleet.find("b") is not None


@pytest_twisted.ensureDeferred
async def test_a_name_that_was_chosen_is_who_the_vm_is(world: World) -> None:
    await exchange(
        world,
        Dial(where=f"{world.directory}/x.sock", name="web"),
        Dial(where=f"{world.directory}/y.sock", name="y", named=False),
    )
    assert [vm.name for vm in world.fleet.vms] == ["web", "y"]
    await exchange(world, Dial(where=f"{world.directory}/y.sock", name="y", named=False))
    assert world.gone() == ["web"]


@pytest_twisted.ensureDeferred
async def test_what_is_watched_twice_is_said(world: World) -> None:
    one = Dial(where=f"{world.directory}/x.sock", name="one")
    await exchange(world, one, Dial(where=f"{world.directory}/x.sock", name="two"))
    assert [vm.name for vm in world.fleet.vms] == ["one"]


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_the_other_to_be_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [Dial(where=f"{world.directory}/{name}.sock", name=name) for name in "ab"]
    world.sources.add(sources)
    ends: list[Deferred[None]] = []
    drops = []
    for service in list(world.sources._services.values()):
        drops.append(service.drop)
        monkeypatch.setattr(service, "drop", lambda reason: ends.append(Deferred()) or ends[-1])
    exchanged = exchange(world)
    assert len(ends) == 2
    for end in ends:
        assert not exchanged.called
        end.callback(None)
    await exchanged
    for drop in drops:
        await drop("the test is over")


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_given_up_holds_up_nobody(
    world: World, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = world.listen("broken")
    world.sources.add([broken])
    service = world.sources._services[broken]
    drop: Callable[[str], Awaitable[None]] = service.drop

    def fail(reason: str) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(service, "drop", fail)
    await exchange(world, world.listen("good"))
    assert world.names == {"broken", "good"}
    assert len(logged_errors.flush(RuntimeError)) == 1
    await drop("the test is over")
