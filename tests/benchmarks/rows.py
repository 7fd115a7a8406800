"""The rows of the table: what is measured, between whom, and what the goal is (DESIGN.md §4)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks import fleet_row, frame_rows, monitor_rows
from benchmarks.meters import Taken, allow_connections
from benchmarks.peers import real_qemu
from benchmarks.sides import Side, SideError, take_turns
from benchmarks.table import Goal, Line, at_least, at_most


OURS, PEER, LIMIT, BARE = "txqmp", "qemu.qmp", "limit", "bare"

NAMES = {PEER: PEER, LIMIT: "a blocking socket", BARE: "bare Twisted"}
"""The sides' names in the table."""

_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """
    How much to measure, and how often.

    :ivar rounds: of what is over in a moment: many, because a shared machine stalls now and then.
    :ivar long_rounds: of what takes a second or more.
    """

    rounds: int
    long_rounds: int
    commands: int
    callers: int
    commands_each: int
    events: int
    megabytes: tuple[int, ...]
    connections: int
    commands_per_connection: int
    frames: int
    burst: int
    steady_seconds: float
    deliveries: int
    posts: int
    vms: int
    watch_seconds: float


FULL = Scale(
    rounds=15,
    long_rounds=3,
    commands=1000,
    callers=64,
    commands_each=100,
    events=100_000,
    megabytes=(5, 10, 20, 40),
    connections=1000,
    commands_per_connection=10,
    frames=200_000,
    burst=20_000,
    steady_seconds=10.0,
    deliveries=50_000,
    posts=5000,
    vms=1000,
    watch_seconds=30.0,
)

QUICK = Scale(
    rounds=2,
    long_rounds=1,
    commands=200,
    callers=64,
    commands_each=5,
    events=10_000,
    megabytes=(5, 40),
    connections=200,
    commands_per_connection=5,
    frames=20_000,
    burst=20_000,
    steady_seconds=2.0,
    deliveries=10_000,
    posts=1000,
    vms=100,
    watch_seconds=5.0,
)


