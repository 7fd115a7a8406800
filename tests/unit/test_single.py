"""One session, one attempt: connect() and listen()."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock

from support.deferreds import failure, pending, success
from support.transports import STOP, FakeEndpoint, FakeServerEndpoint, Peer, greeting
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    GreetingError,
    NegotiationError,
)
from txqmp.lifecycle import RunState
from txqmp.settings import SessionSettings
from txqmp.single import connect, listen
from txqmp.timeouts import Timeouts


@pytest.fixture
def endpoint(clock: Clock) -> FakeEndpoint:
    return FakeEndpoint(clock)


@pytest.fixture
def server(clock: Clock) -> FakeServerEndpoint:
    return FakeServerEndpoint(clock)


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes; fail the test if they go round in a circle."""
    chain: list[BaseException] = []
    while error is not None:
        assert error not in chain, "an error is its own cause"
        chain.append(error)
        error = error.__cause__
    return chain


def refused(deferred: Deferred[Any]) -> ConnectError:
    error = failure(deferred, ConnectError).value
    assert isinstance(error, ConnectError)
    return error


# connect()


def test_a_session_is_given_when_it_is_ready(clock: Clock, endpoint: FakeEndpoint) -> None:
    settings = SessionSettings(window=3)
    connecting = connect(clock, endpoint, name="vm1", settings=settings)
    peer = endpoint.accept()
    pending(connecting)
    peer.say(greeting("oob"))
    peer.reply(peer.command())
    session = success(connecting)
    assert session is peer.session
    assert session.state is RunState.RUNNING
    assert (session.name, session.settings) == ("vm1", settings)
    assert session.factory is not None
    peer.close()


def test_early_events_reach_who_subscribes_at_once(clock: Clock, endpoint: FakeEndpoint) -> None:
    seen: list[str] = []
    connecting = connect(clock, endpoint)
    connecting.addCallback(lambda session: session.subscribe(lambda e: seen.append(e.name)))
    peer = endpoint.accept()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    success(connecting)
    assert seen == ["STOP"]
    peer.close()


def test_a_place_that_is_none_is_a_value_error(clock: Clock) -> None:
    failure(connect(clock, "nothing:here"), ValueError)


def test_a_refused_connection_is_told_with_its_cause(clock: Clock, endpoint: FakeEndpoint) -> None:
    reason = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    connecting = connect(clock, endpoint)
    endpoint.refuse(reason)
    error = refused(connecting)
    assert (error.kind, error.phase) == (ConnectFailure.REFUSED, "connect")
    assert causes(error) == [error, reason]
    assert len(endpoint.attempts) == 1


def test_an_absent_socket_is_told_with_its_cause(clock: Clock) -> None:
    error = refused(connect(clock, "/nonexistent/vm.sock"))
    assert error.kind is ConnectFailure.ABSENT
    assert [type(each) for each in causes(error)] == [ConnectError, FileNotFoundError]


def test_a_connection_that_takes_too_long_is_told(clock: Clock, endpoint: FakeEndpoint) -> None:
    connecting = connect(clock, endpoint, settings=SessionSettings(timeouts=Timeouts(connect=5)))
    clock.advance(4.999)
    pending(connecting)
    clock.advance(0.001)
    error = refused(connecting)
    assert isinstance(error, ConnectTimeoutError)
    assert error.phase == "connect"
    assert causes(error) == [error]
    assert endpoint.cancelled == 1


@pytest.mark.parametrize(
    ("text", "kind"), [(b"garbage\n", GreetingError), (b'{"QMP": 5}\n', GreetingError)]
)
def test_a_peer_that_does_not_speak_qmp_is_told(
    clock: Clock, endpoint: FakeEndpoint, text: bytes, kind: type[Exception]
) -> None:
    connecting = connect(clock, endpoint)
    peer = endpoint.accept()
    peer.say(text)
    peer.close()
    causes(failure(connecting, kind).value)


def test_a_refused_negotiation_is_told(clock: Clock, endpoint: FakeEndpoint) -> None:
    connecting = connect(clock, endpoint)
    peer = endpoint.accept()
    peer.say(greeting())
    peer.refuse(peer.command(), "no")
    peer.close()
    failure(connecting, NegotiationError)


def test_a_silent_peer_is_told_with_its_phase(clock: Clock, endpoint: FakeEndpoint) -> None:
    connecting = connect(clock, endpoint)
    peer = endpoint.accept()
    clock.advance(10)
    peer.close()
    error = refused(connecting)
    assert (error.kind, error.phase) == (ConnectFailure.SILENT, "greeting")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [(ConnectionDone(), ConnectFailure.CLOSED), (ConnectionLost(), ConnectFailure.RESET)],
)
def test_a_peer_that_goes_too_early_is_told(
    clock: Clock, endpoint: FakeEndpoint, reason: Exception, kind: ConnectFailure
) -> None:
    connecting = connect(clock, endpoint)
    endpoint.accept().close(reason)
    error = refused(connecting)
    assert error.kind is kind
    assert causes(error) == [error, reason]


def test_a_connection_that_is_lost_before_it_was_given_is_told(
    clock: Clock, endpoint: FakeEndpoint
) -> None:
    connecting = connect(clock, endpoint)
    attempt, factory = endpoint.attempts[0]
    peer = Peer(clock, session=factory.buildProtocol(None)).connect()
    peer.close()
    attempt.callback(peer.session)
    assert refused(connecting).kind is ConnectFailure.CLOSED


