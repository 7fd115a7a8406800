"""Frames on their way out: sources, what they wait for, and the turns that they take."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from support.frames import frames_in
from txqmp.frames import (
    FrameSource,
    FrameUsageError,
    OutputStream,
    ResponseWriter,
    Scheduler,
    response_parts,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_DATA,
    COMMAND_NAME,
    CONTINUATION,
    EOS,
    ERROR_RESPONSE,
    NAME_EOS,
    TEXT_OUTPUT,
)
from txqmp.frames.commands import Part
from txqmp.frames.sources import Gate


def part(text: bytes, *, last: bool = False) -> Part:
    return BYTES_RESPONSE, EOS if last else CONTINUATION, text


def source(*texts: bytes, request_id: int = 1, stream: Any = None, **options: Any) -> FrameSource:
    """A source that says texts."""
    parts = [part(text, last=text is texts[-1]) for text in texts]
    return FrameSource(stream or OutputStream(2), request_id, parts, **options)


def payloads(frames: Any) -> list[bytes]:
    data = frames if isinstance(frames, bytes) else b"".join(frames)
    return [frame.payload for frame in frames_in(data)]


class Purse:
    """Credit that is counted by hand.

    :ivar left: how much there is.
    :ivar asked: how much was asked for, each time.
    """

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[int] = []

    def spend(self, source: FrameSource, size: int) -> int:
        self.asked.append(size)
        size = min(size, self.left)
        self.left -= size
        return size


# A source


def test_a_source_gives_its_frames_and_is_finished_with_the_last() -> None:
    done: list[FrameSource] = []
    one = source(b"a", b"b", done=done.append)
    assert (one.begun, one.finished, one.cut) == (False, False, False)
    assert one.next_frame() is not None
    assert (one.begun, one.finished, done) == (True, False, [])
    assert one.next_frame() is not None
    assert (one.finished, one.cut, done) == (True, False, [one])
    assert one.next_frame() is None
    assert list(one) == []
    assert done == [one]


def test_a_source_makes_a_frame_when_it_is_asked_for_one() -> None:
    """Else requests on one encoded stream would be sent in another order than they were encoded."""
    stream = OutputStream(2, "zlib")
    first, second = source(b"a" * 99, b"b", stream=stream), source(b"c", stream=stream)
    frames = [second.next_frame(), first.next_frame(), first.next_frame()]
    assert frames_in(frames[0] or b"", settings=True)[0].stream_flags == 1
    assert all(frames)


def test_a_source_without_parts_is_finished_when_it_is_asked() -> None:
    done: list[FrameSource] = []
    empty = FrameSource(OutputStream(2), 1, done=done.append)
    assert empty.next_frame() is None
    assert empty.next_frame() is None
    assert done == [empty]


def test_an_open_source_goes_on_when_there_is_more() -> None:
    woken: list[FrameSource] = []
    one = FrameSource(OutputStream(2), 1, open=True)
    one.wake = woken.append
    assert one.next_frame() is None
    one.add([part(b"a"), part(b"b")])
    one.add([part(b"c")])
    one.add(iter([part(b"d")]))
    assert woken == [one] * 3
    assert payloads(one) == [b"a", b"b", b"c", b"d"]
    assert not one.finished
    one.add([part(b"e", last=True)], last=True)
    assert payloads(one) == [b"e"]
    assert one.finished
    with pytest.raises(FrameUsageError, match="nothing follows"):
        one.add([part(b"f")])


def test_an_open_source_reads_no_further_than_it_must() -> None:
    """What is said last in place of what is said first was not known then."""
    said = [b"old"]

    def parts() -> Iterator[Part]:
        yield part(b"first")
        yield part(said[0])

    one = FrameSource(OutputStream(2), 1, open=True)
    one.add(parts())
    assert one.next_frame() is not None
    said[0] = b"new"
    assert payloads([one.next_frame() or b""]) == [b"new"]


def test_a_source_that_says_something_else_instead_is_cut() -> None:
    one = source(b"a", b"b", b"c")
    one.next_frame()
    one.replace([(ERROR_RESPONSE, 2, b"no")])
    assert payloads(one) == [b"no"]
    assert (one.finished, one.cut) == (True, True)
    one.replace([part(b"x")])
    assert list(one) == []


def test_a_source_that_says_nothing_more_is_finished_at_once() -> None:
    done: list[FrameSource] = []
    one = source(b"a", b"b", done=done.append)
    one.next_frame()
    one.drop()
    one.drop()
    assert (one.finished, one.cut, one.open, done) == (True, True, False, [one])
    assert list(one) == []


def test_a_source_that_fails_says_so() -> None:
    assert FrameSource(OutputStream(2), 1, ((ERROR_RESPONSE, 2, b"no"),)).fails
    assert not source(b"a").fails
    assert not FrameSource(OutputStream(2), 1, (part(b"", last=True),)).fails


def test_what_cannot_be_read_is_raised_before_a_frame_is_lost() -> None:
    def parts() -> Iterator[Part]:
        yield part(b"a")
        yield part(b"b")
        raise OSError("no such luck")

    done: list[FrameSource] = []
    one = FrameSource(OutputStream(2), 1, parts(), done=done.append)
    assert payloads([one.next_frame() or b""]) == [b"a"]
    with pytest.raises(OSError, match="no such luck"):
        one.next_frame()
    assert (one.finished, one.cut, done) == (True, True, [one])
    assert one.next_frame() is None


# Credit


def test_without_credit_a_source_waits_and_loses_nothing() -> None:
    purse = Purse(3)
    one = source(b"abc", b"def", b"g", credit=purse)
    assert payloads(one) == [b"abc"]
    assert payloads(one) == []
    purse.left = 4
    assert payloads(one) == [b"def", b"g"]
    assert one.finished


def test_a_payload_is_cut_to_what_may_be_sent() -> None:
    purse = Purse(2)
    one = source(b"abcde", b"f", credit=purse)
    assert payloads(one) == [b"ab"]
    assert not one.finished
    purse.left = 100
    frames = frames_in(b"".join(one))
    assert [(frame.payload, frame.flags) for frame in frames] == [
        (b"cde", CONTINUATION),
        (b"f", EOS),
    ]
    assert purse.asked == [5, 3, 3, 1]


def test_an_open_source_is_cut_too() -> None:
    purse = Purse(2)
    one = FrameSource(OutputStream(2), 1, open=True, credit=purse)
    one.add([part(b"abcde")])
    assert payloads(one) == [b"ab"]
    purse.left = 2
    one.add([part(b"f", last=True)], last=True)
    assert payloads(one) == [b"cd"]
    purse.left = 2
    assert payloads(one) == [b"e", b"f"]
    assert one.finished


def test_only_data_and_responses_with_something_in_them_cost_credit() -> None:
    purse = Purse(0)
    parts = [
        (COMMAND_NAME, NAME_EOS, b"c"),
        (TEXT_OUTPUT, 0, b"t"),
        (ERROR_RESPONSE, 2, b"e"),
        (BYTES_RESPONSE, EOS, b""),
        (COMMAND_DATA, EOS, b""),
    ]
    assert len(list(FrameSource(OutputStream(2), 1, parts, credit=purse))) == 5
    assert purse.asked == []
    data = FrameSource(OutputStream(2), 1, [(COMMAND_DATA, EOS, b"d")], credit=purse)
    assert list(data) == []
    assert purse.asked == [1]


# A gate


def gated(gate: Gate, *texts: bytes, size: int = 0, **options: Any) -> FrameSource:
    one = source(*texts, gate=gate, **options)
    one.size = size
    return one


def test_a_gate_lets_some_begin_and_the_others_wait_in_a_queue() -> None:
    gate, scheduler = Gate(2, 100), Scheduler()
    sources = [gated(gate, b"%d" % n, b"end") for n in range(5)]
    scheduler.add(*sources)
    assert payloads(scheduler.data_to_send()) == [
        *(b"0", b"1", b"end", b"end"),
        *(b"2", b"3", b"end", b"end"),
        *(b"4", b"end"),
    ]
    assert gate.waiting == 0


def test_a_gate_counts_sizes_and_what_is_larger_goes_alone() -> None:
    gate = Gate(10, 100)
    first, second, huge = (gated(gate, b"a", b"b", size=size) for size in (60, 41, 1000))
    small = gated(gate, b"a", b"b", size=1)
    assert first.next_frame()
    assert second.next_frame() is None
    assert huge.next_frame() is None
    # It would fit, but who came first is first.
    assert small.next_frame() is None
    assert gate.waiting == 3
    assert len(list(first)) == 1
    assert huge.next_frame() is None
    assert len(list(second)) == 2
    assert huge.next_frame()
    assert small.next_frame() is None
    huge.drop()
    # Who waits for the rest of it does not know yet that there is none.
    assert small.next_frame() is None
    gate.leave(huge)
    assert len(list(small)) == 2
    assert gate.waiting == 0


def test_a_gate_counts_what_is_inside() -> None:
    gate = Gate(10, 100)
    for _ in range(3):
        pair = [gated(gate, b"a", b"b", size=size) for size in (60, 40)]
        assert [each.next_frame() is None for each in pair] == [False, False]
        assert [len(list(each)) for each in pair] == [1, 1]


def test_a_gate_is_not_for_messages_of_one_frame() -> None:
    gate = Gate(1, 1)
    blocker = gated(gate, b"a", b"b")
    blocker.next_frame()
    assert payloads(gated(gate, b"c")) == [b"c"]


def test_who_leaves_the_queue_is_not_waited_for() -> None:
    gate, woken = Gate(1, 100), []
    first, second, third = (gated(gate, b"a", b"b") for _ in range(3))
    for each in (second, third):
        each.wake = woken.append
    first.next_frame()
    assert second.next_frame() is third.next_frame() is None
    second.drop()
    gate.leave(second)
    assert woken == []
    list(first)
    assert woken == [third]
    assert third.next_frame()


def test_a_source_waits_before_the_gate_with_all_it_has() -> None:
    gate = Gate(1, 100)
    first = gated(gate, b"a", b"b")
    first.next_frame()
    second = gated(gate, b"1", b"2", b"3", credit=Purse(100))
    assert second.next_frame() is None
    assert second.next_frame() is None
    list(first)
    assert payloads(second) == [b"1", b"2", b"3"]


# A writer


def writer(max_payload: int = 4, **options: Any) -> ResponseWriter:
    return ResponseWriter(FrameSource(OutputStream(2), 1, open=True, **options), max_payload)


def test_a_piece_is_cut_into_frames() -> None:
    one = writer()
    one.write(b"123456789")
    one.write(b"a")
    one.finish()
    assert payloads(one.source) == [b"1234", b"5678", b"9", b"a", b""]
    assert one.source.finished


def test_a_writer_tells_how_much_waits() -> None:
    one = writer()
    assert one.waiting == 0
    one.write(b"123456789")
    one.write(bytearray(b"abc"))
    assert one.waiting == 12
    one.source.next_frame()
    assert one.waiting == 8
    list(one.source)
    assert one.waiting == 0


def test_what_is_written_may_change_afterwards() -> None:
    one, data = writer(), bytearray(b"1234")
    one.write(data)
    data[:] = b"abcd"
    assert payloads(one.source) == [b"1234"]


def test_text_is_not_bytes() -> None:
    one = writer()
    with pytest.raises(TypeError):
        one.write("text")  # type: ignore[arg-type]
    assert (one.waiting, list(one.source)) == (0, [])


@pytest.mark.parametrize("how", ["replace", "drop"])
def test_what_was_cut_does_not_wait(how: str) -> None:
    one = writer()
    one.write(b"123456789")
    one.source.next_frame()
    if how == "drop":
        one.source.drop()
    else:
        one.source.replace([(ERROR_RESPONSE, 2, b"")])
    assert (one.finished, one.waiting) == (True, 0)
    with pytest.raises(FrameUsageError):
        one.write(b"x")
    with pytest.raises(FrameUsageError):
        one.finish()


# A scheduler


def test_sources_take_turns() -> None:
    scheduler = Scheduler()
    assert not scheduler
    scheduler.add(source(b"a1", b"a2", b"a3"), source(b"b1"), source(b"c1", b"c2"))
    assert scheduler
    assert payloads(scheduler.data_to_send()) == [b"a1", b"b1", b"c1", b"a2", b"c2", b"a3"]
    assert not scheduler
    assert scheduler.data_to_send() == b""


def test_a_long_message_does_not_hold_up_a_short_one() -> None:
    scheduler, stream = Scheduler(), OutputStream(2)
    scheduler.add(FrameSource(stream, 1, response_parts(bytes(10 << 20))))
    scheduler.data_to_send(100_000)
    scheduler.add(FrameSource(stream, 3, response_parts(b"short")))
    ids = [frame.request_id for frame in frames_in(scheduler.data_to_send(100_000))]
    assert ids[1] == 3
    assert set(ids) == {1, 3}


def test_what_is_urgent_goes_first() -> None:
    scheduler = Scheduler()
    scheduler.add(source(b"a1", b"a2"), source(b"b1"))
    scheduler.add(source(b"u1", b"u2"), source(b"v1"), urgent=True)
    assert payloads(scheduler.data_to_send(1)) == [b"u1"]
    assert payloads(scheduler.data_to_send()) == [b"v1", b"u2", b"a1", b"b1", b"a2"]


def test_a_call_gives_whole_frames_and_stops_when_there_is_enough() -> None:
    scheduler = Scheduler()
    scheduler.add(source(b"x" * 92, b"y" * 92, b"z" * 92))
    assert len(scheduler.data_to_send(101)) == 200
    scheduler.add(source(b"x" * 92), urgent=True)
    assert [len(scheduler.data_to_send(100)) for _ in range(3)] == [100, 100, 0]


def test_what_is_finished_has_no_further_turn() -> None:
    scheduler = Scheduler()
    scheduler.add(source(b"a"))
    assert payloads(scheduler.data_to_send(1)) == [b"a"]
    assert not scheduler


def test_no_room_is_no_frame() -> None:
    scheduler = Scheduler()
    scheduler.add(source(b"a"))
    assert scheduler.data_to_send(0) == b""
    assert scheduler
    assert payloads(scheduler.data_to_send(1)) == [b"a"]


def test_a_source_has_one_turn_however_often_it_is_added_or_woken() -> None:
    scheduler, one, other = Scheduler(), source(b"a1", b"a2"), source(b"b1", b"b2")
    scheduler.add(one, other, one)
    scheduler.add(one)
    assert one.wake is not None
    one.wake(one)
    assert payloads(scheduler.data_to_send()) == [b"a1", b"b1", b"a2", b"b2"]


def test_a_source_that_has_nothing_is_parked_until_it_is_woken() -> None:
    scheduler, one = Scheduler(), writer()
    scheduler.add(one.source)
    assert scheduler
    assert scheduler.data_to_send() == b""
    assert not scheduler
    one.write(b"a")
    one.write(b"b")
    assert scheduler
    assert payloads(scheduler.data_to_send()) == [b"a", b"b"]
    scheduler.data_to_send()
    assert not scheduler
    one.finish()
    assert payloads(scheduler.data_to_send()) == [b""]
    assert not scheduler


def test_an_urgent_source_is_urgent_when_it_is_woken() -> None:
    scheduler, one = Scheduler(), writer()
    scheduler.add(one.source, urgent=True)
    scheduler.data_to_send()
    scheduler.add(source(b"a"))
    one.write(b"u")
    assert payloads(scheduler.data_to_send()) == [b"u", b"a"]


class Counted(FrameSource):
    """A source that counts how often it is asked."""

    asked = 0

    def next_frame(self) -> bytes | None:
        self.asked += 1
        return super().next_frame()


def test_a_thousand_idle_sources_cost_nothing_per_turn() -> None:
    scheduler, stream = Scheduler(), OutputStream(2)
    idle = [Counted(stream, 2 * number + 1, open=True) for number in range(1000)]
    scheduler.add(*idle)
    assert scheduler.data_to_send() == b""
    busy = FrameSource(stream, 5001, response_parts(bytes(1 << 20)))
    scheduler.add(busy)
    while scheduler.data_to_send(1):
        pass
    assert busy.finished
    assert {each.asked for each in idle} == {1}


def test_what_was_made_before_a_file_failed_is_not_lost() -> None:
    def parts() -> Iterator[Part]:
        yield part(b"x1")
        yield part(b"x2")
        raise OSError("no such luck")

    scheduler, stream = Scheduler(), OutputStream(2, "zlib")
    broken = FrameSource(stream, 3, parts())
    scheduler.add(source(b"a1", b"a2", b"a3", stream=stream), broken)
    with pytest.raises(OSError, match="no such luck"):
        scheduler.data_to_send()
    assert scheduler
    rest = frames_in(scheduler.data_to_send())
    assert [frame.request_id for frame in rest] == [1, 3, 1, 1]
    assert not scheduler


def test_what_was_made_counts_the_next_time() -> None:
    def parts() -> Iterator[Part]:
        yield part(b"x")
        raise OSError("no such luck")

    scheduler = Scheduler()
    scheduler.add(source(b"a" * 92, b"b" * 92), FrameSource(OutputStream(2), 3, parts()))
    with pytest.raises(OSError, match="no such luck"):
        scheduler.data_to_send()
    assert [len(scheduler.data_to_send(100)) for _ in range(3)] == [100, 100, 0]


def test_a_source_that_is_finished_is_held_by_nobody() -> None:
    scheduler, one = Scheduler(), source(b"a")
    scheduler.add(one)
    scheduler.data_to_send()
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one
        assert gone() is None
    finally:
        gc.enable()
