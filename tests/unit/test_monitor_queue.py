"""The bounded queue of a sink."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from txqmp.monitor.records import Entry
from txqmp.monitor.sinks.base import Counters
from txqmp.monitor.sinks.queue import OVERHEAD, RecordQueue


def entry(vm: str, seq: int, size: int = 100) -> Entry:
    return Entry(vm, seq, 1, b"x" * size)


def queue_for(count: int, size: int = 100) -> RecordQueue:
    """A queue that holds so many entries."""
    return RecordQueue("sink", Counters(), Clock(), count * (size + OVERHEAD))


def shown(entries: list[Entry]) -> list[str]:
    """Entries as ``vm:seq``, holes as ``vm:first-last``."""
    found = []
    for each in entries:
        if each.text.startswith(b"{"):
            hole = json.loads(each.text)["data"]
            assert hole["count"] == hole["last"] - hole["first"] + 1
            found.append(f"{each.vm}:{hole['first']}-{hole['last']}")
        else:
            found.append(f"{each.vm}:{each.seq}")
    return found


def take_all(queue: RecordQueue) -> list[str]:
    return shown(queue.take(1 << 30, 1 << 30))


def test_in_order() -> None:
    queue = queue_for(10)
    assert not queue
    for number, vm in enumerate("abcab", 1):
        queue.put(entry(vm, number))
    assert queue
    assert len(queue) == 5
    assert queue.size == 5 * (100 + OVERHEAD)
    assert take_all(queue) == ["a:1", "b:2", "c:3", "a:4", "b:5"]
    assert not queue
    assert queue.size == 0
    assert take_all(queue) == []


def test_by_count_and_by_size() -> None:
    queue = queue_for(10)
    for number in range(1, 7):
        queue.put(entry("a", number))
    assert shown(queue.take(2, 1 << 30)) == ["a:1", "a:2"]
    assert shown(queue.take(10, 250)) == ["a:3", "a:4"]
    # One at least, however large.
    assert shown(queue.take(10, 1)) == ["a:5"]
    assert shown(queue.take(1, 0)) == ["a:6"]


def test_the_oldest_is_dropped_and_that_is_told_in_its_place() -> None:
    counters = Counters()
    clock = Clock()
    clock.advance(1000)
    queue = RecordQueue("stdout", counters, clock, 3 * (100 + OVERHEAD))
    for number in range(1, 8):
        queue.put(entry("a", number))
    assert counters == Counters(taken=7, dropped=4)
    taken = queue.take(10, 1 << 30)
    assert shown(taken) == ["a:1-4", "a:5", "a:6", "a:7"]
    told = json.loads(taken[0].text)
    assert told["time"] == "1970-01-01T00:16:40.000000Z"
    assert told["data"]["sink"] == "stdout"
    assert told["data"]["reason"] == "the queue was full"
    assert counters.dropped == 4


def test_a_hole_counts_as_one() -> None:
    queue = queue_for(2)
    for number in range(1, 5):
        queue.put(entry("a", number))
    assert shown(queue.take(1, 0)) == ["a:1-2"]
    assert shown(queue.take(1, 0)) == ["a:3"]


def test_the_greediest_loses() -> None:
    queue = queue_for(10)
    queue.put(entry("quiet", 1))
    for number in range(1, 101):
        queue.put(entry("flood", number))
    queue.put(entry("quiet", 2))
    queue.put(entry("other", 1))
    told = take_all(queue)
    assert [each for each in told if not each.startswith("flood")] == [
        "quiet:1",
        "quiet:2",
        "other:1",
    ]
    assert "flood:1-93" in told


def test_room_is_counted_in_bytes() -> None:
    queue = queue_for(10)
    for number in range(1, 6):
        queue.put(entry("small", number))
    queue.put(entry("large", 1, 3000))
    queue.put(entry("large", 2, 3000))
    assert take_all(queue) == [
        "small:1",
        "small:2",
        "small:3",
        "small:4",
        "small:5",
        "large:1-2",
    ]


def test_one_that_is_too_large_is_dropped_at_once() -> None:
    queue = queue_for(2)
    queue.put(entry("a", 1, 10_000))
    assert len(queue) == 0
    assert queue
    assert take_all(queue) == ["a:1-1"]


def test_holes_without_records_are_told_at_the_end() -> None:
    queue = queue_for(3)
    queue.put(entry("a", 1, 10_000))
    queue.put(entry("b", 1, 10_000))
    queue.put(entry("c", 1))
    assert shown(queue.take(1, 0)) == ["c:1"]
    assert shown(queue.take(1, 0)) == ["a:1-1"]
    assert shown(queue.take(1, 0)) == ["b:1-1"]
    assert not queue


def test_every_episode_is_told() -> None:
    queue = queue_for(1)
    queue.put(entry("a", 1))
    queue.put(entry("a", 2))
    assert take_all(queue) == ["a:1-1", "a:2"]
    queue.put(entry("a", 3))
    assert take_all(queue) == ["a:3"]
    queue.put(entry("a", 4))
    queue.put(entry("a", 5))
    queue.put(entry("a", 6))
    assert take_all(queue) == ["a:4-5", "a:6"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 3000)),
            st.tuples(st.just("take"), st.integers(1, 5), st.integers(0, 3000)),
        ),
        max_size=200,
    )
)
def test_nothing_is_lost_in_silence(steps: list[tuple[str, object, int]]) -> None:
    """Each VM's numbers come in order, and are whole or the hole is told."""
    queue = queue_for(6)
    put: Counter[str] = Counter()
    came: list[Entry] = []
    for what, first, second in steps:
        if what == "put":
            vm = str(first)
            put[vm] += 1
            queue.put(entry(vm, put[vm], second))
        else:
            assert isinstance(first, int)
            taken = queue.take(first, second)
            assert len(taken) <= first
            came += taken
        assert queue.size <= 6 * (100 + OVERHEAD)
    came += queue.take(1 << 30, 1 << 30)
    assert not queue
    assert queue.size == 0
    told: Counter[str] = Counter()
    for each in came:
        if each.text.startswith(b"{"):
            hole = json.loads(each.text)["data"]
            assert hole["first"] == told[each.vm] + 1
            assert hole["count"] == hole["last"] - hole["first"] + 1
        else:
            assert each.seq == told[each.vm] + 1
        told[each.vm] = each.seq
    assert told == put
