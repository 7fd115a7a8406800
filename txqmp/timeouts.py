"""
How long things may take: the phases of a session, and each command.

Fixed short limits fail on healthy systems (fact G6), no limits hang for ever on stopped ones
(fact G5): so the default is generous, a table gives more to the commands that are known to be
slow, and every call can set its own.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class FromTable(enum.Enum):
    """The type of :data:`FROM_TABLE`."""

    FROM_TABLE = "from the table"


FROM_TABLE: Final = FromTable.FROM_TABLE
"""A call's time limit when it names none: that of the session's :class:`Timeouts`."""

Limit = float | None | FromTable
"""A call's time limit: seconds, ``None`` for none, or :data:`FROM_TABLE`."""

_SLOW: dict[float, str] = {
    180: "guest-fsfreeze-thaw human-monitor-command screendump system_reset transaction",
    600: """
        block-commit block-job-cancel block-job-complete block-stream blockdev-add blockdev-backup
        blockdev-create blockdev-del blockdev-mirror blockdev-reopen device_add device_del
        drive-backup drive-mirror dump-guest-memory eject job-cancel job-complete job-finalize
        blockdev-change-medium blockdev-close-tray blockdev-open-tray memsave netdev_add
        netdev_del object-add object-del pmemsave query-block-jobs quit block-export-add
        block-export-del x-exit-preconfig
    """,
    3600: """
        blockdev-snapshot-delete-internal-sync blockdev-snapshot-internal-sync
        guest-fsfreeze-freeze guest-fsfreeze-freeze-list guest-fstrim query-migrate
    """,
}

COMMAND_TIMEOUTS: Mapping[str, float | None] = MappingProxyType(
    {name: seconds for seconds, names in _SLOW.items() for name in names.split()}
)
"""The limits of the commands that are known to be slow, in seconds, by name (fact G6)."""


def _limit(_: object, attribute: attrs.Attribute[Any], seconds: Any) -> None:
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"{attribute.name}: a time limit is a number of seconds, not {seconds}")


@attrs.frozen(kw_only=True)
class Timeouts:
    """
    Limits in seconds; ``None`` is no limit.

    :ivar connect: for the connection to be made.
    :ivar greeting: from there to the greeting. A monitor that another client holds connects and
        stays silent (fact G1).
    :ivar negotiation: from there to the reply to ``qmp_capabilities``.
    :ivar command: for a command that is not in :attr:`commands`, from the call to its reply, the
        time that it waits for its turn included.
    :ivar commands: for single commands, by name; an entry of ``None`` is no limit.
    :ivar slow: after how long a command is said to be still waiting, and again after each
        doubling.
    :ivar close: for the peer to take what was written, before the connection is aborted.
    """

    connect: float | None = attrs.field(default=10.0, validator=_limit)
    greeting: float | None = attrs.field(default=10.0, validator=_limit)
    negotiation: float | None = attrs.field(default=10.0, validator=_limit)
    command: float | None = attrs.field(default=60.0, validator=_limit)
    commands: Mapping[str, float | None] = COMMAND_TIMEOUTS
    slow: float | None = attrs.field(default=10.0, validator=_limit)
    close: float = attrs.field(default=3.0, validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        if self.slow == 0:
            raise ValueError("slow: a notice that comes at once comes again and again")

    def of(self, command: str, limit: Limit = FROM_TABLE) -> float | None:
        """The limit of a command, in seconds, or ``None``; ``limit`` is what its caller asks."""
        if limit is FROM_TABLE:
            return self.commands.get(command, self.command)
        return limit


class Alarm:
    """
    One delayed call that serves many deadlines: it is set for the first, and rings then, whether
    or not what it was set for is still awaited. To set it again costs nothing.

    :param clock: where the time comes from.
    :param ring: called when a deadline has come; it sets the alarm for what is left.

    :ivar at: when it rings, by the clock; infinity where no deadline is set.
    :cvar GRAIN: a deadline has come when it is no further off than this, in seconds.
    """

    __slots__ = ("_call", "_clock", "_ring", "at")

    GRAIN = 1e-6

    def __init__(self, clock: IReactorTime, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._call: IDelayedCall | None = None
        self.at = math.inf

    def set(self, deadline: float) -> None:
        """Ring at this time of the clock, or earlier where an earlier deadline was set."""
        if deadline >= self.at:
            return
        self.at = deadline
        wait = max(0.0, deadline - self._clock.seconds())
        if self._call is None:
            self._call = self._clock.callLater(wait, self._now)
        else:
            self._call.reset(wait)

    def cancel(self) -> None:
        """Forget all deadlines."""
        call, self._call = self._call, None
        self.at = math.inf
        if call is not None:
            call.cancel()

    def _now(self) -> None:
        self._call = None
        self.at = math.inf
        self._ring()
