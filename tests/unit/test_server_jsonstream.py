"""JSONStream: the values and the errors that QEMU 7.2 finds in a stream of bytes."""

from __future__ import annotations

import json
import math
import random
import re
import struct
from collections.abc import Iterable
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txqmp.server import jsonstream
from txqmp.server.jsonstream import InputError, JSONStream, ParsedValue


EXPECTING = "JSON parse error, expecting value"
SIZE = "JSON token size limit exceeded"
COUNT = "JSON token count limit exceeded"
DEPTH = "JSON nesting depth limit exceeded"
BAD_UTF8 = "JSON parse error, invalid UTF-8 sequence in string"


def items(data: bytes, cuts: Iterable[int] = (), **limits: int) -> list[ParsedValue | InputError]:
    """What a stream makes of the data, fed in pieces."""
    stream = JSONStream(**limits)
    found: list[ParsedValue | InputError] = []
    begin = 0
    for end in [*sorted(cuts), len(data)]:
        stream.feed(data[begin:end])
        found.extend(stream)
        begin = end
    return found


def outcome(data: bytes, cuts: Iterable[int] = (), **limits: int) -> list[Any]:
    """The same, with errors as strings and values in lists of one."""
    return [
        item.desc if isinstance(item, InputError) else [item.value]
        for item in items(data, cuts, **limits)
    ]


def bytewise(data: bytes) -> range:
    return range(1, len(data))


def stray(text: str) -> str:
    return f"JSON parse error, stray '{text}'"


def not_unicode(text: str) -> str:
    return f"JSON parse error, {text} is not a valid Unicode character"


# Values


WELL_FORMED = [
    (b'{"execute": "quit"}', [{"execute": "quit"}]),
    (b'{"a":1}{"b":2}\r\n{"c":3}\n \t{"d":4}', [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]),
    (b'{\n  "a": {\n    "b": [\n      1\n    ]\n  }\n}\n', [{"a": {"b": [1]}}]),
    (b"{'a': 'it\\'s \"so\"'}", [{"a": 'it\'s "so"'}]),
    (b'{"a": "it\\\'s"}', [{"a": "it's"}]),
    (b'["}{"]{"a":"}{"}{"b":"}\\n{"}', [["}{"], {"a": "}{"}, {"b": "}\n{"}]),
    (b'"one" "two""three"', ["one", "two", "three"]),
    (
        b"1 -2 3.5 -0 1e2 1E+2 0.5e-1 true false null ",
        [1, -2, 3.5, 0, 100, 100, 0.05, True, False, None],
    ),
    (b"1{}", [1, {}]),
    (b"true[]", [True, []]),
    (b'1"a"', [1, "a"]),
    (b"[]{}", [[], {}]),
    (
        b'["\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\ud83d\\ude00"]',
        [['"\\/\b\f\n\r\tA\u00e9\U0001f600']],
    ),
    (b'["\\u0000", "\xc0\x80"]', [["\0", "\0"]]),
    (b'["\\\\", "\\\\\\""]', [["\\", '\\"']]),
    ('["\u00e9\u20ac\U0001f600\ufffd\x7f"]'.encode(), [["\u00e9\u20ac\U0001f600\ufffd\x7f"]]),
    ('{"\u00e9":"\ufb4f\ufdf0"}'.encode(), [{"\u00e9": "\ufb4f\ufdf0"}]),
    (
        b'["\\ufdcf","\\ufdf0","\\ufffd","\\ud83f\\udffd"]',
        [["\ufdcf", "\ufdf0", "\ufffd", "\U0001fffd"]],
    ),
    (b'{"a:b":"c:d","\\u003a":1}', [{"a:b": "c:d", ":": 1}]),
    (b'{"a":{"x":1},"b":{"x":1}}', [{"a": {"x": 1}, "b": {"x": 1}}]),
    (b'{"a":"-0e1","b":"x 0E5","c":0.0}', [{"a": "-0e1", "b": "x 0E5", "c": 0.0}]),
]


