"""The tables ``[[sink]]``: which keys those of each kind have."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import attrs

from txqmp.monitor.config import places
from txqmp.monitor.config.filters import pattern_of, type_pattern
from txqmp.monitor.config.model import Sink
from txqmp.monitor.config.secrets import open_path, secret, secret_path
from txqmp.monitor.config.table import (
    At,
    Key,
    Keys,
    Reported,
    boolean,
    checked,
    choice,
    duration,
    integer,
    kind_of,
    make,
    members,
    nearest,
    quoted,
    several,
    table,
    text,
    whole_seconds,
)
from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.amqp.settings import AMQPTLS, AMQPSettings
from txqmp.monitor.sinks.settings import (
    FACILITIES,
    ClientTLS,
    ExecSettings,
    JournaldSettings,
    JSONLSettings,
    StdoutSettings,
    SyslogFormat,
    SyslogSettings,
    WebhookMode,
    WebhookSettings,
)
from txqmp.monitor.spool.cursors import Start
from txqmp.monitor.spool.filter import Filter


MAX_NAME = 200
"""The longest name of a sink, in characters."""


def sink_name(value: str) -> str:
    """
    What a sink may be called.

    :raises ValueError: it may not.
    """
    if not value.isprintable() or value != value.strip() or len(value) > MAX_NAME:
        raise ValueError(f"{quoted(value)} is no name: up to {MAX_NAME} characters that print")
    return value


def _path(value: Any, at: At) -> str:
    return places.file(at.path(text(value, at)))


def _socket(value: Any, at: At) -> str:
    return at.path(text(value, at))


def _facility(value: str) -> str:
    if value not in FACILITIES:
        near = nearest(value, dict.fromkeys(FACILITIES))
        hint = f"; did you mean {quoted(near)}?" if near else ", such as daemon or local0"
        raise ValueError(f"{quoted(value)} is no facility{hint}")
    return value


def _signing_key(value: Any, at: At) -> SigningKey:
    return SigningKey.parse(secret(value, at))


def _command(value: Any, at: At) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError('it must be a list of the program and its arguments: ["/usr/bin/…", "…"]')
    words: tuple[str, ...] = several(_argument, least=1)(value, at)
    program = words[0]
    if not os.path.isabs(program):
        raise ValueError(f"{program!r} is no absolute path of a program")
    if not os.path.isfile(program) or not os.access(program, os.X_OK):
        raise ValueError(f"{program} is no program that can be run")
    return words


def _argument(value: Any, at: At) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("it must be text")
    return value


_TLS: Keys = {
    "ca": Key(open_path),
    "cert": Key(open_path, "certificate"),
    "key": Key(secret_path),
}
_NETWORKS = several(checked(ip_network))
_LIMIT = duration(0.001, 86400.0)


@attrs.frozen
class Kind:
    """
    A kind of sink.

    :ivar make: what makes its settings.
    :ivar keys: what it has beside the keys that all have.
    """

    make: Callable[..., Any]
    keys: Keys


KINDS = {
    "stdout": Kind(StdoutSettings, {}),
    "jsonl": Kind(JSONLSettings, {"path": Key(_path, required=True)}),
    "webhook": Kind(
        WebhookSettings,
        {
            "url": Key(checked(places.url), required=True),
            "mode": Key(choice(WebhookMode)),
            "signing_keys": Key(several(_signing_key)),
            "authorization": Key(secret),
            "timeout": Key(duration(0.001, 3600.0)),
            "batch": Key(integer(1, 1000)),
            "tls": Key(table(_TLS, ClientTLS)),
            "allow_plaintext": Key(boolean),
            "allow": Key(_NETWORKS),
            "deny": Key(_NETWORKS),
        },
    ),
    "amqp": Kind(
        AMQPSettings,
        {
            "host": Key(text, required=True),
            "port": Key(integer(1, 65535)),
            "vhost": Key(text),
            "exchange": Key(text),
            "user": Key(text),
            "password": Key(secret),
            "tls": Key(table({**_TLS, "server_name": Key(text)}, AMQPTLS)),
            "allow_plaintext": Key(boolean),
            "window": Key(integer(1, 100_000)),
            "connect_timeout": Key(_LIMIT),
            "heartbeat": Key(whole_seconds(65535)),
            "blocked_timeout": Key(_LIMIT),
            "confirm_timeout": Key(_LIMIT),
        },
    ),
    "syslog": Kind(
        SyslogSettings,
        {
            "path": Key(_socket),
            "facility": Key(checked(_facility)),
            "format": Key(choice(SyslogFormat)),
            "identifier": Key(text),
        },
    ),
    "journald": Kind(JournaldSettings, {"path": Key(_socket), "identifier": Key(text)}),
    "exec": Kind(
        ExecSettings,
        {
            "command": Key(_command, required=True),
            "timeout": Key(_LIMIT),
            "grace": Key(duration(0.001, 60.0)),
        },
    ),
}
"""The kinds of sinks, by the ``type`` of their tables."""

_OWN = ("name", "max_age", "start")  # members of the sink, whatever its kind


def common_keys(qemu_types: str, own_types: str) -> Keys:
    """
    The keys that sinks of all kinds have.

    :param qemu_types: what the types of QEMU's events begin with.
    :param own_types: what those of the daemon's own words begin with.
    """
    return {
        "type": Key(text, required=True),
        "name": Key(checked(sink_name)),
        "events": Key(several(checked(lambda t: type_pattern(t, qemu_types, own_types)), least=1)),
        "vms": Key(several(checked(pattern_of), least=1)),
        "max_age": Key(duration(1.0)),
        "start": Key(choice(Start)),
    }


def read_sink(value: dict[str, Any], common: Keys, at: At) -> Sink:
    """
    A sink.

    :param value: its table.
    :param common: of :func:`common_keys`.
    :raises Reported: something is wrong with it.
    """
    type = value.get("type")
    kind = KINDS.get(type) if isinstance(type, str) else None
    if kind is None:
        at.problem(_no_kind(type))
        raise Reported
    found = members(value, {**common, **kind.keys}, at)
    del found["type"]
    filter = Filter(types=found.pop("events", ()), vms=found.pop("vms", ()))
    chosen = {name: found.pop(name) for name in _OWN if name in found}
    settings = make(kind.make, found, at)
    return Sink(settings=settings, filter=filter, **chosen)


def _no_kind(type: object) -> str:
    there = ", ".join(KINDS)
    if type is None:
        return f'"type" is missing: one of {there}'
    if not isinstance(type, str):
        return f"type: it must be text, and is {kind_of(type)}"
    near = nearest(type, KINDS)
    hint = f"did you mean {quoted(near)}?" if near else f"there are {there}"
    return f"type: {quoted(type)} is no kind of sink; {hint}"
