"""How many events came lately: :class:`RateMeter`."""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime

from txqmp.monitor.web.source import Rates


INTERVAL = 5.0
"""The time that events are counted together for, in seconds."""

SPAN = 600.0
"""How far back is remembered, in seconds."""


class RateMeter:
    """
    Counts events, and remembers how many there were in each interval of the last minutes. To count
    one costs next to nothing, and what is remembered has a fixed size.

    :param clock: tells the time.
    """

    def __init__(
        self, clock: IReactorTime, *, interval: float = INTERVAL, span: float = SPAN
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._past: deque[int] = deque(maxlen=max(1, round(span / interval)))
        self._number = self._now()
        self._count = 0

    def _now(self) -> int:
        """The number of the present interval, counted from the epoch."""
        return int(self._clock.seconds() // self._interval)

    def count(self, events: int = 1) -> None:
        """So many events came."""
        if self._now() != self._number:
            self._turn()
        self._count += events

    def _turn(self) -> None:
        """Close the intervals that are over."""
        number = self._now()
        passed = number - self._number
        self._number = number
        if passed <= 0:
            return  # the clock was set back: the interval lasts longer
        self._past.append(self._count)
        self._count = 0
        self._past.extend([0] * min(passed - 1, self._past.maxlen or 0))

    def rates(self) -> Rates:
        """The intervals that are over."""
        self._turn()
        interval = self._interval
        return Rates(
            interval, self._number * interval, tuple(count / interval for count in self._past)
        )