@pytest.mark.parametrize(("data", "values"), WELL_FORMED)
def test_values(data: bytes, values: list[Any]) -> None:
    assert outcome(data) == [[value] for value in values]
    assert outcome(data, bytewise(data)) == [[value] for value in values]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551616", 2.0**64),
        (b"-9223372036854775809", -(2.0**63)),
        (b"123456789012345678901234567890", 123456789012345678901234567890.0),
        (b"1e400", math.inf),
        (b"-1e400", -math.inf),
        (b"1" * 5000, math.inf),
        (b"1e-400", 0.0),
        (b"0.1", 0.1),
        (b"1.0", 1.0),
        (b"1e2", 100.0),
        (b"-0", 0),
    ],
)
def test_numbers(text: bytes, value: float) -> None:
    for data in (b"[" + text + b"]", b"['', " + text + b"]"):  # by orjson, by the slow parser
        [item] = items(data)
        assert isinstance(item, ParsedValue)
        found = item.value[-1]
        assert found == value
        assert type(found) is type(value)
    assert outcome(text + b"\n") == [[value]]


def test_a_bare_scalar_needs_a_delimiter() -> None:
    """A number or a keyword may go on; a string is complete with its quotation mark (fact G15)."""
    for text, value in ((b"12", 12), (b"true", True), (b"1.5", 1.5)):
        stream = JSONStream()
        stream.feed(text)
        assert stream.next_item() is None
        stream.feed(b" ")
        assert stream.next_item() == ParsedValue(value)
    assert outcome(b'"a"') == [["a"]]


