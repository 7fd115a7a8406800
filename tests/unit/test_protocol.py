"""A session from beginning to end: states, problems that it survives, one cause told once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from support.transports import RESUME, SHUTDOWN, STOP, Peer, greeting
from txqmp.errors import (
    ConnectError,
    DeserializationError,
    DisconnectedError,
    ExecuteTimeoutError,
    GreetingError,
    MessageTooLongError,
    ObjectTypeError,
    ProtocolError,
    ServerParseError,
    StateError,
    UnexpectedTypeError,
)
from txqmp.lifecycle import RunState
from txqmp.protocol import QMPProtocol
from txqmp.settings import SessionSettings
from txqmp.timeouts import Timeouts


MakePeer = Callable[..., Peer]

ERROR = {"class": "GenericError", "desc": "JSON parse error"}


@pytest.fixture
def make_peer(clock: Clock) -> Iterator[MakePeer]:
    """Make far ends of sessions, whose connections end with the test."""
    made: list[Peer] = []

    def make(**options: Any) -> Peer:
        settings = {
            name: options.pop(name)
            for name in ("strict", "window", "timeouts", "max_message")
            if name in options
        }
        peer = Peer(clock, SessionSettings(**settings), **options)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    """The far end of a session that runs."""
    return make_peer().run()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def still_works(peer: Peer) -> bool:
    """Whether a command is executed, and an event delivered."""
    peer.heard()
    deferred = peer.session.execute("query-status")
    waiting = peer.session.wait_for("STOP")
    peer.reply(peer.command(), 5)
    peer.say(STOP)
    return success(deferred) == 5 and success(waiting).name == "STOP"


def texts(logs: list[LogEvent]) -> list[str]:
    return [formatEvent(log) for log in logs]


# States


def test_the_states_of_a_session_from_beginning_to_end(make_peer: MakePeer) -> None:
    peer = make_peer()
    session = peer.session
    states = [session.state]
    for state in (RunState.CONNECTING, RunState.RUNNING, RunState.DISCONNECTING):
        session.when_state(state).addCallback(states.append)
    peer.run()
    closed = session.disconnect()
    session.when_state(RunState.IDLE).addCallback(states.append)
    peer.close()
    success(closed)
    assert states == [
        RunState.IDLE,
        RunState.CONNECTING,
        RunState.RUNNING,
        RunState.DISCONNECTING,
        RunState.IDLE,
    ]


def test_each_who_waits_for_the_session_has_a_deferred_of_its_own(make_peer: MakePeer) -> None:
    peer = make_peer()
    one, other = peer.session.when_ready(), peer.session.when_ready()
    one.addCallback(lambda _: None)
    peer.run()
    assert success(one) is None
    assert success(other) is peer.session
    assert success(peer.session.when_ready()) is peer.session


def test_who_cancels_the_wait_ends_nobody_elses(make_peer: MakePeer) -> None:
    peer = make_peer()
    gone, kept = peer.session.when_ready(), peer.session.when_ready()
    gone.cancel()
    failure(gone, CancelledError)
    peer.run()
    success(kept)


def test_who_is_told_may_cancel_the_wait_of_another(make_peer: MakePeer) -> None:
    peer = make_peer()
    first, second = peer.session.when_ready(), peer.session.when_ready()
    first.addCallback(lambda _: second.cancel())
    peer.run()
    failure(second, CancelledError)
    assert still_works(peer)


def test_after_the_end_nobody_waits_for_ever(peer: Peer) -> None:
    waiting = peer.session.when_state(RunState.CONNECTING)
    peer.close()
    failure(waiting, DisconnectedError)
    failure(peer.session.when_ready(), DisconnectedError)
    assert success(peer.session.when_state(RunState.IDLE)) is RunState.IDLE


def test_a_callback_of_readiness_may_execute_and_disconnect(make_peer: MakePeer) -> None:
    peer = make_peer()
    deferreds: list[Deferred[Any]] = []

    def ready(session: QMPProtocol) -> None:
        deferreds.append(session.execute("stop"))
        deferreds.append(session.disconnect())

    peer.session.when_ready().addCallback(ready)
    peer.run()
    assert peer.command()["execute"] == "stop"
    peer.close()
    failure(deferreds[0], DisconnectedError)
    assert success(deferreds[1]) is None


# What comes


def test_replies_and_events_find_their_way(peer: Peer) -> None:
    deferred, waiting = peer.session.execute("x"), peer.session.wait_for("STOP")
    peer.say(STOP, {"return": 1, "id": peer.command()["id"]})
    assert (success(deferred), success(waiting).name) == (1, "STOP")


def test_a_reply_to_nobody_is_dropped_counted_and_first_said_aloud(peer: Peer) -> None:
    with capturedLogs() as logs:
        peer.say({"return": {}, "id": "nobody"}, {"error": ERROR, "id": 5}, {"return": {}})
    assert peer.session.pending.unknown_replies == 3
    assert [log["log_level"] for log in logs] == [LogLevel.warn, LogLevel.debug, LogLevel.debug]
    assert texts(logs)[0] == (
        "qmp: dropped a reply to nobody's command (one of 1): {'return': {}, 'id': 'nobody'}"
    )
    assert still_works(peer)


def test_what_is_logged_of_a_reply_to_nobody_has_no_secrets_and_is_short(peer: Peer) -> None:
    with capturedLogs() as logs:
        peer.say({"id": "nobody", "return": {"password": "hunter2", "more": "x" * 10_000}})
    (text,) = texts(logs)
    assert "hunter2" not in text
    assert "[redacted]" in text
    assert len(text) < 500


MALFORMED = {
    "an event without a sound name": {"event": 5},
    "an event with data that are none": {"event": "STOP", "data": 5},
    "an event without a sound timestamp": {"event": "STOP", "timestamp": {"seconds": 1}},
    "neither event nor reply": {"hello": 1},
    "nothing": {},
    "an error without shape or id": {"error": 5},
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=list(MALFORMED))
def test_a_message_of_the_wrong_shape_is_dropped_counted_and_first_said_aloud(
    peer: Peer, message: Any
) -> None:
    problems: list[ProtocolError] = []
    peer.session.add_error_hook(problems.append)
    with capturedLogs() as logs:
        peer.say(message, message)
    assert peer.session.malformed == 2
    assert [log["log_level"] for log in logs] == [LogLevel.warn, LogLevel.debug]
    assert texts(logs)[0].startswith("qmp: dropped a message (one of 1): ")
    assert [type(problem) for problem in problems] == [ObjectTypeError] * 2
    assert problems[0].raw == message  # type: ignore[attr-defined]
    assert still_works(peer)


def test_what_is_logged_of_a_malformed_message_has_no_secrets(peer: Peer) -> None:
    with capturedLogs() as logs:
        peer.say({"event": 5, "data": {"password": "hunter2"}})
    assert "hunter2" not in texts(logs)[0]


@pytest.mark.parametrize(
    "message",
    [
        {"return": {}, "id": nested(900)},
        {"error": ERROR, "id": nested(900)},
        {"hello": nested(900)},
        {"event": "STOP", "data": {"a": nested(900)}},
        {"event": nested(900)},
        {"error": nested(900)},
        {"return": nested(900)},
    ],
    ids=lambda message: next(iter(message)),
)
def test_very_deep_messages_are_survived(peer: Peer, message: Any) -> None:
    peer.say(message)
    assert still_works(peer)


def test_a_subscriber_that_raises_on_every_event_changes_nothing(
    peer: Peer, logged_errors: LoggedErrors
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    seen: list[str] = []
    peer.session.subscribe(broken)
    peer.session.subscribe(lambda event: seen.append(event.name))
    peer.say(*[STOP, RESUME] * 10)
    assert len(seen) == 20
    assert still_works(peer)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_strict_drops_events_with_unknown_members(make_peer: MakePeer) -> None:
    strict, lenient = make_peer(strict=True).run(), make_peer().run()
    for one in (strict, lenient):
        one.say({**STOP, "new": 1})
    assert (strict.session.malformed, lenient.session.malformed) == (1, 0)
    assert still_works(strict)


@pytest.mark.parametrize("reply", [{"return": {}}, {"error": ERROR}])
def test_strict_takes_replies_with_unknown_members_for_malformed(
    make_peer: MakePeer, reply: Any
) -> None:
    peer = make_peer(strict=True).run()
    deferred = peer.session.execute("x")
    peer.say({**reply, "id": peer.command()["id"], "new": 1})
    assert "unknown member" in str(failure(deferred, ObjectTypeError).value)
    assert still_works(peer)


# Errors without an id


def test_errors_without_an_id_are_survived_and_told_to_the_hook(peer: Peer) -> None:
    problems: list[ProtocolError] = []
    peer.session.add_error_hook(problems.append)
    with capturedLogs() as logs:
        peer.say({"error": ERROR})
    with capturedLogs() as more_logs:
        peer.say(*[{"error": ERROR}] * 1026)
    assert more_logs == []
    assert peer.session.parse_errors == 1027
    assert len(problems) == 1027
    assert isinstance(problems[0], ServerParseError)
    assert problems[0].desc == "JSON parse error"
    assert [log["log_level"] for log in logs] == [LogLevel.warn]
    assert "the server could not read its input: JSON parse error" in texts(logs)[0]
    assert still_works(peer)


def test_every_hook_is_called_though_one_raises(peer: Peer, logged_errors: LoggedErrors) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    problems: list[ProtocolError] = []
    peer.session.add_error_hook(broken)
    peer.session.add_error_hook(problems.append)
    peer.say({"error": ERROR})
    assert len(problems) == 1
    (logged,) = logged_errors.flush(ZeroDivisionError)
    assert formatEvent(logged) == "qmp: an error hook failed"


def test_the_only_command_fails_with_the_error_and_the_hook_is_told_too(peer: Peer) -> None:
    problems: list[ProtocolError] = []
    peer.session.add_error_hook(problems.append)
    deferred = peer.session.execute("x")
    peer.say({"error": ERROR})
    failure(deferred, ServerParseError)
    assert len(problems) == 1
    assert still_works(peer)


def test_of_two_commands_none_fails(peer: Peer) -> None:
    deferreds = [peer.session.execute("x"), peer.session.execute("y")]
    peer.say({"error": ERROR})
    for command in peer.heard():
        peer.reply(command)
    for each in deferreds:
        success(each)


def test_an_error_that_answers_a_command_without_an_id_is_no_parse_error(peer: Peer) -> None:
    problems: list[ProtocolError] = []
    peer.session.add_error_hook(problems.append)
    deferred = peer.session.execute_raw({"execute": "x"}, assign_id=False)
    with capturedLogs() as logs:
        peer.say({"error": ERROR})
    assert success(deferred) == {"error": ERROR}
    assert problems == []
    assert peer.session.parse_errors == 0
    assert logs == []


# Slow commands


def test_a_slow_command_is_said_to_wait(make_peer: MakePeer, clock: Clock) -> None:
    peer = make_peer(window=1, name="vm1", timeouts=Timeouts(slow=10)).run()
    deferreds = [peer.session.execute("slow"), peer.session.execute("behind")]
    with capturedLogs() as logs:
        clock.advance(10)
        clock.advance(10)
    assert texts(logs) == [
        "vm1: slow still waiting after 10 s",
        "vm1: behind still waiting after 10 s, not sent yet",
        "vm1: slow still waiting after 20 s",
        "vm1: behind still waiting after 20 s, not sent yet",
    ]
    assert {log["log_level"] for log in logs} == {LogLevel.info}
    peer.close()
    for each in deferreds:
        failure(each, DisconnectedError)


def test_a_session_that_answers_again_after_a_timeout_goes_on(peer: Peer, clock: Clock) -> None:
    deferred = peer.session.execute("x", timeout=5)
    command = peer.command()
    clock.advance(5)
    failure(deferred, ExecuteTimeoutError)
    peer.reply(command)
    assert still_works(peer)
    assert peer.session.pending.late_replies == 1
    assert peer.session.pending.unknown_replies == 0


# disconnect()


def test_disconnecting_sends_what_was_written_and_waits_for_the_end(peer: Peer) -> None:
    closed = peer.session.disconnect()
    assert peer.transport.disconnecting
    assert not peer.transport.disconnected
    pending(closed)
    peer.close()
    assert success(closed) is None


def test_a_peer_that_does_not_read_is_cut_off_after_the_time_for_closing(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(timeouts=Timeouts(close=5)).run()
    closed = peer.session.disconnect()
    clock.advance(4.999)
    assert not peer.transport.disconnected
    clock.advance(0.001)
    assert peer.transport.disconnected
    pending(closed)
    peer.close(ConnectionLost())
    assert success(closed) is None


def test_all_who_disconnect_are_told(peer: Peer) -> None:
    one, other, gone = (peer.session.disconnect() for _ in range(3))
    gone.cancel()
    failure(gone, CancelledError)
    seen = weakref.ref(gone)
    del gone
    gc.collect()
    assert seen() is None
    peer.close()
    assert (success(one), success(other)) == (None, None)
    assert success(peer.session.disconnect()) is None


def test_who_is_told_of_the_end_may_cancel_another(peer: Peer) -> None:
    first, second, third = (peer.session.disconnect() for _ in range(3))
    first.addCallback(lambda _: second.cancel())
    peer.close()
    success(first)
    failure(second, CancelledError)
    success(third)


def test_disconnecting_what_never_was_connected_is_done_at_once(make_peer: MakePeer) -> None:
    assert success(make_peer().session.disconnect()) is None


def test_aborting_cuts_the_connection_at_once(peer: Peer) -> None:
    peer.session.abort()
    assert peer.session.state is RunState.DISCONNECTING
    assert peer.transport.disconnected
    peer.session.abort()
    peer.close(ConnectionLost())
    assert success(peer.session.disconnect()) is None


def test_aborting_while_disconnecting_does_not_wait(peer: Peer) -> None:
    closed = peer.session.disconnect()
    peer.session.abort()
    assert peer.transport.disconnected
    peer.close(ConnectionLost())
    success(closed)


@pytest.mark.parametrize("connected", [False, True])
def test_aborting_what_is_not_connected_does_nothing(make_peer: MakePeer, connected: bool) -> None:
    peer = make_peer()
    if connected:
        peer.run()
        peer.close()
    peer.session.abort()
    assert peer.session.state is RunState.IDLE


def test_a_transport_that_cannot_be_aborted_is_closed(make_peer: MakePeer) -> None:
    class Plain(StringTransport):
        abortConnection = property()  # type: ignore[assignment]

    peer = make_peer(transport=Plain()).run()
    peer.session.abort()
    assert peer.transport.disconnecting


def test_replies_that_still_come_while_disconnecting_are_given(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    closed = peer.session.disconnect()
    peer.reply(peer.command(), 5)
    assert success(deferred) == 5
    peer.close()
    success(closed)


# How it ended


def end_of(peer: Peer, reason: Exception | None = None) -> DisconnectedError:
    """End the connection, and return what a pending command is told."""
    deferred = peer.session.execute("x")
    peer.close(reason)
    error = failure(deferred, DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    return error


def told_by_disconnect(peer: Peer) -> BaseException | None:
    outcome: list[BaseException | None] = []
    peer.session.disconnect().addCallbacks(outcome.append, lambda f: outcome.append(f.value))
    return outcome[0]


def test_the_end_is_not_expected_when_the_peer_just_closes(peer: Peer) -> None:
    reason = ConnectionDone()
    error = end_of(peer, reason)
    assert error.reason == "the peer closed the connection"
    assert (error.expected, error.shutdown, error.sent) == (False, None, True)
    assert error.command == "x"
    assert str(error) == "the peer closed the connection; x was sent and may have run"
    assert error.__cause__ is reason


def test_the_end_is_not_expected_when_the_connection_is_reset(peer: Peer) -> None:
    error = end_of(peer, ConnectionLost("reset by peer"))
    assert error.reason.startswith("the connection was lost: ")
    assert not error.expected


def test_the_end_is_expected_after_a_shutdown(peer: Peer) -> None:
    peer.say(SHUTDOWN)
    error = end_of(peer, ConnectionLost())
    assert error.expected
    assert error.shutdown is peer.session.last_shutdown
    assert error.shutdown.data["reason"] == "guest-shutdown"
    assert error.reason.endswith(", after SHUTDOWN (guest-shutdown)")
    assert told_by_disconnect(peer) is None


def test_of_several_shutdowns_the_last_counts(peer: Peer) -> None:
    peer.say(SHUTDOWN, {"event": "SHUTDOWN"})
    error = end_of(peer)
    assert error.shutdown.data == {}
    assert error.reason.endswith(", after SHUTDOWN (no reason given)")


def test_the_end_is_not_expected_when_the_vm_went_on_after_its_shutdown(peer: Peer) -> None:
    peer.say(SHUTDOWN, RESUME)
    error = end_of(peer)
    assert not error.expected
    assert "SHUTDOWN" not in error.reason
    assert error.shutdown is not None


def test_the_end_is_expected_when_we_disconnect(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    closed = peer.session.disconnect()
    peer.close()
    error = failure(deferred, DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert (error.expected, error.reason) == (True, "we disconnected")
    success(closed)


def test_each_command_is_told_whether_it_was_sent(make_peer: MakePeer) -> None:
    peer = make_peer(window=1).run()
    sent, waiting = peer.session.execute("a"), peer.session.execute("b")
    peer.close()
    errors = [failure(each, DisconnectedError).value for each in (sent, waiting)]
    assert [error.sent for error in errors] == [True, False]  # type: ignore[attr-defined]
    assert str(errors[1]).endswith("; b was not sent")
    assert errors[0] is not errors[1]


def test_what_is_lost_of_an_unfinished_message_is_told(peer: Peer) -> None:
    peer.say(b'{"return": ')
    assert end_of(peer).reason.endswith("; 11 bytes of an unfinished message are lost")


def test_an_unexpected_end_is_told_to_who_disconnects_once(peer: Peer) -> None:
    peer.close()
    error = told_by_disconnect(peer)
    assert isinstance(error, DisconnectedError)
    assert error.command is None
    assert told_by_disconnect(peer) is None


def test_at_the_end_listeners_and_waiters_end(peer: Peer) -> None:
    listening = peer.session.listen().get()
    waiting = peer.session.wait_for("STOP", timeout=5)
    peer.close()
    failure(listening, DisconnectedError)
    failure(waiting, DisconnectedError)
    failure(peer.session.wait_for("STOP"), DisconnectedError)


def test_what_comes_after_the_end_is_not_read(peer: Peer) -> None:
    seen: list[object] = []
    peer.session.subscribe(seen.append)
    peer.close()
    peer.say(STOP)
    assert seen == []


def test_a_connection_may_be_lost_without_a_reason(make_peer: MakePeer) -> None:
    peer = make_peer().run()
    deferred = peer.session.execute("x")
    peer.session.connectionLost()
    failure(deferred, DisconnectedError)


def test_at_the_end_every_callback_finds_the_session_ended(peer: Peer) -> None:
    session = peer.session
    found: list[Any] = []
    asked: list[tuple[Deferred[Any], type[Exception]]] = []

    def look(_: object) -> None:
        found.append((session.state, len(session.pending)))
        session.abort()
        asked.append((session.execute("y"), StateError))
        asked.append((session.when_ready(), DisconnectedError))
        asked.append((session.wait_for("STOP", timeout=5), DisconnectedError))
        asked.append((session.listen().get(), DisconnectedError))

    session.execute("x").addErrback(look)
    session.execute("z").addErrback(look)
    session.wait_for("STOP").addErrback(look)
    session.listen().get().addErrback(look)
    session.when_state(RunState.IDLE).addCallback(look)
    session.when_state(RunState.CONNECTING).addErrback(look)
    peer.close()
    assert found == [(RunState.IDLE, 0)] * 6
    for deferred, kind in asked:
        failure(deferred, kind)


def test_a_callback_at_the_end_may_take_the_cause(peer: Peer) -> None:
    told: list[BaseException | None] = []
    peer.session.execute("x").addErrback(lambda _: told.append(told_by_disconnect(peer)))
    peer.close()
    assert isinstance(told[0], DisconnectedError)
    assert told_by_disconnect(peer) is None


# Owners


class Owner:
    """Told of beginning and end; notes what it finds then."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.then: Callable[[QMPProtocol], None] = lambda session: None

    def session_connected(self, session: QMPProtocol) -> None:
        pass

    def session_ready(self, session: QMPProtocol) -> None:
        self.told.append(("ready", session.state))
        self.then(session)

    def session_ended(self, session: QMPProtocol, error: Exception) -> None:
        self.told.append(("ended", session.state, type(error)))


