"""
How a webhook is connected to: :class:`WebhookEndpoint`, and the limits of each of its connections.

An agent of Twisted's is given this in the place of its own endpoints, so the host is read from the
settings alone, the address is judged when it is known, and the files for TLS are read for each
connection.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.settings import ClientTLS, WebhookSettings
from txqmp.monitor.sinks.tls import tls_endpoint, why_tls
from txqmp.monitor.sinks.webhook.addresses import AddressFilter, FilteringResolver


CLOSING = 2.0
"""How long a connection has to close by itself, in seconds."""

MAX_ANSWER = 65536
"""How many bytes may come in answer to a post, with headers and all that goes before."""


class Connection(ProtocolWrapper):
    """
    A connection with limits: it ends for certain, and nobody can send without end on it.

    :ivar received: how many bytes have come; to be set to 0 before each post.
    """

    factory: Any

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self.received = 0
        self._last_call: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        # What has come counts; there is no more.
        super().dataReceived(data)
        if self.received > MAX_ANSWER:
            self.factory.place.problem = f"answered with more than {MAX_ANSWER} bytes"
            self.abortConnection()

    def loseConnection(self) -> None:
        if self._last_call is None and self.connected:
            # A TLS peer that hangs never lets go.
            self._last_call = self.factory.reactor.callLater(CLOSING, self._cut_off)
        super().loseConnection()

    def _cut_off(self) -> None:
        self._last_call = None
        self.abortConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.connected = False
        last_call, self._last_call = self._last_call, None
        if last_call is not None:
            last_call.cancel()
        place = self.factory.place
        if place.problem is None:
            place.problem = why_tls(reason.value, "the receiver", self.transport)
        super().connectionLost(reason)


class _Factory(WrappingFactory):
    protocol = Connection
    noisy = False  # it would log that it starts and stops

    def __init__(self, wrapped: Any, place: WebhookEndpoint, reactor: Any) -> None:
        super().__init__(wrapped)
        wrapped.noisy = False
        self.place = place
        self.reactor = reactor

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)
        self.place.opened(p)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self.place.closed(p)

    def __repr__(self) -> str:
        return "<connection of a webhook>"


@implementer(IReactorPluggableNameResolver)
class _Reactor:
    """What :class:`~twisted.internet.endpoints.HostnameEndpoint` needs of a reactor."""

    def __init__(self, reactor: Any, resolver: FilteringResolver) -> None:
        self.nameResolver = resolver
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def installNameResolver(self, resolver: Any) -> Any:
        before, self.nameResolver = self.nameResolver, resolver
        return before


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
class WebhookEndpoint:
    """
    Where a webhook's receiver is, whatever URL it is asked for.

    :param reactor: it resolves names too.
    :param settings: where it is.

    :ivar problem: what went wrong with a connection, in words, where that is known better than from
        the error; ``None`` otherwise. To be set to ``None`` before each post.
    """

    def __init__(self, reactor: Any, settings: WebhookSettings) -> None:
        self.problem: str | None = None
        self._reactor = reactor
        self._settings = settings
        self._filter = AddressFilter(settings.allow, settings.deny)
        self._open: set[Any] = set()
        self._waiting: list[Deferred[None]] = []

    def endpointForURI(self, uri: Any) -> WebhookEndpoint:
        return self

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect.

        :raises UnavailableError: through the Deferred: a file for TLS is not what it should be, or
            there is no address that may be connected to.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> Any:
        settings = self._settings
        resolver = FilteringResolver(self._reactor.nameResolver, self._filter)
        endpoint: Any = HostnameEndpoint(
            _Reactor(self._reactor, resolver),
            settings.host,
            settings.port,
            timeout=settings.timeout,
        )
        if settings.secure:
            endpoint = tls_endpoint(settings.tls or ClientTLS(), settings.host, endpoint)
        try:
            connection = await endpoint.connect(_Factory(factory, self, self._reactor))
        except CancelledError:
            raise
        except Exception as error:
            if resolver.refused and not resolver.found:
                raise UnavailableError(_refusal(settings.host, resolver.refused)) from error
            raise
        return connection.wrappedProtocol

    # What is open

    @property
    def open(self) -> frozenset[Connection]:
        """The connections that there are."""
        return frozenset(self._open)

    def opened(self, connection: Any) -> None:
        """A connection begins."""
        self._open.add(connection)

    def closed(self, connection: Any) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def begin(self) -> None:
        """A post begins: the limits are for it alone."""
        self.problem = None
        for each in self._open:
            each.received = 0

    def close(self) -> Deferred[None]:
        """Close all connections; fires within :data:`CLOSING` seconds."""
        over = Deferred[None]()
        if not self._open:
            over.callback(None)
            return over
        self._waiting.append(over)
        for each in tuple(self._open):
            each.loseConnection()
        return over


def _refusal(host: str, refused: dict[str, str]) -> str:
    some = ", ".join(f"{address} ({why})" for address, why in list(refused.items())[:3])
    more = len(refused) - 3
    if more > 0:
        some = f"{some} and {more} more"
    return f"{host} may not be posted to: {some}"
