"""Events without end to subscribers that never read: memory stays where it was (fact G39)."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from soak.plain import plain_peer_process
from support.waiting import end_session
from txqmp import Event, connect


#: So many events fill what there is to fill, before memory is looked at.
WARMING_UP = 20_000

#: The growth that is no growth, in bytes. Keeping the events would take a thousand bytes each.
NOISE = 4 << 20


class AlwaysRaisedError(Exception):
    """What a subscriber raises on every event."""


#: What is logged, once.
EXPECTED = (AlwaysRaisedError,)


@attrs.define
class FloodReport:
    events: int = 0
    counted: int = 0
    in_order: bool = True
    listener: int = 0
    listener_dropped: int = 0
    stuck: int = 0
    stuck_dropped: int = 0
    raised: int = 0
    before: int = 0
    after: int = 0
    seconds: float = 0.0

    @property
    def grown(self) -> int:
        return self.after - self.before

    def lines(self) -> list[str]:
        grown = self.grown / 1024
        return [
            f"{self.events} events in {self.seconds:.1f} s, {self.counted} seen by the counter",
            f"a listener that nobody reads holds {self.listener}, dropped {self.listener_dropped}",
            f"a subscriber that is never done took {self.stuck}, was spared {self.stuck_dropped}",
            f"a subscriber that raises raised {self.raised} times",
            f"memory, KiB: {self.before >> 10} before, {self.after >> 10} after, {grown:+.0f}",
        ]

    def problems(self) -> list[str]:
        problems = []
        if self.counted != self.events or not self.in_order:
            problems.append(f"{self.counted} events of {self.events} seen, or not in order")
        if self.listener + self.listener_dropped != self.events:
            problems.append("the listener lost events without counting them")
        if self.stuck + self.stuck_dropped != self.events:
            problems.append("the subscriber that is never done lost events without counting them")
        if self.raised != self.events:
            problems.append(f"the subscriber that raises was called {self.raised} times")
        if self.grown > NOISE:
            problems.append(f"memory grew by {self.grown >> 10} KiB")
        return problems


async def run(reactor: Any, count: int) -> FloodReport:
    report = FloodReport(events=WARMING_UP + count)

    def never_done(event: Event) -> Deferred[None]:
        report.stuck += 1
        return Deferred()

    def counter(event: Event) -> None:
        warm = report.counted < WARMING_UP
        if event.data["offset"] != report.counted - (0 if warm else WARMING_UP):
            report.in_order = False
        report.counted += 1

    with plain_peer_process() as where:
        session = await connect(reactor, where)
        listener = session.listen()
        never = session.subscribe(never_done)
        raising = session.subscribe(raise_always)
        session.subscribe(counter)
        await session.execute("flood", {"events": WARMING_UP}, timeout=None)
        report.before = resident()
        begun = time.perf_counter()
        await session.execute("flood", {"events": count}, timeout=None)
        report.seconds = time.perf_counter() - begun
        report.after = resident()
        report.listener, report.listener_dropped = len(listener.clear()), listener.dropped
        report.stuck_dropped = never.dropped
        report.raised = raising.failures
        await end_session(session)
    return report


def raise_always(event: Event) -> None:
    raise AlwaysRaisedError(event.name)


def resident() -> int:
    """The memory that the process has, in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
