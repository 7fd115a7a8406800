"""The limit for frames: the plainest loops that do the same, without checks."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.meters import Stopwatch, Taken


CHUNK = 1 << 16
HEADER = struct.Struct("<HBHBBB")


def run(serve: Callable[[Any], Coroutine[Any, Any, None]], path: str) -> None:
    """Serve tasks; none of them uses the loop."""
    asyncio.run(serve(Tasks()))


class Tasks:
    """What can be measured."""

    def encode(self, count: int, size: int) -> Taken:
        """Frames to bytes."""
        payload = bytes(size)
        pack = HEADER.pack
        watch = Stopwatch()
        for _ in range(count):
            length = len(payload)
            pack(length & 0xFFFF, length >> 16, 1, 2, 0, 0x41) + payload
        return watch.read()

    def decode(self, count: int, size: int) -> Taken:
        """Bytes, as they come from a socket, to tuples."""
        data = (HEADER.pack(size & 0xFFFF, size >> 16, 1, 2, 0, 0x41) + bytes(size)) * count
        chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        unpack = HEADER.unpack_from
        held = bytearray()
        came = 0
        watch = Stopwatch()
        for chunk in chunks:
            held += chunk
            start, whole = 0, len(held)
            while start + 8 <= whole:
                low, high, request, stream, stream_flags, kind = unpack(held, start)
                end = start + 8 + (high << 16 | low)
                if end > whole:
                    break
                (request, stream, stream_flags, kind, bytes(held[start + 8 : end]))
                came += 1
                start = end
            del held[:start]
        taken = watch.read()
        if came != count:
            raise RuntimeError(f"{came} of {count} frames came")
        return taken
