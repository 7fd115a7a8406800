"""Wait in the reactor, never longer than a limit. No test sleeps.

:func:`within` bounds a wait that ends by itself. :func:`until` looks again and again, and is only
for what tells nobody when it is so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, ensureDeferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp import QMPProtocol, RunState


T = TypeVar("T")

#: How long a wait may take that should end at once, in seconds: a busy machine is no failure.
LIMIT = 20.0

#: How often :func:`until` looks, in seconds.
EVERY = 0.005


def within(
    waiting: Deferred[T] | Coroutine[Any, Any, T], seconds: float = LIMIT, what: str = "the wait"
) -> Deferred[T]:
    """Return a Deferred that fires as ``waiting`` does, or fails with a ``TimeoutError``."""
    from twisted.internet import reactor

    def too_late(_: object, __: float) -> Failure:
        return Failure(TimeoutError(f"{what} was not over within {seconds:g} s"))

    return ensureDeferred(waiting).addTimeout(seconds, reactor, onTimeoutCancel=too_late)


def until(condition: Callable[[], Any], seconds: float = LIMIT) -> Deferred[None]:
    """Return a Deferred that fires when ``condition()`` is true."""
    from twisted.internet import reactor

    call: Any = None

    def look() -> None:
        nonlocal call
        call = None
        try:
            if condition():
                done.callback(None)
            else:
                call = reactor.callLater(EVERY, look)
        except Exception:
            done.errback(Failure())

    def give_up(_: object) -> None:
        if call is not None:
            call.cancel()

    done: Deferred[None] = Deferred(give_up)
    look()
    return within(done, seconds, f"the wait for {condition!r}")


def process_ended(pid: int) -> Deferred[None]:
    """Return a Deferred that fires when a process has ended; it is not reaped."""
    from twisted.internet import reactor

    watch = _ProcessWatch(pid, reactor)
    return within(watch.ended, what=f"process {pid}")


def wait_stopped(pid: int) -> None:
    """Return when a child of ours that was sent a SIGSTOP has stopped, which takes no time."""
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


async def end_session(session: QMPProtocol) -> None:
    """Cut a session off, and return when its connection is closed."""
    session.abort()
    await within(session.when_state(RunState.IDLE), what="the session's end")


@implementer(IReadDescriptor)
class _ProcessWatch:
    """Tells when a process ends: its pidfd can be read then."""

    def __init__(self, pid: int, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptor = os.pidfd_open(pid)
        self.ended: Deferred[None] = Deferred(self._close)
        reactor.addReader(self)

    def _close(self, _: object = None) -> None:
        self._reactor.removeReader(self)
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self._close()
        self.ended.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        pass

    def logPrefix(self) -> str:
        return "process watch"
