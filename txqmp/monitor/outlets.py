"""The sinks of a daemon, each with its pump: :class:`Outlets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.config import Sink
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.observation import Observation
from txqmp.monitor.pump import GRACE, SinkPump
from txqmp.monitor.sinks.make import kind_of, make_delivery
from txqmp.monitor.spool import Spool, SpoolError


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
        self._envelope = envelope
        self._observer = observer
        self._tell_gone = gone
        self._outlets: dict[str, Outlet] = {}
        self._closed = False

    def __iter__(self) -> Iterator[Outlet]:
        return iter(tuple(self._outlets.values()))

    def __len__(self) -> int:
        return len(self._outlets)

    def open(self, sinks: Iterable[Sink]) -> None:
        """Begin to deliver to some more."""
        self._start(self._make_all(sinks))

    async def exchange(self, sinks: Iterable[Sink], envelope: Envelope) -> None:
        """
        Deliver to these, and to no others. What is as it was before goes on undisturbed, and opens
        its files anew. For those that are not among them the spool keeps what they have not had.

        :param envelope: as above, from now on.
        :raises ImportError: one needs what is not installed; then nothing was changed.
        """
        wanted = {sink.name: sink for sink in sinks}
        kept = [
            each
            for each in self
            if wanted.get(each.sink.name) == each.sink
            and each.envelope == envelope
            and not each.pump.is_broken
        ]
        for outlet in kept:
            del wanted[outlet.sink.name]
        before, self._envelope = self._envelope, envelope
        try:
            made = self._make_all(wanted.values())
        except BaseException:
            self._envelope = before
            raise
        for outlet in kept:
            outlet.pump.reopen()
        closing = [each for each in self if each not in kept]
        await self._close(closing)
        for outlet in closing:
            if outlet.sink.name not in wanted:
                self._observer.sink_gone(outlet.sink.name)
                self._spool.detach_sink(outlet.sink.name).addErrback(_ignore)
                self._log.info(
                    "{sink}: what it has not had is kept until qmp-monitor forget drops it",
                    sink=outlet.sink.name,
                )
        self._start(made)

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
        """Deliver what is there, within a limited time, and end: nothing is opened any more."""
        self._closed = True
        await self._close(list(self))

    async def _close(self, outlets: list[Outlet]) -> None:
        stopping = [outlet.pump.stop(GRACE) for outlet in outlets]
        await DeferredList(stopping)
        for outlet in outlets:
            outlet.forget()
            self._outlets.pop(outlet.sink.name, None)
            counters = outlet.pump.counters
            self._log.info(
                "{sink}: {sent} events were delivered, {dead} put aside, {lost} lost;"
                " {failures} of {attempts} attempts failed",
                sink=outlet.sink.name,
                **attrs.asdict(counters),
            )

    def _start(self, outlets: Iterable[Outlet]) -> None:
        for outlet in outlets:
            if self._closed:
                outlet.forget()
                continue
            self._outlets[outlet.sink.name] = outlet
            outlet.pump.start()

    def _make_all(self, sinks: Iterable[Sink]) -> list[Outlet]:
        """All of these or, if one cannot be, none."""
        made: list[Outlet] = []
        try:
            made.extend(map(self._make, sinks))
        except BaseException:
            for outlet in made:
                outlet.forget()
            raise
        return made

    def _make(self, sink: Sink) -> Outlet:
        pump = SinkPump(
            self._reactor,
            self._spool,
            sink.name,
            make_delivery(self._reactor, sink.settings),
            self._envelope,
            wanted=sink.filter,
            max_age=sink.max_age,
            begin=sink.start,
            observer=self._observer,
            gone=lambda: self._tell_gone(outlet),
        )
        forget = self._spool.watch_rewinds(sink.name, pump.rewind)
        outlet = Outlet(sink, kind_of(sink.settings), self._envelope, pump, forget)
        return outlet


def _ignore(failure: Failure) -> None:
    """The spool says itself what is wrong with it."""
    failure.trap(SpoolError)
