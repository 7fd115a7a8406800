"""The connection of a webhook: one, kept, and ended for certain."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.client import HTTPConnectionPool


class OneConnection(HTTPConnectionPool):
    """
    A pool for who posts one thing after another to one place.

    Nothing is posted twice behind the sender's back, and the connection in use can be cut off: to
    stop reading an answer only asks a TLS peer to close, which one that hangs never does.
    """

    maxPersistentPerHost = 1
    cachedConnectionTimeout = 60
    retryAutomatically = False

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, persistent=True)
        self._in_use: Any = None

    def getConnection(self, key: Hashable, endpoint: Any) -> Deferred[Any]:
        self._in_use = None

        def remember(connection: Any) -> Any:
            self._in_use = connection
            return connection

        return super().getConnection(key, endpoint).addCallback(remember)

    def abort(self) -> bool:
        """Cut off the connection that was used last; return whether there was one."""
        connection, self._in_use = self._in_use, None
        transport = getattr(connection, "transport", None)
        if transport is None:
            return False
        transport.abortConnection()
        return True
