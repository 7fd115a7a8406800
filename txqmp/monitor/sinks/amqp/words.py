"""What went wrong with a broker, in words that say what to look at. Never with a password."""

from __future__ import annotations

from typing import Any

from pika import ConnectionParameters, exceptions
from pika.connection import Connection
from pika.credentials import PlainCredentials
from twisted.internet.error import ConnectionClosed

from txqmp.monitor.sinks.tls import why_tls


# What the broker closed the connection over, by the phase in which it did.
_PHASES = {
    Connection.CONNECTION_PROTOCOL: "in place of a greeting",
    Connection.CONNECTION_START: "at the login",
    Connection.CONNECTION_TUNE: "when the virtual host was asked for",
}


def not_amqp(data: bytes) -> str | None:
    """Why the first bytes that came are not a broker's, or ``None`` where they may be."""
    if data[:1] == b"\x01":  # a method frame: Connection.Start
        return None
    if b"AMQP".startswith(data[:4]):  # its own version, and no more
        return "the broker does not speak AMQP 0-9-1"
    if data[:1] == b"\x15":  # a TLS alert
        return "what answers there speaks TLS"
    return f"what answers there does not speak AMQP: it begins with {data[:16]!r}"


def why_lost(
    cause: BaseException,
    phase: int,
    parameters: ConnectionParameters,
    blocked: str | None,
    transport: Any = None,
) -> str:
    """
    Why a connection ended.

    :param phase: of the connection before its end, as pika numbers them.
    :param blocked: why the broker took nothing, in its words.
    :param transport: of the connection.
    """
    if isinstance(cause, exceptions.ConnectionClosedByBroker):
        text = why_closed(cause)
        if phase == Connection.CONNECTION_START:
            return f"the broker refused the login of {_who(parameters)}: {text}"
        if phase == Connection.CONNECTION_TUNE:
            return f"the broker refused the virtual host {parameters.virtual_host!r}: {text}"
        return f"the broker closed the connection: {text}"
    if isinstance(cause, exceptions.AuthenticationError):
        return f"the broker does not offer the way to log in, {cause.args[0]}"
    if isinstance(cause, exceptions.ConnectionBlockedTimeout):
        limit = parameters.blocked_connection_timeout
        return f"the broker took nothing for {limit:g} s: {blocked or 'it did not say why'}"
    if isinstance(cause, exceptions.AMQPHeartbeatTimeout):
        return "the broker gives no sign of life"
    if isinstance(cause, exceptions.ConnectionClosedByClient):
        return "closed by us"
    tls = why_tls(cause, "the broker", transport)
    if tls is not None:
        return tls
    if isinstance(cause, ConnectionClosed):
        how = str(cause).rstrip(".")
        where = _PHASES.get(phase)
        if where is not None:
            return f"the broker closed the connection {where} ({how})"
        return f"the connection to the broker was lost ({how})"
    return f"{type(cause).__name__}: {cause}"


def why_closed(cause: BaseException) -> str:
    """What the broker says where it closes a connection or a channel."""
    if isinstance(cause, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        return f"{cause.reply_text} ({cause.reply_code})"
    return f"{type(cause).__name__}: {cause}"


def _who(parameters: ConnectionParameters) -> str:
    credentials: Any = parameters.credentials
    if isinstance(credentials, PlainCredentials):
        return f"user {credentials.username!r}"
    return "the client certificate"
