"""From the fleet into the spool: :class:`Recorder`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.fleet.records import Kind, Record
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.spool import Item, Spool, SpoolFullError


class RecordObserver(Protocol):
    """Is told what happens to the VMs."""

    def event_received(self, name: str) -> None:
        """QEMU sent an event."""

    def gap(self, reason: str) -> None:
        """There is a hole in what was seen; ``reason`` is one of a few words."""

    def vm_disconnected(self, reason: str) -> None:
        """A session ended; ``reason`` is one of a few words."""


@attrs.define
class _Hole:
    """Records of a VM that the spool did not take, and of which nobody was told."""

    first: int
    last: int
    count: int
    reason: str

    def add(self, other: _Hole) -> None:
        """These as well."""
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.count += other.count
        self.reason = other.reason


class Recorder:
    """
    Puts records into the spool, as drafts of events.

    What the spool refuses because it is full (:attr:`~txqmp.monitor.spool.WhenFull.BLOCK`) is lost,
    and told of when there is room again, until that is committed.

    :param envelope: makes events of records.
    :param tell_lost: called with the name of a VM, how many of its records are lost, their first
        and their last number, and why; it is to make a record of that.
    :param observer: is told what happens.

    :ivar envelope: may be replaced.
    :ivar refused: how many records were lost.
    """

    _log = Logger()

    def __init__(
        self,
        spool: Spool,
        envelope: Envelope,
        *,
        tell_lost: Callable[[str, int, int, int, str], object],
        observer: RecordObserver | None = None,
    ) -> None:
        self.refused = 0
        self._spool = spool
        self.envelope = envelope
        self._tell_lost = tell_lost
        self._observer = observer
        self._holes: dict[str, _Hole] = {}
        # What the record tells of that comes next.
        self._telling: _Hole | None = None
        self._waiting = 0
        self._idle: list[Deferred[None]] = []

    def take(self, record: Record) -> None:
        """Have a record committed. This returns at once."""
        if self._observer is not None:
            self._observe(record)
        item = Item(
            record.vm,
            self.envelope.type_of(record),
            record.received,
            self.envelope.draft(record),
            record.session,
            record.seq,
            record.identity,
            _is_over(record),
        )
        told, self._telling = self._telling, None
        self._waiting += 1
        self._spool.put(item).addCallbacks(self._taken, self._not_taken, errbackArgs=(record, told))

    def when_idle(self) -> Deferred[None]:
        """A Deferred that fires when it is known of all records what became of them."""
        if not self._waiting:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    async def finish(self) -> None:
        """Wait as well, and tell of what is lost as long as somebody can be told."""
        await self.when_idle()
        self._tell()
        await self.when_idle()
        for vm, hole in self._holes.items():
            self._log.error(
                "{vm}: {count} records are lost, and nobody could be told: {reason}",
                vm=vm,
                count=hole.count,
                reason=hole.reason,
            )

    def _observe(self, record: Record) -> None:
        assert self._observer is not None
        if record.event is not None:
            self._observer.event_received(record.event.name)
        elif record.kind is Kind.GAP:
            self._observer.gap("disconnected")
        elif record.kind is Kind.DROPPED:
            self._observer.gap("dropped")
        elif record.kind is Kind.DISCONNECTED:
            expected = record.details.get("expected") or "shutdown" in record.details
            self._observer.vm_disconnected("shutdown" if expected else "lost")

    def _taken(self, _: int) -> None:
        self._waiting -= 1
        self._tell()
        self._settle()

    def _tell(self) -> None:
        """Tell of all that is lost. What tells of it is a record too, and may be refused."""
        holes, self._holes = self._holes, {}
        for vm, hole in holes.items():
            self._telling = hole
            self._tell_lost(vm, hole.count, hole.first, hole.last, hole.reason)
            if self._telling is not None:
                self._telling = None
                self._log.error(
                    "{vm}, which is watched no more: {count} records are lost: {reason}",
                    vm=vm,
                    count=hole.count,
                    reason=hole.reason,
                )

    def _not_taken(self, failure: Failure, record: Record, told: _Hole | None) -> None:
        self._waiting -= 1
        if failure.check(SpoolFullError):
            reason = failure.getErrorMessage()
            self.refused += 1
            if not self._holes:
                self._log.error("records are lost: {reason}", reason=reason)
            lost = _Hole(record.seq, record.seq, 1, reason)
            if told is not None:
                lost.add(attrs.evolve(told, reason=reason))
            if record.vm in self._holes:
                self._holes[record.vm].add(lost)
            else:
                self._holes[record.vm] = lost
        # Of all else the spool tells those who started it.
        self._settle()

    def _settle(self) -> None:
        if self._waiting:
            return
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)


def _is_over(record: Record) -> bool:
    """Whether there is nothing more to say of a VM, if it does not return."""
    if record.kind is Kind.DISCONNECTED:
        return "ended" in record.details
    return record.kind is Kind.GONE
