"""How a connection that is one too many is ended."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from txqmp.factory import MAX_REFUSALS, QMPClientFactory
from txqmp.refusal import Refusal


def refuse(clock: Clock) -> tuple[Refusal, StringTransport, list[Refusal]]:
    over: list[Refusal] = []
    refusal = Refusal(clock, 3.0, over.append)
    transport = StringTransport()
    refusal.makeConnection(transport)
    return refusal, transport, over


def close(refusal: Refusal) -> None:
    refusal.connectionLost(Failure(ConnectionDone()))


def test_it_closes_when_the_peer_has_spoken(clock: Clock) -> None:
    refusal, transport, over = refuse(clock)
    assert not transport.disconnecting
    refusal.dataReceived(b'{"QMP": ')
    assert transport.disconnecting
    close(refusal)
    assert over == [refusal]


def test_it_closes_when_the_peer_is_silent_for_long(clock: Clock) -> None:
    refusal, transport, _ = refuse(clock)
    clock.advance(2.9)
    assert not transport.disconnecting
    clock.advance(0.2)
    assert transport.disconnected or transport.disconnecting
    close(refusal)


def test_a_factory_refuses_gently_so_many_at_once_and_no_more(clock: Clock) -> None:
    factory = QMPClientFactory(clock, max_sessions=0)
    refusals = [factory.buildProtocol(None) for _ in range(MAX_REFUSALS)]
    assert all(isinstance(each, Refusal) for each in refusals)
    assert factory.buildProtocol(None) is None
    assert factory.refused == MAX_REFUSALS + 1
    first = refusals[0]
    assert isinstance(first, Refusal)
    first.makeConnection(StringTransport())
    close(first)
    assert isinstance(factory.buildProtocol(None), Refusal)


def test_a_factory_that_stops_cuts_off_who_is_refused(clock: Clock) -> None:
    factory = QMPClientFactory(clock, max_sessions=0)
    refusal = factory.buildProtocol(None)
    assert isinstance(refusal, Refusal)
    transport = StringTransport()
    refusal.makeConnection(transport)
    factory.stop()
    assert transport.disconnected or transport.disconnecting
    close(refusal)
