"""The rows of the table: what is measured, between whom, and what the goal is (DESIGN.md §4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.meters import allow_connections
from benchmarks.sides import Side, SideError, take_turns
from benchmarks.table import Goal, Line, at_least, at_most


OURS, PEER, LIMIT = "txqmp", "qemu.qmp", "limit"

_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much to measure, and how often."""

    rounds: int
    fresh_rounds: int
    commands: int
    callers: int
    commands_each: int
    events: int
    megabytes: tuple[int, ...]
    connections: int
    commands_per_connection: int


FULL = Scale(
    rounds=9,
    fresh_rounds=3,
    commands=2000,
    callers=64,
    commands_each=40,
    events=100_000,
    megabytes=(5, 10, 20, 40),
    connections=1000,
    commands_per_connection=8,
)

QUICK = Scale(
    rounds=2,
    fresh_rounds=1,
    commands=500,
    callers=64,
    commands_each=10,
    events=10_000,
    megabytes=(5, 40),
    connections=200,
    commands_per_connection=5,
)


def serial(scale: Scale, path: str) -> Iterator[Line]:
    """One command after another."""
    what = "one command after another"
    count = scale.commands
    took = take_turns(path, (OURS, PEER, LIMIT), scale.rounds, "serial", count=count)
    yield _rates(what, "commands/s", count, took, PEER, at_least(1.9))
    yield _rates(what, "commands/s", count, took, LIMIT, at_least(0.65), "a blocking socket")


def callers(scale: Scale, path: str) -> Iterator[Line]:
    """Many callers at once."""
    count = scale.callers * scale.commands_each
    for window in (8, 64):
        what = f"{scale.callers} callers at once, window {window}"
        took = take_turns(
            path,
            (OURS, PEER, LIMIT),
            scale.rounds,
            "callers",
            callers=scale.callers,
            count=scale.commands_each,
            window=window,
        )
        peer, limit = (at_least(10), at_least(0.6)) if window == 64 else (None, None)
        yield _rates(what, "commands/s", count, took, PEER, peer)
        yield _rates(what, "commands/s", count, took, LIMIT, limit, "a blocking socket")


def events(scale: Scale, path: str) -> Iterator[Line]:
    """Events to one subscriber."""
    count = scale.events
    what = f"{count:,} events to one subscriber"
    limit = take_turns(path, (OURS, LIMIT), scale.rounds, "events", count=count)
    # The peer is an order of magnitude slower: fewer rounds, with turns of their own.
    rounds = (scale.rounds + 1) // 2
    peer = take_turns(path, (OURS, PEER), rounds, "events", count=count)
    yield _rates(what, "events/s", count, peer, PEER, at_least(15))
    yield _rates(what, "events/s", count, limit, LIMIT, at_least(0.4), "orjson.loads alone")


def bulk(scale: Scale, path: str) -> Iterator[Line]:
    """One large reply, and whether the time is linear in its size."""
    times: dict[int, float] = {}
    for size in scale.megabytes:
        largest = size == max(scale.megabytes)
        took = take_turns(path, (OURS, LIMIT), scale.rounds, "bulk", size=size * _MB)
        times[size] = median(took[OURS]) / size
        if largest:
            yield Line(
                f"a {size} MB reply",
                f"{median(took[OURS]) * 1e3:.0f} ms",
                PEER,
                _failure(path, PEER, "bulk", size=size * _MB),
            )
        yield Line(
            f"a {size} MB reply",
            f"{median(took[OURS]) * 1e3:.1f} ms",
            "a blocking socket",
            f"{median(took[LIMIT]) * 1e3:.1f} ms",
            _ratios(took[OURS], took[LIMIT]),
            at_most(3) if largest else None,
        )
    small, large = min(times), max(times)
    yield Line(
        "the same, time per MB",
        f"{times[large] * 1e3:.2f} ms at {large} MB",
        f"itself at {small} MB",
        f"{times[small] * 1e3:.2f} ms",
        [times[large] / times[small]],
        at_most(2),
    )


def memory(scale: Scale, path: str) -> Iterator[Line]:
    """Memory for each connection."""
    count = allow_connections(scale.connections)
    rounds = scale.fresh_rounds
    grown = take_turns(path, (OURS, PEER), rounds, "memory", fresh=True, connections=count)
    lasting = take_turns(path, (OURS,), 1, "lasting_memory", fresh=True, connections=count)
    what = f"memory per connection, {count:,} of them"
    theirs = f"{median(grown[PEER]) / 1e3:.1f} kB"
    for name, ours, goal in (
        (what, grown[OURS], at_most(0.5)),
        ("the same, each kept up by a factory", lasting[OURS], None),
    ):
        ratios = _ratios(ours, grown[PEER])
        yield Line(name, f"{median(ours) / 1e3:.1f} kB", PEER, theirs, ratios, goal)


def processor(scale: Scale, path: str) -> Iterator[Line]:
    """Processor time for each command, at many connections."""
    count = allow_connections(scale.connections)
    took = take_turns(
        path,
        (OURS, PEER),
        scale.fresh_rounds,
        "processor",
        fresh=True,
        connections=count,
        count=scale.commands_per_connection,
    )
    yield Line(
        f"processor time per command, {count:,} connections",
        f"{median(took[OURS]) * 1e6:.0f} µs",
        PEER,
        f"{median(took[PEER]) * 1e6:.0f} µs",
        _ratios(took[OURS], took[PEER]),
        at_most(0.25),
    )


ROWS: dict[str, Callable[[Scale, str], Iterator[Line]]] = {
    "serial": serial,
    "callers": callers,
    "events": events,
    "bulk": bulk,
    "memory": memory,
    "processor": processor,
}
"""The rows by name, in the table's order."""


def _rates(
    what: str,
    unit: str,
    count: int,
    took: dict[str, list[float]],
    other: str,
    goal: Goal | None = None,
    other_name: str | None = None,
) -> Line:
    return Line(
        what,
        f"{count / median(took[OURS]):,.0f} {unit}",
        other_name or other,
        f"{count / median(took[other]):,.0f}",
        _ratios(took[other], took[OURS]),
        goal,
    )


def _ratios(over: list[float], under: list[float]) -> list[float]:
    """One ratio for each round: what was measured in the same minute."""
    return [one / other for one, other in zip(over, under, strict=False)]


def _failure(path: str, name: str, task: str, **parameters: int) -> str:
    """How a side fails on a task that is too much for it."""
    with Side(name, path, silent=True) as side:
        try:
            side.measure(task, **parameters)
        except SideError as error:
            return f"fails: {str(error).partition(': ')[2]}"
    return "succeeds"
