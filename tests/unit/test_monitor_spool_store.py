"""What a spool keeps and what it drops: cursors, trimming, replay, dead letters."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.deferreds import failure, success
from support.spool import NOW, SIZE, SpoolWorld, item, text_of
from txqmp.monitor.spool import (
    Filter,
    Item,
    SpoolGap,
    SpoolLimits,
    Start,
    Stored,
    UnknownSinkError,
    WhenFull,
    reader,
    store,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SpoolWorld]:
    """A spool that keeps nothing longer than it must."""
    world = SpoolWorld(tmp_path / "spool").start()
    yield world
    world.close()


def limited(tmp_path: Path, **limits: object) -> SpoolWorld:
    options = {"keep_bytes": 0, **limits}
    return SpoolWorld(tmp_path / "spool", SpoolLimits(**options)).start()  # type: ignore[arg-type]


# Records


def test_a_record_that_cannot_be() -> None:
    for name in ("\udc80", "a\ud800"):
        with pytest.raises(ValueError):
            Item(name, "STOP", NOW, b"")
        with pytest.raises(ValueError):
            Item("vm", name, NOW, b"")
    for time in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no time"):
            Item("vm", "STOP", time, b"")
    text: object = "{}"
    with pytest.raises(TypeError, match="not str"):
        Item("vm", "STOP", NOW, text)  # type: ignore[arg-type]


def test_anything_else_comes_back_as_it_was(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    items = [
        Item("", "", -1.5, b""),
        Item("<b>\x00\x7f'\"é😀", "__org.example_\n", 0.1, bytes(range(256))),
        Item("vm", "STOP", NOW, b"x" * 100_000),
    ]
    for each in items:
        success(world.spool.put(each))
    records = success(world.spool.read()).records
    assert [Item(each.vm, each.type, each.time, each.data) for each in records] == items


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 0}, {"keep_bytes": -1}, {"keep_seconds": -1}, {"max_wait": 0}, {"max_dead": 0}],
)
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        SpoolLimits(**limits)  # type: ignore[arg-type]


# Cursors


def test_where_a_new_sink_begins(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_bytes=2 * SIZE)
    world.put("a", "b", "c")
    assert success(world.spool.add_sink("all", Start.BEGINNING)) == 1
    assert success(world.spool.add_sink("new")) == 3
    # It is a new one only once.
    assert success(world.spool.add_sink("all")) == 1
    world.put("d")
    assert world.next_for("all") == ["b", "c", "d"]
    assert world.next_for("new") == ["d"]
    world.close()


def test_first_sink_of_an_empty_spool(world: SpoolWorld) -> None:
    assert success(world.spool.add_sink("all", Start.BEGINNING)) == 0
    assert success(world.spool.add_sink("new", Start.END)) == 0
    assert world.next_for("all") == []


def test_what_all_have_had_is_trimmed(world: SpoolWorld) -> None:
    success(world.spool.add_sink("slow"))
    success(world.spool.add_sink("fast"))
    world.put(*"abcde")
    success(world.spool.ack("fast", 5))
    success(world.spool.ack("slow", 2))
    assert world.texts() == ["c", "d", "e"]
    # Less than before changes nothing.
    success(world.spool.ack("slow", 1))
    success(world.spool.ack("slow", -1))
    assert world.next_for("slow") == ["c", "d", "e"]
    assert world.texts() == []


def test_reads_ahead_of_what_it_acknowledges(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    world.put(*"abcde")
    first = success(world.spool.read_for("sink", count=2))
    second = success(world.spool.read_for("sink", first.through, count=2))
    assert [text_of(each.data) for each in second.records] == ["c", "d"]
    assert second.through == 4
    again = success(world.spool.read_for("sink", count=2))
    assert again == first
    # Less than it has acknowledged is no gap.
    success(world.spool.ack("sink", 4))
    last = success(world.spool.read_for("sink", 1))
    assert (last.gap, last.through) == (None, 5)


def test_little_is_trimmed_at_once(world: SpoolWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TRIM", 2)
    success(world.spool.add_sink("sink"))
    world.put(*"abcde")
    success(world.spool.ack("sink", 5))
    assert world.spool.state.depth == 3
    success(world.spool.ack("sink", 5))
    assert world.spool.state.depth == 1
    assert world.next_for("sink") == []


def test_sinks_that_are_not_there_any_more(tmp_path: Path) -> None:
    world = limited(tmp_path)
    success(world.spool.add_sink("old"))
    success(world.spool.add_sink("idle"))
    success(world.spool.add_sink("used"))
    assert world.spool.state.abandoned == ()
    world.put("a", "b")
    success(world.spool.ack("idle", 2))
    world.close()
    world = limited(tmp_path)
    success(world.spool.add_sink("used"))
    assert [each.name for each in world.spool.state.sinks if not each.attached] == ["idle", "old"]
    success(world.spool.ack("used", 2))
    (old,) = world.spool.state.abandoned
    assert (old.name, old.lag, old.lag_bytes) == ("old", 2, 2 * SIZE)
    success(world.spool.forget_sink("old"))
    assert world.spool.state.abandoned == ()
    assert world.spool.state.depth == 0
    failure(world.spool.forget_sink("old"), UnknownSinkError)
    world.close()


# Replay


def test_kept_for_replay_by_size(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_bytes=3 * SIZE - 1)
    world.put(*"abcde")
    assert world.texts() == ["c", "d", "e"]
    world.close()


def test_kept_for_replay_by_time(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_seconds=10.0)
    world.put("a")
    world.clock.advance(5)
    world.put("b")
    world.clock.advance(5)
    world.put("c")
    assert world.texts() == ["b", "c"]
    world.clock.advance(10)
    world.put("d")
    assert world.texts() == ["d"]
    world.close()


def test_kept_by_either(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_seconds=10.0, keep_bytes=2 * SIZE)
    world.put(*"abc")
    assert world.texts() == ["a", "b", "c"]
    world.clock.advance(10)
    world.put("d")
    assert world.texts() == ["c", "d"]
    world.close()


def test_room_comes_before_replay(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_seconds=10.0, max_bytes=2 * SIZE)
    success(world.spool.add_sink("sink"))
    world.put("a", "b")
    success(world.spool.ack("sink", 2))
    world.put("c")
    assert world.texts() == ["b", "c"]
    assert world.spool.state.sinks[0].dropped == 0
    world.close()


def test_clock_that_is_set_back(tmp_path: Path) -> None:
    """What is not delivered stays, what is kept for replay stays for longer."""
    world = limited(tmp_path, keep_seconds=10.0)
    success(world.spool.add_sink("sink"))
    world.put("a")
    world.clock.rightNow -= 3600
    world.put("b")
    assert world.next_for("sink") == ["a", "b"]
    world.put("c")
    assert world.texts() == ["a", "b", "c"]
    assert world.spool.state.since == NOW
    world.clock.rightNow += 7200
    world.put("d")
    assert world.texts() == ["c", "d"]
    world.close()


def test_read_from_the_beginning_or_from_a_position(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_bytes=3 * SIZE)
    world.put(*"abcde")
    assert success(world.spool.read()).gap is None
    assert world.texts() == ["c", "d", "e"]
    assert success(world.spool.read(2)).gap is None
    assert success(world.spool.read(0)).gap == SpoolGap(1, 2)
    assert success(world.spool.read(1)).gap == SpoolGap(2, 2)
    assert world.texts(1) == ["c", "d", "e"]
    assert world.texts(4) == ["e"]
    at_end = success(world.spool.read(5))
    assert (at_end.gap, at_end.records, at_end.through) == (None, (), 5)
    world.close()


def test_read_by_count_and_by_size(tmp_path: Path) -> None:
    world = limited(tmp_path, keep_bytes=1 << 20)
    for text in "abc":
        world.put(text, size=1000)

    def read(**options: int) -> tuple[int, int]:
        batch = success(world.spool.read(**options))
        return len(batch.records), batch.through

    assert read() == (3, 3)
    assert read(count=3) == (3, 3)
    assert read(count=2) == (2, 2)
    assert read(size=2000) == (2, 2)
    assert read(size=1900) == (2, 2)
    # One at least, or nobody would get any further.
    assert read(size=1) == (1, 1)
    assert read(count=0) == (1, 1)
    assert read(count=-5) == (1, 1)
    world.close()


def test_read_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SCAN", 4)
    world = limited(tmp_path, keep_bytes=1 << 20)
    for number in range(12):
        world.clock.advance(1)
        kind = ("STOP", "RESUME", "BLOCK_JOB_READY")[number % 3]
        world.put(str(number), vm=f"vm{number % 2}", kind=kind)

    def find(**wanted: object) -> list[str]:
        found, after = [], 0
        while after < world.spool.state.last:
            chosen = Filter(**wanted)  # type: ignore[arg-type]
            batch = success(world.spool.read(after, wanted=chosen, count=2))
            assert after < batch.through <= after + 4
            found += [text_of(each.data) for each in batch.records]
            after = batch.through
        return found

    assert find(vms=("vm1",)) == ["1", "3", "5", "7", "9", "11"]
    assert find(types=("STOP", "RES*")) == ["0", "1", "3", "4", "6", "7", "9", "10"]
    assert find(vms=("vm?",), types=("BLOCK_*",)) == ["2", "5", "8", "11"]
    assert find(vms=("vm0",), types=("STOP",)) == ["0", "6"]
    assert find(since=NOW + 11) == ["10", "11"]
    assert find(vms=("vm0",), since=NOW + 11) == ["10"]
    assert find(vms=("VM0",)) == []
    world.close()


def test_a_sink_moves_over_what_it_does_not_want(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    world.put("a", "b", kind="RTC_CHANGE")
    world.put("c")
    world.put("d", kind="RTC_CHANGE")
    assert world.next_for("sink", wanted=Filter(types=("STOP",))) == ["c"]
    assert world.spool.state.sinks[0].lag == 0


NAMES = st.text(alphabet="abAB_-^!]", max_size=6)
PATTERNS = st.lists(
    st.sampled_from(["*", "?", "a", "b", "A", "_", "[ab]", "[!ab]", "[a-b]", "!", "^"]), max_size=5
).map("".join)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("empty") / "spool"
    SpoolWorld(directory).start().close()
    return directory


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, PATTERNS)
def test_globs_are_those_of_python(empty: Path, name: str, pattern: str) -> None:
    """As everywhere else where events are chosen."""
    world = SpoolWorld(empty, SpoolLimits()).start()
    try:
        success(world.put("", kind=name)[0])
        after = world.spool.state.last - 1
        batch = success(world.spool.read(after, wanted=Filter(types=(pattern,))))
        assert bool(batch.records) == fnmatch.fnmatchcase(name, pattern)
    finally:
        world.close()


# When it is full


def test_the_sink_that_lags_loses_the_oldest(tmp_path: Path) -> None:
    world = limited(tmp_path, max_bytes=3 * SIZE)
    success(world.spool.add_sink("slow"))
    success(world.spool.add_sink("fast"))
    world.put("a")
    world.clock.advance(1)
    world.put("b")
    world.clock.advance(1)
    world.put("c")
    assert world.next_for("fast") == ["a", "b", "c"]
    world.put("d", "e")
    fast, slow = world.spool.state.sinks
    assert (fast.lag, fast.dropped) == (2, 0)
    assert (slow.lag, slow.dropped, slow.lag_bytes) == (3, 2, 3 * SIZE)
    assert slow.since == NOW + 2
    batch = success(world.spool.read_for("slow"))
    assert batch.gap == SpoolGap(1, 2, NOW, NOW + 1)
    assert batch.gap is not None
    assert batch.gap.count == 2
    assert [text_of(each.data) for each in batch.records] == ["c", "d", "e"]
    assert world.next_for("fast") == ["d", "e"]
    # It is told until it is acknowledged.
    assert success(world.spool.read_for("slow")) == batch
    success(world.spool.ack("slow", 2))
    assert success(world.spool.read_for("slow")).gap is None
    # A later one is told by itself.
    world.put("f", "g")
    assert success(world.spool.read_for("slow")).gap == SpoolGap(3, 4, NOW + 2, NOW + 2)
    assert world.next_for("slow") == ["3-4", "e", "f", "g"]
    assert world.spool.state.sinks[1].dropped == 4
    world.close()


def test_a_gap_that_grows(tmp_path: Path) -> None:
    world = limited(tmp_path, max_bytes=2 * SIZE)
    success(world.spool.add_sink("sink"))
    world.put(*"abc")
    world.clock.advance(1)
    world.put("d")
    batch = success(world.spool.read_for("sink"))
    assert batch.gap == SpoolGap(1, 2, NOW, NOW)
    # What it holds is delivered, though it is not there any more.
    world.put("e", "f")
    success(world.spool.ack("sink", 3))
    assert success(world.spool.read_for("sink")).gap == SpoolGap(4, 4, NOW, NOW + 1)
    assert world.next_for("sink") == ["4-4", "e", "f"]
    assert world.spool.state.sinks[0].dropped == 4
    world.close()


def test_a_gap_behind_what_was_read(tmp_path: Path) -> None:
    world = limited(tmp_path, max_bytes=4 * SIZE)
    success(world.spool.add_sink("sink"))
    world.put(*"abcd")
    held = success(world.spool.read_for("sink", count=2))
    world.put("e")
    ahead = success(world.spool.read_for("sink", held.through))
    assert ahead.gap is None
    world.put("f", "g")
    ahead = success(world.spool.read_for("sink", held.through))
    assert ahead.gap is not None
    assert (ahead.gap.first, ahead.gap.last) == (3, 3)
    world.close()


def test_a_gap_is_told_after_a_restart(tmp_path: Path) -> None:
    world = limited(tmp_path, max_bytes=2 * SIZE)
    success(world.spool.add_sink("sink"))
    world.put(*"abc")
    world.close()
    world = limited(tmp_path, max_bytes=2 * SIZE)
    batch = success(world.spool.read_for("sink"))
    assert batch.gap == SpoolGap(1, 1, NOW, NOW)
    world.close()


def test_everything_is_lost_at_once(tmp_path: Path) -> None:
    world = limited(tmp_path, max_bytes=3 * SIZE)
    success(world.spool.add_sink("sink"))
    world.put(*"abc")
    world.put("x", size=3 * SIZE)
    assert world.next_for("sink") == ["1-3", "x"]
    world.close()


def test_less_room_than_before(tmp_path: Path) -> None:
    world = limited(tmp_path)
    success(world.spool.add_sink("sink"))
    world.put(*"abcde")
    world.close()
    world = limited(tmp_path, max_bytes=2 * SIZE)
    assert world.next_for("sink") == ["1-3", "d", "e"]
    world.close()


def test_less_room_than_before_and_nothing_is_dropped(tmp_path: Path) -> None:
    world = limited(tmp_path)
    success(world.spool.add_sink("sink"))
    world.put(*"abcde")
    success(world.spool.ack("sink", 1))
    world.close()
    world = limited(tmp_path, max_bytes=2 * SIZE, when_full=WhenFull.BLOCK, keep_bytes=1 << 20)
    (waiting,) = world.put("f")
    assert world.spool.blocked
    assert world.next_for("sink", count=3) == ["b", "c", "d"]
    assert success(waiting) == 6
    assert world.next_for("sink") == ["e", "f"]
    world.close()


# Dead letters


def bury(world: SpoolWorld, *texts: str, sink: str = "sink") -> list[int]:
    """Put records in, and have a sink give up on them."""
    world.put(*texts)
    records = success(world.spool.read_for(sink)).records
    numbers = [world.spool.bury(sink, each, f"no {text_of(each.data)}", 3) for each in records]
    success(world.spool.ack(sink, records[-1].position))
    return [success(number) for number in numbers]


def dead_texts(world: SpoolWorld, sink: str | None = None, **options: object) -> list[str]:
    letters = success(world.spool.dead(sink, **options))  # type: ignore[arg-type]
    return [text_of(each.record.data) for each in letters]


def test_dead_letters(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    success(world.spool.add_sink("other"))
    world.put("a", "b")
    record, _ = success(world.spool.read_for("other")).records
    assert bury(world, "c") == [1, 2, 3]
    assert success(world.spool.bury("other", record, "no", 1)) == 4
    success(world.spool.ack("other", 3))
    assert world.spool.state.depth == 0
    letter, *_ = success(world.spool.dead("sink"))
    assert letter.record == record
    assert (letter.number, letter.sink, letter.reason) == (1, "sink", "no a")
    assert (letter.attempts, letter.time, letter.retrying) == (3, NOW, False)
    assert dead_texts(world) == ["a", "b", "c", "a"]
    assert dead_texts(world, "sink", after=1) == ["b", "c"]
    assert dead_texts(world, count=2) == ["a", "b"]
    assert [each.dead for each in world.spool.state.sinks] == [1, 3]
    assert success(world.spool.drop_dead("sink", [1, 3, 99])) == 2
    assert dead_texts(world) == ["b", "a"]
    # The other's is not ours.
    assert success(world.spool.drop_dead("sink", [4])) == 0
    assert success(world.spool.drop_dead("sink")) == 1
    assert success(world.spool.drop_dead("sink")) == 0
    assert [each.dead for each in world.spool.state.sinks] == [1, 0]
    success(world.spool.forget_sink("other"))
    assert dead_texts(world) == []


def test_dead_letters_are_tried_again(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    bury(world, *"abcd")
    assert dead_texts(world, "sink", retrying=True) == []
    assert success(world.spool.retry_dead("sink", [2, 3, 99])) == 2
    assert world.spool.state.sinks[0].retrying == 2
    first, second = success(world.spool.dead("sink", retrying=True))
    assert first.retrying
    # One is delivered, one is not.
    success(world.spool.drop_dead("sink", [first.number]))
    world.clock.advance(5)
    assert success(world.spool.bury("sink", second.record, "never", 4)) == second.number
    assert dead_texts(world, "sink", retrying=True) == []
    (letter,) = success(world.spool.dead("sink", after=2, count=1))
    assert (letter.reason, letter.attempts, letter.time) == ("never", 4, NOW + 5)
    assert not letter.retrying
    assert success(world.spool.retry_dead("sink")) == 3
    state = world.spool.state.sinks[0]
    assert (state.dead, state.retrying) == (3, 3)


def test_too_many_dead_letters(tmp_path: Path) -> None:
    world = limited(tmp_path, max_dead=3)
    success(world.spool.add_sink("sink"))
    success(world.spool.add_sink("other"))
    bury(world, "x", sink="other")
    bury(world, *"abcde")
    assert dead_texts(world, "sink") == ["c", "d", "e"]
    other, sink = world.spool.state.sinks
    assert (sink.dead, sink.dead_dropped) == (3, 3)
    assert (other.dead, other.dead_dropped) == (1, 0)
    world.close()


def test_dead_letters_that_are_too_large(tmp_path: Path) -> None:
    world = limited(tmp_path, max_dead_bytes=1000)
    success(world.spool.add_sink("sink"))
    bury(world, *"abc")
    world.put("d", size=900)
    (large,) = success(world.spool.read_for("sink")).records
    success(world.spool.bury("sink", large, "", 1))
    assert dead_texts(world) == ["c", "d"]
    world.put("e", size=5000)
    *_, huge = success(world.spool.read_for("sink")).records
    success(world.spool.bury("sink", huge, "", 1))
    assert dead_texts(world) == ["e"]
    assert world.spool.state.sinks[0].dead_dropped == 4
    world.close()


def test_a_reason_is_only_a_text(world: SpoolWorld) -> None:
    success(world.spool.add_sink("sink"))
    record = Stored(1, 2, "vm", "STOP", NOW, b"")
    success(world.spool.bury("sink", record, "\udc80" + "x" * 5000, 1))
    (letter,) = success(world.spool.dead())
    assert letter.reason == "?" + "x" * 999


def test_dead_letters_of_nobody(world: SpoolWorld) -> None:
    record = Stored(1, 2, "vm", "STOP", NOW, b"")
    failure(world.spool.bury("nobody", record, "", 1), UnknownSinkError)
    failure(world.spool.drop_dead("nobody"), UnknownSinkError)
    failure(world.spool.retry_dead("nobody"), UnknownSinkError)
    assert success(world.spool.dead("nobody")) == []


def test_size_of_an_item() -> None:
    assert item("abc").size == SIZE
