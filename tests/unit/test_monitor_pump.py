"""From the spool to a receiver."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.pump import PumpWorld
from txqmp.monitor.pump import PumpState
from txqmp.monitor.pump import pump as pump_module
from txqmp.monitor.sinks.delivery import EventRejectedError, GoneError, UnavailableError
from txqmp.monitor.spool import Filter, SpoolLimits, Start


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PumpWorld]:
    world = PumpWorld(tmp_path, SpoolLimits(max_bytes=2000, keep_bytes=0))
    yield world
    world.close()


# All is well


def test_events_are_handed_over_in_order_and_acknowledged(world: PumpWorld) -> None:
    pump = world.begin()
    world.send("a", "b", "c")
    assert world.receiver.names == ["a", "b", "c"]
    assert world.acked == 3
    assert pump.state is PumpState.UP
    assert pump.counters.sent == 3
    assert world.receiver.calls == ["start"]
    success(pump.stop())
    assert world.receiver.calls == ["start", "stop"]


def test_what_is_handed_over_is_the_event_with_its_number(world: PumpWorld) -> None:
    pump = world.begin()
    world.send("a")
    (event,) = world.receiver.taken
    told = json.loads(event.text)
    assert told["id"] == event.id
    assert told["sequence"] == f"{1:020d}"
    assert (event.vm, event.type) == ("a", "STOP")
    success(pump.stop())


def test_as_many_at_once_as_the_receiver_takes(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c", "d")
    pump = world.begin()
    assert world.receiver.batches == [["a", "b", "c"], ["d"]]
    success(pump.stop())


def test_the_next_are_read_while_these_are_delivered(
    world: PumpWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "READ", 2)
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c", "d", "e")
    delivering: Deferred[None] = Deferred()
    world.receiver.outcomes = [delivering]
    reads: list[int | None] = []
    read_for = world.spool.read_for
    monkeypatch.setattr(
        world.spool,
        "read_for",
        lambda sink, after, **options: reads.append(after) or read_for(sink, after, **options),
    )
    pump = world.begin()
    assert reads == [None, 2]
    delivering.callback(None)
    assert world.receiver.batches == [["a", "b"], ["c", "d"], ["e"]]
    assert reads == [None, 2, 4]
    success(pump.stop())


def test_a_new_sink_begins_where_it_is_told_to(world: PumpWorld) -> None:
    success(world.spool.add_sink("another"))
    world.send("a")
    success(world.begin().stop())
    assert world.receiver.names == []
    success(world.spool.forget_sink("ops"))
    success(world.begin(begin=Start.BEGINNING).stop())
    assert world.receiver.names == ["a"]


def test_a_sink_goes_on_where_it_was(world: PumpWorld) -> None:
    success(world.begin().stop())
    world.send("a", "b")
    success(world.begin().stop())
    world.send("c")
    success(world.begin().stop())
    assert world.receiver.names == ["a", "b", "c"]


def test_what_is_not_wanted_is_passed_over(world: PumpWorld) -> None:
    pump = world.begin(wanted=Filter(vms=("b*",)))
    world.send("a", "b1", "c", "b2", "d")
    assert world.receiver.names == ["b1", "b2"]
    assert world.acked == 5
    success(pump.stop())


def test_nobody_waits_for_the_disk_to_acknowledge(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c", "d", "e", "f", "g")
    commits = world.commits
    pump = world.begin()
    world.writer.hold()
    pump.wake()
    world.writer.release()
    assert world.receiver.names == list("abcdefg")
    assert world.acked == 7
    assert world.commits - commits < 7
    success(pump.stop())


# The receiver's fault


def test_it_is_tried_again_after_a_wait_that_grows(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [UnavailableError("down") for _ in range(3)]
    world.send("a")
    waits = []
    for _ in range(3):
        assert pump.state is PumpState.FAILING
        assert pump.problem == "down"
        assert pump.next_attempt is not None
        waits.append(pump.next_attempt - world.clock.seconds())
        attempts = len(world.receiver.batches)
        world.clock.advance(waits[-1] - 0.001)
        assert len(world.receiver.batches) == attempts
        world.clock.advance(0.002)
    assert waits == pytest.approx([1, 2, 4], abs=0.01)  # half of what it may be
    assert world.receiver.names == ["a"]
    assert (pump.state, pump.problem, pump.next_attempt) == (PumpState.UP, None, None)
    assert pump.counters.failures == 3
    assert pump.counters.attempts == 4
    success(pump.stop())


def test_a_wait_is_never_longer_than_it_may_be(world: PumpWorld) -> None:
    world.random = 1.0
    pump = world.begin()
    world.receiver.outcomes = [UnavailableError("down") for _ in range(50)]
    world.send("a")
    for _ in range(49):
        world.clock.advance(300)
    assert pump.next_attempt == world.clock.seconds() + 300
    world.clock.advance(300)
    assert world.receiver.names == ["a"]
    success(pump.stop())


def test_the_receiver_may_ask_for_a_longer_wait(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [
        UnavailableError("busy", retry_after=120.0),
        UnavailableError("busy", retry_after=0.001),
    ]
    world.send("a")
    assert pump.state is PumpState.WAITING
    assert pump.next_attempt == world.clock.seconds() + 120
    world.clock.advance(120)
    assert pump.next_attempt == world.clock.seconds() + 2
    world.clock.advance(2)
    assert world.receiver.names == ["a"]
    success(pump.stop())


def test_what_was_taken_is_not_sent_again(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c", "d")
    world.receiver.outcomes = [UnavailableError("cut", 2), UnavailableError("cut", 1)]
    pump = world.begin()
    assert world.acked == 2
    world.clock.advance(1)
    world.clock.advance(1)  # the wait is as short as the first: something was taken
    assert world.receiver.batches == [["a", "b", "c"], ["c", "d"], ["d"]]
    assert world.receiver.names == ["a", "b", "c", "d"]
    success(pump.stop())


@pytest.mark.parametrize("delivered", [-1, 99])
def test_a_receiver_that_cannot_count(world: PumpWorld, delivered: int) -> None:
    pump = world.begin()
    world.receiver.outcomes = [UnavailableError("what?", delivered)]
    world.send("a")
    world.send("b")
    world.clock.advance(1)
    assert set(world.receiver.names) >= {"b"}
    assert world.acked == 2
    success(pump.stop())


def test_a_mistake_of_ours_loses_nothing(world: PumpWorld, logged_errors: LoggedErrors) -> None:
    pump = world.begin()
    world.receiver.outcomes = [ZeroDivisionError("oops")]
    world.send("a")
    assert pump.state is PumpState.FAILING
    assert pump.problem == "internal error: ZeroDivisionError"
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    world.clock.advance(1)
    assert world.receiver.names == ["a"]
    success(pump.stop())


def test_a_signal_ends_the_wait(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [UnavailableError("down", retry_after=3600.0)]
    world.send("a")
    pump.reopen()
    assert world.receiver.names == ["a"]
    assert world.receiver.calls == ["start", "reopen"]
    success(pump.stop())
    pump.reopen()
    assert world.receiver.calls == ["start", "reopen", "stop"]


# The event's fault


def test_what_the_receiver_refuses_is_put_aside(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c", "d")
    world.receiver.outcomes = [EventRejectedError("answered 422", 1)]
    pump = world.begin()
    assert world.receiver.names == ["a", "c", "d"]
    assert world.dead() == [("b", "rejected: answered 422", 1)]
    assert world.acked == 4
    assert pump.state is PumpState.UP
    assert pump.counters.dead == 1
    success(pump.stop())


def test_it_is_put_aside_before_it_is_acknowledged(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a")
    world.receiver.outcomes = [EventRejectedError("no")]
    pump = world.make()
    world.writer.hold()
    pump.start()
    world.writer.step()  # the sink is added
    world.writer.step()  # the dead letter is written
    assert world.acked == 0
    world.writer.release()
    assert world.acked == 1
    success(pump.stop())


def test_attempts_are_counted_for_each_event(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.receiver.batch = 1
    world.send("a", "b")
    down = UnavailableError("down")
    world.receiver.outcomes = [down, EventRejectedError("no"), EventRejectedError("no")]
    pump = world.begin()
    world.clock.advance(1)
    assert world.dead() == [("a", "rejected: no", 2), ("b", "rejected: no", 1)]
    success(pump.stop())


def test_what_is_too_old_is_put_aside_once_it_has_failed(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b")
    world.clock.advance(61)
    world.send("c")
    pump = world.make(max_age=60.0)
    pump.start()
    assert world.receiver.names == ["a", "b", "c"]  # however old
    world.receiver.outcomes = [UnavailableError("down")] * 50
    world.send("d")
    world.clock.advance(30)
    world.send("e")
    while pump.counters.dead < 2:
        world.clock.advance(20)
    assert [vm for vm, _, _ in world.dead()] == ["d", "e"]
    assert all(reason == "too old: down" for _, reason, _ in world.dead())
    world.receiver.outcomes.clear()
    world.send("f")
    assert world.receiver.names[-1] == "f"
    success(pump.stop())


def test_a_clock_that_was_set_back(world: PumpWorld) -> None:
    pump = world.begin(max_age=60.0)
    world.send("a")
    world.clock.rightNow -= 10_000
    world.receiver.outcomes = [UnavailableError("down")]
    world.send("b")
    world.clock.advance(1)
    assert world.receiver.names == ["a", "b"]
    assert world.dead() == []
    success(pump.stop())


def test_dead_letters_are_tried_again_when_asked_for(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c")
    world.receiver.outcomes = [EventRejectedError("no"), EventRejectedError("no")]
    pump = world.begin()
    assert [vm for vm, _, _ in world.dead()] == ["a", "b"]
    first = success(world.spool.dead("ops"))[0].number
    success(world.spool.retry_dead("ops", [first]))
    pump.wake()
    assert world.receiver.names == ["c", "a"]
    assert [vm for vm, _, _ in world.dead()] == ["b"]
    # Refused again: it stays, and its attempts add up.
    world.receiver.outcomes = [EventRejectedError("still not")]
    success(world.spool.retry_dead("ops"))
    pump.wake()
    assert world.dead() == [("b", "rejected: still not", 2)]
    assert world.receiver.names == ["c", "a"]
    success(pump.stop())


def test_a_dead_letter_is_not_tried_twice(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a")
    world.receiver.outcomes = [EventRejectedError("no")]
    pump = world.begin()
    success(world.spool.retry_dead("ops"))
    world.writer.hold()
    pump.wake()
    assert world.receiver.names == ["a"]
    # The disk has not dropped it yet, and something else is to be done.
    pump.wake()
    assert world.receiver.names == ["a"]
    world.writer.release()
    assert world.receiver.names == ["a"]
    assert world.dead() == []
    success(pump.stop())


def test_a_dead_letter_that_cannot_be_delivered_does_not_hold_up_the_others(
    world: PumpWorld,
) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a")
    world.receiver.outcomes = [EventRejectedError("no")]
    pump = world.begin(max_age=3600.0)
    world.clock.advance(7200)
    success(world.spool.retry_dead("ops"))
    world.receiver.outcomes = [UnavailableError("it fails on this one")] * 10_000
    pump.wake()
    assert world.dead() == [("a", "rejected: no", 1)]
    world.clock.pump([60] * 50)
    world.send("b")
    world.clock.pump([60] * 20)
    ((vm, reason, attempts),) = world.dead()
    assert (vm, reason) == ("a", "too old: it fails on this one")
    assert attempts > 5
    world.receiver.outcomes = []
    world.clock.pump([60] * 10)
    assert world.receiver.names == ["b"]
    success(pump.stop())


def test_dead_letters_to_be_tried_are_found_at_the_start(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a")
    world.receiver.outcomes = [EventRejectedError("no")]
    success(world.begin().stop())
    success(world.spool.retry_dead("ops"))
    world.send("b")
    success(world.begin(max_age=0.0).stop())
    assert world.receiver.names == ["a", "b"]
    assert world.dead() == []


def test_a_record_that_the_disk_has_changed(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send("a", "b", "c")
    with sqlite3.connect(f"{world.directory}/spool.db") as db:
        db.execute("UPDATE event SET data = ? WHERE position = 2", (b"\x00",))
    pump = world.begin()
    assert world.receiver.names == ["a", "c"]
    ((vm, reason, _),) = world.dead()
    assert vm == "b"
    assert reason.startswith("damaged: ")
    # To try it again is no better.
    success(world.spool.retry_dead("ops"))
    pump.wake()
    assert [vm for vm, _, _ in world.dead()] == ["b"]
    world.send("d")
    assert world.receiver.names == ["a", "c", "d"]
    success(pump.stop())


# The end of all things


def test_a_receiver_that_wants_no_more(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [GoneError("answered 410")]
    world.send("a")
    assert pump.state is PumpState.DISABLED
    assert pump.problem == "answered 410"
    assert world.gone == 1
    world.send("b")
    world.clock.advance(1e6)
    assert len(world.receiver.batches) == 1
    assert world.acked == 0
    pump.reopen()
    assert world.receiver.names == ["a", "b"]
    assert pump.state is PumpState.UP
    success(pump.stop())


def test_events_that_the_sink_has_lost_are_told_of(world: PumpWorld) -> None:
    pump = world.begin()
    stuck: Deferred[None] = Deferred()
    world.receiver.outcomes = [stuck]
    world.send("a")
    world.send(*(f"vm{number}" for number in range(40)), size=100)
    first = world.spool.state.first
    stuck.callback(None)
    assert world.receiver.names[:2] == ["a", "txqmp.monitor.gap"]
    assert world.receiver.names[2:] == [f"vm{number}" for number in range(first - 2, 40)]
    lost = first - 2
    gap = json.loads(world.receiver.taken[1].text)
    assert gap["id"] == f"{world.spool.state.identity}-{first - 1:020d}"
    assert gap["subject"] == "qmp-monitor"
    assert gap["source"] == "qmp://node7.example"
    assert gap["data"]["kind"] == "gap"
    told = gap["data"]["data"]
    assert (told["sink"], told["reason"]) == ("ops", "the spool was full")
    assert (told["count"], told["first"], told["last"]) == (lost, f"{2:020d}", f"{first - 1:020d}")
    assert told["since"] <= told["until"]
    assert pump.counters.lost == lost
    assert ("dropped", "ops", "full", lost) in world.observer.told
    assert world.acked == 41
    success(pump.stop())


def test_a_gap_that_is_refused_is_no_dead_letter(world: PumpWorld) -> None:
    success(world.spool.add_sink("ops"))
    world.send(*(f"vm{number}" for number in range(40)), size=100)
    world.receiver.outcomes = [EventRejectedError("what is this?")]
    pump = world.begin()
    assert world.dead() == []
    assert world.receiver.names[-1] == "vm39"
    assert world.acked == 40
    success(pump.stop())


def test_the_sink_is_set_back(world: PumpWorld) -> None:
    success(world.spool.add_sink("another"))
    pump = world.begin()
    world.send("a", "b")
    with sqlite3.connect(f"{world.directory}/spool.db") as db:
        db.execute("UPDATE cursor SET acked = 0 WHERE sink = 'ops'")
    pump.rewind()
    assert world.receiver.names == ["a", "b", "a", "b"]
    assert [each.acked for each in world.spool.state.sinks if each.name == "ops"] == [2]
    success(pump.stop())


def test_the_sink_is_set_back_while_it_delivers(world: PumpWorld) -> None:
    success(world.spool.add_sink("another"))
    pump = world.begin()
    world.send("a", "b")
    stuck: Deferred[None] = Deferred()
    world.receiver.outcomes = [stuck]
    world.send("c")
    with sqlite3.connect(f"{world.directory}/spool.db") as db:
        db.execute("UPDATE cursor SET acked = 0 WHERE sink = 'ops'")
    pump.rewind()
    stuck.callback(None)
    assert world.receiver.names == ["a", "b", "c", "a", "b", "c"]
    assert [each.acked for each in world.spool.state.sinks if each.name == "ops"] == [3]
    success(pump.stop())


# Stopping


def test_what_is_there_is_handed_over_first(world: PumpWorld) -> None:
    pump = world.begin()
    stuck: Deferred[None] = Deferred()
    world.receiver.outcomes = [stuck]
    world.send("a", "b")
    stopping = pump.stop()
    pending(stopping)
    stuck.callback(None)
    success(stopping)
    assert world.receiver.names == ["a", "b"]
    assert world.acked == 2
    assert world.receiver.calls == ["start", "stop"]


def test_not_for_ever(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [Deferred()]
    world.send("a")
    stopping = pump.stop(grace=5.0)
    world.clock.advance(4.9)
    pending(stopping)
    world.clock.advance(0.2)
    success(stopping)
    assert world.acked == 0


def test_a_receiver_that_takes_what_was_given_up_gets_no_more(world: PumpWorld) -> None:
    pump = world.begin()
    stuck: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))
    world.receiver.outcomes = [stuck, Deferred()]
    world.send("a", "b")
    stopping = pump.stop(grace=5.0)
    world.clock.advance(5)
    success(stopping)
    assert world.receiver.names == ["a"]
    assert world.acked == 1


def test_what_fails_then_is_not_tried_again(world: PumpWorld) -> None:
    pump = world.begin()
    stuck: Deferred[None] = Deferred()
    world.receiver.outcomes = [stuck]
    world.send("a", "b")
    stopping = pump.stop()
    stuck.callback(UnavailableError("down"))  # type: ignore[arg-type]
    success(stopping)
    assert len(world.receiver.batches) == 1
    assert world.acked == 0


@pytest.mark.parametrize("problem", [UnavailableError("down"), GoneError("never")])
def test_stopped_while_it_waits(world: PumpWorld, problem: Exception) -> None:
    pump = world.begin()
    world.receiver.outcomes = [problem]
    world.send("a")
    success(pump.stop())
    assert len(world.receiver.batches) == 1
    success(pump.stop())


def test_stopped_before_it_was_started(world: PumpWorld) -> None:
    success(world.make().stop())
    assert world.receiver.calls == ["stop"]


def test_the_spool_is_closed_first(world: PumpWorld, logged_errors: LoggedErrors) -> None:
    pump = world.begin()
    success(world.spool.close())
    assert pump.state is PumpState.UP
    success(pump.stop())


def test_a_sink_that_is_forgotten(world: PumpWorld, logged_errors: LoggedErrors) -> None:
    pump = world.begin()
    success(world.spool.forget_sink("ops"))
    world.send("a")
    assert pump.state is PumpState.DISABLED
    assert pump.problem is not None
    assert pump.problem.startswith("internal error: ")
    assert logged_errors.flush()
    success(pump.stop())


# What it tells


def test_the_observer(world: PumpWorld) -> None:
    pump = world.begin()
    world.receiver.outcomes = [
        None,
        UnavailableError("down"),
        EventRejectedError("no"),
        GoneError("never"),
    ]
    world.send("a")
    world.send("b")
    world.clock.advance(1)
    world.send("c")
    assert world.observer.told == [
        ("attempt", "ops", "ok", 0.0),
        ("sent", "ops", 1),
        ("attempt", "ops", "retry", 0.0),
        ("attempt", "ops", "rejected", 0.0),
        ("dead", "ops", "rejected", 1),
        ("attempt", "ops", "gone", 0.0),
    ]
    assert repr(pump) == "<SinkPump ops disabled>"
    success(pump.stop())


def test_without_an_observer(world: PumpWorld) -> None:
    pump = world.begin(observer=None, rng=lambda: 0.0)
    world.receiver.outcomes = [EventRejectedError("no"), UnavailableError("down")]
    world.send("a", "b")
    world.send(*(f"vm{number}" for number in range(40)), size=100)
    world.clock.advance(0)
    assert world.receiver.names[-1] == "vm39"
    success(pump.stop())
