"""The side of Mercurial's own framing, where Mercurial is installed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from typing import Any

from mercurial import wireprotoframing

from benchmarks.meters import Stopwatch, Taken


def run(serve: Callable[[Any], Coroutine[Any, Any, None]], path: str) -> None:
    """Serve tasks; none of them uses the loop."""
    asyncio.run(serve(Tasks()))


class Tasks:
    """What can be measured."""

    def encode(self, count: int, size: int) -> Taken:
        """Frames to bytes."""
        payload = bytes(size)
        make = wireprotoframing.makeframe
        watch = Stopwatch()
        for _ in range(count):
            make(1, 2, 0, 3, 1, payload)
        return watch.read()

    def decode(self, count: int, size: int) -> Taken:
        """Bytes from a file to frames."""
        frame = bytes(wireprotoframing.makeframe(1, 2, 0, 3, 1, bytes(size)))
        source = io.BytesIO(frame * count)
        came = 0
        watch = Stopwatch()
        while wireprotoframing.readframe(source) is not None:
            came += 1
        taken = watch.read()
        if came != count:
            raise RuntimeError(f"{came} of {count} frames came")
        return taken