@pytest.mark.parametrize("depth", [1, 200, 254, 255, 1024])
def test_depth_up_to_the_limit(depth: int) -> None:
    for opening, inner, closing in ((b"[", b"", b"]"), (b'{"a":', b"1", b"}")):
        data = opening * depth + inner + closing * depth
        for cuts in ((), (len(data) // 2,), bytewise(data)):
            [item] = items(data, cuts)
            assert isinstance(item, ParsedValue)
            value, found = item.value, 1
            while (
                value
                and value != 1
                and (value := (value["a"] if isinstance(value, dict) else value[0])) != 1
            ):
                found += 1
            assert found == depth


# Errors


MALFORMED: list[tuple[bytes, list[Any]]] = [
    # what the parser says, once the brackets are balanced
    (b'{"execute": }', [EXPECTING]),
    (b"[1,]", [EXPECTING]),
    (b"[,]", [EXPECTING]),
    (b'{"a":1,}', [EXPECTING]),
    (b"{,}", [EXPECTING]),
    (b"[1 2]", ["JSON parse error, expected separator in list"]),
    (b"[1:2]", ["JSON parse error, expected separator in list"]),
    (b"[1}", ["JSON parse error, expected separator in list"]),
    (b'{"a":1 "b":2}', ["JSON parse error, expected separator in dict"]),
    (b'{"a":[1]]', ["JSON parse error, expected separator in dict"]),
    (b'{"a"}', ["JSON parse error, missing : in object pair"]),
    (b'{"a" 1}', ["JSON parse error, missing : in object pair"]),
    (b'{"a","b"}', ["JSON parse error, missing : in object pair"]),
    (b"{1:2}", ["JSON parse error, key is not a string in object"]),
    (b"{[1]:2}", ["JSON parse error, key is not a string in object"]),
    (b"{{}:2}", ["JSON parse error, key is not a string in object"]),
    (b"{null:2}", ["JSON parse error, key is not a string in object"]),
    (b'{[}"a":1}]', [EXPECTING, EXPECTING]),
    (b'{"a":1,"a":2}', ["JSON parse error, duplicate key"]),
    (b'{"a":1,"\\u0061":2}', ["JSON parse error, duplicate key"]),
    (b'{"a:":1,"a\\u003a":2}', ["JSON parse error, duplicate key"]),
    (b'{"a":"\\u003a","a":2}', ["JSON parse error, duplicate key"]),
    (b'{"x":[{"a":{},"a":1}]}', ["JSON parse error, duplicate key"]),
    (b'{"\\u0000":1,"\xc0\x80":2}', ["JSON parse error, duplicate key"]),
    (b'{"a":1,"a":nope}', ["JSON parse error, invalid keyword 'nope'"]),
    (b"[0e5]", ["JSON parse error, expected separator in list"]),
    (b'{"a":-0e5}', ["JSON parse error, expected separator in dict"]),
    (b'{"a":-0E5}', [stray("E"), EXPECTING]),
    (b"[1-2]", ["JSON parse error, expected separator in list"]),
    (b"nope ", ["JSON parse error, invalid keyword 'nope'"]),
    (b"truex ", ["JSON parse error, invalid keyword 'truex'"]),
    (b"[nope,1]", ["JSON parse error, invalid keyword 'nope'"]),
    (b"1a ", [[1], "JSON parse error, invalid keyword 'a'"]),
    # more closed than was opened
    (b"}", [EXPECTING]),
    (b"]", [EXPECTING]),
    (b",", [EXPECTING]),
    (b":", [EXPECTING]),
    (b"}]:,", [EXPECTING] * 4),
    (b"[}", [EXPECTING]),
    (b"{]", [EXPECTING]),
    (b"[}]", [EXPECTING, EXPECTING]),
    (b"[[}5 ", [EXPECTING, [5]]),
    # strings
    (b'["\\x"]', ["JSON parse error, invalid escape sequence in string"]),
    (b'["\\\xc3\xa9"]', ["JSON parse error, invalid escape sequence in string"]),
    (b'["\\u12"]', [not_unicode('\\u12"')]),
    (b'["\\u"]', [not_unicode('\\u"')]),
    (b"['\\u00zz']", [not_unicode("\\u00zz")]),
    (b'["\\u\xc3\xa9aa"]', [not_unicode("\\u\u00e9aa")]),
    (b'["\\u1aa\xe2\x82\xac"]', [not_unicode("\\u1aa\ufffd")]),
    (b'["\\ud800"]', [not_unicode("\\ud800")]),
    (b'["\\ud800x"]', [not_unicode("\\ud800")]),
    (b'["\\uD800\\u0041"]', [not_unicode("\\uD800")]),
    (b'["\\ud800\\ud800"]', [not_unicode("\\ud800")]),
    (b'["\\ud800\\u12"]', [not_unicode("\\ud800")]),
    (b'["\\udc00"]', [not_unicode("\\udc00")]),
    (b'["\\uFFFE"]', [not_unicode("\\uFFFE")]),
    (b'["\\ufdd0"]', [not_unicode("\\ufdd0")]),
    (b'["\\ufdef"]', [not_unicode("\\ufdef")]),
    (b'["\\ud83f\\udffe"]', [not_unicode("\\ud83f\\udffe")]),
    (b'["\\udbff\\udfff"]', [not_unicode("\\udbff\\udfff")]),
    (b'["\x80"]', [BAD_UTF8]),
    (b'["\xc3"]', [BAD_UTF8]),
    (b'["\xc3\\n"]', [BAD_UTF8]),
    (b'["\xc0\x81"]', [BAD_UTF8]),
    (b'["\xe0\x80\x80"]', [BAD_UTF8]),
    (b'["\xed\xa0\x80"]', [BAD_UTF8]),
    (b'["\xef\xbf\xbe"]', [BAD_UTF8]),
    (b'["\xef\xb7\x90"]', [BAD_UTF8]),
    (b'["\xf0\x9f\xbf\xbf"]', [BAD_UTF8]),
    (b'["\xf4\x90\x80\x80"]', [BAD_UTF8]),
    (b'["\xfd"]', [BAD_UTF8]),
    (b'{"\x80":1}', [BAD_UTF8]),
    (b'["\\x\x80"]', ["JSON parse error, invalid escape sequence in string"]),
    (b'["\x80\\x"]', [BAD_UTF8]),
    # lexical errors: a recovery passes over all but structural and control characters
    (b"NaN ", [stray("N")]),
    (b'{"a":NaN}', [stray("N"), EXPECTING]),
    (b"Infinity,1 ", [stray("I"), EXPECTING, [1]]),
    (b'ABC"x"1 {"a":1}', [stray("A"), {"a": 1}]),
    (b"ABC\t1 \n2 ", [stray("A"), [2]]),
    (b"ABC\r2 ", [stray("A"), [2]]),
    (b"A\x7f\xc3\x80[1]", [stray("A"), [[1]]]),
    (b"A\x01", [stray("A"), stray("\x01")]),
    (b"[tRUE]", [stray("R"), EXPECTING]),
    (b"tRUE ", ["JSON parse error, invalid keyword 't'", stray("R")]),
    (b"[01]", [stray("01"), EXPECTING]),
    (b"[1.]", [stray("1.]")]),
    (b"[1.5.3]", [stray("."), EXPECTING]),
    (b"[1e]", [stray("1e]")]),
    (b"[1e+]", [stray("1e+]")]),
    (b"[1E5E5]", [stray("E"), EXPECTING]),
    (b"[-]", [stray("-]")]),
    (b"[--1]", [stray("--"), EXPECTING]),
    (b"[-a,", [stray("-a"), EXPECTING]),
    (b"[+1]", [stray("+"), EXPECTING]),
    (b"[.5]", [stray("."), EXPECTING]),
    (b"%d 1\n", [stray("%")]),
    (b"/* */ {}", [stray("/"), {}]),
    (b"\xef\xbb\xbf{}", [stray("\ufffd"), {}]),
    (b'"a\x01b"\n', [stray('"a\x01')]),
    (b'{"a":"x\x1fy"}', [stray('"x\x1f'), EXPECTING]),
    (b'"a\n"b" ', [stray('"a\n')]),
    (b'"a\tb" \n', [stray('"a\t')]),
    (b'"a\\\x01\n', [stray('"a\\\x01')]),
    (b"'a\x00b'\n", [stray("'a")]),
    (b"\x00", [stray("")]),
    (b"\x00\x01", [stray(""), stray("\x01")]),
    (b"\xff{}", [stray("\ufffd"), {}]),
    (b"\xfe{}", [stray("\ufffd"), {}]),
    (b'{"a":"b\xff{"c":1}', [stray('"b\ufffd'), {"c": 1}]),
    (b'{"a":1\xff\n{"c":1}', [stray("\ufffd"), {"c": 1}]),
    (b'"\xe2\x82\x01', [stray('"\ufffd\x01')]),
    (b'"\x80\xbf\xc0\x80\xfd\xbf\xbf.\xed\xa0\x80\n', [stray('"\ufffd\ufffd\0\ufffd.\ufffd\n')]),
]  # fmt: skip
MALFORMED = [
    (data, [part if isinstance(part, (str, list)) else [part] for part in parts])
    for data, parts in MALFORMED
]


@pytest.mark.parametrize(("data", "expected"), MALFORMED)
def test_errors(data: bytes, expected: list[Any]) -> None:
    assert outcome(data) == expected
    assert outcome(data, bytewise(data)) == expected


@pytest.mark.parametrize("data", [data for data, _ in MALFORMED])
def test_errors_between_long_messages(data: bytes) -> None:
    """Wherever the error stands in the buffer, the rest is read as without what precedes it."""
    value = {"execute": "x", "arguments": {"a": ["b" * 50] * 400}}
    long = json.dumps(value).encode()
    rest = data + b"\xff\n" + long * 2
    expected = [[value], *outcome(rest)]
    assert expected[-2:] == [[value], [value]]
    assert outcome(long + rest) == expected
    for size in (1000, 7777):
        assert outcome(long + rest, range(size, len(long + rest), size)) == expected


@pytest.mark.parametrize(
    ("opened", "errors"),
    [(1025, [DEPTH] + [EXPECTING] * 1025), (1100, [DEPTH, [...]] + [EXPECTING] * 1025)],
)
def test_nested_too_deep(opened: int, errors: list[Any]) -> None:
    """1,100 brackets make 1,027 errors, one of which is a value that is no object (fact G18)."""
    found = outcome(b"[" * opened + b"]" * opened)
    assert [[...] if isinstance(one, list) else one for one in found] == errors


def test_braces_and_brackets_count_together() -> None:
    assert outcome(b'[{"a":' * 512 + b"1")[:1] == []
    assert outcome(b'[{"a":' * 512 + b"[")[:1] == [DEPTH]


def test_a_reason_is_cut_like_qemus() -> None:
    assert outcome(b"a" * 1005 + b" ") == [f"JSON parse error, invalid keyword '{'a' * 1005}'"]
    assert outcome(b"a" * 1006 + b" ") == [f"JSON parse error, invalid keyword '{'a' * 1006}"]
    assert outcome(b"a" * 2000 + b" ") == [f"JSON parse error, invalid keyword '{'a' * 1006}"]
    assert outcome(b'"' + b"a" * 2000 + b"\n") == [stray('"' + "a" * 2000 + "\n")]


def test_an_error_does_not_wait_for_the_end_of_its_message() -> None:
    long = b'{"a":[' + b'{"b":"c","d":[1,2.5,true,"\\"\\\\"]},' * 2000
    for bad, expected in ((b"NaN", stray("N")), (b'"\n', stray('"\n')), (b"}}", EXPECTING)):
        for size in (1 << 16, 1000):
            stream = JSONStream()
            for begin in range(0, len(long), size):
                stream.feed(long[begin : begin + size])
                assert stream.next_item() is None
            stream.feed(bad)
            item = stream.next_item()
            assert isinstance(item, InputError)
            assert item.desc == expected


# Limits


def test_message_size() -> None:
    """White space does not count; the limit itself is too much, as for QEMU."""
    for data in (b'["' + b"a" * 94 + b'"]', b'[ "' + b"a" * 94 + b'" \n ]'):
        assert outcome(data, max_message=99) == [[["a" * 94]]]
        assert outcome(data, max_message=98) == [SIZE]
    assert outcome(b'"' + b"a" * 10 + b'" 1 ', max_message=12) == [SIZE, [1]]
    assert outcome(b'"' + b"a" * 10 + b'" 1 ', max_message=13) == [["a" * 10], [1]]


def test_a_token_is_cut_at_the_limit() -> None:
    """It ends as soon as it is too long; what follows is read anew, as QEMU reads it."""
    for cuts in ((), bytewise(b"." * 30)):
        assert outcome(b"a" * 15 + b" ", cuts, max_message=10) == [
            SIZE,
            "JSON parse error, invalid keyword 'aaaa'",
        ]
        assert outcome(b"1" * 15 + b" ", cuts, max_message=10) == [SIZE, [1111]]
        assert outcome(b'"' + b"7" * 15 + b'"\n', cuts, max_message=10) == [
            SIZE,
            [77777],
            stray('"\n'),
        ]


def test_token_count() -> None:
    assert outcome(b"[1,2]", max_tokens=5) == [[[1, 2]]]
    assert outcome(b"[1,2]", max_tokens=4) == [COUNT]
    assert outcome(b"[1,2,3]", max_tokens=4) == [COUNT, [3], EXPECTING]
    objects = b"[" + b'{"a":1},' * 1000 + b"{}]"
    assert len(outcome(objects, max_tokens=6004)) == 1
    assert outcome(objects, max_tokens=6003) == [COUNT]
    assert outcome(objects, range(100, 8000, 100), max_tokens=6003) == [COUNT]


def test_depth() -> None:
    assert outcome(b"[[1]]", max_depth=2) == [[[[1]]]]
    assert outcome(b"[[1]]", max_depth=1) == [DEPTH, [1], EXPECTING, EXPECTING]
    assert outcome(b'{"a":{"b":1}}', max_depth=2) == [[{"a": {"b": 1}}]]
    assert outcome(b'{"a":{}}', max_depth=1) == [DEPTH, EXPECTING, EXPECTING]


def test_the_limits_of_qemu() -> None:
    commas = b"[" + b"," * ((2 << 20) - 2) + b"]"
    assert outcome(commas) == [EXPECTING]
    assert outcome(b"[" + commas) == [COUNT]
    string = b'"' + b"a" * ((64 << 20) - 3) + b'"'
    assert [len(value) for [value] in outcome(string)] == [(64 << 20) - 3]
    assert outcome(b'"a' + string[1:]) == [SIZE]


# Chunks and flow


FRAGMENTS = [data for data, _ in WELL_FORMED] + [data for data, _ in MALFORMED]
FRAGMENTS += [bytes([byte]) for byte in b"{}[],:\"'\\ \n\t\r\0\x01\x7f\x80\xbf\xc3\xff01-+.eEautN%"]
FRAGMENTS += [
    b"[" * 30,
    b"]" * 30,
    b'{"a":' * 20,
    b"\\u",
    b"\\ud800",
    b"\\udc00",
    b'"a:b":1,',
    b" " * 300,
]
FRAGMENTS += [json.dumps({"k": [{"a": i, "b": "x" * i} for i in range(40)]}).encode()]


def written(found: list[ParsedValue | InputError]) -> list[str]:
    """Comparable, with 1 and 1.0 told apart."""
    return [repr(item) for item in found]


@given(
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=3)), max_size=15), st.data()
)
def test_any_chunking_gives_the_same_items(fragments: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(fragments)
    expected = written(items(whole))
    assert written(items(whole, bytewise(whole))) == expected
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=10))
    assert written(items(whole, cuts)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_long_damaged_input_in_any_chunking(seed: int) -> None:
    """Long enough for every reader to have its turn, and to give up in the middle."""
    randomness = random.Random(seed)
    members = [
        {"n": i, "f": i / 7, "s": 'v"\\' * (i % 9), "l": [None, True, {}]} for i in range(300)
    ]
    data = bytearray()
    for _ in range(4):
        part = members[: randomness.randrange(1, 300)]
        data += json.dumps({"id": part}, indent=randomness.choice((None, 1))).encode()
    for _ in range(randomness.randrange(6)):
        place = randomness.randrange(len(data))
        data[place : place + randomness.randrange(3)] = randomness.choice(FRAGMENTS)
    whole = bytes(data)
    limits = randomness.choice(({}, {"max_tokens": 5000}, {"max_message": 9000}, {"max_depth": 3}))
    expected = written(items(whole, bytewise(whole), **limits))
    assert written(items(whole, **limits)) == expected
    for size in (100, 1000, 5000, 20_000):
        assert written(items(whole, range(size, len(whole), size), **limits)) == expected


def allowed(text: str) -> bool:
    """Whether QEMU reads this text."""
    return not any(
        0xD800 <= ord(c) <= 0xDFFF or 0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE
        for c in text
    )


TEXTS = st.text(max_size=20).filter(allowed)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=5), max_size=5), st.booleans(), st.data())
def test_round_trip(values: list[dict[str, Any]], ascii_only: bool, data: st.DataObject) -> None:
    indent = data.draw(st.sampled_from((None, 2)))
    end = data.draw(st.sampled_from(("", "\n", "\r\n", " ")))
    text = "".join(json.dumps(one, ensure_ascii=ascii_only, indent=indent) + end for one in values)
    whole = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=5))
    assert written(items(whole, cuts)) == [repr(ParsedValue(value)) for value in values]


