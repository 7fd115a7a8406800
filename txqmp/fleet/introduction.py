"""
The first words with a VM: :class:`Introduction`.

Whatever source a session comes from, its VM is asked who it is before anything is told of it.
What it sends meanwhile is kept, with the time at which it came. When it has answered, or will not,
it is taken for who it says it is (:mod:`txqmp.fleet.naming`), if no other VM is the same at that
time, and all is told in order: that it came, the gap, what it sent, and, where its answer stands
among that, the snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.errors import QMPError
from txqmp.fleet.naming import Identity
from txqmp.fleet.registry import Fleet
from txqmp.fleet.vm import VM
from txqmp.jsontext import UnwritableError, write
from txqmp.messages import Event
from txqmp.observer import Snapshot
from txqmp.protocol import QMPProtocol


QUERIES = ("query-uuid", "query-name", "query-status")
"""What a VM is asked, in this order."""

MAX_EARLY = 1000
"""How many events are kept of a VM that has not said yet who it is."""

MAX_EARLY_SIZE = 1 << 20
"""How large they may be together, where it is more than one, as JSON and in bytes."""


@attrs.frozen
class Refusal:
    """
    Why a VM is not taken for who it says it is.

    :ivar reason: in words.
    :ivar key: the identity that another VM holds; ``None`` where it is not that.
    """

    reason: str
    key: str | None


@attrs.define(eq=False)
class Introduction:
    """
    One session, from its beginning to its end.

    :ivar fleet: what the VM becomes a part of.
    :ivar session: the session; it runs.
    :ivar where: the place of the monitor, or the one that it dialled, as text.
    :ivar peer: who is at the other end where it dialled us, ``None`` else.
    :ivar identify: called with the answers to :data:`QUERIES` by command, as far as there are any:
        who the VM is.
    :ivar find: called with that: the VM. It raises :exc:`~txqmp.errors.QMPError` if it cannot be
        watched.
    :ivar refuse: called with the :class:`Refusal`, if it comes to that: ends the session.
    :ivar vm: the VM; ``None`` before it is known, and of a session that is refused.
    :ivar refusal: why it is refused; ``None`` as long as it is not.
    """

    fleet: Fleet
    session: QMPProtocol
    where: str
    peer: str | None
    identify: Callable[[Mapping[str, Any]], Identity]
    find: Callable[[Identity], VM]
    refuse: Callable[[Refusal], object]
    vm: VM | None = None
    refusal: Refusal | None = None
    _identity: Identity | None = None
    _began: float = 0.0
    _answers: Snapshot = attrs.Factory(lambda: Snapshot({}, {}))
    # When each came and how large it is; None for the snapshot's place.
    _held: deque[tuple[float, int, Event | None]] = attrs.Factory(deque)
    _size: int = 0
    _dropped: int = 0
    _over: bool = False
    _subscription: Any = None

    _log = Logger()

    def begin(self) -> None:
        """Ask the VM who it is. To be called before its events are delivered."""
        self._began = self._now()
        self._subscription = self.session.subscribe(self._event, *self.fleet.events)
        for command in QUERIES:
            answer = self.session.execute(command).addBoth(self._answered, command)
            answer.addErrback(self._failed)

    def _now(self) -> float:
        seconds: float = self.fleet.reactor.seconds()
        return seconds

    def _event(self, event: Event) -> None:
        """One that comes before it is known whose it is."""
        size = _size_of(event)
        self._held.append((self._now(), size, event))
        self._size += size
        while len(self._held) > MAX_EARLY or (size < self._size > MAX_EARLY_SIZE):
            # The snapshot's place, where it is the first, is not an event that could be dropped.
            place = self._held.popleft()
            if place[2] is None:
                self._size -= self._held.popleft()[1]
                self._held.appendleft(place)
            else:
                self._size -= place[1]
            self._dropped += 1

    def _answered(self, outcome: Any, command: str) -> None:
        if self._over:
            return
        if isinstance(outcome, Failure):
            self._answers.errors[command] = cast(BaseException, outcome.value)
        else:
            self._answers.results[command] = outcome
        if command == QUERIES[-1]:
            # The snapshot's place among the events.
            self._held.append((self._now(), 0, None))
        if len(self._answers.results) + len(self._answers.errors) == len(QUERIES):
            self._settle()

    def _failed(self, failure: Failure) -> None:
        """Something is wrong with us: better no session than one of which nothing is told."""
        self._log.failure("cannot take {peer}", failure, peer=self.peer or self.where)
        self.session.abort()

    def lost(self, error: QMPError, reason: str | None = None) -> None:
        """
        The session ended; if it did before the VM has answered, it is taken for what is known.

        :param reason: why, where we know it better.
        """
        if not self._over and (self.peer is None or self._held):
            self._settle()
        self._over = True
        if self._identity is not None and self.vm is not None:
            if self._identity.exclusive is not None:
                self.fleet.claims.give_back(self._identity.exclusive)
            self.vm.lost(self.session, error, reason)

    def _settle(self) -> None:
        """Take the VM for who it says it is, and tell."""
        self._over = True
        identity = self.identify(self._answers.results)
        exclusive = identity.exclusive
        holder = self.fleet.claims.holder(exclusive) if exclusive is not None else None
        if holder is not None:
            self._refuse(Refusal(f"{exclusive} is connected already", exclusive), holder)
            return
        try:
            vm = self.find(identity)
        except QMPError as error:
            self._refuse(Refusal(str(error), None), self.fleet.find(identity.names[0]))
            return
        self._identity, self.vm = identity, vm
        if exclusive is not None:
            self.fleet.claims.take(exclusive, vm)
        self._log.info("{where} is {vm}", where=self.peer or self.where, vm=vm.name)
        vm.where = self.where
        self._tell(vm, identity)

    def _tell(self, vm: VM, identity: Identity) -> None:
        details = {"where": self.where, "is": identity.key}
        if self.peer is not None:
            details["peer"] = self.peer
        self._subscription.cancel()
        self.session.subscribe(vm.event, *self.fleet.events)
        vm.came(self.session, details, self._began, identity.uuid)
        if self._dropped:
            reason = "too many came before the VM said who it is"
            vm.dropped(self._dropped, reason, self._began)
        held, self._held = self._held, deque()
        for at, _, event in held:
            if event is None:
                vm.snapshot(self._answers, at)
            else:
                vm.event(event, at)

    def _refuse(self, refusal: Refusal, holder: VM | None) -> None:
        self.refusal = refusal
        self.fleet.refused += 1
        self._subscription.cancel()
        self._held.clear()
        peer = self.peer or self.where
        if holder is None or holder.refused(peer, refusal.reason):
            self._log.warn("does not listen to {peer}: {reason}", peer=peer, reason=refusal.reason)
        self.refuse(refusal)


def _size_of(event: Event) -> int:
    """How large an event is; what cannot be written counts as much as there may be."""
    try:
        return len(write(event.raw))
    except UnwritableError:
        return MAX_EARLY_SIZE
