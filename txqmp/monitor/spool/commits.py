"""Group commit: what comes while one group is being written is the next group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.spool.errors import SpoolError, SpoolFullError
from txqmp.monitor.spool.intake import Intake
from txqmp.monitor.spool.limits import SpoolLimits
from txqmp.monitor.spool.records import Item
from txqmp.monitor.spool.state import SpoolState
from txqmp.monitor.spool.store import Change, Outcome, Store
from txqmp.monitor.worker import Runner


_T = TypeVar("_T")

MAX_CHANGES = 10_000
"""How many acknowledgements and the like may wait for their commit."""


class GroupCommit:
    """
    Collects what is to be written, and has one group after the other written.

    :param clock: tells the time.
    :param runner: runs what writes.
    :param failed: called if a group could not be written; it is to call :meth:`end`.
    :param observe: told how long each commit took, in seconds.

    :ivar intake: the records that wait.
    :ivar state: how the spool stands, as of the last commit.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        runner: Runner,
        limits: SpoolLimits,
        *,
        failed: Callable[[Failure], object],
        observe: Callable[[float], object],
    ) -> None:
        self.intake = Intake(clock, limits)
        self.state = SpoolState()
        self._clock = clock
        self._runner = runner
        self._failed = failed
        self._observe = observe
        # It is used in the runner's thread only; None while nothing is to be written.
        self._store: Store | None = None
        self._changes: list[tuple[Change, Deferred[Any]]] = []
        self._running: list[tuple[Change, Deferred[Any]]] | None = None
        self._watchers: dict[Deferred[None], int] = {}
        self._when_done: Callable[[], object] | None = None

    def begin(self, store: Store, state: SpoolState) -> None:
        """Write what waits, and what comes."""
        self._store = store
        self.state = state
        self._commit()

    def finish(self, done: Callable[[], object]) -> None:
        """Write what waits and can be written, and then call something."""
        self._when_done = done
        self._commit()

    def end(self, error: SpoolError) -> None:
        """Write nothing more, and tell all who wait. What is being written now may succeed."""
        self._store = None
        changes, self._changes = [*(self._running or ()), *self._changes], []
        self._running = None
        watchers, self._watchers = self._watchers, {}
        waiting: list[Deferred[Any]] = [*self.intake.give_up(), *watchers]
        waiting += [deferred for _, deferred in changes]
        for deferred in waiting:
            if not deferred.called:  # it may have been cancelled just now
                deferred.errback(error.twin())

    def put(self, item: Item) -> Deferred[int]:
        """Have a record written; a Deferred of its position."""
        position = self.intake.put(item)
        self._commit()
        return position

    def change(self, change: Change) -> Deferred[Any]:
        """Have something else written; a Deferred of what the change returns."""
        if len(self._changes) >= MAX_CHANGES:
            return fail(SpoolFullError(f"{MAX_CHANGES} changes wait for the disk"))
        deferred: Deferred[Any] = Deferred()
        self._changes.append((change, deferred))
        self._commit()
        return deferred

    def when_beyond(self, position: int) -> Deferred[None]:
        """A Deferred that fires when there is a record after a position."""
        if self.state.last > position:
            return succeed(None)
        watcher: Deferred[None] = Deferred(self._unwatch)
        self._watchers[watcher] = position
        return watcher

    def _unwatch(self, watcher: Deferred[None]) -> None:
        self._watchers.pop(watcher, None)

    def _commit(self) -> None:
        if self._store is None or self._running is not None:
            return
        # What made room since the last group is a change.
        blocked = self.intake.blocked and not self._changes
        items = [] if blocked else self.intake.offer()
        if self._changes or items:
            self._running, self._changes = self._changes, []
            changes = [change for change, _ in self._running]
            writing = self._runner.run(self._store.commit, changes, items, self._clock.seconds())
            writing.addCallback(self._committed).addErrback(self._failed)
        elif self._when_done is not None:
            done, self._when_done = self._when_done, None
            done()

    def _committed(self, outcome: Outcome) -> None:
        if self._store is None:
            return  # all have been told otherwise
        changes, self._running = self._running or [], None
        self.state = outcome.state
        taken = self.intake.took(outcome.taken, outcome.seconds)
        watchers = [each for each, position in self._watchers.items() if position < self.state.last]
        for watcher in watchers:
            del self._watchers[watcher]
        # The thread is to have something to do while all are told.
        self._commit()
        for position, deferred in enumerate(taken, outcome.first):
            deferred.callback(position)
        for (_, deferred), result in zip(changes, outcome.results, strict=True):
            if isinstance(result, Failure):
                deferred.errback(result)
            else:
                deferred.callback(result)
        for watcher in watchers:
            if not watcher.called:  # it may have been cancelled just now
                watcher.callback(None)
        try:
            self._observe(outcome.seconds)
        except Exception:
            self._log.failure("nobody could be told how long a commit took")
