"""The side of the spool: events are put into it as the daemon puts them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react

from benchmarks.events import ENVELOPE, item, record
from benchmarks.meters import Stopwatch, Taken
from txqmp.monitor.recorder import Recorder
from txqmp.monitor.spool import Spool, SpoolLimits, make_spool


TICK = 0.002
"""How often events are put in at a steady rate, in seconds: each time as many as are due."""


def run(serve: Callable[[Any], Awaitable[None]], path: str) -> None:
    """Serve tasks under the reactor."""
    react(lambda reactor: Deferred.fromCoroutine(serve(Tasks(reactor))))


@asynccontextmanager
async def spool(reactor: Any) -> Any:
    """A new spool, in a directory that is removed."""
    with tempfile.TemporaryDirectory() as directory:
        one = make_spool(reactor, directory, SpoolLimits(max_bytes=1 << 30))
        await one.start()
        yield one
        await one.close()


class Tasks:
    """What can be measured."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def burst(self, count: int) -> Taken:
        """So many events at once, until the last one is on the disk."""
        items = [item(number) for number in range(count)]
        async with spool(self._reactor) as one:
            watch = Stopwatch()
            last = [one.put(each) for each in items][-1]
            await last
            return self._taken(one, count, watch)

    async def records(self, count: int) -> Taken:
        """The same, from when the fleet tells of them."""
        records = [record(number) for number in range(count)]
        async with spool(self._reactor) as one:
            recorder = Recorder(one, ENVELOPE, tell_lost=lambda *_: None)
            watch = Stopwatch()
            for each in records:
                recorder.take(each)
            await recorder.when_idle()
            return self._taken(one, count, watch)

    def _taken(self, one: Spool, count: int, watch: Stopwatch) -> Taken:
        taken = watch.read()
        if one.counters.committed != count:
            raise RuntimeError(f"{one.counters.committed} of {count} events were committed")
        return taken

    async def steady(self, rate: float, seconds: float) -> tuple[float, float]:
        """
        Events at a steady rate.

        :returns: how long one takes until it is on the disk: the median, and what 99 of 100 stay
            below, in seconds.
        """
        took: list[float] = []
        count = int(rate * seconds)
        items = [item(number) for number in range(count)]
        done: Deferred[None] = Deferred()

        def committed(_: int, begun: float) -> None:
            took.append(time.perf_counter() - begun)
            if len(took) == count:
                done.callback(None)

        async with spool(self._reactor) as one:
            began = time.perf_counter()
            put = 0

            def tick() -> None:
                nonlocal put
                due = min(count, int((time.perf_counter() - began) * rate))
                for each in items[put:due]:
                    one.put(each).addCallback(committed, time.perf_counter())
                put = due

            loop = LoopingCall(tick)
            loop.start(TICK)
            await done
            loop.stop()
        took.sort()
        return took[count // 2], took[count * 99 // 100]
