"""One connection to the broker: its address, TLS, the login."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from pika import ConnectionParameters
from pika.credentials import ExternalCredentials, PlainCredentials
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from txqmp.monitor.sinks.amqp.connection import BrokerConnection
from txqmp.monitor.sinks.amqp.settings import AMQPTLS, AMQPSettings
from txqmp.monitor.sinks.delivery import UnavailableError


_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


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
    options = client_tls(settings.tls, settings.tls.server_name or settings.host)
    return wrapClientTLS(options, endpoint)


def client_tls(tls: AMQPTLS, name: str) -> Any:
    """
    How to speak TLS with the broker.

    :param name: what its certificate must be for.
    :returns: for Twisted's ``wrapClientTLS``.
    :raises UnavailableError: a file is missing, or is not what it should be.
    """
    # Not above: without TLS nobody needs it.
    from twisted.internet.ssl import optionsForClientTLS, platformTrust, trustRootFromCertificates

    trust = platformTrust()
    if tls.ca is not None:
        trust = trustRootFromCertificates(_certificates(tls.ca))
    if tls.certificate is None or tls.key is None:
        return optionsForClientTLS(name, trustRoot=trust)
    own, *between = _certificates(tls.certificate)
    return optionsForClientTLS(
        name,
        trustRoot=trust,
        clientCertificate=_with_key(own, tls.key),
        extraCertificateOptions={"extraCertChain": [each.original for each in between]},
    )


def _certificates(path: str) -> list[Any]:
    from twisted.internet.ssl import Certificate

    blocks = _CERTIFICATE.findall(_read(path))
    if not blocks:
        raise UnavailableError(f"{path} holds no certificate in PEM form")
    try:
        return [Certificate.loadPEM(block) for block in blocks]
    except Exception as error:
        raise UnavailableError(f"{path} holds a certificate that cannot be read") from error


def _with_key(certificate: Any, path: str) -> Any:
    from twisted.internet.ssl import PrivateCertificate

    text = _read(path)
    if b"ENCRYPTED" in text:  # OpenSSL would ask for the password at the terminal
        raise UnavailableError(f"{path} is encrypted: the key must not be")
    try:
        return PrivateCertificate.loadPEM(certificate.dumpPEM() + text)
    except Exception as error:
        raise UnavailableError(f"{path} holds no key in PEM form, or another one") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
