"""The limits of a connection: what can be chosen, and each at its edge."""

from __future__ import annotations

import copy
import pickle
import struct
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from txqmp.frames import (
    ENCODINGS,
    Code,
    Frame,
    FrameDecoder,
    FrameError,
    FrameLimitError,
    FrameProtocolError,
    FrameUsageError,
    InputStreams,
    Limits,
    OutputStream,
    command_parts,
    encode_settings,
    response_parts,
)
from txqmp.frames.assembly import Assembler, HalfRequest
from txqmp.frames.codec import ENCODED, STREAM_BEGIN, STREAM_END, STREAM_SETTINGS
from txqmp.frames.limits import DEFAULT_LIMITS, DEFAULT_PAYLOAD, MAX_PAYLOAD, MAX_UNNEGOTIATED


CONTINUED, LAST = 1, 2
HAVE_ARGS, HAVE_DATA = 2, 4


# What can be chosen


RANGES = {
    "send_frame": (1, MAX_PAYLOAD),
    "receive_frame": (1, MAX_PAYLOAD),
    "message": (0, 1 << 53),
    "decoded_frame": (0, 1 << 53),
    "half_received": (1, 1 << 53),
    "request_arguments": (0, 1 << 53),
    "half_received_bytes": (0, 1 << 53),
    "response_bytes": (0, 1 << 53),
    "active": (1, 1 << 53),
    "streams": (1, 128),
    "encoded_streams": (0, 128),
    "message_frames": (1, 1 << 53),
    "empty_frames": (0, 1 << 53),
}


@pytest.mark.parametrize(("name", "smallest", "largest"), [(n, *r) for n, r in RANGES.items()])
def test_a_limit_is_a_whole_number_in_its_range(name: str, smallest: int, largest: int) -> None:
    for number in (smallest, largest):
        assert getattr(Limits(**{name: number}), name) == number
    for number in (smallest - 1, largest + 1):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: number})
    for other in (1.0, "1", None):
        with pytest.raises(TypeError, match=name):
            Limits(**{name: other})  # type: ignore[arg-type]


def test_a_time_is_longer_than_none() -> None:
    assert Limits(half_received_seconds=0.001).half_received_seconds == 0.001
    assert Limits(half_received_seconds=float("inf")).half_received_seconds == float("inf")
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="half_received_seconds"):
            Limits(half_received_seconds=seconds)


def test_every_limit_refuses_what_makes_no_sense() -> None:
    for field in attrs.fields(Limits):
        for wrong in (-1, "1", None):
            with pytest.raises((ValueError, TypeError)):
                Limits(**{field.name: wrong})  # type: ignore[arg-type]


def test_limits_do_not_change() -> None:
    limits = Limits()
    assert limits == DEFAULT_LIMITS
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        limits.message = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[misc]


def test_what_holds_where_nothing_is_chosen() -> None:
    assert (DEFAULT_PAYLOAD, MAX_UNNEGOTIATED, MAX_PAYLOAD) == (32_768, 65_535, 16_777_215)
    assert DEFAULT_LIMITS.send_frame == DEFAULT_PAYLOAD
    assert DEFAULT_LIMITS.receive_frame == MAX_UNNEGOTIATED
    # A message of a KiB a frame is taken, as is any payload that a frame can bring as it is.
    assert DEFAULT_LIMITS.message_frames * 1024 > DEFAULT_LIMITS.message
    assert DEFAULT_LIMITS.message > DEFAULT_LIMITS.decoded_frame > MAX_UNNEGOTIATED
    assert DEFAULT_LIMITS.half_received_bytes > DEFAULT_LIMITS.request_arguments > 65_535
    assert DEFAULT_LIMITS.response_bytes > DEFAULT_LIMITS.message


# Errors


def test_an_error_about_a_limit_is_an_error_of_the_protocol() -> None:
    error = FrameLimitError("message", 16_777_216, "too large", 5)
    assert isinstance(error, FrameProtocolError)
    assert isinstance(error, FrameError)
    assert not isinstance(error, ValueError)
    assert (error.code, error.limit, error.allowed, error.request_id) == (
        Code.LIMIT,
        "message",
        16_777_216,
        5,
    )
    assert str(error) == "too large (message: 16777216)"
    assert str(FrameLimitError("half_received_seconds", 0.5, "late")) == (
        "late (half_received_seconds: 0.5)"
    )


