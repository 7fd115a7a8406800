"""What is written: at once where it can be, in order always, descriptors with their own bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.unix import Server
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from support.transports import DescriptorTransport, identity
from txqmp.output import Output


@implementer(ISSLTransport)
class TLSTransport(StringTransport):
    """A TLS connection's transport, as far as anybody asks."""


class Turns(Clock):
    """A reactor whose turns are taken by hand.

    :ivar writers: the transports that wait to write.
    :ivar ended: how connections ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[FileDescriptor] = set()
        self.ended: list[Any] = []

    def addReader(self, reader: object) -> None:
        pass

    removeReader = addReader

    def addWriter(self, writer: FileDescriptor) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: FileDescriptor) -> None:
        self.writers.discard(writer)

    def turn(self) -> None:
        """Let each that waits write."""
        for writer in tuple(self.writers):
            problem = writer.doWrite()
            if problem is not None:
                self.writers.discard(writer)
                self.ended.append(problem)


class Pair:
    """A UNIX socket's transport, and the socket at its other end.

    :ivar reactor: whose turns it writes in.
    :ivar output: the way out over it.
    """

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.peer.setblocking(False)
        self.reactor = Turns()
        self.transport: Any = Server(self.socket, Protocol(), None, None, 1, self.reactor)
        self.output = Output(self.transport)

    def arrived(self) -> bytes:
        """Return what has arrived at the other end."""
        pieces = []
        try:
            while piece := self.peer.recv(1 << 20):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)

    def fill(self) -> bytes:
        """Write more than the socket takes."""
        data = os.urandom(1 << 20)
        self.output.write(data)
        assert self.reactor.writers == {self.transport}
        return data

    def drain(self) -> bytes:
        """Take turns until there is nothing to write."""
        came = self.arrived()
        while self.reactor.writers:
            self.reactor.turn()
            came += self.arrived()
        return came

    def message(self) -> tuple[bytes, tuple[int, int]]:
        """Return what has arrived with a descriptor, and which file that is."""
        data, descriptors, _, _ = socket.recv_fds(self.peer, 1 << 20, 1)
        which = identity(descriptors[0])
        os.close(descriptors[0])
        return data + self.arrived(), which


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.socket.close()
    pair.peer.close()


# At once


def test_bytes_are_sent_at_once(pair: Pair) -> None:
    pair.output.write(b"a\n")
    assert pair.arrived() == b"a\n"
    assert pair.reactor.writers == set()


def test_what_is_held_goes_out_as_one_piece(pair: Pair) -> None:
    pair.output.hold()
    for data in (b"a\n", b"b\n", b"c\n"):
        pair.output.write(data)
    assert pair.arrived() == b""
    pair.output.release()
    assert pair.arrived() == b"a\nb\nc\n"
    pair.output.write(b"d\n")
    assert pair.arrived() == b"d\n"


def test_nothing_held_is_nothing_sent(pair: Pair) -> None:
    pair.output.hold()
    pair.output.release()
    assert pair.arrived() == b""


def test_what_the_socket_does_not_take_is_sent_by_the_reactor_and_in_order(pair: Pair) -> None:
    data = pair.fill()
    came = pair.arrived()
    assert 0 < len(came) < len(data)
    # There is room again, but what came first goes first.
    pair.output.write(b"after\n")
    assert pair.arrived() == b""
    came += pair.drain()
    assert came == data + b"after\n"


def test_after_the_buffer_has_drained_bytes_are_sent_at_once_again(pair: Pair) -> None:
    pair.fill()
    pair.drain()
    pair.output.write(b"again\n")
    assert pair.reactor.writers == set()
    assert pair.arrived() == b"again\n"
    assert pair.fill() == pair.drain()


def test_a_connection_that_is_gone_is_found_by_the_reactor(pair: Pair) -> None:
    pair.peer.close()
    pair.output.write(b"x\n")
    assert pair.reactor.ended == []
    pair.reactor.turn()
    assert [type(problem).__name__ for problem in pair.reactor.ended] == ["ConnectionLost"]


def test_nothing_is_written_to_a_lost_connection(pair: Pair) -> None:
    pair.transport.connected = False
    pair.output.write(b"x\n")
    assert pair.arrived() == b""
    assert pair.reactor.writers == set()


def test_what_was_held_is_sent_before_the_end(pair: Pair) -> None:
    pair.output.hold()
    pair.output.write(b"quit\n")
    pair.output.close()
    assert pair.arrived() == b"quit\n"
    assert pair.transport.disconnecting


def test_while_the_connection_closes_bytes_are_left_to_the_transport(pair: Pair) -> None:
    data = pair.fill()
    pair.output.close()
    pair.output.write(b"late\n")
    assert pair.drain() == data + b"late\n"
    assert [type(problem).__name__ for problem in pair.reactor.ended] == ["ConnectionDone"]


def test_bytes_for_a_wrapped_socket_go_through_the_wrapper(pair: Pair) -> None:
    """A wrapper lends the methods of the socket that it wraps: TLS is one."""
    seen: list[bytes] = []

    class Wrapper(ProtocolWrapper):
        def write(self, data: bytes) -> None:
            seen.append(data)

    wrapper = Wrapper(WrappingFactory(None), Protocol())
    wrapper.transport = pair.transport
    assert wrapper.writeSomeData
    output = Output(wrapper)
    output.write(b"x\n")
    assert seen == [b"x\n"]
    assert pair.arrived() == b""


def test_bytes_for_a_socket_that_has_turned_to_tls_go_through_tls(pair: Pair) -> None:
    seen: list[bytes] = []
    pair.transport.TLS = True
    pair.transport.write = seen.append
    pair.output.write(b"x\n")
    assert seen == [b"x\n"]
    assert pair.arrived() == b""


# Descriptors


def test_a_descriptor_goes_at_once_where_nothing_is_buffered(pair: Pair) -> None:
    pair.output.call_when_drained(lambda: pair.output.write(b"own\n", 0))
    assert pair.message() == (b"own\n", identity(0))


def test_a_descriptor_does_not_overtake_what_is_held(pair: Pair) -> None:
    pair.output.hold()
    pair.output.write(b"before\n")
    pair.output.write(b"own\n", 0)
    pair.output.write(b"after\n")
    pair.output.release()
    assert pair.peer.recv(7) == b"before\n"
    assert pair.message() == (b"own\nafter\n", identity(0))


def test_a_descriptor_waits_for_what_the_socket_did_not_take(pair: Pair) -> None:
    data = pair.fill()
    pair.output.call_when_drained(lambda: pair.output.write(b"own\n", 0))
    came = pair.arrived()
    while len(came) < len(data):
        pair.reactor.turn()
        came += pair.peer.recv(len(data) - len(came))
    assert came == data
    assert pair.message() == (b"own\n", identity(0))


# Where it is not known what the transport has buffered


def test_only_a_unix_socket_carries_descriptors() -> None:
    assert Output(DescriptorTransport()).carries_descriptors
    assert not Output(StringTransport()).carries_descriptors


def test_a_descriptor_goes_with_the_first_byte_of_its_message() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    output.write(b'{"a":1}\n')
    transport.flush()
    output.write(b'{"b":2}\n', 0)
    transport.flush()
    assert transport.travelled == [({"b": 2}, identity(0))]


def test_the_drained_callback_comes_once_when_all_that_was_written_has_gone() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    told: list[bytes] = []
    output.write(b'{"a":1}\n')
    output.call_when_drained(lambda: told.append(transport.value()))
    assert told == []
    transport.flush(3)
    assert told == []
    transport.flush()
    assert told == [b'{"a":1}\n\n']
    output.write(b'{"b":1}\n')
    transport.flush()
    assert len(told) == 1


def test_the_drained_callback_comes_for_an_empty_buffer_too() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    told: list[str] = []
    output.call_when_drained(lambda: told.append("drained"))
    assert told == []
    transport.flush()
    assert told == ["drained"]
    assert transport.value().strip() == b""


def test_a_descriptor_that_is_sent_when_drained_goes_with_its_own_message() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    output.write(b'{"before":1}\n')
    output.call_when_drained(lambda: output.write(b'{"own":1}\n', 0))
    output.write(b'{"between":1}\n')
    transport.flush()
    assert transport.travelled == [({"own": 1}, identity(0))]


def test_it_can_be_drained_again_and_again() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    told: list[int] = []

    def again() -> None:
        told.append(len(told))
        if len(told) < 3:
            output.call_when_drained(again)

    output.call_when_drained(again)
    transport.flush()
    assert told == [0, 1, 2]


def test_nobody_is_told_that_a_lost_connection_is_drained() -> None:
    transport = DescriptorTransport()
    output = Output(transport)
    told: list[str] = []
    output.call_when_drained(lambda: told.append("drained"))
    producer = transport.producer
    transport.lose()
    producer.resumeProducing()
    assert told == []


# TLS


def test_over_tls_what_is_written_is_followed_by_a_byte_in_the_next_turn(clock: Clock) -> None:
    transport = TLSTransport()
    output = Output(transport)
    output.nudge_over_tls(clock)
    for _ in range(2):
        transport.clear()
        output.write(b'{"a":1}\n')
        output.write(b'{"b":1}\n')
        assert transport.value() == b'{"a":1}\n{"b":1}\n'
        clock.advance(0)
        assert transport.value() == b'{"a":1}\n{"b":1}\n\n'
        assert clock.getDelayedCalls() == []


def test_over_other_transports_nothing_follows(clock: Clock) -> None:
    output = Output(StringTransport())
    output.nudge_over_tls(clock)
    output.write(b'{"a":1}\n')
    assert clock.getDelayedCalls() == []


def test_nothing_follows_after_the_end_of_a_tls_connection(clock: Clock) -> None:
    transport = TLSTransport()
    output = Output(transport)
    output.nudge_over_tls(clock)
    output.stop_nudging()
    output.nudge_over_tls(clock)
    output.write(b'{"a":1}\n')
    output.stop_nudging()
    assert clock.getDelayedCalls() == []
    output.write(b'{"b":1}\n')
    assert clock.getDelayedCalls() == []
