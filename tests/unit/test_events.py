"""Events on their way: names, filters, isolation, waiting, and the end."""

from __future__ import annotations

import enum
import gc
import weakref
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from txqmp import events as events_module
from txqmp.errors import DisconnectedError, EventTimeoutError
from txqmp.events import DEFAULT_LIMIT, EventHub, EventSource, contains
from txqmp.messages import Event


@pytest.fixture
def hub(clock: Clock) -> EventHub:
    return EventHub(clock)


def event(name: str = "E", **data: Any) -> Event:
    return Event.make(name, data)


def end(hub: EventHub) -> None:
    hub.end(lambda: DisconnectedError("the session ended"))


# Names


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ((), ["STOP", "BLOCK_JOB_READY", "BLOCK_IO_ERROR", "stop"]),
        (("STOP",), ["STOP"]),
        (("STOP", "stop"), ["STOP", "stop"]),
        (("BLOCK_*",), ["BLOCK_JOB_READY", "BLOCK_IO_ERROR"]),
        (("BLOCK_*", "STOP"), ["STOP", "BLOCK_JOB_READY", "BLOCK_IO_ERROR"]),
        (("*",), ["STOP", "BLOCK_JOB_READY", "BLOCK_IO_ERROR", "stop"]),
        (("?TOP",), ["STOP"]),
        (("[!B]*",), ["STOP", "stop"]),
        (("BLOCK",), []),
        (("",), []),
    ],
)
def test_a_subscriber_gets_the_events_that_its_names_match(
    hub: EventHub, names: tuple[str, ...], wanted: list[str]
) -> None:
    seen: list[str] = []
    subscription = hub.subscribe(lambda each: seen.append(each.name), *names)
    for _ in range(2):
        seen.clear()
        for name in ("STOP", "BLOCK_JOB_READY", "BLOCK_IO_ERROR", "stop"):
            hub.publish(event(name))
        assert seen == wanted
    assert subscription.names == names


def test_an_event_is_given_once_however_many_names_match(hub: EventHub) -> None:
    seen: list[Event] = []
    hub.subscribe(seen.append, "STOP", "ST*", "*")
    hub.publish(event("STOP"))
    assert len(seen) == 1


def test_subscribers_are_called_in_the_order_in_which_they_came(hub: EventHub) -> None:
    seen: list[int] = []
    for number in range(5):
        hub.subscribe(lambda _, number=number: seen.append(number), "E" if number % 2 else "*")
    hub.publish(event())
    assert seen == [0, 1, 2, 3, 4]


def test_the_same_function_can_subscribe_twice(hub: EventHub) -> None:
    seen: list[Event] = []
    first = hub.subscribe(seen.append)
    hub.subscribe(seen.append)
    hub.publish(event())
    assert len(seen) == 2
    first.cancel()
    hub.publish(event())
    assert len(seen) == 3


def test_very_many_names_of_events_are_served(hub: EventHub) -> None:
    seen: list[str] = []
    hub.subscribe(lambda each: seen.append(each.name), "A*")
    names = [f"A{number}" for number in range(5000)] + ["A" * 10_000]
    for name in names:
        hub.publish(event(name))
        hub.publish(event("B" + name))
    assert seen == names
    assert len(hub._by_name) <= events_module._MAX_ROUTES


@pytest.mark.parametrize("wrong", [None, 5, ["STOP"], b"STOP"])
def test_a_name_that_is_no_string_is_refused(hub: EventHub, wrong: Any) -> None:
    with pytest.raises(TypeError, match="name is a string"):
        hub.subscribe(print, wrong)
    with pytest.raises(TypeError):
        hub.listen(wrong)
    with pytest.raises(TypeError):
        hub.wait_for(wrong)


# Filters


@pytest.mark.parametrize(
    ("data", "wanted", "result"),
    [
        ({"id": "j1"}, {"id": "j1"}, True),
        ({"id": "j1", "more": 1}, {"id": "j1"}, True),
        ({"id": "j2"}, {"id": "j1"}, False),
        ({}, {"id": "j1"}, False),
        ({}, {}, True),
        ({"id": None}, {"id": None}, True),
        ({}, {"id": None}, False),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1}}}, True),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, False),
        ({"a": 1}, {"a": {"b": 1}}, False),
        ({"a": {"b": 1}}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": {"b": 1}}, MappingProxyType({"a": MappingProxyType({"b": 1})}), True),
    ],
)
def test_a_mapping_lets_pass_what_contains_it(
    hub: EventHub, data: Any, wanted: Any, result: bool
) -> None:
    seen: list[Event] = []
    hub.subscribe(seen.append, where=wanted)
    hub.publish(Event({"event": "E", "data": data}))
    assert bool(seen) is result
    assert contains(data, wanted) is result


