"""Handing events over until they are taken: :class:`Courier`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txqmp.monitor.pump.state import PumpCounters, PumpObserver, PumpState
from txqmp.monitor.sinks.delivery import (
    Delivery,
    DeliveryError,
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.spool import DeadLetter, Stored


MAX_WAIT = 300.0
"""The longest wait before the next attempt that is our own choice, in seconds."""

MAX_AGE = 72 * 3600.0
"""How old an event becomes before it is given up, in seconds."""

REJECTED = "rejected"
"""Why an event is put aside: the receiver does not take it."""

TOO_OLD = "too old"
"""Why an event is put aside: it could not be delivered for too long."""


@attrs.frozen(slots=True)
class Parcel:
    """
    An event on its way.

    :ivar stored: what it was made of; ``None`` for what is in no spool.
    :ivar position: what to acknowledge when it is taken; ``None`` for a dead letter.
    :ivar letter: the dead letter that it is, if it is one.
    :ivar since: from when its age counts, in seconds since the epoch: when it came to our notice,
        or was taken up anew; ``None`` for what is never given up.
    """

    event: OutgoingEvent
    stored: Stored | None = None
    position: int | None = None
    letter: DeadLetter | None = None
    since: float | None = None


class Courier:
    """
    Hands events over, one attempt after another.

    :param clock: tells the time.
    :param sink: the sink's name.
    :param taken: called with what the receiver has taken.
    :param bury: called with what cannot be delivered, why it cannot, in a word and in words, and
        how often that was tried; it is waited for.
    :param gone: called when the receiver wants no more.
    :param max_age: how old an event becomes before it is given up, in seconds.
    :param rng: gives a number from 0 to 1.

    :ivar state: how the sink stands.
    :ivar counters: what became of the events.
    :ivar problem: why the last attempt failed, in words; ``None`` where it did not.
    :ivar next_attempt: when it is tried again, in seconds since the epoch; ``None`` where nothing
        is due.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        sink: str,
        delivery: Delivery,
        observer: PumpObserver,
        *,
        taken: Callable[[Sequence[Parcel]], None],
        bury: Callable[[Parcel, str, str, int], Awaitable[None]],
        gone: Callable[[], object],
        max_age: float = MAX_AGE,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.state = PumpState.UP
        self.counters = PumpCounters()
        self.problem: str | None = None
        self.next_attempt: float | None = None
        self._clock = clock
        self._sink = sink
        self._delivery = delivery
        self._observer = observer
        self._taken = taken
        self._bury = bury
        self._gone = gone
        self._max_age = max_age
        self._rng = rng
        # Attempts in a row that came to nothing, and those of the event whose turn it is.
        self._failures = 0
        self._attempts = 0
        self._pause: Deferred[None] | None = None
        self._finishing = False
        self._ended = False

    def hasten(self) -> None:
        """Try now, if the next attempt is being waited for."""
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.callback(None)

    def finish(self) -> None:
        """From now on what fails is not tried again."""
        self._finishing = True
        self.hasten()

    def end(self) -> None:
        """From now on nothing is handed over any more."""
        self._ended = True
        self.finish()

    def give_up(self, problem: str) -> None:
        """Nothing more can be handed over."""
        self.state = PumpState.DISABLED
        self.problem = problem

    @property
    def is_done(self) -> bool:
        """Whether there will be no attempt any more."""
        return self._ended or (self._finishing and self.state is not PumpState.UP)

    async def deliver(self, load: deque[Parcel]) -> None:
        """
        Hand all of it over, however long that takes. What is left in the load is left because there
        will be no attempt any more.
        """
        while load and not self.is_done:
            problem = await self._attempt(load)
            if problem is None:
                self._is_well()
            elif isinstance(problem, EventRejectedError) and load:
                self._is_well()
                await self._put_aside(load, problem, REJECTED)
            elif isinstance(problem, GoneError):
                await self._disabled(problem)
            else:
                self._failed(problem)
                while load and self._is_too_old(load[0]):
                    await self._put_aside(load, problem, TOO_OLD)
                if load:
                    await self._wait(problem)

    async def _attempt(self, load: deque[Parcel]) -> DeliveryError | None:
        """Try once; what is taken leaves the load."""
        parcels = list(islice(load, self._delivery.batch))
        self.counters.attempts += 1
        self._attempts += 1
        begun = self._clock.seconds()
        problem: DeliveryError | None = None
        try:
            await self._delivery.deliver([parcel.event for parcel in parcels])
        except DeliveryError as error:
            problem = error
        except CancelledError:
            raise
        except Exception as error:
            self._log.failure("{sink}: cannot deliver", sink=self._sink)
            problem = UnavailableError(f"internal error: {type(error).__name__}")
        taken = parcels if problem is None else parcels[: max(0, problem.delivered)]
        for _ in taken:
            load.popleft()
        self._observer.sink_attempt(self._sink, _outcome(problem), self._clock.seconds() - begun)
        if taken:
            self._failures = 0
            # The next one's turn has come, and it was tried too if there was a problem.
            self._attempts = 0 if problem is None else 1
            self.counters.sent += len(taken)
            self._observer.sink_sent(self._sink, len(taken))
            self._taken(taken)
        return problem

    def _is_well(self) -> None:
        if self.state is not PumpState.UP:
            self._log.info("{sink}: delivers again", sink=self._sink)
        self.state = PumpState.UP
        self.problem = None
        self._failures = 0

    async def _put_aside(self, load: deque[Parcel], problem: DeliveryError, why: str) -> None:
        parcel = load.popleft()
        attempts, self._attempts = self._attempts, 0
        self._log.error(
            "{sink}: event {id} of {vm} is put aside ({why}): {problem}",
            sink=self._sink,
            id=parcel.event.id,
            vm=parcel.event.vm,
            why=why,
            problem=problem.reason,
        )
        self.counters.dead += 1
        self._observer.sink_dead(self._sink, why)
        await self._bury(parcel, why, problem.reason, attempts)

    def _is_too_old(self, parcel: Parcel) -> bool:
        return parcel.since is not None and self._clock.seconds() - parcel.since > self._max_age

    def _failed(self, problem: DeliveryError) -> None:
        self._failures += 1
        self.counters.failures += 1
        emit = self._log.warn if self.state is PumpState.UP else self._log.debug
        asked = getattr(problem, "retry_after", None)
        self.state = PumpState.FAILING if asked is None else PumpState.WAITING
        self.problem = problem.reason
        emit("{sink}: {problem}; it will be tried again", sink=self._sink, problem=self.problem)

    async def _wait(self, problem: DeliveryError) -> None:
        """Wait before the next attempt."""
        if self._finishing:
            return
        longest = min(MAX_WAIT, 2.0 ** min(self._failures, 30))
        seconds = max(self._rng() * longest, getattr(problem, "retry_after", None) or 0.0)
        call = self._clock.callLater(seconds, self.hasten)
        self.next_attempt = self._clock.seconds() + seconds
        try:
            await self._until_hastened()
        finally:
            self.next_attempt = None
            if call.active():
                call.cancel()

    async def _disabled(self, problem: DeliveryError) -> None:
        """Wait for somebody who wants another attempt."""
        self.counters.failures += 1
        self.state = PumpState.DISABLED
        self.problem = problem.reason
        self._log.error(
            "{sink}: {problem}; it gets nothing more before it is set up anew",
            sink=self._sink,
            problem=problem.reason,
        )
        self._gone()
        if not self._finishing:
            await self._until_hastened()

    async def _until_hastened(self) -> None:
        self._pause = pause = Deferred[None]()
        try:
            await pause
        finally:
            self._pause = None


def _outcome(problem: DeliveryError | None) -> str:
    if problem is None:
        return "ok"
    if isinstance(problem, EventRejectedError):
        return "rejected"
    return "gone" if isinstance(problem, GoneError) else "retry"
