"""The client factory as a part of an application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.transports import FakeEndpoint, FakeServerEndpoint, greeting
from txqmp.errors import StateError
from txqmp.factory import QMPClientFactory
from txqmp.reconnect import Backoff
from txqmp.service import QMPService


MakeService = Callable[..., QMPService]


@pytest.fixture
def endpoint(clock: Clock) -> FakeEndpoint:
    return FakeEndpoint(clock)


@pytest.fixture
def server(clock: Clock) -> FakeServerEndpoint:
    return FakeServerEndpoint(clock)


@pytest.fixture
def make(clock: Clock) -> Iterator[MakeService]:
    """Make services, which are stopped at the end of the test."""
    made: list[QMPService] = []

    def make(where: Any, **options: Any) -> QMPService:
        factory = QMPClientFactory(clock, name="vm1", backoff=Backoff(initial=1, jitter=0))
        made.append(QMPService(clock, where, factory, **options))
        return made[-1]

    yield make
    for service in made:
        if service.running:
            service.stopService()


# Dialling


def test_it_is_a_service_that_can_have_a_parent(make: MakeService, endpoint: FakeEndpoint) -> None:
    service, parent = make(endpoint), MultiService()
    assert IService.providedBy(service)
    service.setServiceParent(parent)
    parent.startService()
    assert len(endpoint.attempts) == 1
    success(parent.stopService())


def test_nothing_is_dialled_before_it_is_started(make: MakeService, endpoint: FakeEndpoint) -> None:
    service = make(endpoint)
    assert endpoint.attempts == []
    service.startService()
    assert service.running
    assert len(endpoint.attempts) == 1
    assert service.listening is None


def test_the_session_is_kept_alive_while_it_runs(
    make: MakeService, endpoint: FakeEndpoint, clock: Clock
) -> None:
    service = make(endpoint)
    service.startService()
    peer = endpoint.run()
    assert service.factory.session is peer.session
    peer.close()
    clock.advance(1)
    assert len(endpoint.attempts) == 2


@pytest.mark.parametrize("phase", ["attempt", "wait", "handshake"])
def test_stopping_leaves_nothing(
    make: MakeService, endpoint: FakeEndpoint, clock: Clock, phase: str
) -> None:
    service = make(endpoint)
    service.startService()
    peer = None
    if phase == "wait":
        endpoint.refuse(OSError("no"))
    elif phase == "handshake":
        peer = endpoint.accept()
    stopped = service.stopService()
    if peer is not None:
        pending(stopped)
        peer.close()
    success(stopped)
    assert not service.running
    assert clock.getDelayedCalls() == []


def test_stopping_ends_even_when_the_peer_does_not_read(
    make: MakeService, endpoint: FakeEndpoint, clock: Clock
) -> None:
    service = make(endpoint)
    service.startService()
    peer = endpoint.run()
    stopped = service.stopService()
    clock.advance(2.999)
    assert not peer.transport.disconnected
    clock.advance(0.001)
    assert peer.transport.disconnected
    pending(stopped)
    peer.close()
    success(stopped)


def test_it_can_be_started_again(make: MakeService, endpoint: FakeEndpoint) -> None:
    service = make(endpoint)
    for _ in range(3):
        service.startService()
        peer = endpoint.run()
        assert service.factory.session is peer.session
        stopped = service.stopService()
        peer.close()
        success(stopped)


def test_a_factory_that_dials_already_cannot_be_a_services(
    make: MakeService, endpoint: FakeEndpoint
) -> None:
    service = make(endpoint)
    service.factory.dial(endpoint)
    with pytest.raises(StateError):
        service.startService()
    success(service.factory.stop())
    success(service.stopService())


@pytest.mark.parametrize("accept", [False, True])
def test_a_place_that_is_none_is_refused_when_the_service_is_made(
    make: MakeService, accept: bool
) -> None:
    with pytest.raises(ValueError):
        make("nothing:here", accept=accept)


def test_a_place_is_named_as_for_the_functions(clock: Clock) -> None:
    reactor = MemoryReactorClock()
    service = QMPService(reactor, "unix:/run/vm.sock", QMPClientFactory(reactor), accept=True)
    service.startService()
    assert reactor.unixServers[0][0] == "/run/vm.sock"
    success(service.stopService())


# Accepting


def test_accepting_listens_while_it_runs(make: MakeService, server: FakeServerEndpoint) -> None:
    service = make(server, accept=True)
    assert server.opened is None
    service.startService()
    server.open()
    peer = server.accept()
    assert peer is not None
    peer.say(greeting())
    peer.reply(peer.command())
    assert service.factory.session is peer.session
    stopped = service.stopService()
    assert len(server.port.closing) == 1
    peer.close()
    success(stopped)
    assert server.accept() is None


def test_the_port_can_be_waited_for_and_is_closed_all_the_same(
    make: MakeService, server: FakeServerEndpoint
) -> None:
    service = make(server, accept=True)
    service.startService()
    assert service.listening is not None
    pending(service.listening)
    server.open()
    assert success(service.listening) is server.port
    success(service.stopService())
    assert len(server.port.closing) == 1
    assert service.listening is None


def test_stopping_waits_for_the_port_and_for_the_sessions(
    make: MakeService, server: FakeServerEndpoint
) -> None:
    server.port.slow = True
    service = make(server, accept=True)
    service.startService()
    server.open()
    peer = server.accept()
    assert peer is not None
    stopped = service.stopService()
    pending(stopped)
    server.port.closing[0].callback(None)
    pending(stopped)
    peer.close()
    success(stopped)


def test_stopping_before_the_port_is_open_closes_it_when_it_is(
    make: MakeService, server: FakeServerEndpoint
) -> None:
    service = make(server, accept=True)
    service.startService()
    stopped = service.stopService()
    pending(stopped)
    assert server.port.closing == []
    server.open()
    assert len(server.port.closing) == 1
    success(stopped)


def test_a_port_that_opens_in_several_steps_is_closed(
    make: MakeService, server: FakeServerEndpoint
) -> None:
    listen = server.listen
    server.listen = lambda factory: succeed(None).addCallback(  # type: ignore[method-assign]
        lambda _: listen(factory)
    )
    service = make(server, accept=True)
    service.startService()
    stopped = service.stopService()
    pending(stopped)
    server.open()
    success(stopped)
    assert len(server.port.closing) == 1


@pytest.mark.parametrize("how", ["taken", "cancelled"])
def test_what_becomes_of_the_listening_deferred_does_not_matter(
    make: MakeService, server: FakeServerEndpoint, logged_errors: LoggedErrors, how: str
) -> None:
    service = make(server, accept=True)
    service.startService()
    assert service.listening is not None
    if how == "cancelled":
        service.listening.cancel()
        logged_errors.flush(CancelledError)
        service.listening.addErrback(lambda _: None)
    else:
        service.listening.addCallback(lambda _: "something else")
        server.open()
    success(service.stopService())
    assert len(server.port.closing) == (1 if how == "taken" else 0)


def test_nobody_is_taken_while_the_port_closes(
    make: MakeService, server: FakeServerEndpoint
) -> None:
    server.port.slow = True
    service = make(server, accept=True)
    service.startService()
    server.open()
    stopped = service.stopService()
    assert server.accept() is None
    server.port.closing[0].callback(None)
    success(stopped)


def test_where_a_place_cannot_be_listened_on_there_is_no_port_and_the_log_says_why(
    make: MakeService, server: FakeServerEndpoint, logged_errors: LoggedErrors
) -> None:
    service = make(server, accept=True)
    service.startService()
    assert server.opened is not None
    assert service.listening is not None
    server.opened[0].errback(OSError("address in use"))
    (event,) = logged_errors.flush(OSError)
    assert formatEvent(event) == "vm1: cannot listen"
    assert success(service.listening) is None
    success(service.stopService())


def test_a_failed_listening_that_nobody_asks_about_is_logged_once(
    make: MakeService, server: FakeServerEndpoint, logged_errors: LoggedErrors
) -> None:
    service = make(server, accept=True)
    service.startService()
    assert server.opened is not None
    server.opened[0].errback(OSError("address in use"))
    success(service.stopService())
    del service
    assert len(logged_errors.flush()) == 1


def test_accepting_can_be_started_again(make: MakeService, server: FakeServerEndpoint) -> None:
    service = make(server, accept=True)
    for number in range(1, 4):
        service.startService()
        server.open()
        peer = server.accept()
        assert peer is not None
        stopped = service.stopService()
        peer.close()
        success(stopped)
        assert len(server.port.closing) == number
