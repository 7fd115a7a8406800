"""Streams and their encodings: both ways, interleaved, corrupted, and against bombs."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
import textwrap
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.frames import (
    ENCODINGS,
    IDENTITY,
    Code,
    Frame,
    FrameDecoder,
    FrameLimitError,
    FrameProtocolError,
    FrameUsageError,
    InputStreams,
    Limits,
    OutputStream,
    decode_settings,
    encode_settings,
    encodings,
    streams,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    ENCODED,
    STREAM_BEGIN,
    STREAM_END,
    STREAM_SETTINGS,
)
from txqmp.frames.encodings import Encoding, UndecodableError


NAMES = ["zlib", "zstd", "zstd-8mb"]
each_encoding = pytest.mark.parametrize("name", NAMES)
each_encoding_or_none = pytest.mark.parametrize("name", [IDENTITY, *NAMES])

#: What compresses well, badly, and what was there before.
PAYLOADS = (
    st.binary(min_size=1, max_size=60)
    | st.builds(lambda text, count: text * count, st.binary(min_size=1, max_size=5), st.just(500))
    | st.sampled_from([b'{"event": "STOP"}', b'{"event": "RESUME"}', random.Random(1).randbytes(9)])
    | st.integers(1, 5000).map(lambda size: random.Random(size).randbytes(size))
)


def unlimited(frame: Frame) -> int:
    return 1 << 24


def frames_of(data: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    frames = decoder.feed(data)
    assert decoder.finish() is None
    return frames


class Receiver:
    """The other end of a stream.

    :ivar received: request id and payload of each frame, settings left out.
    """

    def __init__(self, *names: str, odd: bool = True, **limits: int) -> None:
        self.streams = InputStreams(odd, Limits(**limits), names or NAMES)  # type: ignore[arg-type]
        self.received: list[tuple[int, bytes]] = []

    def take(self, data: bytes, room: int = 1 << 24) -> Receiver:
        for frame in frames_of(data):
            payload = self.streams.accept(frame, lambda request_id: room)
            if frame.type == STREAM_SETTINGS:
                self.streams.set_encoding(frame, payload)
            else:
                self.received.append((frame.request_id, payload))
        return self

    def offer(self, data: bytes) -> FrameProtocolError | None:
        try:
            self.take(data)
        except FrameProtocolError as error:
            return error
        return None

    def refuses(self, data: bytes, room: int = 1 << 24) -> FrameProtocolError:
        with pytest.raises(FrameProtocolError) as caught:
            self.take(data, room)
        return caught.value


def output(name: str = IDENTITY, stream_id: int = 1, **limits: int) -> OutputStream:
    return OutputStream(stream_id, name, Limits(**limits))  # type: ignore[arg-type]


def plain(flags: int, stream_id: int = 1, payload: bytes = b"x", type: int = 4) -> bytes:
    return Frame(1, stream_id, flags, type, 2, payload).encode()


def settings(name: bytes | str, stream_id: int = 1, flags: int = STREAM_BEGIN) -> bytes:
    payload = encode_settings(name) if isinstance(name, str) else name
    return Frame(1, stream_id, flags, STREAM_SETTINGS, 0, payload).encode()


# Both ways


@each_encoding
@given(st.lists(PAYLOADS, max_size=8))
def test_an_encoder_and_its_decoder(name: str, payloads: list[bytes]) -> None:
    encoder, decoder = ENCODINGS[name].encoder(), ENCODINGS[name].decoder()
    for payload in payloads:
        assert decoder.decode(encoder.encode(payload), len(payload)) == payload


@each_encoding_or_none
@given(st.lists(st.tuples(st.sampled_from([1, 3, 5]), PAYLOADS | st.just(b""), st.booleans())))
def test_interleaved_requests_on_one_stream(
    name: str, messages: list[tuple[int, bytes, bool]]
) -> None:
    stream, receiver = output(name), Receiver()
    for request_id, payload, as_it_is in messages:
        data = stream.frame(request_id, BYTES_RESPONSE, 1, payload, plain=as_it_is)
        if as_it_is:
            assert data.endswith(payload)
        receiver.take(data)
    assert receiver.received == [(request_id, payload) for request_id, payload, _ in messages]


@each_encoding_or_none
@pytest.mark.parametrize("seed", range(3))
def test_many_messages_that_take_turns_at_random(name: str, seed: int) -> None:
    chance = random.Random(seed)
    stream, receiver = output(name, send_frame=chance.choice([100, 1000, 32_768])), Receiver()
    texts = [b'{"return": {"status": "running"}, "id": %d}', b'{"event": "%d"}', b"%d"]
    messages = {
        request_id: b"".join(
            chance.choice(texts) % chance.randrange(100)
            if chance.random() < 0.9
            else chance.randbytes(chance.randrange(3000))
            for _ in range(chance.randrange(60))
        )
        for request_id in range(1, 101, 2)
    }
    left = dict(messages)
    data = b""
    while left:
        request_id = chance.choice(list(left))
        size = chance.randint(1, stream.max_payload)
        payload, left[request_id] = left[request_id][:size], left[request_id][size:]
        if not left[request_id]:
            del left[request_id]
        data += stream.frame(request_id, BYTES_RESPONSE, 1, payload, plain=chance.random() < 0.1)
    receiver.take(data)
    came: dict[int, bytes] = dict.fromkeys(messages, b"")
    for request_id, payload in receiver.received:
        came[request_id] += payload
    assert came == messages


@each_encoding
def test_what_a_stream_repeats_costs_little(name: str) -> None:
    stream = output(name)
    line = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "BLOCK_JOB_COMPLETED"}'
    sizes = [len(stream.frame(1, BYTES_RESPONSE, 1, line)) for _ in range(3)]
    assert sizes[2] < len(line) / 2


@each_encoding
def test_several_streams_do_not_share_what_they_know(name: str) -> None:
    receiver = Receiver()
    outputs = [output(name, stream_id) for stream_id in (1, 3, 5)]
    for number in range(20):
        for stream in outputs:
            receiver.take(stream.frame(1, BYTES_RESPONSE, 1, b"%d" % number * stream.id))
    assert receiver.received == [(1, b"%d" % n * each.id) for n in range(20) for each in outputs]


# How frames are made


def test_a_stream_without_an_encoding() -> None:
    stream = output()
    assert frames_of(stream.frame(1, 1, 1, b"a")) == [Frame(1, 1, STREAM_BEGIN, 1, 1, b"a")]
    assert frames_of(stream.frame(3, 4, 2, b"b")) == [Frame(3, 1, 0, 4, 2, b"b")]
    assert frames_of(stream.frame(5, 6, 0, b"", plain=True)) == [Frame(5, 1, 0, 6, 0, b"")]
    assert frames_of(stream.frame(7, 4, 1, b"", last=True)) == [Frame(7, 1, STREAM_END, 4, 1, b"")]


def test_a_stream_of_one_frame() -> None:
    (frame,) = frames_of(output().frame(1, 1, 1, b"a", last=True))
    assert frame == Frame(1, 1, STREAM_BEGIN | STREAM_END, 1, 1, b"a")
    receiver = Receiver().take(frame.encode())
    assert receiver.received == [(1, b"a")]
    assert len(receiver.streams) == 0


@each_encoding
def test_a_stream_with_an_encoding_begins_with_its_settings(name: str) -> None:
    stream = output(name)
    first = Frame(9, 1, STREAM_BEGIN, STREAM_SETTINGS, 0, encode_settings(name))
    begun, encoded = frames_of(stream.frame(9, 1, 6, b"abc"))
    assert begun == first
    assert encoded._replace(payload=b"") == Frame(9, 1, ENCODED, 1, 6, b"")
    assert frames_of(stream.frame(9, 3, 1, b"")) == [Frame(9, 1, 0, 3, 1, b"")]
    assert frames_of(stream.frame(9, 3, 1, b"x", plain=True)) == [Frame(9, 1, 0, 3, 1, b"x")]
    (end,) = frames_of(stream.frame(9, 3, 2, b"x", last=True))
    assert end.stream_flags == STREAM_END | ENCODED
    for payload, flags in ((b"x", STREAM_END | ENCODED), (b"", STREAM_END)):
        begun, only = frames_of(output(name).frame(9, 1, 6, payload, last=True))
        assert (begun, only.stream_flags) == (first, flags)
    begun, only = frames_of(output(name).frame(9, 1, 6, b"x", plain=True))
    assert (begun, only) == (first, Frame(9, 1, 0, 1, 6, b"x"))


@each_encoding_or_none
def test_a_stream_that_has_ended_makes_no_more_frames(name: str) -> None:
    stream = output(name)
    stream.frame(1, 4, 2, b"x", last=True)
    for last, as_it_is in ((False, False), (True, False), (False, True), (True, True)):
        with pytest.raises(FrameUsageError, match="stream 1 has ended"):
            stream.frame(1, 4, 2, b"x", last=last, plain=as_it_is)


@each_encoding_or_none
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        (65_536, 4, 1, b"x"),
        (-1, 4, 1, b"x"),
        (1.5, 4, 1, b"x"),
        (None, 4, 1, b"x"),
        (1, 16, 1, b"x"),
        (1, -1, 1, b"x"),
        (1, 4, 16, b"x"),
        (1, 4, -1, b"x"),
        (1, 4, None, b"x"),
        (1, 4, 1, b"x" * 201),
        (1, 4, 1, "text"),
        (1, 4, 1, 5),
    ],
    ids=lambda fields: repr(fields)[:30],
)
def test_what_is_refused_changes_nothing(name: str, begun: bool, wrong: Any) -> None:
    # Above all, an encoder must not have seen what the peer's decoder never will.
    stream, receiver = output(name, send_frame=200), Receiver()
    text = b"some text that an encoder would rather say once"
    if begun:
        receiver.take(stream.frame(1, 4, 1, text))
    for last in (False, True):
        for as_it_is in (False, True):
            with pytest.raises((FrameUsageError, TypeError)):
                stream.frame(*wrong, last=last, plain=as_it_is)
    receiver.take(stream.frame(1, 4, 1, text)).take(stream.frame(3, 4, 1, text * 2))
    assert receiver.received[begun:] == [(1, text), (3, text * 2)]


def test_an_encoding_that_is_not_there_is_refused() -> None:
    with pytest.raises(FrameUsageError, match="no encoding is called 'gzip' here"):
        output("gzip")
    with pytest.raises(FrameUsageError, match="no encoding is called 'gzip' here"):
        InputStreams(True, encodings=["zlib", "gzip"])
    with pytest.raises(FrameUsageError, match="no encoding is called"):
        InputStreams(True, encodings="zlib")
    InputStreams(True, encodings=["zlib", IDENTITY])


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@each_encoding_or_none
def test_a_buffer_is_a_payload_too(name: str, kind: Any) -> None:
    stream, receiver = output(name), Receiver()
    for payload in (b"abc", b"", b"abc"):
        receiver.take(stream.frame(1, 4, 1, kind(payload)))
    assert [payload for _, payload in receiver.received] == [b"abc", b"", b"abc"]


# The size of a frame


def incompressible(name: str, size: int, count: int, seed: int) -> int:
    """Return the size of the largest frame of a stream whose payloads cannot be compressed."""
    chance = random.Random(seed)
    stream, receiver = output(name, send_frame=size), Receiver()
    payloads = [chance.randbytes(stream.max_payload) for _ in range(count)]
    data = [stream.frame(1, 4, 1, payload) for payload in payloads]
    for each in data:
        receiver.take(each)
    assert [payload for _, payload in receiver.received] == payloads
    return max(len(frame.payload) for each in data for frame in frames_of(each))


@each_encoding_or_none
@pytest.mark.parametrize("size", [500, 1000, 16_383, 16_384, 32_767, 32_768, 65_535])
def test_what_cannot_be_compressed_still_fits_into_a_frame(name: str, size: int) -> None:
    assert incompressible(name, size, count=20, seed=size) <= size


@each_encoding
def test_frames_that_are_too_small_for_an_encoding_are_refused_at_once(name: str) -> None:
    overhead = ENCODINGS[name].overhead
    assert overhead == 64
    for size in range(1, overhead + 1):
        with pytest.raises(FrameUsageError, match=f"frames of {size} bytes .* are too small"):
            output(name, send_frame=size)
    for size in range(overhead + 1, 201):
        assert output(name, send_frame=size).max_payload == size - overhead
        assert incompressible(name, size, count=30, seed=size) <= size


@pytest.mark.parametrize("size", [1, 2, 200])
def test_without_an_encoding_no_frame_is_too_small(size: int) -> None:
    stream = output(send_frame=size)
    assert stream.max_payload == size
    assert incompressible(IDENTITY, size, count=3, seed=1) == size
    with pytest.raises(FrameUsageError, match=f"more than {size}"):
        stream.frame(1, 4, 1, bytes(size + 1))


@each_encoding
def test_no_payload_of_any_shape_grows_by_more_than_the_overhead(name: str) -> None:
    # Literals and matches in turns are where an encoder's guesses are worst.
    chance = random.Random(5)
    encoder = ENCODINGS[name].encoder()
    seen = chance.randbytes(15_000)
    for size in [1, 2, 3, 4, 100, 16_383, 16_385, 32_704, 32_704]:
        for longest in (1, 5, 25, 125, 40_000):
            payload = bytearray()
            while len(payload) < size:
                at = chance.randrange(len(seen))
                payload += seen[at : at + chance.randint(3, 6)]
                payload += chance.randbytes(chance.randint(1, longest))
            del payload[size:]
            assert len(encoder.encode(bytes(payload))) <= size + ENCODINGS[name].overhead


@each_encoding
def test_a_plain_frame_may_be_as_large_as_frames_may_be(name: str) -> None:
    stream, receiver = output(name, send_frame=300), Receiver()
    receiver.take(stream.frame(1, 4, 1, bytes(300), plain=True))
    for as_it_is, size in ((True, 301), (False, 300 - ENCODINGS[name].overhead + 1)):
        with pytest.raises(FrameUsageError, match=f"{size} bytes, more than {size - 1}"):
            stream.frame(1, 4, 1, bytes(size), plain=as_it_is)


def test_an_encoded_payload_is_no_larger_than_its_overhead_is_known_for() -> None:
    assert output("zlib", send_frame=1 << 20).max_payload == 32_768 - ENCODINGS["zlib"].overhead


# Begin and end


@pytest.mark.parametrize("odd", [True, False])
def test_a_stream_is_of_the_side_that_its_id_says(odd: bool) -> None:
    for stream_id in (0, 1, 2, 3, 254, 255):
        receiver = Receiver(odd=odd)
        if stream_id % 2 == odd:
            receiver.take(plain(STREAM_BEGIN, stream_id))
        else:
            error = receiver.refuses(plain(STREAM_BEGIN, stream_id))
            assert (error.code, error.request_id) == (Code.WRONG_STREAM_PARITY, 1)
            kind = "even" if odd else "odd"
            assert str(error) == f"received frame with {kind} numbered stream ID: {stream_id}"
            assert len(receiver.streams) == 0


@pytest.mark.parametrize("flags", [0, STREAM_END, ENCODED, STREAM_END | ENCODED, 0xF8])
def test_a_stream_has_to_begin(flags: int) -> None:
    receiver = Receiver().take(plain(STREAM_BEGIN, 3))
    error = receiver.refuses(plain(flags))
    assert (error.code, error.request_id) == (Code.STREAM_NOT_BEGUN, 1)
    assert len(receiver.streams) == 1


def test_a_stream_that_has_ended_has_to_begin_again() -> None:
    receiver = Receiver().take(plain(STREAM_BEGIN) + plain(0) + plain(STREAM_END, payload=b"end"))
    assert receiver.received[-1] == (1, b"end")
    assert len(receiver.streams) == 0
    assert receiver.refuses(plain(0)).code is Code.STREAM_NOT_BEGUN
    receiver.take(plain(STREAM_BEGIN) + plain(0))
    assert len(receiver.streams) == 1


def test_undefined_stream_flags_mean_nothing() -> None:
    receiver = Receiver().take(plain(STREAM_BEGIN | 0xF8) + plain(0xF8))
    assert receiver.received == [(1, b"x")] * 2


def test_a_stream_may_begin_with_each_response() -> None:
    receiver = Receiver(streams=1).take(plain(STREAM_BEGIN) * 3 + plain(0))
    assert len(receiver.received) == 4


@each_encoding
def test_a_stream_that_begins_anew_has_no_encoding_any_more(name: str) -> None:
    receiver = Receiver(name, encoded_streams=1).take(output(name).frame(1, 4, 1, b"one"))
    receiver.take(output(name).frame(1, 4, 1, b"two"))
    assert receiver.received == [(1, b"one"), (1, b"two")]
    receiver.take(plain(STREAM_BEGIN))
    assert receiver.refuses(plain(ENCODED)).code is Code.ENCODED_WITHOUT_SETTINGS


@each_encoding
def test_an_encoded_stream_that_has_ended_begins_afresh(name: str) -> None:
    receiver = Receiver(encoded_streams=1)
    for text in (b"one", b"two"):
        stream = output(name)
        receiver.take(stream.frame(1, 4, 1, text))
        receiver.take(stream.frame(1, 4, 1, text * 2, last=True))
        assert len(receiver.streams) == 0
    assert receiver.received == [(1, b"one"), (1, b"oneone"), (1, b"two"), (1, b"twotwo")]
    assert receiver.refuses(plain(ENCODED)).code is Code.STREAM_NOT_BEGUN


# Settings


@each_encoding_or_none
def test_settings_name_the_encoding(name: str) -> None:
    inputs = InputStreams(True, encodings=[name])
    frame = Frame(1, 1, STREAM_BEGIN, STREAM_SETTINGS, 0, encode_settings(name))
    assert inputs.takes_settings
    assert inputs.set_encoding(frame, inputs.accept(frame, unlimited)) == name


def test_a_stream_of_the_encoding_that_changes_nothing_may_say_encoded() -> None:
    receiver = Receiver().take(settings(IDENTITY) + plain(ENCODED) + plain(0))
    assert receiver.received == [(1, b"x")] * 2


@pytest.mark.parametrize(
    ("taken", "code"),
    [((), Code.ENCODING_NOT_ENABLED), (("zlib",), Code.ENCODED_WITHOUT_SETTINGS)],
)
@pytest.mark.parametrize("begun", [False, True])
def test_an_encoded_frame_needs_an_encoding(
    taken: tuple[str, ...], code: Code, begun: bool
) -> None:
    inputs = InputStreams(True, encodings=taken)
    assert inputs.takes_settings == bool(taken)
    flags = ENCODED
    if begun:
        inputs.accept(Frame(1, 1, STREAM_BEGIN, 4, 1, b""), unlimited)
    else:
        flags |= STREAM_BEGIN
    with pytest.raises(FrameProtocolError, match="stream 1, which has no encoding") as caught:
        inputs.accept(Frame(3, 1, flags, 4, 1, b"x"), unlimited)
    assert (caught.value.code, caught.value.request_id) == (code, 3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (plain(STREAM_BEGIN) + settings("zlib", flags=0), Code.SETTINGS_OUTSIDE_BEGIN),
        (settings("zlib") + settings("zlib", flags=0), Code.SETTINGS_OUTSIDE_BEGIN),
        (settings("zlib", flags=0), Code.STREAM_NOT_BEGUN),
        (settings("zlib", flags=STREAM_BEGIN | ENCODED), Code.ENCODED_WITHOUT_SETTINGS),
        (settings("zstd"), Code.ENCODING_NOT_ENABLED),
        (settings("gzip"), Code.UNKNOWN_ENCODING),
        (settings("ZLIB"), Code.UNKNOWN_ENCODING),
        (settings(b""), Code.MALFORMED_SETTINGS),
        (settings(b"\x00"), Code.MALFORMED_SETTINGS),
        (settings(b"\x00zlib"), Code.MALFORMED_SETTINGS),
        (settings(b"\x05zlib"), Code.MALFORMED_SETTINGS),
        (settings(b"\x04zl\xffb"), Code.MALFORMED_SETTINGS),
        (settings(b"\x04zlib\x00"), Code.MALFORMED_SETTINGS),
        (settings(b"\x08identity\x00"), Code.MALFORMED_SETTINGS),
    ],
)
def test_settings_that_are_not_taken(data: bytes, code: Code) -> None:
    error = Receiver("zlib").refuses(data)
    assert (error.code, error.request_id) == (code, 1)


def test_settings_may_end_their_stream() -> None:
    receiver = Receiver().take(settings("zlib", flags=STREAM_BEGIN | STREAM_END))
    assert len(receiver.streams) == 0
    assert receiver.refuses(plain(ENCODED)).code is Code.STREAM_NOT_BEGUN


def test_settings_go_to_the_names_limit_and_no_further() -> None:
    assert decode_settings(encode_settings("x" * 255, b"more")) == ("x" * 255, b"more")
    assert encode_settings("a") == b"\1a"
    for name in ("", "x" * 256, "é"):
        with pytest.raises(FrameUsageError, match="1 to 255 ASCII characters"):
            encode_settings(name)


@given(st.binary(max_size=20))
def test_any_bytes_are_settings_or_refused(payload: bytes) -> None:
    try:
        name, extra = decode_settings(payload)
    except FrameProtocolError:
        return
    assert encode_settings(name, extra) == payload


# What is dropped


class Tracked:
    """A decoder or an encoder of which it can be told whether it is still there."""

    def encode(self, data: bytes) -> bytes:
        return data

    def decode(self, data: bytes, room: int) -> bytes:
        return data


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Tracked]:
    """All that is there of an encoding called ``tracked``."""
    there: weakref.WeakSet[Tracked] = weakref.WeakSet()

    def make() -> Tracked:
        made = Tracked()
        there.add(made)
        return made

    known = {**ENCODINGS, "tracked": Encoding("tracked", 64, make, make)}
    monkeypatch.setattr(streams, "ENCODINGS", known)
    return there


def test_a_decoder_goes_with_its_stream(tracked: weakref.WeakSet[Tracked]) -> None:
    receiver = Receiver("tracked")
    for stream_id in range(1, 9, 2):
        receiver.take(settings("tracked", stream_id))
    assert len(tracked) == 4
    receiver.take(plain(STREAM_END, 1) + plain(STREAM_END | ENCODED, 3))
    assert len(tracked) == 2
    receiver.take(plain(STREAM_BEGIN, 5))
    assert len(tracked) == 1
    receiver.take(settings("tracked", 7) + settings("tracked", 9, STREAM_BEGIN | STREAM_END))
    assert len(tracked) == 1
    receiver.take(settings(IDENTITY, 7))
    assert len(tracked) == 0


def test_an_encoder_goes_with_its_stream(tracked: weakref.WeakSet[Tracked]) -> None:
    stream = output("tracked")
    stream.frame(1, 4, 1, b"x")
    assert len(tracked) == 1
    stream.frame(1, 4, 1, b"x", last=True)
    assert len(tracked) == 0


# Limits of decoding


@each_encoding
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_a_payload_goes_to_its_room_and_no_further(name: str, size: int) -> None:
    payloads = [bytes(size), random.Random(1).randbytes(size)]
    for payload in payloads:
        data = ENCODINGS[name].encoder().encode(payload)
        assert ENCODINGS[name].decoder().decode(data, size) == payload
        assert ENCODINGS[name].decoder().decode(data, size + 1) == payload
        if size:
            decoded = ENCODINGS[name].decoder().decode(data, size - 1)
            assert len(decoded) == size
            assert len(ENCODINGS[name].decoder().decode(data, 0)) == 1


@each_encoding_or_none
def test_a_frame_goes_to_the_frames_limit_and_no_further(name: str) -> None:
    def encoded(size: int) -> bytes:
        if name == IDENTITY:
            return settings(name) + plain(ENCODED, payload=bytes(size))
        return output(name).frame(1, 4, 1, bytes(size))

    receiver = Receiver(decoded_frame=1000, message=5000).take(encoded(1000), room=1000)
    assert receiver.received == [(1, bytes(1000))]
    for room in (1000, 1001, 1 << 60):
        error = Receiver(decoded_frame=1000, message=5000).refuses(encoded(1001), room)
        assert isinstance(error, FrameLimitError)
        assert (error.limit, error.allowed, error.request_id) == ("decoded_frame", 1000, 1)


@each_encoding_or_none
@pytest.mark.parametrize("room", [0, 1, 999])
def test_a_frame_goes_to_what_is_left_of_its_message_and_no_further(name: str, room: int) -> None:
    def encoded(size: int) -> bytes:
        if name == IDENTITY:
            return settings(name) + plain(ENCODED, payload=bytes(size))
        return output(name).frame(1, 4, 1, bytes(size))

    receiver = Receiver(decoded_frame=1000, message=5000).take(encoded(room), room)
    assert receiver.received == [(1, bytes(room))]
    for less in (room, -1, -1000):
        error = Receiver(decoded_frame=1000, message=5000).refuses(encoded(room + 1), less)
        assert isinstance(error, FrameLimitError)
        assert (error.limit, error.allowed, error.request_id) == ("message", 5000, 1)
        assert str(error) == (
            f"a payload that decodes to more than {max(0, less)} bytes (message: 5000)"
        )


def test_a_payload_that_is_not_encoded_needs_no_room() -> None:
    # Who puts messages together counts them.
    receiver = Receiver(decoded_frame=1, message=1).take(plain(STREAM_BEGIN, payload=b"12"), 0)
    assert receiver.received == [(1, b"12")]


def test_the_room_is_that_of_the_frames_message() -> None:
    inputs = InputStreams(True, encodings=["zlib"])
    stream = output("zlib")
    rooms = {3: 5, 5: 3}

    def room(frame: Frame) -> int:
        return rooms[frame.request_id]

    for frame in frames_of(stream.frame(7, 4, 1, b"x", plain=True)):
        if inputs.accept(frame, room) and frame.type == STREAM_SETTINGS:
            inputs.set_encoding(frame, frame.payload)
    for request_id, size in rooms.items():
        (frame,) = frames_of(stream.frame(request_id, 4, 1, bytes(size)))
        assert inputs.accept(frame, room) == bytes(size)
    (frame,) = frames_of(stream.frame(5, 4, 1, bytes(4)))
    with pytest.raises(FrameLimitError) as caught:
        inputs.accept(frame, room)
    assert caught.value.request_id == 5


# Bombs

BOMBS: Mapping[str, str] = {
    # 8,190 blocks of one byte and its count, each of 128 KiB: 1,073,479,680 bytes in all.
    "zstd": 'b"\\x28\\xb5\\x2f\\xfd\\x00\\x40" + b"\\x02\\x00\\x10\\x00" * 8190',
    "zstd-8mb": 'b"\\x28\\xb5\\x2f\\xfd\\x00\\x68" + b"\\x02\\x00\\x10\\x00" * 8190',
    "zlib": "zlib.compress(bytes(32 << 20), 9)",
}

BOMB = """
    import json, resource, sys, zlib
    from txqmp.frames import *
    from txqmp.frames.codec import ENCODED, STREAM_BEGIN, STREAM_SETTINGS

    def peak():
        # Not ru_maxrss: that begins with the peak of the process which started this one.
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

    name = sys.argv[1]
    payload = {}
    settings = Frame(1, 1, STREAM_BEGIN, STREAM_SETTINGS, 0, encode_settings(name))
    streams = InputStreams(True, encodings=[name])
    streams.set_encoding(settings, streams.accept(settings, lambda request_id: 1 << 24))
    before = peak()
    try:
        streams.accept(Frame(1, 1, ENCODED, 4, 2, payload), lambda request_id: 1 << 24)
    except FrameLimitError as error:
        kib = peak() - before
        print(json.dumps([len(payload), error.limit, error.allowed, error.request_id, kib]))
