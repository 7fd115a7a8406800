"""Who is who, and who waits for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from txqmp.fleet.claims import REFUSE_FOR, Claims
from txqmp.fleet.vm import VM


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def again() -> list[str]:
    return []


@pytest.fixture
def call(again: list[str]) -> Callable[[str], Callable[[], None]]:
    return lambda name: lambda: again.append(name)


def vm(clock: Clock) -> VM:
    return VM("a", clock, print)


def test_one_is_one(claims: Claims, clock: Clock) -> None:
    first = vm(clock)
    assert claims.holder("uuid 1") is None
    claims.take("uuid 1", first)
    assert claims.holder("uuid 1") is first
    assert claims.holder("uuid 2") is None
    claims.give_back("uuid 1")
    claims.give_back("uuid 1")
    assert claims.holder("uuid 1") is None


def test_who_waits_is_told_when_it_is_free(
    claims: Claims, clock: Clock, again: list[str], call: Callable[[str], Callable[[], None]]
) -> None:
    claims.take("x", vm(clock))
    claims.take("y", vm(clock))
    claims.wait("x", clock, call("first"))
    claims.wait("x", clock, call("second"))
    other = claims.wait("y", clock, call("other"))
    claims.give_back("x")
    assert again == []
    clock.advance(0)
    assert again == ["first", "second"]
    clock.advance(REFUSE_FOR)
    assert again == ["first", "second", "other"]
    claims.give_back("y")
    other.cancel()
    clock.advance(REFUSE_FOR)
    assert len(again) == 3


def test_who_waits_may_go(
    claims: Claims, clock: Clock, again: list[str], call: Callable[[str], Callable[[], None]]
) -> None:
    claims.take("x", vm(clock))
    waiter = claims.wait("x", clock, call("first"))
    waiter.cancel()
    waiter.cancel()
    claims.give_back("x")
    clock.advance(REFUSE_FOR)
    assert again == []


def test_nothing_is_left_of_who_waited(
    claims: Claims, clock: Clock, call: Callable[[str], Callable[[], None]]
) -> None:
    claims.take("x", vm(clock))
    for _ in range(3):
        claims.wait("x", clock, call("again"))
        clock.advance(REFUSE_FOR)
    assert claims._waiting == {}
