"""Deliveries in a thread, without a thread: what would run there runs when it is let."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from twisted.internet.task import Clock

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.outgoing import error, events
from support.spool import Turns
from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.threaded import GRACE, ThreadedDelivery


class Receiver:
    """Takes events.

    :ivar problem: what the next batch raises.
    """

    def __init__(self) -> None:
        self.taken: list[OutgoingEvent] = []
        self.problem: Exception | None = None
        self.reopened = 0
        self.closed = 0

    def take(self, events: Sequence[OutgoingEvent]) -> None:
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem
        self.taken += events

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.receiver = Receiver()
        self.turns = Turns()
        self.delivery = ThreadedDelivery("name", 7, self.receiver, self.turns, clock)
        self.delivery.start()


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    yield world
    success(world.delivery.stop())


def test_delivers(world: World) -> None:
    assert (world.delivery.name, world.delivery.batch) == ("name", 7)
    for start in (0, 3):
        success(world.delivery.deliver(events(3, start=start)))
    assert world.receiver.taken == events(6)


@pytest.mark.parametrize("kind", [EventRejectedError, UnavailableError, GoneError])
def test_what_the_receiver_says(world: World, kind: type[Exception]) -> None:
    problem = world.receiver.problem = kind("no", 2)
    assert error(world.delivery.deliver(events(3))) is problem
    success(world.delivery.deliver(events(3)))


def test_a_defect_is_no_end(world: World, logged_errors: LoggedErrors) -> None:
    world.receiver.problem = ZeroDivisionError("oh")
    problem = error(world.delivery.deliver(events(3)))
    assert type(problem) is UnavailableError
    assert (problem.delivered, str(problem)) == (0, "a defect: oh")
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    success(world.delivery.deliver(events(3)))


def test_one_at_a_time(world: World) -> None:
    world.turns.hold()
    first = world.delivery.deliver(events(1))
    with pytest.raises(RuntimeError, match="has not ended"):
        world.delivery.deliver(events(1))
    world.turns.release()
    success(first)


@pytest.mark.parametrize("problem", [None, UnavailableError("no"), ZeroDivisionError("oh")])
def test_given_up(world: World, logged_errors: LoggedErrors, problem: Exception | None) -> None:
    """What runs in a thread runs on, and nothing piles up behind it."""
    world.turns.hold()
    world.receiver.problem = problem
    first = world.delivery.deliver(events(1))
    first.cancel()
    assert str(error(first)) == "given up"
    assert str(error(world.delivery.deliver(events(1)))) == (
        "the attempt that was given up has not ended"
    )
    assert world.turns.held is not None
    assert len(world.turns.held) == 1
    world.turns.release()
    assert len(logged_errors.flush(ZeroDivisionError)) == isinstance(problem, ZeroDivisionError)
    success(world.delivery.deliver(events(1)))


def test_delivers_again_when_told(world: World) -> None:
    """State first: the next batch may come from the callback."""
    world.turns.hold()
    first = world.delivery.deliver(events(1))
    first.addCallback(lambda _: world.delivery.deliver(events(1, start=1)))
    world.turns.release()
    success(first)
    assert world.receiver.taken == events(2)


def test_reopens(world: World, logged_errors: LoggedErrors) -> None:
    world.delivery.reopen()
    assert world.receiver.reopened == 1

    def broken() -> None:
        raise OSError("no")

    world.receiver.reopen = broken  # type: ignore[method-assign]
    world.delivery.reopen()
    assert len(logged_errors.flush(OSError)) == 1
    world.turns.hold()
    world.delivery.reopen()
    world.delivery.reopen()
    assert world.turns.held is not None
    assert len(world.turns.held) == 1
    world.turns.release()
    logged_errors.flush(OSError)


def test_stops(world: World) -> None:
    success(world.delivery.stop())
    success(world.delivery.stop())
    assert (world.receiver.closed, world.turns.stopped) == (1, 1)
    assert str(error(world.delivery.deliver(events(1)))) == "stopped"
    world.delivery.reopen()
    assert world.receiver.reopened == 0


def test_stops_when_what_is_under_way_has_ended(clock: Clock) -> None:
    world = World(clock)
    world.turns.hold()
    delivering = world.delivery.deliver(events(1))
    stopping = world.delivery.stop()
    world.turns.step()
    success(delivering)
    pending(stopping)
    world.turns.step()
    success(stopping)


def test_stops_in_time(clock: Clock) -> None:
    world = World(clock)
    world.turns.hold()
    delivering = world.delivery.deliver(events(1))
    stopping = world.delivery.stop()
    clock.advance(GRACE - 0.1)
    pending(delivering)
    pending(stopping)
    clock.advance(0.1)
    assert str(error(delivering)) == "stopped"
    success(stopping)
    # What it comes to now is nobody's business.
    world.turns.release()


def test_a_close_that_fails(clock: Clock, logged_errors: LoggedErrors) -> None:
    world = World(clock)

    def broken() -> None:
        raise OSError("no")

    world.receiver.close = broken  # type: ignore[method-assign]
    success(world.delivery.stop())
    assert len(logged_errors.flush(OSError)) == 1
