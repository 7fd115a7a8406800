"""A peer that sends frames to hurt: each attack ends in an error of its own, in bounded memory."""

from __future__ import annotations

import json
import os
import resource
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from txqmp.frames import (
    Action,
    ClientReactor,
    Failed,
    FrameLimitError,
    Limits,
    ServerReactor,
    Terms,
    encode_frame,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_ARGUMENT,
    COMMAND_DATA,
    COMMAND_NAME,
    CONTINUATION,
    ENCODED,
    EOS,
    HAVE_ARGS,
    HAVE_DATA,
    NAME_EOS,
    STREAM_BEGIN,
    STREAM_SETTINGS,
)


#: What an attack may cost, in bytes.
ALLOWED = 40 << 20

Peer = ClientReactor | ServerReactor
Attack = Callable[[int], tuple[Peer, Iterator[bytes]]]


def zstd_bomb(count: int) -> tuple[Peer, Iterator[bytes]]:
    """A gigabyte of zeros in one zstd frame of 32,766 bytes."""
    # RFC 8878: magic number, no size, a window of 256 KiB; blocks of 128 KiB of the same byte.
    head = b"\x28\xb5\x2f\xfd\x00\x40"
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return _bomb("zstd", head + block * 8190)


def zlib_bomb(count: int) -> tuple[Peer, Iterator[bytes]]:
    """30 megabytes of zeros in one zlib stream of 32 kB."""
    return _bomb("zlib", zlib.compress(bytes(30 << 20), 9))


def _bomb(encoding: str, payload: bytes) -> tuple[Peer, Iterator[bytes]]:
    client = ClientReactor()
    request_id, _ = client.request("c")
    settings = bytes([len(encoding)]) + encoding.encode()

    def frames() -> Iterator[bytes]:
        yield encode_frame(request_id, 2, STREAM_BEGIN, STREAM_SETTINGS, 0, settings)
        yield encode_frame(request_id, 2, ENCODED, BYTES_RESPONSE, EOS, payload)

    return client, frames()


def empty_frames(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Data that continue, and never come."""

    def frames() -> Iterator[bytes]:
        yield encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, HAVE_DATA, b"c")
        for _ in range(count):
            yield encode_frame(1, 1, 0, COMMAND_DATA, CONTINUATION, b"")

    return ServerReactor(), frames()


def small_frames(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Data that come byte by byte, a frame for each."""

    def frames() -> Iterator[bytes]:
        yield encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, HAVE_DATA, b"c")
        for _ in range(max(count, 20_000)):
            yield encode_frame(1, 1, 0, COMMAND_DATA, CONTINUATION, b"x")

    return ServerReactor(), frames()


