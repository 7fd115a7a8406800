"""The client factory as a part of a Twisted application: :class:`QMPService`."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import Place, client_endpoint, server_endpoint
from txqmp.factory import QMPClientFactory


class QMPService(Service):
    """
    Keeps a factory's session alive while the service runs.

    Stopping it ends within the settings' ``timeouts.close``, even when the peer does not read.

    :param reactor: what the endpoint uses.
    :param where: the place to dial, as for :func:`txqmp.connect`, or, with ``accept``, to listen
        on, as for :func:`txqmp.listen`.
    :param factory: makes the sessions; subscribe on it.
    :param accept: QEMU dials us, instead of the other way.
    :raises ValueError: ``where`` is no endpoint.

    :ivar listening: a Deferred of the listening port while the service runs and accepts, of
        ``None`` where the place cannot be listened on, which is logged.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, where: Place, factory: QMPClientFactory, *, accept: bool = False
    ) -> None:
        self.factory = factory
        self.listening: Deferred[IListeningPort | None] | None = None
        self._accept = accept
        self._port: IListeningPort | None = None
        self._settled: Deferred[None] | None = None
        if accept:
            self._endpoint: Any = server_endpoint(reactor, where)
        else:
            self._endpoint = client_endpoint(reactor, where)

    def startService(self) -> None:
        super().startService()
        if not self._accept:
            self.factory.dial(self._endpoint)
            return
        self.factory.resume()
        self.listening = maybeDeferred(self._endpoint.listen, self.factory)
        self.listening.addCallbacks(self._opened, self._cannot_listen)
        self._settled = Deferred()
        self.listening.addBoth(_tell, self._settled)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        self._port = port
        return port

    def _cannot_listen(self, failure: Failure) -> None:
        self._log.failure("{name}: cannot listen", failure, name=self.factory.name)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # From now on the factory takes nobody, though the port may be open for a while.
        stopped = self.factory.stop()
        self.listening = None
        settled, self._settled = self._settled, None
        if settled is not None:
            await settled
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await stopped


def _tell(outcome: Any, waiter: Deferred[None]) -> Any:
    """Tell who waits that there is an outcome, and pass it on."""
    waiter.callback(None)
    return outcome