def test_true_is_not_one(hub: EventHub) -> None:
    # As for ids: JSON's true is no number.
    assert not contains({"x": 1}, {"x": True})
    assert not contains({"x": False}, {"x": 0})
    assert contains({"x": 1.0}, {"x": 1})


def test_what_is_wanted_may_be_a_member_of_an_enum_of_strings(hub: EventHub) -> None:
    class Status(str, enum.Enum):
        READY = "ready"

    assert contains({"status": "ready", "more": [1]}, {"status": Status.READY})
    assert contains({"list": ["ready"]}, {"list": [Status.READY]})
    assert not contains({"status": "standby"}, {"status": Status.READY})


def test_an_event_without_data_contains_nothing(hub: EventHub) -> None:
    seen: list[Event] = []
    hub.subscribe(seen.append, where={"id": 1})
    hub.publish(Event({"event": "E"}))
    assert seen == []


def test_a_predicate_is_asked_with_the_event(hub: EventHub) -> None:
    seen: list[Event] = []
    hub.subscribe(seen.append, where=lambda each: each.data.get("n", 0) > 1)
    for number in range(4):
        hub.publish(event(n=number))
    assert [each.data["n"] for each in seen] == [2, 3]


@pytest.mark.parametrize("wrong", [5, "id", ["id"]])
def test_a_filter_that_is_none_is_refused(hub: EventHub, wrong: Any) -> None:
    with pytest.raises(TypeError, match="where is a function or a mapping"):
        hub.subscribe(print, where=wrong)


def test_a_callback_that_cannot_be_called_is_refused(hub: EventHub) -> None:
    with pytest.raises(TypeError, match="cannot call 'STOP'"):
        hub.subscribe("STOP")  # type: ignore[arg-type]


# Isolation


def test_a_callback_that_raises_hurts_nobody_and_is_logged_once(
    hub: EventHub, logged_errors: LoggedErrors
) -> None:
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise ZeroDivisionError

    subscription = hub.subscribe(broken)
    hub.subscribe(seen.append)
    for _ in range(2):
        hub.publish(event())
    assert len(seen) == 2
    assert subscription.failures == 2
    assert subscription.active
    (logged,) = logged_errors.flush(ZeroDivisionError)
    assert "broken" in formatEvent(logged)
    with capturedLogs() as logs:
        subscription.cancel()
    assert "failed on 2 events" in formatEvent(logs[0])


def test_a_subscription_with_one_failure_ends_silently(
    hub: EventHub, logged_errors: LoggedErrors
) -> None:
    subscription = hub.subscribe(lambda each: each.data["missing"])
    hub.publish(event())
    logged_errors.flush(KeyError)
    with capturedLogs() as logs:
        subscription.cancel()
    assert logs == []


def test_a_filter_that_raises_hurts_nobody_and_is_logged_once(
    hub: EventHub, logged_errors: LoggedErrors
) -> None:
    seen: list[Event] = []
    subscription = hub.subscribe(seen.append, where=lambda each: each.data["missing"] == 1)
    hub.subscribe(seen.append)
    for _ in range(3):
        hub.publish(event())
    assert len(seen) == 3
    assert subscription.failures == 3
    assert len(logged_errors.flush(KeyError)) == 1


def test_what_is_logged_of_a_failure_has_no_secrets(
    hub: EventHub, logged_errors: LoggedErrors
) -> None:
    hub.subscribe(lambda each: each.data["missing"])
    hub.publish(event(password="hunter2"))
    (logged,) = logged_errors.flush(KeyError)
    assert "hunter2" not in formatEvent(logged)
    assert "[redacted]" in formatEvent(logged)


def test_a_waiter_whose_filter_raises_goes_on_waiting(
    hub: EventHub, logged_errors: LoggedErrors
) -> None:
    waiting = hub.wait_for(where=lambda each: each.data["n"] == 1)
    hub.publish(event())
    pending(waiting)
    hub.publish(event(n=1))
    success(waiting)
    logged_errors.flush(KeyError)


# Callbacks that take their time


