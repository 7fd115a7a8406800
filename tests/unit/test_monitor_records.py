"""Records as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from txqmp.fleet import Kind, Record
from txqmp.messages import Event
from txqmp.monitor.records import encode, encode_hole


def record(**changes: Any) -> Record:
    members: dict[str, Any] = {
        "vm": "vm1",
        "seq": 4,
        "session": 1,
        "received": 1000.0,
        "kind": Kind.EVENT,
    }
    return Record(**{**members, **changes})


def test_an_event() -> None:
    raw = {
        "timestamp": {"seconds": 1795224000, "microseconds": 123456},
        "event": "STOP",
        "data": {"a": [1, None]},
        "unknown": True,
    }
    entry = encode(record(event=Event(raw)))
    assert (entry.vm, entry.seq, entry.session) == ("vm1", 4, 1)
    assert entry.text == (
        b'{"vm":"vm1","seq":4,"session":1,"time":"2026-11-21T01:20:00.123456Z","kind":"event",'
        b'"event":"STOP","qmp":{"timestamp":{"seconds":1795224000,"microseconds":123456},'
        b'"event":"STOP","data":{"a":[1,null]},"unknown":true}}'
    )


def test_an_event_without_a_time() -> None:
    entry = encode(record(event=Event.make("STOP")))
    assert json.loads(entry.text)["time"] == "1970-01-01T00:16:40.000000Z"


def test_a_word_of_ours() -> None:
    entry = encode(record(kind=Kind.GONE, details={"reason": "its socket has vanished"}))
    assert entry.text == (
        b'{"vm":"vm1","seq":4,"session":1,"time":"1970-01-01T00:16:40.000000Z","kind":"gone",'
        b'"data":{"reason":"its socket has vanished"}}'
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind(kind: Kind) -> None:
    assert json.loads(encode(record(kind=kind)).text)["kind"] == kind.value


def test_nothing_that_moves_a_terminal() -> None:
    name = "\x00\x1b[31m\x7f\x9b31m\x80é\u202e\n"
    entry = encode(record(event=Event.make("E", {"name": name}), vm="v\x85m"))
    text = entry.text.decode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert json.loads(text)["qmp"]["data"]["name"] == name
    assert json.loads(text)["vm"] == "v\x85m"


def test_what_cannot_be_written() -> None:
    deep: Any = 1
    for _ in range(1100):
        deep = [deep]
    entry = encode(record(event=Event.make("E", {"deep": deep})))
    told = json.loads(entry.text)
    assert told["event"] == "E"
    assert "qmp" not in told
    assert "deep" in told["data"]["unwritable"]


def test_a_hole() -> None:
    entry = encode_hole("stdout", "the queue was full", "vm1", 2, 7, 9, 3, 1000.0)
    assert (entry.vm, entry.seq, entry.session) == ("vm1", 9, 2)
    assert entry.text == (
        b'{"vm":"vm1","seq":9,"session":2,"time":"1970-01-01T00:16:40.000000Z","kind":"dropped",'
        b'"data":{"sink":"stdout","reason":"the queue was full","count":3,"first":7,"last":9}}'
    )
