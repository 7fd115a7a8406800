"""When to dial again: a back-off that grows with each attempt that came to nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@attrs.frozen(kw_only=True)
class Backoff:
    """
    How long to wait before the next attempt.

    :ivar initial: after the first failure, in seconds.
    :ivar maximum: the longest wait, in seconds.
    :ivar factor: how much longer each wait is than the one before.
    :ivar jitter: the part of a wait that is random, from 0 to 1: many clients of one host that
        comes back do not dial at the same moment.
    """

    initial: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    maximum: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    factor: float = attrs.field(default=1.6, validator=attrs.validators.ge(1))
    jitter: float = attrs.field(
        default=0.3, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )

    def delay(self, failures: int, rng: Callable[[], float] = random.random) -> float:
        """
        The wait after so many failures in a row.

        :param failures: at least one.
        :param rng: gives a number from 0 to 1.
        :returns: seconds.
        """
        try:
            full = min(self.maximum, self.initial * float(self.factor) ** (failures - 1))
        except OverflowError:  # long before a daemon stops trying
            full = self.maximum
        return full * (1 - self.jitter * rng())


DEFAULT_BACKOFF = Backoff()
"""What holds where nothing is chosen."""


SETTLED = 1.0
"""How long a session lasts, in seconds, if nothing is wrong with it from the start."""


class Redialler:
    """
    Dials until a session is there, and again when it is gone.

    What counts is whether a session ran: a peer that accepts and says nothing is a failed attempt
    like one that refuses. Sessions that end within :data:`SETTLED` seconds are dialled for more and
    more slowly too: what ended one may end the next.

    :param clock: where the waits come from.
    :param dial: makes one attempt; its end is told by :meth:`succeeded`, :meth:`failed` or
        :meth:`lost`.
    :param backoff: how long to wait; ``None`` to dial once only.

    :ivar failures: attempts that failed since the last session ran.
    :ivar short: sessions in a row that did not last.
    """

    def __init__(
        self, clock: IReactorTime, dial: Callable[[], None], backoff: Backoff | None
    ) -> None:
        self._clock = clock
        self._dial = dial
        self._backoff = backoff
        self._next: IDelayedCall | None = None
        self._stopped = False
        self._began = 0.0
        self.failures = 0
        self.short = 0

    def succeeded(self) -> None:
        """A session runs."""
        self._began = self._clock.seconds()
        self.failures = 0

    def lost(self) -> None:
        """A session that ran is gone: dial after the shortest wait, unless that happens often."""
        lasted = self._clock.seconds() - self._began
        self.short = self.short + 1 if lasted < SETTLED else 0
        self._dial_later(max(1, self.short))

    def failed(self) -> None:
        """An attempt came to nothing: dial after a longer wait than the last time."""
        self.failures += 1
        self._dial_later(self.failures)

    def hasten(self) -> bool:
        """
        Dial now, if that is being waited for.

        :returns: whether it was.
        """
        waiting, self._next = self._next, None
        if waiting is None:
            return False
        waiting.cancel()
        self._dial()
        return True

    def stop(self) -> None:
        """Dial no more."""
        self._stopped = True
        waiting, self._next = self._next, None
        if waiting is not None:
            waiting.cancel()

    def _dial_later(self, failures: int) -> None:
        if self._stopped or self._backoff is None or self._next is not None:
            return
        self._next = self._clock.callLater(self._backoff.delay(failures), self._dial_now)

    def _dial_now(self) -> None:
        self._next = None
        self._dial()
