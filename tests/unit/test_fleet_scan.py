"""A source that looks for sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from support.deferreds import success
from support.leaks import LoggedErrors
from txqmp.fleet import DialSource, Fleet, GlobSource, Record, VMState


pytest_plugins = ["support.sessions"]


class World:
    """A directory of sockets on which nobody listens, and a fleet that looks at it."""

    def __init__(self, clock: Clock, place: Path, max_vms: int = 100) -> None:
        self.clock = clock
        self.place = place
        self.records: list[Record] = []
        self.fleet = Fleet(clock, self.records.append, max_vms=max_vms)
        self.source = self.add("*.sock")

    def add(self, pattern: str) -> GlobSource:
        source = GlobSource(self.fleet, str(self.place / pattern))
        source.setServiceParent(self.fleet)
        return source

    def make(self, name: str) -> Path:
        path = self.place / name
        path.parent.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        return path

    def start(self) -> None:
        self.fleet.startService()

    @property
    def names(self) -> list[str]:
        return sorted(vm.name for vm in self.fleet.vms if self.fleet.find(vm.name) is not None)


@pytest.fixture
def world(clock: Clock, place: Path) -> Iterator[World]:
    world = World(clock, place)
    yield world
    success(world.fleet.stopService())


def test_finds_sockets_as_they_come(world: World) -> None:
    world.make("a.sock")
    world.start()
    assert world.names == ["a"]
    world.make("b.sock")
    world.make("c.other")
    (world.place / "file.sock").touch()
    (world.place / "directory.sock").mkdir()
    (world.place / "dangling.sock").symlink_to("nowhere")
    world.clock.advance(4.9)
    assert world.names == ["a"]
    world.clock.advance(0.1)
    assert world.names == ["a", "b"]


def test_drops_what_has_vanished(world: World) -> None:
    path = world.make("a.sock")
    world.start()
    path.unlink()
    world.clock.advance(5)
    assert world.names == []
    assert [record.kind.value for record in world.records] == ["gone"]
    world.make("a.sock")
    world.clock.advance(5)
    assert world.names == ["a"]


def test_keeps_what_is_up(world: World) -> None:
    path = world.make("a.sock")
    world.start()
    vm = world.fleet.find("a")
    assert vm is not None
    path.unlink()
    vm.state = VMState.UP
    world.source.scan()
    assert world.names == ["a"]
    vm.state = VMState.GAP
    world.source.scan()
    assert world.names == []


def test_keeps_what_a_glob_does_not_find(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no descriptor is left to read the directory."""
    world.make("a.sock")
    world.start()
    monkeypatch.setattr("txqmp.fleet.scan.glob.glob", lambda _: [])
    world.clock.advance(5)
    assert world.names == ["a"]


def test_keeps_what_refuses(world: World) -> None:
    world.make("a.sock")
    world.start()
    world.clock.pump([5] * 20)
    vm = world.fleet.find("a")
    assert vm is not None
    assert vm.problem is not None
    assert "nobody listens" in vm.problem
    assert world.records == []


def test_leaves_what_another_source_has(world: World) -> None:
    path = world.make("a.sock")
    (world.place / "b.sock").symlink_to(path)
    DialSource(world.fleet, str(path), "mine").setServiceParent(world.fleet)
    world.start()
    assert world.names == ["mine"]


def test_two_sockets_of_one_name(world: World) -> None:
    world.make("a.sock")
    other = world.make("other/a.sock")
    world.add("other/*.sock")
    world.start()
    assert world.names == sorted(["a", str(other)])


def test_paths_with_colons_and_backslashes(world: World) -> None:
    world.make("a:b\\c.sock")
    world.start()
    assert world.names == ["a:b\\c"]
    vm = world.fleet.find("a:b\\c")
    assert vm is not None
    assert vm.problem is not None
    assert "nobody listens" in vm.problem


def test_too_many(clock: Clock, place: Path) -> None:
    world = World(clock, place, max_vms=2)
    for name in "abcd":
        world.make(f"{name}.sock")
    world.start()
    assert world.names == ["a", "b"]
    assert world.source.unwatched == 2
    (place / "a.sock").unlink()
    clock.advance(5)
    assert world.names == ["b", "c"]
    assert world.source.unwatched == 1
    success(world.fleet.stopService())


def test_starts_anew(world: World) -> None:
    world.make("a.sock")
    world.start()
    success(world.fleet.stopService())
    assert world.clock.getDelayedCalls() == []
    world.make("b.sock")
    world.start()
    assert world.names == ["a", "b"]


def test_stops_before_it_began(world: World) -> None:
    success(world.source.stopService())


def test_a_look_that_fails_is_not_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    world.make("a.sock")

    def broken(_: str) -> list[str]:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("txqmp.fleet.scan.glob.glob", broken)
        world.start()
    assert len(logged_errors.flush(OSError)) == 1
    assert world.names == []
    world.clock.advance(5)
    assert world.names == ["a"]


