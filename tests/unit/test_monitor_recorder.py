"""From the fleet into the spool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.spool import SpoolWorld
from txqmp.fleet import Kind, Record
from txqmp.messages import Event
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.recorder import Recorder
from txqmp.monitor.spool import Item, SpoolFullError, SpoolLimits, WhenFull


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


class Puts:
    """A spool that takes or refuses as a test says, and a recorder.

    :ivar lost: what was told to be lost.
    :ivar telling: whether the VM that it is about is there to tell it.
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[int]] = []
        self.lost: list[tuple[Any, ...]] = []
        self.telling = True
        self.seq = 0
        spool: Any = self
        self.recorder = Recorder(spool, Envelope(node="n"), tell_lost=self.tell)

    def put(self, item: Item) -> Deferred[int]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def tell(self, *what: Any) -> None:
        self.lost.append(what)
        if self.telling:
            self.take(Kind.DROPPED)

    def take(self, kind: Kind = Kind.EVENT) -> None:
        self.seq += 1
        self.recorder.take(record(self.seq, kind))

    def refuse(self, reason: str = "full") -> None:
        self.waiting.pop(0).errback(SpoolFullError(reason))

    def accept(self) -> None:
        self.waiting.pop(0).callback(1)

    def finish(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.recorder.finish())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    said: list[str] = []

    def note(event: LogEvent) -> None:
        said.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield said
    globalLogPublisher.removeObserver(note)


def test_a_word_of_a_loss_that_is_lost_too_is_told_again(said: list[str]) -> None:
    puts = Puts()
    for _ in range(3):
        puts.take()
    puts.refuse()
    puts.accept()
    assert puts.lost == [("a", 1, 1, 1, "full")]
    puts.refuse("too late")  # the third
    puts.refuse("no room")  # and what told of the first
    puts.take()
    puts.accept()
    assert puts.lost[1:] == [("a", 3, 1, 4, "no room")]
    puts.accept()
    puts.take()
    puts.accept()
    assert len(puts.lost) == 2
    assert puts.recorder.refused == 3
    assert said == ["records are lost: full", "records are lost: too late"]


def test_a_loss_is_told_at_the_end(said: list[str]) -> None:
    puts = Puts()
    puts.take()
    end = puts.finish()
    puts.refuse()
    assert puts.lost == [("a", 1, 1, 1, "full")]
    pending(end)
    puts.accept()
    success(end)
    assert said == ["records are lost: full"]


def test_a_loss_that_cannot_be_told_at_the_end(said: list[str]) -> None:
    puts = Puts()
    puts.take()
    puts.refuse()
    end = puts.finish()
    puts.refuse()
    success(end)
    assert said[-1] == "a: 2 records are lost, and nobody could be told: full"


def test_a_loss_of_a_vm_that_is_gone(said: list[str]) -> None:
    puts = Puts()
    puts.telling = False
    puts.take()
    puts.refuse()
    success(puts.finish())
    assert said[-1] == "a, which is watched no more: 1 records are lost: full"
    puts.take()
    puts.accept()
    assert len(puts.lost) == 1


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
