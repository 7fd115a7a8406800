"""Requests and responses in pieces: how they are cut, and how they are put together again."""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.frames import (
    Code,
    FrameProtocolError,
    FrameUsageError,
    Limits,
    command_parts,
    error_part,
    response_parts,
)
from txqmp.frames.assembly import Assembler, HalfRequest
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_ARGUMENT,
    COMMAND_DATA,
    COMMAND_NAME,
    ERROR_RESPONSE,
)
from txqmp.frames.commands import Name, Part, check_end, check_error, check_name
from txqmp.frames.limits import DEFAULT_PAYLOAD


ASCII = st.text(st.characters(max_codepoint=127), max_size=12)
ARGUMENTS = st.dictionaries(ASCII, st.binary(max_size=80), max_size=4)
EOS, ARGS, DATA = 1, 2, 4  # of a command's name
CONTINUED, LAST = 1, 2  # of everything else


class ShortReader(io.BytesIO):
    """A file that gives less than it is asked for, by turns."""

    def __init__(self, data: bytes, sizes: Iterable[int]) -> None:
        super().__init__(data)
        self.sizes = itertools.cycle(sizes)
        self.asked: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        assert size
        self.asked.append(size)
        return super().read(min(size, next(self.sizes)))


def put_together(parts: Iterable[Part]) -> tuple[bytes, dict[bytes, bytes], bytes | None]:
    """Return the request that parts are the frames of."""
    (kind, flags, name), *rest = parts
    assert kind == COMMAND_NAME
    if check_name(flags, name, 1):
        assert not rest
        return name, {}, None
    half = HalfRequest(1, name, flags, 0.0, Limits(message_frames=1 << 20))
    for number, (kind, flags, payload) in enumerate(rest, 1):
        take = half.take_argument if kind == COMMAND_ARGUMENT else half.take_data
        assert take(flags, payload) == (number == len(rest))
    return half.name, half.arguments, half.data


def encoded(arguments: dict[str, bytes]) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in arguments.items()}


@given(st.lists(st.sampled_from([1, 2, 511, 512, 513, 2000]), max_size=60), st.integers(0, 9))
def test_small_pieces_are_held_as_one(sizes: list[int], seed: int) -> None:
    pieces = [bytes([(number + seed) & 0xFF]) * size for number, size in enumerate(sizes)]
    assembler = Assembler(1, Limits())
    for piece in pieces:
        assembler.take(piece, False)
    assert assembler.message() == b"".join(pieces)
    assert type(assembler.message()) is bytes
    large = sum(size > 512 for size in sizes)
    assert len(assembler._pieces) <= 2 * large + 1


def half_request(flags: int = ARGS, **limits: int) -> HalfRequest:
    return HalfRequest(5, b"name", flags, 0.0, Limits(**limits))  # type: ignore[arg-type]


def argument(name: bytes = b"a", value: bytes = b"", more: int = 0) -> bytes:
    return struct.pack("<HH", len(name), len(value) + more) + name + value


# Cutting a request


@given(ASCII.filter(bool), ARGUMENTS, st.none() | st.binary(max_size=80), st.integers(0, 90))
def test_a_request_cut_at_any_size_comes_out_the_same(
    name: str, arguments: dict[str, bytes], data: bytes | None, more: int
) -> None:
    size = max([len(name), *(4 + len(key) for key in arguments)]) + more
    parts = list(command_parts(name, arguments, data, size))  # type: ignore[arg-type]
    assert put_together(parts) == (name.encode(), encoded(arguments), data)
    assert max(len(payload) for _, _, payload in parts) <= size
    assert parts[0][1] == (ARGS if arguments else 0) | (DATA if data is not None else 0) or EOS


