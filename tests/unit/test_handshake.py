"""How a session begins, whatever QEMU says before it should (facts G8 and G9)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost, ProcessDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from support.deferreds import failure, pending, success
from support.transports import RESUME, STOP, Peer, greeting
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    DeserializationError,
    ExecuteError,
    GreetingError,
    NegotiationError,
    ObjectTypeError,
)
from txqmp.lifecycle import RunState
from txqmp.messages import Event
from txqmp.protocol import QMPProtocol
from txqmp.settings import SessionSettings
from txqmp.timeouts import Timeouts


MakePeer = Callable[..., Peer]

ERROR = {"class": "GenericError", "desc": "of another client"}

#: What a reply to the connection's previous client can look like.
STALE = {
    "a success": {"return": {}, "id": "other-1"},
    "an error": {"error": ERROR, "id": "other-1"},
    "a success with a number": {"return": {}, "id": 1},
    "a success with null": {"return": {}, "id": None},
    "an error with null": {"error": ERROR, "id": None},
    "a success without an id": {"return": {}},
    "an error without an id": {"error": ERROR},
    "a success with a deep id": {"return": {}, "id": [[[[{"a": []}]]]]},
}


@pytest.fixture
def make_peer(clock: Clock) -> Iterator[MakePeer]:
    """Make far ends of sessions, whose connections end with the test."""
    made: list[Peer] = []

    def make(**settings: Any) -> Peer:
        peer = Peer(clock, SessionSettings(**settings))
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    """The far end of a session with the default settings, not connected yet."""
    return make_peer()


def runs(peer: Peer) -> bool:
    return peer.session.state is RunState.RUNNING


def seen_by(session: QMPProtocol) -> list[str]:
    """Return a list that will have the names of the session's events."""
    names: list[str] = []
    session.subscribe(lambda event: names.append(event.name))
    return names


def is_broken(peer: Peer) -> bool:
    """Whether the session has given the connection up, and waits for its end."""
    return peer.session.state is RunState.DISCONNECTING and peer.transport.disconnected


# As it should be


