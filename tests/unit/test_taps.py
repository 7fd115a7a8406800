"""Taps see each message on its way: to log, filter or rewrite it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent

from support.leaks import LoggedErrors
from txqmp.messages import Message
from txqmp.taps import Taps, log_messages


MESSAGE = Message({"event": "STOP"})

both_ways = pytest.mark.parametrize("way", ["inbound", "outbound"])


def add(taps: Taps, way: str, tap: Any) -> Any:
    return getattr(taps, f"add_{way}")(tap)


def run(taps: Taps, way: str, message: Message = MESSAGE) -> Message | None:
    result: Message | None = getattr(taps, way)(message)
    return result


@both_ways
def test_without_taps_a_message_passes(way: str) -> None:
    assert run(Taps(), way) is MESSAGE


@both_ways
def test_a_tap_sees_each_message_of_its_direction(way: str) -> None:
    taps = Taps()
    seen: list[Message] = []
    add(taps, way, lambda message: seen.append(message) or message)
    assert run(taps, way) is MESSAGE
    assert seen == [MESSAGE]
    run(taps, "outbound" if way == "inbound" else "inbound")
    assert seen == [MESSAGE]


@both_ways
def test_a_tap_may_give_another_message(way: str) -> None:
    taps = Taps()
    other = Message({"event": "RESUME"})
    add(taps, way, lambda message: other)
    assert run(taps, way) is other


@both_ways
def test_a_tap_may_hold_a_message_back_from_all_after_it(way: str) -> None:
    taps = Taps()
    seen: list[str] = []
    add(taps, way, lambda message: seen.append("first") or message)
    add(taps, way, lambda message: None)
    add(taps, way, lambda message: seen.append("third") or message)
    assert run(taps, way) is None
    assert seen == ["first"]


@both_ways
def test_taps_run_in_the_order_in_which_they_were_added(way: str) -> None:
    taps = Taps()
    for name in ("a", "b"):
        add(taps, way, lambda message, name=name: Message({"was": message["was"] + name}))
    assert run(taps, way, Message({"was": ""})) == {"was": "ab"}


@both_ways
def test_a_cancelled_tap_sees_nothing_more(way: str) -> None:
    taps = Taps()
    seen: list[Message] = []
    handle = add(taps, way, lambda message: seen.append(message) or message)
    kept = add(taps, way, lambda message: seen.append(message) or message)
    handle.cancel()
    handle.cancel()
    run(taps, way)
    assert len(seen) == 1
    kept.cancel()
    run(taps, way)
    assert len(seen) == 1


@both_ways
def test_the_same_function_can_be_two_taps(way: str) -> None:
    taps = Taps()

    def tap(message: Message) -> Message:
        return Message({"count": message["count"] + 1})

    first = add(taps, way, tap)
    add(taps, way, tap)
    assert run(taps, way, Message({"count": 0})) == {"count": 2}
    first.cancel()
    assert run(taps, way, Message({"count": 0})) == {"count": 1}


@both_ways
def test_a_tap_may_be_added_by_a_tap_and_sees_the_next_message(way: str) -> None:
    taps = Taps()
    seen: list[str] = []

    def late(message: Message) -> Message:
        seen.append("late")
        return message

    def first(message: Message) -> Message:
        if not seen:
            add(taps, way, late)
            seen.append("added")
        return message

    add(taps, way, first)
    run(taps, way)
    assert seen == ["added"]
    run(taps, way)
    assert seen == ["added", "late"]


@both_ways
def test_a_tap_that_is_cancelled_by_an_earlier_one_does_not_see_the_message(way: str) -> None:
    taps = Taps()
    seen: list[Message] = []

    def first(message: Message) -> Message:
        second.cancel()
        return message

    add(taps, way, first)
    second = add(taps, way, lambda message: seen.append(message) or message)
    assert run(taps, way) is MESSAGE
    assert seen == []


def test_an_inbound_tap_that_raises_is_passed_over_and_logged_once(
    logged_errors: LoggedErrors,
) -> None:
    taps = Taps()
    seen: list[Message] = []
    handle = taps.add_inbound(lambda message: message["no such member"])
    taps.add_inbound(lambda message: seen.append(message) or message)
    assert taps.inbound(MESSAGE) is MESSAGE
    (event,) = logged_errors.flush(KeyError)
    assert "raised; its message goes on" in formatEvent(event)
    assert taps.inbound(MESSAGE) is MESSAGE
    assert taps.inbound(MESSAGE) is MESSAGE
    assert logged_errors.flush() == []
    assert seen == [MESSAGE] * 3
    assert handle.failures == 3


def test_what_an_outbound_tap_raises_is_the_callers() -> None:
    taps = Taps()
    handle = taps.add_outbound(lambda message: message["no such member"])
    with pytest.raises(KeyError):
        taps.outbound(MESSAGE)
    assert handle.failures == 1


@pytest.mark.parametrize("result", [True, {"event": "STOP"}, b"{}", 5])
def test_an_inbound_tap_that_returns_no_message_is_passed_over(
    result: Any, logged_errors: LoggedErrors
) -> None:
    taps = Taps()
    handle = taps.add_inbound(lambda message: result)
    assert taps.inbound(MESSAGE) is MESSAGE
    assert handle.failures == 1
    logged_errors.flush(TypeError)


@pytest.mark.parametrize("result", [True, {"event": "STOP"}, b"{}", 5])
def test_an_outbound_tap_that_returns_no_message_fails_the_caller(result: Any) -> None:
    taps = Taps()
    handle = taps.add_outbound(lambda message: result)
    with pytest.raises(TypeError):
        taps.outbound(MESSAGE)
    assert handle.failures == 1


def test_the_logging_tap_logs_and_lets_pass() -> None:
    tap = log_messages(Logger(namespace="mine"), "<-")
    with capturedLogs() as events:
        assert tap(MESSAGE) is MESSAGE
    (event,) = events
    assert event["log_namespace"] == "mine"
    assert event["log_level"] is LogLevel.debug
    assert formatEvent(event) == "<- {'event': 'STOP'}"


def test_the_logging_tap_logs_at_the_level_that_is_asked_for() -> None:
    tap = log_messages(Logger(), "->", LogLevel.info)
    with capturedLogs() as events:
        tap(MESSAGE)
    assert events[0]["log_level"] is LogLevel.info


def test_the_logging_tap_logs_no_secrets_and_takes_any_text() -> None:
    tap = log_messages(Logger(), "->")
    message = Message({"execute": "{x}", "arguments": {"password": "hunter2"}})
    with capturedLogs() as events:
        tap(message)
    text = formatEvent(events[0])
    assert text == "-> {'execute': '{x}', 'arguments': {'password': '[redacted]'}}"
    assert message["arguments"]["password"] == "hunter2"
