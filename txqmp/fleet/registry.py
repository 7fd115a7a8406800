"""Many VMs, one stream of records: :class:`Fleet`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from txqmp.errors import QMPError, StateError
from txqmp.fleet.claims import Claims
from txqmp.fleet.readonly import WatchingFactory
from txqmp.fleet.records import Past, Record
from txqmp.fleet.vm import VM
from txqmp.reconnect import Backoff
from txqmp.settings import SessionSettings
from txqmp.timeouts import Timeouts


WATCH_SETTINGS = SessionSettings(
    oob=False,
    max_message=1 << 20,
    max_early_events=100,
    timeouts=Timeouts(greeting=5.0, command=10.0, commands={}, slow=None, close=2.0),
)
"""
The fleet's sessions: they ask little, so they wait little; an event larger than 1 MiB is no event.
"""

WATCH_BACKOFF = Backoff(initial=0.3, maximum=5.0)
"""How often the fleet tries: a VM that returns is seen within seconds."""

MAX_VMS = 10_000
"""How many VMs are watched at once, and how many others are remembered."""


class NameTakenError(QMPError):
    """A VM of this name, or at this place, is watched already."""


class TooManyVMsError(QMPError):
    """As many VMs are watched as may be."""


class Fleet(MultiService):
    """
    Watches VMs. What it watches are its sources: give each the fleet as its service parent.

    A VM that hangs, floods or sends garbage is that VM's trouble alone, and the consumer is never
    waited for: it takes each record at once, or counts what it cannot take.

    :param reactor: also the clock.
    :param consumer: called with each :class:`~txqmp.fleet.records.Record`.
    :param events: names of the events to take, or globs of names; none for all. The others get no
        number, so that a hole in the numbers is still a loss.
    :param settings: of the sessions.
    :param backoff: the waits between attempts to get one.
    :param max_vms: how many VMs there may be.

    :ivar claims: who is who now.
    :ivar refused: how many sessions were refused, because another VM was the same already or there
        were too many.
    :ivar consumer_failures: how many records the consumer raised on; the first is logged with its
        traceback.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        consumer: Callable[[Record], object],
        *,
        events: tuple[str, ...] = (),
        settings: SessionSettings = WATCH_SETTINGS,
        backoff: Backoff = WATCH_BACKOFF,
        max_vms: int = MAX_VMS,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self.events = events
        self.settings = settings
        self.claims = Claims()
        self.refused = 0
        self.consumer_failures = 0
        self._backoff = backoff
        self._consumer = consumer
        self._max_vms = max_vms
        self._vms: dict[str, VM] = {}
        # The VMs that were watched once: when they return, their numbers go on.
        self._past: OrderedDict[str, VM] = OrderedDict()
        # What is remembered from before, of those that have not come yet.
        self._remembered: dict[str, Past] = {}
        self._places: set[str] = set()

    @property
    def vms(self) -> tuple[VM, ...]:
        """The VMs that are watched, and those that were not long ago."""
        return (*self._vms.values(), *self._past.values())

    def find(self, name: str) -> VM | None:
        """The VM of a name that is watched."""
        return self._vms.get(name)

    def restore(self, past: Mapping[str, Past]) -> None:
        """
        Go on where a fleet before this one left off: a VM of a name that is remembered continues
        its numbers, and its first session begins with a gap since the last record. To be called
        before the fleet starts. Of more than ``max_vms`` names those are remembered whose records
        are the newest.

        :param past: by the VMs' names.
        :raises StateError: the fleet runs.
        """
        if self.running:
            raise StateError("the fleet runs: its VMs have their numbers already")
        newest = sorted(past, key=lambda name: past[name].last_time, reverse=True)
        self._remembered = {name: past[name] for name in newest[: self._max_vms]}
        for name, vm in self._vms.items():
            if name in self._remembered:
                vm.remember(self._remembered.pop(name))

    # What sources call

    def claim(self, name: str) -> VM:
        """
        The VM of a name, for one source to watch.

        :raises NameTakenError: it is watched already.
        :raises TooManyVMsError: there are too many.
        """
        if name in self._vms:
            raise NameTakenError(f"there is a VM named {name!r} already")
        if len(self._vms) >= self._max_vms:
            raise TooManyVMsError(f"{self._max_vms} VMs are watched, and no more can be")
        vm = self._past.pop(name, None)
        if vm is None:
            vm = VM(name, self.reactor, self._emit, self._remembered.pop(name, None))
        self._vms[name] = vm
        return vm

    def release(self, vm: VM) -> None:
        """The VM is watched no more; it is remembered for a while."""
        if self._vms.get(vm.name) is vm:
            del self._vms[vm.name]
            self._past[vm.name] = vm
            if len(self._past) > self._max_vms:
                self._past.popitem(last=False)

    def occupy(self, place: str) -> None:
        """
        Take a socket for one source: a monitor serves one client (fact G1), and what we listen on
        is not to be dialled.

        :param place: its real path.
        :raises NameTakenError: it is taken already.
        """
        if place in self._places:
            raise NameTakenError(f"{place} is watched already")
        self._places.add(place)

    def vacate(self, place: str) -> None:
        """Give a socket back."""
        self._places.discard(place)

    def is_occupied(self, place: str) -> bool:
        """Whether a source has this socket."""
        return place in self._places

    def make_factory(self, name: str, *, max_sessions: int = 1) -> WatchingFactory:
        """A factory of sessions that only watch."""
        return WatchingFactory(
            self.reactor,
            name=name,
            settings=self.settings,
            backoff=self._backoff,
            max_sessions=max_sessions,
            snapshot=(),
        )

    def _emit(self, record: Record) -> None:
        try:
            self._consumer(record)
        except Exception:
            self.consumer_failures += 1
            if self.consumer_failures == 1:
                self._log.failure("the consumer of records failed on {record}", record=record)