def test_the_owner_is_told_of_beginning_and_end_before_all_others(make_peer: MakePeer) -> None:
    owner = Owner()
    peer = make_peer(owner=owner)
    peer.session.when_ready().addCallback(lambda _: owner.told.append("who waits"))
    peer.run()
    peer.session.execute("x").addErrback(lambda _: owner.told.append("who has a command"))
    peer.close()
    assert owner.told == [
        ("ready", RunState.RUNNING),
        "who waits",
        ("ended", RunState.IDLE, DisconnectedError),
        "who has a command",
    ]


def test_the_owner_is_told_why_a_session_did_not_come_to_be(make_peer: MakePeer) -> None:
    owner = Owner()
    peer = make_peer(owner=owner).connect()
    peer.say(b"garbage\n")
    peer.close()
    assert owner.told == [("ended", RunState.IDLE, GreetingError)]


def test_the_owner_may_end_the_session_as_soon_as_it_is_ready(make_peer: MakePeer) -> None:
    owner = Owner()
    owner.then = lambda session: session.abort()
    peer = make_peer(owner=owner)
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    peer.close()
    failure(ready, DisconnectedError)


# Broken sessions

BREAKING = {
    "garbage": (b"garbage\n", DeserializationError),
    "an array": (b"[]\n", UnexpectedTypeError),
    "a second greeting": (greeting(), GreetingError),
    "too much": (b"x" * 2000, MessageTooLongError),
}
breaking = pytest.mark.parametrize(("text", "kind"), BREAKING.values(), ids=list(BREAKING))


