"""What the fleet tells: one :class:`Record` for each thing that happens to a VM, numbered."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import attrs

from txqmp.messages import Event


_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})


class Kind(enum.Enum):
    """What a record tells. ``EVENT`` is QEMU's own word, the others are ours."""

    EVENT = "event"
    """QEMU sent an event."""
    CONNECTED = "connected"
    """A session with the VM began: it has come, or it has returned."""
    GAP = "gap"
    """Nobody listened for a while, and what happened then is not known (fact G37)."""
    SNAPSHOT = "snapshot"
    """How the VM is, asked after each beginning of a session."""
    DISCONNECTED = "disconnected"
    """The session ended: the VM is gone, or cannot be heard any more."""
    BUSY = "busy"
    """Another client holds the VM's monitor (fact G1)."""
    REFUSED = "refused"
    """Another QEMU claims to be this VM, and is not heard."""
    DROPPED = "dropped"
    """Records were lost here, and so many."""
    GONE = "gone"
    """The VM's socket has vanished: it is watched no more."""


@attrs.frozen(kw_only=True, slots=True)
class Record:
    """
    One thing that happened to a VM.

    :ivar vm: the VM's name.
    :ivar seq: the number among all the VM's records: 1, 2, 3 … as long as the fleet lives. A hole
        is a loss.
    :ivar session: the number of the session, which grows with each return; 0 before the first.
    :ivar received: when it came to our notice, in seconds since the epoch.
    :ivar kind: what is told.
    :ivar event: QEMU's event as it came, where the kind is ``EVENT``.
    :ivar details: what there is to say otherwise; JSON values by name.
    """

    vm: str
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


def utc(seconds: float) -> datetime:
    """A time in UTC from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def timestamp(when: datetime) -> str:
    """A time in UTC as text, such as ``"2026-11-21T01:20:00.123456Z"``."""
    return when.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
