"""How things are shown: to people on a terminal, and to programs as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from txqmp.fleet.records import timestamp, utc


MAX_TEXT = 200
"""How many characters of a text from elsewhere are shown to people."""


def harmless(text: str, limit: int = MAX_TEXT) -> str:
    """
    A text that may come from a guest, on one line, and with nothing in it that a terminal takes for
    a command or that turns the direction of writing.
    """
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def say(text: str) -> None:
    """
    Write a line to the standard output, as far as its encoding has the characters.

    :raises BrokenPipeError: nobody reads.
    """
    write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def write(line: bytes) -> None:
    """Write a line of bytes to the standard output."""
    sys.stdout.buffer.write(line + b"\n")


def complain(text: str) -> None:
    """Write a line to the standard error."""
    sys.stderr.write(f"qmp-monitor: {harmless(text, 2000)}\n")


def say_json(value: Any, indent: int | None = None) -> None:
    """
    Write JSON to the standard output, in ASCII: what a terminal could take for a command has its
    number.
    """
    say(json.dumps(value, indent=indent))


def moment(seconds: float | None) -> str | None:
    """A time as text, such as ``"2026-11-21T01:20:00.123456Z"``; ``None`` where there is none."""
    if seconds is None:
        return None
    try:
        return timestamp(utc(seconds))
    except (OverflowError, OSError, ValueError):
        return None  # no calendar holds it


def short_moment(seconds: float | None) -> str:
    """The same to the second, for people."""
    text = moment(seconds)
    return "-" if text is None else f"{text[:19]}Z"


def duration(seconds: float | None) -> str:
    """A duration, such as ``"3 h 2 min"``; ``"-"`` where there is none."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def size(count: int) -> str:
    """A number of bytes, such as ``"1.5 MiB"``."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``"1 event"``, ``"2 events"``."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Write rows in columns. Words that begin with a digit stand to the right, the last column is not
    filled up.
    """
    lines = [head, *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    right = [
        bool(rows) and all(_is_number(row[number]) for row in rows) for number in range(len(head))
    ]
    for line in lines:
        cells = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        say("  ".join(cells).rstrip())


def _is_number(text: str) -> bool:
    return text == "-" or text.isdecimal()