def test_cancelling_during_the_attempt_cancels_it(clock: Clock, endpoint: FakeEndpoint) -> None:
    connecting = connect(clock, endpoint)
    connecting.cancel()
    failure(connecting, CancelledError, ConnectError)
    assert endpoint.cancelled == 1
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("phase", ["greeting", "negotiation"])
def test_cancelling_during_the_handshake_closes_the_connection(
    clock: Clock, endpoint: FakeEndpoint, phase: str
) -> None:
    connecting = connect(clock, endpoint)
    peer = endpoint.accept()
    if phase == "negotiation":
        peer.say(greeting())
    connecting.cancel()
    failure(connecting, CancelledError, ConnectError)
    assert peer.transport.disconnected
    peer.close()
    assert clock.getDelayedCalls() == []


def test_who_cancels_is_told_the_same_in_every_phase(clock: Clock) -> None:
    kinds = set()
    for phase in ("connect", "greeting", "negotiation"):
        endpoint = FakeEndpoint(clock)
        connecting = connect(clock, endpoint)
        peer = endpoint.accept() if phase != "connect" else None
        if peer is not None and phase == "negotiation":
            peer.say(greeting())
        connecting.cancel()
        kinds.add(failure(connecting).type)
        if peer is not None:
            peer.close()
    assert len(kinds) == 1


def test_a_session_that_was_given_is_not_cancelled(clock: Clock, endpoint: FakeEndpoint) -> None:
    connecting = connect(clock, endpoint)
    peer = endpoint.run()
    success(connecting)
    connecting.cancel()
    assert peer.session.state is RunState.RUNNING
    peer.close()


# listen()


def run(server: FakeServerEndpoint) -> Peer:
    """Let somebody dial, and their session begin."""
    peer = server.accept()
    assert peer is not None
    peer.say(greeting())
    peer.reply(peer.command())
    return peer


def test_who_dials_us_is_given_and_the_listening_ends(
    clock: Clock, server: FakeServerEndpoint
) -> None:
    settings = SessionSettings(window=3)
    listening = listen(clock, server, name="vm1", settings=settings)
    server.open()
    pending(listening)
    assert server.port.closing == []
    peer = run(server)
    session = success(listening)
    assert session is peer.session
    assert (session.name, session.settings) == ("vm1", settings)
    assert len(server.port.closing) == 1
    peer.close()


def test_the_session_is_given_when_the_listening_has_ended(
    clock: Clock, server: FakeServerEndpoint
) -> None:
    server.port.slow = True
    listening = listen(clock, server)
    server.open()
    peer = run(server)
    pending(listening)
    server.port.closing[0].callback(None)
    success(listening)
    peer.close()


@pytest.mark.parametrize("how", ["silent", "garbage", "closes"])
def test_a_peer_that_fails_to_greet_does_not_count(
    clock: Clock, server: FakeServerEndpoint, how: str
) -> None:
    listening = listen(clock, server)
    server.open()
    peer = server.accept()
    assert peer is not None
    assert server.accept() is None
    if how == "silent":
        clock.advance(10)
    elif how == "garbage":
        peer.say(b"garbage\n")
    peer.close()
    pending(listening)
    good = run(server)
    assert success(listening) is good.session
    good.close()
    assert clock.getDelayedCalls() == []


def test_a_place_that_cannot_be_listened_on_is_told(
    clock: Clock, server: FakeServerEndpoint
) -> None:
    listening = listen(clock, server)
    assert server.opened is not None
    problem = OSError(errno.EADDRINUSE, "address in use")
    server.opened[0].errback(problem)
    error = refused(listening)
    assert "cannot listen on" in str(error)
    assert "address in use" in str(error)
    assert causes(error) == [error, problem]


def test_a_place_to_listen_on_that_is_none_is_a_value_error(clock: Clock) -> None:
    failure(listen(clock, "nothing:here"), ValueError)


@pytest.mark.parametrize("connected", [False, True])
def test_cancelling_ends_the_listening_and_closes_what_is_connected(
    clock: Clock, server: FakeServerEndpoint, connected: bool
) -> None:
    listening = listen(clock, server)
    server.open()
    peer = server.accept() if connected else None
    outcome: list[type[BaseException]] = []
    listening.addErrback(lambda failure: outcome.append(failure.type))
    listening.cancel()
    if peer is not None:
        assert peer.transport.disconnecting
        peer.close()
    assert outcome == [CancelledError]
    assert len(server.port.closing) == 1
    assert clock.getDelayedCalls() == []


def test_cancelling_while_the_port_opens_is_a_cancel(
    clock: Clock, server: FakeServerEndpoint
) -> None:
    listening = listen(clock, server)
    listening.cancel()
    failure(listening, CancelledError)


def test_after_a_cancel_nobody_is_taken_any_more(clock: Clock, server: FakeServerEndpoint) -> None:
    server.port.slow = True
    listening = listen(clock, server)
    server.open()
    listening.cancel()
    assert server.accept() is None
    server.port.closing[0].callback(None)
    failure(listening, CancelledError)
