"""When to dial again: the waits grow, have a limit, and are not the same for all."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from txqmp.reconnect import DEFAULT_BACKOFF, Backoff, Redialler


def test_each_wait_is_longer_than_the_one_before_up_to_the_limit() -> None:
    backoff = Backoff(initial=1, factor=2, maximum=10, jitter=0)
    assert [backoff.delay(failures) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_the_first_wait_is_bounded_too() -> None:
    assert Backoff(initial=20, maximum=10, jitter=0).delay(1) == 10


def test_a_factor_of_one_waits_always_the_same() -> None:
    backoff = Backoff(initial=3, factor=1, jitter=0)
    assert {backoff.delay(failures) for failures in range(1, 50)} == {3}


def test_a_part_of_the_wait_is_random() -> None:
    backoff = Backoff(initial=10, jitter=0.3)
    assert backoff.delay(1, lambda: 0.0) == 10
    assert backoff.delay(1, lambda: 0.5) == pytest.approx(8.5)
    assert backoff.delay(1, lambda: 1.0) == pytest.approx(7)
    assert len({backoff.delay(1) for _ in range(20)}) > 1


@given(
    st.integers(1, 10_000),
    st.floats(1, 1e9) | st.integers(1, 1000),
    st.floats(0.001, 1e6),
    st.floats(0, 1),
)
def test_however_long_a_daemon_tries_the_wait_is_within_its_bounds(
    failures: int, factor: float, maximum: float, jitter: float
) -> None:
    backoff = Backoff(initial=0.1, factor=factor, maximum=maximum, jitter=jitter)
    assert 0 <= backoff.delay(failures) <= maximum


def test_the_default_begins_within_a_second_and_ends_within_a_minute() -> None:
    assert Backoff() == DEFAULT_BACKOFF
    assert 0 < DEFAULT_BACKOFF.delay(1) < 1
    assert 5 < DEFAULT_BACKOFF.delay(1000) < 60


@pytest.mark.parametrize(
    "wrong",
    [{"initial": 0}, {"maximum": 0}, {"factor": 0.9}, {"jitter": -0.1}, {"jitter": 1.1}],
    ids=str,
)
def test_a_wait_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        Backoff(**wrong)


def test_a_backoff_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Backoff().initial = 1  # type: ignore[misc]


class Dialling:
    """A redialler, and when it dialled."""

    def __init__(self, clock: Clock, backoff: Backoff | None) -> None:
        self.dialled: list[float] = []
        self.redialler = Redialler(clock, lambda: self.dialled.append(clock.seconds()), backoff)


BACKOFF = Backoff(initial=1, factor=2, maximum=100, jitter=0)


def test_each_failure_dials_again_after_a_longer_wait(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    for wait in (1, 2, 4, 8):
        it.redialler.failed()
        clock.advance(wait - 0.25)
        clock.advance(0.25)
    assert it.dialled == [1, 3, 7, 15]
    assert it.redialler.failures == 4


def test_after_a_session_the_waits_begin_anew(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    for _ in range(3):
        it.redialler.failed()
        clock.advance(100)
    it.redialler.succeeded()
    assert it.redialler.failures == 0
    it.dialled.clear()
    start = clock.seconds()
    it.redialler.lost()
    clock.advance(1)
    it.redialler.failed()
    clock.advance(1)
    assert it.dialled == [start + 1, start + 2]


def test_sessions_that_do_not_last_are_dialled_for_ever_more_slowly(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    waits = []
    for lasted in (0, 0.5, 0.75, 1, 100, 0, 0):
        it.redialler.succeeded()
        clock.advance(lasted)
        it.redialler.lost()
        (call,) = clock.getDelayedCalls()
        waits.append(call.getTime() - clock.seconds())
        clock.advance(waits[-1])
    assert waits == [1, 2, 4, 1, 1, 1, 2]
    assert len(it.dialled) == 7


def test_a_wait_that_has_begun_is_not_lengthened(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    it.redialler.failed()
    it.redialler.failed()
    it.redialler.lost()
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(1)
    assert it.dialled == [1]


def test_a_wait_that_is_hastened_is_over(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    assert not it.redialler.hasten()
    it.redialler.failed()
    clock.advance(0.25)
    assert it.redialler.hasten()
    assert not it.redialler.hasten()
    assert it.dialled == [0.25]
    assert clock.getDelayedCalls() == []
    it.redialler.failed()
    clock.advance(2)
    assert it.dialled == [0.25, 2.25]


def test_a_stopped_redialler_dials_no_more(clock: Clock) -> None:
    it = Dialling(clock, BACKOFF)
    it.redialler.failed()
    it.redialler.stop()
    it.redialler.stop()
    it.redialler.failed()
    it.redialler.lost()
    assert not it.redialler.hasten()
    assert clock.getDelayedCalls() == []
    clock.advance(1000)
    assert it.dialled == []


def test_without_a_backoff_nothing_is_dialled_again(clock: Clock) -> None:
    it = Dialling(clock, None)
    it.redialler.failed()
    it.redialler.lost()
    assert clock.getDelayedCalls() == []
    assert it.redialler.failures == 1


def test_who_dials_may_fail_at_once(clock: Clock) -> None:
    dialled: list[float] = []

    def dial() -> None:
        dialled.append(clock.seconds())
        redialler.failed()

    redialler = Redialler(clock, dial, BACKOFF)
    redialler.failed()
    clock.pump([1, 2, 4])
    assert dialled == [1, 3, 7]
    redialler.stop()
