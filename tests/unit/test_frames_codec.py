"""Frames as bytes: any fields, any chunking, refusal by the header, and what it all costs."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.frames import (
    Code,
    Frame,
    FrameDecoder,
    FrameLimitError,
    FrameProtocolError,
    FrameUsageError,
    codec,
    decode_header,
    encode_frame,
)
from txqmp.frames.codec import HEADER_SIZE
from txqmp.frames.limits import MAX_PAYLOAD, MAX_UNNEGOTIATED


BYTE = st.integers(0, 255)
NIBBLE = st.integers(0, 15)
#: Of all sizes, those with another third byte among them.
PAYLOADS = st.binary(max_size=40) | st.builds(
    lambda byte, size: bytes([byte]) * size,
    BYTE,
    st.sampled_from([255, 256, 32_768, 65_535, 65_536, 131_071]),
)
FRAMES = st.builds(Frame, st.integers(0, 65_535), BYTE, BYTE, NIBBLE, NIBBLE, PAYLOADS)
CUTS = st.lists(st.integers(0, 200_000), max_size=10)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def frame(payload: bytes = b"payload", request_id: int = 1) -> Frame:
    return Frame(request_id, 1, 0, 4, 2, payload)


def header(length: int, request_id: int = 1) -> bytes:
    return length.to_bytes(3, "little") + encode_frame(request_id, 1, 0, 4, 2, b"")[3:]


# Encoding


@given(FRAMES)
def test_a_frame_is_laid_out_as_the_protocol_says(given: Frame) -> None:
    data = given.encode()
    assert int.from_bytes(data[:3], "little") == len(given.payload)
    assert int.from_bytes(data[3:5], "little") == given.request_id
    assert data[5] == given.stream_id
    assert data[6] == given.stream_flags
    assert data[7] >> 4 == given.type
    assert data[7] & 15 == given.flags
    assert data[8:] == given.payload


FIELDS = {"request_id": 65_535, "stream_id": 255, "stream_flags": 255, "type": 15, "flags": 15}


@pytest.mark.parametrize(("field", "largest"), FIELDS.items())
def test_a_field_goes_to_its_edge_and_no_further(field: str, largest: int) -> None:
    fields = dict.fromkeys(FIELDS, 0)
    for number in (0, largest):
        data = encode_frame(**{**fields, field: number}, payload=b"x")
        (came,) = FrameDecoder().feed(data)
        assert came._asdict() == {**fields, field: number, "payload": b"x"}
    for number in (-1, largest + 1, -(2**80), 2**80):
        with pytest.raises(FrameUsageError, match=r"-?\d"):
            encode_frame(**{**fields, field: number}, payload=b"x")


@pytest.mark.parametrize("number", [-1, -16, 16, 31, 240, 256])
def test_type_and_flags_do_not_leak_into_each_other(number: int) -> None:
    for type, flags in ((number, 0), (0, number), (number, 15), (15, number), (number, number)):
        with pytest.raises(FrameUsageError):
            encode_frame(1, 1, 0, type, flags, b"")


@pytest.mark.parametrize("number", [1.0, "1", None])
def test_a_number_that_is_not_whole_is_refused(number: Any) -> None:
    for field in ("request_id", "stream_id", "stream_flags"):
        with pytest.raises(FrameUsageError):
            encode_frame(**{**dict.fromkeys(FIELDS, 0), field: number}, payload=b"")
    for field in ("type", "flags"):
        with pytest.raises((FrameUsageError, TypeError)):
            encode_frame(**{**dict.fromkeys(FIELDS, 0), field: number}, payload=b"")


def test_the_largest_payload_is_one_that_the_length_can_say() -> None:
    payload = bytes(MAX_PAYLOAD)
    data = frame(payload).encode()
    assert data[:3] == b"\xff\xff\xff"
    assert FrameDecoder(MAX_PAYLOAD).feed(data) == [frame(payload)]
    for largest in (MAX_PAYLOAD, MAX_PAYLOAD + 1):
        with pytest.raises(FrameUsageError, match="16777216"):
            frame(payload + b"x").encode(largest)


def test_a_payload_is_as_large_as_is_allowed_and_no_larger() -> None:
    assert frame(b"12345").encode(5)[8:] == b"12345"
    with pytest.raises(FrameUsageError, match="a payload of 6 bytes, more than 5"):
        frame(b"123456").encode(5)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_buffer_is_a_payload_too(kind: Any) -> None:
    assert encode_frame(1, 1, 0, 4, 2, kind(b"payload")) == frame().encode()


# Decoding


@given(st.lists(FRAMES, max_size=6), CUTS)
def test_frames_cut_anywhere_come_out_the_same(given: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder(MAX_PAYLOAD)
    came: list[Frame] = []
    for chunk in chunked(b"".join(each.encode() for each in given), cuts):
        came += decoder.feed(chunk)
    assert came == given
    assert all(type(each) is Frame and type(each.payload) is bytes for each in came)
    assert decoder.held == 0
    assert decoder.finish() is None


@pytest.mark.parametrize("size", range(1, 40))
def test_frames_in_pieces_of_any_size_come_out_the_same(size: int) -> None:
    given = [frame(bytes([length]) * length, length) for length in (0, 1, 0, 7, 8, 9, 30, 0)]
    decoder = FrameDecoder()
    data = b"".join(each.encode() for each in given)
    came: list[Frame] = []
    for number, piece in enumerate(pieces(data, size)):
        came += decoder.feed(piece)
        fed = min(len(data), (number + 1) * size)
        assert decoder.held == fed - sum(len(each.encode()) for each in came)
    assert came == given


def test_no_bytes_change_nothing() -> None:
    decoder = FrameDecoder()
    data = frame().encode()
    assert decoder.feed(b"") == []
    assert decoder.feed(data[:3]) == decoder.feed(b"") == []
    assert decoder.feed(data[3:10]) == decoder.feed(b"") == []
    assert decoder.held == 10
    assert decoder.feed(data[10:]) == [frame()]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("size", [3, 10, 100])
def test_a_buffer_can_be_filled_anew_when_it_was_fed(kind: Any, size: int) -> None:
    decoder = FrameDecoder()
    buffer = bytearray(size)
    came: list[Frame] = []
    for piece in pieces(frame().encode() * 2, size):
        buffer[: len(piece)] = piece
        came += decoder.feed(kind(buffer)[: len(piece)])
        buffer[:] = bytes(size)
    assert came == [frame()] * 2
    assert all(type(each.payload) is bytes for each in came)


@pytest.mark.parametrize("data", ["text", 5, None])
@pytest.mark.parametrize("before", [b"", b"abc"])
def test_what_is_not_bytes_is_not_fed(data: Any, before: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(before)
    with pytest.raises(TypeError):
        decoder.feed(data)
    assert decoder.held == len(before)


# What it costs


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each piece of bytes in which headers were looked for."""
    sizes: list[int] = []
    last = b""
    unpack = codec._unpack_from

    def counting(data: bytes, start: int = 0) -> Any:
        nonlocal last
        if data is not last:
            last = data
            sizes.append(len(data))
        return unpack(data, start)

    monkeypatch.setattr(codec, "_unpack_from", counting)
    return sizes


