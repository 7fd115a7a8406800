"""What can be chosen about each kind of sink. That of RabbitMQ is in :mod:`.amqp.settings`."""

from __future__ import annotations

import enum
import os
from ipaddress import IPv4Network, IPv6Network

import attrs
from attrs import validators

from txqmp.monitor.signature import SigningKey


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

    path: str


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


@attrs.frozen(kw_only=True)
class SyslogSettings:
    """
    The system's log (RFC 5424), as far as to hand it to the kernel.

    :ivar path: of its socket.
    :ivar facility: such as ``daemon`` or ``local0``.
    """

    path: str = "/dev/log"
    facility: str = "daemon"


@attrs.frozen(kw_only=True)
class JournaldSettings:
    """
    systemd's journal, as far as to hand it to the kernel.

    :ivar path: of its socket.
    """

    path: str = "/run/systemd/journal/socket"


@attrs.frozen(kw_only=True)
class ExecSettings:
    """
    A program that is run for each event, which it reads from its standard input.

    :ivar command: the program and its arguments. No shell sees them.
    :ivar timeout: how long it may take, in seconds.
    """

    command: tuple[str, ...] = attrs.field(validator=validators.min_len(1))
    timeout: float = attrs.field(default=30.0, validator=validators.gt(0))

    def __attrs_post_init__(self) -> None:
        if not os.path.isabs(self.command[0]):
            raise ValueError(f"{self.command[0]!r} is no absolute path of a program")
