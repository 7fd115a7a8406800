"""A reconnect storm: no session fails, whatever QEMU says before its time (facts G8, G9).

The long runs are ``python tests/soak storm`` and ``python tests/soak stale``.
"""

from __future__ import annotations

import pytest_twisted
from twisted.internet import reactor

from soak import stale, storm


@pytest_twisted.ensureDeferred
async def test_stopped_and_continued_all_the_time() -> None:
    report = await storm.run(reactor, 200)
    assert report.problems() == []
    assert report.sessions == 200
    assert report.events_caused > 0


@pytest_twisted.ensureDeferred
async def test_previous_clients_vanish() -> None:
    report = await stale.run(reactor, 100)
    assert report.problems() == []
    assert report.sessions == 100
