"""How a connection that is one too many is ended: :class:`Refusal`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure


class Refusal(Protocol):
    """
    Closes a connection when the peer has spoken, or has not for a while.

    Not earlier: a QEMU that dials as it starts, and finds the connection closed before its greeting
    is out, may crash (fact G48).

    :param limit: how long the peer gets to speak, in seconds.
    :param over: called with this object when the connection is closed.
    """

    transport: ITCPTransport | None

    def __init__(self, clock: IReactorTime, limit: float, over: Callable[[Refusal], None]) -> None:
        self._clock = clock
        self._limit = limit
        self._over = over
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(self._limit, self._too_late)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def _too_late(self) -> None:
        self._timer = None
        self.abort()

    def abort(self) -> None:
        """Close the connection, if there is one, at once."""
        if self.transport is not None:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._over(self)
