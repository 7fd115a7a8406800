"""Where the broker is, and how to talk to it: :class:`AMQPSettings`."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import validators

from txqmp.monitor.sinks.settings import ClientTLS, is_loopback


_MAX_SHORT = 255  # bytes of a "short string" (AMQP 0-9-1, section 4.2.5.3)
_MAX_EXCHANGE = 127  # octets of an exchange's name (AMQP 0-9-1, domain exchange-name)


@attrs.frozen(kw_only=True)
class AMQPTLS(ClientTLS):
    """
    Files in PEM form. They are read anew for each connection, so they may be replaced.

    :ivar ca: the authorities that may have issued the broker's certificate; ``None`` for those
        that the system trusts.
    :ivar certificate: ours, followed by those between it and its authority, if there are any.
    :ivar key: of our certificate, not encrypted.
    :ivar server_name: the name that the broker's certificate is for; ``None`` for its host name.
    """

    server_name: str | None = None


def _short(limit: int = _MAX_SHORT) -> Any:
    def check(_: object, field: Any, value: str) -> None:
        if not 0 < len(value.encode(errors="replace")) <= limit:
            raise ValueError(f"the {field.name} must have 1 to {limit} bytes")

    return check


@attrs.frozen(kw_only=True)
class AMQPSettings:
    """
    Where the broker is, and how to talk to it.

    :ivar host: its name or address.
    :ivar tls: how to use TLS; ``None`` to do without, which is allowed on loopback only.
    :ivar allow_plaintext: … or anywhere: password and events can then be read on the way.
    :ivar port: 5671 with TLS and 5672 without, if it is not given.
    :ivar vhost: the virtual host.
    :ivar exchange: where to publish. It must be there; its kind is best ``topic``.
    :ivar user: who we are; ``None`` to let the client certificate say it (EXTERNAL).
    :ivar password: never shown.
    :ivar window: how many events may be on their way unconfirmed. So many can arrive twice after a
        crash of the broker, and five times as many after one of ours; more than 200 hardly makes it
        faster.
    :ivar connect_timeout: for a connection, from the name to the exchange, in seconds.
    :ivar heartbeat: how often either side shows that it lives, in whole seconds; 0 for never.
    :ivar blocked_timeout: how long the broker may take nothing because it lacks memory or disk
        space, in seconds.
    :ivar confirm_timeout: how long the broker may confirm nothing of what it was sent, in seconds.
    :raises ValueError: something is wrong with them; the message says what.
    """

    host: str = attrs.field(validator=_short())
    tls: AMQPTLS | None = None
    allow_plaintext: bool = False
    port: int = attrs.field(
        default=attrs.Factory(lambda self: 5672 if self.tls is None else 5671, takes_self=True),
        validator=[validators.ge(1), validators.le(65535)],
    )
    vhost: str = attrs.field(default="/", validator=_short())
    exchange: str = attrs.field(default="qmp", validator=_short(_MAX_EXCHANGE))
    user: str | None = None
    password: str = attrs.field(default="", repr=False)
    window: int = attrs.field(default=200, validator=validators.ge(1))
    connect_timeout: float = attrs.field(default=10.0, validator=validators.gt(0))
    heartbeat: int = attrs.field(default=30, validator=[validators.ge(0), validators.le(65535)])
    blocked_timeout: float = attrs.field(default=60.0, validator=validators.gt(0))
    confirm_timeout: float = attrs.field(default=60.0, validator=validators.gt(0))

    def __attrs_post_init__(self) -> None:
        if self.user is None and (self.tls is None or self.tls.certificate is None):
            raise ValueError("without a user there must be a client certificate to say who we are")
        if self.tls is None and not self.allow_plaintext and not is_loopback(self.host):
            raise ValueError(f"{self.host} is another host: that needs TLS, or allow_plaintext")

    @property
    def place(self) -> str:
        """The broker, for people and logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqp' if self.tls is None else 'amqps'}://{host}:{self.port}"