"""


@each_encoding
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_bomb_costs_a_few_megabytes(name: str) -> None:
    program = textwrap.dedent(BOMB).replace("{}", BOMBS[name], 1)
    path = os.pathsep.join(filter(None, [str(Path(streams.__file__).parents[2]), *sys.path]))
    result = subprocess.run(
        [sys.executable, "-c", program, name],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    size, limit, allowed, request_id, kib = json.loads(result.stdout)
    assert size < 32_768
    assert (limit, allowed, request_id) == ("decoded_frame", 1 << 20, 1)
    assert kib < 8 << 10


@pytest.mark.parametrize("name", ["zstd", "zstd-8mb"])
def test_a_window_that_is_too_large_is_refused(name: str) -> None:
    largest = {"zstd": 0x40, "zstd-8mb": 0x68}[name]
    for window in range(0, 256, 8):
        data = b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + b"\x02\x00\x00\x00"
        decoder = ENCODINGS[name].decoder()
        if window <= largest:
            assert decoder.decode(data, 100) == b""
        else:
            with pytest.raises(UndecodableError):
                decoder.decode(data, 100)


def test_what_is_encoded_for_a_larger_window_is_refused() -> None:
    data = output("zstd-8mb").frame(1, 4, 1, b"x")
    for frame in frames_of(data)[1:]:
        error = Receiver().take(settings("zstd")).refuses(frame.encode())
        assert error.code is Code.CORRUPT_ENCODING


# Corruption


@each_encoding
@given(
    st.lists(PAYLOADS, min_size=1, max_size=5),
    st.integers(0, 100_000),
    st.sampled_from(["flip", "cut", "add", "drop", "repeat", "swap"]),
    st.integers(1, 255),
)
def test_corrupted_bytes_are_an_error_or_a_wrong_payload_within_the_limit(
    name: str, payloads: list[bytes], where: int, how: str, byte: int
) -> None:
    stream = output(name, send_frame=32_768)
    receiver = Receiver(decoded_frame=6000)
    frames = frames_of(b"".join(stream.frame(1, 4, 1, payload) for payload in payloads))
    first, *encoded = (frame.payload for frame in frames)
    number = where % len(encoded)
    victim = encoded[number]
    at = where % len(victim)
    if how == "flip":
        encoded[number] = victim[:at] + bytes([victim[at] ^ byte]) + victim[at + 1 :]
    elif how == "cut":
        encoded[number] = victim[:at]
    elif how == "add":
        encoded[number] = victim[:at] + bytes([byte]) + victim[at:]
    elif how == "drop":
        del encoded[number]
    elif how == "repeat":
        encoded.insert(number, victim)
    else:
        encoded[number] = encoded[-1]
    receiver.take(settings(first))
    for payload in encoded:  # after an error too, although nobody should go on then
        error = receiver.offer(plain(ENCODED, payload=payload))
        assert error is None or error.code in (Code.CORRUPT_ENCODING, Code.LIMIT)
    assert all(len(payload) <= 6000 for _, payload in receiver.received)


@each_encoding
@given(st.lists(st.binary(max_size=50), max_size=5))
def test_any_bytes_are_an_error_or_a_payload_within_the_limit(
    name: str, payloads: list[bytes]
) -> None:
    receiver = Receiver(decoded_frame=10).take(settings(name))
    for payload in payloads:
        error = receiver.offer(plain(ENCODED, payload=payload))
        assert error is None or error.code in (Code.CORRUPT_ENCODING, Code.LIMIT)
        assert error is None or error.request_id == 1
    assert all(len(payload) <= 10 for _, payload in receiver.received)


def ended(name: str, data: bytes) -> bytes:
    """Return data as a whole stream of an encoding, with its end."""
    if name == "zlib":
        return zlib.compress(data)
    compressor = encodings.zstd.ZstdCompressor()
    return bytes(compressor.compress(data, compressor.FLUSH_FRAME))


@each_encoding
@pytest.mark.parametrize("cut", [0, 1, 5])
@pytest.mark.parametrize("tail", [b"", b"more"])
def test_the_end_of_the_encodings_own_stream_is_an_error(name: str, cut: int, tail: bytes) -> None:
    data = ended(name, b"12345") + tail
    data, rest = data[: len(data) - cut], data[len(data) - cut :]
    receiver = Receiver().take(settings(name))
    if cut and cut > len(tail):
        receiver.take(plain(ENCODED, payload=data))
        data = rest
    for _ in range(3):
        error = receiver.refuses(plain(ENCODED, payload=data))
        assert (error.code, error.request_id) == (Code.CORRUPT_ENCODING, 1)
        assert "stream 1" in str(error)


def test_a_zlib_stream_that_needs_a_dictionary_is_refused() -> None:
    compressor = zlib.compressobj(zdict=b"abcabc")
    data = compressor.compress(b"abcabcabc") + compressor.flush(zlib.Z_SYNC_FLUSH)
    error = Receiver().take(settings("zlib")).refuses(plain(ENCODED, payload=data))
    assert error.code is Code.CORRUPT_ENCODING


@pytest.mark.parametrize("name", ["zstd", "zstd-8mb"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    "magic",
    [b"\x27\xb5\x2f\xfd", b"\x25\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x28\xb5\x2f\xfc", b"plain"],
    ids=["version 0.7", "version 0.5", "a frame to skip", "one bit off", "text"],
)
def test_only_a_zstd_frame_of_today_is_begun(name: str, size: int, magic: bytes) -> None:
    receiver = Receiver().take(settings(name))
    data = magic + bytes(20)
    with pytest.raises(FrameProtocolError, match="not the beginning of a zstd frame") as caught:
        for start in range(0, len(data), size):
            receiver.take(plain(ENCODED, payload=data[start : start + size]))
    assert caught.value.code is Code.CORRUPT_ENCODING
    assert all(payload == b"" for _, payload in receiver.received)


@each_encoding
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_what_is_cut_into_several_frames_comes_when_it_can_be_decoded(name: str, size: int) -> None:
    # Not what this package sends, but what a peer may that flushes now and then only.
    encoder = ENCODINGS[name].encoder()
    texts = [b"first text", b"second text"]
    receiver = Receiver().take(settings(name))
    for text in texts:
        data = encoder.encode(text)
        for start in range(0, len(data), size):
            receiver.take(plain(ENCODED, payload=data[start : start + size]))
    assert b"".join(payload for _, payload in receiver.received) == b"".join(texts)


# Where an encoding comes from


def run_anew(version: tuple[int, ...], package: str = "") -> Mapping[str, Encoding]:
    """Return the encodings that there are with another Python, and with zstd in this package."""
    modules: dict[str, Any] = {"backports.zstd": None, "compression.zstd": None}
    if package:
        modules[f"{package}.zstd"] = encodings.zstd
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        for module, value in modules.items():
            patch.setitem(sys.modules, module, value)
        found: Mapping[str, Encoding] = runpy.run_path(encodings.__file__)["ENCODINGS"]
    return found


def test_the_encodings_are_best_first() -> None:
    assert list(ENCODINGS) == ["zstd", "zstd-8mb", "zlib"]
    assert all(name == known.name for name, known in ENCODINGS.items())


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 0), (3, 14, 0)])
def test_without_zstd_there_is_zlib(version: tuple[int, ...]) -> None:
    assert list(run_anew(version)) == ["zlib"]


@pytest.mark.parametrize(
    ("version", "package"), [((3, 13, 9), "backports"), ((3, 14, 0), "compression")]
)
def test_a_newer_python_brings_its_own_zstd(version: tuple[int, ...], package: str) -> None:
    found = run_anew(version, package)
    assert list(found) == ["zstd", "zstd-8mb", "zlib"]
    assert found["zstd"].encoder().encode(b"x")[:4] == b"\x28\xb5\x2f\xfd"
