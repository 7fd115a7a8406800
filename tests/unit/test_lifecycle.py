"""The states of a session, and waiting for them."""

from __future__ import annotations

import gc
import weakref

import pytest
from twisted.internet.defer import CancelledError

from support.deferreds import failure, pending, success
from txqmp.errors import ConnectError, DisconnectedError
from txqmp.lifecycle import Lifecycle, RunState


CONNECTING, RUNNING = RunState.CONNECTING, RunState.RUNNING
IDLE, DISCONNECTING = RunState.IDLE, RunState.DISCONNECTING


def ended(life: Lifecycle) -> None:
    life.finish(lambda: ConnectError("it is over"))
    life.release()


def test_a_session_begins_idle_and_not_over() -> None:
    life = Lifecycle()
    assert life.state is IDLE
    assert not life.over


def test_who_waits_for_a_state_is_told_when_it_comes() -> None:
    life = Lifecycle()
    deferred = life.when(RUNNING)
    life.enter(CONNECTING)
    pending(deferred)
    life.enter(RUNNING)
    assert success(deferred) is RUNNING


def test_the_present_state_is_told_at_once() -> None:
    life = Lifecycle()
    life.enter(RUNNING)
    assert success(life.when(RUNNING)) is RUNNING
    assert success(life.when(CONNECTING, RUNNING)) is RUNNING


def test_any_of_several_states_will_do() -> None:
    life = Lifecycle()
    deferred = life.when(RUNNING, DISCONNECTING)
    life.enter(DISCONNECTING)
    assert success(deferred) is DISCONNECTING


def test_each_waiter_has_a_deferred_of_its_own() -> None:
    life = Lifecycle()
    one, other = life.when(RUNNING), life.when(RUNNING)
    one.addCallback(lambda _: "changed")
    life.enter(RUNNING)
    assert success(one) == "changed"
    assert success(other) is RUNNING


def test_a_waiter_is_told_once() -> None:
    life = Lifecycle()
    deferred = life.when(RUNNING)
    life.enter(RUNNING)
    life.enter(DISCONNECTING)
    life.enter(RUNNING)
    success(deferred)


def test_a_cancelled_waiter_is_not_told() -> None:
    life = Lifecycle()
    gone, kept = life.when(RUNNING), life.when(RUNNING)
    gone.cancel()
    failure(gone, CancelledError)
    life.enter(RUNNING)
    success(kept)


@pytest.mark.parametrize("how", ["cancel", "state"])
def test_who_waits_no_more_is_forgotten(how: str) -> None:
    life = Lifecycle()
    waiting = life.when(RUNNING)
    waiting.addErrback(lambda _: None)
    seen = weakref.ref(waiting)
    if how == "cancel":
        waiting.cancel()
    else:
        life.enter(RUNNING)
    del waiting
    gc.collect()
    assert seen() is None


def test_at_the_end_who_waits_is_told_each_with_an_error_of_its_own() -> None:
    life = Lifecycle()
    one, other = life.when(RUNNING), life.when(RUNNING)
    life.finish(lambda: ConnectError("it is over"))
    assert life.over
    assert life.state is IDLE
    pending(one)
    assert life.release() is True
    errors = [failure(deferred, ConnectError).value for deferred in (one, other)]
    assert errors[0] is not errors[1]


def test_at_the_end_who_waits_for_idle_has_what_it_wants() -> None:
    life = Lifecycle()
    life.enter(RUNNING)
    deferred = life.when(IDLE)
    ended(life)
    assert success(deferred) is IDLE


def test_it_is_told_whether_anybody_was_told_the_error() -> None:
    life = Lifecycle()
    life.enter(CONNECTING)
    deferred = life.when(IDLE)
    life.finish(lambda: ConnectError("it is over"))
    assert life.release() is False
    success(deferred)


def test_after_the_end_waiting_fails_at_once() -> None:
    life = Lifecycle()
    ended(life)
    one, other = (failure(life.when(RUNNING), ConnectError).value for _ in range(2))
    assert one is not other
    assert success(life.when(IDLE)) is IDLE


def test_a_callback_finds_the_new_state() -> None:
    life = Lifecycle()
    seen: list[RunState] = []
    life.when(RUNNING).addCallback(lambda _: seen.append(life.state))
    life.enter(RUNNING)
    assert seen == [RUNNING]


def test_a_callback_may_wait_and_enter() -> None:
    life = Lifecycle()
    told: list[str] = []
    life.when(DISCONNECTING).addCallback(lambda _: told.append("disconnecting"))
    life.when(RUNNING).addCallback(lambda _: life.enter(DISCONNECTING))
    life.when(RUNNING).addCallback(lambda _: told.append("running"))
    life.enter(RUNNING)
    assert sorted(told) == ["disconnecting", "running"]
    assert life.state is DISCONNECTING


def test_a_waiter_may_cancel_another_when_the_state_comes() -> None:
    life = Lifecycle()
    first, second, third = (life.when(RUNNING) for _ in range(3))
    first.addCallback(lambda _: second.cancel())
    life.enter(RUNNING)
    success(first)
    failure(second, CancelledError)
    success(third)


def test_a_waiter_may_cancel_another_at_the_end() -> None:
    life = Lifecycle()
    first, second, third = (life.when(RUNNING) for _ in range(3))
    first.addErrback(lambda _: second.cancel())
    life.finish(lambda: DisconnectedError("gone"))
    life.release()
    success(first)
    failure(second, CancelledError)
    failure(third, DisconnectedError)


@pytest.mark.parametrize("state", list(RunState))
def test_a_state_says_in_a_word_what_it_is(state: RunState) -> None:
    assert state.value == state.name.lower()