@pytest.mark.parametrize("size", [1, 2, 4096])
def test_a_huge_frame_in_pieces_is_put_together_once(read: list[int], size: int) -> None:
    decoder = FrameDecoder(MAX_PAYLOAD)
    payload = bytes(1 << 18)
    came: list[Frame] = []
    for piece in pieces(frame(payload).encode(), size):
        came += decoder.feed(piece)
    assert came == [frame(payload)]
    assert read == [max(HEADER_SIZE, size), len(payload) + HEADER_SIZE]


def test_many_frames_byte_by_byte_are_each_put_together_once(read: list[int]) -> None:
    decoder = FrameDecoder()
    came: list[Frame] = []
    for piece in pieces(frame().encode() * 1000, 1):
        came += decoder.feed(piece)
    assert came == [frame()] * 1000
    assert read == [HEADER_SIZE, HEADER_SIZE + len(b"payload")] * 1000


def test_many_frames_in_one_piece_are_not_put_together_at_all(read: list[int]) -> None:
    data = frame().encode() * 10_000
    assert len(FrameDecoder().feed(data)) == 10_000
    assert read == [len(data)]


def test_small_pieces_take_little_more_memory_than_the_frame() -> None:
    # An object for each piece takes over twenty times the size.
    decoder = FrameDecoder(MAX_PAYLOAD)
    data = frame(bytes(range(256)) * 1024).encode()
    tracemalloc.start()
    try:
        for start in range(0, len(data) - 2, 2):
            assert decoder.feed(data[start : start + 2]) == []
        held, _ = tracemalloc.get_traced_memory()
        (came,) = decoder.feed(data[-2:])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert came.encode() == data
    assert held < 1.3 * len(data)
    assert peak < 3.3 * len(data)


