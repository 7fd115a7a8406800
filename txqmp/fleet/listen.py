"""A source: VMs that dial us."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import Place, server_endpoint, shown
from txqmp.errors import ConnectError, QMPError
from txqmp.fleet.claims import Waiter
from txqmp.fleet.introduction import Introduction, Refusal
from txqmp.fleet.naming import Identity, identify, peer_of
from txqmp.fleet.peers import Doorkeeper, Peers
from txqmp.fleet.registry import MAX_VMS, Fleet, NameTakenError
from txqmp.fleet.vm import VM
from txqmp.inherited import InheritedServer
from txqmp.protocol import QMPProtocol


class ListenSource(Service):
    """
    Takes the connections of QEMUs that dial us (``-qmp unix:PATH,server=off,reconnect=1``). They
    are told apart by who they say they are (:mod:`txqmp.fleet.naming`). One that is refused is not
    heard, and cut off after :data:`~txqmp.fleet.claims.REFUSE_FOR` seconds or when it may come:
    QEMU dials again a second later.

    :param where: as for :func:`txqmp.listen`.
    :param allowed: who may connect; ``None`` for whoever can open the socket.
    :raises ValueError: ``where`` is no endpoint, or ``allowed`` was given and it is no UNIX socket.

    :ivar refused: how many sessions were refused.
    :ivar listening: whether it listens.
    """

    _log = Logger()

    def __init__(self, fleet: Fleet, where: Place, allowed: Peers | None = None) -> None:
        self._endpoint = server_endpoint(fleet.reactor, where)
        self._fleet = fleet
        self._where = shown(str(where))
        self.refused = 0
        self.listening = False
        self._place: str | None = None
        self._port: Deferred[IListeningPort | None] | None = None
        self._introductions: dict[QMPProtocol, Introduction] = {}
        self._waiting: dict[QMPProtocol, Waiter] = {}
        self.factory = fleet.make_factory(self._where, max_sessions=MAX_VMS)
        self.factory.observe(ready=self._ready, lost=self._lost)
        self._door: Doorkeeper | None = None
        if allowed is not None:
            if not _is_unix(self._endpoint):
                raise ValueError(f"{self._where} is no UNIX socket: who connects is not known")
            limit = fleet.settings.timeouts.close
            self._door = Doorkeeper(fleet.reactor, self.factory, allowed, self._where, limit)

    @property
    def denied(self) -> int:
        """How many connections were closed because they were not allowed."""
        return self._door.denied if self._door is not None else 0

    # Its life

    def privilegedStartService(self) -> None:
        """
        Begin to listen.

        :raises ConnectError: the place cannot be listened on.
        """
        super().privilegedStartService()
        problems: list[Failure] = []
        self.factory.resume()
        factory: IProtocolFactory = self._door or self.factory
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, factory)
        self._port = listening.addErrback(problems.append)
        if problems:
            self._port = None
            raise ConnectError(f"cannot listen on {self._where}: {_why(problems[0])}")
        self._port.addCallback(self._listens, problems)

    def _listens(self, port: IListeningPort | None, problems: list[Failure]) -> Any:
        if port is None:  # a failure that came later than at once
            self._log.failure("cannot listen on {where}", problems[0], where=self._where)
            return None
        self.listening = True
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

    def drop(self, reason: str) -> Deferred[None]:
        """Listen no more; the sessions end, and each VM's record says how."""
        self._log.info("{where}: {reason}", where=self._where, reason=reason)
        return maybeDeferred(self.disownServiceParent)

    async def _stop(self) -> None:
        self.listening = False
        listening, self._port = self._port, None
        if listening is not None:
            port = await listening
            if port is not None:
                try:
                    await maybeDeferred(port.stopListening)
                except Exception:
                    # Such as that somebody has deleted the socket. The sessions end all the same.
                    self._log.failure("{where}: cannot stop listening", where=self._where)
        place, self._place = self._place, None
        if place is not None:
            self._fleet.vacate(place)
        if self._door is not None:
            self._door.stop()
        await self.factory.stop()

    # Sessions

    def _ready(self, session: QMPProtocol) -> None:
        peer = peer_of(session.transport)
        introduction = self._introductions[session] = Introduction(
            self._fleet,
            session,
            self._where,
            peer,
            lambda results: identify(results, peer),
            self._claim,
            lambda refusal: self._refuse(session, refusal),
        )
        introduction.begin()

    def _claim(self, identity: Identity) -> VM:
        """
        The VM, called by the best name that is free.

        :raises QMPError: none is, or there are too many VMs.
        """
        # Only a uuid makes two VMs of one name two.
        usable = identity.names[:2] if identity.uuid is not None else identity.names[:1]
        for name in usable[:-1]:
            try:
                return self._fleet.claim(name)
            except NameTakenError:
                continue
        return self._fleet.claim(usable[-1])

    def _refuse(self, session: QMPProtocol, refusal: Refusal) -> None:
        self.refused += 1
        clock = self._fleet.reactor
        waiter = self._fleet.claims.wait(refusal.key or "", clock, session.abort)
        self._waiting[session] = waiter

    def _lost(self, session: QMPProtocol, error: QMPError) -> None:
        introduction = self._introductions.pop(session)
        introduction.lost(error)
        waiter = self._waiting.pop(session, None)
        if waiter is not None:
            waiter.cancel()
        if introduction.vm is not None:
            self._fleet.release(introduction.vm)


def _is_unix(endpoint: Any) -> bool:
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        return bool(endpoint.addressFamily == socket.AF_UNIX)
    return isinstance(endpoint, (UNIXServerEndpoint, InheritedServer))


def _why(failure: Failure) -> str:
    """Why a place cannot be listened on."""
    problem = getattr(failure.value, "socketError", failure.value)
    return getattr(problem, "strerror", None) or str(problem)
