"""From id to Deferred: order, window, late and nameless replies, limits, descriptors, the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from support.deferreds import failure, pending, success
from txqmp.dispatch import DEFAULT_MAX_WAITING, DEFAULT_WINDOW, PendingCommands
from txqmp.errors import (
    ExecuteError,
    ExecuteTimeoutError,
    InvalidCommandError,
    ObjectTypeError,
    ServerParseError,
    TooManyCommandsError,
)
from txqmp.jsontext import Message, id_key, write
from txqmp.pending import PendingCommand


NAMELESS_ERROR = {"error": {"class": "GenericError", "desc": "JSON parse error"}}


class Sender:
    """Keeps what is sent.

    :ivar sent: names of the commands, in the order in which they were written.
    :ivar descriptors: by command, the descriptor that went with it.
    :ivar draining: who waits for the buffer to be empty.
    :ivar notices: which command has been waiting for how long.
    :ivar then: called before each message is sent; what it returns is returned.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.descriptors: dict[str, int] = {}
        self.draining: list[Callable[[], None]] = []
        self.notices: list[tuple[str, float]] = []
        self.then: Callable[[str], Any] = lambda name: True

    def send(self, text: bytes, descriptor: int | None = None) -> bool:
        name = str(Message(text)["execute"])
        passed = bool(self.then(name))
        if passed:
            self.sent.append(name)
            if descriptor is not None:
                self.descriptors[name] = descriptor
        return passed

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        self.draining.append(callback)

    def drain(self) -> None:
        callbacks, self.draining = self.draining, []
        for callback in callbacks:
            callback()

    def still_waiting(self, command: PendingCommand, seconds: float) -> None:
        self.notices.append((command.name, seconds))