def test_a_piece_of_a_chunk_does_not_keep_the_chunk() -> None:
    data = frame(bytes(60_000)).encode() + frame().encode()[:-1]
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        for _ in range(50):
            decoder = FrameDecoder()
            assert len(decoder.feed(bytes(bytearray(data)))) == 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.held == 14
    assert held < 10_000


# Refusal


@pytest.mark.parametrize("largest", [0, 1, 255, 65_535, 65_536, MAX_PAYLOAD - 1])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_payload_that_is_too_large_is_refused_by_its_header(largest: int, size: int) -> None:
    decoder = FrameDecoder(largest)
    data = header(largest + 1, request_id=513)
    for piece in pieces(data[:-1], size):
        assert decoder.feed(piece) == []
        assert decoder.error is None
    assert decoder.held == HEADER_SIZE - 1
    assert decoder.feed(data[-1:]) == []
    error = decoder.error
    assert isinstance(error, FrameLimitError)
    assert (error.code, error.limit, error.allowed) == (Code.LIMIT, "receive_frame", largest)
    assert error.request_id == 513
    assert str(error) == f"a frame of {largest + 1} bytes (receive_frame: {largest})"
    assert decoder.held == 0


@pytest.mark.parametrize("largest", [0, 1, 255, 65_535, 65_536])
def test_a_payload_that_is_just_small_enough_is_taken(largest: int) -> None:
    decoder = FrameDecoder(largest)
    data = frame(bytes(largest)).encode()
    assert decoder.feed(data + data) == [frame(bytes(largest))] * 2
    assert decoder.error is None


def test_what_nobody_negotiated_is_refused() -> None:
    assert FrameDecoder().max_payload == MAX_UNNEGOTIATED == 65_535
    decoder = FrameDecoder()
    decoder.feed(header(65_536))
    assert isinstance(decoder.error, FrameLimitError)


@pytest.mark.parametrize("size", [1, 5, 8, 1000])
def test_frames_before_an_error_are_delivered_and_none_after_it(size: int) -> None:
    decoder = FrameDecoder(100)
    good = frame(bytes(100)).encode()
    came: list[Frame] = []
    for piece in pieces(good * 3 + header(101) + good * 3, size):
        came += decoder.feed(piece)
    assert came == [frame(bytes(100))] * 3
    assert isinstance(decoder.error, FrameLimitError)


def test_nothing_is_held_after_an_error() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(frame().encode() + header(101) + bytes(50_000)) == [frame()]
    error = decoder.error
    assert error is not None
    for _ in range(10):
        assert decoder.feed(bytes(50_000)) == []
    assert decoder.held == 0
    assert decoder.error is decoder.finish() is error


# The end of the input


@pytest.mark.parametrize("size", [1, 1000])
def test_the_end_of_the_input_tells_what_was_cut_short(size: int) -> None:
    data = frame(b"").encode() + frame(b"abc").encode()
    whole = {0, HEADER_SIZE, len(data)}
    for end in range(len(data) + 1):
        decoder = FrameDecoder()
        for piece in pieces(data[:end], size):
            decoder.feed(piece)
        error = decoder.finish()
        assert error is decoder.error
        assert decoder.finish() is error
        assert decoder.held == 0
        if end in whole:
            assert error is None
            continue
        held = end % HEADER_SIZE
        assert type(error) is FrameProtocolError
        if end < 2 * HEADER_SIZE:
            assert error.code is Code.INCOMPLETE_HEADER
            assert str(error) == f"the input ended after {held} bytes of a header"
        else:
            assert error.code is Code.INCOMPLETE_PAYLOAD
            assert str(error) == f"the input ended after {held} bytes of a payload of 3"
        assert decoder.feed(data) == []


# Headers alone


@given(FRAMES)
def test_a_header_alone_tells_all_but_the_payload(given: Frame) -> None:
    data = given.encode()
    length, came = decode_header(data[:HEADER_SIZE], MAX_PAYLOAD)
    assert length == len(given.payload)
    assert came == given._replace(payload=b"")


def test_a_header_alone_is_refused_if_its_payload_is_too_large() -> None:
    assert decode_header(header(65_535))[0] == 65_535
    with pytest.raises(FrameLimitError) as caught:
        decode_header(header(65_536, request_id=7))
    assert (caught.value.limit, caught.value.allowed) == ("receive_frame", 65_535)
    assert caught.value.request_id == 7


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_header_has_eight_bytes(size: int) -> None:
    with pytest.raises(FrameProtocolError) as caught:
        decode_header(bytes(size))
    assert caught.value.code is Code.INCOMPLETE_HEADER
