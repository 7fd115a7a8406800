"""Times and durations as people type them."""

from __future__ import annotations

import argparse
import math
import re
from datetime import datetime, timezone


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")


def duration(text: str) -> float:
    """
    A duration in seconds.

    :param text: such as ``"90s"``, ``"15m"``, ``"1h30m"`` or ``"2d"``.
    :raises argparse.ArgumentTypeError: it is none.
    """
    seconds, place = 0.0, 0
    while found := _PART.match(text, place):
        if found[2] not in _UNITS:
            break
        seconds += float(found[1]) * _UNITS[found[2]]
        place = found.end()
    if not place or place != len(text.rstrip()) or not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 90s, 15m, 1h30m or 2d")
    return seconds


def when(text: str, now: float) -> float:
    """
    A time in seconds since the epoch.

    :param text: a duration, which means so long ago, or a date, with or without a time, as in
        ISO 8601. Without a zone it is this host's.
    :param now: in seconds since the epoch.
    :raises argparse.ArgumentTypeError: it is none of these.
    """
    try:
        return now - duration(text)
    except argparse.ArgumentTypeError:
        pass
    try:
        # Before Python 3.11 it does not know what Z is.
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        if moment.tzinfo is None:
            moment = moment.astimezone()
        return moment.astimezone(timezone.utc).timestamp()
    except (OverflowError, OSError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time, such as 15m (ago), 2026-11-21 or 2026-11-21T01:20:00Z"
        ) from None
