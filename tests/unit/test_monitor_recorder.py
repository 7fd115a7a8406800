"""From the fleet into the spool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.spool import SpoolWorld
from txqmp.fleet import Kind, Record
from txqmp.messages import Event
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.recorder import Recorder
from txqmp.monitor.spool import SpoolLimits, WhenFull


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def event_received(self, name: str) -> None:
        self.told.append(("event", name))

    def gap(self, reason: str) -> None:
        self.told.append(("gap", reason))

    def vm_disconnected(self, reason: str) -> None:
        self.told.append(("disconnected", reason))


class World(SpoolWorld):
    """A recorder and its spool, in which there is room for few records.

    :ivar lost: what it told to be lost.
    """

    def __init__(self, directory: Path) -> None:
        limits = SpoolLimits(max_bytes=1800, when_full=WhenFull.BLOCK, keep_bytes=0, max_wait=10.0)
        super().__init__(directory / "spool", limits)
        self.start()
        success(self.spool.add_sink("slow"))
        self.observer = Observer()
        self.lost: list[tuple[Any, ...]] = []
        self.recorder = Recorder(
            self.spool,
            Envelope(node="node7.example"),
            tell_lost=lambda *what: self.lost.append(what),
            observer=self.observer,
        )

    def make_room(self) -> None:
        success(self.spool.ack("slow", self.spool.state.last))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def record(seq: int = 1, kind: Kind = Kind.EVENT, vm: str = "a", **details: Any) -> Record:
    event = Event.make("STOP", at=1) if kind is Kind.EVENT else None
    return Record(
        vm=vm, seq=seq, session=2, received=1.8e9, kind=kind, event=event, details=details
    )


def test_a_record_is_the_draft_of_an_event(world: World) -> None:
    world.recorder.take(record(7))
    (stored,) = success(world.spool.read()).records
    assert (stored.vm, stored.type, stored.time) == ("a", "org.qemu.qmp.STOP", 1.8e9)
    told = json.loads(stored.data)
    assert told["vmsequence"] == f"{7:020d}"
    assert "id" not in told
    last = success(world.spool.last_heard())["a"]
    assert (last.session, last.seq) == (2, 7)


def test_what_is_counted(world: World) -> None:
    for each in (
        record(1),
        record(2, Kind.GAP, reason="words"),
        record(3, Kind.DISCONNECTED, expected=True),
        record(4, Kind.DISCONNECTED, expected=False, shutdown={}),
        record(5, Kind.DISCONNECTED, expected=False),
        record(6, Kind.CONNECTED),
    ):
        world.recorder.take(each)
    assert world.observer.told == [
        ("event", "STOP"),
        ("gap", "disconnected"),
        ("disconnected", "shutdown"),
        ("disconnected", "shutdown"),
        ("disconnected", "lost"),
    ]


def test_when_it_is_known_what_became_of_all(world: World) -> None:
    success(world.recorder.when_idle())
    world.writer.hold()
    world.recorder.take(record())
    idle = world.recorder.when_idle()
    pending(idle)
    world.writer.release()
    success(idle)


def test_what_is_lost_is_told_once_there_is_room(world: World) -> None:
    for seq in range(1, 10):
        world.recorder.take(record(seq))
    taken = world.spool.counters.committed
    assert 0 < taken < 9
    world.recorder.take(record(1, vm="b"))
    world.clock.advance(10)
    refused = world.recorder.refused
    assert refused == 10 - taken
    assert world.lost == []
    world.make_room()
    world.recorder.take(record(10))
    assert [each[:4] for each in world.lost] == [
        ("a", 9 - taken, taken + 1, 9),
        ("b", 1, 1, 1),
    ]
    assert "no room" in world.lost[0][4]
    # It is told once.
    world.make_room()
    world.recorder.take(record(11))
    assert len(world.lost) == 2


def test_a_spool_that_is_closed_says_so_itself(world: World, logged_errors: LoggedErrors) -> None:
    success(world.spool.close())
    world.recorder.take(record())
    success(world.recorder.when_idle())
    assert world.recorder.refused == 0
    assert logged_errors.flush() == []


def test_nobody_has_to_count(world: World) -> None:
    quiet = Recorder(world.spool, Envelope(node="n"), tell_lost=lambda *_: None)
    quiet.take(record(kind=Kind.GAP))
    assert len(success(world.spool.read()).records) == 1