def serial(scale: Scale, path: str) -> Iterator[Line]:
    """One command after another."""
    count = scale.commands
    sides = (OURS, PEER, LIMIT, BARE)
    took = take_turns(path, sides, scale.rounds, "serial", count=count)
    what = "one command after another"
    yield _rates(what, "commands/s", count, took, PEER, at_least(1.9))
    yield _rates(what, "commands/s", count, took, LIMIT, at_least(0.65))
    yield _rates(what, "commands/s", count, took, BARE)
    with tempfile.TemporaryDirectory() as directory, real_qemu(directory) as socket:
        if socket is not None:
            took = take_turns(socket, sides, scale.rounds, "serial", count=count // 4)
            for other in sides[1:]:
                yield _rates("the same, real QEMU", "commands/s", count // 4, took, other)


def callers(scale: Scale, path: str) -> Iterator[Line]:
    """Many callers at once."""
    count = scale.callers * scale.commands_each
    goals = {(64, PEER): at_least(10), (64, LIMIT): at_least(0.6)}
    for window in (8, 64):
        sides = (OURS, PEER, LIMIT, BARE) if window == 64 else (OURS, PEER, LIMIT)
        took = take_turns(
            path,
            sides,
            scale.rounds,
            "callers",
            callers=scale.callers,
            count=scale.commands_each,
            window=window,
        )
        for other in sides[1:]:
            what = f"{scale.callers} callers at once, window {window}"
            yield _rates(what, "commands/s", count, took, other, goals.get((window, other)))


def events(scale: Scale, path: str) -> Iterator[Line]:
    """Events to one subscriber."""
    count = scale.events
    what = f"{count:,} events to one subscriber"
    # The peer is more than ten times slower: few rounds, with turns of their own.
    took = take_turns(path, (OURS, PEER), scale.long_rounds, "events", count=count)
    yield _rates(what, "events/s", count, took, PEER, at_least(15))
    took = take_turns(path, (OURS, LIMIT, BARE), scale.rounds // 2, "events", count=count)
    yield _rates(what, "events/s", count, took, LIMIT, at_least(0.4), "orjson.loads alone")
    yield _rates(what, "events/s", count, took, BARE)


def bulk(scale: Scale, path: str) -> Iterator[Line]:
    """One large reply, and whether the time is linear in its size."""
    per_megabyte: dict[int, float] = {}
    for size in scale.megabytes:
        what = f"a {size} MB reply"
        took = take_turns(path, (OURS, LIMIT), scale.rounds // 2, "bulk", size=size * _MB)
        ours = _wall(took[OURS])
        per_megabyte[size] = ours / size
        largest = size == max(scale.megabytes)
        if largest:
            failure = _failure(path, PEER, "bulk", size=size * _MB)
            yield Line(what, f"{ours * 1e3:.1f} ms", PEER, failure)
        yield Line(
            what,
            f"{ours * 1e3:.1f} ms",
            NAMES[LIMIT],
            f"{_wall(took[LIMIT]) * 1e3:.1f} ms",
            *_ratios(took[OURS], took[LIMIT]),
            at_most(3) if largest else None,
        )
    small, large = min(per_megabyte), max(per_megabyte)
    yield Line(
        "the same, time per MB",
        f"{per_megabyte[large] * 1e3:.2f} ms at {large} MB",
        f"itself at {small} MB",
        f"{per_megabyte[small] * 1e3:.2f} ms",
        [per_megabyte[large] / per_megabyte[small]],
        goal=at_most(2),
    )


def memory(scale: Scale, path: str) -> Iterator[Line]:
    """Memory for each connection."""
    count = allow_connections(scale.connections)
    rounds = scale.long_rounds
    grown = take_turns(path, (OURS, PEER), rounds, "memory", fresh=True, connections=count)
    kept_up = take_turns(path, (OURS,), 1, "kept_up_memory", fresh=True, connections=count)
    theirs = median(grown[PEER])
    for what, ours, goal in (
        (f"memory per connection, {count:,} of them", grown[OURS], at_most(0.5)),
        ("the same, each kept up by a factory", kept_up[OURS], None),
    ):
        ratios = [each / theirs for each in ours]
        yield Line(
            what, f"{median(ours) / 1e3:.1f} kB", PEER, f"{theirs / 1e3:.1f} kB", ratios, goal=goal
        )


def processor(scale: Scale, path: str) -> Iterator[Line]:
    """Processor time for each command, at many connections."""
    count = allow_connections(scale.connections)
    took = take_turns(
        path,
        (OURS, PEER, BARE),
        scale.long_rounds,
        "commands",
        fresh=True,
        connections=count,
        count=scale.commands_per_connection,
    )
    commands = count * scale.commands_per_connection
    costs = {side: median(processor for _, processor in took[side]) / commands for side in took}
    for other, goal in ((PEER, at_most(0.25)), (BARE, None)):
        yield Line(
            f"processor time per command, {count:,} conn.",
            f"{costs[OURS] * 1e6:.0f} µs",
            NAMES[other],
            f"{costs[other] * 1e6:.0f} µs",
            _ratios(took[OURS], took[other])[1],
            goal=goal,
        )


def frames(scale: Scale, path: str) -> Iterator[Line]:
    """Frames, by themselves."""
    for rows in (frame_rows.codec, frame_rows.round_trip, frame_rows.compression):
        yield from rows(scale.rounds // 2, path, scale.frames)


def spool(scale: Scale, path: str) -> Iterator[Line]:
    """Events into the spool of ``qmp-monitor``."""
    rounds = scale.long_rounds
    yield from monitor_rows.burst(rounds, path, scale.burst)
    yield from monitor_rows.steady(rounds, path, scale.steady_seconds)


def sinks(scale: Scale, path: str) -> Iterator[Line]:
    """Events from the spool to sinks."""
    rounds = scale.long_rounds
    yield from monitor_rows.file(rounds, path, scale.deliveries)
    yield from monitor_rows.webhook(rounds, path, scale.posts)
    yield from monitor_rows.broker(rounds, path, scale.deliveries)


def fleet(scale: Scale, path: str) -> Iterator[Line]:
    """Many VMs, watched by one process."""
    yield from fleet_row.watch(allow_connections(scale.vms), scale.watch_seconds)


ROWS: dict[str, Callable[[Scale, str], Iterator[Line]]] = {
    "serial": serial,
    "callers": callers,
    "events": events,
    "bulk": bulk,
    "memory": memory,
    "processor": processor,
    "frames": frames,
    "spool": spool,
    "sinks": sinks,
    "fleet": fleet,
}
"""The rows by name, in the table's order."""


def _rates(
    what: str,
    unit: str,
    count: int,
    took: dict[str, list[Taken]],
    other: str,
    goal: Goal | None = None,
    name: str | None = None,
) -> Line:
    return Line(
        what,
        f"{count / _wall(took[OURS]):,.0f} {unit}",
        name or NAMES[other],
        f"{count / _wall(took[other]):,.0f}",
        *_ratios(took[other], took[OURS]),
        goal,
    )


def _wall(took: list[Taken]) -> float:
    return median(wall for wall, _ in took)


def _ratios(over: list[Taken], under: list[Taken]) -> tuple[list[float], list[float]]:
    """By the wall clock and by processor time, a ratio for each round: of the same moment."""
    pairs = list(zip(over, under, strict=True))
    return (
        [one[0] / other[0] for one, other in pairs],
        [one[1] / other[1] for one, other in pairs],
    )


def _failure(path: str, name: str, task: str, **parameters: int) -> str:
    """How a side fails on a task that is too much for it."""
    with Side(name, path, silent=True) as side:
        try:
            side.measure(task, **parameters)
        except SideError as error:
            return f"fails: {str(error).partition(': ')[2]}"
    return "succeeds"
