"""The HTTP face as a service: where it listens, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.web import Client, FakeSource
from txqmp.errors import ConnectError
from txqmp.monitor.web import service as module
from txqmp.monitor.web.connections import GRACE
from txqmp.monitor.web.place import is_local, web_endpoint
from txqmp.monitor.web.service import WebService


# Where


@pytest.mark.parametrize(
    ("where", "interface"),
    [
        ("tcp:9177", "127.0.0.1"),
        ("tcp:port=9177", "127.0.0.1"),
        ("tcp6:9177", "::1"),
        ("tcp:9177:interface=127.0.0.2", "127.0.0.2"),
        ("tcp:9177:127.0.0.2", "127.0.0.2"),
        ("tcp:9177:interface=localhost", "localhost"),
        (r"tcp6:9177:interface=\:\:1", "::1"),
        ("tcp:9177:backlog=5", "127.0.0.1"),
    ],
)
def test_loopback(where: str, interface: str) -> None:
    reactor = MemoryReactorClock()
    success(web_endpoint(reactor, where).listen(object()))  # type: ignore[arg-type]
    ((port, _, _, there),) = reactor.tcpServers
    assert (port, there) == (9177, interface)


@pytest.mark.parametrize(
    "where",
    [
        "tcp:9177:interface=0.0.0.0",
        "tcp:9177:0.0.0.0",
        "tcp:9177:interface=",
        "tcp:9177:interface=192.0.2.7",
        "tcp:9177:interface=node7.example",
        r"tcp6:9177:interface=\:\:",
        r"tcp6:9177:interface=2001\:db8\:\:7",
    ],
)
def test_other_hosts_have_to_be_allowed(where: str) -> None:
    reactor = MemoryReactorClock()
    with pytest.raises(ValueError, match="has to be allowed"):
        web_endpoint(reactor, where)
    with pytest.raises(ValueError, match="has to be allowed"):
        WebService(reactor, where, FakeSource())
    success(web_endpoint(reactor, where, remote=True).listen(object()))  # type: ignore[arg-type]
    assert len(reactor.tcpServers) == 1


@pytest.mark.parametrize(
    ("where", "mode"),
    [
        ("unix:/run/http.sock", 0o660),
        ("/run/http.sock", 0o660),
        ("unix:/run/http.sock:mode=600", 0o600),
    ],
)
def test_unix_socket(where: str, mode: int) -> None:
    reactor = MemoryReactorClock()
    success(web_endpoint(reactor, where).listen(object()))  # type: ignore[arg-type]
    ((path, _, _, there, _),) = reactor.unixServers
    assert (path, there) == ("/run/http.sock", mode)


@pytest.mark.parametrize("where", ["", "tcp", "tcp:x", "nonsense:1", "unix:"])
def test_no_place(where: str) -> None:
    with pytest.raises(ValueError):
        WebService(MemoryReactorClock(), where, FakeSource())


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (UNIXAddress(b"/run/http.sock"), True),
        (IPv4Address("TCP", "127.0.0.1", 1), True),
        (IPv6Address("TCP", "::1", 1), True),
        (IPv4Address("TCP", "0.0.0.0", 1), False),
        (IPv6Address("TCP", "::", 1), False),
        (IPv4Address("TCP", "10.0.0.1", 1), False),
        (object(), False),
    ],
)
def test_what_is_local(address: Any, local: bool) -> None:
    assert is_local(address) is local


# Its life


class Port:
    """A listening port."""

    def __init__(self, address: IAddress) -> None:
        self._address = address
        self.listening = True

    def getHost(self) -> IAddress:
        return self._address

    def stopListening(self) -> Deferred[None]:
        self.listening = False
        return succeed(None)


class Endpoint:
    """A place to listen on.

    :ivar problem: why it cannot be listened on.
    :ivar late: a Deferred of the port, where that takes time.
    """

    def __init__(self) -> None:
        self.address: IAddress = IPv4Address("TCP", "127.0.0.1", 9177)
        self.ports: list[Port] = []
        self.factory: Any = None
        self.problem: Exception | None = None
        self.late: Deferred[Any] | None = None

    def listen(self, factory: Any) -> Deferred[Any]:
        if self.problem is not None:
            raise self.problem
        self.factory = factory
        self.ports.append(Port(self.address))
        return succeed(self.ports[-1]) if self.late is None else self.late


class World:
    """A service with a place, and clients."""

    def __init__(self, clock: Clock, endpoint: Endpoint, service: WebService) -> None:
        self.clock = clock
        self.endpoint = endpoint
        self.service = service
        self.source = FakeSource()
        self.clients: list[Client] = []

    def client(self) -> Client:
        client = Client(self.endpoint.factory)
        self.clients.append(client)
        return client

    def look(self) -> None:
        for client in self.clients:
            client.look()


@pytest.fixture
def world(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    endpoint = Endpoint()
    monkeypatch.setattr(module, "web_endpoint", lambda *_, **__: endpoint)
    service = WebService(clock, "tcp:9177", FakeSource())
    world = World(clock, endpoint, service)
    yield world
    for client in world.clients:
        client.lose()
    if service.running:
        success(service.stopService())


def test_it_is_a_service(world: World) -> None:
    service, parent = world.service, MultiService()
    assert IService.providedBy(service)
    service.setServiceParent(parent)
    parent.privilegedStartService()
    assert len(world.endpoint.ports) == 1
    assert service.address is world.endpoint.address
    parent.startService()
    assert len(world.endpoint.ports) == 1
    assert world.client().get("/healthz").status == 200
    world.clients[0].lose()
    success(parent.stopService())
    assert not world.endpoint.ports[0].listening
    assert service.address is None


def test_it_can_be_started_without_privileges_and_again(world: World) -> None:
    for number in range(3):
        world.service.startService()
        assert len(world.endpoint.ports) == number + 1
        client = world.client()
        client.request("/events")
        assert b"event: hello" in client.wire.read()
        client.lose()
        success(world.service.stopService())


def test_stopping_ends_idle_connections_and_streams(world: World) -> None:
    world.service.startService()
    idle, stream = world.client(), world.client()
    assert idle.get("/healthz").status == 200
    stream.request("/events")
    stream.wire.read()
    stopped = world.service.stopService()
    assert not world.endpoint.ports[0].listening
    assert stream.wire.read() == b"0\r\n\r\n"
    pending(stopped)
    world.look()
    success(stopped)
    assert not idle.wire.disconnected
    assert not stream.wire.disconnected


def test_stopping_cuts_off_who_does_not_read(world: World) -> None:
    world.service.startService()
    client = world.client()
    client.request("/events")
    stopped = world.service.stopService()
    world.clock.advance(GRACE - 0.01)
    world.look()
    pending(stopped)
    world.clock.advance(0.02)
    world.look()
    success(stopped)
    assert client.wire.disconnected


def test_stopping_when_nobody_is_there(world: World) -> None:
    world.service.startService()
    success(world.service.stopService())


def test_stopping_twice(world: World) -> None:
    world.service.startService()
    world.client()
    first, second = world.service.stopService(), world.service.stopService()
    pending(first)
    world.look()
    success(first)
    success(second)


def test_stopping_before_it_listens(world: World) -> None:
    world.endpoint.late = Deferred()
    world.service.startService()
    assert world.service.address is None
    stopped = world.service.stopService()
    pending(stopped)
    world.endpoint.late.callback(world.endpoint.ports[0])
    success(stopped)
    assert not world.endpoint.ports[0].listening


def test_a_place_that_is_taken(world: World) -> None:
    world.endpoint.problem = CannotListenError("127.0.0.1", 9177, OSError(98, "in use"))
    with pytest.raises(ConnectError, match=r"cannot listen on tcp:9177: .*in use"):
        world.service.privilegedStartService()


def test_a_place_that_turns_out_to_be_open_to_others(world: World) -> None:
    """As a socket that systemd has opened for us."""
    world.endpoint.address = IPv4Address("TCP", "0.0.0.0", 9177)
    with pytest.raises(ConnectError, match="open to other hosts"):
        world.service.privilegedStartService()
    assert not world.endpoint.ports[0].listening


def test_a_place_that_fails_late(world: World, logged_errors: LoggedErrors) -> None:
    world.endpoint.late = Deferred()
    world.service.startService()
    world.endpoint.late.errback(Failure(OSError("no")))
    assert len(logged_errors.flush(OSError)) == 1
    success(world.service.stopService())


def test_other_hosts_where_they_are_allowed() -> None:
    reactor = MemoryReactorClock()
    endpoint = web_endpoint(reactor, "tcp:80:interface=0.0.0.0", remote=True)
    assert isinstance(endpoint, TCP4ServerEndpoint)