@pytest.mark.parametrize("size", range(5, 50))
def test_values_are_continued_over_frames_of_any_size(size: int) -> None:
    arguments: dict[Name, bytes] = {
        str(length % 10): bytes(range(length)) for length in (0, 1, 12, 13, 24, 45)
    }
    parts = list(command_parts("c", arguments, b"", size))
    name, came, data = put_together(parts)
    assert (name, data) == (b"c", b"")
    assert came == {str(key).encode(): value for key, value in arguments.items()}
    assert [key for key, _ in itertools.groupby(kind for kind, _, _ in parts)] == [
        COMMAND_NAME,
        COMMAND_ARGUMENT,
        COMMAND_DATA,
    ]


def test_a_value_goes_on_in_the_next_frame_without_a_header() -> None:
    parts = list(command_parts("c", {"key": b"123456789", "a": b"12"}, None, 9))
    assert parts[1:] == [
        (COMMAND_ARGUMENT, 0, b"\1\0\2\0a12"),
        (COMMAND_ARGUMENT, CONTINUED, b"\3\0\x09\0key12"),
        (COMMAND_ARGUMENT, LAST, b"3456789"),
    ]


def test_the_largest_value_comes_out_the_same() -> None:
    value = bytes(range(251)) * 262
    value = value[:65_535]
    for size in (DEFAULT_PAYLOAD, 65_535, 65_540, 5):
        assert put_together(command_parts("c", {"a": value}, None, size))[1] == {b"a": value}


def test_arguments_are_in_the_order_of_their_names() -> None:
    arguments: dict[Name, bytes] = {"b": b"", b"aa": b"", "B": b"", "": b"", b"a": b"", "~": b""}
    payloads = [payload for _, _, payload in command_parts("c", arguments)][1:]
    assert [payload[4:] for payload in payloads] == [b"", b"B", b"a", b"aa", b"b", b"~"]


def test_a_request_without_data_is_not_one_with_no_bytes() -> None:
    assert list(command_parts("c")) == [(COMMAND_NAME, EOS, b"c")]
    assert list(command_parts("c", {}, b"")) == [
        (COMMAND_NAME, DATA, b"c"),
        (COMMAND_DATA, LAST, b""),
    ]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 21])
