"""A source: one VM whose monitor we dial."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from txqmp.endpoints import Place, UNIXClient, client_endpoint, shown
from txqmp.errors import QMPError
from txqmp.fleet.claims import Waiter
from txqmp.fleet.introduction import Introduction, Refusal
from txqmp.fleet.naming import Identity, identify, name_of
from txqmp.fleet.registry import Fleet
from txqmp.fleet.vm import VM
from txqmp.protocol import QMPProtocol


class DialSource(Service):
    """
    Dials one monitor, and dials again whenever the session is lost. Where the VM there is one that
    the fleet has already, the monitor is left alone for
    :data:`~txqmp.fleet.claims.REFUSE_FOR` seconds, or until that one has gone.

    :param where: as for :func:`txqmp.connect`.
    :param name: what the configuration calls the VM; it is its identity then
        (:mod:`txqmp.fleet.naming`).
    :param called: what to call it where the configuration does not say; see
        :func:`~txqmp.fleet.naming.name_of` for the default.
    :raises ValueError: ``where`` is no endpoint.
    :raises NameTakenError: the name or the socket is taken.

    :ivar vm: the VM.
    :ivar path: the socket's path, ``None`` for what is no UNIX socket.
    :ivar socket: the device and inode of the socket file with which the last session began;
        ``None`` before, and for what is no UNIX socket.
    """

    def __init__(
        self, fleet: Fleet, where: Place, name: str | None = None, *, called: str | None = None
    ) -> None:
        self._endpoint = client_endpoint(fleet.reactor, where)
        self._where = shown(where) if isinstance(where, str) else repr(self._endpoint)
        self._fleet = fleet
        self._configured = name
        self._introduction: Introduction | None = None
        self._waiting: Waiter | None = None
        self._resting = False
        self._why: str | None = None
        self._place: str | None = None
        self.path: str | None = None
        self.socket: tuple[int, int] | None = None
        if isinstance(self._endpoint, UNIXClient):
            self.path = self._endpoint.path
            self._where = repr(self._endpoint)
            place = os.path.realpath(self.path)
            fleet.occupy(place)
            self._place = place
        try:
            self.vm: VM = fleet.claim(name or called or name_of(where, self._endpoint))
        except QMPError:
            self._vacate()
            raise
        self.vm.where = self._where
        self.factory = fleet.make_factory(self.vm.name)
        self.factory.observe(ready=self._ready, lost=self._lost, failed=self.vm.failed)

    # Sessions

    def _ready(self, session: QMPProtocol) -> None:
        self.socket = inode(self.path) if self.path is not None else None
        self._introduction = Introduction(
            self._fleet,
            session,
            self._where,
            None,
            self._identify,
            lambda _: self.vm,
            self._refused,
        )
        self._introduction.begin()

    def _identify(self, results: Mapping[str, Any]) -> Identity:
        return identify(
            results,
            f"socket {self.vm.name}",
            configured=self._configured,
            known=self.vm.uuid,
        )

    def _lost(self, session: QMPProtocol, error: QMPError) -> None:
        introduction, self._introduction = self._introduction, None
        why, self._why = self._why, None
        if introduction is not None:
            introduction.lost(error, why)

    def _refused(self, refusal: Refusal) -> None:
        self.vm.turned_away(refusal.reason)
        self._resting = True
        self.factory.stop().addCallback(self._wait, refusal)

    def _wait(self, _: object, refusal: Refusal) -> None:
        if self._resting:
            key = refusal.key or ""
            self._waiting = self._fleet.claims.wait(key, self._fleet.reactor, self._again)

    def _again(self) -> None:
        self._waiting = None
        self._resting = False
        self.factory.dial(self._endpoint)

    def redial(self, reason: str) -> None:
        """End the session, if there is one, because of what we found, and dial anew."""
        for session in self.factory.sessions:
            self._why = reason
            session.abort()

    # Its life

    def startService(self) -> None:
        super().startService()
        self.factory.dial(self._endpoint)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._resting = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        return self.factory.stop()

    def drop(self, reason: str) -> Deferred[None]:
        """Watch the VM no more; its last record tells why."""
        stopped: Deferred[None] = maybeDeferred(self.disownServiceParent)
        return stopped.addBoth(self._dropped, reason)

    def _dropped(self, outcome: Any, reason: str) -> Any:
        self.vm.gone(reason)
        self._fleet.release(self.vm)
        self._vacate()
        return outcome

    def move(self) -> bool:
        """
        Look where the path leads now: it may be, or go through, a symbolic link.

        :returns: whether that is a place of ours; if not, another source has it.
        """
        if self.path is None:
            return True
        place = os.path.realpath(self.path)
        if place != self._place:
            if self._fleet.is_occupied(place):
                return False
            self._vacate()
            self._fleet.occupy(place)
            self._place = place
        return True

    def _vacate(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._fleet.vacate(place)


def inode(path: str) -> tuple[int, int] | None:
    """The device and inode of the socket that a path leads to; ``None`` where it leads to none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None
