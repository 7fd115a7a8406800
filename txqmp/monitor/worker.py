"""A thread for what blocks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


_T = TypeVar("_T")
_Job = tuple["Deferred[Any]", Callable[..., Any], tuple[Any, ...]]


class Runner(Protocol):
    """Runs functions where they block nobody, one after another."""

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Run a function; a Deferred of what it returns or raises."""

    def stop(self) -> None:
        """Run nothing more, after what was asked for."""

    def join(self) -> None:
        """Return when what was stopped has ended. It blocks as long as something runs."""


class Worker:
    """
    A thread that runs functions one after another. Twisted's own threads are waited for when the
    reactor stops; this one is not, so that a write that never returns does not hold up the end.

    :param reactor: where the results go.
    :param name: of the thread.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped: threading.Thread | None = None

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Run a function; a Deferred of what it returns or raises."""
        deferred: Deferred[_T] = Deferred()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((deferred, function, args))
        return deferred

    def stop(self) -> None:
        """Run nothing more, after what was asked for."""
        self._stopped, self._thread = self._thread, None
        self._jobs.put(None)

    def join(self) -> None:
        """
        Return when the thread that was stopped has ended: for those who know that it has nothing
        left to do.
        """
        if self._stopped is not None:
            self._stopped.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            deferred, function, args = job
            try:
                result = function(*args)
            except BaseException:
                self._reactor.callFromThread(deferred.errback, Failure())
            else:
                self._reactor.callFromThread(deferred.callback, result)
