"""Bytes to objects and back: any chunking, any line ends, limits, pauses, and bad text."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport

from support.leaks import LoggedErrors
from txqmp import framing
from txqmp.errors import (
    DeserializationError,
    MessageTooLongError,
    ProtocolError,
    UnexpectedTypeError,
)
from txqmp.framing import DEFAULT_MAX_MESSAGE, JSONLineReceiver
from txqmp.messages import Message


class Receiver(JSONLineReceiver):
    """Keeps what comes.

    :ivar then: called after each message.
    """

    def __init__(self, limit: int = DEFAULT_MAX_MESSAGE) -> None:
        super().__init__()
        self.max_message = limit
        self.received: list[dict[str, Any]] = []
        self.problems: list[ProtocolError] = []
        self.then: Callable[[], None] = lambda: None

    def message_received(self, message: dict[str, Any]) -> None:
        self.received.append(message)
        self.then()

    def framing_failed(self, error: ProtocolError) -> None:
        self.problems.append(error)


def connected(limit: int = DEFAULT_MAX_MESSAGE, transport: Any = None) -> Receiver:
    receiver = Receiver(limit)
    receiver.makeConnection(transport or StringTransport())
    return receiver


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# Any chunking, any form

# Text that misleads who does not read strings as strings.
WORDS = st.sampled_from(
    ["a", "", '{"', '"}', "\\", '\\"', '\\\\"', "[", "{{", "\r\n", "\u2028", "\xff", "äß€😀", "\0"]
)
VALUES = WORDS | st.sampled_from(
    [
        None,
        True,
        0,
        -1.5e-30,
        2**64 - 1,
        [],
        {},
        [[{}], {"]": [{"}": '"'}]}],
        ["\\", '\\"{'],
        "x" * 99,
    ]
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
BLANKS = st.sampled_from([b"", b"\n", b"\r\n \t\n", b"\xff", b"\r\n\xff\xff", b"  "])


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    """Messages, and one of the texts that say so."""
    messages = draw(st.lists(OBJECTS, max_size=5))
    text = b""
    for message in messages:
        end = draw(st.sampled_from([b"\n", b"\r\n"]))
        indent = draw(st.sampled_from([None, None, 0, 4, "\t"]))
        one = json.dumps(message, indent=indent, ensure_ascii=draw(st.booleans())).encode()
        text += draw(BLANKS) + one.replace(b"\n", end) + draw(st.sampled_from([b"", b" "])) + end
    return messages, text


def chunked(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


CUTS = st.lists(st.integers(0, 1000), max_size=10)


@given(texts(), CUTS | st.just(list(range(1000))))
def test_any_chunking_of_any_form_gives_the_same_messages(
    what: tuple[list[dict[str, Any]], bytes], cuts: list[int]
) -> None:
    messages, text = what
    receiver = connected()
    for chunk in chunked(text, cuts):
        receiver.dataReceived(chunk)
    assert receiver.problems == []
    assert receiver.received == messages
    assert receiver.unfinished == 0


@given(texts(), CUTS, st.integers(1, 3))
def test_pausing_at_any_message_loses_and_reorders_nothing(
    what: tuple[list[dict[str, Any]], bytes], cuts: list[int], every: int
) -> None:
    messages, text = what
    receiver = connected()

    def pause() -> None:
        if len(receiver.received) % every == 0:
            receiver.pauseProducing()

    receiver.then = pause
    for chunk in chunked(text, cuts):
        receiver.dataReceived(chunk)
    for _ in messages:
        if receiver.paused:
            receiver.resumeProducing()
    assert receiver.received == messages


TOKENS = [b"{", b'"a}{"', b":", b"[", b"1", b",", b'"\\"]\\\\"', b"]", b",", b'"b"', b":"]
TOKENS += [b"{", b"}", b"}"]


@given(st.lists(st.sampled_from([b"", b" ", b"\n", b"\r\n", b"\t"]), min_size=13, max_size=13))
def test_a_message_may_be_broken_wherever_json_may(spaces: list[bytes]) -> None:
    receiver = connected()
    text = b"".join(a + b for a, b in zip(TOKENS, [*spaces, b"\n"], strict=True))
    receiver.dataReceived(text * 2)
    assert receiver.problems == []
    assert receiver.received == [{"a}{": [1, '"]\\'], "b": {}}] * 2


def test_qemus_pretty_greeting_is_one_message() -> None:
    receiver = connected()
    for part in (b"{", b'    "QMP": {', b'        "capabilities": [', b"        ]", b"    }", b"}"):
        assert receiver.received == []
        receiver.dataReceived(part + b"\r\n")
    assert receiver.received == [{"QMP": {"capabilities": []}}]


def test_a_message_without_its_line_end_is_not_a_message_yet() -> None:
    receiver = connected()
    receiver.dataReceived(b'{"a": 1}')
    assert receiver.received == []
    assert receiver.unfinished == 8
    receiver.dataReceived(b"\n")
    assert receiver.received == [{"a": 1}]
    assert receiver.unfinished == 0


def test_what_is_unfinished_of_a_spread_message_is_known() -> None:
    receiver = connected()
    receiver.dataReceived(b'{\n"a": 1')
    assert receiver.unfinished in (8, 9)
    receiver.dataReceived(b"\n}\n")
    assert receiver.unfinished == 0


def test_a_0xff_drops_what_was_begun_on_the_lines_before() -> None:
    # The guest agent's parser is reset by it; so what came before it will never be whole.
    receiver = connected()
    receiver.dataReceived(b'{\n"a": 1,\n\xff{"b": 2}\n{"c": 3}\n')
    assert receiver.received == [{"b": 2}, {"c": 3}]
    assert receiver.problems == []


# Linear work: with quadratic work these would run into the suite's time limit.


def test_one_huge_line_in_small_pieces() -> None:
    receiver = connected()
    text = b'{"data": "' + b"x" * (DEFAULT_MAX_MESSAGE - 12) + b'"}'
    assert len(text) == DEFAULT_MAX_MESSAGE
    for piece in pieces(text + b"\n", 4096):
        receiver.dataReceived(piece)
    assert len(receiver.received[0]["data"]) == DEFAULT_MAX_MESSAGE - 12


def test_very_many_lines_in_one_piece() -> None:
    receiver = connected()
    receiver.dataReceived(b'{"event":"STOP"}\r\n' * 200_000)
    assert len(receiver.received) == 200_000


def test_a_message_spread_over_very_many_lines_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = 0

    def counting(text: bytes) -> Any:
        nonlocal read
        read += len(text)
        return loads(text)

    loads = framing._loads
    monkeypatch.setattr(framing, "_loads", counting)
    receiver = connected()
    text = b"{\r\n" + b'"a": [\r\n' + b"1,\r\n" * 100_000 + b"1\r\n]\r\n}\r\n"
    for piece in pieces(text, 65536):
        receiver.dataReceived(piece)
    assert len(receiver.received[0]["a"]) == 100_001
    assert read < len(text) + 10


@pytest.mark.parametrize(
    "content", [b"x" * (1 << 20), b"\\r\\n" * (1 << 18)], ids=["plain", "escapes"]
)
def test_a_huge_string_in_a_spread_message_takes_little_memory(content: bytes) -> None:
    # A regular expression that keeps a state for each character takes gigabytes for 20 MB;
    # orjson itself takes some fifteen times the size of the text, for a moment.
    receiver = connected()
    text = b'{\n"return": "' + content + b'"\n}\n'
    tracemalloc.start()
    try:
        receiver.dataReceived(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert receiver.received == [{"return": json.loads(b'"' + content + b'"')}]
    assert peak < 40 * len(text)


# Limits


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_message_of_exactly_the_limit_is_taken(end: bytes, size: int) -> None:
    text = b'{"a": "xxxxxxxxxx"}'
    receiver = connected(len(text))
    for piece in pieces((text + end) * 2, size):
        receiver.dataReceived(piece)
    assert receiver.problems == []
    assert len(receiver.received) == 2


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_message_of_one_byte_more_is_refused(end: bytes, size: int) -> None:
    text = b'{"a": "xxxxxxxxxx"}'
    receiver = connected(len(text) - 1)
    for piece in pieces(b"{}\n" + text + end + b"{}\n", size):
        receiver.dataReceived(piece)
    assert receiver.received == [{}]
    (problem,) = receiver.problems
    assert isinstance(problem, MessageTooLongError)
    assert problem.limit == len(text) - 1
    assert text.startswith(problem.raw.rstrip(b"\r"))
    assert problem.raw


def test_a_line_without_an_end_is_refused_before_it_is_whole() -> None:
    receiver = connected(100)
    receiver.dataReceived(b"{}\n" + b"x" * 100)
    assert receiver.problems == []
    receiver.dataReceived(b"xx")
    assert isinstance(receiver.problems[0], MessageTooLongError)
    receiver.dataReceived(b"x" * 1000 + b"\n{}\n")
    assert len(receiver.problems) == 1
    assert receiver.received == [{}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_spread_message_of_exactly_the_limit_is_taken(end: bytes) -> None:
    text = json.dumps({"a": [1, 2, 3]}, indent=4).encode().replace(b"\n", end)
    receiver = connected(len(text))
    receiver.dataReceived((text + end) * 2)
    assert receiver.problems == []
    assert len(receiver.received) == 2


def test_a_spread_message_of_more_is_refused_before_it_is_whole() -> None:
    receiver = connected(100)
    receiver.dataReceived(b"{}\n{\n" + b'"a": [\n' + b"1,\n" * 50)
    assert receiver.received == [{}]
    (problem,) = receiver.problems
    assert isinstance(problem, MessageTooLongError)
    assert problem.limit == 100
    assert problem.raw.startswith(b'{\n"a": [\n1,\n1,')


def test_a_spread_message_of_one_byte_more_is_refused() -> None:
    text = json.dumps({"a": [1, 2, 3]}, indent=4).encode()
    receiver = connected(len(text) - 1)
    receiver.dataReceived(text + b"\n")
    assert receiver.received == []
    assert isinstance(receiver.problems[0], MessageTooLongError)


def test_blank_lines_count_towards_the_limit_of_a_spread_message_only() -> None:
    receiver = connected(100)
    receiver.dataReceived(b"\n" * 1000 + b"{}\n")
    assert receiver.received == [{}]
    receiver.dataReceived(b"{\n" + b"\n" * 1000)
    assert isinstance(receiver.problems[0], MessageTooLongError)


def test_what_is_told_of_a_message_too_long_is_short() -> None:
    receiver = connected(100_000)
    receiver.dataReceived(b"x" * 100_002)
    problem = receiver.problems[0]
    assert isinstance(problem, MessageTooLongError)
    assert len(problem.raw) <= 1024
    assert len(str(problem)) < 400


# Bad text

NOT_JSON = {
    "words": b"hello",
    "a bare brace": b"}",
    "a lone bracket": b"[",
    "missing value": b'{"a": }',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "two objects on a line": b"{}{}",
    "words after an object": b"{} x",
    "not UTF-8": b'{"a": "\xff"}',
    "half a character": b'{"a": "\xc3"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a control character": b'{"a": "\x01"}',
    "NUL": b"\x00",
    "UTF-16": '{"a": 1}'.encode("utf-16-le"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "single quotes": b"{'a': 1}",
    "a string over two lines": b'{"a": "b\nc"}',
    "a key over two lines": b'{\n"a\n": 1}',
    "a spread message without a comma": b'{\n"a": 1\n"b": 2\n}',
    "a spread message with a brace too many": b'{\n"a": {}}}',
    "a spread message with the wrong bracket": b'{\n"a": {\n]\n}',
    "a spread message that is not UTF-8": b'{\n"a": "\xff"\n}',
    "words in a spread message": b"{\nhello\n}",
    "too deep": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "0xFF before words": b"\xffhello",
}
NO_OBJECT = {
    "an array": b"[1]",
    "a number": b"5",
    "a string": b'"x"',
    "null": b"null",
    "true": b"true",
    "an array after 0xFF": b"\xff[1]",
    "a deep array": b"[" * 1000 + b"]" * 1000,
}
BAD = [
    *(pytest.param(text, DeserializationError, id=name) for name, text in NOT_JSON.items()),
    *(pytest.param(text, UnexpectedTypeError, id=name) for name, text in NO_OBJECT.items()),
]
bad_texts = pytest.mark.parametrize(("text", "kind"), BAD)


@bad_texts
@pytest.mark.parametrize("size", [1, 1000_000])
def test_bad_text_is_told_once_after_what_came_before_and_ends_the_reading(
    text: bytes, kind: type[ProtocolError], size: int
) -> None:
    receiver = connected()
    for piece in pieces(b'{"before": 1}\n' + text + b'\n{"after": 2}\n' + text + b"\n", size):
        receiver.dataReceived(piece)
    receiver.dataReceived(b'{"later": 3}\n')
    assert receiver.received == [{"before": 1}]
    assert [type(problem) for problem in receiver.problems] == [kind]
    assert len(str(receiver.problems[0])) < 400


@bad_texts
def test_bad_text_is_told_when_its_turn_comes(text: bytes, kind: type[ProtocolError]) -> None:
    receiver = connected()
    receiver.then = receiver.pauseProducing
    receiver.dataReceived(b'{"a": 1}\n{"b": 2}\n' + text + b'\n{"after": 3}\n')
    receiver.dataReceived(b'{"later": 4}\n')
    assert (receiver.received, receiver.problems) == ([{"a": 1}], [])
    receiver.resumeProducing()
    assert (receiver.received, receiver.problems) == ([{"a": 1}, {"b": 2}], [])
    receiver.resumeProducing()
    assert receiver.received == [{"a": 1}, {"b": 2}]
    assert [type(problem) for problem in receiver.problems] == [kind]
    receiver.resumeProducing()
    assert receiver.received == [{"a": 1}, {"b": 2}]


def test_what_is_told_of_bad_text_shows_it() -> None:
    receiver = connected()
    receiver.dataReceived(b"220 mail.example.org ESMTP\r\n")
    (problem,) = receiver.problems
    assert isinstance(problem, DeserializationError)
    assert "220 mail.example.org" in str(problem)
    assert problem.raw == b"220 mail.example.org ESMTP\r"


def test_what_is_told_of_a_bad_spread_message_shows_all_of_it() -> None:
    receiver = connected()
    receiver.dataReceived(b'{\n"a": x\n}\n')
    (problem,) = receiver.problems
    assert isinstance(problem, DeserializationError)
    assert problem.raw == b'{\n"a": x\n}'


def test_a_line_too_long_comes_after_what_came_before_when_paused() -> None:
    receiver = connected(100)
    receiver.then = receiver.pauseProducing
    receiver.dataReceived(b'{"a": 1}\n' + b"x" * 200)
    assert (receiver.received, receiver.problems) == ([{"a": 1}], [])
    receiver.resumeProducing()
    assert isinstance(receiver.problems[0], MessageTooLongError)


# Pausing and stopping


def test_pausing_in_the_middle_of_a_chunk_holds_the_rest() -> None:
    receiver = connected()
    receiver.then = receiver.pauseProducing
    receiver.dataReceived(b'{"a": 1}\n{"a": 2}\n{"a":')
    assert receiver.received == [{"a": 1}]
    assert receiver.transport.producerState == "paused"
    receiver.dataReceived(b' 3}\n{"a": 4}\n')
    assert receiver.received == [{"a": 1}]
    receiver.then = lambda: None
    receiver.resumeProducing()
    assert receiver.received == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]
    assert receiver.transport.producerState == "producing"


def test_resuming_in_the_callback_that_paused_goes_on_in_order() -> None:
    receiver = connected()

    def both() -> None:
        receiver.pauseProducing()
        receiver.resumeProducing()

    receiver.then = both
    receiver.dataReceived(b'{"a": 1}\n{"a": 2}\n')
    receiver.dataReceived(b'{"a": 3}\n')
    assert receiver.received == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_data_that_comes_while_a_message_is_handled_comes_after_the_rest() -> None:
    receiver = connected()

    def more() -> None:
        if len(receiver.received) == 1:
            receiver.dataReceived(b'{"a": 4}\n')
            receiver.dataReceived(b'{"a": 5}\n')
            assert len(receiver.received) == 1

    receiver.then = more
    receiver.dataReceived(b'{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert [message["a"] for message in receiver.received] == [1, 2, 3, 4, 5]


def test_chunks_that_come_while_paused_are_read_in_order_each_with_its_pause() -> None:
    receiver = connected()
    receiver.pauseProducing()
    receiver.then = receiver.pauseProducing
    for number in range(4):
        receiver.dataReceived(b'{"a": %d}\n' % number)
    for count in range(1, 5):
        receiver.resumeProducing()
        assert [message["a"] for message in receiver.received] == list(range(count))


def test_nothing_is_read_after_the_reading_was_stopped() -> None:
    receiver = connected()
    receiver.then = receiver.stop_reading
    receiver.dataReceived(b'{"a": 1}\n{"a": 2}\n{"a"')
    receiver.dataReceived(b": 3}\n")
    receiver.resumeProducing()
    assert receiver.received == [{"a": 1}]


def test_nothing_is_held_after_the_reading_was_stopped() -> None:
    receiver = connected()
    receiver.dataReceived(b'{\n"a": 1,\n"b')
    assert receiver.unfinished > 0
    receiver.stop_reading()
    assert receiver.unfinished == 0


def test_what_a_callback_raises_goes_to_the_transport() -> None:
    receiver = connected()

    def broken() -> None:
        raise ZeroDivisionError

    receiver.then = broken
    with pytest.raises(ZeroDivisionError):
        receiver.dataReceived(b"{}\n")


def test_a_receiver_that_overrides_nothing_says_so() -> None:
    receiver = JSONLineReceiver()
    with pytest.raises(NotImplementedError):
        receiver.dataReceived(b"{}\n")
    receiver = JSONLineReceiver()
    with pytest.raises(NotImplementedError):
        receiver.dataReceived(b"[]\n")


# Taps


def test_an_inbound_tap_sees_rewrites_and_holds_back() -> None:
    receiver = connected()
    seen: list[dict[str, Any]] = []

    def tap(message: Message) -> Message | None:
        seen.append(dict(message))
        if "drop" in message:
            return None
        message["tapped"] = True
        return message

    receiver.taps.add_inbound(tap)
    receiver.dataReceived(b'{"a": 1}\n{"drop": 1}\n\xff{"b": 2}\n{\n"c": 3\n}\n')
    assert seen == [{"a": 1}, {"drop": 1}, {"b": 2}, {"c": 3}]
    assert receiver.received == [
        {"a": 1, "tapped": True},
        {"b": 2, "tapped": True},
        {"c": 3, "tapped": True},
    ]


def test_an_inbound_tap_that_raises_loses_no_message(logged_errors: LoggedErrors) -> None:
    receiver = connected()
    receiver.taps.add_inbound(lambda message: message["missing"])
    receiver.dataReceived(b'{"a": 1}\n{"a": 2}\n')
    assert receiver.received == [{"a": 1}, {"a": 2}]
    assert len(logged_errors.flush(KeyError)) == 1


def test_a_cancelled_tap_lets_messages_pass() -> None:
    receiver = connected()
    receiver.taps.add_inbound(lambda message: None).cancel()
    receiver.dataReceived(b'{"a": 1}\n')
    assert receiver.received == [{"a": 1}]


def test_an_outbound_tap_sees_rewrites_and_holds_back() -> None:
    receiver = connected()

    def tap(message: Message) -> Message | None:
        return None if "drop" in message else Message({**message, "tapped": True})

    receiver.taps.add_outbound(tap)
    assert receiver.send(b'{"a": 1}') is True
    assert receiver.send(b'{"drop": 1}') is False
    assert receiver.transport.value() == b'{"a":1,"tapped":true}\n'


def test_an_outbound_tap_that_only_looks_changes_no_byte() -> None:
    receiver = connected()
    receiver.taps.add_outbound(lambda message: message)
    receiver.send(b'{ "a" :  1.0 }')
    assert receiver.transport.value() == b'{ "a" :  1.0 }\n'


def test_an_outbound_tap_that_changes_a_member_deep_inside_is_heeded() -> None:
    receiver = connected()

    def tap(message: Message) -> Message:
        message["arguments"]["device"] = "d1"
        return message

    receiver.taps.add_outbound(tap)
    receiver.send(b'{"execute":"x","arguments":{"device":"d0"}}')
    assert json.loads(receiver.transport.value())["arguments"] == {"device": "d1"}


def test_what_an_outbound_tap_raises_is_the_callers_and_nothing_is_written() -> None:
    receiver = connected()
    receiver.taps.add_outbound(lambda message: message["missing"])
    with pytest.raises(KeyError):
        receiver.send(b"{}")
    assert receiver.transport.value() == b""


# Writing


def test_a_message_is_sent_as_a_line() -> None:
    receiver = connected()
    assert receiver.send(b'{"a":1}') is True
    assert receiver.transport.value() == b'{"a":1}\n'


def test_bytes_go_past_the_taps() -> None:
    receiver = connected()
    receiver.taps.add_outbound(lambda message: None)
    receiver.write_bytes(b"half a ")
    assert receiver.transport.value() == b"half a "


def test_nothing_is_written_before_there_is_a_connection() -> None:
    Receiver().write_bytes(b"x")