@breaking
def test_what_breaks_a_session_fails_everybody_with_that_cause(
    make_peer: MakePeer, text: Any, kind: type[ProtocolError]
) -> None:
    peer = make_peer(max_message=1000).run()
    deferred, waiting = peer.session.execute("x"), peer.session.wait_for("STOP")
    peer.say(text)
    assert peer.session.state is RunState.DISCONNECTING
    assert peer.transport.disconnected
    peer.say(STOP, {"return": {}, "id": peer.command()["id"]})
    pending(deferred)
    peer.close(ConnectionLost())
    for each in (deferred, waiting):
        error = failure(each, DisconnectedError).value
        assert isinstance(error, DisconnectedError)
        assert error.reason.startswith("the session was broken: ")
        assert not error.expected
        assert isinstance(error.__cause__, kind)


@breaking
def test_the_cause_is_told_to_who_disconnects_once(
    make_peer: MakePeer, text: Any, kind: type[ProtocolError]
) -> None:
    peer = make_peer(max_message=1000).run()
    peer.say(text)
    first, second = peer.session.disconnect(), peer.session.disconnect()
    peer.close(ConnectionLost())
    assert type(failure(first).value) is kind
    assert success(second) is None
    assert success(peer.session.disconnect()) is None


def test_the_cause_is_told_after_the_end_too(peer: Peer) -> None:
    peer.say(b"garbage\n")
    peer.close(ConnectionLost())
    assert isinstance(told_by_disconnect(peer), DeserializationError)
    assert told_by_disconnect(peer) is None


