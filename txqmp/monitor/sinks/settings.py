"""What can be chosen about each kind of sink. That of RabbitMQ is in :mod:`.amqp.settings`."""

from __future__ import annotations

import enum
import os
import re
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import attrs
from attrs import validators

from txqmp.monitor.signature import SigningKey


def _path(_: object, field: Any, value: str) -> None:
    if not value or "\0" in value:
        raise ValueError(f"{value!r} is no path")


@attrs.frozen
class StdoutSettings:
    """The standard output: there is nothing to choose."""


@attrs.frozen(kw_only=True)
class JSONLSettings:
    """
    A file with an event on each line.

    :ivar path: of the file; it is made where it is missing, with mode 640, but its directory is
        not.
    """

    path: str = attrs.field(validator=_path)


class WebhookMode(enum.Enum):
    """How an event is posted (CloudEvents HTTP binding, section 3)."""

    STRUCTURED = "structured"
    """As one JSON object. A signature covers all of it."""
    BINARY = "binary"
    """Its data in the body, the rest in headers, which a signature does not cover."""
    BATCHED = "batched"
    """Several in a JSON array, for a receiver that asks for it."""


@attrs.frozen(kw_only=True)
class ClientTLS:
    """
    Files in PEM form. They are read anew when the daemon is told to (SIGHUP).

    :ivar ca: the authorities that may have issued the receiver's certificate; ``None`` for those
        that the system trusts.
    :ivar certificate: ours, followed by those between it and its authority, if there are any.
    :ivar key: of our certificate, not encrypted.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate")


@attrs.frozen(kw_only=True)
class WebhookSettings:
    """
    Where to post, and how.

    :ivar url: ``https``; ``http`` on loopback, or with ``allow_plaintext``.
    :ivar mode: how.
    :ivar signing_keys: sign each post with each of them (Standard Webhooks); the newest first.
    :ivar authorization: the value of the ``Authorization`` header; ``None`` for no such header.
    :ivar timeout: for an attempt from the connection to the end of the answer, in seconds.
    :ivar batch: how many events to post together at most, in the mode ``batched``.
    :ivar tls: for ``https``; ``None`` for what the system trusts.
    :ivar allow_plaintext: post to other hosts without TLS.
    :ivar allow: networks that may be posted to though they are denied otherwise.
    :ivar deny: networks that may not be posted to, beside those that never make sense.
    """

    url: str
    mode: WebhookMode = WebhookMode.STRUCTURED
    signing_keys: tuple[SigningKey, ...] = ()
    authorization: str | None = attrs.field(default=None, repr=False)
    timeout: float = attrs.field(default=15.0, validator=validators.gt(0))
    batch: int = attrs.field(default=100, validator=[validators.ge(1), validators.le(1000)])
    tls: ClientTLS | None = None
    allow_plaintext: bool = False
    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    deny: tuple[IPv4Network | IPv6Network, ...] = ()


FACILITIES = {
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
    "cron": 9,
    "authpriv": 10,
    "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}
"""
The numbers of the facilities (RFC 5424, section 6.2.1) by name, without that of the kernel, for
which nobody else speaks.
"""

IDENTIFIER = "qmp-monitor"
"""Who says it, in a log."""


class SyslogFormat(enum.Enum):
    """How a message is written."""

    RFC5424 = "rfc5424"
    """
    With the event's id, type and VM as structured data. On ``/dev/log``, syslog-ng reads it with
    ``flags(syslog-protocol)`` and rsyslog without ``sysSock.useSpecialParser``. The journal does
    not, and takes all of it for text.
    """
    RFC3164 = "rfc3164"
    """As ``syslog(3)`` does, which all logs read as they are, without the host's name."""


def _identifier(_: object, field: Any, value: str) -> None:
    # An APP-NAME (RFC 5424, section 6.2.5) that is a TAG (RFC 3164, section 5.3) too.
    if re.fullmatch(r"[A-Za-z0-9._-]{1,32}", value) is None:
        raise ValueError(f"{value!r} is not made of 1 to 32 letters, digits and ._-")


@attrs.frozen(kw_only=True)
class SyslogSettings:
    """
    The system's log, as far as to hand it to the kernel.

    :ivar path: of its socket.
    :ivar facility: one of :data:`FACILITIES`, such as ``daemon`` or ``local0``.
    :ivar format: how messages are written.
    :ivar identifier: who says it (``APP-NAME``).
    """

    path: str = attrs.field(default="/dev/log", validator=_path)
    facility: str = attrs.field(default="daemon", validator=validators.in_(FACILITIES))
    format: SyslogFormat = SyslogFormat.RFC5424
    identifier: str = attrs.field(default=IDENTIFIER, validator=_identifier)


@attrs.frozen(kw_only=True)
class JournaldSettings:
    """
    systemd's journal, as far as to hand it to the kernel.

    :ivar path: of its socket; that of a namespace is
        ``/run/systemd/journal.NAMESPACE/socket``.
    :ivar identifier: who says it (``SYSLOG_IDENTIFIER``).
    """

    path: str = attrs.field(default="/run/systemd/journal/socket", validator=_path)
    identifier: str = attrs.field(default=IDENTIFIER, validator=_identifier)


@attrs.frozen(kw_only=True)
class ExecSettings:
    """
    A program that is run for each event, which it reads from its standard input.

    :ivar command: the program, by its absolute path, and its arguments. No shell sees them.
    :ivar timeout: how long it may take, in seconds; then it is asked to end (SIGTERM).
    :ivar grace: how long it may take to end then, in seconds, before it is made to (SIGKILL).
    """

    command: tuple[str, ...] = attrs.field(validator=validators.min_len(1))
    timeout: float = attrs.field(default=30.0, validator=validators.gt(0))
    grace: float = attrs.field(default=5.0, validator=[validators.gt(0), validators.le(60)])

    def __attrs_post_init__(self) -> None:
        if not os.path.isabs(self.command[0]):
            raise ValueError(f"{self.command[0]!r} is no absolute path of a program")
        if any("\0" in word for word in self.command):
            raise ValueError("a command has no NUL characters")