def test_after_greeting_and_capabilities_the_session_runs(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    assert peer.session.state is RunState.CONNECTING
    assert peer.heard() == []
    peer.say(greeting())
    command = peer.command()
    assert command == {"execute": "qmp_capabilities", "id": command["id"]}
    assert isinstance(command["id"], str)
    pending(ready)
    peer.reply(command)
    assert success(ready) is peer.session
    assert runs(peer)


def test_what_the_server_said_first_can_be_read(peer: Peer) -> None:
    assert peer.session.greeting is None
    peer.run("oob")
    assert peer.session.greeting is not None
    assert peer.session.greeting.version == (7, 2, 22)


@pytest.mark.parametrize(
    ("offered", "wanted", "arguments"),
    [
        (("oob",), True, {"enable": ["oob"]}),
        (("oob", "x-new"), True, {"enable": ["oob"]}),
        (("oob",), False, None),
        (("x-new",), True, None),
        ((), True, None),
    ],
)
def test_out_of_band_is_enabled_where_it_is_offered_and_wanted(
    make_peer: MakePeer, offered: tuple[str, ...], wanted: bool, arguments: Any
) -> None:
    peer = make_peer(oob=wanted).connect()
    peer.say(greeting(*offered))
    command = peer.command()
    assert command.get("arguments") == arguments
    assert not peer.session.oob_enabled
    peer.reply(command)
    assert peer.session.oob_enabled is (arguments is not None)


def test_two_sessions_do_not_negotiate_with_the_same_id(make_peer: MakePeer) -> None:
    ids = set()
    for _ in range(10):
        peer = make_peer().connect()
        peer.say(greeting())
        ids.add(peer.command()["id"])
    assert len(ids) == 10


# Events that come early


@pytest.mark.parametrize("together", [False, True])
def test_early_events_are_kept_and_delivered_in_order(peer: Peer, together: bool) -> None:
    names = seen_by(peer.session)
    peer.connect()
    if together:
        peer.say(STOP, RESUME, greeting(), STOP)
    else:
        for message in (STOP, RESUME, greeting(), STOP):
            peer.say(message)
    assert names == []
    reply = {"return": {}, "id": peer.command()["id"]}
    peer.say({**STOP, "event": "EARLY"}, reply, {**STOP, "event": "LATE"})
    assert names == ["STOP", "RESUME", "STOP", "EARLY", "LATE"]


def test_early_events_come_after_all_who_wait_for_the_session_were_told(clock: Clock) -> None:
    told: list[str] = []

    class Owner:
        def session_connected(self, session: QMPProtocol) -> None:
            pass

        def session_ready(self, session: QMPProtocol) -> None:
            told.append("owner")
            session.subscribe(lambda event: told.append(event.name))

        def session_ended(self, session: QMPProtocol, error: Exception) -> None:
            pass

    peer = Peer(clock, owner=Owner()).connect()
    peer.session.when_ready().addCallback(lambda _: told.append("ready"))
    peer.session.when_state(RunState.RUNNING).addCallback(lambda _: told.append("state"))
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    peer.say(RESUME)
    assert told == ["owner", "ready", "state", "STOP", "RESUME"]
    peer.close()


def test_who_waits_when_it_is_ready_gets_an_early_event(peer: Peer) -> None:
    waiting: list[Any] = []
    ready = peer.session.when_ready()
    ready.addCallback(lambda session: waiting.append(session.wait_for("STOP")) or session)
    peer.connect()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    success(ready)
    assert success(waiting[0]) == Event(STOP)


def test_of_too_many_early_events_the_oldest_are_dropped_and_counted(make_peer: MakePeer) -> None:
    peer = make_peer(max_early_events=3)
    seen: list[int] = []
    peer.session.subscribe(lambda event: seen.append(event.data["n"]))
    peer.connect()
    peer.say(*({"event": "E", "data": {"n": number}} for number in range(5)), greeting())
    peer.reply(peer.command())
    assert seen == [2, 3, 4]
    assert peer.session.early_events_dropped == 2


def test_no_early_event_need_be_kept(make_peer: MakePeer) -> None:
    peer = make_peer(max_early_events=0)
    names = seen_by(peer.session)
    peer.connect()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    assert names == []
    assert peer.session.early_events_dropped == 1


def test_as_many_early_events_as_may_be_kept_are_not_dropped(make_peer: MakePeer) -> None:
    peer = make_peer(max_early_events=1)
    names = seen_by(peer.session)
    peer.connect()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    assert names == ["STOP"]
    assert peer.session.early_events_dropped == 0


def test_a_malformed_early_event_is_dropped_and_counted(peer: Peer) -> None:
    names = seen_by(peer.session)
    peer.connect()
    peer.say({"event": 5}, STOP, greeting())
    peer.reply(peer.command())
    assert names == ["STOP"]
    assert peer.session.malformed == 1


def test_an_early_shutdown_is_the_sessions_last(peer: Peer) -> None:
    peer.connect()
    peer.say({"event": "SHUTDOWN", "data": {"reason": "host-signal"}}, greeting())
    peer.reply(peer.command())
    assert peer.session.last_shutdown is not None
    assert peer.session.last_shutdown.data["reason"] == "host-signal"


# Replies to the previous client


@pytest.mark.parametrize("reply", STALE.values(), ids=list(STALE))
def test_a_reply_to_the_previous_client_is_dropped_wherever_it_comes(
    peer: Peer, reply: Any
) -> None:
    peer.connect()
    peer.say(reply, greeting())
    command = peer.command()
    peer.say(reply)
    assert not runs(peer)
    peer.reply(command)
    assert runs(peer)
    assert peer.session.stale_replies == 2


def test_stale_replies_are_not_the_sessions_unknown_ones(peer: Peer) -> None:
    peer.connect()
    peer.say(STALE["a success"], greeting())
    peer.reply(peer.command())
    assert peer.session.pending.unknown_replies == 0
    with capturedLogs() as logs:
        peer.say(STALE["a success"])
    assert peer.session.pending.unknown_replies == 1
    assert [log["log_level"] for log in logs] == [LogLevel.warn]


# Greetings that are none


@pytest.mark.parametrize(
    "hello",
    [
        {"QMP": {}},
        {"QMP": {"version": {}, "capabilities": []}},
        {"QMP": "hello"},
        {},
        {"hello": 1},
        {"execute": "stop"},
    ],
    ids=json.dumps,
)
def test_a_greeting_of_the_wrong_shape_breaks_the_session(peer: Peer, hello: Any) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(hello)
    assert is_broken(peer)
    assert peer.heard() == []
    peer.close()
    failure(ready, GreetingError)


def test_the_cause_of_a_bad_greeting_shows_its_shape(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say({"QMP": {"version": 5}})
    peer.close()
    error = failure(ready, GreetingError).value
    assert "{'QMP': {'version': 5}}" in str(error)
    assert isinstance(error.__cause__, ObjectTypeError)


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH_9.2\r\n", b"[]\n", b"{{{\n", b"\x16\x03\x01\n"])
def test_a_peer_that_speaks_something_else_breaks_the_session(peer: Peer, text: bytes) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(text)
    assert is_broken(peer)
    peer.close()
    error = failure(ready, GreetingError).value
    assert str(error).startswith("expected a greeting: ")
    assert error.__cause__ is not None


def test_a_second_greeting_breaks_the_session(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting(), greeting())
    assert is_broken(peer)
    assert len(peer.heard()) == 1
    peer.close()
    assert "a second greeting" in str(failure(ready, GreetingError).value)


@pytest.mark.parametrize("where", ["QMP", "top"])
def test_unknown_members_of_a_greeting_are_refused_only_when_strict(
    make_peer: MakePeer, where: str
) -> None:
    hello = greeting()
    (hello["QMP"] if where == "QMP" else hello)["new"] = 1
    lenient, strict = make_peer().connect(), make_peer(strict=True).connect()
    lenient.say(hello)
    lenient.reply(lenient.command())
    assert runs(lenient)
    ready = strict.session.when_ready()
    strict.say(hello)
    strict.close()
    assert "unknown member of Greeting: new" in str(failure(ready, GreetingError).value)


# Negotiations that fail


def test_a_refusal_breaks_the_session_and_is_told(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting())
    peer.refuse(peer.command(), "no such capability")
    assert is_broken(peer)
    peer.close()
    error = failure(ready, NegotiationError).value
    assert isinstance(error, NegotiationError)
    assert str(error) == "the peer refused qmp_capabilities: no such capability"
    assert error.received.error.desc == "no such capability"
    assert isinstance(error.__cause__, ExecuteError)


def test_a_reply_of_the_wrong_shape_breaks_the_session(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting())
    peer.say({"error": "no", "id": peer.command()["id"]})
    peer.close()
    assert "no sound reply" in str(failure(ready, NegotiationError).value)


def test_text_that_is_no_message_breaks_the_negotiation(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting(), b"hello\n")
    assert is_broken(peer)
    peer.close()
    error = failure(ready, NegotiationError).value
    assert str(error).startswith("expected a reply to qmp_capabilities: ")
    assert isinstance(error.__cause__, DeserializationError)


def test_a_tap_that_holds_the_negotiation_back_is_told(peer: Peer) -> None:
    ready = peer.session.when_ready()
    peer.session.taps.add_outbound(lambda message: None)
    peer.connect()
    peer.say(greeting())
    assert is_broken(peer)
    peer.close()
    error = failure(ready, ConnectError).value
    assert isinstance(error, ConnectError)
    assert "a tap held it back" in str(error)
    assert (error.kind, error.phase) == (ConnectFailure.OTHER, "negotiation")


def test_what_comes_after_the_refusal_is_not_read(peer: Peer) -> None:
    names = seen_by(peer.session)
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting())
    peer.refuse(peer.command(), "no")
    peer.say(STOP, greeting(), b"hello\n")
    peer.close()
    failure(ready, NegotiationError)
    assert names == []


# Deadlines


def test_a_silent_peer_fails_at_exactly_the_greetings_deadline(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(timeouts=Timeouts(greeting=5)).connect()
    ready = peer.session.when_ready()
    clock.advance(4.999)
    assert not is_broken(peer)
    clock.advance(0.001)
    assert is_broken(peer)
    peer.close()
    error = failure(ready, ConnectTimeoutError).value
    assert isinstance(error, ConnectTimeoutError)
    assert (error.kind, error.phase) == (ConnectFailure.SILENT, "greeting")
    assert "no greeting within 5 s" in str(error)


def test_events_and_stale_replies_do_not_extend_the_greetings_deadline(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(timeouts=Timeouts(greeting=5)).connect()
    clock.advance(4)
    peer.say(STOP, STALE["a success"])
    clock.advance(1)
    assert is_broken(peer)


def test_a_peer_that_does_not_negotiate_fails_at_exactly_its_deadline(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(timeouts=Timeouts(greeting=5, negotiation=3)).connect()
    ready = peer.session.when_ready()
    clock.advance(4)
    peer.say(greeting())
    clock.advance(2.999)
    assert not is_broken(peer)
    clock.advance(0.001)
    assert is_broken(peer)
    peer.close()
    error = failure(ready, ConnectTimeoutError).value
    assert isinstance(error, ConnectTimeoutError)
    assert (error.kind, error.phase) == (ConnectFailure.SILENT, "negotiation")
    assert "no reply to qmp_capabilities within 3 s" in str(error)


def test_a_session_that_runs_has_no_deadline_left(peer: Peer, clock: Clock) -> None:
    peer.run()
    clock.advance(10_000)
    assert runs(peer)


def test_without_limits_a_silent_peer_is_waited_for(make_peer: MakePeer, clock: Clock) -> None:
    peer = make_peer(timeouts=Timeouts(greeting=None, negotiation=None, slow=None)).connect()
    assert clock.getDelayedCalls() == []
    peer.say(greeting())
    assert clock.getDelayedCalls() == []
    clock.advance(1_000_000)
    peer.reply(peer.command())
    assert runs(peer)


def test_what_comes_after_the_deadline_is_not_read(peer: Peer, clock: Clock) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    clock.advance(10)
    peer.say(greeting())
    assert peer.heard() == []
    peer.close()
    failure(ready, ConnectTimeoutError)


# Connections that end too early


@pytest.mark.parametrize("phase", ["greeting", "negotiation"])
@pytest.mark.parametrize(
    ("reason", "kind", "text"),
    [
        (ConnectionDone(), ConnectFailure.CLOSED, "the peer closed the connection before"),
        (ProcessDone(0), ConnectFailure.CLOSED, "the peer closed the connection before"),
        (ConnectionLost(), ConnectFailure.RESET, "the connection was lost before"),
    ],
)
def test_a_connection_that_ends_too_early_is_told_with_the_phase(
    peer: Peer, phase: str, reason: Exception, kind: ConnectFailure, text: str
) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    if phase == "negotiation":
        peer.say(greeting())
    peer.close(reason)
    error = failure(ready, ConnectError).value
    assert isinstance(error, ConnectError)
    assert (error.kind, error.phase) == (kind, phase)
    assert str(error).startswith(f"{text} the {phase} was done")
    assert error.__cause__ is reason
    assert peer.session.state is RunState.IDLE


def test_a_deadline_that_has_passed_stays_the_cause_when_the_connection_ends(
    peer: Peer, clock: Clock
) -> None:
    peer.connect()
    clock.advance(10)
    peer.close(ConnectionLost())
    failure(peer.session.when_ready(), ConnectTimeoutError)


# Other beginnings


def test_without_awaiting_a_greeting_it_negotiates_at_once(make_peer: MakePeer) -> None:
    peer = make_peer(await_greeting=False).connect()
    command = peer.command()
    assert command["execute"] == "qmp_capabilities"
    peer.reply(command)
    assert runs(peer)
    assert peer.session.greeting is None
    assert not peer.session.oob_enabled


def test_a_greeting_that_is_not_awaited_is_taken_all_the_same(make_peer: MakePeer) -> None:
    peer = make_peer(await_greeting=False).connect()
    command = peer.command()
    peer.say(greeting("oob"))
    assert peer.heard() == []
    peer.reply(command)
    assert runs(peer)
    assert peer.session.greeting is not None


def test_without_negotiation_it_runs_with_the_greeting(make_peer: MakePeer) -> None:
    peer = make_peer(negotiate=False).connect()
    assert peer.session.state is RunState.CONNECTING
    peer.say(greeting("oob"))
    assert runs(peer)
    assert peer.heard() == []
    assert not peer.session.oob_enabled
    assert peer.session.greeting is not None


def test_with_neither_it_runs_at_once(make_peer: MakePeer, clock: Clock) -> None:
    peer = make_peer(await_greeting=False, negotiate=False)
    states: list[RunState] = []
    for state in (RunState.CONNECTING, RunState.RUNNING):
        peer.session.when_state(state).addCallback(states.append)
    peer.connect()
    assert states == [RunState.CONNECTING, RunState.RUNNING]
    assert clock.getDelayedCalls() == []


def test_a_handshake_says_nothing_in_the_log_when_all_is_well(peer: Peer) -> None:
    with capturedLogs() as logs:
        peer.run("oob")
    assert [formatEvent(log) for log in logs] == []


# Giving up


@pytest.mark.parametrize("phase", ["greeting", "negotiation"])
@pytest.mark.parametrize("how", ["disconnect", "abort"])
def test_giving_up_tells_all_who_wait_and_leaves_no_deadline(
    peer: Peer, phase: str, how: str, clock: Clock
) -> None:
    ready = peer.session.when_ready()
    peer.connect()
    if phase == "negotiation":
        peer.say(greeting())
    closed = getattr(peer.session, how)()
    assert peer.session.state is RunState.DISCONNECTING
    assert peer.transport.disconnecting
    peer.say(STOP, greeting())
    peer.close()
    error = failure(ready, ConnectError).value
    assert isinstance(error, ConnectError)
    assert (error.kind, error.phase) == (ConnectFailure.CANCELLED, phase)
    if closed is not None:
        assert success(closed) is None
    assert success(peer.session.disconnect()) is None
    assert clock.getDelayedCalls() == []


def test_giving_up_when_connecting_is_told_sends_nothing(peer: Peer) -> None:
    peer.session.when_state(RunState.CONNECTING).addCallback(
        lambda _: peer.session.disconnect() and None
    )
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting())
    assert peer.heard() == []
    peer.close()
    failure(ready, ConnectError)


def test_a_deadline_that_passes_after_giving_up_changes_nothing(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(timeouts=Timeouts(negotiation=1, close=5))
    ready = peer.session.when_ready()
    peer.connect()
    peer.say(greeting())
    closed = peer.session.disconnect()
    clock.advance(1)
    assert not peer.transport.disconnected
    peer.close()
    success(closed)
    assert failure(ready, ConnectError).value.kind is ConnectFailure.CANCELLED  # type: ignore[attr-defined]


def test_a_peer_that_takes_nothing_is_cut_off(peer: Peer, clock: Clock) -> None:
    peer.connect()
    closed = peer.session.disconnect()
    clock.advance(2.999)
    assert not peer.transport.disconnected
    clock.advance(0.001)
    assert peer.transport.disconnected
    peer.close()
    success(closed)
