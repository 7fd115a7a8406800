"""What the sinks that write lines share."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from txqmp.monitor.records import Entry
from txqmp.monitor.sinks.base import Counters
from txqmp.monitor.sinks.lines import LineSink, LineWriter, WriteError
from txqmp.monitor.sinks.queue import OVERHEAD


class LineTarget:
    """Lines in a list.

    :ivar problems: what the next writes raise; ``None`` for one that succeeds.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.problems: list[Exception | None] = []
        self.reopened = 0
        self.closed = 0

    def write(self, lines: list[bytes]) -> None:
        problem = self.problems.pop(0) if self.problems else None
        if isinstance(problem, WriteError):
            self.lines += lines[: problem.written]
        if problem is not None:
            raise problem
        self.lines += lines

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed += 1


class Turns:
    """A runner that runs at once, or when it is let."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] | None = None
        self.stopped = 0

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for call in held:
            call()

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(function, *args)
        deferred: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(function, *args).chainDeferred(deferred))
        return deferred

    def stop(self) -> None:
        self.stopped += 1


class World:
    """A sink and what is around it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.target = LineTarget()
        self.turns = Turns()
        self.closed = 0
        self.sink = LineSink(
            "sink",
            clock,
            self.turns,
            self.target,
            closed=self._closed,
            max_size=10 * (1 + OVERHEAD),
        )
        self.sink.start()
        self.seq = 0

    def _closed(self) -> None:
        self.closed += 1

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.seq += 1
            self.sink.put(Entry("a", self.seq, 1, b"%d" % (self.seq % 10)))

    @property
    def counters(self) -> Counters:
        return self.sink.counters


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    yield world
    success(world.sink.stop())


def full(written: int = 0) -> WriteError:
    return WriteError(OSError(errno.ENOSPC, "No space left on device"), written)


def test_writes(world: World) -> None:
    world.put(3)
    assert world.target.lines == [b"1", b"2", b"3"]
    assert world.counters == Counters(taken=3, delivered=3)


def test_writes_in_batches_what_came_meanwhile(world: World) -> None:
    world.turns.hold()
    world.put(5)
    assert world.turns.held is not None
    assert len(world.turns.held) == 1
    world.turns.release()
    assert world.target.lines == [b"1", b"2", b"3", b"4", b"5"]


def test_a_write_that_hangs_holds_up_nobody(world: World) -> None:
    world.turns.hold()
    world.put(30)
    assert world.counters == Counters(taken=30, dropped=19)
    world.turns.release()
    assert len(world.target.lines) == 12
    assert b'"count":19' in world.target.lines[1]
    assert world.counters == Counters(taken=30, dropped=19, delivered=12)


def test_a_write_that_fails_is_tried_again(world: World) -> None:
    world.target.problems = [full(), full(), None]
    world.put(2)
    assert world.target.lines == []
    world.clock.advance(0.5)
    assert world.target.lines == []
    world.clock.advance(1)
    assert world.target.lines == [b"1", b"2"]
    assert world.counters == Counters(taken=2, delivered=2, failures=2)


def test_what_was_written_is_not_written_again(world: World) -> None:
    world.turns.hold()
    world.put(1)
    world.target.problems = [None, full(2)]
    world.put(3)
    world.turns.release()
    assert world.target.lines == [b"1", b"2", b"3"]
    world.clock.advance(0.5)
    assert world.target.lines == [b"1", b"2", b"3", b"4"]
    assert world.counters.delivered == 4


def test_other_failures_are_tried_again_too(world: World) -> None:
    world.target.problems = [RuntimeError("a defect")]
    world.put()
    world.clock.advance(0.5)
    assert world.target.lines == [b"1"]


def test_the_end_of_a_pipe_is_the_end(world: World) -> None:
    world.target.problems = [None, WriteError(BrokenPipeError(errno.EPIPE, "Broken pipe"), 0)]
    world.put(2)
    assert world.closed == 1
    world.put(3)
    assert world.target.lines == [b"1"]
    assert world.counters == Counters(taken=5, delivered=1, dropped=4, failures=1)
    assert world.target.closed == 1
    world.sink.reopen()
    assert world.target.reopened == 0


def test_reopens_and_tries_at_once(world: World) -> None:
    world.target.problems = [full()]
    world.put()
    world.sink.reopen()
    assert world.target.reopened == 1
    assert world.target.lines == [b"1"]
    assert world.clock.getDelayedCalls() == []


def test_reopening_may_fail(world: World, logged_errors: LoggedErrors) -> None:
    def broken() -> None:
        raise OSError("no")

    world.target.reopen = broken  # type: ignore[method-assign]
    world.sink.reopen()
    assert len(logged_errors.flush(OSError)) == 1


def test_stops_when_all_is_written(clock: Clock) -> None:
    world = World(clock)
    world.turns.hold()
    world.put(3)
    stopped = world.sink.stop()
    pending(stopped)
    world.turns.release()
    success(stopped)
    assert world.target.lines == [b"1", b"2", b"3"]
    assert (world.target.closed, world.turns.stopped) == (1, 1)
    success(world.sink.stop())


