"""How long things may take: the table, what overrides it, and the alarm."""

from __future__ import annotations

import math

import attrs
import pytest
from twisted.internet.task import Clock

from txqmp.timeouts import COMMAND_TIMEOUTS, FROM_TABLE, Alarm, Timeouts


def test_a_command_that_is_not_in_the_table_has_the_common_limit() -> None:
    assert Timeouts().of("query-status") == 60.0
    assert Timeouts(command=5).of("query-status") == 5
    assert Timeouts(command=None).of("query-status") is None


@pytest.mark.parametrize(
    ("command", "seconds"), [("screendump", 180), ("quit", 600), ("guest-fsfreeze-freeze", 3600)]
)
def test_a_command_that_is_known_to_be_slow_has_a_longer_one(command: str, seconds: int) -> None:
    assert Timeouts().of(command) == seconds


def test_no_slow_command_has_a_limit_under_the_common_one() -> None:
    assert min(seconds for seconds in COMMAND_TIMEOUTS.values() if seconds) > 60
    assert all(name == name.strip() and " " not in name for name in COMMAND_TIMEOUTS)


def test_the_callers_table_takes_the_place_of_ours() -> None:
    timeouts = Timeouts(commands={"stop": 1.5, "cont": None})
    assert timeouts.of("stop") == 1.5
    assert timeouts.of("cont") is None
    assert timeouts.of("quit") == 60


@pytest.mark.parametrize("limit", [0.5, 0, None])
def test_what_the_call_asks_for_counts_most(limit: float | None) -> None:
    assert Timeouts().of("quit", limit) == limit
    assert Timeouts().of("quit", FROM_TABLE) == 600


def test_limits_are_frozen_and_named() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Timeouts().connect = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Timeouts(5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        COMMAND_TIMEOUTS["stop"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "phase", ["connect", "greeting", "negotiation", "command", "slow", "close"]
)
@pytest.mark.parametrize("limit", [-1, math.nan])
def test_a_limit_that_makes_no_sense_is_refused(phase: str, limit: float) -> None:
    with pytest.raises(ValueError):
        Timeouts(**{phase: limit})  # type: ignore[arg-type]


def test_a_notice_that_comes_at_once_and_again_and_again_is_refused() -> None:
    with pytest.raises(ValueError):
        Timeouts(slow=0)


def test_closing_must_have_a_limit() -> None:
    with pytest.raises((TypeError, ValueError)):
        Timeouts(close=None)  # type: ignore[arg-type]


class Ringing:
    """An alarm, and when it rang."""

    def __init__(self, clock: Clock) -> None:
        self.rang: list[float] = []
        self.clock = clock
        self.alarm = Alarm(clock, self.ring)

    def ring(self) -> None:
        self.rang.append(self.clock.seconds())


def test_an_alarm_rings_at_its_moment_and_once(clock: Clock) -> None:
    it = Ringing(clock)
    it.alarm.set(5)
    clock.advance(4.999)
    assert it.rang == []
    clock.advance(0.001)
    assert it.rang == [5]
    clock.advance(100)
    assert it.rang == [5]


def test_an_earlier_deadline_brings_the_alarm_forward(clock: Clock) -> None:
    it = Ringing(clock)
    it.alarm.set(5)
    it.alarm.set(2)
    it.alarm.set(3)
    clock.pump([1, 1])
    assert it.rang == [2]
    assert clock.getDelayedCalls() == []


def test_many_deadlines_take_one_delayed_call(clock: Clock) -> None:
    it = Ringing(clock)
    for deadline in (5, 9, 3, 7, 1):
        it.alarm.set(deadline)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(1)
    assert it.rang == [1]


def test_an_alarm_can_be_set_again_while_it_rings(clock: Clock) -> None:
    it = Ringing(clock)
    alarm = Alarm(clock, lambda: (it.ring(), len(it.rang) < 3 and alarm.set(clock.seconds() + 2)))
    alarm.set(1)
    clock.pump([1, 2, 2, 2])
    assert it.rang == [1, 3, 5]


@pytest.mark.parametrize("first", [-1.0, 5.0])
def test_a_deadline_that_has_passed_rings_in_the_next_turn(clock: Clock, first: float) -> None:
    clock.advance(10)
    it = Ringing(clock)
    it.alarm.set(10 + first)
    it.alarm.set(3)
    assert it.rang == []
    clock.advance(0)
    assert it.rang == [10]


def test_a_cancelled_alarm_does_not_ring_and_can_be_set_again(clock: Clock) -> None:
    it = Ringing(clock)
    it.alarm.set(1)
    it.alarm.cancel()
    it.alarm.cancel()
    clock.advance(1)
    assert it.rang == []
    it.alarm.set(5)
    clock.advance(4)
    assert it.rang == [5]
