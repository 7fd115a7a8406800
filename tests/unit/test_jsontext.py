"""JSON text in and out: strict both ways; ids by value; and messages that are text and mapping."""

from __future__ import annotations

import enum
import json
import math
import tracemalloc
from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp import jsontext
from txqmp.errors import DeserializationError, UnexpectedTypeError
from txqmp.jsontext import MAX_DEPTH, Message, UnwritableError, id_key, read_object, write


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def nested(depth: int, innermost: Any = 1) -> Any:
    """A value of so many levels of arrays and objects, one in the other."""
    value = innermost
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


# Writing


@given(JSON)
def test_what_is_written_reads_as_it_was(value: Any) -> None:
    text = write(value)
    assert json.loads(text.decode("utf-8")) == value
    assert b"\n" not in text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "place",
    [
        lambda number: number,
        lambda number: {"a": number},
        lambda number: [{"a": [None, 1, (2, number)]}],
        lambda number: {"a": MappingProxyType({"b": [number]})},
        lambda number: nested(200, number),
        lambda number: nested(400, number),
    ],
    ids=["bare", "member", "tuple", "mapping", "deep", "deeper than orjson goes"],
)
def test_what_is_no_number_is_refused_wherever_it_is(number: float, place: Any) -> None:
    with pytest.raises(UnwritableError):
        write(place(number))


def test_null_is_no_such_number() -> None:
    assert write({"a": [None, 1.5]}) == b'{"a":[null,1.5]}'
    assert write("null") == b'"null"'


@pytest.mark.parametrize("depth", [1, 400])
@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        {"\udfff": 1},
        2**64,
        -(2**63) - 1,
        {1: "x"},
        {None: "x"},
        {True: "x"},
        b"bytes",
        {1, 2},
        object(),
        datetime(2020, 1, 1, tzinfo=timezone.utc),
    ],
    ids=repr,
)
def test_what_qemu_does_not_read_is_refused(value: Any, depth: int) -> None:
    with pytest.raises(UnwritableError):
        write(nested(depth, value))


@pytest.mark.parametrize("depth", [0, 400])
@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1])
def test_integers_of_64_bits_are_written_exactly(number: int, depth: int) -> None:
    assert b'{"a":%d}' % number in write(nested(depth, {"a": number}))


def test_an_enum_of_floats_hides_no_nan() -> None:
    class Odd(enum.Enum):
        NAN = math.nan

    with pytest.raises(UnwritableError):
        write({"a": Odd.NAN})


@pytest.mark.parametrize("depth", [1, 254, 255, 256, 700])
def test_deep_values_are_written(depth: int) -> None:
    value = nested(depth)
    assert json.loads(write(value)) == value


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 2000, 100_000])
def test_what_is_deeper_than_qemu_reads_is_refused(depth: int) -> None:
    with pytest.raises(UnwritableError, match="nested"):
        write(nested(depth))


def test_the_depth_limit_is_on_levels_and_not_on_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "MAX_DEPTH", 300)
    write([nested(299), nested(299), '[[{{"\\', nested(298, "[" * 50 + '"' + "{" * 50)])
    with pytest.raises(UnwritableError, match="nested deeper than 300 levels"):
        write([nested(100), nested(300)])


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append({"a": circle})
    with pytest.raises(UnwritableError):
        write(circle)


@pytest.mark.parametrize("depth", [0, 400])
def test_a_mapping_need_not_be_a_dict(depth: int) -> None:
    text = write(nested(depth, {"a": MappingProxyType({"b": MappingProxyType({})})}))
    assert b'{"a":{"b":{}}}' in text


def test_a_mapping_with_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(UnwritableError):
        write({"a": MappingProxyType({1: "x"})})


def test_a_tuple_is_an_array() -> None:
    assert write((1, (2,))) == b"[1,[2]]"


