"""How much a spool holds, and what happens when that is not enough."""

from __future__ import annotations

import enum

import attrs
from attrs.validators import ge, gt


class WhenFull(enum.Enum):
    """What happens when the records that are not yet delivered take up all the room."""

    DROP_OLDEST = "drop_oldest"
    """The oldest go. The sinks that have not had them lose them, and are told; no other does."""
    BLOCK = "block"
    """No record is taken in until a sink has delivered some; whoever puts one in waits."""


@attrs.frozen(kw_only=True)
class SpoolLimits:
    """
    How much a spool holds.

    :ivar max_bytes: how large all records may be together (:attr:`Item.size`). The files on the
        disk are somewhat larger, and do not shrink again.
    :ivar when_full: what happens when that is not enough.
    :ivar keep_bytes: how much is kept for replay, though every sink has had it, …
    :ivar keep_seconds: … and for how long at least. ``max_bytes`` comes first.
    :ivar max_waiting: how large the records may be together that wait for their commit; one that
        comes then is refused.
    :ivar max_wait: how long a record waits for room under :attr:`WhenFull.BLOCK` before it is
        refused, in seconds.
    :ivar max_dead: how many dead letters of each sink are kept, …
    :ivar max_dead_bytes: … and how large they may be together. Beyond that the oldest go.
    """

    max_bytes: int = attrs.field(default=256 << 20, validator=gt(0))
    when_full: WhenFull = WhenFull.DROP_OLDEST
    keep_bytes: int = attrs.field(default=16 << 20, validator=ge(0))
    keep_seconds: float = attrs.field(default=0.0, validator=ge(0))
    max_waiting: int = attrs.field(default=32 << 20, validator=gt(0))
    max_wait: float = attrs.field(default=60.0, validator=gt(0))
    max_dead: int = attrs.field(default=1000, validator=ge(1))
    max_dead_bytes: int = attrs.field(default=16 << 20, validator=ge(1))


DEFAULT_LIMITS = SpoolLimits()
"""What holds where nothing is chosen."""