def test_a_coroutine_is_run(hub: EventHub) -> None:
    seen: list[str] = []
    gate: Deferred[None] = Deferred()

    async def slow(each: Event) -> None:
        await gate
        seen.append(each.name)

    hub.subscribe(slow)
    hub.publish(event("A"))
    hub.publish(event("B"))
    assert seen == []
    gate.callback(None)
    assert "A" in seen


@pytest.mark.parametrize("kind", ["coroutine", "Deferred", "failed Deferred"])
def test_what_a_callback_fails_with_later_is_logged_once(
    hub: EventHub, logged_errors: LoggedErrors, kind: str
) -> None:
    gates: list[Deferred[None]] = []

    def callback(_: Event) -> Any:
        if kind == "failed Deferred":
            return fail(ZeroDivisionError())
        gates.append(Deferred())
        return gates[-1] if kind == "Deferred" else wait(gates[-1])

    async def wait(gate: Deferred[None]) -> None:
        await gate

    subscription = hub.subscribe(callback)
    for _ in range(2):
        hub.publish(event())
    for gate in gates:
        gate.errback(ZeroDivisionError())
    assert subscription.failures == 2
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_a_cancelled_answer_is_no_failure(hub: EventHub) -> None:
    gate: Deferred[None] = Deferred()
    subscription = hub.subscribe(lambda _: gate)
    hub.publish(event())
    gate.cancel()
    assert subscription.failures == 0


@pytest.mark.parametrize("result", [5, "done", [1], object()])
def test_what_else_a_callback_returns_means_nothing(hub: EventHub, result: object) -> None:
    subscription = hub.subscribe(lambda _: result)
    hub.publish(event())
    assert subscription.failures == 0


def test_too_many_unfinished_answers_drop_events_and_count(hub: EventHub) -> None:
    gates: list[Deferred[None]] = []

    def callback(_: Event) -> Deferred[None]:
        gates.append(Deferred())
        return gates[-1]

    subscription = hub.subscribe(callback)
    for _ in range(DEFAULT_LIMIT + 5):
        hub.publish(event())
    assert len(gates) == DEFAULT_LIMIT
    assert subscription.dropped == 5
    gates[7].callback(None)
    hub.publish(event())
    hub.publish(event())
    assert len(gates) == DEFAULT_LIMIT + 1
    assert subscription.dropped == 6
    for gate in gates:
        if not gate.called:
            gate.callback(None)
    for _ in range(DEFAULT_LIMIT):
        hub.publish(event())
    assert subscription.dropped == 6


def test_events_that_the_filter_holds_back_are_not_dropped(hub: EventHub) -> None:
    subscription = hub.subscribe(lambda _: Deferred(), where=lambda each: each.name == "E")
    for _ in range(DEFAULT_LIMIT):
        hub.publish(event())
    hub.publish(event("OTHER"))
    assert subscription.dropped == 0


def test_answers_that_are_done_at_once_are_never_too_many(hub: EventHub) -> None:
    subscription = hub.subscribe(lambda _: succeed(None))
    for _ in range(DEFAULT_LIMIT + 5):
        hub.publish(event())
    assert subscription.dropped == 0


def test_an_answer_may_end_after_the_subscription(hub: EventHub) -> None:
    gates: list[Deferred[None]] = []

    def callback(_: Event) -> Deferred[None]:
        gates.append(Deferred())
        return gates[-1]

    subscription = hub.subscribe(callback)
    hub.publish(event())
    subscription.cancel()
    gates[0].callback(None)
    hub.publish(event())
    assert len(gates) == 1
    assert not subscription.active


def test_the_last_answer_may_come_from_a_callback_that_cancelled_itself(hub: EventHub) -> None:
    def callback(_: Event) -> Deferred[None]:
        subscription.cancel()
        return Deferred()

    subscription = hub.subscribe(callback)
    hub.publish(event())
    assert not subscription.active


# Changes while an event is given


def test_a_callback_is_never_compared_with_anything(hub: EventHub) -> None:
    class Strange:
        seen = 0

        def __call__(self, _: Event) -> None:
            self.seen += 1

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    callback = Strange()
    subscription = hub.subscribe(callback)
    hub.publish(event())
    assert subscription.active
    subscription.cancel()
    hub.publish(event())
    assert callback.seen == 1


def test_a_cancelled_subscription_gets_nothing_more(hub: EventHub) -> None:
    seen: list[Event] = []
    subscription = hub.subscribe(seen.append)
    assert subscription.active
    subscription.cancel()
    subscription.cancel()
    hub.publish(event())
    assert seen == []
    assert not subscription.active


