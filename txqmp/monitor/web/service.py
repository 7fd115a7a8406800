"""The HTTP face as a service: :class:`WebService`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import shown
from txqmp.errors import ConnectError
from txqmp.monitor.web.connections import Connections
from txqmp.monitor.web.front import Site
from txqmp.monitor.web.pages import MetricsText, Root
from txqmp.monitor.web.place import is_local, web_endpoint
from txqmp.monitor.web.source import Source


class WebService(Service):
    """
    Serves the HTTP face. It can be started again after it was stopped.

    :param where: where to listen, as for :func:`~txqmp.monitor.web.place.web_endpoint`.
    :param source: the daemon.
    :param metrics: for ``/metrics``; without it there is none.
    :param names: what this server is called in URLs, beside ``localhost`` and its addresses.
    :param remote: whether others than this host may connect.
    :param log_requests: write a line to the log for each request.
    :raises ValueError: ``where`` is no endpoint, or open to other hosts without ``remote``.

    :ivar address: where it listens; ``None`` while it does not.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        where: str,
        source: Source,
        *,
        metrics: MetricsText | None = None,
        names: Sequence[str] = (),
        remote: bool = False,
        log_requests: bool = False,
    ) -> None:
        self.address: IAddress | None = None
        self._where = where
        self._remote = remote
        self._endpoint = web_endpoint(reactor, where, remote=remote)
        self._root = Root(reactor, source, metrics)
        site = Site(reactor, self._root, names=tuple(names), log_requests=log_requests)
        self._connections = Connections(reactor, site)
        self._listening: Deferred[IListeningPort | None] | None = None

    def privilegedStartService(self) -> None:
        """
        Begin to listen.

        :raises ConnectError: the place cannot be listened on, or is open to other hosts.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Begin to listen, if that was not done yet.

        :raises ConnectError: as above.
        """
        super().startService()
        if self._listening is None:
            self._listen()

    def _listen(self) -> None:
        self._root.events.open()
        problems: list[Failure] = []
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, self._connections)
        listening.addCallback(self._opened).addErrback(problems.append)
        if problems:
            raise _cannot_listen(self._where, problems[0])
        self._listening = listening
        listening.addCallback(self._told, problems)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        address = port.getHost()
        if not self._remote and not is_local(address):
            maybeDeferred(port.stopListening)
            raise ConnectError("it is open to other hosts, which has to be allowed")
        self.address = address
        self._log.info("the status page is at {where}", where=_shown(address))
        return port

    def _told(self, port: IListeningPort | None, problems: list[Failure]) -> IListeningPort | None:
        if port is None:  # a failure that came later than at once
            self._log.failure("cannot listen on {where}", problems[0], where=self._where)
        return port

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and end all connections.

        :returns: a Deferred that fires when that is done, a second later at the most.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self._listening = self._listening, None
        self._root.events.close()
        if listening is not None:
            port = await listening
            self.address = None
            if port is not None:
                await maybeDeferred(port.stopListening)
        await self._connections.close()


def _cannot_listen(where: str, failure: Failure) -> ConnectError:
    problem = failure.value
    reason = getattr(problem, "socketError", None) or problem
    return ConnectError(f"cannot listen on {where}: {reason}")


def _shown(address: IAddress) -> str:
    """An address as people write it."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return str(address) if name is None else shown(os.fsdecode(name))
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}/"  # type: ignore[attr-defined]
