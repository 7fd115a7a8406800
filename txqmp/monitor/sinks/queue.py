"""
The bounded queue of a sink, with the policy *drop the oldest of the greediest*.

When it is full, what is dropped is the oldest record of the VM that takes up most room, and in its
place comes one that says what is missing: a VM that floods loses its own records, and nobody
else's.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txqmp.monitor.records import Entry, encode_hole
from txqmp.monitor.sinks.base import Counters


DEFAULT_MAX_SIZE = 16 << 20
"""How many bytes a queue holds."""

OVERHEAD = 400
"""What a record takes up beside its text, in bytes."""

LOOK_EVERY = 64
"""After how many drops to look anew which VM takes up most room."""


@attrs.define
class _Hole:
    """Records of one VM that were dropped, and that this has not been told."""

    session: int
    first: int
    last: int
    count: int


@attrs.define
class _Share:
    """What one VM has in the queue: its records' places, and their size in bytes."""

    places: deque[int] = attrs.Factory(deque)
    size: int = 0


class RecordQueue:
    """
    Holds records until they are taken, in the order in which they came.

    :param sink: the sink's name.
    :param counters: the sink's; this counts what is taken in and dropped.
    :param clock: tells the time.
    :param max_size: how many bytes to hold, the overhead of :data:`OVERHEAD` a record included.

    :ivar size: how many bytes are held.
    """

    _log = Logger()

    def __init__(
        self,
        sink: str,
        counters: Counters,
        clock: IReactorTime,
        max_size: int = DEFAULT_MAX_SIZE,
    ) -> None:
        self.size = 0
        self._sink = sink
        self._counters = counters
        self._clock = clock
        self._max_size = max_size
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._shares: dict[str, _Share] = {}
        self._holes: dict[str, _Hole] = {}
        self._last_place = 0
        self._greediest = ""
        self._drops_to_look = 0
        self._dropped_before = 0

    def __len__(self) -> int:
        """How many records are held."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._entries or self._holes)

    def put(self, entry: Entry) -> None:
        """Take a record in; if that is too much, drop one or more."""
        self._counters.taken += 1
        size = len(entry.text) + OVERHEAD
        share = self._shares.setdefault(entry.vm, _Share())
        self._last_place += 1
        self._entries[self._last_place] = entry
        share.places.append(self._last_place)
        share.size += size
        self.size += size
        while self.size > self._max_size:
            self._drop()

    def take(self, max_count: int, max_size: int) -> list[Entry]:
        """
        Take the next records out, and what there is to say of those that are missing.

        :param max_count: how many at most.
        :param max_size: how many bytes of records at most, where it is more than one.
        """
        taken: list[Entry] = []
        size = 0
        while self._entries and len(taken) < max_count:
            place, entry = next(iter(self._entries.items()))
            if entry.vm in self._holes:
                taken.append(self._tell(entry.vm))
                continue
            size += len(entry.text)
            if taken and size > max_size:
                return taken
            taken.append(entry)
            self._remove(place, entry.vm)
        while self._holes and not self._entries and len(taken) < max_count:
            taken.append(self._tell(next(iter(self._holes))))
        return taken

    def _remove(self, place: int, vm: str) -> Entry:
        entry = self._entries.pop(place)
        size = len(entry.text) + OVERHEAD
        share = self._shares[vm]
        share.places.popleft()
        share.size -= size
        if not share.places:
            del self._shares[vm]
        self.size -= size
        return entry

    def _drop(self) -> None:
        share = self._shares.get(self._greediest)
        if share is None or not self._drops_to_look:
            self._greediest = max(self._shares, key=lambda vm: self._shares[vm].size)
            share = self._shares[self._greediest]
            self._drops_to_look = LOOK_EVERY
        self._drops_to_look -= 1
        entry = self._remove(share.places[0], self._greediest)
        self._counters.dropped += 1
        if not self._holes:
            self._dropped_before = self._counters.dropped - 1
            self._log.warn("{sink}: the queue is full: records are dropped", sink=self._sink)
        hole = self._holes.get(entry.vm)
        if hole is None:
            self._holes[entry.vm] = _Hole(entry.session, entry.seq, entry.seq, 1)
        else:
            hole.session, hole.last = entry.session, entry.seq
            hole.count += 1

    def _tell(self, vm: str) -> Entry:
        hole = self._holes.pop(vm)
        if not self._holes:
            self._log.info(
                "{sink}: {count} records were dropped",
                sink=self._sink,
                count=self._counters.dropped - self._dropped_before,
            )
        return encode_hole(
            self._sink,
            "the queue was full",
            vm,
            hole.session,
            hole.first,
            hole.last,
            hole.count,
            self._clock.seconds(),
        )