def test_a_subscriber_cancelled_by_an_earlier_one_does_not_get_the_event(hub: EventHub) -> None:
    seen: list[Event] = []
    hub.subscribe(lambda _: later.cancel())
    later = hub.subscribe(seen.append)
    hub.publish(event())
    assert seen == []


def test_the_filter_of_a_cancelled_subscription_is_not_asked(hub: EventHub) -> None:
    asked: list[Event] = []
    hub.subscribe(lambda _: later.cancel())
    later = hub.subscribe(lambda _: None, where=asked.append)
    hub.publish(event())
    assert asked == []


def test_a_cancelled_subscription_is_forgotten(hub: EventHub) -> None:
    class Callback:
        def __call__(self, _: Event) -> None:
            pass

    callback = Callback()
    seen = weakref.ref(callback)
    subscription = hub.subscribe(callback)
    hub.publish(event())
    subscription.cancel()
    del callback, subscription
    gc.collect()
    assert seen() is None


def test_a_subscriber_may_cancel_itself(hub: EventHub) -> None:
    seen: list[str] = []

    def once(each: Event) -> None:
        seen.append(each.name)
        subscription.cancel()

    subscription = hub.subscribe(once)
    hub.publish(event("A"))
    hub.publish(event("B"))
    assert seen == ["A"]


def test_who_subscribes_while_an_event_is_given_gets_the_next(hub: EventHub) -> None:
    seen: list[str] = []

    def first(each: Event) -> None:
        if each.name == "A":
            hub.subscribe(lambda later: seen.append(later.name))

    hub.subscribe(first)
    hub.publish(event("A"))
    assert seen == []
    hub.publish(event("B"))
    assert seen == ["B"]


def test_a_callback_may_publish(hub: EventHub) -> None:
    seen: list[str] = []
    hub.subscribe(lambda _: hub.publish(event("B")), "A")
    hub.subscribe(lambda each: seen.append(each.name))
    hub.publish(event("A"))
    assert seen == ["B", "A"]


def test_the_decorator_subscribes_and_leaves_the_function(hub: EventHub) -> None:
    seen: list[Event] = []

    @hub.on_event("STOP", where={"n": 1})
    def callback(each: Event) -> None:
        seen.append(each)

    hub.publish(event("STOP", n=1))
    hub.publish(event("STOP", n=2))
    hub.publish(event("RESUME", n=1))
    assert len(seen) == 1
    callback(event())
    assert len(seen) == 2


# Waiting


def test_a_waiter_gets_the_next_event_that_matches_and_one_only(hub: EventHub) -> None:
    waiting = hub.wait_for("STOP", where={"n": 2})
    hub.publish(event("RESUME", n=2))
    hub.publish(event("STOP", n=1))
    pending(waiting)
    hub.publish(event("STOP", n=2, first=True))
    hub.publish(event("STOP", n=2))
    assert success(waiting).data == {"n": 2, "first": True}


def test_a_waiter_fails_at_exactly_its_time_limit(hub: EventHub, clock: Clock) -> None:
    waiting = hub.wait_for("STOP", timeout=5)
    clock.advance(4.999)
    pending(waiting)
    clock.advance(0.001)
    error = failure(waiting, EventTimeoutError).value
    assert isinstance(error, EventTimeoutError)
    assert (error.names, error.timeout) == (("STOP",), 5)
    hub.publish(event("STOP"))


def test_an_event_in_time_ends_the_limit(hub: EventHub, clock: Clock) -> None:
    waiting = hub.wait_for("STOP", timeout=5)
    clock.advance(4)
    hub.publish(event("STOP"))
    success(waiting)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_limit_of_nothing_passes_in_the_next_turn(
    hub: EventHub, clock: Clock, timeout: float
) -> None:
    waiting = hub.wait_for(timeout=timeout)
    pending(waiting)
    clock.advance(0)
    failure(waiting, EventTimeoutError)


def test_a_cancelled_waiter_leaves_nothing(hub: EventHub, clock: Clock) -> None:
    waiting = hub.wait_for("STOP", timeout=5)
    waiting.cancel()
    failure(waiting, CancelledError)
    assert clock.getDelayedCalls() == []
    hub.publish(event("STOP"))
    end(hub)


