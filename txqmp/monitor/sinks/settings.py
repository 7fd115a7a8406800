"""What can be chosen about each kind of sink. That of RabbitMQ is in :mod:`.amqp.settings`."""

from __future__ import annotations

import enum
import os
import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

import attrs
from attrs import validators

from txqmp.monitor.signature import SigningKey


# As narrow as can be, so that nobody reads another host from it than we do.
_URL = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(:[0-9]{1,5})?([/?][!-\"$-~]*)?",
    re.IGNORECASE,
)

MAX_TIMEOUT = 3600.0
"""How long an attempt may take at most, in seconds."""

_PORTS = {"http": 80, "https": 443}

_VISIBLE = re.compile(r"[!-~]([ -~]*[!-~])?")


def is_loopback(host: str) -> bool:
    """Whether a host is this one: ``localhost``, or an address that never leaves it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


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


def _networks(_: object, field: Any, value: tuple[object, ...]) -> None:
    for each in value:
        if not isinstance(each, IPv4Network | IPv6Network):
            raise ValueError(f"{field.name}: {each!r} is no network")


@attrs.frozen(kw_only=True)
class WebhookSettings:
    """
    Where to post, and how.

    :ivar url: in ASCII, without a user and without ``#``. ``https``; ``http`` on loopback, or with
        ``allow_plaintext``. No representation shows its query, which may be secret.
    :ivar mode: how.
    :ivar signing_keys: sign each post with each of them (Standard Webhooks); the newest first.
    :ivar authorization: the value of the ``Authorization`` header, such as ``"Bearer …"``; ``None``
        for no such header.
    :ivar timeout: for an attempt from the name's resolution to the end of the answer, in seconds.
    :ivar batch: how many events to post together at most, in the mode ``batched``.
    :ivar tls: for ``https``; ``None`` for what the system trusts.
    :ivar allow_plaintext: post to other hosts without TLS.
    :ivar allow: networks that may be posted to though they are denied otherwise.
    :ivar deny: networks that may not be posted to, beside those that never make sense
        (:data:`txqmp.monitor.sinks.webhook.addresses.DENIED`).
    :raises ValueError: something is wrong with them; the message says what.
    """

    url: str = attrs.field(repr=lambda url: repr(shown(url)))
    mode: WebhookMode = WebhookMode.STRUCTURED
    signing_keys: tuple[SigningKey, ...] = attrs.field(default=(), converter=tuple)
    authorization: str | None = attrs.field(default=None, repr=False)
    timeout: float = attrs.field(
        default=15.0, validator=[validators.gt(0), validators.le(MAX_TIMEOUT)]
    )
    batch: int = attrs.field(default=100, validator=[validators.ge(1), validators.le(1000)])
    tls: ClientTLS | None = None
    allow_plaintext: bool = False
    allow: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(), converter=tuple, validator=_networks
    )
    deny: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(), converter=tuple, validator=_networks
    )

    def __attrs_post_init__(self) -> None:
        _check_url(self.url)
        if self.authorization is not None and _VISIBLE.fullmatch(self.authorization) is None:
            raise ValueError("the authorization is not visible ASCII on one line")
        if self.secure:
            return
        if self.tls is not None:
            raise ValueError(f"{shown(self.url)} does not use TLS: that needs https")
        if not self.allow_plaintext and not is_loopback(self.host):
            raise ValueError(f"{self.host} is another host: that needs https, or allow_plaintext")

    @property
    def secure(self) -> bool:
        """Whether the URL asks for TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        """The name or address to connect to, in small letters."""
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        """The port to connect to."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]


def shown(url: str) -> str:
    """A URL without what may be secret: its user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _check_url(url: str) -> None:
    """
    Whether a URL can be posted to.

    :raises ValueError: it cannot. The message does not show it: there may be a secret in it.
    """
    authority = url.partition("//")[2].partition("/")[0].partition("?")[0]
    if "@" in authority:
        raise ValueError("a URL with a user or a password in it is not taken: use authorization")
    if _URL.fullmatch(url) is None:
        raise ValueError("this is no URL in ASCII, such as https://ops.example/qmp")
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
        if authority.startswith("["):
            IPv6Address(str(parts.hostname))
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("this URL has no valid host and port")


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
