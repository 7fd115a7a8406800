"""Sessions that last: dialled, accepted, lost and found again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from support.transports import STOP, FakeConnector, FakeEndpoint, Peer, greeting
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    DisconnectedError,
    GreetingError,
    QMPError,
    StateError,
)
from txqmp.factory import QMPClientFactory
from txqmp.lifecycle import RunState
from txqmp.observer import Gap, Snapshot
from txqmp.protocol import QMPProtocol
from txqmp.reconnect import Backoff
from txqmp.settings import SessionSettings
from txqmp.timeouts import Timeouts


BACKOFF = Backoff(initial=1, factor=2, maximum=100, jitter=0)
SETTINGS = SessionSettings(timeouts=Timeouts(connect=50, greeting=5, negotiation=5, close=3))


class Dialling:
    """A factory that dials a place where the test decides what becomes of it.

    :ivar told: what an observer was told.
    """

    def __init__(self, clock: Clock, **options: Any) -> None:
        options = {"backoff": BACKOFF, "settings": SETTINGS, "name": "vm1", **options}
        self.clock = clock
        self.endpoint = FakeEndpoint(clock)
        self.factory = QMPClientFactory(clock, **options)
        self.peers: list[Peer] = []
        self.told: list[tuple[Any, ...]] = []
        self.factory.observe(
            ready=lambda *news: self.told.append(("ready", *news)),
            lost=lambda *news: self.told.append(("lost", *news)),
            gap=lambda *news: self.told.append(("gap", *news)),
            snapshot=lambda *news: self.told.append(("snapshot", *news)),
            failed=lambda *news: self.told.append(("failed", *news)),
        )

    def dial(self) -> Dialling:
        self.factory.dial(self.endpoint)
        return self

    def accept(self) -> Peer:
        """Let the attempt succeed."""
        self.peers.append(self.endpoint.accept())
        return self.peers[-1]

    def run(self) -> Peer:
        """Let the attempt succeed, and the session begin."""
        self.peers.append(self.endpoint.run())
        return self.peers[-1]

    def refuse(self, reason: Exception | None = None) -> None:
        """Let the attempt fail."""
        self.endpoint.refuse(reason or ConnectionRefusedError(111, "refused"))

    def build(self) -> Peer | None:
        """Let somebody dial us; ``None`` where they are turned away."""
        session = self.factory.buildProtocol(None)
        if not isinstance(session, QMPProtocol):
            return None
        self.peers.append(Peer(self.clock, session=session).connect())
        return self.peers[-1]

    @property
    def attempts(self) -> int:
        return len(self.endpoint.attempts)

    def news(self, *kinds: str) -> list[Any]:
        """Return what the observer was told of these kinds, the kind left out."""
        return [news[1] if len(news) == 2 else news[1:] for news in self.told if news[0] in kinds]

    def kinds(self) -> list[str]:
        return [news[0] for news in self.told]

    def end(self) -> None:
        stopped = self.factory.stop()
        for peer in self.peers:
            peer.close()
        success(stopped)


MakeDialling = Callable[..., Dialling]


@pytest.fixture
def make(clock: Clock) -> Iterator[MakeDialling]:
    """Make factories, which are stopped at the end of the test."""
    made: list[Dialling] = []

    def make(**options: Any) -> Dialling:
        made.append(Dialling(clock, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def it(make: MakeDialling) -> Dialling:
    """A factory that dials."""
    return make().dial()


def drop(deferred: Deferred[Any]) -> None:
    """Fail the test if a Deferred has fired; wait for it no more."""
    pending(deferred)
    deferred.cancel()
    failure(deferred, CancelledError)


def is_stopped(deferred: Deferred[Any]) -> bool:
    return "vm1: the factory is stopped" in str(failure(deferred, StateError).value)


# Dialling


def test_it_is_a_factory_of_twisteds(make: MakeDialling) -> None:
    factory = make().factory
    assert isinstance(factory, ClientFactory)
    assert IProtocolFactory.providedBy(factory)
    assert factory.noisy is False
    assert repr(factory) == "<QMPClientFactory vm1>"


def test_a_session_that_runs_is_told_and_can_be_had(it: Dialling) -> None:
    ready = it.factory.when_ready()
    assert it.factory.session is None
    peer = it.run()
    assert success(ready) is peer.session
    assert it.factory.session is peer.session
    assert it.factory.sessions == (peer.session,)
    assert it.news("ready") == [peer.session]
    assert it.factory.sessions_begun == 1
    assert (peer.session.name, peer.session.settings) == ("vm1", SETTINGS)
    assert peer.session.factory is it.factory


def test_a_factory_dials_one_place(it: Dialling) -> None:
    with pytest.raises(StateError, match="vm1: the factory dials already"):
        it.factory.dial(it.endpoint)
    assert it.attempts == 1


def test_what_is_no_place_is_refused_and_another_can_be_dialled(make: MakeDialling) -> None:
    it = make()
    with pytest.raises(ValueError):
        it.factory.dial("nothing:here")
    it.dial()
    assert it.attempts == 1


def test_each_attempt_that_fails_is_followed_by_a_longer_wait(it: Dialling) -> None:
    for wait in (1, 2, 4, 8):
        before = it.attempts
        it.refuse()
        it.clock.advance(wait - 0.25)
        assert it.attempts == before
        it.clock.advance(0.25)
        assert it.attempts == before + 1
    assert [error.kind for error in it.news("failed")] == [ConnectFailure.REFUSED] * 4
    assert isinstance(it.factory.last_error, ConnectError)


@pytest.mark.parametrize("how", ["silent", "closes", "garbage", "refuses"])
def test_a_peer_that_accepts_and_does_not_become_a_session_is_a_failed_attempt(
    it: Dialling, how: str
) -> None:
    for wait in (1, 2, 4):
        peer = it.accept()
        if how == "silent":
            it.clock.advance(5)
            assert peer.transport.disconnected
        elif how == "garbage":
            peer.say(b"garbage\n")
        elif how == "refuses":
            peer.say(greeting())
            peer.refuse(peer.command(), "no")
        peer.close()
        before = it.attempts
        it.clock.advance(wait - 0.25)
        assert it.attempts == before
        it.clock.advance(0.25)
        assert it.attempts == before + 1
    assert it.kinds() == ["failed"] * 3
    assert it.factory.sessions_begun == 0


def test_an_attempt_that_takes_too_long_is_given_up(it: Dialling) -> None:
    it.clock.advance(50)
    assert it.endpoint.cancelled == 1
    (error,) = it.news("failed")
    assert isinstance(error, ConnectTimeoutError)
    it.clock.advance(1)
    assert it.attempts == 2


def test_an_endpoint_that_raises_is_a_failed_attempt(make: MakeDialling) -> None:
    it = make()
    connect = it.endpoint.connect

    def broken(_: object) -> Any:
        raise OSError("no more descriptors")

    it.endpoint.connect = broken  # type: ignore[method-assign]
    it.dial()
    it.clock.advance(1)
    assert it.kinds() == ["failed", "failed"]
    it.endpoint.connect = connect  # type: ignore[method-assign]
    it.clock.advance(2)
    assert it.attempts == 1


def test_an_attempt_that_fails_with_its_protocol_built_takes_nobodys_place(it: Dialling) -> None:
    # So does a child process that cannot be started.
    it.endpoint.attempts[-1][1].buildProtocol(None)
    it.refuse()
    it.clock.advance(1)
    peer = it.run()
    assert it.factory.refused == 0
    assert it.factory.session is peer.session


def test_an_attempt_may_fail_at_once(make: MakeDialling) -> None:
    it = make()
    tries: list[float] = []

    def refuse(_: object) -> Deferred[Any]:
        tries.append(it.clock.seconds())
        return fail(ConnectionRefusedError(111, "refused"))

    it.endpoint.connect = refuse  # type: ignore[method-assign]
    it.dial()
    it.clock.pump([1, 2, 4])
    assert tries == [0, 1, 3, 7]


@pytest.mark.parametrize("stopping", [False, True])
def test_a_session_may_run_before_the_attempt_is_said_to_be_done(
    make: MakeDialling, stopping: bool
) -> None:
    it = make()
    stopped: list[Deferred[None]] = []
    if stopping:
        it.factory.observe(ready=lambda _: stopped.append(it.factory.stop()))

    def connect(factory: Any) -> Deferred[Any]:
        it.peers.append(Peer(it.clock, session=factory.buildProtocol(None)).run())
        return succeed(it.peers[-1].session)

    it.endpoint.connect = connect  # type: ignore[method-assign]
    it.dial()
    if not stopping:
        assert success(it.factory.when_ready()) is it.peers[0].session
        return
    it.peers[0].close()
    success(stopped[0])
    assert is_stopped(it.factory.when_ready())
    assert it.clock.getDelayedCalls() == []


def test_a_lost_session_is_dialled_again_after_the_shortest_wait(it: Dialling) -> None:
    for _ in range(3):
        it.refuse()
        it.clock.advance(100)
    for number in range(3):
        peer = it.run()
        assert it.factory.last_error is None
        it.clock.advance(1)
        peer.close(ConnectionLost())
        session, error = it.news("lost")[number]
        assert session is peer.session
        assert isinstance(error, DisconnectedError)
        assert it.factory.session is None
        before = it.attempts
        it.clock.advance(0.75)
        assert it.attempts == before
        it.clock.advance(0.25)
        assert it.attempts == before + 1
    assert it.factory.sessions_begun == 3


def test_the_waits_begin_anew_after_a_session(it: Dialling) -> None:
    for _ in range(3):
        it.refuse()
        it.clock.advance(100)
    it.run().close()
    it.clock.advance(1)
    it.refuse()
    before = it.attempts
    it.clock.advance(1)
    assert it.attempts == before + 1


def test_a_session_that_ends_by_our_disconnect_is_dialled_again_too(it: Dialling) -> None:
    peer = it.run()
    closed = peer.session.disconnect()
    peer.close()
    success(closed)
    it.clock.advance(1)
    assert it.attempts == 2


def test_without_a_backoff_it_dials_once(make: MakeDialling) -> None:
    it = make(backoff=None).dial()
    it.refuse()
    assert it.clock.getDelayedCalls() == []
    assert it.kinds() == ["failed"]


def test_who_waits_for_a_session_that_is_dialled_once_is_told_of_the_failure(
    make: MakeDialling,
) -> None:
    it = make(backoff=None).dial()
    told: list[type[BaseException]] = []
    it.factory.when_ready().addErrback(lambda failure: told.append(failure.type))
    it.refuse()
    assert told == [ConnectError]


def test_an_endpoints_connect_gives_a_single_session(make: MakeDialling) -> None:
    it = make()
    attempt = it.endpoint.connect(it.factory)
    peer = it.run()
    assert success(attempt) is peer.session
    assert success(it.factory.when_ready()) is peer.session
    peer.close()
    assert it.clock.getDelayedCalls() == []


# when_ready()


def test_each_who_waits_has_a_deferred_of_its_own(it: Dialling) -> None:
    one, other = it.factory.when_ready(), it.factory.when_ready()
    one.addCallback(lambda _: None)
    peer = it.run()
    assert success(one) is None
    assert success(other) is peer.session
    assert success(it.factory.when_ready()) is peer.session


def test_who_waits_goes_on_waiting_through_failures(it: Dialling) -> None:
    ready = it.factory.when_ready()
    it.refuse()
    it.clock.advance(1)
    it.accept().close()
    it.clock.advance(2)
    pending(ready)
    it.run()
    success(ready)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_who_waits_may_give_up_after_so_many_failures(it: Dialling, failures: int) -> None:
    ready, patient = it.factory.when_ready(failures=failures), it.factory.when_ready()
    for _ in range(failures - 1):
        it.refuse()
        it.clock.advance(100)
        pending(ready)
    it.refuse()
    error = failure(ready, ConnectError).value
    assert isinstance(error, ConnectError)
    assert error.kind is ConnectFailure.REFUSED
    assert error is not it.factory.last_error
    drop(patient)


def test_failures_of_handshakes_count_for_who_waits(it: Dialling) -> None:
    ready = it.factory.when_ready(failures=1)
    peer = it.accept()
    peer.say(b"garbage\n")
    peer.close()
    failure(ready, GreetingError)


def test_who_gives_up_may_cancel_another_who_does(it: Dialling) -> None:
    first, second = (it.factory.when_ready(failures=1) for _ in range(2))
    first.addErrback(lambda _: second.cancel())
    it.refuse()
    success(first)
    failure(second, CancelledError)


def test_who_is_given_the_session_may_cancel_another(it: Dialling) -> None:
    first, second, third = (it.factory.when_ready() for _ in range(3))
    first.addCallback(lambda _: second.cancel())
    it.run()
    failure(second, CancelledError)
    success(third)


def test_who_cancels_waits_no_more(it: Dialling) -> None:
    gone, kept = it.factory.when_ready(), it.factory.when_ready()
    gone.cancel()
    failure(gone, CancelledError)
    seen = weakref.ref(gone)
    del gone
    gc.collect()
    assert seen() is None
    it.run()
    success(kept)


def test_a_session_that_was_lost_is_not_given(it: Dialling) -> None:
    found: list[Any] = []
    observer = it.factory.observe(
        lost=lambda *_: found.extend([it.factory.session, it.factory.when_ready()])
    )
    it.run().close()
    assert found[0] is None
    pending(found[1])
    it.clock.advance(1)
    peer = it.run()
    assert success(found[1]) is peer.session
    observer.cancel()


@pytest.mark.parametrize("how", ["broken", "disconnecting", "aborted"])
def test_a_session_that_is_ending_is_not_given(it: Dialling, how: str) -> None:
    first = it.run()
    closed: Deferred[None] | None = None
    if how == "broken":
        first.say(b"garbage\n")
    elif how == "disconnecting":
        closed = first.session.disconnect()
    else:
        first.session.abort()
    assert first.session.state is RunState.DISCONNECTING
    assert it.factory.session is None
    assert it.factory.sessions == ()
    ready = it.factory.when_ready()
    pending(ready)
    first.close()
    it.clock.advance(1)
    second = it.run()
    assert success(ready) is second.session
    if closed is not None:
        success(closed)


def test_who_loses_a_command_and_waits_again_gets_the_next_session(it: Dialling) -> None:
    tries: list[QMPProtocol] = []

    async def persistent() -> Any:
        while True:
            session = await it.factory.when_ready()
            try:
                return await session.execute("query-name")
            except DisconnectedError:
                tries.append(session)

    result = Deferred.fromCoroutine(persistent())
    lost = []
    for _ in range(3):
        lost.append(it.run())
        it.clock.advance(1)
        lost[-1].close()
        it.clock.advance(1)
    answer_all(it.run(), 5)
    assert success(result) == 5
    assert tries == [peer.session for peer in lost]


# Gaps and snapshots


def answer_all(peer: Peer, value: Any = None) -> list[str]:
    """Answer all commands, and return their names."""
    commands = peer.heard()
    for command in commands:
        peer.reply(command, value)
    return [command["execute"] for command in commands]


def test_the_first_session_follows_no_gap(it: Dialling) -> None:
    peer = it.run()
    assert it.kinds() == ["ready"]
    assert peer.heard() == []


def test_each_return_is_followed_by_one_gap_and_one_snapshot(it: Dialling) -> None:
    it.run()
    for _ in range(3):
        it.told.clear()
        it.clock.advance(10)
        since = it.clock.seconds()
        it.peers[-1].close(ConnectionDone())
        it.clock.advance(1)
        it.refuse()
        it.clock.advance(1)
        until = it.clock.seconds()
        peer = it.run()
        assert it.kinds() == ["lost", "failed", "ready", "gap"]
        assert it.news("gap") == [Gap(since, until, "the peer closed the connection")]
        assert answer_all(peer, {"status": "running"}) == ["query-status"]
        assert it.news("snapshot") == [Snapshot({"query-status": {"status": "running"}}, {})]


def test_a_snapshot_has_what_was_asked_for_and_what_failed(make: MakeDialling) -> None:
    it = make(snapshot=("query-status", "query-block")).dial()
    it.run().close()
    it.clock.advance(1)
    peer = it.run()
    status, block = peer.heard()
    peer.refuse(status, "no")
    assert it.news("snapshot") == []
    peer.reply(block, [])
    (snapshot,) = it.news("snapshot")
    assert snapshot.results == {"query-block": []}
    assert list(snapshot.errors) == ["query-status"]
    assert "no (GenericError)" in str(snapshot.errors["query-status"])


def test_a_session_lost_during_its_snapshot_says_so(it: Dialling) -> None:
    it.run().close()
    it.clock.advance(1)
    it.run().close()
    (snapshot,) = it.news("snapshot")
    assert snapshot.results == {}
    assert isinstance(snapshot.errors["query-status"], DisconnectedError)


def test_after_a_stop_there_is_no_gap(it: Dialling) -> None:
    peer = it.run()
    stopped = it.factory.stop()
    peer.close()
    success(stopped)
    it.dial().run()
    assert it.kinds() == ["ready", "lost", "ready"]


def test_a_factory_of_many_sessions_tells_no_gaps(make: MakeDialling) -> None:
    it = make(max_sessions=None)
    for _ in range(2):
        peer = it.build()
        assert peer is not None
        peer.say(greeting())
        peer.reply(peer.command())
        peer.close()
    assert it.kinds() == ["ready", "lost", "ready", "lost"]


# Subscriptions


def test_subscriptions_outlive_a_session(it: Dialling) -> None:
    seen: list[str] = []
    it.factory.subscribe(lambda event: seen.append(event.name), "STOP")
    listener = it.factory.listen()
    waiting = it.factory.wait_for("RESUME")
    it.run().say(STOP)
    it.peers[-1].close()
    it.clock.advance(1)
    pending(waiting)
    it.run().say(STOP, {"event": "RESUME"})
    assert seen == ["STOP", "STOP"]
    assert [event.name for event in listener.clear()] == ["STOP", "STOP", "RESUME"]
    assert success(waiting).name == "RESUME"


def test_early_events_come_after_the_observers_were_told(it: Dialling) -> None:
    it.factory.subscribe(lambda event: it.told.append(("event", event)))
    peer = it.accept()
    peer.say(STOP, greeting())
    peer.reply(peer.command())
    assert it.kinds() == ["ready", "event"]


# Observers


def test_an_observer_that_raises_hurts_nobody(it: Dialling, logged_errors: LoggedErrors) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    seen: list[str] = []
    everything = dict.fromkeys(("ready", "lost", "gap", "snapshot", "failed"), broken)
    observer = it.factory.observe(**everything)
    it.factory.observe(
        **{name: lambda *_, name=name: seen.append(name) for name in everything}  # type: ignore[arg-type]
    )
    ready = it.factory.when_ready()
    it.refuse()
    it.clock.advance(1)
    it.run().close()
    it.clock.advance(1)
    answer_all(it.run())
    success(ready)
    assert seen == ["failed", "ready", "lost", "ready", "gap", "snapshot"]
    logged = logged_errors.flush(ZeroDivisionError)
    assert [formatEvent(event) for event in logged] == [
        f"vm1: an observer failed on {name}" for name in seen
    ]
    observer.cancel()


def test_a_cancelled_observer_is_told_no_more(it: Dialling) -> None:
    seen: list[QMPProtocol] = []
    it.factory.observe(ready=seen.append).cancel()
    it.run()
    assert seen == []


def test_an_observer_cancelled_by_an_earlier_one_is_told_no_more(it: Dialling) -> None:
    seen: list[QMPProtocol] = []
    it.factory.observe(ready=lambda _: later.cancel())
    later = it.factory.observe(ready=seen.append)
    it.run()
    assert seen == []


def test_who_begins_to_observe_while_others_are_told_is_told_the_next_time(it: Dialling) -> None:
    seen: list[QMPProtocol] = []
    it.factory.observe(ready=lambda _: it.factory.observe(ready=seen.append))
    it.run()
    assert seen == []


# stop()


def dials_again(it: Dialling) -> bool:
    it.endpoint.attempts.clear()
    it.dial().run()
    return success(it.factory.when_ready()) is it.peers[-1].session


def test_stopping_what_never_began_is_done_at_once(make: MakeDialling) -> None:
    it = make()
    success(it.factory.stop())
    assert is_stopped(it.factory.when_ready())
    assert dials_again(it)


def test_stopping_during_an_attempt_cancels_it(it: Dialling) -> None:
    ready = it.factory.when_ready()
    success(it.factory.stop())
    assert it.endpoint.cancelled == 1
    assert is_stopped(ready)
    assert it.clock.getDelayedCalls() == []
    assert it.kinds() == []
    assert dials_again(it)


def test_stopping_during_a_wait_dials_no_more(it: Dialling) -> None:
    it.refuse()
    success(it.factory.stop())
    assert it.clock.getDelayedCalls() == []
    assert dials_again(it)


@pytest.mark.parametrize("phase", ["greeting", "negotiation", "running"])
def test_stopping_ends_what_is_connected(it: Dialling, phase: str) -> None:
    peer = it.accept()
    if phase != "greeting":
        peer.say(greeting())
    if phase == "running":
        peer.reply(peer.command())
    stopped = it.factory.stop()
    pending(stopped)
    assert peer.transport.disconnecting
    assert is_stopped(it.factory.when_ready())
    peer.close()
    success(stopped)
    assert it.clock.getDelayedCalls() == []
    assert it.kinds() == (["ready", "lost"] if phase == "running" else [])
    assert dials_again(it)


def test_stopping_cuts_off_a_peer_that_does_not_read(it: Dialling) -> None:
    peer = it.run()
    stopped = it.factory.stop()
    it.clock.advance(3)
    assert peer.transport.disconnected
    peer.close(ConnectionLost())
    success(stopped)


def test_stopping_waits_for_a_broken_session_and_tells_no_error(it: Dialling) -> None:
    peer = it.run()
    peer.say(b"garbage\n")
    stopped = it.factory.stop()
    pending(stopped)
    peer.close()
    success(stopped)


def test_stopping_twice_is_stopping(it: Dialling) -> None:
    peer = it.run()
    one, other = it.factory.stop(), it.factory.stop()
    peer.close()
    success(one)
    success(other)


def test_stopping_ends_who_listens_and_waits(it: Dialling) -> None:
    listening = it.factory.listen().get()
    waiting = it.factory.wait_for("STOP")
    seen: list[object] = []
    it.factory.subscribe(seen.append)
    success(it.factory.stop())
    for each in (listening, waiting, it.factory.wait_for("STOP")):
        error = failure(each, DisconnectedError).value
        assert isinstance(error, DisconnectedError)
        assert error.expected
        assert error.reason == "vm1: the factory was stopped"
    it.dial().run().say(STOP)
    assert len(seen) == 1


def test_who_is_told_of_the_stop_may_cancel_another(it: Dialling) -> None:
    first, second = it.factory.when_ready(), it.factory.when_ready()
    first.addErrback(lambda _: second.cancel())
    success(it.factory.stop())
    success(first)
    failure(second, CancelledError)


def test_a_stopped_factory_takes_no_connection_until_it_is_resumed(make: MakeDialling) -> None:
    it = make()
    success(it.factory.stop())
    assert it.build() is None
    it.factory.resume()
    assert it.build() is not None


@pytest.mark.parametrize("when", ["ready", "lost", "failed", "gap"])
def test_an_observer_may_stop_the_factory(it: Dialling, when: str) -> None:
    stopped: list[Deferred[None]] = []
    it.factory.observe(**{when: lambda *_: stopped.append(it.factory.stop())})  # type: ignore[arg-type]
    if when == "failed":
        it.refuse()
    else:
        peer = it.run()
        if when in ("lost", "gap"):
            peer.close()
        if when == "gap":
            it.clock.advance(1)
            peer = it.run()
        peer.close()
    success(stopped[0])
    assert it.clock.getDelayedCalls() == []
    assert is_stopped(it.factory.when_ready())


@pytest.mark.parametrize("failures", [None, 1])
def test_who_waits_may_stop_the_factory(it: Dialling, failures: int | None) -> None:
    stopped: list[Deferred[None]] = []
    ready = it.factory.when_ready(failures=failures)
    ready.addBoth(lambda _: stopped.append(it.factory.stop()))
    if failures:
        it.refuse()
    else:
        it.run().close()
    success(ready)
    success(stopped[0])
    assert it.clock.getDelayedCalls() == []


def test_a_callback_of_the_stop_may_dial_again(it: Dialling) -> None:
    again: list[Deferred[Any]] = []

    def dial(_: object) -> None:
        it.factory.dial(it.endpoint)
        again.append(it.factory.when_ready())

    it.factory.when_ready().addErrback(dial)
    success(it.factory.stop())
    assert it.attempts == 2
    waiting = it.factory.wait_for("STOP")
    peer = it.run()
    assert success(again[0]) is peer.session
    peer.say(STOP)
    assert success(waiting).name == "STOP"


# Accepting


def test_one_session_at_a_time_unless_more_are_allowed(make: MakeDialling) -> None:
    it = make()
    assert it.build() is not None
    assert it.build() is None
    assert it.factory.refused == 1
    it.peers[-1].close()
    assert it.build() is not None


def test_as_many_sessions_as_are_allowed(make: MakeDialling) -> None:
    it = make(max_sessions=3)
    assert [it.build() is not None for _ in range(4)] == [True, True, True, False]


def test_all_sessions_that_run_are_known_the_newest_first_of_all(make: MakeDialling) -> None:
    it = make(max_sessions=None)
    peers = [it.build() for _ in range(3)]
    for peer in peers:
        assert peer is not None
        peer.say(greeting())
        peer.reply(peer.command())
        assert it.factory.session is peer.session
    assert it.factory.sessions == tuple(peer.session for peer in peers if peer)
    assert peers[2] is not None
    peers[2].close()
    assert peers[1] is not None
    assert it.factory.session is peers[1].session


def test_who_dials_us_is_not_dialled(make: MakeDialling) -> None:
    it = make()
    ready = it.factory.when_ready()
    peer = it.build()
    assert peer is not None
    peer.close()
    assert it.kinds() == ["failed"]
    assert it.clock.getDelayedCalls() == []
    pending(ready)
    peer = it.build()
    assert peer is not None
    peer.say(greeting())
    peer.reply(peer.command())
    assert success(ready) is peer.session


def test_failures_of_those_who_dial_us_count_too(make: MakeDialling) -> None:
    it = make()
    ready = it.factory.when_ready(failures=2)
    told: list[type[BaseException]] = []
    ready.addErrback(lambda failure: told.append(failure.type))
    for _ in range(2):
        assert told == []
        peer = it.build()
        assert peer is not None
        peer.close()
    assert told == [ConnectError]


def test_a_return_of_who_dials_us_is_told_with_its_gap(make: MakeDialling) -> None:
    it = make()
    for _ in range(2):
        peer = it.build()
        assert peer is not None
        peer.say(greeting())
        peer.reply(peer.command())
        answer_all(peer)
        peer.close()
    assert it.kinds() == ["ready", "lost", "ready", "gap", "snapshot", "lost"]


# connectUNIX() and connectTCP()


@pytest.fixture
def connector(make: MakeDialling, clock: Clock) -> FakeConnector:
    """What a reactor's ``connectUNIX`` makes of a factory; it is dialling."""
    it = make()
    connector = FakeConnector(it.factory, clock)
    connector.it = it  # type: ignore[attr-defined]
    connector.connect()
    return connector