def test_a_source_that_cannot_stop_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    path = world.make("a.sock")
    world.start()
    monkeypatch.setattr(DialSource, "stopService", lambda self: fail(RuntimeError("no")))
    path.unlink()
    world.clock.advance(5)
    assert len(logged_errors.flush(RuntimeError)) == 1
    monkeypatch.undo()
    for call in world.clock.getDelayedCalls():
        if "_dial_now" in str(call):
            call.cancel()


def test_relative_patterns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.place)
    world.make("a.sock")
    source = GlobSource(world.fleet, "*.sock")
    source.setServiceParent(world.fleet)
    world.start()
    # Both patterns find it, and it is watched once.
    assert world.names == ["a"]
    assert os.path.exists("a.sock")


def test_several_patterns(world: World) -> None:
    world.make("x.qmp")
    world.make("y.sock")
    (world.place / "z").mkdir()
    world.make("z/q.mon")
    patterns = [str(world.place / each) for each in ("*.qmp", "*/q.mon", "*.q*")]
    GlobSource(world.fleet, *patterns).setServiceParent(world.fleet)
    world.start()
    assert world.names == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("patterns", "options", "problem"),
    [
        ([], {}, "a pattern"),
        (["a", ""], {}, "a pattern"),
        (["a"], {"rescan": 0}, "is no time"),
        (["a"], {"rescan": float("nan")}, "is no time"),
        (["a"], {"rescan": float("inf")}, "is no time"),
    ],
)
def test_no_source(clock: Clock, patterns: list[str], options: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GlobSource(Fleet(clock, print), *patterns, **options)


def test_how_often_it_looks(clock: Clock, place: Path) -> None:
    world = World(clock, place)
    GlobSource(world.fleet, str(place / "*.often"), rescan=0.5).setServiceParent(world.fleet)
    world.start()
    world.make("a.often")
    clock.advance(0.5)
    assert world.names == ["a"]
    success(world.fleet.stopService())


def test_names_that_are_not_utf_8(world: World) -> None:
    for name in (b"a\xff.sock", b"a\xfe.sock"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fsencode(world.place) + b"/" + name)
    world.make("good.sock")
    world.start()
    assert world.names == [r"a\udcfe", r"a\udcff", "good"]
    for vm in world.fleet.vms:
        # All that is told of it can be written.
        for text in (vm.name, vm.where, vm.problem, vm.identity):
            assert text is not None
            text.encode()
        assert "nobody listens" in (vm.problem or "")


def test_nothing_is_left_to_call_it(world: World) -> None:
    """It hurts no other."""
    path = world.make("sub/v.sock")
    world.make("sub/w.sock")
    for name in ("v", str(path)):
        world.fleet.claim(name)
    source = world.add("sub/*.sock")
    world.start()
    assert source.unwatched == 1
    assert "w" in world.names


def test_a_symbolic_link_that_moves(world: World) -> None:
    for name in ("a", "b"):
        world.make(f"{name}.other")
    link = world.place / "vm.sock"
    link.symlink_to("a.other")
    world.start()
    assert world.fleet.is_occupied(str(world.place / "a.other"))
    link.unlink()
    link.symlink_to("b.other")
    world.clock.advance(5)
    assert world.names == ["vm"]
    assert not world.fleet.is_occupied(str(world.place / "a.other"))
    assert world.fleet.is_occupied(str(world.place / "b.other"))
    # And to one that another source has.
    DialSource(world.fleet, str(world.place / "a.other"), "mine").setServiceParent(world.fleet)
    link.unlink()
    link.symlink_to("a.other")
    world.clock.advance(5)
    assert world.names == ["mine"]
    assert world.records[-1].details["reason"] == "its path leads to the socket of another VM now"
    assert not world.fleet.is_occupied(str(world.place / "b.other"))


def test_a_link_to_itself(world: World) -> None:
    (world.place / "loop.sock").symlink_to("loop.sock")
    world.make("a.sock")
    world.start()
    assert world.names == ["a"]


def test_a_thousand_sockets(clock: Clock, place: Path) -> None:
    """They are not dialled all in one turn of the reactor."""
    world = World(clock, place, max_vms=1000)
    for number in range(1000):
        world.make(f"{number:03}.sock")
    world.start()
    assert len(world.names) == 50
    world.source.scan()
    assert len(world.names) == 100
    for _ in range(18):
        clock.advance(0)
    assert len(world.names) == 1000
    assert world.source.unwatched == 0
    success(world.fleet.stopService())


def test_stops_while_there_are_more(world: World) -> None:
    for number in range(60):
        world.make(f"{number:03}.sock")
    world.start()
    success(world.fleet.stopService())
    assert world.clock.getDelayedCalls() == []
    assert len(world.names) == 50
    world.start()
    assert len(world.names) == 60
