"""The connection of a webhook."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
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
    assert pool.abort()
    assert not pool.abort()
    assert connection.transport.aborted == 1


def test_what_is_being_connected_is_not_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = [succeed(Connection()), Deferred()]
    monkeypatch.setattr(
        HTTPConnectionPool, "getConnection", lambda self, key, endpoint: results.pop(0)
    )
    pool = OneConnection(Clock())
    pool.getConnection(("http", "host", 80), None)
    pool.getConnection(("http", "host", 80), None)
    assert not pool.abort()


def test_nothing_to_abort() -> None:
    assert not OneConnection(Clock()).abort()


def test_nothing_is_posted_twice() -> None:
    """Twisted's pools repeat a request on a connection that turns out to be closed."""
    pool = OneConnection(Clock())
    assert pool.retryAutomatically is False
    assert pool.persistent is True
    assert pool.maxPersistentPerHost == 1