def test_one_event_serves_all_who_wait_for_it(hub: EventHub) -> None:
    waiting = [hub.wait_for("STOP") for _ in range(3)]
    hub.publish(event("STOP"))
    for each in waiting:
        success(each)


def test_a_waiter_may_cancel_another_of_the_same_event(hub: EventHub) -> None:
    first, second = hub.wait_for("STOP"), hub.wait_for("STOP")
    first.addCallback(lambda _: second.cancel())
    hub.publish(event("STOP"))
    success(first)
    failure(second, CancelledError)


def test_who_waits_again_in_the_callback_gets_the_next_event(hub: EventHub) -> None:
    again: list[Deferred[Event]] = []
    hub.wait_for("STOP").addCallback(lambda _: again.append(hub.wait_for("STOP")))
    hub.publish(event("STOP", n=1))
    pending(again[0])
    hub.publish(event("STOP", n=2))
    assert success(again[0]).data["n"] == 2


@pytest.mark.parametrize("how", ["event", "timeout", "cancel"])
def test_a_waiter_that_is_served_is_forgotten(hub: EventHub, clock: Clock, how: str) -> None:
    waiting = hub.wait_for("STOP", timeout=5)
    waiting.addErrback(lambda _: None)
    seen = weakref.ref(waiting)
    if how == "event":
        hub.publish(event("STOP"))
    elif how == "timeout":
        clock.advance(5)
    else:
        waiting.cancel()
    del waiting
    gc.collect()
    assert seen() is None


# The end


def test_at_the_end_each_waiter_fails_with_an_error_of_its_own(hub: EventHub, clock: Clock) -> None:
    one, other = hub.wait_for("STOP", timeout=5), hub.wait_for()
    end(hub)
    errors = [failure(each, DisconnectedError).value for each in (one, other)]
    assert errors[0] is not errors[1]
    assert clock.getDelayedCalls() == []


def test_after_the_end_waiting_fails_at_once(hub: EventHub, clock: Clock) -> None:
    end(hub)
    failure(hub.wait_for("STOP", timeout=5), DisconnectedError)
    assert clock.getDelayedCalls() == []


def test_at_the_end_a_waiter_may_cancel_another(hub: EventHub) -> None:
    first, second, third = (hub.wait_for() for _ in range(3))
    listening = hub.listen().get()
    first.addErrback(lambda _: second.cancel())
    end(hub)
    success(first)
    failure(second, CancelledError)
    failure(third, DisconnectedError)
    failure(listening, DisconnectedError)


def test_at_the_end_a_waiter_may_end_listening(hub: EventHub) -> None:
    listener = hub.listen()
    listening = listener.get()
    hub.wait_for().addErrback(lambda _: listener.close())
    end(hub)
    assert str(failure(listening, DisconnectedError).value) == "the listener is closed"


def test_who_waits_again_at_the_end_fails_at_once(hub: EventHub) -> None:
    again: list[Deferred[Event]] = []
    hub.wait_for().addErrback(lambda _: again.append(hub.wait_for()))
    end(hub)
    failure(again[0], DisconnectedError)


def test_subscriptions_outlive_the_end(hub: EventHub) -> None:
    seen: list[Event] = []
    hub.subscribe(seen.append)
    end(hub)
    hub.begin()
    hub.publish(event())
    assert len(seen) == 1
    waiting = hub.wait_for()
    hub.publish(event())
    success(waiting)


# On an object that has a hub


def test_an_event_source_has_the_same_verbs(hub: EventHub, clock: Clock) -> None:
    class Source(EventSource):
        events = hub

    source = Source()
    seen: list[str] = []
    source.subscribe(lambda _: seen.append("subscribe"), "STOP", where={"n": 1})
    source.on_event("STOP", where={"n": 1})(lambda _: seen.append("on_event"))
    listener = source.listen("STOP", where={"n": 1}, limit=1, overflow="drop_newest", history=2)
    waiting = source.wait_for("STOP", where={"n": 1}, timeout=5)
    for name, number in (("RESUME", 1), ("STOP", 2), ("STOP", 1), ("STOP", 1)):
        hub.publish(event(name, n=number))
    assert seen == ["subscribe", "on_event"] * 2
    assert (len(listener), listener.dropped, len(listener.history)) == (1, 1, 2)
    assert success(waiting).name == "STOP"
    failing = source.wait_for("STOP", timeout=5)
    clock.advance(5)
    failure(failing, EventTimeoutError)