@settings(max_examples=50)
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=5), max_size=5))
def test_round_trip_of_what_orjson_writes(values: list[dict[str, Any]]) -> None:
    assert items(b"".join(map(orjson.dumps, values))) == [ParsedValue(value) for value in values]


@given(TEXTS, st.sampled_from("'\""))
def test_every_escape(text: str, quote: str) -> None:
    units = struct.iter_unpack(">H", text.encode("utf-16-be"))
    escaped = "".join(f"\\u{unit:04x}" for (unit,) in units)
    assert outcome(f"[{quote}{escaped}{quote}]".encode()) == [[[text]]]


def test_a_consumer_may_pause() -> None:
    """Nothing is lost or parsed ahead when the consumer stops at an item."""
    stream = JSONStream()
    stream.feed(b'{"a":1} nope {"b":2}{"c":')
    first = stream.next_item()
    assert first == ParsedValue({"a": 1})
    held = stream.buffered
    assert held == len(b' nope {"b":2}{"c":')
    stream.feed(b'3}{"d":4}')
    assert stream.buffered == held + len(b'3}{"d":4}')
    assert next(iter(stream)) == InputError("JSON parse error, invalid keyword 'nope'")
    assert list(stream) == [ParsedValue({"b": 2}), ParsedValue({"c": 3}), ParsedValue({"d": 4})]
    assert stream.next_item() is None
    assert stream.buffered == 0


