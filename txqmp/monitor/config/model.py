"""What the daemon is to do, as frozen objects: :class:`Config` and its parts."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import TypeAlias

import attrs
from attrs import validators

from txqmp.fleet.peers import Peers
from txqmp.fleet.scan import RESCAN
from txqmp.monitor.envelope import OWN_TYPES, QEMU_TYPES, Envelope
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.settings import (
    ExecSettings,
    JournaldSettings,
    JSONLSettings,
    StdoutSettings,
    SyslogSettings,
    WebhookSettings,
    shown,
)
from txqmp.monitor.spool.cursors import Start
from txqmp.monitor.spool.filter import EVERYTHING, Filter
from txqmp.monitor.spool.limits import DEFAULT_LIMITS, SpoolLimits


DEMO_NAME = "demo"
"""What the VM of the demonstration is called."""

MAX_AGE = 72 * 3600.0
"""How old an event may become before a sink gives it up, in seconds, where nothing is chosen."""

STATE_VARIABLE = "STATE_DIRECTORY"
"""The environment variable in which systemd names the directory of ``StateDirectory=``."""


# Sources


@attrs.frozen(kw_only=True)
class Dial:
    """
    A monitor to dial.

    :ivar where: the place, as for :func:`txqmp.connect`.
    :ivar name: what to call the VM.
    :ivar named: whether that was chosen: then it is who the VM is. A name that was made of the
        place's is not (:mod:`txqmp.fleet.naming`).
    """

    where: str
    name: str
    named: bool = attrs.field(default=True, eq=False)


Endpoint = Dial
"""The name that :class:`Dial` had first."""


@attrs.frozen(kw_only=True)
class Glob:
    """
    Sockets to dial, as they come and go.

    :ivar patterns: such as ``/var/run/qemu-server/*.qmp``. What is read from a file or a command
        line has one here, so that each can be changed without the others.
    :ivar rescan: how often to look for them, in seconds.
    """

    patterns: tuple[str, ...]
    rescan: float = RESCAN


@attrs.frozen(kw_only=True)
class Listen:
    """
    A place where QEMU dials us.

    :ivar where: the place, as for :func:`txqmp.listen`.
    :ivar allow: who may connect; ``None`` for whoever the socket's mode lets.
    """

    where: str
    allow: Peers | None = None


Source: TypeAlias = Dial | Glob | Listen
"""Where VMs come from."""


# Sinks

SinkSettings: TypeAlias = (
    StdoutSettings
    | JSONLSettings
    | WebhookSettings
    | AMQPSettings
    | SyslogSettings
    | JournaldSettings
    | ExecSettings
)
"""What can be chosen about a sink of each kind."""


def name_for(settings: SinkSettings) -> str:
    """What a sink is called that was given no name: its kind, and where it delivers."""
    match settings:
        case StdoutSettings():
            return "stdout"
        case JSONLSettings():
            return f"jsonl {settings.path}"
        case WebhookSettings():
            return f"webhook {shown(settings.url)}"
        case AMQPSettings():
            return f"{settings.place} vhost {settings.vhost} exchange {settings.exchange}"
        case SyslogSettings():
            return f"syslog {settings.path}"
        case JournaldSettings():
            return "journald"
        case ExecSettings():
            return f"exec {settings.command[0]}"


@attrs.frozen(kw_only=True)
class Sink:
    """
    A place to deliver events to.

    :ivar settings: which kind, and what is chosen about it.
    :ivar name: what the spool remembers its place by: a sink with another name starts anew, one
        with other settings goes on. :func:`name_for` makes the default.
    :ivar filter: which events it gets.
    :ivar max_age: how old an event may become before it is given up, in seconds.
    :ivar start: where it begins, when it is new.
    """

    settings: SinkSettings
    name: str = attrs.field(
        default=attrs.Factory(lambda self: name_for(self.settings), takes_self=True)
    )
    filter: Filter = EVERYTHING
    max_age: float = attrs.field(default=MAX_AGE, validator=validators.gt(0))
    start: Start = Start.END


# The rest


@attrs.frozen(kw_only=True)
class HTTP:
    """
    The status page and the metrics, as :class:`~txqmp.monitor.web.service.WebService` takes them.

    :ivar listen: where.
    :ivar names: what this server is called in URLs, beside ``localhost`` and its addresses.
    :ivar remote: whether others than this host may connect.
    :ivar log_requests: write a line to the log for each request.
    """

    listen: str
    names: tuple[str, ...] = ()
    remote: bool = False
    log_requests: bool = False


def default_node() -> str:
    """
    The name of this host, as the kernel has it. It is not looked up in the DNS: that can take long,
    and may say something else tomorrow, while receivers tell events apart by the node too.
    """
    return re.sub(r"[^A-Za-z0-9._~-]+", "-", socket.gethostname())[:253].strip("-") or "localhost"


def default_state_dir(environ: Mapping[str, str] = os.environ) -> str | None:
    """The directory that systemd made for the daemon's state; ``None`` where it made none."""
    # There may be several, with colons between.
    return environ.get(STATE_VARIABLE, "").partition(":")[0] or None


@attrs.frozen(kw_only=True)
class Config:
    """
    What the daemon is to do.

    :ivar node: the name of this host in all events.
    :ivar state_dir: where to keep what is to outlive the daemon: the spool; ``None`` to keep
        nothing. systemd's ``StateDirectory=`` is the default.
    :ivar sources: where VMs come from.
    :ivar events: names of QEMU's events, or globs of names, that are taken in at all; none for all.
        What the daemon says itself is always told.
    :ivar spool: how much is kept for sinks that are behind.
    :ivar qemu_types: what the types of QEMU's events begin with.
    :ivar own_types: what those of the daemon's own words begin with.
    :ivar sinks: where events are delivered to.
    :ivar http: the status page and the metrics; ``None`` for none.
    :ivar demo: start a VM, and watch it.
    :raises ValueError: the node or one of the prefixes cannot be one.
    """

    node: str = attrs.field(factory=default_node)
    state_dir: str | None = attrs.field(factory=default_state_dir)
    sources: tuple[Source, ...] = ()
    events: tuple[str, ...] = ()
    spool: SpoolLimits = DEFAULT_LIMITS
    qemu_types: str = QEMU_TYPES
    own_types: str = OWN_TYPES
    sinks: tuple[Sink, ...] = ()
    http: HTTP | None = None
    demo: bool = False

    def __attrs_post_init__(self) -> None:
        self.envelope()

    def envelope(self) -> Envelope:
        """What makes CloudEvents of the daemon's records."""
        return Envelope(node=self.node, qemu_types=self.qemu_types, own_types=self.own_types)

    @property
    def stdout(self) -> bool:
        """Whether events are printed."""
        return any(isinstance(sink.settings, StdoutSettings) for sink in self.sinks)
