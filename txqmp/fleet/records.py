"""
What the fleet tells: one :class:`Record` for each thing that happens to a VM, numbered.

What the ``details`` of each kind hold is said at :class:`Kind`. Times in them are texts in UTC,
such as ``"2026-11-21T01:20:00.123456Z"``; a member that is called optional is left out where there
is nothing to say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import attrs

from txqmp.messages import Event


# Of the year 9999: no calendar holds more.
_LAST_SECOND = 253402300799
_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})


class Kind(enum.Enum):
    """What a record tells. ``EVENT`` is QEMU's own word, the others are ours."""

    EVENT = "event"
    """QEMU sent an event. It has no details."""
    CONNECTED = "connected"
    """
    A session with the VM began: it has come, or it has returned. ``where``: the place of its
    monitor, or the one that it dialled. ``is``: who it is, and what tells so, such as
    ``"uuid 4c4c4544-…"`` (:mod:`txqmp.fleet.naming`). ``qemu``: QEMU's version. ``package``,
    optional: the version of the distribution's package. ``peer``, of one that dialled us: who was
    at the other end, such as ``"pid 4711"``.
    """
    GAP = "gap"
    """
    Nobody listened for a while, and what happened then is not known (fact G37). It follows the
    ``CONNECTED`` that ends it; a ``SNAPSHOT`` follows. ``since``: the time of the last thing that
    was heard of the VM, be it the end of its connection; where another client held its monitor from
    the first, when that was found out. ``until``: when the session began. ``seconds``: from the one
    to the other; 0 where the clock was set back meanwhile. ``reason``: why, in words.
    """
    SNAPSHOT = "snapshot"
    """
    How the VM is, asked after each beginning of a session; it stands among the events where its
    answer came. ``query-status``, ``query-name``, ``query-uuid``: what each returned, optional.
    ``errors``, optional: for the others, why they failed, in words by command.
    """
    DISCONNECTED = "disconnected"
    """
    The session ended: the VM is gone, or cannot be heard any more. ``reason``: how, in words.
    ``expected``: whether that was foreseen, because we left or SHUTDOWN came before. ``ended``,
    optional: how the VM itself ended, as far as can be told; not where we left, the session broke
    or the network may have failed. ``shutdown``, optional: the data of the last SHUTDOWN of the
    session. ``malformed``, optional: how many messages of the wrong shape came in it.

    ``ended`` has three members. ``by``: ``"guest"``, ``"host"`` or ``"unknown"``. ``graceful``:
    whether QEMU said that it was to end, and neither a panic of the guest nor an error of the host
    was why. ``reason``: SHUTDOWN's, such as ``"guest-shutdown"``, or ``"without a word"``: QEMU was
    killed, or has crashed.
    """
    BUSY = "busy"
    """
    Another client holds the VM's monitor (fact G1), or QEMU is stopped (fact G5): they look the
    same. Told once until that changes. ``reason``: what was seen, in words.
    """
    REFUSED = "refused"
    """
    Another QEMU claims to be this VM, and is not heard. Told the 1st, 2nd, 4th, 8th … time.
    ``peer``: who, or where. ``reason``: what both claim. ``count``: how often it happened so far.
    """
    DROPPED = "dropped"
    """Events were lost here. ``count``: so many. ``reason``: why, in words."""
    GONE = "gone"
    """
    The VM is watched no more. ``reason``: why, such as that its socket has vanished, or that it did
    not come back after the daemon had not run.
    """


@attrs.frozen(kw_only=True, slots=True)
class Record:
    """
    One thing that happened to a VM.

    :ivar vm: the VM's name.
    :ivar identity: what stays the VM's if it is named anew: its UUID, where it has one that is not
        all zero, else its name.
    :ivar seq: the number among all the VM's records: 1, 2, 3 … as long as the fleet remembers it. A
        hole is a loss.
    :ivar session: the number of the session, which grows with each return; 0 before the first.
    :ivar received: when it came to our notice, in seconds since the epoch.
    :ivar kind: what is told.
    :ivar event: QEMU's event as it came, where the kind is ``EVENT``.
    :ivar details: what there is to say otherwise; JSON values by name.
    """

    vm: str
    identity: str = attrs.field(default=attrs.Factory(lambda self: self.vm, takes_self=True))
    seq: int
    session: int
    received: float
    kind: Kind
    event: Event | None = None
    details: Mapping[str, Any] = _NO_DETAILS

    @property
    def time(self) -> datetime:
        """When it happened, in UTC: QEMU's time, or ours where QEMU's clock failed (fact G40)."""
        happened = self.event.timestamp.datetime() if self.event is not None else None
        return utc(self.received) if happened is None else happened


@attrs.frozen
class Past:
    """
    What is remembered of a VM from before the daemon began.

    :ivar session: the number of its last session.
    :ivar seq: the number of its last record.
    :ivar last_time: when that came to our notice, in seconds since the epoch.
    :ivar identity: what identified it; ``None`` for its name.
    :ivar over: whether its last record told that it has ended or was watched no more.
    :raises ValueError: a number is negative, or the time is none.
    """

    session: int = attrs.field(validator=attrs.validators.ge(0))
    seq: int = attrs.field(validator=attrs.validators.ge(0))
    last_time: float = attrs.field(
        validator=[attrs.validators.ge(0), attrs.validators.le(_LAST_SECOND)]
    )
    identity: str | None = None
    over: bool = False


def utc(seconds: float) -> datetime:
    """A time in UTC from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def timestamp(when: datetime) -> str:
    """A time in UTC as text, such as ``"2026-11-21T01:20:00.123456Z"``."""
    return when.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