def test_feeding_in_the_middle_of_an_iteration() -> None:
    stream = JSONStream()
    stream.feed(b'{"n":0}')
    seen = []
    for item in stream:
        assert isinstance(item, ParsedValue)
        seen.append(item.value["n"])
        if len(seen) < 50:
            stream.feed(b'{"n":%d} ' % len(seen))
    assert seen == list(range(50))


def test_feeding_any_buffer_and_nothing() -> None:
    stream = JSONStream()
    for data in (b"", bytearray(b"[1"), memoryview(b",2]"), b""):
        stream.feed(data)
    assert list(stream) == [ParsedValue([1, 2])]


def test_what_is_fed_is_copied() -> None:
    data = bytearray(b"[1")
    stream = JSONStream()
    stream.feed(data)
    data[1:] = b"x"
    stream.feed(b"]")
    assert list(stream) == [ParsedValue([1])]


def test_white_space_is_not_kept() -> None:
    """QEMU limits the tokens of a message, not the white space; neither may it cost memory."""
    stream = JSONStream()
    piece = b" " * (1 << 18)
    for position in (b"", b"[1,", b"2,", b'{"a b" : '):
        stream.feed(position)
        for _ in range(12):
            stream.feed(piece)
            assert stream.next_item() is None
            assert stream.buffered < 2 << 20
    stream.feed(b'"c  d"}]')
    assert stream.next_item() == ParsedValue([1, 2, {"a b": "c  d"}])


