"""One session, one attempt: :func:`connect` and :func:`listen`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txqmp.endpoints import (
    Place,
    client_endpoint,
    connect_error,
    connect_in_time,
    server_endpoint,
)
from txqmp.errors import ConnectError, ConnectFailure
from txqmp.factory import QMPClientFactory
from txqmp.protocol import QMPProtocol
from txqmp.settings import DEFAULT_SETTINGS, SessionSettings


def connect(
    reactor: Any, where: Place, *, name: str = "qmp", settings: SessionSettings = DEFAULT_SETTINGS
) -> Deferred[QMPProtocol]:
    """
    Connect to a QMP server: one session, one attempt.

    :param reactor: the reactor, also the clock.
    :param where: a bare path, ``("::1", 4444)``, an endpoint string such as ``"unix:PATH"``,
        ``"tcp:HOST:PORT"``, ``"tls:HOST:PORT"``, ``"fd:N"`` (an inherited or socketpair
        descriptor) or ``"exec:COMMAND"`` (a child with ``-qmp stdio``), or an
        ``IStreamClientEndpoint``.
    :param name: a name for the log.
    :param settings: what can be chosen.
    :returns: a Deferred of the session, ready for commands. Cancelling it closes the connection.
    :raises ConnectError: (by the Deferred, as all of these) no connection, no greeting or no
        reply to ``qmp_capabilities``; its ``kind`` and ``phase`` tell more.
    :raises GreetingError: the peer does not speak QMP.
    :raises NegotiationError: the peer refused.
    :raises ValueError: ``where`` is no endpoint.
    """
    return Deferred.fromCoroutine(_connect(reactor, where, name, settings))


async def _connect(reactor: Any, where: Place, name: str, settings: SessionSettings) -> QMPProtocol:
    endpoint = client_endpoint(reactor, where)
    once = _Once(reactor, name, settings)
    try:
        await connect_in_time(reactor, endpoint, once, settings.timeouts.connect)
    except Exception as error:
        problem = connect_error(Failure(error))
        if problem.kind is ConnectFailure.CANCELLED:
            raise CancelledError from error
        if problem is error:
            raise
        raise problem from error
    assert once.session is not None
    try:
        return await once.session.when_ready()
    except CancelledError:
        once.session.abort()
        raise


def listen(
    reactor: Any, where: Place, *, name: str = "qmp", settings: SessionSettings = DEFAULT_SETTINGS
) -> Deferred[QMPProtocol]:
    """
    Wait for a QEMU that dials us (``-qmp unix:PATH,server=off,reconnect=1``): one session. The
    listening ends when it is there. A peer that dials and then fails to greet does not count.

    :param where: where to listen: a bare path (made with mode 600), ``("127.0.0.1", 4444)``, an
        endpoint string such as ``"unix:PATH:mode=660"``, or an ``IStreamServerEndpoint``.
    :returns: a Deferred of the session, and so the other parameters as for :func:`connect`.
        Cancelling it ends the listening.
    :raises ConnectError: (by the Deferred) the place cannot be listened on.
    :raises ValueError: ``where`` is no endpoint.
    """
    return Deferred.fromCoroutine(_listen(reactor, where, name, settings))


async def _listen(reactor: Any, where: Place, name: str, settings: SessionSettings) -> QMPProtocol:
    endpoint = server_endpoint(reactor, where)
    factory = QMPClientFactory(reactor, name=name, settings=settings)
    try:
        port: IListeningPort = await endpoint.listen(factory)
    except CancelledError:
        raise
    except Exception as error:
        raise ConnectError(f"cannot listen on {where}: {error}") from error
    try:
        return await factory.when_ready()
    except CancelledError:
        await factory.stop()
        raise
    finally:
        await maybeDeferred(port.stopListening)


class _Once(Factory):
    """The factory of one session."""

    noisy = False
    session: QMPProtocol | None = None

    def __init__(self, reactor: Any, name: str, settings: SessionSettings) -> None:
        self._reactor = reactor
        self._name = name
        self._settings = settings

    def buildProtocol(self, addr: IAddress | None) -> QMPProtocol:
        self.session = QMPProtocol(self._reactor, self._settings, self._name)
        self.session.factory = self
        return self.session
