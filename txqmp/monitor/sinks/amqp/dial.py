"""One connection to the broker: its address, TLS, the login."""

from __future__ import annotations

from typing import Any, cast

from pika import ConnectionParameters
from pika.credentials import ExternalCredentials, PlainCredentials
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from txqmp.monitor.sinks.amqp.connection import BrokerConnection
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.tls import tls_endpoint


class _Factory(Factory):
    noisy = False  # it would log that it starts and stops


async def dial(
    reactor: Any, settings: AMQPSettings, endpoint: IStreamClientEndpoint | None = None
) -> BrokerConnection:
    """
    Connect and log in. This is for somebody to cancel who waits for no longer.

    :param endpoint: the broker's; ``None`` for the one of the settings.
    :returns: a connection that channels can be opened on. If there is none, nothing is left of it.
    :raises UnavailableError: it came to nothing.
    """
    if endpoint is None:
        endpoint = broker_endpoint(reactor, settings)
    factory = _Factory.forProtocol(lambda: BrokerConnection(parameters(settings), reactor))
    try:
        connection = cast(BrokerConnection, await endpoint.connect(factory))
    except CancelledError:
        raise UnavailableError("no connection") from None
    except Exception as error:
        raise UnavailableError(f"no connection: {error}") from error
    try:
        await connection.ready
    except BaseException as error:
        connection.give_up("no answer")
        await connection.when_lost()
        if isinstance(error, CancelledError):
            raise UnavailableError("connected, but nobody answers as a broker does") from None
        raise
    return connection


def parameters(settings: AMQPSettings) -> ConnectionParameters:
    """The settings, in pika's words."""
    credentials: Any = ExternalCredentials()
    if settings.user is not None:
        credentials = PlainCredentials(settings.user, settings.password)
    return ConnectionParameters(
        host=settings.host,
        port=settings.port,
        virtual_host=settings.vhost,
        credentials=credentials,
        heartbeat=settings.heartbeat,
        blocked_connection_timeout=settings.blocked_timeout,
        client_properties={"connection_name": "qmp-monitor"},
    )


def broker_endpoint(reactor: Any, settings: AMQPSettings) -> IStreamClientEndpoint:
    """
    Where the broker is.

    :raises UnavailableError: a file for TLS is missing, or is not what it should be.
    """
    limit = settings.connect_timeout
    endpoint = HostnameEndpoint(reactor, settings.host, settings.port, timeout=limit)
    if settings.tls is None:
        return endpoint
    return tls_endpoint(settings.tls, settings.tls.server_name or settings.host, endpoint)
