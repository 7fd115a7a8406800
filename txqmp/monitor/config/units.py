"""Durations and sizes, as people write them."""

from __future__ import annotations

import math
import re


_DURATION = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+)ms)?",
    re.ASCII,
)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[A-Za-z]*)", re.ASCII)
_BYTES = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_LONGEST = 30  # characters; it keeps the numbers small


def seconds(value: object) -> float:
    """
    A duration: ``"250ms"``, ``"5s"``, ``"1m30s"``, ``"72h"``, ``"7d"``, or a number of seconds.

    :returns: it in seconds.
    :raises ValueError: it is none.
    """
    if isinstance(value, str):
        found = _DURATION.fullmatch(value) if 0 < len(value) <= _LONGEST else None
        if found is None:
            raise ValueError(f"{_shown(value)} is no duration, such as 5s, 1m30s or 72h")
        parts = {unit: text for unit, text in found.groupdict().items() if text is not None}
        return math.fsum(float(text) * _SECONDS[unit] for unit, text in parts.items())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError('it must be a duration, such as "5s", or a number of seconds')
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError("it must be a duration, and is no number from 0 on")
    return number


def size(value: object) -> int:
    """
    A size: ``"256MiB"`` (1024), ``"1GB"`` (1000), or a number of bytes.

    :returns: it in bytes.
    :raises ValueError: it is none.
    """
    if isinstance(value, str):
        found = _SIZE.fullmatch(value) if len(value) <= _LONGEST else None
        if found is None or found["unit"] not in _BYTES:
            raise ValueError(f"{_shown(value)} is no size, such as 256MiB or 1GB")
        return round(float(found["number"]) * _BYTES[found["unit"]])
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError('it must be a size, such as "256MiB", or a number of bytes')
    if value < 0:
        raise ValueError("it must be a size, and is below 0")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
