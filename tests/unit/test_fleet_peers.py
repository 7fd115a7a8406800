"""Who may connect."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from txqmp.factory import MAX_REFUSALS
from txqmp.fleet import Fleet, ListenSource, Peers
from txqmp.fleet.peers import Credentials, Doorkeeper, credentials
from txqmp.refusal import Refusal


OURS = Peers(uids={os.getuid()})
OTHERS = Peers(uids={os.getuid() + 1}, gids={os.getgid() + 1})


class SocketTransport(StringTransport):
    """A transport over a real socket."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self._handle = handle
        self.protocol: Any = None

    def getHandle(self) -> socket.socket:
        return self._handle


class Pair:
    """Two ends of a connection."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = ours
        self.transport = SocketTransport(ours)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    with pair.ours, pair.theirs:
        yield pair


def test_credentials(pair: Pair) -> None:
    assert credentials(pair.transport) == Credentials(os.getpid(), os.getuid(), os.getgid())
    assert credentials(StringTransport()) is None
    with socket.socket() as other:
        assert credentials(SocketTransport(other)) is None
    pair.ours.close()
    assert credentials(pair.transport) is None


@pytest.mark.parametrize(
    ("allowed", "admitted"),
    [
        (Peers(uids={1000}), True),
        (Peers(gids={100}), True),
        (Peers(uids={1000}, gids={7}), True),
        (Peers(uids={100}), False),
        (Peers(uids={0}, gids={1000}), False),
    ],
)
def test_who_may(allowed: Peers, admitted: bool) -> None:
    assert allowed.admit(Credentials(4711, 1000, 100)) is admitted
    assert allowed.admit(None) is False


@pytest.mark.parametrize(
    "options", [{}, {"uids": []}, {"uids": [-1]}, {"gids": ["kvm"]}, {"uids": [True]}]
)
def test_no_list(options: Any) -> None:
    with pytest.raises(ValueError, match=r"may connect|none of"):
        Peers(**options)


class Hello(Protocol):
    """Speaks first."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


def make_door(clock: Clock, allowed: Peers) -> Doorkeeper:
    return Doorkeeper(clock, Factory.forProtocol(Hello), allowed, "here", 2.0)


def come(door: Doorkeeper, transport: SocketTransport) -> None:
    door.buildProtocol(UNIXAddress("")).makeConnection(transport)


def test_one_that_may(clock: Clock, pair: Pair) -> None:
    door = make_door(clock, OURS)
    come(door, pair.transport)
    assert isinstance(pair.transport.protocol, Hello)
    assert pair.transport.value() == b"hello"
    assert door.denied == 0


def test_one_that_may_not_is_refused_gently(clock: Clock, pair: Pair) -> None:
    """A QEMU that dials as it starts may crash if it is cut off at once (fact G48)."""
    door = make_door(clock, OTHERS)
    come(door, pair.transport)
    assert isinstance(pair.transport.protocol, Refusal)
    assert not pair.transport.disconnecting
    pair.transport.protocol.dataReceived(b'{"QMP": {}}')
    assert pair.transport.disconnecting
    assert pair.transport.value() == b""
    assert door.denied == 1
    pair.transport.protocol.connectionLost()


def test_too_many_that_may_not(clock: Clock, pair: Pair) -> None:
    door = make_door(clock, OTHERS)
    transports = [SocketTransport(pair.ours) for _ in range(MAX_REFUSALS + 1)]
    for transport in transports:
        come(door, transport)
    assert [transport.disconnected for transport in transports[-2:]] == [False, True]
    door.stop()
    assert all(transport.disconnected for transport in transports)
    for transport in transports[:-1]:
        transport.protocol.connectionLost()


def test_a_factory_that_takes_none(clock: Clock, pair: Pair) -> None:
    class Closed(Factory):
        def buildProtocol(self, addr: Any) -> None:
            return None

    come(Doorkeeper(clock, Closed(), OURS, "here", 2.0), pair.transport)
    assert pair.transport.disconnected


@pytest.mark.parametrize("where", ["tcp:4444", ("127.0.0.1", 4444)])
def test_only_unix_sockets_tell(clock: Clock, where: Any) -> None:
    with pytest.raises(ValueError, match="no UNIX socket"):
        ListenSource(Fleet(clock, print), where, OURS)
    assert ListenSource(Fleet(clock, print), "unix:/run/a.sock", OURS).denied == 0
    assert ListenSource(Fleet(clock, print), where).denied == 0