def of(connector: FakeConnector) -> Dialling:
    it: Dialling = connector.it  # type: ignore[attr-defined]
    return it


def test_a_connectors_session_is_told(connector: FakeConnector) -> None:
    ready = of(connector).factory.when_ready()
    peer = connector.run()
    assert success(ready) is peer.session
    connector.close(peer)


def test_a_connector_is_dialled_again_after_growing_waits(connector: FakeConnector) -> None:
    it = of(connector)
    for number, wait in enumerate((1, 2, 4), 1):
        connector.connectionFailed(_refused())
        assert connector.attempts == number
        it.clock.advance(wait)
        assert connector.attempts == number + 1
    assert [error.kind for error in it.news("failed")] == [ConnectFailure.REFUSED] * 3


def _refused() -> Failure:
    return Failure(ConnectionRefusedError(111, "refused"))


def test_a_connector_is_dialled_again_after_a_session(connector: FakeConnector) -> None:
    it = of(connector)
    for number in range(1, 4):
        peer = connector.run()
        it.clock.advance(1)
        connector.close(peer)
        it.clock.advance(1)
        assert connector.attempts == number + 1


def test_a_connectors_silent_peer_counts_as_a_failure(connector: FakeConnector) -> None:
    it = of(connector)
    for number, wait in enumerate((1, 2, 4), 1):
        peer = connector.accept()
        it.clock.advance(5)
        connector.close(peer)
        it.clock.advance(wait)
        assert connector.attempts == number + 1


