"""The states of a session, and waiting for them."""

from __future__ import annotations

import enum
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed


class RunState(enum.Enum):
    """What a session is doing."""

    IDLE = "idle"
    """Not connected: not yet, or not any more."""
    CONNECTING = "connecting"
    """Connected; greeting or negotiation is under way."""
    RUNNING = "running"
    """Commands can be executed."""
    DISCONNECTING = "disconnecting"
    """The end is under way."""


class Lifecycle:
    """
    The state of one session, and who waits for which.

    :ivar state: what the session is doing.
    """

    __slots__ = ("_make_error", "_waiters", "state")

    def __init__(self) -> None:
        self.state = RunState.IDLE
        self._waiters: tuple[tuple[frozenset[RunState], Deferred[RunState]], ...] = ()
        self._make_error: Callable[[], Exception] | None = None

    @property
    def over(self) -> bool:
        """Whether the session has ended; it never comes back."""
        return self._make_error is not None

    def when(self, *states: RunState) -> Deferred[RunState]:
        """
        Wait for any of these states: a fresh Deferred, which fails where the session ended
        without coming to one.
        """
        if self.state in states:
            return succeed(self.state)
        if self._make_error is not None:
            return fail(self._make_error())
        deferred: Deferred[RunState] = Deferred(self._forget)
        self._waiters = (*self._waiters, (frozenset(states), deferred))
        return deferred

    def _forget(self, deferred: Deferred[RunState]) -> None:
        self._waiters = tuple(waiter for waiter in self._waiters if waiter[1] is not deferred)

    def enter(self, state: RunState) -> None:
        """Come to a state, and tell who waits for it."""
        self.state = state
        self.tell()

    def tell(self) -> None:
        """Tell who waits for the present state."""
        state = self.state
        reached = [deferred for wanted, deferred in self._waiters if state in wanted]
        self._waiters = tuple(waiter for waiter in self._waiters if state not in waiter[0])
        for deferred in reached:
            if not deferred.called:
                deferred.callback(state)

    def finish(self, make_error: Callable[[], Exception]) -> None:
        """The session has ended, for good; :meth:`release` tells who waits."""
        self.state = RunState.IDLE
        self._make_error = make_error

    def release(self) -> bool:
        """
        Tell all who wait that the session has ended.

        :returns: whether an error was told to anybody.
        """
        assert self._make_error is not None
        self.tell()
        waiters, self._waiters = self._waiters, ()
        for _, deferred in waiters:
            if not deferred.called:
                deferred.errback(self._make_error())
        return bool(waiters)