def test_what_is_passed_over_is_not_kept() -> None:
    stream = JSONStream()
    stream.feed(b"@")
    assert stream.next_item() == InputError(stray("@"))
    for _ in range(10):
        stream.feed(b"@" * 1000)
        assert stream.next_item() is None
        assert stream.buffered == 0


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + b"x" * 3_000_000 + b'"}',
        b'{"a":"' + b"\\n\\\\" * 500_000 + b'"}',
        b'{"a":[' + b'{"b":"c","d":-1.5e3},' * 100_000 + b"null]}",
        b"[" + b"'a'," * 10_000 + b"1]",
        b'{"a":"' + "\u20ac".encode() * 700_000 + b'"}',
    ],
)
def test_large_messages_in_pieces(text: bytes) -> None:
    [expected] = items(text)
    assert isinstance(expected, ParsedValue)
    assert items(text * 2, range(65_536, 2 * len(text), 65_536)) == [expected] * 2


class CountedSearch:
    """A compiled pattern that notes how many bytes it looked at."""

    def __init__(self, pattern: re.Pattern[bytes], work: list[int]) -> None:
        self.pattern = pattern
        self.work = work

    def search(self, data: bytes, begin: int, end: int) -> re.Match[bytes] | None:
        found = self.pattern.search(data, begin, end)
        self.work.append((found.end() if found else min(end, len(data))) - begin)
        return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of a quick reader looked at."""
    work: list[int] = []

    def loads(text: bytes) -> Any:
        work.append(len(text))
        return orjson.loads(text)

    skim_window = JSONStream._skim_window

    def skim(self: JSONStream, window: bytes) -> int:
        work.append(len(window))
        return skim_window(self, window)

    monkeypatch.setattr(jsonstream, "_OBJECT_END", CountedSearch(jsonstream._OBJECT_END, work))
    monkeypatch.setattr(jsonstream, "_loads", loads)
    monkeypatch.setattr(JSONStream, "_skim_window", skim)
    return work


@pytest.mark.parametrize(
    "hostile",
    [
        b"{",
        b'{"a":1}}',
        b'{"a',
        b'"\\"',
        b"{\x01\n",
        b"1",
        b"a",
        b"0 ",
        b"'",
        b'{"}{":',
        b"[{}]",
        b"\xff",
        b"\\",
        b"[[]",
        b'{}"',
    ],
)
@pytest.mark.parametrize("size", [10, 4096, 60_000])
def test_hostile_input_is_read_once(hostile: bytes, size: int, work: list[int]) -> None:
    """The quick readers go over a byte a few times at most, however often they fail."""
    data = hostile * (60_000 // len(hostile))
    stream = JSONStream()
    for begin in range(0, len(data), size):
        stream.feed(data[begin : begin + size])
        for _ in stream:
            pass
    assert sum(work) < 8 * len(data)


def test_items_are_frozen_and_small() -> None:
    for item in (ParsedValue(1), InputError("x")):
        assert not hasattr(item, "__dict__")
        name = attrs.fields(type(item))[0].name
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(item, name, 2)