def test_stops_in_time_when_a_write_hangs(clock: Clock) -> None:
    world = World(clock)
    world.turns.hold()
    world.put(3)
    stopped = world.sink.stop()
    clock.advance(4.9)
    pending(stopped)
    clock.advance(0.1)
    success(stopped)
    assert world.counters == Counters(taken=3, dropped=3)
    # Whatever it comes to now, it was counted.
    world.turns.release()
    assert world.counters == Counters(taken=3, dropped=3)


def test_a_failure_after_the_end_is_nothing(clock: Clock) -> None:
    world = World(clock)
    world.turns.hold()
    world.put()
    world.target.problems = [full()]
    stopped = world.sink.stop()
    clock.advance(5)
    world.turns.release()
    success(stopped)
    assert world.counters == Counters(taken=1, dropped=1)


def test_stopping_tries_once_more(clock: Clock) -> None:
    world = World(clock)
    world.target.problems = [full()]
    world.put()
    success(world.sink.stop())
    assert world.target.lines == [b"1"]


def test_stopping_does_not_try_for_ever(clock: Clock) -> None:
    world = World(clock)
    world.target.problems = [full(), full()]
    world.put()
    success(world.sink.stop())
    assert world.target.lines == []
    assert world.counters == Counters(taken=1, dropped=1, failures=2)


def read_all(descriptor: int) -> bytes:
    return os.read(descriptor, 1 << 20)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == reader  # the test has closed it


class Recorded:
    """``os.write`` that keeps what was written, and does a part of it, or fails, as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: int | Exception) -> None:
        self.writes: list[bytes] = []
        self._outcomes = list(outcomes)
        monkeypatch.setattr("txqmp.monitor.sinks.lines.os.write", self)

    def __call__(self, descriptor: int, data: memoryview) -> int:
        outcome = self._outcomes.pop(0) if self._outcomes else len(data)
        if isinstance(outcome, Exception):
            raise outcome
        self.writes.append(bytes(data[:outcome]))
        return outcome


def test_writer(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    LineWriter(4096).write(writer, [b"one", b"two"])
    assert read_all(reader) == b"one\ntwo\n"


def test_writer_keeps_lines_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no larger than PIPE_BUF goes into a pipe as a whole."""
    recorded = Recorded(monkeypatch)
    LineWriter(10).write(1, [b"1234", b"1234", b"123", b"x" * 20, b"1"])
    assert recorded.writes == [b"1234\n1234\n", b"123\n", b"x" * 20 + b"\n", b"1\n"]


def test_writer_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch, 2, 3)
    LineWriter(4096).write(1, [b"one", b"two"])
    assert recorded.writes == [b"on", b"e\nt", b"wo\n"]


@pytest.mark.parametrize(
    ("written", "whole", "then"),
    [
        (0, 0, b"one\n"),
        (2, 0, b"e\n"),
        (3, 0, b"\n"),
        (4, 1, b"two\n"),
        (5, 1, b"wo\n"),
    ],
)
def test_writer_ends_a_line_that_was_torn(
    monkeypatch: pytest.MonkeyPatch, written: int, whole: int, then: bytes
) -> None:
    lines = [b"one", b"two"]
    problem = OSError(errno.ENOSPC, "No space left on device")
    outcomes: list[int | Exception] = [written, problem] if written else [problem]
    recorded = Recorded(monkeypatch, *outcomes)
    writer = LineWriter(4096)
    with pytest.raises(WriteError, match="No space left") as raised:
        writer.write(1, lines)
    assert raised.value.written == whole
    assert raised.value.errno == errno.ENOSPC
    recorded.writes.clear()
    writer.write(1, lines[whole : whole + 1])
    assert recorded.writes == [then]


def test_writer_that_is_torn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = OSError(errno.ENOSPC, "No space left on device")
    recorded = Recorded(monkeypatch, 1, problem, 1, problem, 1, problem)
    writer = LineWriter(4096)
    for _ in range(3):
        with pytest.raises(WriteError) as raised:
            writer.write(1, [b"one"])
        assert raised.value.written == 0
    writer.write(1, [b"one"])
    assert b"".join(recorded.writes) == b"one\n"


def test_writer_does_not_mend_lines_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was torn and does not come again is ended before the next."""
    problem = OSError(errno.ENOSPC, "No space left on device")
    recorded = Recorded(monkeypatch, 2, problem, 1, problem, 2, problem)
    writer = LineWriter(4096)
    for line in (b"one", b"two", b"six"):
        with pytest.raises(WriteError) as raised:
            writer.write(1, [line])
        assert raised.value.written == 0
    writer.write(1, [b"six", b"ten"])
    assert b"".join(recorded.writes) == b"on\nsix\nten\n"


def test_writer_counts_the_pieces_before(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded(monkeypatch, 4, 4, OSError(errno.EIO, "broken"))
    with pytest.raises(WriteError) as raised:
        LineWriter(1).write(1, [b"one", b"two", b"six"])
    assert raised.value.written == 2


def test_writer_waits_for_a_descriptor_that_does_not_block(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = [b"x" * 999] * 200
    thread = threading.Thread(target=LineWriter(4096).write, args=(writer, lines))
    thread.start()
    size = 0
    while size < 200_000:
        size += len(os.read(reader, 4096))
    thread.join(20)
    assert not thread.is_alive()
    assert size == 200_000


def test_writer_without_a_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(WriteError) as raised:
        LineWriter(4096).write(writer, [b"one"])
    assert raised.value.errno == errno.EPIPE
