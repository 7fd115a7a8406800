"""A source: VMs that dial us."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import Place, server_endpoint
from txqmp.errors import ConnectError, QMPError
from txqmp.fleet.naming import Identity, identify, peer_of
from txqmp.fleet.registry import MAX_VMS, Fleet, NameTakenError
from txqmp.fleet.vm import VM
from txqmp.messages import Event
from txqmp.observer import Snapshot, ask
from txqmp.protocol import QMPProtocol


MAX_EARLY = 1000
"""How many events are kept of a VM that has not said yet who it is."""

REFUSE_FOR = 30.0
"""How long one that is refused is left unheard, in seconds, before it is cut off: QEMU dials again
a second later."""


@attrs.define(eq=False)
class _Arrival:
    """
    A session whose VM is not known yet.

    :ivar events: what came meanwhile; older ones are dropped, and counted.
    :ivar vm: the VM, once it is known; never for one that is refused.
    :ivar key: the VM's identity, once it is known.
    :ivar end: when one that is refused is cut off.
    """

    session: QMPProtocol
    peer: str
    events: deque[Event] = attrs.Factory(deque)
    dropped: int = 0
    vm: VM | None = None
    key: str = ""
    end: IDelayedCall | None = None

    def event(self, event: Event) -> None:
        if self.vm is not None:
            self.vm.event(event)
            return
        if self.end is not None:
            return
        self.events.append(event)
        if len(self.events) > MAX_EARLY:
            self.events.popleft()
            self.dropped += 1


class ListenSource(Service):
    """
    Takes the connections of QEMUs that dial us (``-qmp unix:PATH,server=off,reconnect=1``). They
    are told apart by who they say they are (:mod:`txqmp.fleet.naming`); of two that claim the same
    identity at the same time the second is refused: it is not heard, and that is recorded.

    :param where: as for :func:`txqmp.listen`.
    :raises ValueError: ``where`` is no endpoint.

    :ivar refused: how many sessions were refused.
    """

    _log = Logger()

    def __init__(self, fleet: Fleet, where: Place) -> None:
        self._endpoint = server_endpoint(fleet.reactor, where)
        self._fleet = fleet
        self._where = str(where)
        self.refused = 0
        self._place: str | None = None
        self._port: Deferred[IListeningPort | None] | None = None
        self._arrivals: dict[QMPProtocol, _Arrival] = {}
        self._present: dict[str, VM] = {}
        self.factory = fleet.make_factory(self._where, max_sessions=MAX_VMS)
        self.factory.observe(ready=self._ready, lost=self._lost)

    # Its life

    def privilegedStartService(self) -> None:
        """
        Begin to listen.

        :raises ConnectError: the place cannot be listened on.
        """
        super().privilegedStartService()
        problems: list[Failure] = []
        self.factory.resume()
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, self.factory)
        self._port = listening.addErrback(problems.append)
        if problems:
            self._port = None
            raise ConnectError(f"cannot listen on {self._where}: {_why(problems[0])}")
        self._port.addCallback(self._listens, problems)

    def _listens(self, port: IListeningPort | None, problems: list[Failure]) -> Any:
        if port is None:  # a failure that came later than at once
            self._log.failure("cannot listen on {where}", problems[0], where=self._where)
            return None
        self._log.info("listening on {where}", where=self._where)
        address = port.getHost()
        if isinstance(address, UNIXAddress) and address.name:
            # A glob may match it, and must not dial it.
            place = os.path.realpath(os.fsdecode(address.name))
            if not self._fleet.is_occupied(place):
                self._fleet.occupy(place)
                self._place = place
        return port

    def startService(self) -> None:
        super().startService()
        if self._port is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self._port = self._port, None
        if listening is not None:
            port = await listening
            if port is not None:
                await maybeDeferred(port.stopListening)
        place, self._place = self._place, None
        if place is not None:
            self._fleet.vacate(place)
        await self.factory.stop()

    # Sessions

    def _ready(self, session: QMPProtocol) -> None:
        arrival = _Arrival(session, peer_of(session.transport))
        self._arrivals[session] = arrival
        session.subscribe(arrival.event, *self._fleet.events)
        asked = ask(session, "query-uuid", "query-name").addCallback(self._introduced, arrival)
        asked.addErrback(self._failed, arrival)

    def _failed(self, failure: Failure, arrival: _Arrival) -> None:
        self._log.failure("cannot take {peer}", failure, peer=arrival.peer)
        arrival.session.abort()

    def _introduced(self, answers: Snapshot, arrival: _Arrival) -> None:
        if arrival.session not in self._arrivals:
            return
        identity = identify(answers.results, arrival.peer)
        arrival.key = identity.key
        holder = self._present.get(identity.key)
        if holder is not None:
            self._refuse(arrival, holder, f"{identity.key} is connected already")
            return
        try:
            vm = self._claim(identity)
        except QMPError as error:
            self._refuse(arrival, self._fleet.find(identity.names[0]), str(error))
            return
        arrival.vm = vm
        self._log.info("{peer} is {vm}", peer=arrival.peer, vm=vm.name)
        self._present[identity.key] = vm
        vm.came(arrival.session, {"where": self._where, "peer": arrival.peer, "is": identity.key})
        if arrival.dropped:
            vm.dropped(arrival.dropped, "too many came before the VM said who it is")
        events, arrival.events = arrival.events, deque()
        for event in events:
            vm.event(event)

    def _claim(self, identity: Identity) -> VM:
        """
        The VM, called by the best name that is free.

        :raises QMPError: none is, or there are too many VMs.
        """
        # Only a uuid makes two VMs of one name two.
        usable = identity.names[:2] if identity.key.startswith("uuid ") else identity.names[:1]
        for name in usable[:-1]:
            try:
                return self._fleet.claim(name)
            except NameTakenError:
                continue
        return self._fleet.claim(usable[-1])

    def _refuse(self, arrival: _Arrival, holder: VM | None, reason: str) -> None:
        self.refused += 1
        arrival.events.clear()
        arrival.end = self._fleet.reactor.callLater(REFUSE_FOR, arrival.session.abort)
        if holder is None or holder.refused(arrival.peer, reason):
            self._log.warn(
                "{where}: does not listen to {peer}: {reason}",
                where=self._where,
                peer=arrival.peer,
                reason=reason,
            )

    def _lost(self, session: QMPProtocol, error: QMPError) -> None:
        arrival = self._arrivals.pop(session)
        if arrival.end is not None and arrival.end.active():
            arrival.end.cancel()
        if arrival.vm is not None:
            del self._present[arrival.key]
            arrival.vm.lost(session, error)
            self._fleet.release(arrival.vm)
            for other in tuple(self._arrivals.values()):
                if other.vm is None and other.key == arrival.key:
                    # Now it may come.
                    other.session.abort()


def _why(failure: Failure) -> str:
    """Why a place cannot be listened on."""
    problem = getattr(failure.value, "socketError", failure.value)
    return getattr(problem, "strerror", None) or str(problem)