def test_the_cause_is_the_first_problem(peer: Peer) -> None:
    peer.say(b"garbage\n")
    peer.say(b"[]\n")
    peer.close(ConnectionLost())
    assert isinstance(told_by_disconnect(peer), DeserializationError)


def test_a_break_while_disconnecting_is_told(peer: Peer) -> None:
    closed = peer.session.disconnect()
    peer.say(b"garbage\n")
    assert peer.transport.disconnected
    peer.close()
    failure(closed, DeserializationError)


def test_a_session_broken_after_its_shutdown_did_not_end_as_expected(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    peer.say(SHUTDOWN, b"garbage\n")
    peer.close()
    error = failure(deferred, DisconnectedError).value
    assert not error.expected  # type: ignore[attr-defined]
    failure(peer.session.disconnect(), DeserializationError)


def test_a_cause_that_was_told_when_the_handshake_failed_is_not_told_again(
    make_peer: MakePeer,
) -> None:
    peer = make_peer()
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(b"garbage\n")
    peer.close()
    failure(ready, GreetingError)
    assert told_by_disconnect(peer) is None


def test_a_failed_handshake_that_nobody_was_told_of_is_told_to_who_disconnects(
    make_peer: MakePeer,
) -> None:
    peer = make_peer().connect()
    peer.say(b"garbage\n")
    closed = peer.session.disconnect()
    peer.close()
    failure(closed, GreetingError)
    assert told_by_disconnect(peer) is None


def test_a_callback_of_the_break_may_disconnect(peer: Peer) -> None:
    closed: list[Deferred[None]] = []
    peer.session.when_state(RunState.DISCONNECTING).addCallback(
        lambda _: closed.append(peer.session.disconnect())
    )
    peer.say(b"garbage\n")
    peer.close(ConnectionLost())
    failure(closed[0], DeserializationError)


def test_a_session_over_tls_leaves_nothing(make_peer: MakePeer, clock: Clock) -> None:
    @implementer(ISSLTransport)
    class TLSTransport(StringTransport):
        pass

    peer = make_peer(transport=TLSTransport()).run()
    assert clock.getDelayedCalls() != []
    clock.advance(0)
    assert still_works(peer)
    peer.close()
    assert clock.getDelayedCalls() == []


# The log


def test_the_log_of_a_session_carries_its_name(make_peer: MakePeer) -> None:
    peer = make_peer(name="vm {1}").run()
    with capturedLogs() as logs:
        peer.close()
    (log,) = logs
    assert log["log_namespace"] == "txqmp.session.vm {1}"
    assert log["log_source"] is peer.session
    assert formatEvent(log) == "vm {1}: the peer closed the connection"


@pytest.mark.parametrize("expected", [False, True])
def test_an_end_is_logged_once_as_a_warning_unless_it_was_expected(
    peer: Peer, expected: bool
) -> None:
    deferred = peer.session.execute("x")
    if expected:
        peer.say(SHUTDOWN)
    with capturedLogs() as logs:
        peer.close()
    failure(deferred, DisconnectedError)
    (log,) = logs
    assert log["log_level"] is (LogLevel.info if expected else LogLevel.warn)
    told_by_disconnect(peer)


def test_a_broken_session_is_logged_once_with_the_causes_trace_set_off(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    with capturedLogs() as logs:
        peer.say(b"{garbage}\n")
        peer.close(ConnectionLost())
        failure(deferred, DisconnectedError)
        told_by_disconnect(peer)
    (log,) = logs
    assert log["log_level"] is LogLevel.error
    first, *others = formatEvent(log).splitlines()
    assert first.startswith("qmp: the session is broken: not a JSON object")
    assert "b'{garbage}'" in first
    assert others
    assert all(each.startswith("  | ") for each in others)
    assert "DeserializationError" in "".join(others)


def test_the_trace_of_a_broken_session_has_the_causes_cause(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising() -> None:
        try:
            raise ZeroDivisionError("deep down")
        except ZeroDivisionError as problem:
            raise DeserializationError("not JSON", b"x") from problem

    try:
        raising()
    except DeserializationError as error:
        cause = error
    with capturedLogs() as logs:
        peer.session.framing_failed(cause)
    (text,) = texts(logs)
    assert "  | ZeroDivisionError: deep down\n" in text
    assert "in raising" in text


def test_a_failed_handshake_is_the_callers_to_log(make_peer: MakePeer) -> None:
    peer = make_peer()
    ready = peer.session.when_ready()
    with capturedLogs() as logs:
        peer.connect()
        peer.say(b"garbage\n")
        peer.close()
    failure(ready, GreetingError)
    assert logs == []


def test_a_disconnected_session_logs_one_line(peer: Peer) -> None:
    with capturedLogs() as logs:
        closed = peer.session.disconnect()
        peer.close()
    success(closed)
    assert texts(logs) == ["qmp: we disconnected"]


def test_a_session_that_never_was_is_over_with_a_connect_error(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    peer.session.connectionLost(Failure(ConnectionLost()))
    failure(peer.session.when_ready(), ConnectError)
    peer._closed = True
