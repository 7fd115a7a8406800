"""The spool as the daemon sees it: group commit, reading, its life and its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from support.spool import NOW, SIZE, FaultyConnection, SpoolWorld, item, text_of
from txqmp.monitor.spool import (
    Item,
    PositionError,
    Reader,
    SpoolClosedError,
    SpoolCounters,
    SpoolError,
    SpoolFullError,
    SpoolLimits,
    SpoolLockedError,
    SpoolStorageError,
    Start,
    StorageFailure,
    UnknownSinkError,
    WhenFull,
    commits,
    intake,
    store,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SpoolWorld]:
    world = SpoolWorld(tmp_path / "spool").start()
    success(world.spool.add_sink("sink"))
    yield world
    world.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[FaultyConnection]:
    """The connections of the stores that are opened."""
    opened: list[FaultyConnection] = []
    real = store.open_for_writing

    def open_faulty(*args: Any, **options: Any) -> FaultyConnection:
        opened.append(FaultyConnection(real(*args, **options)))
        return opened[-1]

    monkeypatch.setattr(store, "open_for_writing", open_faulty)
    return opened


EIO = sqlite3.OperationalError("disk I/O error")


# Taking in and giving out


def test_put_and_read(world: SpoolWorld) -> None:
    data = b'{"event": "STOP"}'
    assert success(world.spool.put(Item("vm1", "STOP", NOW, data))) == 1
    assert success(world.spool.put(Item("vm2", "RESUME", NOW + 1, b""))) == 2
    batch = success(world.spool.read_for("sink"))
    assert (batch.gap, batch.through) == (None, 2)
    first, second = batch.records
    assert (first.position, first.vm, first.type, first.time) == (1, "vm1", "STOP", NOW)
    assert (first.data, second.data) == (data, b"")
    assert first.id == f"{first.run:016x}-00000000000000000001"
    assert second.id == f"{first.run:016x}-00000000000000000002"


def test_commits_in_groups_what_came_meanwhile(world: SpoolWorld) -> None:
    before = world.commits
    world.writer.hold()
    first, *others = world.put("a", "b", "c", "d")
    acked = world.spool.ack("sink", 0)
    assert world.spool.waiting == 4
    world.writer.step()
    assert success(first) == 1
    for each in (*others, acked):
        pending(each)
    world.writer.release()
    assert [success(each) for each in others] == [2, 3, 4]
    assert success(acked) is None
    assert world.commits == before + 2
    assert world.texts() == ["a", "b", "c", "d"]


def test_a_burst_is_more_than_one_group(world: SpoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "GROUP", 3)
    world.writer.hold()
    waiting = world.put(*"abcdefgh")
    before = world.commits
    world.writer.release()
    assert [success(each) for each in waiting] == list(range(1, 9))
    assert world.commits == before + 4
    assert world.texts() == [*"abcdefgh"]


def test_what_is_told_is_readable_at_once(world: SpoolWorld) -> None:
    seen = world.put("a")[0].addCallback(lambda position: world.texts(position - 1))
    assert success(seen) == ["a"]


def test_the_next_group_is_on_its_way_when_the_first_is_told(world: SpoolWorld) -> None:
    world.writer.hold()
    first, second = world.put("a", "b")
    told = first.addCallback(lambda _: len(world.writer.held or ()))
    world.writer.step()
    assert success(told) == 1
    pending(second)
    world.writer.release()
    success(second)


def test_counters(world: SpoolWorld) -> None:
    world.put("a", "b", "c")
    counters = world.spool.counters
    assert counters.commits == world.commits
    assert counters.seconds >= 0
    counters.commits, counters.seconds = 0, 0.0
    assert counters == SpoolCounters(put=3, committed=3, size=3 * SIZE)
    assert world.spool.waiting == 0


def test_state(world: SpoolWorld) -> None:
    success(world.spool.add_sink("other"))
    world.put("a", "b")
    world.clock.advance(5)
    world.put("c")
    success(world.spool.ack("other", 2))
    state = world.spool.state
    assert len(state.identity) == 16
    assert (state.first, state.last, state.depth) == (1, 3, 3)
    assert (state.size, state.since) == (3 * SIZE, NOW)
    other, sink = state.sinks
    assert (other.name, other.acked, other.lag, other.lag_bytes) == ("other", 2, 1, SIZE)
    assert other.since == NOW + 5
    assert (sink.name, sink.acked, sink.lag, sink.lag_bytes) == ("sink", 0, 3, 3 * SIZE)
    assert sink.since == NOW
    success(world.spool.ack("sink", 3))
    assert success(world.spool.ack("other", 3)) is None
    state = world.spool.state
    assert (state.first, state.last, state.depth, state.size) == (4, 3, 0, 0)
    assert state.since is None
    assert {(each.lag, each.lag_bytes, each.since) for each in state.sinks} == {(0, 0, None)}


def test_repr(world: SpoolWorld) -> None:
    assert repr(world.spool) == f"<Spool {world.directory} open>"


def test_a_callback_may_put(world: SpoolWorld) -> None:
    chained = world.put("a")[0].addCallback(lambda _: world.put("b")[0])
    assert success(chained) == 2


def test_to_cancel_is_only_not_to_wait(world: SpoolWorld) -> None:
    world.writer.hold()
    first, second = world.put("a", "b")
    first.cancel()
    second.cancel()
    failure(first, CancelledError)
    failure(second, CancelledError)
    world.writer.release()
    assert world.texts() == ["a", "b"]


def test_a_change_that_cannot_be_fails_alone(world: SpoolWorld) -> None:
    world.writer.hold()
    busy = world.put("a")
    wrong = world.spool.ack("nobody", 1)
    beyond = world.spool.ack("sink", 7)
    unwritable = world.spool.add_sink("\udc80")
    no_name: Any = object()
    unfit = world.spool.add_sink(no_name)
    right = world.spool.ack("sink", 1)
    world.writer.release()
    failure(wrong, UnknownSinkError)
    failure(beyond, PositionError)
    failure(unwritable, UnicodeEncodeError)
    failure(unfit, sqlite3.Error)
    success(right)
    success(busy[0])
    assert [each.name for each in world.spool.state.sinks] == ["sink"]


def test_too_many_changes(world: SpoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_CHANGES", 2)
    world.writer.hold()
    waiting = [world.spool.ack("sink", 0) for _ in range(3)]
    failure(world.spool.ack("sink", 0), SpoolFullError)
    world.writer.release()
    for each in waiting:
        success(each)


def test_observer_that_fails(tmp_path: Path, logged_errors: LoggedErrors) -> None:
    def fail(seconds: float) -> None:
        raise ZeroDivisionError

    world = SpoolWorld(tmp_path / "spool", observe=fail).start()
    assert success(world.put("a")[0]) == 1
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    world.close()


# Watching


def test_when_beyond(world: SpoolWorld) -> None:
    first = world.spool.when_beyond(0)
    second = world.spool.when_beyond(1)
    pending(first)
    world.put("a")
    success(first)
    pending(second)
    success(world.spool.when_beyond(0))
    world.put("b")
    success(second)


def test_when_beyond_is_cancelled(world: SpoolWorld) -> None:
    watcher = world.spool.when_beyond(0)
    watcher.cancel()
    failure(watcher, CancelledError)
    world.put("a")


def test_when_beyond_is_cancelled_when_it_is_about_to_fire(world: SpoolWorld) -> None:
    watcher = world.spool.when_beyond(0)
    world.writer.hold()
    world.put("a")[0].addCallback(lambda _: watcher.cancel())
    world.writer.release()
    failure(watcher, CancelledError)


def test_when_beyond_is_cancelled_when_it_is_about_to_fail(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    first = world.spool.when_beyond(0).addErrback(lambda _: second.cancel())
    second = world.spool.when_beyond(0)
    world.close()
    success(first)
    failure(second, CancelledError)


# Reading


def test_reads_of_what_was_never_there(world: SpoolWorld) -> None:
    world.put("a")
    failure(world.spool.read(2), PositionError)
    failure(world.spool.read(-1), PositionError)
    failure(world.spool.read(1 << 80), PositionError)
    failure(world.spool.read_for("nobody"), UnknownSinkError)
    assert world.texts() == ["a"]


def test_a_read_is_cancelled(world: SpoolWorld) -> None:
    world.put("a")
    world.reader.hold()
    read = world.spool.read()
    read.cancel()
    failure(read, CancelledError)
    world.reader.release()
    assert world.texts() == ["a"]


# Its room


def test_too_many_wait(tmp_path: Path) -> None:
    limits = SpoolLimits(max_waiting=2 * (SIZE + intake.WAITING_OVERHEAD))
    world = SpoolWorld(tmp_path / "spool", limits).start()
    world.writer.hold()
    first, second, third = world.put("a", "b", "c")
    failure(third, SpoolFullError)
    world.writer.release()
    assert (success(first), success(second)) == (1, 2)
    assert success(world.put("d")[0]) == 3
    # One may be larger, if it is alone.
    large = world.spool.put(world.item("e", size=5000))
    assert success(large) == 4
    assert world.spool.counters.refused == 1
    world.close()


def test_a_record_larger_than_the_spool(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", SpoolLimits(max_bytes=1000)).start()
    failure(world.spool.put(item(size=1001)), SpoolFullError)
    assert success(world.spool.put(item(size=1000))) == 1
    assert world.spool.counters.refused == 1
    world.close()


def blocking(tmp_path: Path, **options: Any) -> SpoolWorld:
    """A spool with room for three records that no sink has had."""
    limits = SpoolLimits(when_full=WhenFull.BLOCK, max_bytes=3 * SIZE, max_wait=60, keep_bytes=0)
    world = SpoolWorld(tmp_path / "spool", limits, **options).start()
    success(world.spool.add_sink("sink"))
    return world


def test_block(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    success(world.spool.add_sink("fast"))
    *taken, fourth, fifth = world.put(*"abcde")
    assert [success(each) for each in taken] == [1, 2, 3]
    assert world.spool.blocked
    assert world.spool.waiting == 2
    assert world.next_for("fast") == [*"abc"]
    pending(fourth)
    success(world.spool.ack("sink", 1))
    assert success(fourth) == 4
    pending(fifth)
    assert world.spool.blocked
    assert world.next_for("sink") == [*"bcd"]
    assert success(fifth) == 5
    assert not world.spool.blocked
    assert world.next_for("fast") == [*"de"]
    assert world.next_for("sink") == ["e"]
    assert [each.dropped for each in world.spool.state.sinks] == [0, 0]
    world.close()


def test_block_until_a_sink_is_forgotten(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    *_, last = world.put(*"abcd")
    pending(last)
    success(world.spool.forget_sink("sink"))
    assert success(last) == 4
    world.close()


def test_nobody_to_wait_for(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    success(world.spool.forget_sink("sink"))
    world.writer.hold()
    waiting = world.put(*"abcdef")
    world.writer.release()
    assert [success(each) for each in waiting] == [1, 2, 3, 4, 5, 6]
    world.close()


def test_nobody_waits_for_room_for_ever(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    world.put(*"abc")
    first, second = world.put("d", "e")
    world.clock.advance(30)
    (third,) = world.put("f")
    world.clock.advance(30)
    failure(first, SpoolFullError)
    failure(second, SpoolFullError)
    pending(third)
    assert world.spool.counters.refused == 2
    assert world.next_for("sink") == [*"abc"]
    assert success(third) == 4
    world.clock.advance(60)
    assert not world.clock.getDelayedCalls()
    world.close()


def test_what_is_on_its_way_is_not_refused(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    *_, waiting = world.put(*"abcd")
    world.writer.hold()
    acked = world.spool.ack("sink", 3)
    world.clock.advance(100)
    pending(waiting)
    world.writer.release()
    success(acked)
    assert success(waiting) == 4
    world.close()


def test_all_that_wait_are_refused(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    waiting = world.put(*"abcdef")[3:]
    world.clock.advance(60)
    for each in waiting:
        failure(each, SpoolFullError)
    assert world.spool.waiting == 0
    assert world.spool.blocked
    (later,) = world.put("g")
    world.clock.advance(59)
    pending(later)
    world.clock.advance(1)
    failure(later, SpoolFullError)
    (last,) = world.put("h")
    assert world.next_for("sink") == [*"abc"]
    assert success(last) == 4
    world.close()


def test_close_while_blocked(tmp_path: Path) -> None:
    world = blocking(tmp_path)
    *_, waiting = world.put(*"abcd")
    world.close()
    failure(waiting, SpoolClosedError)
    assert world.spool.counters.failed == 1


# Its beginning


def test_what_comes_before_it_is_open_waits(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool")
    (before,) = world.put("a")
    added = world.spool.add_sink("sink", Start.BEGINNING)
    failure(world.spool.read(), SpoolClosedError)
    world.writer.hold()
    opened = world.spool.start()
    (meanwhile,) = world.put("b")
    for each in (before, added, opened, meanwhile):
        pending(each)
    world.writer.release()
    success(opened)
    assert (success(before), success(meanwhile), success(added)) == (1, 2, 0)
    assert world.next_for("sink") == ["a", "b"]
    world.close()


def test_started_twice(world: SpoolWorld) -> None:
    failure(world.spool.start(), SpoolClosedError)
    assert success(world.put("a")[0]) == 1


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    success(world.spool.add_sink("sink"))
    world.put("a", "b", "c")
    success(world.spool.ack("sink", 1))
    (first, *_) = success(world.spool.read()).records
    identity = world.spool.state.identity
    world.close()
    world = SpoolWorld(tmp_path / "spool").start()
    assert world.spool.state.identity == identity
    world.put("d")
    assert success(world.spool.add_sink("sink")) == 1
    again, *_, last = success(world.spool.read_for("sink")).records
    assert again == first
    assert (last.position, text_of(last.data)) == (4, "d")
    assert last.run != first.run
    world.close()


def test_positions_go_on_when_nothing_is_left(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    world.put("a", "b", "c")
    assert world.spool.state.depth == 0
    world.close()
    world = SpoolWorld(tmp_path / "spool").start()
    assert success(world.put("d")[0]) == 4
    world.close()


def test_a_second_one(world: SpoolWorld) -> None:
    second = SpoolWorld(world.directory)
    (waiting,) = second.put("a")
    error = failure(second.spool.start(), SpoolLockedError).value
    assert isinstance(error, SpoolLockedError)
    failure(waiting, SpoolLockedError)
    failure(second.put("b")[0], SpoolLockedError)
    assert second.failures == []
    assert second.spool.problem is error
    assert (second.writer.joined, second.reader.joined) == (1, 1)
    second.close()
    assert success(world.put("a")[0]) == 1


def test_reader_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(directory: str) -> None:
        raise SpoolStorageError("no", StorageFailure.IO)

    with monkeypatch.context() as patch:
        patch.setattr("txqmp.monitor.spool.spool.Reader", fail)
        world = SpoolWorld(tmp_path / "spool")
        failure(world.spool.start(), SpoolStorageError)
        world.close()
    SpoolWorld(tmp_path / "spool").start().close()


def test_a_start_that_is_cancelled_goes_on(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool")
    world.writer.hold()
    opened = world.spool.start()
    opened.cancel()
    failure(opened, CancelledError)
    world.writer.release()
    assert success(world.put("a")[0]) == 1
    world.close()


def test_a_start_that_is_cancelled_and_fails(world: SpoolWorld) -> None:
    second = SpoolWorld(world.directory)
    second.writer.hold()
    opened = second.spool.start()
    opened.cancel()
    failure(opened, CancelledError)
    second.writer.release()
    assert isinstance(second.spool.problem, SpoolLockedError)


# Its end


def test_close_commits_what_waits(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    world.writer.hold()
    waiting = world.put("a", "b", "c")
    closed = world.spool.close()
    also = world.spool.close()
    failure(world.put("d")[0], SpoolClosedError)
    failure(world.spool.ack("sink", 0), SpoolClosedError)
    failure(world.spool.read(), SpoolClosedError)
    failure(world.spool.when_beyond(0), SpoolClosedError)
    pending(closed)
    world.writer.release()
    assert [success(each) for each in waiting] == [1, 2, 3]
    success(closed)
    success(also)
    success(world.spool.close())
    assert (world.writer.stopped, world.reader.stopped) == (1, 1)
    assert (world.writer.joined, world.reader.joined) == (1, 1)
    assert world.spool.counters.failed == 1
    assert sorted(each.name for each in Path(world.directory).iterdir()) == [
        "spool.db",
        "spool.lock",
    ]
    assert world.spool.problem is None
    assert not world.clock.getDelayedCalls()


def test_close_ends_watches_and_not_reads(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    world.put("a")
    world.reader.hold()
    read = world.spool.read()
    watcher = world.spool.when_beyond(1)
    closed = world.spool.close()
    failure(watcher, SpoolClosedError)
    pending(read)
    world.reader.release()
    assert len(success(read).records) == 1
    success(closed)


def test_close_before_start(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool")
    (waiting,) = world.put("a")
    world.close()
    failure(waiting, SpoolClosedError)
    failure(world.spool.start(), SpoolClosedError)
    assert not (tmp_path / "spool").exists()


def test_close_while_it_opens(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool")
    world.writer.hold()
    opened = world.spool.start()
    (waiting,) = world.put("a")
    closed = world.spool.close()
    pending(closed)
    world.writer.release()
    success(opened)
    assert success(waiting) == 1
    success(closed)


def test_close_while_it_cannot_be_opened(world: SpoolWorld) -> None:
    second = SpoolWorld(world.directory)
    second.writer.hold()
    opened = second.spool.start()
    closed = second.spool.close()
    second.writer.release()
    failure(opened, SpoolLockedError)
    success(closed)


def test_close_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", grace=5.0).start()
    success(world.spool.add_sink("sink"))
    world.writer.hold()
    world.reader.hold()
    (waiting,) = world.put("a")
    read = world.spool.read()
    acked = world.spool.ack("sink", 0)
    closed = world.spool.close()
    world.clock.advance(4.9)
    pending(closed)
    world.clock.advance(0.1)
    success(closed)
    failure(waiting, SpoolClosedError)
    failure(acked, SpoolClosedError)
    failure(read, CancelledError)
    assert world.spool.counters.failed == 1
    # It wakes up after all, and others may own the spool then.
    world.reader.release()
    world.writer.release()
    assert world.writer.stopped == 1
    assert world.writer.joined == 0
    again = SpoolWorld(tmp_path / "spool").start()
    assert again.spool.state.last == 1
    again.close()


def test_close_does_not_wait_for_an_opening_that_hangs(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", grace=5.0)
    world.writer.hold()
    opened = world.spool.start()
    closed = world.spool.close()
    world.clock.advance(5)
    success(closed)
    pending(opened)
    world.writer.release()
    failure(opened, SpoolClosedError)
    assert world.writer.stopped == 1
    SpoolWorld(tmp_path / "spool").start().close()


def test_close_does_not_wait_for_a_reader_that_hangs(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", grace=5.0).start()
    world.reader.hold()
    closed = world.spool.close()
    world.clock.advance(5)
    success(closed)
    world.reader.release()
    assert (world.reader.stopped, world.writer.stopped) == (1, 1)
    assert world.writer.joined == 0
    SpoolWorld(tmp_path / "spool").start().close()


def test_cannot_tidy_up(tmp_path: Path, faulty: list[FaultyConnection]) -> None:
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert success(world.put("a")[0]) == 1
    faulty[0].faults["PRAGMA wal_checkpoint"] = EIO
    world.close()
    assert world.failures == []
    again = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert again.texts() == ["a"]
    again.close()


def test_close_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    def fail(reader: Reader) -> None:
        real(reader)
        raise ZeroDivisionError

    real = Reader.close
    monkeypatch.setattr(Reader, "close", fail)
    world = SpoolWorld(tmp_path / "spool").start()
    world.close()
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    assert world.writer.joined == 1


# Its failure


def test_a_commit_that_fails(tmp_path: Path, faulty: list[FaultyConnection]) -> None:
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    success(world.spool.add_sink("sink"))
    assert success(world.put("a")[0]) == 1
    watcher = world.spool.when_beyond(1)
    faulty[0].faults["COMMIT"] = EIO
    world.writer.hold()
    (running,) = world.put("b")
    acked = world.spool.ack("sink", 1)
    (queued,) = world.put("c")
    world.writer.release()
    errors = [failure(each, SpoolStorageError).value for each in (running, acked, queued, watcher)]
    assert len({id(error) for error in errors}) == 4
    (problem,) = world.failures
    assert isinstance(problem, SpoolStorageError)
    assert problem is world.spool.problem
    assert problem.kind is StorageFailure.IO
    assert "spool.db: disk I/O error" in str(problem)
    # It does not try again.
    faulty[0].faults.clear()
    failure(world.put("d")[0], SpoolStorageError)
    failure(world.spool.ack("sink", 1), SpoolStorageError)
    failure(world.spool.read(), SpoolStorageError)
    failure(world.spool.when_beyond(0), SpoolStorageError)
    counters = world.spool.counters
    assert (counters.put, counters.committed, counters.failed) == (4, 1, 3)
    world.close()
    assert len(world.failures) == 1
    again = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert again.texts() == ["a"]
    assert again.spool.state.sinks[0].acked == 0
    again.close()


def test_files_that_are_taken_away(tmp_path: Path) -> None:
    """What would be written to them nobody could read."""
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert success(world.put("a")[0]) == 1
    (tmp_path / "spool" / "spool.db").rename(tmp_path / "elsewhere")
    failure(world.put("b")[0], SpoolStorageError)
    (problem,) = world.failures
    assert isinstance(problem, SpoolStorageError)
    assert problem.kind is StorageFailure.ABSENT
    world.close()


def test_files_that_are_put_back(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert success(world.put("a")[0]) == 1
    database = tmp_path / "spool" / "spool.db"
    copy = tmp_path / "copy"
    copy.write_bytes(database.read_bytes())
    copy.rename(database)
    failure(world.put("b")[0], SpoolStorageError)
    assert "another file" in str(world.failures[0])
    world.close()


def test_the_last_commit_fails(tmp_path: Path, faulty: list[FaultyConnection]) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    world.writer.hold()
    (waiting,) = world.put("a")
    faulty[0].faults["COMMIT"] = EIO
    closed = world.spool.close()
    world.writer.release()
    failure(waiting, SpoolStorageError)
    success(closed)
    assert len(world.failures) == 1
    SpoolWorld(tmp_path / "spool").start().close()


def test_a_read_that_fails(world: SpoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")  # SQLite does that itself after some errors
        raise sqlite3.DatabaseError("database disk image is malformed")

    world.put("a")
    monkeypatch.setattr("txqmp.monitor.spool.reader.read_extent", fail)
    world.writer.hold()
    (waiting,) = world.put("b")
    error = failure(world.spool.read(), SpoolStorageError).value
    assert isinstance(error, SpoolStorageError)
    assert error.kind is StorageFailure.CORRUPT
    failure(waiting, SpoolStorageError)
    assert len(world.failures) == 1
    world.writer.release()
    assert world.spool.counters.committed == 1


def test_two_failures_are_told_once(world: SpoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(db: sqlite3.Connection) -> None:
        raise EIO

    monkeypatch.setattr("txqmp.monitor.spool.reader.read_extent", fail)
    world.reader.hold()
    first, second = world.spool.read(), world.spool.read()
    world.reader.release()
    failure(first, SpoolStorageError)
    failure(second, SpoolStorageError)
    assert len(world.failures) == 1


def test_a_defect_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    world = SpoolWorld(tmp_path / "spool").start()

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("txqmp.monitor.spool.store.read_state", fail)
    failure(world.put("a")[0], SpoolError)
    (problem,) = world.failures
    assert "ZeroDivisionError" in str(problem)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    world.close()


def test_nobody_can_be_told_of_the_failure(
    tmp_path: Path, faulty: list[FaultyConnection], logged_errors: LoggedErrors
) -> None:
    def fail(problem: SpoolError) -> None:
        raise ZeroDivisionError

    world = SpoolWorld(tmp_path / "spool", failed=fail).start()
    faulty[0].faults["COMMIT"] = EIO
    failure(world.put("a")[0], SpoolStorageError)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    world.close()


def test_the_failure_is_told_to_one_who_closes(
    tmp_path: Path, faulty: list[FaultyConnection]
) -> None:
    """As the daemon does."""
    closed = []

    def end(problem: SpoolError) -> None:
        closed.append(world.spool.close())

    world = SpoolWorld(tmp_path / "spool", failed=end).start()
    faulty[0].faults["COMMIT"] = EIO
    failure(world.put("a")[0], SpoolStorageError)
    success(closed[0])


def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.open_for_writing

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        db = real(*args, **options)
        db.execute("PRAGMA max_page_count = 30")
        return db

    monkeypatch.setattr(store, "open_for_writing", small)
    world = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    taken = 0
    while not world.failures:
        (put,) = world.put("x", size=5000)
        if not world.failures:
            assert success(put) == taken + 1
            taken += 1
    error = failure(put, SpoolStorageError).value
    assert isinstance(error, SpoolStorageError)
    assert error.kind is StorageFailure.FULL
    world.close()
    monkeypatch.undo()
    again = SpoolWorld(tmp_path / "spool", SpoolLimits()).start()
    assert again.spool.state.last == taken
    again.close()
