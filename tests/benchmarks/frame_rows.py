"""The rows of the table that are about frames: rates of one core, and how small messages get."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from statistics import median

from benchmarks.meters import Taken
from benchmarks.sides import take_turns
from benchmarks.table import Goal, Line, at_least, wanted


OURS, PLAIN, MERCURIAL = "frames", "frames-plain", "frames-mercurial"

_PAYLOADS = ((100, "100 bytes"), (32_768, "32 KiB"))
_WANTED = {
    ("encode", 100): 2_500_000,
    ("decode", 100): 1_200_000,
    ("encode", 32_768): 600_000,
    ("decode", 32_768): 150_000,
}


def codec(rounds: int, path: str, scale: int) -> Iterator[Line]:
    """Frames to bytes, and bytes to frames."""
    sides = [OURS, PLAIN, *([MERCURIAL] if find_spec("mercurial") else [])]
    for task in ("encode", "decode"):
        for size, name in _PAYLOADS:
            count = scale if size == 100 else scale // 10
            took = take_turns(path, sides, rounds, task, count=count, size=size)
            what = f"{task} frames of {name}"
            yield wanted(what, "frames/s", count, took[OURS], _WANTED[task, size])
            yield _against(what, "frames/s", count, took, PLAIN, "the plainest loop")
            if MERCURIAL in sides:
                yield _against(what, "frames/s", count, took, MERCURIAL, "Mercurial")


def round_trip(rounds: int, path: str, scale: int) -> Iterator[Line]:
    """A small request and its response, through the reactors of both sides."""
    count = scale // 20
    took = take_turns(path, [OURS], rounds, "round_trip", count=count)
    yield wanted("a request, both reactors", "/s", count, took[OURS], 60_000)


def compression(rounds: int, path: str, scale: int) -> Iterator[Line]:
    """Lines of QMP over one stream with an encoding."""
    for encoding, goal in (("zstd", 4.5), ("zstd-8mb", 4.5), ("zlib", 6.0)):
        took = take_turns(
            path, [OURS], rounds, "compress", encoding=encoding, count=max(1000, scale // 10)
        )[OURS]
        ratio, encoding_time, decoding_time = (median(each) for each in zip(*took, strict=True))
        times = f"{encoding_time * 1e6:.1f} µs, {decoding_time * 1e6:.1f} µs"
        yield Line(
            f"QMP on one stream, {encoding}",
            times,
            "the plain lines",
            "",
            [ratio],
            goal=at_least(goal),
        )


def _against(
    what: str,
    unit: str,
    count: int,
    took: dict[str, list[Taken]],
    other: str,
    name: str,
    goal: Goal | None = None,
) -> Line:
    ours, theirs = took[OURS], took[other]
    return Line(
        what,
        f"{count / median(wall for wall, _ in ours):,.0f} {unit}",
        name,
        f"{count / median(wall for wall, _ in theirs):,.0f}",
        [their / our for (our, _), (their, _) in zip(ours, theirs, strict=True)],
        goal=goal,
    )