@pytest.mark.parametrize("depth", [1, 300])
def test_exactly_as_large_as_qemu_reads_is_written(
    monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    value = nested(depth, "x" * 100)
    size = len(write(value))
    monkeypatch.setattr(jsontext, "MAX_TOKENS", size - 1)
    monkeypatch.setattr(jsontext, "MAX_SIZE", size)
    assert len(write(value)) == size
    monkeypatch.setattr(jsontext, "MAX_SIZE", size - 1)
    with pytest.raises(UnwritableError, match=f"{size} bytes, more than the {size - 1}"):
        write(value)


@pytest.mark.parametrize("depth", [0, 300])
def test_exactly_as_many_tokens_as_qemu_reads_are_written(
    monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    value = nested(depth, {"a": [1, -2.5e30, True, None, 'x,y:[z]{"\\' * 5], "b": {}})
    brackets = 2 * depth
    colons_and_keys = 2 * (depth // 2)
    inner = len(["{", "a", ":", "[", 1, ",", 2, ",", True, ",", None, ",", "x", "]"])
    inner += len([",", "b", ":", "{", "}", "}"])
    tokens = brackets + colons_and_keys + inner
    monkeypatch.setattr(jsontext, "MAX_TOKENS", tokens)
    assert json.loads(write(value)) == value
    monkeypatch.setattr(jsontext, "MAX_TOKENS", tokens - 1)
    with pytest.raises(UnwritableError, match=f"{tokens} tokens, more than the {tokens - 1}"):
        write(value)


def test_more_tokens_than_qemu_reads_are_refused() -> None:
    just = [0] * (1 << 20)  # each but the last with a comma, and two brackets
    with pytest.raises(UnwritableError, match="2097153 tokens"):
        write(just)
    just.pop()
    write(just)


@pytest.mark.parametrize("content", ["A" * (1 << 20), "\r\n" * (1 << 19)], ids=["plain", "escapes"])
def test_the_tokens_of_a_huge_string_are_counted_in_little_memory(
    monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    # A regular expression that keeps a state for each character takes gigabytes for 40 MB;
    # orjson itself takes some fifteen times the size of the text, for a moment.
    monkeypatch.setattr(jsontext, "MAX_TOKENS", 1000)
    tracemalloc.start()
    try:
        text = write({"buf-b64": content})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(text)


# Reading


def test_an_object_is_read() -> None:
    assert read_object(b' {"a": [1, 2.5, "\\u00e4\xc3\xa4"]}\r\n') == {"a": [1, 2.5, "ää"]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}{}",
        b"hello",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        "{}".encode("utf-16"),
        b"[" * 100_000,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_not_json_in_utf8_is_told(text: bytes) -> None:
    with pytest.raises(DeserializationError) as caught:
        read_object(text)
    assert caught.value.raw == text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"x"', b"true"])
def test_json_that_is_no_object_is_told(text: bytes) -> None:
    with pytest.raises(UnexpectedTypeError) as caught:
        read_object(text)
    assert caught.value.value == json.loads(text)


# Ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0, -0.0),
        (100, 1e2),
        ("x", "x"),
        (None, None),
        ({"a": 1, "b": [1.0, None]}, {"b": [1, None], "a": 1.0}),
        ([], ()),
        ({}, {}),
        ([1, [2, {"x": 3}]], [1.0, [2.0, {"x": 3.0}]]),
        (0.1, 0.10000000000000001),
    ],
)
def test_ids_that_are_equal_as_json_are_equal(one: object, other: object) -> None:
    assert id_key(one) == id_key(other)
    assert hash(id_key(one)) == hash(id_key(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (1, "1"),
        ("x", "y"),
        ("", None),
        (None, "null"),
        (None, False),
        (None, 0),
        ([], {}),
        ([], None),
        ({}, None),
        ([1, 2], [2, 1]),
        ([1], [[1]]),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, [["a", 1]]),
        ({"b": {"a": 1}}, {"a": 1, "b": {}}),
        ([[1], 2], [[1, 2]]),
        (["array", [1]], [1]),
        ("x", ["x"]),
    ],
)
def test_ids_that_differ_as_json_differ(one: object, other: object) -> None:
    assert id_key(one) != id_key(other)


@given(JSON)
def test_an_id_comes_back_equal_however_it_was_written(value: object) -> None:
    assert id_key(json.loads(json.dumps(value, indent=2))) == id_key(value)


def test_an_id_may_be_as_deep_as_json_can_be_read() -> None:
    text = b'{"id": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert id_key(read_object(text)["id"]) == id_key(read_object(text)["id"])


# Messages


def test_a_message_from_text_is_a_mapping() -> None:
    message = Message(b'{"execute": "stop", "id": 1}')
    assert message["execute"] == "stop"
    assert dict(message) == {"execute": "stop", "id": 1}
    assert message == {"execute": "stop", "id": 1}
    assert list(message) == ["execute", "id"]
    assert len(message) == 2
    assert "id" in message
    assert "arguments" not in message
    assert message.get("arguments", 5) == 5
    assert message.members == {"execute": "stop", "id": 1}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_from_text_keeps_its_text(kind: Any) -> None:
    text = b'{ "execute" : "stop" }'
    assert bytes(Message(kind(text))) == text


def test_a_message_from_a_mapping_has_text() -> None:
    assert bytes(Message({"execute": "stop"})) == b'{"execute":"stop"}'
    assert bytes(Message(MappingProxyType({"execute": "stop"}))) == b'{"execute":"stop"}'
    assert bytes(Message(Message(b'{"execute": "stop"}'))) == b'{"execute":"stop"}'


def test_a_message_does_not_share_the_mapping_it_is_made_from() -> None:
    members = {"execute": "stop"}
    message = Message(members)
    message["id"] = 1
    members["execute"] = "cont"
    assert members == {"execute": "cont"}
    assert dict(message) == {"execute": "stop", "id": 1}


def test_an_adopted_dict_is_the_messages_own() -> None:
    members = {"execute": "stop"}
    message = Message.adopt(members)
    assert message.members is members
    assert bytes(message) == b'{"execute":"stop"}'


def test_a_changed_message_has_a_changed_text() -> None:
    message = Message(b'{"execute": "stop", "id": 1}')
    assert bytes(message) == b'{"execute": "stop", "id": 1}'
    message["id"] = 2
    assert bytes(message) == b'{"execute":"stop","id":2}'
    del message["id"]
    assert bytes(message) == b'{"execute":"stop"}'
    message.update(execute="cont")
    assert bytes(message) == b'{"execute":"cont"}'


def test_a_change_deep_in_a_message_changes_its_text_too() -> None:
    message = Message(b'{"execute": "x", "arguments": {"device": "d0"}}')
    message["arguments"]["device"] = "d1"
    assert json.loads(bytes(message)) == {"execute": "x", "arguments": {"device": "d1"}}
    message = Message(b'{"list": [1]}')
    message["list"].append(2)
    assert json.loads(bytes(message)) == {"list": [1, 2]}


def test_a_missing_member_is_a_key_error() -> None:
    message = Message({})
    with pytest.raises(KeyError):
        message["id"]
    with pytest.raises(KeyError):
        del message["id"]


def test_a_message_without_text_says_so_when_it_is_asked_for() -> None:
    message = Message({"a": math.nan})
    with pytest.raises(UnwritableError):
        bytes(message)


def test_text_that_is_no_message_is_refused() -> None:
    with pytest.raises(DeserializationError):
        Message(b"{")
    with pytest.raises(UnexpectedTypeError):
        Message(b"[]")
    with pytest.raises(UnexpectedTypeError):
        Message("{}")  # type: ignore[arg-type]


def test_a_message_shows_itself_without_its_secrets() -> None:
    message = Message({"execute": "x", "arguments": {"password": "hunter2", "a": 1}})
    assert repr(message) == (
        "Message({'execute': 'x', 'arguments': {'password': '[redacted]', 'a': 1}})"
    )
    assert b"hunter2" in bytes(message)


def test_messages_compare_as_mappings() -> None:
    assert Message(b'{"a": 1}') == Message({"a": 1})
    assert Message({"a": 1}) != Message({"a": 2})
    assert isinstance(Message({}), Mapping)
