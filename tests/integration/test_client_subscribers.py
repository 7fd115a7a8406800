"""Subscribers that raise, stall or never read change nothing for others (fact G39).

The long run, a million events, is ``python tests/soak flood``.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from soak import flood
from support.leaks import LoggedErrors
from support.qemu import RealQEMU
from support.sessions import Dial
from txqmp import DisconnectedError, Event, EventTimeoutError


pytest_plugins = ["support.sessions"]


class BrokenError(Exception):
    """What subscribers raise here."""


def broken(event: Event) -> None:
    raise BrokenError(event.name)


async def broken_later(event: Event) -> None:
    await Deferred.fromCoroutine(nothing())
    raise BrokenError(event.name)


async def nothing() -> None:
    pass


@pytest_twisted.ensureDeferred
async def test_raising(qemu: RealQEMU, dial: Dial, logged_errors: LoggedErrors) -> None:
    session = await dial(qemu.path())
    before: list[str] = []
    after: list[str] = []
    session.subscribe(lambda event: before.append(event.name))
    raising = [
        session.subscribe(broken),
        session.subscribe(broken, "S*", where=broken),
        session.subscribe(broken_later),
        session.subscribe(lambda event: event.data["absent"]),
    ]
    waiter = session.wait_for(where=broken, timeout=0.5)
    session.subscribe(lambda event: after.append(event.name))
    listener = session.listen()
    for _ in range(20):
        await session.execute("cont")
        await session.execute("stop")
    assert before == after == ["RESUME", "STOP"] * 20
    assert [event.name for event in listener.clear()] == before
    assert [subscription.failures for subscription in raising] == [40, 20, 40, 40]
    with pytest.raises(EventTimeoutError):
        await waiter
    # Each is logged once, not on every event.
    assert len(logged_errors.flush(BrokenError)) == 4
    assert len(logged_errors.flush(KeyError)) == 1
    assert (await session.execute("query-status"))["running"] is False


@pytest_twisted.ensureDeferred
async def test_callbacks_that_call(qemu: RealQEMU, dial: Dial) -> None:
    """A callback may execute commands, subscribe, cancel itself, and disconnect."""
    session = await dial(qemu.path())
    seen: list[str] = []

    def once(event: Event) -> None:
        seen.append(f"once {event.name}")
        subscription.cancel()
        session.subscribe(lambda event: seen.append(f"new {event.name}"))

    async def asks(event: Event) -> None:
        status = await session.execute("query-status")
        seen.append(f"asked {status['running']}")

    subscription = session.subscribe(once)
    asking = session.subscribe(asks, "RESUME")
    await session.execute("cont")
    await session.execute("stop")
    assert seen == ["once RESUME", "asked True", "new STOP"]
    asking.cancel()
    gone: list[Deferred[None]] = []
    session.subscribe(lambda event: gone.append(session.disconnect()), "RESUME")
    # The reply may have come with the event, or not.
    await session.execute("cont").addErrback(lambda failure: failure.trap(DisconnectedError))
    await gone[0]
    assert seen[3:] == ["new RESUME"]


@pytest_twisted.ensureDeferred
async def test_flood(logged_errors: LoggedErrors) -> None:
    report = await flood.run(reactor, 100_000)
    assert report.problems() == []
    assert report.listener == report.stuck == 1000
    assert len(logged_errors.flush(*flood.EXPECTED)) == 1
