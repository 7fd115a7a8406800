"""The messages of QMP: their shapes, their members, and nothing lost."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.transports import STOP, greeting
from txqmp.errors import ObjectTypeError
from txqmp.messages import (
    NO_ID,
    Command,
    ErrorInfo,
    ErrorReply,
    Event,
    Greeting,
    Message,
    SuccessReply,
    Timestamp,
    parse_message,
)


ERROR = {"error": {"class": "GenericError", "desc": "no"}, "id": 7}


# Greeting


def test_a_greeting_has_version_package_and_capabilities() -> None:
    hello = Greeting(greeting("oob", "x-new"))
    assert hello.version == (7, 2, 22)
    assert hello.package == "Debian"
    assert hello.capabilities == ("oob", "x-new")
    assert hello.extra == {}


def test_a_greeting_may_lack_the_package() -> None:
    raw = greeting()
    del raw["QMP"]["version"]["package"]
    assert Greeting(raw).package == ""


def test_what_is_no_name_is_no_capability() -> None:
    raw = greeting("oob")
    raw["QMP"]["capabilities"].append({"name": "new"})
    assert Greeting(raw).capabilities == ("oob",)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"QMP": []},
        {"QMP": {}},
        {"QMP": {"version": {}, "capabilities": []}},
        {"QMP": {"version": [], "capabilities": []}},
        {"QMP": {"version": {"qemu": {"major": 7, "minor": 2}}, "capabilities": []}},
        {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": "1"}}, "capabilities": []}},
        {"QMP": {"version": {"qemu": {"major": True, "minor": 2, "micro": 1}}, "capabilities": []}},
        {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 1}}}},
        {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 1}}, "capabilities": {}}},
        {
            "QMP": {
                "version": {"qemu": {"major": 7, "minor": 2, "micro": 1}, "package": 5},
                "capabilities": [],
            }
        },
    ],
    ids=json.dumps,
)
def test_a_greeting_of_the_wrong_shape_is_refused_and_shown(raw: Any) -> None:
    with pytest.raises(ObjectTypeError, match="not a QMP greeting") as caught:
        Greeting(raw)
    assert caught.value.raw is raw


def test_unknown_members_of_a_greeting_are_kept() -> None:
    raw = greeting()
    raw["QMP"]["new"] = 1
    raw["newer"] = 2
    assert Greeting(raw).extra == {"new": 1, "newer": 2}
    with pytest.raises(ObjectTypeError, match="unknown member of Greeting: new, newer"):
        Greeting.parse(raw, strict=True)


# Command


def test_a_command_has_name_arguments_and_id() -> None:
    command = Command({"execute": "block_resize", "arguments": {"size": 1}, "id": "x"})
    assert (command.name, command.arguments, command.id) == ("block_resize", {"size": 1}, "x")
    assert not command.oob


def test_a_command_may_be_out_of_band() -> None:
    command = Command({"exec-oob": "yank"})
    assert (command.name, command.oob) == ("yank", True)


def test_a_command_without_arguments_and_id_has_none() -> None:
    command = Command({"execute": "stop"})
    assert (command.arguments, command.id) == ({}, NO_ID)


def test_an_id_of_null_is_an_id() -> None:
    assert Command({"execute": "stop", "id": None}).id is None
    assert SuccessReply({"return": {}, "id": None}).id is None
    assert ErrorReply({**ERROR, "id": None}).id is None


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"arguments": {}},
        {"execute": 5},
        {"execute": None},
        {"exec-oob": ["x"]},
        {"execute": "a", "exec-oob": "b"},
    ],
    ids=json.dumps,
)
def test_a_command_names_one_thing_to_execute(raw: Any) -> None:
    with pytest.raises(ObjectTypeError, match="names one of execute, exec-oob"):
        Command(raw)


@pytest.mark.parametrize("arguments", [None, [], "x", 5])
def test_the_arguments_of_a_command_are_an_object(arguments: Any) -> None:
    with pytest.raises(ObjectTypeError, match="arguments of a command are an object"):
        Command({"execute": "x", "arguments": arguments})


def test_a_command_is_made_from_its_parts() -> None:
    assert Command.make("stop").raw == {"execute": "stop"}
    assert Command.make("x", {"a": 1}, id=5).raw == {
        "execute": "x",
        "arguments": {"a": 1},
        "id": 5,
    }
    assert Command.make("x", {}, oob=True, id=None).raw == {
        "exec-oob": "x",
        "arguments": {},
        "id": None,
    }
    with pytest.raises(ObjectTypeError):
        Command.make(5)  # type: ignore[arg-type]


# Replies


def test_a_success_has_value_and_id() -> None:
    reply = SuccessReply({"return": [1], "id": 7})
    assert (reply.value, reply.id) == ([1], 7)
    assert SuccessReply({"return": {}}).id is NO_ID


def test_an_error_has_class_text_and_id() -> None:
    reply = ErrorReply(ERROR)
    assert reply.error == ErrorInfo("GenericError", "no")
    assert (reply.error.error_class, reply.error.desc, reply.id) == ("GenericError", "no", 7)
    assert ErrorReply({"error": ERROR["error"]}).id is NO_ID


@pytest.mark.parametrize("raw", [{}, {"id": 1}, {"return": {}, **ERROR}], ids=json.dumps)
def test_a_success_of_the_wrong_shape_is_refused(raw: Any) -> None:
    with pytest.raises(ObjectTypeError, match="not a success reply"):
        SuccessReply(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"error": "no"},
        {"error": {}},
        {"error": {"class": "GenericError"}},
        {"error": {"class": "GenericError", "desc": 5}},
        {"error": {"class": 5, "desc": "no"}},
        {"return": {}, **ERROR},
    ],
    ids=json.dumps,
)
def test_an_error_of_the_wrong_shape_is_refused(raw: Any) -> None:
    with pytest.raises(ObjectTypeError, match="not an error reply"):
        ErrorReply(raw)


def test_unknown_members_of_an_error_are_kept() -> None:
    raw = {"error": {"class": "GenericError", "desc": "no", "hint": "h"}, "id": 1, "new": 2}
    assert ErrorReply(raw).extra == {"hint": "h", "new": 2}
    with pytest.raises(ObjectTypeError, match="hint, new"):
        ErrorReply.parse(raw, strict=True)


# Events


def test_an_event_has_name_data_and_timestamp() -> None:
    event = Event(
        {"event": "E", "data": {"a": 1}, "timestamp": {"seconds": 5, "microseconds": 250_000}}
    )
    assert (event.name, event.data) == ("E", {"a": 1})
    assert event.timestamp == Timestamp(5, 250_000)
    assert event.timestamp.known


def test_an_event_may_lack_data_and_timestamp() -> None:
    event = Event({"event": "E"})
    assert event.data == {}
    assert event.timestamp == Timestamp(-1, -1)
    assert not event.timestamp.known


@pytest.mark.parametrize("make", [Event, Event.of, Event.parse])
@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({}, "the name of an event is a string"),
        ({"event": 5}, "the name of an event is a string"),
        ({"event": "E", "data": None}, "the data of an event are an object"),
        ({"event": "E", "data": []}, "the data of an event are an object"),
        ({**STOP, "event": 5}, "the name of an event is a string"),
        ({**STOP, "data": None}, "the data of an event are an object"),
        ({"event": "E", "timestamp": 5}, "the timestamp of an event"),
        ({"event": "E", "timestamp": {"seconds": 1}}, "the timestamp of an event"),
        ({"event": "E", "timestamp": {"microseconds": 1}}, "the timestamp of an event"),
        (
            {"event": "E", "timestamp": {"seconds": 1.5, "microseconds": 1}},
            "the timestamp of an event",
        ),
        (
            {"event": "E", "timestamp": {"seconds": 1, "microseconds": True}},
            "the timestamp of an event",
        ),
    ],
)
def test_an_event_of_the_wrong_shape_is_refused(make: Any, raw: Any, problem: str) -> None:
    with pytest.raises(ObjectTypeError, match=problem) as caught:
        make(raw)
    assert caught.value.raw is raw


def test_the_fast_way_makes_the_same_event() -> None:
    assert Event.of(STOP) == Event(STOP) == Event.parse(STOP)
    assert Event.of(STOP).raw is STOP
    assert type(Event.of(STOP)) is Event


def test_a_timestamp_is_a_time_in_utc() -> None:
    assert Timestamp(0, 0).datetime() == datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert Timestamp(1_700_000_000, 999_999).datetime() == datetime(
        2023, 11, 14, 22, 13, 20, 999_999, tzinfo=timezone.utc
    )


@pytest.mark.parametrize("stamp", [(-1, -1), (-1, 5), (5, -1), (2**63 - 1, 0), (2**40, 0)])
def test_a_time_that_is_not_known_is_none(stamp: tuple[int, int]) -> None:
    assert Timestamp(*stamp).datetime() is None


def test_a_timestamp_that_is_known_may_be_in_no_calendar() -> None:
    assert Timestamp(2**63 - 1, 0).known


def test_an_event_is_made_from_its_parts() -> None:
    data = {"a": 1}
    event = Event.make("E", data, at=1.5)
    assert event.raw == {
        "event": "E",
        "data": {"a": 1},
        "timestamp": {"seconds": 1, "microseconds": 500_000},
    }
    data["a"] = 2
    assert event.data == {"a": 1}


def test_an_event_made_without_a_time_has_none() -> None:
    event = Event.make("E")
    assert event.timestamp == Timestamp(-1, -1)
    assert "data" not in event.raw


@given(st.integers(0, 2**31), st.integers(0, 999_999))
def test_an_event_is_made_at_the_microsecond_that_is_given(seconds: int, microseconds: int) -> None:
    at = (
        datetime(1970, 1, 1, tzinfo=timezone.utc)
        + timedelta(seconds=seconds, microseconds=microseconds)
    ).timestamp()
    assert Event.make("E", at=at).timestamp == Timestamp(seconds, microseconds)


# All of them


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (greeting(), Greeting),
        ({"return": {}}, SuccessReply),
        (ERROR, ErrorReply),
        (STOP, Event),
    ],
)
def test_a_message_is_told_by_its_members(raw: Any, kind: type) -> None:
    message = parse_message(raw)
    assert type(message) is kind
    assert message.raw is raw


@pytest.mark.parametrize("raw", [{}, {"id": 1}, {"execute": "stop"}])
def test_what_no_server_sends_is_refused(raw: Any) -> None:
    with pytest.raises(ObjectTypeError, match="neither a greeting nor a reply nor an event"):
        parse_message(raw)


@pytest.mark.parametrize(
    "raw", [{**greeting(), "x": 1}, {"return": 1, "x": 1}, {**ERROR, "x": 1}, {**STOP, "x": 1}]
)
def test_unknown_members_are_kept_unless_it_is_strict(raw: Any) -> None:
    message = parse_message(raw)
    assert message.extra == {"x": 1}
    assert message.raw is raw
    assert type(message).parse(raw) == message
    with pytest.raises(ObjectTypeError, match=r"unknown member of .*: x"):
        parse_message(raw, strict=True)


@pytest.mark.parametrize("raw", [greeting(), {"return": 1, "id": 1}, ERROR, STOP])
def test_strict_takes_what_is_as_it_should_be(raw: Any) -> None:
    assert parse_message(raw, strict=True).extra == {}


def test_strict_takes_a_whole_command() -> None:
    raw = {"execute": "x", "arguments": {}, "id": 1}
    assert Command.parse(raw, strict=True).raw is raw
    with pytest.raises(ObjectTypeError, match="unknown member of Command: y"):
        Command.parse({**raw, "y": 1}, strict=True)


def test_messages_are_frozen() -> None:
    event = Event(STOP)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.raw = {}  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.timestamp.seconds = 2  # type: ignore[misc]


def test_messages_with_equal_objects_are_equal() -> None:
    assert Event(STOP) == Event(dict(STOP))
    assert Event(STOP) != Event({"event": "STOP"})
    assert SuccessReply({"return": 1}) != ErrorReply(ERROR)


def test_a_message_shows_itself_without_its_secrets() -> None:
    assert repr(Command({"execute": "x", "arguments": {"password": "hunter2"}})) == (
        "Command({'execute': 'x', 'arguments': {'password': '[redacted]'}})"
    )
    assert repr(Event({"event": "STOP"})) == "Event({'event': 'STOP'})"


def test_the_mapping_style_message_is_here_too() -> None:
    assert Message({"a": 1})["a"] == 1