@pytest.mark.parametrize("how", ["connectUNIX", "connectTCP"])
def test_a_reactors_own_verbs_take_the_factory(how: str) -> None:
    reactor = MemoryReactorClock()
    factory = QMPClientFactory(reactor, backoff=BACKOFF)
    ready = factory.when_ready()
    if how == "connectUNIX":
        reactor.connectUNIX("/run/vm.sock", factory)
    else:
        reactor.connectTCP("127.0.0.1", 4444, factory)
    peer = Peer(reactor, session=factory.buildProtocol(None)).run()
    assert success(ready) is peer.session
    stopped = factory.stop()
    peer.close()
    success(stopped)
    assert reactor.getDelayedCalls() == []


def test_stopping_stops_a_connector_that_connects(connector: FakeConnector) -> None:
    it = of(connector)
    success(it.factory.stop())
    assert connector.state == "disconnected"
    assert it.kinds() == []
    it.clock.advance(1000)
    assert connector.attempts == 1


def test_stopping_ends_a_connectors_session(connector: FakeConnector) -> None:
    it = of(connector)
    peer = connector.run()
    stopped = it.factory.stop()
    connector.close(peer)
    success(stopped)
    it.clock.advance(1000)
    assert connector.attempts == 1


def test_stopping_during_a_connectors_wait_dials_no_more(connector: FakeConnector) -> None:
    it = of(connector)
    connector.connectionFailed(_refused())
    success(it.factory.stop())
    it.clock.advance(1000)
    assert connector.attempts == 1


