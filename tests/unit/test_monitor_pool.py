"""The connection of a webhook."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.web.client import HTTPConnectionPool

from txqmp.monitor.sinks.webhook.pool import OneConnection


class Transport:
    aborted = 0

    def abortConnection(self) -> None:
        self.aborted += 1


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()


def test_aborts_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    monkeypatch.setattr(
        HTTPConnectionPool, "getConnection", lambda self, key, endpoint: succeed(connection)
    )
    pool = OneConnection(Clock())
    found: list[Any] = []
    pool.getConnection(("http", "host", 80), None).addCallback(found.append)
    assert found == [connection]
    pool.abort()
    pool.abort()
    assert connection.transport.aborted == 1


def test_nothing_to_abort() -> None:
    OneConnection(Clock()).abort()


def test_nothing_is_posted_twice() -> None:
    """Twisted's pools repeat a request on a connection that turns out to be closed."""
    pool = OneConnection(Clock())
    assert pool.retryAutomatically is False
    assert pool.persistent is True
    assert pool.maxPersistentPerHost == 1
