"""The side of ``txqmp.frames``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.meters import Stopwatch, Taken
from benchmarks.qmp_lines import qmp_lines
from txqmp.frames import (
    ClientReactor,
    FrameDecoder,
    InputStreams,
    OutputStream,
    Response,
    RunCommand,
    SendFrames,
    encode_frame,
)
from txqmp.frames.codec import BYTES_RESPONSE, CONTINUATION
from txqmp.frames.server import ServerReactor


CHUNK = 1 << 16


def run(serve: Callable[[Any], Coroutine[Any, Any, None]], path: str) -> None:
    """Serve tasks; none of them uses the loop."""
    asyncio.run(serve(Tasks()))


class Tasks:
    """What can be measured."""

    def encode(self, count: int, size: int) -> Taken:
        """Frames to bytes."""
        payload = bytes(size)
        watch = Stopwatch()
        for _ in range(count):
            encode_frame(1, 2, 0, BYTES_RESPONSE, CONTINUATION, payload)
        return watch.read()

    def decode(self, count: int, size: int) -> Taken:
        """Bytes, as they come from a socket, to frames."""
        data = encode_frame(1, 2, 0, BYTES_RESPONSE, CONTINUATION, bytes(size)) * count
        chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        decoder = FrameDecoder()
        came = 0
        watch = Stopwatch()
        for chunk in chunks:
            came += len(decoder.feed(chunk))
        taken = watch.read()
        if came != count:
            raise RuntimeError(f"{came} of {count} frames came")
        return taken

    def round_trip(self, count: int) -> Taken:
        """Small requests and their responses, through the reactors of both sides."""
        client, server = ClientReactor(), ServerReactor()
        watch = Stopwatch()
        for _ in range(count):
            request_id, request = client.request(b"query-status")
            for frame in request:
                (command,) = server.receive(frame)
            assert isinstance(command, RunCommand)
            answer = server.respond(command.request_id, b'{"status": "running"}')
            assert isinstance(answer, SendFrames)
            for frame in answer:
                (response,) = client.receive(frame)
            assert isinstance(response, Response)
            assert response.request_id == request_id
        return watch.read()

    def compress(self, encoding: str, count: int) -> tuple[float, float, float]:
        """
        Lines of QMP over one stream, a message in a frame.

        :returns: how many times smaller the payloads are, and how many seconds a message takes to
            be made into a frame, and to be read from one.
        """
        lines = qmp_lines(count)
        stream = OutputStream(2, encoding)
        streams = InputStreams(False, encodings=[encoding])
        encoding_watch = Stopwatch()
        frames = [stream.frame(1, BYTES_RESPONSE, CONTINUATION, line) for line in lines]
        encoded, _ = encoding_watch.read()
        received = FrameDecoder().feed(b"".join(frames))
        settings, *received = received
        streams.set_encoding(settings, streams.accept(settings, lambda _: CHUNK))
        decoding_watch = Stopwatch()
        decoded = [streams.accept(frame, lambda _: CHUNK) for frame in received]
        decoding, _ = decoding_watch.read()
        if decoded != lines:
            raise RuntimeError("other lines came out")
        ratio = sum(map(len, lines)) / sum(len(frame.payload) for frame in received)
        return ratio, encoded / count, decoding / count
