"""A source: one VM whose monitor we dial."""

from __future__ import annotations

import os

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from txqmp.endpoints import Place, UNIXClient, client_endpoint
from txqmp.errors import QMPError
from txqmp.fleet.naming import name_of
from txqmp.fleet.registry import Fleet
from txqmp.fleet.vm import VM
from txqmp.protocol import QMPProtocol


class DialSource(Service):
    """
    Dials one monitor, and dials again whenever the session is lost.

    :param where: as for :func:`txqmp.connect`.
    :param name: what to call the VM; see :func:`~txqmp.fleet.naming.name_of` for the default.
    :raises ValueError: ``where`` is no endpoint.
    :raises NameTakenError: the name or the socket is taken.

    :ivar vm: the VM.
    :ivar path: the socket's path, ``None`` for what is no UNIX socket.
    """

    def __init__(self, fleet: Fleet, where: Place, name: str | None = None) -> None:
        self._endpoint = client_endpoint(fleet.reactor, where)
        self._where = where if isinstance(where, str) else repr(self._endpoint)
        self._fleet = fleet
        self.path: str | None = None
        if isinstance(self._endpoint, UNIXClient):
            self.path = self._endpoint.path
            self._where = repr(self._endpoint)
            fleet.occupy(os.path.realpath(self.path))
        try:
            self.vm: VM = fleet.claim(name or name_of(where, self._endpoint))
        except QMPError:
            self._vacate()
            raise
        self.factory = fleet.make_factory(self.vm.name)
        self.factory.subscribe(self.vm.event, *fleet.events)
        self.factory.observe(ready=self._ready, lost=self.vm.lost, failed=self.vm.failed)

    def _ready(self, session: QMPProtocol) -> None:
        self.vm.came(session, {"where": self._where})

    def startService(self) -> None:
        super().startService()
        self.factory.dial(self._endpoint)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.factory.stop()

    def drop(self, reason: str) -> Deferred[None]:
        """Watch the VM no more."""
        stopped: Deferred[None] = maybeDeferred(self.disownServiceParent)
        self.vm.gone(reason)
        self._fleet.release(self.vm)
        self._vacate()
        return stopped

    def _vacate(self) -> None:
        if self.path is not None:
            self._fleet.vacate(os.path.realpath(self.path))
