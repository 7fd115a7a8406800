"""The connections of a server: how many there may be, and their end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure


MAX_CONNECTIONS = 128
"""How many connections there may be."""

GRACE = 1.0
"""How long a connection has at the end to take what was written to it, in seconds."""


class _Connection(ProtocolWrapper):
    """One connection."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        # Only now has the protocol put its things away.
        self.factory.has_lost_one()


class Connections(WrappingFactory):
    """
    Makes the connections of a factory, and knows them.

    :param clock: tells the time.
    :param factory: makes the protocols.
    :param maximum: how many there may be; more are closed at once.

    :ivar refused: how many were closed because of that.
    """

    noisy = False
    protocol = _Connection

    def __init__(
        self,
        clock: IReactorTime,
        factory: Any,
        *,
        maximum: int = MAX_CONNECTIONS,
        grace: float = GRACE,
    ) -> None:
        super().__init__(factory)
        self.refused = 0
        self._clock = clock
        self._maximum = maximum
        self._grace = grace
        self._closers: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self.protocols)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.protocols) >= self._maximum:
            self.refused += 1
            return None
        return super().buildProtocol(addr)

    def close(self) -> Deferred[None]:
        """
        End all connections; when nobody can make new ones any more.

        :returns: a Deferred that fires when there are none, a little after the ``grace`` at the
            latest: who does not read by then is cut off.
        """
        closed: Deferred[None] = Deferred()
        self._closers.append(closed)
        if self._deadline is None:
            self._deadline = self._clock.callLater(self._grace, self._abort)
        for connection in tuple(self.protocols):
            # While it has a producer that is paused, a transport does not close.
            connection.unregisterProducer()
            connection.loseConnection()
        self.has_lost_one()
        return closed

    def _abort(self) -> None:
        for connection in tuple(self.protocols):
            connection.abortConnection()

    def has_lost_one(self) -> None:
        """A connection is gone: that may be the end."""
        if not self._closers or self.protocols:
            return
        closers, self._closers = self._closers, []
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        for closed in closers:
            closed.callback(None)
