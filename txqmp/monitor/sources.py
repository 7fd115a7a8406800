"""Where a daemon's VMs come from: :class:`Sources`."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from txqmp.errors import QMPError
from txqmp.fleet import DialSource, Fleet, GlobSource, ListenSource
from txqmp.monitor.config import Dial, Glob, Listen, Source


Service = DialSource | GlobSource | ListenSource


class Sources:
    """The sources of a fleet. They can be exchanged while it runs."""

    _log = Logger()

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._services: dict[Source, Service] = {}
        # Those that could not be watched when it was tried last.
        self._missing: set[Source] = set()

    @property
    def listening(self) -> bool:
        """Whether every place that is to be listened on is."""
        services = self._services.values()
        missing = any(isinstance(each, Listen) for each in self._missing)
        return not missing and all(
            each.listening for each in services if isinstance(each, ListenSource)
        )

    def add(self, sources: Iterable[Source]) -> None:
        """
        Watch some more.

        :raises QMPError: one of them is watched already, or cannot be listened on.
        :raises ValueError: one of them is no place.
        """
        # What we listen on comes first: a glob may match it, and must not dial it.
        for source in sorted(sources, key=lambda source: not isinstance(source, Listen)):
            service = self._make(source)
            try:
                service.setServiceParent(self._fleet)
            except QMPError:
                service.disownServiceParent()
                raise
            self._services[source] = service

    async def exchange(self, sources: Iterable[Source]) -> None:
        """
        Watch these, and no others. What is as it was before goes on undisturbed. One that cannot be
        watched is logged, and the others are.
        """
        wanted = dict.fromkeys(sources)
        unwanted = [each for each in self._services if each not in wanted]
        # All at once: each may take its time to end its sessions.
        await DeferredList([self._give_up(source) for source in unwanted])
        self._missing.clear()
        for source in wanted:
            if source not in self._services:
                try:
                    self.add([source])
                except (QMPError, ValueError) as problem:
                    self._missing.add(source)
                    self._log.error("{source}: {problem}", source=source, problem=problem)

    def _give_up(self, source: Source) -> Deferred[object]:
        service = self._services.pop(source)
        dropping = maybeDeferred(service.drop, "it is not to be watched any more")
        return dropping.addErrback(
            lambda failure: self._log.failure(
                "{source}: cannot be given up", failure, source=source
            )
        )

    def _make(self, source: Source) -> Service:
        match source:
            case Dial():
                if source.named:
                    return DialSource(self._fleet, source.where, source.name)
                return DialSource(self._fleet, source.where, called=source.name)
            case Glob():
                return GlobSource(self._fleet, *source.patterns, rescan=source.rescan)
            case Listen():
                return ListenSource(self._fleet, source.where, source.allow)