class Table:
    """Commands over a :class:`Sender`; each has its name as its id."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.sender = Sender()
        self.commands = PendingCommands(self.sender, clock, **options)

    def issue(self, name: str, ident: object = None, **options: Any) -> Deferred[Any]:
        key = name if ident is None else id_key(ident)
        return self.commands.issue(name, write({"execute": name}), key, **options)

    def nameless(self, name: str, **options: Any) -> Deferred[Any]:
        return self.commands.issue(name, write({"execute": name}), None, **options)

    def reply(self, ident: object, value: object = None) -> bool:
        return self.commands.settle({"return": value, "id": ident})

    def refuse(self, ident: object, desc: str = "no") -> bool:
        error = {"class": "GenericError", "desc": desc}
        return self.commands.settle({"error": error, "id": ident})


MakeTable = Callable[..., Table]


@pytest.fixture
def make_table(clock: Clock) -> Iterator[MakeTable]:
    """Make tables, which end with the test."""
    made: list[Table] = []

    def make(**options: Any) -> Table:
        table = Table(clock, **options)
        made.append(table)
        return table

    yield make
    for table in made:
        table.commands.end(lambda command: command.succeed("the test is over"))


@pytest.fixture
def table(make_table: MakeTable) -> Table:
    """A table with a window of two."""
    return make_table(window=2)


# Replies


def test_a_command_is_sent_at_once_and_its_reply_is_the_result(table: Table) -> None:
    deferred = table.issue("stop")
    assert table.sender.sent == ["stop"]
    pending(deferred)
    assert table.reply("stop", {"a": 1})
    assert success(deferred) == {"a": 1}
    assert len(table.commands) == 0


def test_an_error_is_the_commands_with_all_that_is_known(table: Table) -> None:
    deferred = table.issue("stop")
    assert table.refuse("stop", "no such thing")
    error = failure(deferred, ExecuteError).value
    assert isinstance(error, ExecuteError)
    assert (error.command, error.error_class, error.desc) == (
        "stop",
        "GenericError",
        "no such thing",
    )
    assert error.sent == {"execute": "stop"}
    assert error.received.id == "stop"


def test_replies_may_come_in_any_order(table: Table) -> None:
    first, second = table.issue("a"), table.issue("b")
    table.reply("b", 2)
    table.reply("a", 1)
    assert (success(first), success(second)) == (1, 2)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"error": "no"},
        {"error": {"class": "GenericError"}},
        {"return": 1, "error": {"class": "GenericError", "desc": "no"}},
        {"event": "STOP", "error": {"class": "GenericError", "desc": "no"}},
    ],
)
def test_a_reply_of_the_wrong_shape_fails_its_command_only(table: Table, reply: Any) -> None:
    deferred, other = table.issue("stop"), table.issue("other")
    assert table.commands.settle({**reply, "id": "stop"})
    failure(deferred, ObjectTypeError)
    table.reply("other")
    success(other)


@pytest.mark.parametrize("reply", [{"return": 1}, {"error": NAMELESS_ERROR["error"]}])
def test_unknown_members_of_a_reply_are_malformed_only_when_strict(
    make_table: MakeTable, reply: Any
) -> None:
    lenient, strict = make_table(), make_table(strict=True)
    for table, kind in ((lenient, ExecuteError), (strict, ObjectTypeError)):
        deferred = table.issue("x")
        table.commands.settle({**reply, "id": "x", "new": 1})
        if kind is ExecuteError and "return" in reply:
            assert success(deferred) == 1
        else:
            failure(deferred, kind)
        again = table.issue("x")
        table.reply("x", 2)
        assert success(again) == 2


def test_a_command_may_ask_for_the_whole_reply(table: Table) -> None:
    fine, bad = table.issue("fine", whole=True), table.issue("bad", whole=True)
    table.reply("fine", 1)
    table.refuse("bad")
    assert success(fine) == {"return": 1, "id": "fine"}
    assert success(bad) == {"error": {"class": "GenericError", "desc": "no"}, "id": "bad"}


def test_a_reply_to_nobody_is_counted(table: Table) -> None:
    deferred = table.issue("stop")
    assert not table.reply("nobody")
    assert not table.reply(None)
    assert not table.reply(["stop"])
    assert table.commands.unknown_replies == 3
    pending(deferred)


def test_a_second_reply_is_to_nobody(table: Table) -> None:
    deferred = table.issue("stop")
    table.reply("stop", 1)
    assert not table.reply("stop", 2)
    assert success(deferred) == 1
    assert table.commands.unknown_replies == 1


def test_a_command_that_was_not_sent_has_no_reply(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("first")
    waiting = table.issue("waiting")
    assert not table.reply("waiting", "too early")
    pending(waiting)
    assert table.commands.unknown_replies == 1
    table.reply("first")
    table.reply("waiting", 1)
    assert success(waiting) == 1


# Ids


def test_ids_begin_differently_in_each_session(clock: Clock) -> None:
    prefixes = {PendingCommands(Sender(), clock).next_id().partition("-")[0] for _ in range(50)}
    assert len(prefixes) == 50
    assert "" not in prefixes


def test_ids_of_a_session_differ(clock: Clock) -> None:
    commands = PendingCommands(Sender(), clock)
    assert len({commands.next_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        (1, 1.0),
        (1.0, 1),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        (None, None),
        ([], []),
        (True, True),
    ],
)
def test_ids_are_compared_by_value(table: Table, sent: object, came: object) -> None:
    deferred = table.commands.issue("x", write({"execute": "x"}), id_key(sent))
    assert table.reply(came, 5)
    assert success(deferred) == 5


@pytest.mark.parametrize(("sent", "came"), [(1, True), (1, "1"), (None, "null"), ([1], [True])])
def test_ids_that_only_look_alike_are_not_equal(table: Table, sent: object, came: object) -> None:
    deferred = table.commands.issue("x", write({"execute": "x"}), id_key(sent))
    assert not table.reply(came)
    pending(deferred)


@pytest.mark.parametrize(("one", "other"), [("x", "x"), (1, 1.0), (None, None), ([1], [1.0])])
def test_an_id_in_use_is_refused(table: Table, one: object, other: object) -> None:
    first = table.commands.issue("first", write({"execute": "first"}), id_key(one))
    second = table.commands.issue("second", write({"execute": "second"}), id_key(other))
    error = failure(second, InvalidCommandError).value
    assert str(error) == "second: its id is in use"
    assert table.sender.sent == ["first"]
    table.reply(one, 1)
    assert success(first) == 1


def test_an_id_can_be_used_again_after_its_reply(table: Table) -> None:
    first = table.issue("x")
    table.reply("x", 1)
    second = table.issue("x")
    table.reply("x", 2)
    assert (success(first), success(second)) == (1, 2)


# Window and order


def test_the_window_is_eight_unless_it_is_chosen(make_table: MakeTable) -> None:
    table = make_table()
    for number in range(20):
        table.issue(f"c{number}")
    assert DEFAULT_WINDOW == 8
    assert len(table.sender.sent) == 8
    assert (table.commands.in_flight, table.commands.waiting, len(table.commands)) == (8, 12, 20)


def test_commands_wait_for_their_turn_in_order(table: Table) -> None:
    for name in "abcde":
        table.issue(name)
    assert table.sender.sent == ["a", "b"]
    table.reply("b")
    assert table.sender.sent == ["a", "b", "c"]
    table.reply("a")
    table.reply("c")
    assert table.sender.sent == ["a", "b", "c", "d", "e"]


def test_the_next_command_is_sent_before_the_caller_is_told(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("a").addCallback(lambda _: table.sender.sent.append("told"))
    table.issue("b")
    table.reply("a")
    assert table.sender.sent == ["a", "b", "told"]


def test_a_command_issued_in_a_callback_comes_after_those_that_wait(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("a").addCallback(lambda _: table.issue("late") and None)
    table.issue("b")
    table.issue("c")
    table.reply("a")
    table.reply("b")
    table.reply("c")
    assert table.sender.sent == ["a", "b", "c", "late"]


def test_out_of_band_overtakes_those_that_wait(table: Table) -> None:
    for name in "abc":
        table.issue(name)
    urgent = table.issue("urgent", oob=True)
    assert table.sender.sent == ["a", "b", "urgent"]
    assert table.commands.in_flight == 2
    table.reply("urgent", 1)
    assert success(urgent) == 1
    assert table.sender.sent == ["a", "b", "urgent"]


def test_out_of_band_takes_no_place_in_the_window(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("urgent", oob=True)
    table.issue("a")
    assert table.sender.sent == ["urgent", "a"]


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_that_lets_nothing_through_is_refused(clock: Clock, window: int) -> None:
    with pytest.raises(ValueError, match=f"a window of {window}"):
        PendingCommands(Sender(), clock, window=window)


def test_a_wider_window_lets_more_through(make_table: MakeTable) -> None:
    table = make_table(window=64)
    for number in range(100):
        table.issue(f"c{number}")
    assert len(table.sender.sent) == 64


def test_one_command_more_than_may_wait_fails_at_once(make_table: MakeTable) -> None:
    table = make_table(window=1, max_waiting=2)
    for name in "abc":
        table.issue(name)
    error = failure(table.issue("d"), TooManyCommandsError).value
    assert isinstance(error, TooManyCommandsError)
    assert str(error) == "d: 2 commands wait"
    assert error.command == "d"
    assert len(table.commands) == 3
    table.reply("a")
    table.issue("d")
    assert table.commands.waiting == 2


def test_out_of_band_is_sent_however_many_wait(make_table: MakeTable) -> None:
    table = make_table(window=1, max_waiting=0)
    table.issue("a")
    table.issue("urgent", oob=True)
    assert table.sender.sent == ["a", "urgent"]


def test_the_number_that_may_wait_is_bounded_by_default(make_table: MakeTable) -> None:
    table = make_table(window=1)
    for number in range(DEFAULT_MAX_WAITING + 1):
        table.commands.issue("x", b'{"execute":"x"}', number)
    failure(table.issue("y"), TooManyCommandsError)


# Callers that go


def test_a_cancelled_command_that_waits_is_never_sent(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("a")
    gone = table.issue("gone")
    table.issue("c")
    gone.cancel()
    failure(gone, CancelledError)
    assert table.commands.waiting == 1
    table.reply("a")
    assert table.sender.sent == ["a", "c"]
    assert not table.reply("gone")


def test_a_cancelled_command_that_waited_frees_its_id(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("a")
    gone = table.issue("gone")
    gone.cancel()
    failure(gone, CancelledError)
    pending(table.issue("gone"))


def test_a_cancelled_command_that_was_sent_keeps_its_place_until_the_late_reply(
    make_table: MakeTable,
) -> None:
    table = make_table(window=1)
    gone = table.issue("gone")
    gone.cancel()
    failure(gone, CancelledError)
    table.issue("next")
    failure(table.issue("gone"), InvalidCommandError)
    assert table.sender.sent == ["gone"]
    assert (table.commands.in_flight, len(table.commands)) == (1, 2)
    assert table.reply("gone", "late")
    assert table.sender.sent == ["gone", "next"]
    assert (table.commands.late_replies, table.commands.unknown_replies) == (1, 0)


@pytest.mark.parametrize("whole", [False, True])
def test_a_late_error_is_swallowed_too(table: Table, whole: bool) -> None:
    gone = table.issue("gone", whole=whole)
    gone.cancel()
    failure(gone, CancelledError)
    assert table.refuse("gone")
    assert table.commands.late_replies == 1


# Time limits


def test_a_command_fails_at_exactly_its_time_limit(table: Table, clock: Clock) -> None:
    deferred = table.issue("stop", timeout=5)
    clock.advance(4.999)
    pending(deferred)
    clock.advance(0.001)
    error = failure(deferred, ExecuteTimeoutError).value
    assert isinstance(error, ExecuteTimeoutError)
    assert (error.command, error.timeout, error.sent) == ("stop", 5, True)


def test_the_reply_after_the_time_limit_is_swallowed(table: Table, clock: Clock) -> None:
    deferred = table.issue("stop", timeout=5)
    clock.advance(5)
    failure(deferred, ExecuteTimeoutError)
    assert table.commands.in_flight == 1
    assert table.reply("stop")
    assert table.commands.late_replies == 1
    assert table.commands.in_flight == 0


def test_the_limit_counts_the_wait_for_the_turn(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(window=1)
    table.issue("a")
    waiting = table.issue("waiting", timeout=5)
    clock.advance(3)
    table.reply("a")
    assert table.sender.sent == ["a", "waiting"]
    clock.advance(2)
    failure(waiting, ExecuteTimeoutError)


def test_a_command_whose_time_passes_while_it_waits_is_never_sent(
    make_table: MakeTable, clock: Clock
) -> None:
    table = make_table(window=1)
    table.issue("a")
    waiting = table.issue("waiting", timeout=5)
    clock.advance(5)
    error = failure(waiting, ExecuteTimeoutError).value
    assert isinstance(error, ExecuteTimeoutError)
    assert not error.sent
    table.reply("a")
    assert table.sender.sent == ["a"]


def test_each_command_has_its_own_limit(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(window=5)
    limits = {"a": 5, "b": 2, "c": None, "d": 3.5}
    deferreds = {name: table.issue(name, timeout=limit) for name, limit in limits.items()}
    failed: dict[str, float] = {}
    for name, deferred in deferreds.items():
        deferred.addErrback(lambda _, name=name: failed.update({name: clock.seconds()}))
    for _ in range(100):
        clock.advance(0.5)
    assert failed == {"b": 2, "d": 3.5, "a": 5}
    pending(deferreds["c"])


def test_a_reply_in_time_ends_the_limit(table: Table, clock: Clock) -> None:
    deferred = table.issue("stop", timeout=5)
    clock.advance(4)
    table.reply("stop", 1)
    clock.advance(10)
    assert success(deferred) == 1


def test_a_limit_of_nothing_passes_in_the_next_turn(table: Table, clock: Clock) -> None:
    deferred = table.issue("stop", timeout=0)
    pending(deferred)
    clock.advance(0)
    failure(deferred, ExecuteTimeoutError)


def test_a_callback_of_a_timeout_may_cancel_one_that_times_out_with_it(
    table: Table, clock: Clock
) -> None:
    first, second = table.issue("a", timeout=5), table.issue("b", timeout=5)
    first.addErrback(lambda _: second.cancel())
    clock.advance(5)
    success(first)
    failure(second, CancelledError)


def test_a_callback_of_a_timeout_may_issue_a_command(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(window=1)
    table.issue("a", timeout=5).addErrback(lambda _: table.issue("b", oob=True) and None)
    clock.advance(5)
    assert table.sender.sent == ["a", "b"]


# Still waiting


def test_a_slow_command_is_said_to_wait_again_after_each_doubling(
    make_table: MakeTable, clock: Clock
) -> None:
    table = make_table(slow=10)
    table.issue("slow")
    for _ in range(400):
        clock.advance(0.25)
    assert table.sender.notices == [("slow", 10), ("slow", 20), ("slow", 40), ("slow", 80)]


def test_what_is_done_or_abandoned_waits_no_more(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(slow=10)
    table.issue("done")
    gone = table.issue("gone")
    table.issue("slow")
    table.reply("done")
    gone.cancel()
    failure(gone, CancelledError)
    clock.advance(10)
    assert table.sender.notices == [("slow", 10)]


def test_a_command_that_waits_for_its_turn_is_said_to_wait_too(
    make_table: MakeTable, clock: Clock
) -> None:
    table = make_table(window=1, slow=10)
    table.issue("a")
    clock.advance(5)
    table.issue("b")
    clock.advance(5)
    clock.advance(5)
    assert table.sender.notices == [("a", 10), ("b", 10)]


def test_nothing_is_said_unless_asked_for(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(slow=None)
    table.issue("a")
    clock.advance(10_000)
    assert table.sender.notices == []


def test_the_last_notice_does_not_come_with_the_timeout(
    make_table: MakeTable, clock: Clock
) -> None:
    table = make_table(slow=10)
    deferred = table.issue("a", timeout=20)
    clock.advance(10)
    clock.advance(10)
    failure(deferred, ExecuteTimeoutError)
    assert table.sender.notices == [("a", 10)]


# Refusals on the way out


def test_a_command_that_a_tap_holds_back_fails_and_leaves_its_place(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.sender.then = lambda name: name != "held"
    error = failure(table.issue("held"), InvalidCommandError).value
    assert str(error) == "held: a tap held it back"
    assert len(table.commands) == 0
    table.issue("next")
    assert table.sender.sent == ["next"]


def test_a_command_that_a_tap_raises_on_fails_with_that(make_table: MakeTable) -> None:
    table = make_table(window=1)
    problem = ZeroDivisionError("the tap broke")

    def broken(name: str) -> bool:
        raise problem

    table.sender.then = broken
    error = failure(table.issue("x"), InvalidCommandError).value
    assert str(error) == "x: the tap broke"
    assert error.__cause__ is problem
    assert table.commands.in_flight == 0


def test_commands_that_a_tap_refuses_in_their_turn_make_place_for_the_next(
    make_table: MakeTable,
) -> None:
    table = make_table(window=1)
    table.issue("a")
    held = [table.issue(name) for name in ("b", "c")]
    table.issue("d")
    table.sender.then = lambda name: name == "d"
    table.reply("a")
    assert table.sender.sent == ["a", "d"]
    for deferred in held:
        failure(deferred, InvalidCommandError)


def test_a_refused_nameless_command_is_not_in_the_way_of_the_next(table: Table) -> None:
    table.sender.then = lambda name: name != "held"
    failure(table.nameless("held"), InvalidCommandError)
    next_one = table.nameless("next")
    assert table.commands.settle_nameless({"return": 1})
    assert success(next_one) == 1


# Replies without an id


def test_a_reply_without_an_id_is_the_first_nameless_commands(table: Table) -> None:
    first, second = table.nameless("a"), table.nameless("b")
    named = table.issue("named")
    assert table.commands.settle_nameless({"return": 1})
    assert table.commands.settle_nameless({"return": 2})
    assert (success(first), success(second)) == (1, 2)
    pending(named)


def test_a_nameless_command_may_fail(table: Table) -> None:
    deferred = table.nameless("a")
    assert table.commands.settle_nameless(NAMELESS_ERROR)
    failure(deferred, ExecuteError)


def test_a_nameless_command_that_waits_is_not_answered(make_table: MakeTable) -> None:
    table = make_table(window=1)
    table.issue("a")
    waiting = table.nameless("waiting")
    assert not table.commands.settle_nameless({"return": 1})
    pending(waiting)
    assert len(table.commands) == 2
    waiting.cancel()
    failure(waiting, CancelledError)
    assert len(table.commands) == 1


def test_the_only_command_in_flight_is_meant_by_an_error_without_an_id(table: Table) -> None:
    deferred = table.issue("a")
    assert table.commands.settle_nameless(NAMELESS_ERROR)
    error = failure(deferred, ServerParseError).value
    assert isinstance(error, ServerParseError)
    assert error.desc == "JSON parse error"
    assert error.received.raw is NAMELESS_ERROR
    assert len(table.commands) == 0


def test_an_error_without_an_id_and_of_no_shape_is_the_only_commands_too(table: Table) -> None:
    deferred = table.issue("a")
    assert table.commands.settle_nameless({"error": 5})
    failure(deferred, ObjectTypeError)


def test_the_next_command_is_sent_when_the_only_one_has_failed(make_table: MakeTable) -> None:
    table = make_table(window=1)
    deferred = table.issue("a")
    table.issue("b")
    table.commands.settle_nameless(NAMELESS_ERROR)
    failure(deferred, ServerParseError)
    assert table.sender.sent == ["a", "b"]


def test_of_several_commands_none_is_blamed(table: Table) -> None:
    first, second = table.issue("a"), table.issue("b")
    assert not table.commands.settle_nameless(NAMELESS_ERROR)
    pending(first)
    pending(second)


def test_a_command_that_waits_is_not_under_suspicion(make_table: MakeTable) -> None:
    table = make_table(window=1)
    sent = table.issue("a")
    waiting = table.issue("b")
    assert table.commands.settle_nameless(NAMELESS_ERROR)
    failure(sent, ServerParseError)
    pending(waiting)


def test_a_success_without_an_id_is_nobodys(table: Table) -> None:
    deferred = table.issue("a")
    assert not table.commands.settle_nameless({"return": {}})
    pending(deferred)


def test_with_nothing_in_flight_an_error_is_nobodys(table: Table) -> None:
    assert not table.commands.settle_nameless(NAMELESS_ERROR)


def test_an_abandoned_command_can_be_the_one_that_was_meant(table: Table) -> None:
    gone = table.issue("gone")
    gone.cancel()
    failure(gone, CancelledError)
    assert table.commands.settle_nameless(NAMELESS_ERROR)
    assert table.commands.in_flight == 0


# Fact G18: QEMU answers a single bad text with up to 1,027 errors without an id.


def test_the_further_errors_of_one_bad_text_do_not_fail_the_next_in_the_queue(
    make_table: MakeTable,
) -> None:
    table = make_table(window=1)
    bad, waiting = table.issue("bad"), table.issue("waiting")
    for _ in range(1027):
        table.commands.settle_nameless(NAMELESS_ERROR)
    failure(bad, ServerParseError)
    table.reply("waiting", 2)
    assert success(waiting) == 2


def test_the_further_errors_of_one_bad_text_do_not_fail_a_command_issued_since(
    table: Table,
) -> None:
    issued: list[Deferred[Any]] = []
    bad = table.issue("bad").addErrback(lambda _: issued.append(table.issue("next")))
    for _ in range(1027):
        table.commands.settle_nameless(NAMELESS_ERROR)
    success(bad)
    pending(issued[0])
    table.reply("next", 1)
    assert success(issued[0]) == 1


def test_a_later_bad_text_is_again_its_commands_failure(table: Table) -> None:
    for name in ("first", "second"):
        bad = table.issue(name)
        table.commands.settle_nameless(NAMELESS_ERROR)
        failure(bad, ServerParseError)
        fine = table.issue("fine")
        table.reply("fine")
        success(fine)


def test_after_raw_bytes_nobody_is_blamed(table: Table) -> None:
    before = table.issue("before")
    table.commands.blur()
    assert not table.commands.settle_nameless(NAMELESS_ERROR)
    table.reply("before")
    success(before)
    after = table.issue("after")
    assert not table.commands.settle_nameless(NAMELESS_ERROR)
    pending(after)


def test_raw_bytes_before_any_command_blur_too(table: Table) -> None:
    table.commands.blur()
    after = table.issue("after")
    assert not table.commands.settle_nameless(NAMELESS_ERROR)
    pending(after)


def test_a_later_commands_answer_ends_the_doubt(table: Table) -> None:
    table.commands.blur()
    after = table.issue("after")
    table.reply("after")
    success(after)
    bad = table.issue("bad")
    assert table.commands.settle_nameless(NAMELESS_ERROR)
    failure(bad, ServerParseError)


def test_an_out_of_band_answer_does_not_end_the_doubt(table: Table) -> None:
    table.commands.blur()
    urgent = table.issue("urgent", oob=True)
    table.reply("urgent")
    success(urgent)
    one = table.issue("one")
    assert not table.commands.settle_nameless(NAMELESS_ERROR)
    pending(one)


def test_a_nameless_command_gets_its_reply_in_spite_of_raw_bytes(table: Table) -> None:
    table.commands.blur()
    deferred = table.nameless("a")
    assert table.commands.settle_nameless({"return": 1})
    assert success(deferred) == 1


# Descriptors


@pytest.fixture
def open_file() -> Callable[[], int]:
    """Open a file; what is left open fails the test."""
    return lambda: os.open(os.devnull, os.O_RDONLY)


OpenFile = Callable[[], int]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_descriptor_goes_when_the_buffer_is_empty(table: Table, open_file: OpenFile) -> None:
    descriptor = open_file()
    table.issue("getfd", descriptor=descriptor)
    assert table.sender.sent == []
    assert len(table.sender.draining) == 1
    table.sender.drain()
    assert table.sender.sent == ["getfd"]
    assert table.sender.descriptors == {"getfd": descriptor}
    assert is_open(descriptor)


def test_descriptors_go_one_at_a_time_each_after_a_drain(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table()
    for number in range(3):
        table.issue(f"getfd{number}", descriptor=open_file())
    for number in range(3):
        table.sender.drain()
        assert table.sender.sent == [f"getfd{each}" for each in range(number + 1)]
        assert table.sender.draining == []
        table.reply(f"getfd{number}")


def test_commands_keep_their_order_round_one_with_a_descriptor(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table()
    table.issue("a")
    table.issue("getfd", descriptor=open_file())
    table.issue("b")
    assert table.sender.sent == ["a"]
    table.sender.drain()
    assert table.sender.sent == ["a", "getfd", "b"]


def test_a_second_descriptor_holds_up_what_is_behind_it_until_the_first_is_answered(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table()
    table.issue("getfd1", descriptor=open_file())
    table.issue("getfd2", descriptor=open_file())
    table.issue("b")
    table.sender.drain()
    table.sender.drain()
    assert table.sender.sent == ["getfd1"]
    table.reply("getfd1")
    assert table.sender.sent == ["getfd1"]
    table.sender.drain()
    assert table.sender.sent == ["getfd1", "getfd2", "b"]


def test_a_descriptor_waits_for_the_window(make_table: MakeTable, open_file: OpenFile) -> None:
    table = make_table(window=1)
    table.issue("a")
    table.issue("getfd", descriptor=open_file())
    assert table.sender.draining == []
    table.reply("a")
    table.sender.drain()
    assert table.sender.sent == ["a", "getfd"]


def test_a_cancelled_command_with_a_descriptor_lets_the_next_pass(
    table: Table, open_file: OpenFile
) -> None:
    descriptor = open_file()
    gone = table.issue("getfd", descriptor=descriptor)
    table.issue("b")
    gone.cancel()
    failure(gone, CancelledError)
    assert not is_open(descriptor)
    assert table.sender.sent == ["b"]
    table.sender.drain()
    assert table.sender.sent == ["b"]


def test_a_drain_that_nobody_waits_for_any_more_serves_the_next(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table()
    gone = table.issue("getfd1", descriptor=open_file())
    gone.cancel()
    failure(gone, CancelledError)
    table.issue("getfd2", descriptor=open_file())
    assert len(table.sender.draining) == 1
    table.sender.drain()
    assert table.sender.sent == ["getfd2"]


def test_the_descriptor_is_closed_when_the_reply_comes(table: Table, open_file: OpenFile) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor)
    table.sender.drain()
    table.reply("getfd")
    success(deferred)
    assert not is_open(descriptor)


def test_the_descriptor_is_closed_when_the_command_is_refused(
    table: Table, open_file: OpenFile
) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor)
    table.sender.drain()
    table.refuse("getfd")
    failure(deferred, ExecuteError)
    assert not is_open(descriptor)


def test_the_descriptor_of_an_abandoned_command_is_closed_with_its_late_reply(
    table: Table, open_file: OpenFile
) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor)
    table.sender.drain()
    deferred.cancel()
    failure(deferred, CancelledError)
    second = table.issue("getfd2", descriptor=open_file())
    assert is_open(descriptor)
    assert table.sender.draining == []
    table.reply("getfd")
    assert not is_open(descriptor)
    table.sender.drain()
    table.reply("getfd2")
    success(second)


def test_the_descriptor_is_closed_when_the_time_passes_before_it_was_sent(
    table: Table, open_file: OpenFile, clock: Clock
) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor, timeout=5)
    clock.advance(5)
    failure(deferred, ExecuteTimeoutError)
    assert not is_open(descriptor)


def test_the_descriptor_stays_open_when_the_time_passes_after_it_was_sent(
    table: Table, open_file: OpenFile, clock: Clock
) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor, timeout=5)
    table.sender.drain()
    clock.advance(5)
    failure(deferred, ExecuteTimeoutError)
    assert is_open(descriptor)
    table.reply("getfd")
    assert not is_open(descriptor)


def test_the_descriptor_is_closed_when_its_command_was_unreadable(
    table: Table, open_file: OpenFile
) -> None:
    descriptor = open_file()
    deferred = table.issue("getfd", descriptor=descriptor)
    table.sender.drain()
    table.commands.settle_nameless(NAMELESS_ERROR)
    failure(deferred, ServerParseError)
    assert not is_open(descriptor)


@pytest.mark.parametrize("raises", [False, True])
def test_the_descriptor_is_closed_when_a_tap_refuses(
    table: Table, open_file: OpenFile, raises: bool
) -> None:
    descriptor = open_file()
    table.sender.then = lambda name: 1 // 0 if raises else False
    deferred = table.issue("getfd", descriptor=descriptor)
    table.sender.drain()
    failure(deferred, InvalidCommandError)
    assert not is_open(descriptor)
    table.sender.then = lambda name: True
    again = table.issue("again", descriptor=open_file())
    table.sender.drain()
    table.reply("again")
    success(again)


def test_the_descriptor_is_closed_when_its_command_is_not_taken(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table(window=1, max_waiting=1)
    table.issue("a")
    table.issue("b")
    too_many, in_use = open_file(), open_file()
    failure(table.issue("c", descriptor=too_many), TooManyCommandsError)
    failure(table.issue("a", descriptor=in_use), InvalidCommandError)
    assert not is_open(too_many)
    assert not is_open(in_use)


def test_all_descriptors_are_closed_at_the_end(make_table: MakeTable, open_file: OpenFile) -> None:
    table = make_table()
    descriptors = [open_file() for _ in range(3)]
    deferreds = [
        table.issue(f"getfd{number}", descriptor=descriptor)
        for number, descriptor in enumerate(descriptors)
    ]
    table.sender.drain()
    seen: list[bool] = []
    for deferred in deferreds:
        deferred.addCallback(lambda _: seen.extend(map(is_open, descriptors)))
    table.commands.end(lambda command: command.succeed(None))
    assert seen == [False] * 9


def test_a_descriptor_can_be_sent_though_nothing_may_wait(
    make_table: MakeTable, open_file: OpenFile
) -> None:
    table = make_table(max_waiting=0)
    deferred = table.issue("getfd", descriptor=open_file())
    table.sender.drain()
    table.reply("getfd", 1)
    assert success(deferred) == 1


# The end


def test_at_the_end_all_are_told_in_the_order_of_their_calls(make_table: MakeTable) -> None:
    table = make_table(window=3)
    table.issue("a")
    table.nameless("b")
    table.issue("c", oob=True)
    table.issue("d")
    table.nameless("e")
    table.issue("f")
    told: list[tuple[str, bool]] = []
    table.commands.end(lambda command: told.append((command.name, command.sent)))
    assert told == [
        ("a", True),
        ("b", True),
        ("c", True),
        ("d", True),
        ("e", False),
        ("f", False),
    ]
    assert (len(table.commands), table.commands.in_flight, table.commands.waiting) == (0, 0, 0)


def test_at_the_end_no_limit_is_left(make_table: MakeTable, clock: Clock) -> None:
    table = make_table(slow=10)
    table.issue("a", timeout=5)
    table.commands.end(lambda command: command.succeed(None))
    assert clock.getDelayedCalls() == []


def test_a_callback_at_the_end_finds_an_empty_table_and_may_issue(table: Table) -> None:
    sizes: list[int] = []
    again: list[Deferred[Any]] = []

    def retry(_: object) -> None:
        sizes.append(len(table.commands))
        again.append(table.issue("a"))

    table.issue("a").addCallback(retry)
    table.issue("b")
    table.commands.end(lambda command: command.succeed(None))
    assert sizes == [0]
    pending(again[0])
    table.reply("a", 1)
    assert success(again[0]) == 1


@pytest.mark.parametrize("victim", ["sent", "waiting"])
def test_a_callback_at_the_end_may_cancel_the_others(make_table: MakeTable, victim: str) -> None:
    table = make_table(window=2)
    first, deferreds = table.issue("a"), {"sent": table.issue("b"), "waiting": table.issue("c")}
    first.addCallback(lambda _: deferreds[victim].cancel())
    table.commands.end(lambda command: command.succeed("end"))
    failure(deferreds.pop(victim), CancelledError)
    assert [success(deferred) for deferred in deferreds.values()] == ["end"]


# Whatever happens

ISSUING = ["issue", "issue", "issue", "oob", "descriptor", "nameless", "limited"]
ENDING = ["reply", "reply", "reply", "refuse", "nameless reply", "cancel", "wait"]
DEEDS = st.sampled_from([*ISSUING, *ENDING, "drain", "hold"])


@given(st.lists(st.tuples(DEEDS, st.integers(0, 1000)), min_size=30), st.integers(1, 3))
def test_whatever_happens_order_and_window_hold_and_everybody_is_told(
    deeds: list[tuple[str, int]], window: int
) -> None:
    clock = Clock()
    table = Table(clock, window=window, max_waiting=5, slow=1)
    deferreds: dict[str, Deferred[Any]] = {}
    outcomes: dict[str, int] = dict.fromkeys((str(number) for number in range(len(deeds))), 0)
    descriptors: dict[str, int] = {}
    answered: set[str] = set()

    def told(_: object, name: str) -> None:
        outcomes[name] += 1

    for number, (deed, pick) in enumerate(deeds):
        name = str(number)
        unanswered = [each for each in table.sender.sent if each not in answered]
        options: dict[str, Any] = {}
        if deed == "descriptor":
            descriptors[name] = options["descriptor"] = os.open(os.devnull, os.O_RDONLY)
        elif deed == "limited":
            options["timeout"] = pick % 3
        elif deed == "oob":
            options["oob"] = True
        if deed in ("issue", "oob", "descriptor", "limited"):
            deferreds[name] = table.issue(name, **options)
        elif deed == "nameless":
            deferreds[name] = table.nameless(name)
        elif deed in ("reply", "refuse") and unanswered:
            chosen = unanswered[pick % len(unanswered)]
            if getattr(table, deed)(chosen):
                answered.add(chosen)
        elif deed == "nameless reply":
            table.commands.settle_nameless({"return": 1})
        elif deed == "cancel" and deferreds:
            list(deferreds.values())[pick % len(deferreds)].cancel()
        elif deed == "drain":
            table.sender.drain()
        elif deed == "wait":
            clock.advance(pick % 2)
        elif deed == "hold":
            table.sender.then = lambda name, pick=pick: int(name) % 5 != pick % 5
        if name in deferreds:
            deferreds[name].addBoth(told, name)
        assert table.commands.in_flight <= window
        assert table.commands.waiting <= 5
        in_flight = [each for each in table.sender.descriptors if each not in answered]
        assert len(in_flight) <= 1
    table.sender.then = lambda name: True
    for _ in deeds:
        table.sender.drain()
        for each in table.sender.sent:
            table.commands.settle_nameless({"return": 1})
            table.reply(each)
    assert len(table.commands) == 0
    in_band = [each for each in table.sender.sent if deeds[int(each)][0] != "oob"]
    assert in_band == sorted(in_band, key=int)
    table.commands.end(lambda command: command.succeed(None))
    assert all(outcomes[name] == 1 for name in deferreds)
    assert not any(map(is_open, descriptors.values()))
    assert clock.getDelayedCalls() == []
