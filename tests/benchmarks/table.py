"""The table that is printed."""

from __future__ import annotations

import operator
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks.meters import Taken


@dataclass(frozen=True)
class Goal:
    """What a ratio is to be."""

    sign: str
    value: float
    holds: Callable[[float, float], bool]

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"

    def met(self, ratio: float) -> bool:
        """Whether a ratio is so."""
        return self.holds(ratio, self.value)


def at_least(value: float) -> Goal:
    """The more, the better."""
    return Goal("≥", value, operator.ge)


def at_most(value: float) -> Goal:
    """The less, the better."""
    return Goal("≤", value, operator.le)


@dataclass(frozen=True)
class Line:
    """
    One comparison.

    :ivar what: what was done.
    :ivar ours: the median of what we measured, with its unit.
    :ivar other: who else did it.
    :ivar theirs: the median of theirs.
    :ivar ratios: ours to theirs, one for each round.
    :ivar processor_ratios: the same by the processor time of the two processes.
    """

    what: str
    ours: str
    other: str
    theirs: str
    ratios: list[float] = field(default_factory=list)
    processor_ratios: list[float] = field(default_factory=list)
    goal: Goal | None = None

    def cells(self) -> tuple[str, ...]:
        """The line's texts."""
        ratio = spread = processor = met = ""
        if self.ratios:
            ratio = f"{median(self.ratios):.2f}"
            if len(self.ratios) > 1:
                spread = f"{min(self.ratios):.2f} … {max(self.ratios):.2f}"
            if self.goal is not None:
                met = "yes" if self.goal.met(median(self.ratios)) else "NO"
        if self.processor_ratios:
            processor = f"{median(self.processor_ratios):.2f}"
        goal = str(self.goal) if self.goal is not None else ""
        return (self.what, self.ours, self.other, self.theirs, ratio, spread, processor, goal, met)


def wanted(what: str, unit: str, count: int, took: list[Taken], rate: float) -> Line:
    """
    A rate, against the one that is wanted.

    :param count: how much was done in each round.
    :param took: what the rounds took.
    :param rate: how much is to be done in a second.
    """
    rates = [count / wall for wall, _ in took]
    return Line(
        what,
        f"{median(rates):,.0f} {unit}",
        "what is wanted",
        f"{rate:,.0f}",
        [each / rate for each in rates],
        [count / processor / rate for _, processor in took],
        goal=at_least(1),
    )


_HEADS = ("what", "txqmp", "against", "theirs", "ratio", "of rounds", "by CPU", "goal", "met")
_WIDTHS = (41, 18, 18, 9, 6, 13, 6, 6, 3)


def _row(cells: tuple[str, ...]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
    return "  ".join(padded).rstrip()


def head() -> str:
    """The table's head."""
    return f"{_row(_HEADS)}\n{_row(tuple('-' * width for width in _WIDTHS))}"


def row(line: Line) -> str:
    """One line of the table."""
    return _row(line.cells())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def setting(replier: str) -> str:
    """Where and with what it was measured."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("Twisted", "orjson", "qemu.qmp"))
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {packages}\n"
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores,"
        f" load {load}; replier: {replier}\n"
        "Medians of alternating rounds; a ratio is the median of the rounds' ratios, by the wall\n"
        "clock, and beside it by the processor time of the two processes."
    )
