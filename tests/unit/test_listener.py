"""A bounded queue of events: nothing lost silently, and an end for whoever waits."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from support.deferreds import failure, pending, success
from txqmp.errors import DisconnectedError, EventTimeoutError, ListenerOverflowError
from txqmp.events import DEFAULT_LIMIT, EventHub
from txqmp.listener import Listener
from txqmp.messages import Event


@pytest.fixture
def hub(clock: Clock) -> EventHub:
    return EventHub(clock)


def event(number: int = 0, name: str = "E") -> Event:
    return Event.make(name, {"n": number})


def publish(hub: EventHub, *numbers: int) -> None:
    for number in numbers:
        hub.publish(event(number))


def numbers(events: Any) -> list[int]:
    return [each.data["n"] for each in events]


def end(hub: EventHub, *, expected: bool = False) -> None:
    hub.end(lambda: DisconnectedError("the session ended", expected=expected))


# Taking events


def test_events_are_taken_in_the_order_in_which_they_came(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1, 2, 3)
    assert numbers(success(listener.get()) for _ in range(3)) == [1, 2, 3]


def test_who_asks_first_gets_the_first_event(hub: EventHub) -> None:
    listener = hub.listen()
    one, other = listener.get(), listener.get()
    publish(hub, 1)
    pending(other)
    publish(hub, 2, 3)
    assert numbers([success(one), success(other)]) == [1, 2]
    assert len(listener) == 1


def test_a_cancelled_get_loses_no_event(hub: EventHub) -> None:
    listener = hub.listen()
    gone, kept = listener.get(), listener.get()
    gone.cancel()
    failure(gone, CancelledError)
    publish(hub, 1)
    assert success(kept).data["n"] == 1
    assert listener.empty


def test_a_get_fails_at_exactly_its_time_limit_and_loses_no_event(
    hub: EventHub, clock: Clock
) -> None:
    listener = hub.listen("E", "F")
    late, patient = listener.get(timeout=5), listener.get()
    clock.advance(4.999)
    pending(late)
    clock.advance(0.001)
    error = failure(late, EventTimeoutError).value
    assert isinstance(error, EventTimeoutError)
    assert (error.names, error.timeout) == (("E", "F"), 5)
    publish(hub, 1)
    assert success(patient).data["n"] == 1


@pytest.mark.parametrize("how", ["event", "cancel", "close", "end"])
def test_a_get_that_is_over_in_time_leaves_no_limit(hub: EventHub, clock: Clock, how: str) -> None:
    listener = hub.listen()
    deferred = listener.get(timeout=5)
    if how == "event":
        publish(hub, 1)
        success(deferred)
    elif how == "cancel":
        deferred.cancel()
        failure(deferred, CancelledError)
    else:
        listener.close() if how == "close" else end(hub)
        failure(deferred, DisconnectedError)
    assert clock.getDelayedCalls() == []


def test_an_event_that_waits_is_taken_at_once_whatever_the_limit(
    hub: EventHub, clock: Clock
) -> None:
    listener = hub.listen()
    publish(hub, 1)
    success(listener.get(timeout=0))
    empty = listener.get(timeout=-1)
    clock.advance(0)
    failure(empty, EventTimeoutError)


def test_how_many_events_wait_is_known(hub: EventHub) -> None:
    listener = hub.listen()
    assert (len(listener), listener.empty) == (0, True)
    publish(hub, 1, 2)
    assert (len(listener), listener.empty) == (2, False)
    success(listener.get())
    assert len(listener) == 1


def test_clear_takes_all_events_that_wait(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1, 2)
    assert numbers(listener.clear()) == [1, 2]
    assert listener.empty
    assert listener.clear() == []
    publish(hub, 3)
    assert numbers(listener.clear()) == [3]


def test_only_what_was_asked_for_is_queued(hub: EventHub) -> None:
    listener = hub.listen("JOB_*", where={"n": 2})
    for number in (1, 2):
        hub.publish(event(number, "JOB_STATUS_CHANGE"))
        hub.publish(event(number, "STOP"))
    assert [(each.name, each.data["n"]) for each in listener.clear()] == [("JOB_STATUS_CHANGE", 2)]


def test_it_listens_from_the_call_on(hub: EventHub) -> None:
    publish(hub, 1)
    listener = hub.listen()
    publish(hub, 2)
    assert numbers(listener.clear()) == [2]


# A full queue


def test_a_full_queue_drops_the_oldest_and_counts(hub: EventHub) -> None:
    listener = hub.listen(limit=3)
    publish(hub, *range(5))
    assert listener.dropped == 2
    assert numbers(listener.clear()) == [2, 3, 4]


def test_a_full_queue_may_drop_the_newest_and_count(hub: EventHub) -> None:
    listener = hub.listen(limit=3, overflow="drop_newest")
    publish(hub, *range(5))
    assert listener.dropped == 2
    assert numbers(listener.clear()) == [0, 1, 2]


def test_a_full_queue_may_end_the_listener(hub: EventHub) -> None:
    listener = hub.listen(limit=3, overflow="fail")
    publish(hub, *range(5))
    assert numbers(success(listener.get()) for _ in range(3)) == [0, 1, 2]
    assert "3 events wait, and one more came" in str(
        failure(listener.get(), ListenerOverflowError).value
    )
    publish(hub, 5)
    assert listener.empty
    failure(listener.get(), ListenerOverflowError)


def test_exactly_as_many_as_fit_are_kept(hub: EventHub) -> None:
    listener = hub.listen(limit=3, overflow="fail")
    publish(hub, 0, 1, 2)
    assert listener.dropped == 0
    success(listener.get())
    publish(hub, 3)
    assert numbers(listener.clear()) == [1, 2, 3]
    pending(listener.get())


def test_what_is_waited_for_never_fills_the_queue(hub: EventHub) -> None:
    listener = hub.listen(limit=1, overflow="fail")
    for number in range(5):
        deferred = listener.get()
        publish(hub, number)
        assert success(deferred).data["n"] == number


def test_an_overflow_stays_the_reason_when_the_session_ends_later(hub: EventHub) -> None:
    listener = hub.listen(limit=1, overflow="fail")
    publish(hub, 1, 2)
    end(hub)
    listener.clear()
    failure(listener.get(), ListenerOverflowError)


def test_a_listener_that_nobody_reads_stays_at_its_limit(hub: EventHub) -> None:
    listener = hub.listen()
    one = event()
    for _ in range(200_000):
        hub.publish(one)
    assert len(listener) == DEFAULT_LIMIT
    assert listener.dropped == 200_000 - DEFAULT_LIMIT


@pytest.mark.parametrize("limit", [0, -1])
def test_a_listener_that_can_hold_nothing_is_refused(hub: EventHub, limit: int) -> None:
    with pytest.raises(ValueError, match=f"cannot hold {limit} events"):
        hub.listen(limit=limit)
    publish(hub, 1)


def test_a_policy_that_does_not_exist_is_refused(hub: EventHub) -> None:
    with pytest.raises(ValueError, match="no such overflow policy: 'block'"):
        hub.listen(overflow="block")  # type: ignore[arg-type]


# History


def test_history_keeps_the_last_events_taken_or_not(hub: EventHub) -> None:
    listener = hub.listen(history=2)
    waiting = listener.get()
    publish(hub, 1, 2, 3)
    success(waiting)
    assert numbers(listener.history) == [2, 3]
    listener.clear()
    assert numbers(listener.history) == [2, 3]


def test_history_has_what_a_full_queue_dropped(hub: EventHub) -> None:
    listener = hub.listen(limit=1, overflow="drop_newest", history=5)
    publish(hub, 1, 2, 3)
    assert numbers(listener.history) == [1, 2, 3]


def test_there_is_no_history_unless_asked_for(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1)
    assert listener.history == ()


def test_a_negative_history_is_refused(hub: EventHub) -> None:
    with pytest.raises(ValueError):
        hub.listen(history=-1)


# Ends


def test_closing_tells_who_waits_and_keeps_what_waits(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1)
    success(listener.get())
    waiting = [listener.get(), listener.get()]
    listener.close()
    errors = [failure(deferred, DisconnectedError).value for deferred in waiting]
    assert errors[0] is not errors[1]
    assert all(error.expected for error in errors)  # type: ignore[attr-defined]


def test_what_waits_can_be_taken_after_closing(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1)
    listener.close()
    listener.close()
    publish(hub, 2)
    assert success(listener.get()).data["n"] == 1
    error = failure(listener.get(), DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert str(error) == "the listener is closed"
    assert error.expected


@pytest.mark.parametrize("how", ["close", "end", "overflow"])
def test_a_listener_that_is_over_is_forgotten(hub: EventHub, how: str) -> None:
    listener = hub.listen(limit=1, overflow="fail")
    seen = weakref.ref(listener)
    if how == "close":
        listener.close()
    elif how == "end":
        end(hub)
    else:
        publish(hub, 1, 2)
    del listener
    gc.collect()
    assert seen() is None


def test_a_with_block_closes(hub: EventHub) -> None:
    with hub.listen() as listener:
        publish(hub, 1)
    publish(hub, 2)
    assert numbers(listener.clear()) == [1]


def test_the_end_of_the_session_tells_who_waits(hub: EventHub) -> None:
    listener = hub.listen()
    waiting = listener.get()
    end(hub)
    assert str(failure(waiting, DisconnectedError).value) == "the session ended"


def test_what_waits_can_be_taken_after_the_session(hub: EventHub) -> None:
    listener = hub.listen()
    publish(hub, 1)
    end(hub)
    assert success(listener.get()).data["n"] == 1
    one, other = (failure(listener.get(), DisconnectedError).value for _ in range(2))
    assert one is not other


def test_a_listener_of_an_ended_session_ends_at_once(hub: EventHub) -> None:
    end(hub)
    failure(hub.listen().get(), DisconnectedError)


def test_a_listener_that_ended_does_not_begin_again(hub: EventHub) -> None:
    listener = hub.listen()
    end(hub)
    hub.begin()
    publish(hub, 1)
    failure(listener.get(), DisconnectedError)
    fresh = hub.listen()
    publish(hub, 2)
    assert numbers(fresh.clear()) == [2]


def test_a_closed_listener_is_not_told_of_the_sessions_end(hub: EventHub) -> None:
    listener = hub.listen()
    listener.close()
    end(hub)
    assert str(failure(listener.get(), DisconnectedError).value) == "the listener is closed"


@pytest.mark.parametrize("how", ["close", "end"])
def test_who_is_told_of_the_end_may_cancel_the_others(hub: EventHub, how: str) -> None:
    listener = hub.listen()
    first, second, third = (listener.get() for _ in range(3))
    first.addErrback(lambda _: second.cancel())
    if how == "close":
        listener.close()
    else:
        end(hub)
    success(first)
    failure(second, CancelledError)
    failure(third, DisconnectedError)


def test_who_is_told_of_the_end_finds_the_listener_ended(hub: EventHub) -> None:
    listener = hub.listen()
    again: list[Deferred[Event]] = []
    listener.get().addErrback(lambda _: again.append(listener.get()))
    end(hub)
    failure(again[0], DisconnectedError)


def test_a_callback_of_an_event_may_close_the_listener(hub: EventHub) -> None:
    listener = hub.listen()
    listener.get().addCallback(lambda _: listener.close())
    publish(hub, 1, 2)
    assert listener.empty


def test_a_listener_closed_by_an_earlier_subscriber_gets_nothing(hub: EventHub) -> None:
    hub.subscribe(lambda _: listener.close())
    listener = hub.listen()
    publish(hub, 1)
    assert listener.empty


# async for


def follow(listener: Listener, into: list[int], stop_at: int | None = None) -> Deferred[str]:
    async def run() -> str:
        async for each in listener:
            into.append(each.data["n"])
            if each.data["n"] == stop_at:
                return "stopped"
        return "ended"

    return Deferred.fromCoroutine(run())


def test_async_for_gives_the_events_as_they_come(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    publish(hub, 1)
    running = follow(listener, seen)
    assert seen == [1]
    publish(hub, 2, 3)
    assert seen == [1, 2, 3]
    pending(running)
    listener.close()
    assert success(running) == "ended"


def test_async_for_ends_with_the_session_when_that_was_expected(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    publish(hub, 1)
    running = follow(listener, seen)
    end(hub, expected=True)
    assert (success(running), seen) == ("ended", [1])


def test_async_for_raises_when_the_sessions_end_was_not_expected(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    running = follow(listener, seen)
    end(hub, expected=False)
    failure(running, DisconnectedError)


def test_async_for_gives_what_waits_before_it_ends(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    publish(hub, 1, 2)
    end(hub)
    failure(follow(listener, seen), DisconnectedError)
    assert seen == [1, 2]


def test_async_for_raises_when_the_queue_was_too_full(hub: EventHub) -> None:
    listener, seen = hub.listen(limit=1, overflow="fail"), list[int]()
    publish(hub, 1, 2)
    failure(follow(listener, seen), ListenerOverflowError)
    assert seen == [1]


def test_async_for_can_be_left_and_taken_up_again(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    publish(hub, 1, 2, 3)
    assert success(follow(listener, seen, stop_at=2)) == "stopped"
    running = follow(listener, seen)
    listener.close()
    success(running)
    assert seen == [1, 2, 3]


def test_cancelling_who_follows_loses_no_event(hub: EventHub) -> None:
    listener, seen = hub.listen(), list[int]()
    running = follow(listener, seen)
    running.cancel()
    failure(running, CancelledError)
    publish(hub, 1)
    assert numbers(listener.clear()) == [1]