def test_a_stopped_factory_can_be_connected_again(connector: FakeConnector) -> None:
    it = of(connector)
    success(it.factory.stop())
    connector.connect()
    ready = it.factory.when_ready()
    peer = connector.run()
    assert success(ready) is peer.session
    connector.close(peer)


# The log


def test_the_log_says_each_thing_once(it: Dialling) -> None:
    with capturedLogs() as logs:
        for _ in range(5):
            it.refuse()
            it.clock.advance(100)
        it.refuse(ConnectionLost())
        it.clock.advance(100)
        it.run()
    lines = [
        formatEvent(log) for log in logs if log["log_namespace"] == "txqmp.factory.QMPClientFactory"
    ]
    assert [line.partition(":")[0] for line in lines] == ["vm1"] * 3
    assert "no session: nobody listens there" in lines[0]
    assert "no session: " in lines[1]
    assert lines[2] == "vm1: the session runs"


def test_a_name_may_have_braces(make: MakeDialling) -> None:
    it = make(name="{vm}").dial()
    with capturedLogs() as logs:
        it.run()
    assert formatEvent(logs[0]) == "{vm}: the session runs"


def test_the_last_error_is_known_until_a_session_runs(it: Dialling) -> None:
    assert it.factory.last_error is None
    it.refuse()
    assert isinstance(it.factory.last_error, QMPError)
    it.clock.advance(1)
    it.run()
    assert it.factory.last_error is None