def pickled(error: FrameError) -> FrameError:
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(copied, FrameError)
    return copied


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "error",
    [
        FrameProtocolError(Code.EMPTY_COMMAND, "no name", 7),
        FrameLimitError("message", 16_777_216, "too large", 5),
        FrameUsageError("too large"),
    ],
)
def test_an_error_can_be_copied_and_pickled(
    error: FrameError, again: Callable[[FrameError], FrameError]
) -> None:
    twin = again(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert issubclass(FrameUsageError, ValueError)
    assert issubclass(FrameUsageError, FrameError)


def test_every_code_has_its_own_name() -> None:
    assert len({code.value for code in Code}) == len(Code.__members__)


# At the edge


def limited(limit: str, allowed: int, request_id: int | None, act: Callable[[], object]) -> None:
    with pytest.raises(FrameLimitError) as caught:
        act()
    error = caught.value
    assert (error.limit, error.allowed, error.request_id) == (limit, allowed, request_id)
    assert str(error).endswith(f"({limit}: {allowed})")


@pytest.mark.parametrize("size", [1, 2, 1000, 32_768, 65_535, 65_536])
def test_send_frame(size: int) -> None:
    limits = Limits(send_frame=size)
    stream = OutputStream(1, limits=limits)
    assert stream.max_payload == size
    for plain in (False, True):
        data = stream.frame(1, 4, 2, bytes(size), plain=plain)
        assert len(data) == size + 8
        with pytest.raises(FrameUsageError, match=f"{size + 1} bytes, more than {size}"):
            stream.frame(1, 4, 2, bytes(size + 1), plain=plain)
    assert all(len(payload) <= size for _, _, payload in response_parts(bytes(3 * size), size))
    assert all(len(payload) <= size for _, _, payload in command_parts("c", None, b"1234", size))


@pytest.mark.parametrize("size", [1, 65_535, 65_536])
def test_receive_frame(size: int) -> None:
    decoder = FrameDecoder(Limits(receive_frame=size).receive_frame)
    taken = Frame(3, 1, 0, 4, 2, bytes(size))
    assert decoder.feed(taken.encode()) == [taken]
    assert decoder.feed(taken._replace(payload=bytes(size + 1)).encode()[:8]) == []

    def act() -> None:
        assert decoder.error is not None
        raise decoder.error

    limited("receive_frame", size, 3, act)


def add(assembler: Assembler, *payloads: bytes, last: bool = False) -> None:
    for payload in payloads:
        assembler.take(payload, last)


@pytest.mark.parametrize("size", [0, 1, 10])
def test_message(size: int) -> None:
    limits = Limits(message=size)
    assembler = Assembler(7, limits)
    add(assembler, bytes(size // 2), bytes(size - size // 2))
    assert assembler.room == 0
    assert len(assembler.message()) == size
    add(assembler, b"")
    limited("message", size, 7, lambda: assembler.take(b"x", True))
    half = HalfRequest(7, b"c", HAVE_DATA, 0.0, limits)
    half.take_data(CONTINUED, bytes(size))
    limited("message", size, 7, lambda: half.take_data(LAST, b"x"))


@pytest.mark.parametrize("last", [False, True])
def test_message_frames(last: bool) -> None:
    assembler = Assembler(7, Limits(message_frames=3, empty_frames=1))
    add(assembler, b"x", b"", b"x")
    limited("message_frames", 3, 7, lambda: assembler.count(b"x", last))
    assembler = Assembler(7, Limits(message_frames=3))
    add(assembler, b"x", b"x")
    add(assembler, b"x", last=True)


def test_message_frames_are_those_of_arguments_and_data_together() -> None:
    half = HalfRequest(7, b"c", HAVE_ARGS | HAVE_DATA, 0.0, Limits(message_frames=3))
    half.take_argument(CONTINUED, struct.pack("<HH", 0, 1))
    half.take_argument(LAST, b"x")
    half.take_data(CONTINUED, b"x")
    limited("message_frames", 3, 7, lambda: half.take_data(LAST, b"x"))
    half = HalfRequest(7, b"c", HAVE_ARGS, 0.0, Limits(message_frames=1))
    half.take_argument(0, bytes(4))
    limited("message_frames", 1, 7, lambda: half.take_argument(LAST, struct.pack("<HH", 0, 0)))


@pytest.mark.parametrize("most", [0, 1, 8])
def test_empty_frames(most: int) -> None:
    def flood(assembler: Assembler) -> Assembler:
        add(assembler, *[b""] * most)
        return assembler

    limits = Limits(empty_frames=most)
    assembler = flood(Assembler(7, limits))
    limited("empty_frames", most, 7, lambda: assembler.count(b"", False))
    assembler = flood(Assembler(7, limits))
    add(assembler, b"x")  # it is those in a row that count
    flood(assembler)
    assembler.count(b"", True)  # and not the last
    flood(assembler)
    limited("empty_frames", most, 7, lambda: assembler.count_empty(b"", False))


@pytest.mark.parametrize("most", [0, 1, 8])
def test_empty_frames_of_a_request(most: int) -> None:
    half = HalfRequest(7, b"c", HAVE_DATA, 0.0, Limits(empty_frames=most))
    for _ in range(most):
        assert not half.take_data(CONTINUED, b"")
    limited("empty_frames", most, 7, lambda: half.take_data(CONTINUED, b""))

    half = HalfRequest(7, b"c", HAVE_ARGS, 0.0, Limits(empty_frames=most))
    half.take_argument(CONTINUED, struct.pack("<HH", 0, 1))
    for _ in range(most):
        assert not half.take_argument(CONTINUED, b"")
    limited("empty_frames", most, 7, lambda: half.take_argument(CONTINUED, b""))


def test_a_message_may_have_any_number_of_frames_where_they_are_not_counted() -> None:
    assembler = Assembler(7, Limits(message_frames=1, empty_frames=1))
    for _ in range(10):
        assembler.count_empty(b"x", False)
        assembler.count_empty(b"", False)


@pytest.mark.parametrize("size", [4, 5, 20])
def test_request_arguments(size: int) -> None:
    limits = Limits(request_arguments=size)

    def argument(more: int = 0) -> bytes:
        value = bytes(size - 4 + more)
        return struct.pack("<HH", 0, len(value)) + value

    half = HalfRequest(7, b"c", HAVE_ARGS, 0.0, limits)
    assert half.take_argument(LAST, argument())
    assert half.argument_bytes == size
    half = HalfRequest(7, b"c", HAVE_ARGS, 0.0, limits)
    limited("request_arguments", size, 7, lambda: half.take_argument(LAST, argument(1)))
    half = HalfRequest(7, b"c", HAVE_ARGS, 0.0, limits)
    half.take_argument(CONTINUED, argument(1)[:-1])
    limited("request_arguments", size, 7, lambda: half.take_argument(LAST, b"\0"))


def settings(stream_id: int, name: str = "zlib", flags: int = STREAM_BEGIN) -> Frame:
    return Frame(5, stream_id, flags, STREAM_SETTINGS, 0, encode_settings(name))


def take(streams: InputStreams, frame: Frame) -> None:
    payload = streams.accept(frame, lambda request_id: 1 << 20)
    if frame.type == STREAM_SETTINGS:
        streams.set_encoding(frame, payload)


@pytest.mark.parametrize("most", [1, 2, 127, 128])
@pytest.mark.parametrize("odd", [False, True])
def test_streams(most: int, odd: bool) -> None:
    streams = InputStreams(odd, Limits(streams=most))
    ids = [2 * number + odd for number in range(128)]
    for stream_id in ids[:most]:
        take(streams, Frame(5, stream_id, STREAM_BEGIN, 4, 1, b""))
    assert len(streams) == most
    for stream_id in ids[:most]:
        take(streams, Frame(5, stream_id, STREAM_BEGIN, 4, 1, b""))
    for stream_id in ids[most : most + 1]:
        for flags in (STREAM_BEGIN, STREAM_BEGIN | STREAM_END):
            frame = Frame(5, stream_id, flags, 4, 1, b"")
            limited("streams", most, 5, lambda frame=frame: take(streams, frame))
    assert len(streams) == most
    take(streams, Frame(5, ids[0], STREAM_END, 4, 1, b""))
    take(streams, Frame(5, ids[most % 128], STREAM_BEGIN, 4, 1, b""))
    assert len(streams) == most


@pytest.mark.parametrize("most", [0, 1, 8])
def test_encoded_streams(most: int) -> None:
    streams = InputStreams(True, Limits(encoded_streams=most), ["zlib"])
    take(streams, Frame(5, 101, STREAM_BEGIN, 4, 1, b""))
    take(streams, settings(103, "identity"))
    ids = [2 * number + 1 for number in range(most)]
    for stream_id in ids * 2:  # one that begins anew is no further one
        take(streams, settings(stream_id))
    limited("encoded_streams", most, 5, lambda: take(streams, settings(201)))
    limited(
        "encoded_streams", most, 5, lambda: take(streams, settings(103, "zlib", STREAM_BEGIN | 2))
    )
    for stream_id in ids[:1]:
        take(streams, Frame(5, stream_id, STREAM_BEGIN, 4, 1, b""))
        take(streams, settings(203))
        limited("encoded_streams", most, 5, lambda: take(streams, settings(205)))
        take(streams, Frame(5, 203, STREAM_END, 4, 1, b""))
        take(streams, settings(205))


@pytest.mark.parametrize("name", ["zlib", "zstd", "zstd-8mb"])
@pytest.mark.parametrize(
    ("limits", "room", "limit", "most"),
    [
        ({"decoded_frame": 100, "message": 500}, 500, "decoded_frame", 100),
        ({"decoded_frame": 100, "message": 100}, 100, "decoded_frame", 100),
        ({"decoded_frame": 500, "message": 100}, 100, "message", 100),
        ({"decoded_frame": 0}, 500, "decoded_frame", 0),
        ({"message": 0}, 0, "message", 0),
    ],
)
def test_decoded_frame_and_message(
    name: str, limits: Any, room: int, limit: str, most: int
) -> None:
    encoder = ENCODINGS[name].encoder()
    streams = InputStreams(True, Limits(**limits), [name])
    take(streams, settings(1, name))
    frame = Frame(5, 1, ENCODED, 4, 1, encoder.encode(bytes(most)))
    assert streams.accept(frame, lambda request_id: room) == bytes(most)
    frame = Frame(5, 1, ENCODED, 4, 1, encoder.encode(bytes(most + 1)))
    limited(limit, most, 5, lambda: streams.accept(frame, lambda request_id: room))
