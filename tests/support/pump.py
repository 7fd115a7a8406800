"""A pump over a spool without threads, and a receiver that does what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from support.deferreds import success
from support.spool import SpoolWorld
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.pump import SinkPump
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError
from txqmp.monitor.spool import Item, SpoolLimits


class Receiver:
    """A delivery.

    :ivar outcomes: what the next attempts come to: an exception, a Deferred, or None for success;
        when there is none left all succeed.
    :ivar batches: the ids of what was handed over, an attempt each.
    :ivar taken: the events that were taken.
    """

    name = "a receiver"

    def __init__(self, batch: int = 3) -> None:
        self.batch = batch
        self.outcomes: list[Any] = []
        self.batches: list[list[str]] = []
        self.taken: list[OutgoingEvent] = []
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def reopen(self) -> None:
        self.calls.append("reopen")

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return succeed(None)

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        self.batches.append([name_of(event) for event in events])
        outcome = self.outcomes.pop(0) if self.outcomes else None
        waiting: Deferred[None] = outcome if isinstance(outcome, Deferred) else succeed(outcome)
        return waiting.addErrback(_cancelled).addCallback(self._end, events)

    def _end(self, outcome: Any, events: Sequence[OutgoingEvent]) -> None:
        if isinstance(outcome, BaseException):
            self.taken.extend(events[: getattr(outcome, "delivered", 0)])
            raise outcome
        self.taken.extend(events)

    @property
    def names(self) -> list[str]:
        """What was taken."""
        return [name_of(event) for event in self.taken]


def _cancelled(failure: Any) -> Exception:
    failure.trap(CancelledError)
    return UnavailableError("cancelled")


def name_of(event: OutgoingEvent) -> str:
    """Return what :meth:`PumpWorld.put` called it; of a gap, the type."""
    return event.vm if event.type == "STOP" else event.type


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def sink_sent(self, sink: str, events: int = 1) -> None:
        self.told.append(("sent", sink, events))

    def sink_attempt(self, sink: str, outcome: str, seconds: float | None = None) -> None:
        self.told.append(("attempt", sink, outcome, seconds))

    def sink_dead(self, sink: str, reason: str, events: int = 1) -> None:
        self.told.append(("dead", sink, reason, events))

    def spool_dropped(self, sink: str, reason: str, events: int = 1) -> None:
        self.told.append(("dropped", sink, reason, events))


class PumpWorld(SpoolWorld):
    """A spool, a receiver and the pump between them. Nothing runs before :meth:`begin`.

    :ivar random: the number that waits are made of.
    :ivar gone: how often it was told that the receiver wants no more.
    """

    def __init__(self, directory: Path, limits: SpoolLimits | None = None) -> None:
        super().__init__(directory / "spool", limits)
        self.start()
        self.receiver = Receiver()
        self.observer = Observer()
        self.random = 0.5
        self.gone = 0

    def make(self, **options: Any) -> SinkPump:
        return SinkPump(
            self.clock,
            self.spool,
            "ops",
            self.receiver,
            Envelope(node="node7.example"),
            **{
                "observer": self.observer,
                "gone": self._is_gone,
                "rng": lambda: self.random,
                "ack_every": 0.0,
                **options,
            },
        )

    def begin(self, **options: Any) -> SinkPump:
        pump = self.make(**options)
        pump.start()
        return pump

    def _is_gone(self) -> None:
        self.gone += 1

    def draft(self, name: str, size: int = 0) -> Item:
        """Return the draft of an event about a VM of this name."""
        data = b'{"specversion":"1.0","data":{}}'.ljust(size)
        return Item(name, "STOP", self.clock.seconds(), data)

    def send(self, *names: str, size: int = 0) -> None:
        """Put events into the spool."""
        for name in names:
            success(self.spool.put(self.draft(name, size)))

    @property
    def acked(self) -> int:
        """Up to where the sink has acknowledged."""
        return self.spool.state.sinks[0].acked

    def dead(self) -> list[tuple[str, str, int]]:
        """Return the dead letters: the VM, why, and how often it was tried."""
        letters = success(self.spool.dead("ops"))
        return [(each.record.vm, each.reason, each.attempts) for each in letters]
