"""What a sink has not had, handed over in order: :class:`SinkPump`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.envelope import Envelope
from txqmp.monitor.outgoing import outgoing, outgoing_gap
from txqmp.monitor.pump.acks import Acknowledger
from txqmp.monitor.pump.courier import MAX_AGE, Courier, Parcel
from txqmp.monitor.pump.state import PumpCounters, PumpObserver, PumpState, Unobserved
from txqmp.monitor.sinks.delivery import Delivery
from txqmp.monitor.spool import (
    Batch,
    DeadLetter,
    Filter,
    Spool,
    SpoolClosedError,
    SpoolGap,
    Start,
    Stored,
)
from txqmp.monitor.spool.filter import EVERYTHING


GRACE = 5.0
"""How long a pump goes on after it was told to stop, in seconds."""

READ = 1000
"""How many events are read at once at most."""


class SinkPump:
    """
    Hands one sink's events over. It reads ahead by one batch, so that at most two are in memory.

    :param clock: tells the time.
    :param spool: where the events are. It has to be open when the pump is started.
    :param name: of the sink, as its place in the spool is called.
    :param delivery: takes the events.
    :param envelope: makes the events that tell of lost ones.
    :param wanted: which events the sink wants.
    :param max_age: how old an event becomes before it is given up, in seconds.
    :param begin: where the sink begins if the spool does not know it.
    :param observer: is told what the pump does.
    :param gone: called when the receiver wants no more.
    :param rng: gives a number from 0 to 1.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        spool: Spool,
        name: str,
        delivery: Delivery,
        envelope: Envelope,
        *,
        wanted: Filter = EVERYTHING,
        max_age: float = MAX_AGE,
        begin: Start = Start.END,
        observer: PumpObserver | None = None,
        gone: Callable[[], object] = lambda: None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._clock = clock
        self._spool = spool
        self._delivery = delivery
        self._envelope = envelope
        self._wanted = wanted
        self._begin = begin
        self._observer = observer or Unobserved()
        self._courier = Courier(
            clock,
            name,
            delivery,
            self._observer,
            taken=self._taken,
            bury=self._bury,
            gone=gone,
            max_age=max_age,
            rng=rng,
        )
        self._acks = Acknowledger(spool, name)
        # Up to where it was read; None for up to where was acknowledged.
        self._position: int | None = None
        self._ahead: Deferred[Batch] | None = None
        self._rewinds = 0
        self._idle: Deferred[None] | None = None
        self._dropping: list[Deferred[Any]] = []
        self._woken = False
        self._stopping = False
        self._is_broken = False
        self._running: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<SinkPump {self.name} {self.state.value}>"

    @property
    def state(self) -> PumpState:
        """How the sink stands."""
        return self._courier.state

    @property
    def counters(self) -> PumpCounters:
        """What became of its events."""
        return self._courier.counters

    @property
    def problem(self) -> str | None:
        """Why the last attempt failed, in words; ``None`` where it did not."""
        return self._courier.problem

    @property
    def next_attempt(self) -> float | None:
        """When it is tried again, in seconds since the epoch; ``None`` where nothing is due."""
        return self._courier.next_attempt

    @property
    def is_broken(self) -> bool:
        """Whether it has ended because of a mistake of ours: then another is to take its place."""
        return self._is_broken

    # Its life

    def start(self) -> None:
        """Begin."""
        self._delivery.start()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._broken)

    def wake(self) -> None:
        """Try now what waits, and look for dead letters that are to be tried again."""
        self._woken = True
        self._courier.hasten()
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()

    def reopen(self) -> None:
        """Open anew what may have been moved away, and try now (SIGHUP)."""
        if not self._stopping:
            self._delivery.reopen()
            self.wake()

    def rewind(self) -> None:
        """The sink's place in the spool was set back: go on from there."""
        self._rewinds += 1
        self._position = None
        self._acks.reset()
        self._drop_ahead()
        self.wake()

    def stop(self, grace: float = GRACE) -> Deferred[None]:
        """
        Hand over what is there, until an attempt fails or the time is up, and end. The Deferred
        does not fail.

        :param grace: how long, in seconds.
        """
        stopped: Deferred[None] = Deferred()
        if self._stopped is None:
            self._stopping = True
            self._stopped = Deferred.fromCoroutine(self._stop(grace))
            self._stopped.addErrback(self._broken)
        self._stopped.addCallback(lambda _: stopped.callback(None))
        return stopped

    async def _stop(self, grace: float) -> None:
        self._courier.finish()
        self.wake()
        if self._running is not None:
            deadline = self._clock.callLater(grace, self._cut, self._running)
            await self._running
            if deadline.active():
                deadline.cancel()
        await self._delivery.stop()
        # The disk may hang; what it does not write down is delivered again.
        with suppress(TimeoutError):
            await self._acks.when_idle().addTimeout(grace, self._clock)

    def _cut(self, running: Deferred[None]) -> None:
        """The time is up. What is under way fails; should it succeed, it is the last."""
        self._courier.end()
        running.cancel()

    def _broken(self, failure: Failure) -> None:
        if failure.check(CancelledError, SpoolClosedError) or self._spool.problem is not None:
            return  # the end; the spool says itself what is wrong with it
        self._log.failure("{sink}: the pump is broken", failure, sink=self.name)
        self._courier.give_up(f"internal error: {failure.getErrorMessage()}")
        self._is_broken = True

    async def _run(self) -> None:
        try:
            await self._spool.add_sink(self.name, self._begin)
            while not self._courier.is_done:
                self._woken = False
                await self._retry_dead()
                batch = await self._next()
                load = deque([self._lost(batch.gap)] if batch.gap is not None else [])
                for stored in batch.records:
                    await self._pack(load, stored)
                await self._courier.deliver(load)
                if self._position is None or self._courier.is_done:
                    continue  # it was set back meanwhile, or not all was handed over
                self._acks.acknowledge(batch.through)
                if batch.through >= self._spool.state.last and not self._woken:
                    if self._stopping:
                        return
                    await self._until_beyond(batch.through)
        finally:
            self._drop_ahead()

    async def _until_beyond(self, position: int) -> None:
        """Wait until there is more, or somebody wakes us."""
        self._idle = self._spool.when_beyond(position)
        try:
            await self._idle
        except CancelledError:
            if self._idle is not None:  # it is the end
                raise
        finally:
            self._idle = None

    # Reading

    async def _next(self) -> Batch:
        """What comes next, while what comes after it is read already."""
        while True:
            reading, self._ahead = self._ahead, None
            rewinds = self._rewinds
            batch = await (self._read() if reading is None else reading)
            if rewinds == self._rewinds:
                break
        self._position = batch.through
        if batch.through < self._spool.state.last:
            self._ahead = self._read()
        return batch

    def _read(self) -> Deferred[Batch]:
        return self._spool.read_for(self.name, self._position, wanted=self._wanted, count=READ)

    def _drop_ahead(self) -> None:
        reading, self._ahead = self._ahead, None
        if reading is not None:
            reading.addErrback(lambda _: None)
            reading.cancel()

    async def _pack(
        self, load: deque[Parcel], stored: Stored, letter: DeadLetter | None = None
    ) -> None:
        """Add a record to a load. What the disk has changed becomes a dead letter at once."""
        try:
            event = outgoing(stored)
        except ValueError as problem:
            self._log.error("{sink}: {problem}", sink=self.name, problem=problem)
            await self._spool.bury(self.name, stored, f"damaged: {problem}", 0)
        else:
            if letter is None:
                load.append(Parcel(event, stored, stored.position, since=stored.time))
            else:
                load.append(Parcel(event, stored, letter=letter, since=self._clock.seconds()))

    def _lost(self, gap: SpoolGap) -> Parcel:
        """Events are gone that the sink has not had: it is told."""
        self.counters.lost += gap.count
        self._observer.spool_dropped(self.name, "full", gap.count)
        self._log.warn(
            "{sink}: {count} events are lost: the spool was full", sink=self.name, count=gap.count
        )
        spool, now = self._spool.state.identity, self._clock.seconds()
        event = outgoing_gap(self._envelope, self.name, gap, spool, now)
        return Parcel(event, position=gap.last)

    async def _retry_dead(self) -> None:
        """Hand over the dead letters that are to be tried again."""
        after = 0
        while self._has_dead_to_retry() and not self._courier.is_done:
            letters = await self._spool.dead(self.name, retrying=True, after=after)
            if not letters:
                return
            after = letters[-1].number
            load: deque[Parcel] = deque()
            for each in letters:
                await self._pack(load, each.record, each)
            await self._courier.deliver(load)
            # Else those that are not dropped yet would be found again.
            dropping, self._dropping = self._dropping, []
            for waiting in dropping:
                await waiting

    def _has_dead_to_retry(self) -> bool:
        return any(each.retrying for each in self._spool.state.sinks if each.name == self.name)

    # What became of the events

    def _taken(self, parcels: Sequence[Parcel]) -> None:
        letters = [parcel.letter.number for parcel in parcels if parcel.letter is not None]
        if letters:
            dropping: Deferred[Any] = self._spool.drop_dead(self.name, letters)
            self._dropping.append(dropping.addErrback(self._broken))
        self._acknowledge(parcels[-1])

    async def _bury(self, parcel: Parcel, why: str, problem: str, attempts: int) -> None:
        if parcel.stored is not None:
            if parcel.letter is not None:
                attempts += parcel.letter.attempts
            await self._spool.bury(self.name, parcel.stored, f"{why}: {problem}", attempts)
        self._acknowledge(parcel)

    def _acknowledge(self, parcel: Parcel) -> None:
        if parcel.position is not None and self._position is not None:
            self._acks.acknowledge(parcel.position)
