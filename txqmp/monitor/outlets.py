"""The sinks of a daemon, each with its pump: :class:`Outlets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from txqmp.monitor.config import Sink
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.observation import Observation
from txqmp.monitor.pump import GRACE, SinkPump
from txqmp.monitor.sinks.make import kind_of, make_delivery
from txqmp.monitor.spool import Spool


@attrs.frozen(eq=False)
class Outlet:
    """
    A sink and its pump.

    :ivar kind: such as ``"webhook"``.
    """

    sink: Sink
    kind: str
    envelope: Envelope
    pump: SinkPump
    forget: Callable[[], None]


class Outlets:
    """
    The sinks of a daemon. They can be exchanged while it runs: one that has the same name as one
    before goes on where that was.

    :param observer: is told what the pumps do.
    :param envelope: makes the events that tell of lost ones.
    :param gone: called with an outlet whose receiver wants no more.

    :ivar envelope: may be replaced.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        spool: Spool,
        envelope: Envelope,
        *,
        observer: Observation,
        gone: Callable[[Outlet], object],
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self.envelope = envelope
        self._observer = observer
        self._tell_gone = gone
        self._outlets: dict[str, Outlet] = {}

    def __iter__(self) -> Iterator[Outlet]:
        return iter(tuple(self._outlets.values()))

    def __len__(self) -> int:
        return len(self._outlets)

    def open(self, sinks: Iterable[Sink]) -> None:
        """Begin to deliver to some more."""
        for sink in sinks:
            outlet = self._make(sink)
            self._outlets[sink.name] = outlet
            outlet.pump.start()

    async def exchange(self, sinks: Iterable[Sink]) -> None:
        """
        Deliver to these, and to no others. What is as it was before goes on undisturbed, and opens
        its files anew.
        """
        wanted = {sink.name: sink for sink in sinks}
        kept = [
            each
            for each in self
            if wanted.get(each.sink.name) == each.sink and each.envelope == self.envelope
        ]
        for outlet in kept:
            outlet.pump.reopen()
            del wanted[outlet.sink.name]
        closing = [each for each in self if each not in kept]
        await self._close(closing)
        for outlet in closing:
            if outlet.sink.name not in wanted:
                self._observer.sink_gone(outlet.sink.name)
        self.open(wanted.values())

    def reopen(self) -> None:
        """Open anew what may have been moved away, and try now what waits."""
        for outlet in self:
            outlet.pump.reopen()

    def wake(self, name: str) -> None:
        """There is something to do for a sink that is not in the spool's order."""
        outlet = self._outlets.get(name)
        if outlet is not None:
            outlet.pump.wake()

    async def close(self) -> None:
        """Deliver what is there, within a limited time, and end."""
        await self._close(list(self))

    async def _close(self, outlets: list[Outlet]) -> None:
        stopping = [outlet.pump.stop(GRACE) for outlet in outlets]
        await DeferredList(stopping)
        for outlet in outlets:
            outlet.forget()
            del self._outlets[outlet.sink.name]
            counters = outlet.pump.counters
            self._log.info(
                "{sink}: {sent} events were delivered, {dead} put aside, {lost} lost;"
                " {failures} of {attempts} attempts failed",
                sink=outlet.sink.name,
                **attrs.asdict(counters),
            )

    def _make(self, sink: Sink) -> Outlet:
        pump = SinkPump(
            self._reactor,
            self._spool,
            sink.name,
            make_delivery(self._reactor, sink.settings),
            self.envelope,
            wanted=sink.filter,
            max_age=sink.max_age,
            begin=sink.start,
            observer=self._observer,
            gone=lambda: self._tell_gone(outlet),
        )
        forget = self._spool.watch_rewinds(sink.name, pump.rewind)
        outlet = Outlet(sink, kind_of(sink.settings), self.envelope, pump, forget)
        return outlet