def test_data_end_in_a_frame_that_is_not_full(count: int) -> None:
    data = bytes(range(count))
    sizes = [10] * (count // 10) + [count % 10]
    for each in (data, io.BytesIO(data), ShortReader(data, [3, 1, 7])):
        parts = list(command_parts("c", None, each, 10))[1:]
        assert [len(payload) for _, _, payload in parts] == sizes
        assert [flags for _, flags, _ in parts] == [CONTINUED] * (count // 10) + [LAST]
        assert b"".join(payload for _, _, payload in parts) == data


@given(st.binary(max_size=200), st.integers(1, 50), st.lists(st.integers(1, 60), min_size=1))
def test_a_file_that_reads_short_loses_nothing(data: bytes, size: int, reads: list[int]) -> None:
    file = ShortReader(data, reads)
    parts = list(command_parts("c", None, file, size))
    assert parts == list(command_parts("c", None, data, size))
    assert max(file.asked) <= size


def test_a_file_that_reads_single_bytes_makes_full_frames() -> None:
    data = bytes(range(256)) * 256
    parts = list(command_parts("c", None, ShortReader(data, [1]), 65_535))
    assert [len(payload) for _, _, payload in parts] == [1, 65_535, 1]


def test_a_file_is_read_while_its_frames_are_taken() -> None:
    file = ShortReader(b"x" * 30, [100])
    parts = command_parts("c", None, file, 10)
    assert file.asked == []
    next(parts)
    next(parts)
    assert file.asked == [10]
    assert file.tell() == 10


def test_a_file_on_disk_is_data_too() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.seek(3)
        assert put_together(command_parts("c", None, file, 4))[2] == b"3456789"


@pytest.mark.parametrize("given", [None, "text", bytearray(b"x"), b"xxxxxx"], ids=repr)
def test_a_file_that_gives_something_else_is_not_taken_for_ended(given: Any) -> None:
    class Odd:
        def read(self, size: int) -> Any:
            return given

    parts = command_parts("c", None, Odd(), 5)  # type: ignore[arg-type]
    assert next(parts) == (COMMAND_NAME, DATA, b"c")
    with pytest.raises(FrameUsageError, match="asked for 5 bytes and gave"):
        next(parts)


def test_what_reading_raises_is_the_callers() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("gone")

    parts = command_parts("c", None, Broken(), 5)
    next(parts)
    with pytest.raises(OSError, match="gone"):
        next(parts)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_buffers_are_taken_as_they_are_now(kind: Any) -> None:
    name, key, value, data = (bytearray(text) for text in (b"n", b"k", b"value", b"data"))
    # A memoryview of a bytearray has no hash.
    arguments = {bytes(key): kind(value)}
    parts = command_parts(kind(name), arguments, kind(data), 6)
    answer = response_parts(kind(data), 3)
    error = error_part(kind(data), application=True)
    for buffer in (name, value, data):
        buffer[:] = b"x" * len(buffer)
    assert put_together(parts) == (b"n", {b"k": b"value"}, b"data")
    assert [payload for _, _, payload in answer] == [b"dat", b"a"]
    assert error == (ERROR_RESPONSE, LAST, b"data")


def test_a_buffer_of_larger_items_is_its_bytes() -> None:
    wide = memoryview(struct.pack("<3H", 1, 2, 3)).cast("H")
    assert put_together(command_parts("c", {"a": wide}, wide)) == (  # type: ignore[dict-item,arg-type]
        b"c",
        {b"a": b"\1\0\2\0\3\0"},
        b"\1\0\2\0\3\0",
    )


# What cannot be sent


@pytest.mark.parametrize("name", ["", b"", "é", b"\xff", "\ud800", "x" * (DEFAULT_PAYLOAD + 1)])
def test_a_name_that_is_none_is_refused_at_once(name: Any) -> None:
    with pytest.raises(FrameUsageError):
        command_parts(name)


@pytest.mark.parametrize("key", ["é", b"\xff", "\ud800"])
def test_an_argument_whose_name_is_not_ascii_is_refused_at_once(key: Any) -> None:
    with pytest.raises(FrameUsageError, match="a name is ASCII"):
        command_parts("c", {key: b""})


def test_two_arguments_of_one_name_are_refused_at_once() -> None:
    with pytest.raises(FrameUsageError, match="argument b'a' is there twice"):
        command_parts("c", {"a": b"1", b"a": b"2"})
    large = "n" * 10_000
    for arguments in ({large: b"1", large.encode(): b"2"}, {large: bytes(65_536)}):
        with pytest.raises(FrameUsageError) as caught:
            command_parts("c", arguments)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("given", [5, None, 1.5, ["x"]], ids=repr)
def test_what_is_not_bytes_is_refused_at_once(given: Any) -> None:
    for make in (
        lambda: command_parts(given),
        lambda: command_parts("c", {"a": given}),
        lambda: response_parts(given),
        lambda: error_part(given, application=True),
    ):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(TypeError):
        command_parts("c", {given: b""} if given != ["x"] else {5: b""})  # type: ignore[dict-item]
    if given is not None:
        with pytest.raises(TypeError):
            command_parts("c", None, given)


def test_text_is_neither_a_value_nor_data() -> None:
    with pytest.raises(TypeError):
        command_parts("c", {"a": "text"})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        command_parts("c", None, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        response_parts("text")  # type: ignore[arg-type]
    with pytest.raises(FrameUsageError, match="open for text"):
        command_parts("c", None, io.StringIO("text"))  # type: ignore[arg-type]


def test_names_go_to_the_frames_size_and_no_further() -> None:
    assert put_together(command_parts("x" * 10, None, None, 10))[0] == b"x" * 10
    with pytest.raises(FrameUsageError, match="1 to 10 bytes, not 11"):
        command_parts("x" * 11, None, None, 10)
    assert put_together(command_parts("c", {"x" * 6: b"12"}, None, 10))[1] == {b"x" * 6: b"12"}
    with pytest.raises(FrameUsageError, match="name of 7 bytes does not fit"):
        command_parts("c", {"x" * 7: b""}, None, 10)


def test_an_argument_goes_to_what_its_lengths_can_say_and_no_further() -> None:
    size = 1 << 17
    largest = {"n" * 65_535: b"v" * 65_535}
    assert put_together(command_parts("c", largest, None, size))[1] == encoded(largest)  # type: ignore[arg-type]
    with pytest.raises(FrameUsageError, match="name of 65536 bytes"):
        command_parts("c", {"n" * 65_536: b""}, None, size)
    with pytest.raises(FrameUsageError, match="'n' has 65536 bytes, more than 65,535"):
        command_parts("c", {"n": b"v" * 65_536}, None, size)


@pytest.mark.parametrize("size", [0, -1])
def test_nothing_fits_into_nothing(size: int) -> None:
    with pytest.raises(FrameUsageError):
        command_parts("c", None, b"", size)
    with pytest.raises(FrameUsageError, match="nothing fits"):
        response_parts(b"x", size)


# Cutting a response


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21])
def test_a_response_ends_in_a_full_frame_if_it_can(count: int) -> None:
    data = bytes(range(count))
    parts = list(response_parts(data, 10))
    assert len(parts) == max(1, -(-count // 10))
    assert b"".join(payload for _, _, payload in parts) == data
    assert all(len(payload) == 10 for _, _, payload in parts[:-1])
    assert {kind for kind, _, _ in parts} == {BYTES_RESPONSE}
    assert [flags for _, flags, _ in parts] == [CONTINUED] * (len(parts) - 1) + [LAST]


@given(st.binary(max_size=200), st.integers(1, 60))
def test_a_response_cut_at_any_size_comes_out_the_same(data: bytes, size: int) -> None:
    assembler = Assembler(1, Limits())
    ends = []
    for _, flags, payload in response_parts(data, size):
        ends.append(check_end(flags, "response", 1))
        assembler.take(payload, ends[-1])
    assert ends.index(True) == len(ends) - 1
    assert assembler.message() == data
    assert assembler.size == len(data)
    assert assembler.room == Limits().message - len(data)


# Errors


def test_an_error_is_of_the_protocol_or_the_application() -> None:
    assert error_part("no", protocol=True) == (ERROR_RESPONSE, 1, b"no")
    assert error_part(b"\xff", application=True) == (ERROR_RESPONSE, 2, b"\xff")
    assert error_part("é\ud800", application=True)[2] == b"\xc3\xa9?"
    for both in (False, True):
        with pytest.raises(FrameUsageError, match="either"):
            error_part("no", protocol=both, application=both)


def test_an_error_fits_into_one_frame() -> None:
    assert error_part("é" * 5, application=True, max_payload=10)[2] == "é".encode() * 5
    with pytest.raises(FrameUsageError, match="10 bytes, more than 9"):
        error_part("é" * 5, application=True, max_payload=9)


# Flags that came


@pytest.mark.parametrize("undefined", [0, 4, 8, 12])
def test_the_flags_of_data_and_responses(undefined: int) -> None:
    assert check_end(LAST | undefined, "data", 5)
    assert not check_end(CONTINUED | undefined, "data", 5)
    for flags, code in ((0, Code.MISSING_FLAGS), (3, Code.EXCLUSIVE_FLAGS)):
        with pytest.raises(FrameProtocolError) as caught:
            check_end(flags | undefined, "data", 5)
        assert (caught.value.code, caught.value.request_id) == (code, 5)


@pytest.mark.parametrize("undefined", [0, 4, 8, 12])
def test_the_flags_of_errors(undefined: int) -> None:
    assert check_error(1 | undefined, 5)
    assert not check_error(2 | undefined, 5)
    for flags, code in ((0, Code.MISSING_FLAGS), (3, Code.EXCLUSIVE_FLAGS)):
        with pytest.raises(FrameProtocolError) as caught:
            check_error(flags | undefined, 5)
        assert (caught.value.code, caught.value.request_id) == (code, 5)


@pytest.mark.parametrize("flags", range(16))
def test_the_flags_of_a_command(flags: int) -> None:
    expected = {0: Code.MISSING_FLAGS, EOS: True, ARGS: False, DATA: False, ARGS | DATA: False}
    outcome = expected.get(flags & 7, Code.EXCLUSIVE_FLAGS)
    if isinstance(outcome, bool):
        assert check_name(flags, b"c", 5) is outcome
        outcome = Code.EMPTY_COMMAND
    else:
        with pytest.raises(FrameProtocolError) as caught:
            check_name(flags, b"c", 5)
        assert (caught.value.code, caught.value.request_id) == (outcome, 5)
    with pytest.raises(FrameProtocolError) as caught:
        check_name(flags, b"", 5)
    assert (caught.value.code, caught.value.request_id) == (Code.EMPTY_COMMAND, 5)


# Putting a request together


def test_a_request_is_whole_when_all_that_was_announced_is_there() -> None:
    half = half_request(ARGS)
    assert not half.take_argument(0, argument(b"a", b"1"))
    assert half.take_argument(LAST, argument(b"b", b"2"))
    assert (half.arguments, half.data) == ({b"a": b"1", b"b": b"2"}, None)

    half = half_request(DATA)
    assert half.data == b""
    assert not half.take_data(CONTINUED, b"1")
    assert half.take_data(LAST, b"2")
    assert (half.arguments, half.data) == ({}, b"12")

    half = half_request(ARGS | DATA)
    assert not half.take_argument(LAST, argument())
    assert half.take_data(LAST, b"")
    assert (half.arguments, half.data) == ({b"a": b""}, b"")


def test_a_value_may_continue_into_no_more_bytes() -> None:
    half = half_request()
    assert not half.take_argument(CONTINUED, argument(b"a", b"1"))
    assert half.arguments == {}
    assert half.take_argument(LAST, b"")
    assert half.arguments == {b"a": b"1"}


def test_what_is_held_is_known() -> None:
    half = half_request(ARGS | DATA)
    begun = half.held
    half.take_argument(CONTINUED, argument(b"abc", b"12", more=3))
    assert (half.held - begun, half.argument_bytes) == (9, 9)
    half.take_argument(LAST, b"345")
    assert (half.held - begun, half.argument_bytes) == (12, 12)
    half.take_data(CONTINUED, b"1234")
    assert (half.held - begun, half.argument_bytes, half.size) == (16, 12, 4)
    assert half.room == Limits().message - 4


Step = Callable[[HalfRequest], object]


def argued(flags: int, payload: bytes) -> Step:
    return lambda half: half.take_argument(flags, payload)


def given_data(flags: int, payload: bytes = b"") -> Step:
    return lambda half: half.take_data(flags, payload)


#: The code; what was announced; the frames, of which the last one is wrong.
WRONG: dict[str, tuple[Code, int, list[Step]]] = {
    "no arguments announced": (Code.ARGUMENTS_NOT_EXPECTED, DATA, [argued(LAST, argument())]),
    "an argument after the last": (
        Code.ARGUMENT_AFTER_END,
        ARGS | DATA,
        [argued(LAST, argument(b"a")), argued(LAST, argument(b"b"))],
    ),
    "an argument after data": (
        Code.ARGUMENT_AFTER_END,
        ARGS | DATA,
        [argued(LAST, argument(b"a")), given_data(CONTINUED), argued(0, argument(b"b"))],
    ),
    "the same name twice": (
        Code.DUPLICATE_ARGUMENT,
        ARGS,
        [argued(0, argument(b"a", b"1")), argued(0, argument(b"a", b"1"))],
    ),
    "the same name twice, continued": (
        Code.DUPLICATE_ARGUMENT,
        ARGS,
        [argued(0, argument(b"a")), argued(CONTINUED, argument(b"a", more=5))],
    ),
    "continued and the last": (Code.EXCLUSIVE_FLAGS, ARGS, [argued(3, argument())]),
    "nothing": (Code.MALFORMED_ARGUMENT, ARGS, [argued(0, b"")]),
    "half a header": (Code.MALFORMED_ARGUMENT, ARGS, [argued(0, b"\0\0\0")]),
    "half a header, continued": (Code.MALFORMED_ARGUMENT, ARGS, [argued(CONTINUED, b"\1\0\0")]),
    "half a name": (Code.MALFORMED_ARGUMENT, ARGS, [argued(0, b"\2\0\0\0a")]),
    "half a name, continued": (
        Code.MALFORMED_ARGUMENT,
        ARGS,
        [argued(CONTINUED, b"\2\0\0\0a")],
    ),
    "half a value": (Code.MALFORMED_ARGUMENT, ARGS, [argued(0, b"\1\0\2\0a1")]),
    "half a value, the last": (Code.MALFORMED_ARGUMENT, ARGS, [argued(LAST, b"\1\0\2\0a1")]),
    "more than a value": (Code.MALFORMED_ARGUMENT, ARGS, [argued(0, b"\1\0\2\0a123")]),
    "more than a value, continued": (
        Code.MALFORMED_ARGUMENT,
        ARGS,
        [argued(CONTINUED, b"\1\0\2\0a123")],
    ),
    "half of a continued value": (
        Code.MALFORMED_ARGUMENT,
        ARGS,
        [argued(CONTINUED, b"\1\0\5\0a12"), argued(0, b"34")],
    ),
    "more than a continued value": (
        Code.MALFORMED_ARGUMENT,
        ARGS,
        [argued(CONTINUED, b"\1\0\5\0a12"), argued(0, b"3456")],
    ),
    "no data announced": (Code.DATA_NOT_EXPECTED, ARGS, [given_data(LAST)]),
    "data before the arguments": (
        Code.DATA_BEFORE_END_OF_ARGUMENTS,
        ARGS | DATA,
        [given_data(LAST)],
    ),
    "data before the end of the arguments": (
        Code.DATA_BEFORE_END_OF_ARGUMENTS,
        ARGS | DATA,
        [argued(0, argument()), given_data(CONTINUED)],
    ),
    "data within a value": (
        Code.DATA_BEFORE_END_OF_ARGUMENTS,
        ARGS | DATA,
        [argued(CONTINUED, argument(more=1)), given_data(LAST)],
    ),
    "data without flags": (Code.MISSING_FLAGS, DATA, [given_data(0, b"x")]),
    "data that are the last and are not": (Code.EXCLUSIVE_FLAGS, DATA, [given_data(3)]),
}


@pytest.mark.parametrize(("code", "flags", "steps"), WRONG.values(), ids=WRONG)
def test_a_request_that_makes_no_sense_is_refused(
    code: Code, flags: int, steps: list[Step]
) -> None:
    half = half_request(flags)
    for step in steps[:-1]:
        step(half)
    with pytest.raises(FrameProtocolError) as caught:
        steps[-1](half)
    assert caught.value.code is code
    assert caught.value.request_id == 5


@given(
    st.integers(0, 15).map(lambda flags: flags & 6 or ARGS),
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 15),
            st.binary(max_size=12)
            | st.builds(argument, st.binary(max_size=2), st.binary(max_size=4), st.integers(0, 3)),
        ),
        max_size=12,
    ),
)
def test_any_frames_make_a_request_or_an_error(
    flags: int, frames: list[tuple[bool, int, bytes]]
) -> None:
    half = half_request(flags, request_arguments=40, message=40, empty_frames=1, message_frames=9)
    for is_data, frame_flags, payload in frames:
        try:
            whole = (half.take_data if is_data else half.take_argument)(frame_flags, payload)
        except FrameProtocolError:
            return
        assert half.argument_bytes <= 40 and half.size <= 40
        if whole:
            assert (half.data is not None) == bool(flags & DATA)
            assert bool(half.arguments) == bool(flags & ARGS)
            return