def half_requests(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Requests of which only the name comes."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            begin = 0 if number else STREAM_BEGIN
            yield encode_frame(2 * number + 1, 1, begin, COMMAND_NAME, HAVE_ARGS, b"c")

    return ServerReactor(), frames()


def large_requests(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Requests that each hold as much as one may, and are not finished."""

    def frames() -> Iterator[bytes]:
        for number in range(32):
            request_id = 2 * number + 1
            begin = 0 if number else STREAM_BEGIN
            yield encode_frame(request_id, 1, begin, COMMAND_NAME, HAVE_DATA, b"c")
            for _ in range(60):
                data = bytes(32_768)
                yield encode_frame(request_id, 1, 0, COMMAND_DATA, CONTINUATION, data)

    return ServerReactor(), frames()


def large_arguments(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Arguments without end."""

    def frames() -> Iterator[bytes]:
        yield encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, HAVE_ARGS, b"c")
        for number in range(count):
            name = b"%08d" % number
            argument = b"\x08\x00\x00\x70" + name + bytes(0x7000)
            yield encode_frame(1, 1, 0, COMMAND_ARGUMENT, 0, argument)

    return ServerReactor(), frames()


def active_requests(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Requests, and nobody waits for the answers."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            begin = 0 if number else STREAM_BEGIN
            yield encode_frame(2 * number + 1, 1, begin, COMMAND_NAME, NAME_EOS, b"c")

    return ServerReactor(), frames()


def pings(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Pings over a link, and nobody reads the answers."""
    server = ServerReactor(link=True)
    client = ClientReactor()
    server.receive(b"".join(client.open_link()))

    def frames() -> Iterator[bytes]:
        for number in range(1, count):
            yield encode_frame(2 * number + 1, 1, 0, COMMAND_NAME, NAME_EOS, b"link-ping p")

    return server, frames()


def pings_of_a_server(count: int) -> tuple[Peer, Iterator[bytes]]:
    """A server that pings, and never says that it got the pong."""
    client = ClientReactor()
    b"".join(client.open_link())
    line = b"link 1 " + Terms.of(Limits(), ()).encode() + b"\n"

    def frames() -> Iterator[bytes]:
        yield encode_frame(1, 2, STREAM_BEGIN, BYTES_RESPONSE, CONTINUATION, line)
        for _ in range(count):
            yield encode_frame(1, 2, 0, BYTES_RESPONSE, CONTINUATION, b"ping p\n")

    return client, frames()


def large_responses(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Responses that are almost as large as they may be, and do not end."""
    client = ClientReactor(limits=Limits(response_bytes=32 << 20))
    requests = [client.request("c") for _ in range(64)]
    for _, request in requests:
        list(request)

    def frames() -> Iterator[bytes]:
        yield encode_frame(1, 2, STREAM_BEGIN, BYTES_RESPONSE, CONTINUATION, bytes(1))
        for _ in range(500):
            for request_id, _ in requests:
                yield encode_frame(request_id, 2, 0, BYTES_RESPONSE, CONTINUATION, bytes(32_768))

    return client, frames()


def cancels(count: int) -> tuple[Peer, Iterator[bytes]]:
    """Requests that are cancelled as soon as they are made, to have ever more of them run."""
    server = ServerReactor(link=True)
    client = ClientReactor()
    server.receive(b"".join(client.open_link()))

    def frames() -> Iterator[bytes]:
        for number in range(1, count):
            request_id = 4 * number + 1
            yield encode_frame(request_id, 1, 0, COMMAND_NAME, NAME_EOS, b"c")
            line = b"link-cancel %d" % request_id
            yield encode_frame(request_id + 2, 1, 0, COMMAND_NAME, NAME_EOS, line)

    return server, frames()


def huge_frame(count: int) -> tuple[Peer, Iterator[bytes]]:
    """A header that announces 16 MiB."""
    return ServerReactor(), iter([b"\xff\xff\xff\x01\x00\x01\x01\x11"])


def same_id(count: int) -> tuple[Peer, Iterator[bytes]]:
    """An id that is used while it is used."""
    frame = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"c")
    return ServerReactor(), iter([frame, frame])


def no_begin(count: int) -> tuple[Peer, Iterator[bytes]]:
    """A stream that was never begun."""
    return ServerReactor(), iter([encode_frame(1, 3, 0, COMMAND_NAME, NAME_EOS, b"c")])


#: The attacks, and what each must end in: a limit's name, or a code.
ATTACKS: dict[str, tuple[Attack, str]] = {
    "a zstd bomb of 1 GiB": (zstd_bomb, "decoded_frame"),
    "a zlib bomb of 30 MiB": (zlib_bomb, "decoded_frame"),
    "empty continuations": (empty_frames, "empty_frames"),
    "one byte a frame": (small_frames, "message_frames"),
    "half-received requests": (half_requests, "half_received"),
    "large half-received requests": (large_requests, "half_received_bytes"),
    "arguments without end": (large_arguments, "request_arguments"),
    "requests never answered": (active_requests, "active"),
    "large responses": (large_responses, "response_bytes"),
    "pings, unread": (pings, "control"),
    "pings of a server": (pings_of_a_server, "control"),
    "requests, cancelled": (cancels, "control"),
    "a frame of 16 MiB": (huge_frame, "receive_frame"),
    "an id used twice": (same_id, "already-active"),
    "a stream never begun": (no_begin, "stream-not-begun"),
}


@attrs.define
class HostileReport:
    done: list[str] = attrs.Factory(list)
    wrong: list[str] = attrs.Factory(list)

    def lines(self) -> list[str]:
        return self.done

    def problems(self) -> list[str]:
        return self.wrong


async def run(reactor: Any, count: int) -> HostileReport:
    report = HostileReport()
    for name, (attack, wanted) in ATTACKS.items():
        sent, ended, text, grown = _alone(attack, count)
        report.done.append(
            f"{name:<30} {ended:<20} after {sent:>6} frames, {grown >> 10:>6} KiB: {text}"
        )
        if ended != wanted:
            report.wrong.append(f"{name} ended in {ended}, not in {wanted}")
        if grown > ALLOWED:
            report.wrong.append(f"{name} took {grown >> 20} MiB")
    return report


def _alone(attack: Attack, count: int) -> tuple[int, str, str, int]:
    """Make an attack in a process of its own, whose memory at its peak is then its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with os.fdopen(writing, "w") as answer:
                json.dump(_measure(attack, count), answer)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        sent, ended, text, grown = json.load(answer)
    os.waitpid(child, 0)
    return sent, ended, text, grown


def _measure(attack: Attack, count: int) -> tuple[int, str, str, int]:
    peer, frames = attack(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    actions: list[Action] = []
    sent = 0
    for frame in frames:
        sent += 1
        actions = peer.receive(frame)
        if peer.error is not None:
            break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if not actions or not isinstance(actions[-1], Failed):
        return sent, "nothing", "", grown << 10
    error = actions[-1].error
    ended = error.limit if isinstance(error, FrameLimitError) else error.code.value
    return sent, ended, str(error), grown << 10
