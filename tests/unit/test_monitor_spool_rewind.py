"""A sink is rewound: it delivers again what is still there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from support.pump import PumpWorld
from support.spool import SIZE, FaultyConnection, SpoolWorld
from txqmp.monitor.spool import (
    Control,
    PositionError,
    Reader,
    SpoolClosedError,
    SpoolError,
    SpoolLimits,
    Start,
    UnknownSinkError,
    WhenFull,
)


KEEP = SpoolLimits(keep_bytes=4 * SIZE)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SpoolWorld]:
    """A spool that keeps four records; its sink has had all five."""
    world = SpoolWorld(tmp_path / "spool", KEEP).start()
    success(world.spool.add_sink("sink"))
    world.put(*"abcde")
    assert world.next_for("sink") == [*"abcde"]
    yield world
    world.close()


def acked(world: SpoolWorld) -> int:
    return {each.name: each.acked for each in world.spool.state.sinks}["sink"]


def test_as_far_as_asked(world: SpoolWorld) -> None:
    assert success(world.spool.rewind("sink", 3)) == 2
    assert world.spool.state.sinks[0].lag == 2
    assert world.next_for("sink") == ["d", "e"]
    # Further on than it is: that changes nothing.
    success(world.spool.rewind("sink", 3))
    assert success(world.spool.rewind("sink", 4)) == 0
    assert success(world.spool.rewind("sink", 5)) == 0
    assert world.next_for("sink") == ["d", "e"]


def test_as_far_as_there_are_records(world: SpoolWorld) -> None:
    assert world.texts() == [*"bcde"]
    assert success(world.spool.rewind("sink", 0)) == 4
    # What it has had and is gone is no loss of its.
    assert world.next_for("sink") == [*"bcde"]
    assert world.spool.state.sinks[0].dropped == 0


def test_what_it_has_lost_is_told_all_the_same(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path, SpoolLimits(max_bytes=2 * SIZE, keep_bytes=0)).start()
    success(world.spool.add_sink("sink"))
    world.put(*"abcd")
    assert success(world.spool.rewind("sink", 0)) == 0
    assert world.next_for("sink") == ["1-2", "c", "d"]
    world.close()


def test_records_are_kept_for_it(world: SpoolWorld) -> None:
    success(world.spool.rewind("sink", 1))
    world.put(*"fgh")
    assert world.next_for("sink") == [*"bcdefgh"]


def test_it_takes_up_room(tmp_path: Path) -> None:
    limits = SpoolLimits(max_bytes=3 * SIZE, keep_bytes=9 * SIZE, when_full=WhenFull.BLOCK)
    world = SpoolWorld(tmp_path, limits).start()
    success(world.spool.add_sink("sink"))
    world.put(*"abc")
    world.next_for("sink")
    assert success(world.spool.rewind("sink", 0)) == 3
    (waiting,) = world.put("d")
    pending(waiting)
    assert world.next_for("sink") == [*"abc"]
    assert success(waiting) == 4
    world.close()


def test_what_cannot_be(world: SpoolWorld) -> None:
    failure(world.spool.rewind("nobody", 1), UnknownSinkError)
    for position in (-1, 6):
        failure(world.spool.rewind("sink", position), PositionError)
    assert acked(world) == 5


def test_whoever_delivers_is_told(world: SpoolWorld) -> None:
    told: list[int] = []
    success(world.spool.add_sink("other", Start.BEGINNING))
    stop = world.spool.watch_rewinds("sink", lambda: told.append(acked(world)))
    world.spool.watch_rewinds("other", lambda: told.append(-1))
    world.writer.hold()
    rewinding = world.spool.rewind("sink", 2)
    rewinding.addCallback(lambda count: told.append(100 + count))
    assert told == []
    world.writer.release()
    assert told == [2, 103]
    stop()
    stop()
    success(world.spool.rewind("sink", 1))
    assert told == [2, 103]


def test_one_who_cannot_be_told(world: SpoolWorld, logged_errors: LoggedErrors) -> None:
    told: list[str] = []
    world.spool.watch_rewinds("sink", lambda: 1 // 0)
    world.spool.watch_rewinds("sink", lambda: told.append("told"))
    assert success(world.spool.rewind("sink", 2)) == 3
    assert told == ["told"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_acknowledgements_on_their_way_do_not_undo_it(world: SpoolWorld) -> None:
    world.put("f")
    batch = success(world.spool.read_for("sink"))
    assert batch.through == 6
    world.writer.hold()
    before = world.spool.ack("sink", 6)
    first = world.spool.rewind("sink", 4)
    second = world.spool.rewind("sink", 2)
    late = world.spool.ack("sink", 6)
    assert success(late) is None
    world.writer.release()
    assert success(before) is None
    assert (success(first), success(second)) == (2, 2)
    assert acked(world) == 2
    # From then on they count.
    success(world.spool.ack("sink", 3))
    assert acked(world) == 3


def test_one_that_fails_is_told_too(world: SpoolWorld) -> None:
    """What was acknowledged meanwhile was left out: who delivers is to read it again."""
    told: list[int] = []
    world.spool.watch_rewinds("sink", lambda: told.append(acked(world)))
    world.put("f")
    world.writer.hold()
    rewinding = world.spool.rewind("sink", 99)
    success(world.spool.ack("sink", 6))
    world.writer.release()
    failure(rewinding, PositionError)
    assert told == [5]
    assert world.next_for("sink") == ["f"]
    assert acked(world) == 6


def test_to_cancel_is_only_not_to_wait(world: SpoolWorld) -> None:
    told: list[int] = []
    world.spool.watch_rewinds("sink", lambda: told.append(acked(world)))
    world.writer.hold()
    rewinding = world.spool.rewind("sink", 2)
    rewinding.cancel()
    failure(rewinding, CancelledError)
    success(world.spool.ack("sink", 5))
    assert told == []
    world.writer.release()
    assert told == [2]


def test_the_spool_ends_meanwhile(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path).start()
    success(world.spool.add_sink("sink"))
    store = world.spool._store
    assert store is not None
    db = store._db = FaultyConnection(store._db)  # type: ignore[assignment]
    db.faults["COMMIT"] = OSError(5, "no disk")  # type: ignore[attr-defined]
    failure(world.spool.rewind("sink", 0), SpoolError)
    assert len(world.failures) == 1
    failure(world.spool.rewind("sink", 0), SpoolError)
    db.faults.clear()  # type: ignore[attr-defined]
    world.close()
    failure(world.spool.rewind("sink", 0), SpoolError)


def test_a_spool_that_is_closed(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path).start()
    world.close()
    failure(world.spool.rewind("sink", 0), SpoolClosedError)


def test_while_no_daemon_runs(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path, KEEP).start()
    success(world.spool.add_sink("sink"))
    world.put(*"abc")
    world.next_for("sink")
    world.close()
    with Control(str(tmp_path)) as control:
        assert control.rewind("sink", 1) == 2
        with pytest.raises(UnknownSinkError):
            control.rewind("nobody", 1)
    with Reader(str(tmp_path)) as reader:
        assert [each.data[:1] for each in reader.read_for("sink").records] == [b"b", b"c"]


# With a pump


@example(  # what is taken meanwhile is acknowledged too late
    steps=[("send",), ("stuck",), ("send",), ("hold",), ("rewind", 0), ("free",), ("release",)]
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["send", "hold", "step", "release", "rewind", "stuck", "free"]))
        | st.tuples(st.just("rewind"), st.integers(0, 8)),
        max_size=30,
    )
)
def test_a_pump_delivers_again_what_was_asked(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is on its way at that moment: what was delivered comes once more, after that."""
    with tempfile.TemporaryDirectory(prefix="txqmp-spool-") as directory:
        world = PumpWorld(Path(directory), SpoolLimits())
        pump = world.begin()
        stop = world.spool.watch_rewinds("ops", pump.rewind)
        sent: list[str] = []
        stuck: list[Deferred[None]] = []
        asked: list[tuple[int, int, Deferred[int]]] = []

        def free() -> None:
            world.receiver.outcomes.clear()
            while stuck:
                stuck.pop(0).callback(None)

        for step, *arguments in steps:
            if step == "send":
                sent.append(str(len(sent) + 1))
                world.spool.put(world.draft(sent[-1]))
            elif step == "hold" and world.writer.held is None:
                world.writer.hold()
            elif step == "step" and world.writer.held:
                world.writer.step()
            elif step == "release":
                world.writer.release()
            elif step == "rewind":
                position = min(arguments[0] if arguments else 0, world.spool.state.last)
                taken = len(world.receiver.taken)
                asked.append((position, taken, world.spool.rewind("ops", position)))
            elif step == "stuck" and not stuck:
                stuck.append(Deferred())
                world.receiver.outcomes.append(stuck[0])
            elif step == "free":
                free()
        free()
        world.writer.release()
        free()
        for position, taken, rewinding in asked:
            again = [str(number + 1) for number in range(position, position + success(rewinding))]
            later = iter(world.receiver.names[taken:])
            assert all(name in later for name in again), (again, world.receiver.names[taken:])
        states = {each.name: each for each in world.spool.state.sinks}
        assert states["ops"].acked == len(sent)
        assert set(world.receiver.names) == set(sent)
        stop()
        success(pump.stop())
        world.close()
