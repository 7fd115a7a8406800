"""What a factory tells about its sessions: :class:`Observer`, :class:`Gap`, :class:`Snapshot`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txqmp.errors import QMPError
from txqmp.protocol import QMPProtocol


@attrs.frozen
class Gap:
    """
    A time in which nobody listened: what happened in it is not known (fact G37).

    :ivar since: when the last session ended, in seconds since the epoch.
    :ivar until: when the next one began.
    :ivar reason: how the last session ended, in words.
    """

    since: float
    until: float
    reason: str


@attrs.frozen
class Snapshot:
    """
    How things are after a gap.

    :ivar results: what each query returned, by the command's name.
    :ivar errors: for the queries that failed, why, by the command's name.
    """

    results: dict[str, Any]
    errors: dict[str, BaseException]


def ignore(*_: Any) -> None:
    """The default of each of :class:`Observer`'s callbacks."""


@attrs.define(eq=False, kw_only=True)
class Observer:
    """
    Who is told of a factory's sessions. What a callback raises is logged, and hurts nobody.

    :ivar ready: called with each session that runs, before its events are delivered.
    :ivar lost: called with a session that ran and is over, and with the
        :exc:`~txqmp.errors.DisconnectedError` that tells how it ended.
    :ivar gap: called with the :class:`Gap`, once after each return, after ``ready``.
    :ivar snapshot: called with the :class:`Snapshot` that follows.
    :ivar failed: called with the error of each attempt that came to nothing.
    """

    ready: Callable[[QMPProtocol], Any] = ignore
    lost: Callable[[QMPProtocol, QMPError], Any] = ignore
    gap: Callable[[Gap], Any] = ignore
    snapshot: Callable[[Snapshot], Any] = ignore
    failed: Callable[[QMPError], Any] = ignore
    _observers: list[Observer] = attrs.field(factory=list, repr=False)

    def cancel(self) -> None:
        """Be told no more."""
        if self in self._observers:
            self._observers.remove(self)


def ask(session: QMPProtocol, *commands: str) -> Deferred[Snapshot]:
    """
    Run some queries.

    :param commands: their names.
    :returns: a Deferred of what each returned, or why it failed. It does not fail itself.
    """
    results: dict[str, Any] = {}
    errors: dict[str, BaseException] = {}

    def answered(outcome: Any, command: str) -> None:
        if isinstance(outcome, Failure):
            errors[command] = cast(BaseException, outcome.value)
        else:
            results[command] = outcome

    queries = [session.execute(each).addBoth(answered, each) for each in commands]
    return DeferredList(queries).addCallback(lambda _: Snapshot(results, errors))
