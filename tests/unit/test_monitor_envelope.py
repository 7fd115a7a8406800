"""Records as CloudEvents: what each attribute says, and what no name can break."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import (
    EVENTS,
    NODE,
    RAW,
    RECORDS,
    SPOOL_ID,
    deep,
    record,
)
from txqmp.fleet import Kind, Record
from txqmp.fleet.naming import MAX_NAME
from txqmp.fleet.records import timestamp, utc
from txqmp.messages import Event
from txqmp.monitor.cloudevents import CloudEvent
from txqmp.monitor.envelope import Envelope


ENVELOPE = Envelope(node=NODE)


def drafted(record: Record) -> dict[str, Any]:
    """The members of a draft."""
    members: dict[str, Any] = json.loads(ENVELOPE.draft(record))
    return members


def made(record: Record) -> CloudEvent:
    return ENVELOPE.event(record, SPOOL_ID, 4711)


# What is told


def test_a_word_of_qemus() -> None:
    assert ENVELOPE.draft(record(event=Event(RAW))) == (
        b'{"specversion":"1.0","source":"qmp://node7.example/4c4c4544-0042-4c10-8042-b4c04f564433",'
        b'"type":"org.qemu.qmp.STOP","subject":"web","time":"2026-11-21T01:20:00.123456Z",'
        b'"recordedtime":"2026-11-21T01:20:00.125001Z",'
        b'"partitionkey":"4c4c4544-0042-4c10-8042-b4c04f564433","vmsession":"0000000001",'
        b'"vmsequence":"00000000000000000004","datacontenttype":"application/json",'
        b'"data":{"timestamp":{"seconds":1795224000,"microseconds":123456},"event":"STOP",'
        b'"data":{"a":[1,null]},"unknown":true}}'
    )


def test_a_word_of_ours() -> None:
    told = drafted(record(kind=Kind.GAP, details={"seconds": 1.5, "reason": "reset"}))
    assert told["type"] == "txqmp.monitor.gap"
    assert told["time"] == told["recordedtime"] == "2026-11-21T01:20:00.125001Z"
    assert told["data"] == {
        "vm": "web",
        "seq": 4,
        "session": 1,
        "kind": "gap",
        "data": {"seconds": 1.5, "reason": "reset"},
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind(kind: Kind) -> None:
    told = drafted(record(kind=kind))
    assert told["type"] == f"txqmp.monitor.{kind.value}"
    assert told["data"]["data"] == {}


def test_an_event_of_a_downstream_keeps_its_name() -> None:
    event = Event.make("__com.redhat_spice")
    assert drafted(record(event=event))["type"] == "org.qemu.qmp.__com.redhat_spice"


def test_an_event_without_data_has_none() -> None:
    told = drafted(record(event=Event.make("RESUME")))
    assert told["data"] == {"event": "RESUME", "timestamp": {"seconds": -1, "microseconds": -1}}


def test_other_prefixes() -> None:
    envelope = Envelope(node="a", qemu_types="com.example.qemu", own_types="com.example.own")
    assert envelope.type_of(record(event=Event(RAW))) == "com.example.qemu.STOP"
    assert envelope.type_of(record(kind=Kind.GONE)) == "com.example.own.gone"
    assert b'"source":"qmp://a/x","type":"com.example.own.gone"' in envelope.draft(
        record(kind=Kind.GONE, identity="x")
    )


@pytest.mark.parametrize("node", ["", "a b", "a/b", "a:1", "ä", "a\n", "a" * 254])
def test_no_name_of_a_host(node: str) -> None:
    with pytest.raises(ValueError, match="is no name of a host"):
        Envelope(node=node)


@pytest.mark.parametrize("prefix", ["", ".a", "a.", "a..b", "a b", "ä", "a\n"])
@pytest.mark.parametrize("which", ["qemu_types", "own_types"])
def test_no_prefix(which: str, prefix: str) -> None:
    with pytest.raises(ValueError, match="is nothing that types begin with"):
        Envelope(node=NODE, **{which: prefix})


# Times


@pytest.mark.parametrize(
    ("seconds", "microseconds", "time"),
    [
        (-1, -1, "1970-01-01T00:16:40.500000Z"),
        (-1, 5, "1970-01-01T00:16:40.500000Z"),
        (5, -1, "1970-01-01T00:16:40.500000Z"),
        (5, 1_000_000, "1970-01-01T00:16:40.500000Z"),
        (253402300800, 0, "1970-01-01T00:16:40.500000Z"),
        (2**62, 0, "1970-01-01T00:16:40.500000Z"),
        (2**70, 0, "1970-01-01T00:16:40.500000Z"),
        (253402300799, 999_999, "9999-12-31T23:59:59.999999Z"),
        (0, 0, "1970-01-01T00:00:00.000000Z"),
        (1795224000, 7, "2026-11-21T01:20:00.000007Z"),
    ],
)
def test_when_it_happened(seconds: int, microseconds: int, time: str) -> None:
    event = Event({"event": "E", "timestamp": {"seconds": seconds, "microseconds": microseconds}})
    told = drafted(record(event=event, received=1000.5))
    assert told["time"] == time
    assert told["recordedtime"] == "1970-01-01T00:16:40.500000Z"


def test_an_event_without_a_time() -> None:
    assert drafted(record(event=Event({"event": "E"}), received=1.0))["time"] == (
        "1970-01-01T00:00:01.000000Z"
    )


@given(st.floats(0, 253402300799) | st.floats(-1e6, 0))
def test_when_it_came_to_our_notice(received: float) -> None:
    told = drafted(record(kind=Kind.GONE, received=received))
    assert told["recordedtime"] == timestamp(utc(received))


def test_a_fraction_that_rounds_up_to_a_second() -> None:
    received = math.nextafter(1000.0, 0)
    told = drafted(record(kind=Kind.GONE, received=received))
    assert told["recordedtime"] == "1970-01-01T00:16:40.000000Z"


@given(EVENTS)
def test_times_are_those_of_the_record(event: Event) -> None:
    it = record(event=event)
    if event.timestamp.microseconds < 1_000_000:
        assert drafted(it)["time"] == timestamp(it.time)


# Names


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("", "?"),
        ("\0", "?"),
        ("a\nb\x7fc\x9bd", "a?b?c?d"),
        ("\udc80\ud83d\ude00", "???"),
        ("\ufdd0\ufffe\U0010ffff", "???"),
        ('"%\\ é€😀\u200d', '"%\\ é€😀\u200d'),
        ("v" * (1 << 16), "v" * MAX_NAME),
        ("\0" * (1 << 16), "?" * MAX_NAME),
    ],
)
def test_a_name_in_attributes(name: str, subject: str) -> None:
    told = drafted(record(vm=name, identity=name, event=Event.make(name)))
    assert told["subject"] == told["partitionkey"] == subject
    assert told["type"] == f"org.qemu.qmp.{subject}"
    assert unquote(told["source"]) == f"qmp://node7.example/{subject}"


def test_a_name_in_a_uri() -> None:
    source = drafted(record(kind=Kind.GONE, identity="a b/c%d?e#f:[g]é"))["source"]
    assert source == "qmp://node7.example/a%20b%2Fc%25d%3Fe%23f:%5Bg%5D%C3%A9"


@pytest.mark.parametrize("name", ["a\nb\0\x85", '"%\\', "😀", "v" * (1 << 16), ""])
def test_the_name_as_it_is(name: str) -> None:
    assert drafted(record(vm=name, kind=Kind.GONE))["data"]["vm"] == name


def test_a_name_that_json_does_not_have() -> None:
    told = drafted(record(vm="vm\udc80", kind=Kind.GONE, details={"reason": "it left"}))
    assert told["data"]["vm"] == r"vm\udc80"
    assert told["data"]["data"] == {"reason": "it left"}


@pytest.mark.parametrize("name", ["\x00\x1b[31m\x7f\x9b31m\x80é\u202e\n", "\x7f"])
def test_nothing_that_moves_a_terminal(name: str) -> None:
    event = Event.make("E", {"name": name})
    text = ENVELOPE.draft(record(event=event, vm=name, identity=name)).decode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert json.loads(text)["data"]["data"] == event.data


@given(RECORDS)
def test_whatever_comes_is_an_event(it: Record) -> None:
    event = made(it)
    assert len(event.subject) <= MAX_NAME
    told = json.loads(event.data)
    if "unwritable" in told:
        assert it.event is not None and re.search("[\ud800-\udfff]", it.event.name)
    elif it.event is not None:
        assert told == it.event.raw
    else:
        assert told["data"] == it.details
    assert event == made(it)


# What cannot be written


def test_an_event_that_cannot_be_written() -> None:
    told = drafted(record(event=Event.make("E\0", {"deep": deep(1100)})))
    assert told["type"] == "org.qemu.qmp.E?"
    assert told["data"]["event"] == "E?"
    assert "deep" in told["data"].pop("unwritable")
    assert told["data"] == {"event": "E?"}


@pytest.mark.parametrize("value", [math.nan, "\ud800", 2**64, object(), deep(1100)])
def test_a_word_of_ours_that_cannot_be_written(value: object) -> None:
    told = drafted(record(vm="v\0", kind=Kind.SNAPSHOT, details={"it": value}))["data"]
    assert told.pop("unwritable")
    assert told == {"vm": "v\0", "seq": 4, "session": 1, "kind": "snapshot"}


def test_deep_but_not_too_deep() -> None:
    data = {"deep": deep(900)}
    event = made(record(event=Event.make("E", data), vm="\x85é"))
    assert event.data == (
        b'{"event":"E","data":{"deep":' + b"[" * 900 + b"1" + b"]" * 900 + b"},"
        b'"timestamp":{"seconds":-1,"microseconds":-1}}'
    )
