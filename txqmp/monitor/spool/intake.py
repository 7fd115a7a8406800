"""The records that wait for their commit."""

from __future__ import annotations

from collections import deque
from itertools import islice

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txqmp.monitor.spool.errors import SpoolFullError
from txqmp.monitor.spool.limits import SpoolLimits
from txqmp.monitor.spool.records import Item


GROUP = 4096
"""How many records are committed at once at most: the first of a burst do not wait for all."""

WAITING_OVERHEAD = 400
"""What a record takes up in memory beside its size, in bytes."""


@attrs.define
class SpoolCounters:
    """
    What became of the records. What is in none of the next three waits still.

    :ivar put: were given to the spool.
    :ivar committed: were taken in.
    :ivar refused: were not: there was no room, or they were too large.
    :ivar failed: are not known to be taken in: the spool failed, or was closed.
    :ivar size: how large the ones were that were taken in, in bytes.
    :ivar commits: how many groups were committed.
    :ivar seconds: how long that took, together.
    """

    put: int = 0
    committed: int = 0
    refused: int = 0
    failed: int = 0
    size: int = 0
    commits: int = 0
    seconds: float = 0.0


@attrs.frozen(eq=False)
class _Waiting:
    item: Item
    since: float
    deferred: Deferred[int]


class Intake:
    """
    Holds records until they are committed, in the order in which they came, and tells those who
    brought them.

    :param clock: tells the time.

    :ivar counters: what became of the records.
    :ivar blocked: whether the last group was too much for the spool: there is no room until a sink
        has acknowledged some.
    """

    def __init__(self, clock: IReactorTime, limits: SpoolLimits) -> None:
        self.counters = SpoolCounters()
        self.blocked = False
        self._clock = clock
        self._limits = limits
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._offered = 0
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def put(self, item: Item) -> Deferred[int]:
        """
        Take a record, or refuse it.

        :returns: a Deferred of its position.
        """
        self.counters.put += 1
        if item.size > self._limits.max_bytes:
            return self._refuse(f"a record of {item.size} bytes is larger than the spool may be")
        size = item.size + WAITING_OVERHEAD
        if self._waiting and self._size + size > self._limits.max_waiting:
            return self._refuse(f"{len(self._waiting)} records wait for the disk or for room")
        waiting = _Waiting(item, self._clock.seconds(), Deferred())
        self._waiting.append(waiting)
        self._size += size
        if len(self._waiting) == 1:
            self._watch()
        return waiting.deferred

    def _refuse(self, why: str) -> Deferred[int]:
        self.counters.refused += 1
        return fail(SpoolFullError(why))

    def offer(self) -> list[Item]:
        """The next records to commit. They wait until :meth:`took` says what became of them."""
        items = [waiting.item for waiting in islice(self._waiting, GROUP)]
        self._offered = len(items)
        self._watch()
        return items

    def took(self, taken: int, seconds: float) -> list[Deferred[int]]:
        """
        The first so many of those on offer are committed, and there was no room for the others.

        :param seconds: how long that took.
        :returns: those who are to be told, in order.
        """
        self.counters.commits += 1
        self.counters.seconds += seconds
        self.blocked = taken < self._offered
        self._offered = 0
        done = []
        for _ in range(taken):
            waiting = self._leave()
            self.counters.committed += 1
            self.counters.size += waiting.item.size
            done.append(waiting.deferred)
        self._watch()
        return done

    def give_up(self) -> list[Deferred[int]]:
        """
        No record is committed any more, as far as can be told.

        :returns: those who are to be told.
        """
        self.blocked = False
        self._offered = 0
        left = [self._leave().deferred for _ in range(len(self._waiting))]
        self.counters.failed += len(left)
        self._watch()
        return left

    def _leave(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self._size -= waiting.item.size + WAITING_OVERHEAD
        return waiting

    def _watch(self) -> None:
        """See to it that nobody waits for room for ever. What is on offer may be taken yet."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self.blocked and self._waiting and not self._offered:
            end = self._waiting[0].since + self._limits.max_wait
            delay = max(0.0, end - self._clock.seconds())
            self._timer = self._clock.callLater(delay, self._expire)

    def _expire(self) -> None:
        """Refuse the first, and what else has waited for too long."""
        before = self._clock.seconds() - self._limits.max_wait
        late = [self._leave().deferred]
        while self._waiting and self._waiting[0].since <= before:
            late.append(self._leave().deferred)
        self.counters.refused += len(late)
        self._watch()
        for deferred in late:
            deferred.errback(
                SpoolFullError(f"there was no room for {self._limits.max_wait:g} seconds")
            )
