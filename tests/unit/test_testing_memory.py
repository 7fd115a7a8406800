"""Transports in memory behave like Twisted's, and the pump like the kernel and the reactor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    FileDescriptorOverrun,
)
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from support.deferreds import failure, pending, success
from txqmp import Backoff, DescriptorError, QMPClientFactory, RunState, SessionSettings
from txqmp.framing import JSONLineReceiver
from txqmp.server import QMPServerFactory
from txqmp.testing import (
    DescriptorTransport,
    MemoryEndpoint,
    MemoryTransport,
    Pump,
    ScriptedServer,
    SimulatedVM,
    connect_in_memory,
    greeting,
    identity,
)
from txqmp.testing import memory as memory_module


class Recorder(Protocol):
    """Keeps what happens to it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.reason = reason.type


@implementer(IFileDescriptorReceiver)
class DescriptorRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        self.received.append(b"<fd>")


@pytest.fixture
def pump() -> Pump:
    return Pump(Clock())


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


# Transports


class Producer:
    """A push or pull producer which keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def test_buffer() -> None:
    transport = MemoryTransport()
    transport.write(b"ab")
    transport.writeSequence([b"c", b"d"])
    assert (transport.value(), transport.buffered) == (b"abcd", 4)
    assert [piece.data for piece in transport.flush(3)] == [b"abc"]
    assert [piece.data for piece in transport.flush()] == [b"d"]
    assert transport.flush() == []
    assert transport.value() == b"abcd"
    assert not IUNIXTransport.providedBy(transport)


def test_streaming_producer() -> None:
    transport, producer = MemoryTransport(), Producer()
    transport.registerProducer(producer, True)
    transport.write(b"x" * 65_536)
    assert producer.told == []
    transport.write(b"y")
    transport.flush(10)
    assert producer.told == ["pause"]
    transport.flush()
    transport.flush()
    assert producer.told == ["pause", "resume"]
    transport.lost()
    assert producer.told[2:] == ["stop"]
    transport.write(b"z")
    assert transport.buffered == 0


def test_pull_producer() -> None:
    transport, producer = MemoryTransport(), Producer()
    transport.registerProducer(producer, False)
    assert producer.told == ["resume"]
    transport.flush()
    assert producer.told == ["resume"]
    transport.write(b"x")
    transport.flush()
    assert producer.told == ["resume"] * 2
    transport.startWriting()
    transport.flush()
    assert producer.told == ["resume"] * 3


def test_closing_waits_for_the_buffer_and_the_producer() -> None:
    transport, producer = MemoryTransport(), Producer()
    transport.write(b"x")
    transport.registerProducer(producer, False)
    transport.loseConnection()
    assert not transport.closing
    transport.flush()
    assert not transport.closing
    transport.unregisterProducer()
    assert transport.closing


def test_aborting_loses_the_buffer() -> None:
    transport = MemoryTransport()
    transport.write(b"x")
    transport.abortConnection()
    transport.write(b"y")
    assert (transport.aborted, transport.flush()) == (True, [])


def test_a_descriptor_goes_with_a_byte_from_the_front(pipe: tuple[int, int]) -> None:
    """G33: each with one byte of what is buffered, whatever was written with it."""
    transport = DescriptorTransport()
    assert IUNIXTransport.providedBy(transport)
    transport.write(b"early")
    transport.flush()
    transport.write(b"ab")
    transport.sendFileDescriptor(pipe[0])
    transport.write(b"cd")
    transport.sendFileDescriptor(pipe[1])
    transport.write(b"ef")
    assert transport.descriptors == [(pipe[0], 5), (pipe[1], 6)]
    pieces = transport.flush()
    assert [(piece.data, len(piece.descriptors)) for piece in pieces] == [
        (b"a", 1),
        (b"b", 1),
        (b"cdef", 0),
    ]
    sent = [descriptor for piece in pieces for descriptor in piece.descriptors]
    assert [identity(each) for each in sent] == [identity(each) for each in pipe]
    transport.sendFileDescriptor(pipe[0])
    with pytest.raises(FileDescriptorOverrun):
        transport.flush()
    for descriptor in sent:
        os.close(descriptor)


def test_a_descriptor_that_was_closed_too_early() -> None:
    transport = DescriptorTransport()
    reading, writing = os.pipe()
    transport.sendFileDescriptor(reading)
    transport.write(b"x")
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError):
        transport.flush()


def test_draining() -> None:
    """What the client waits for before it sends a descriptor."""
    protocol, transport = JSONLineReceiver(), DescriptorTransport()
    protocol.makeConnection(transport)
    protocol.send(b"{}")
    called: list[int] = []
    protocol.call_when_drained(lambda: called.append(transport.buffered))
    assert called == []
    transport.flush()
    assert called == [0]


# Connections


def test_both_ways(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.client_transport.write(b"hello")
    connection.server_transport.write(b"welcome")
    assert (client.received, server.received) == ([], [])
    pump()
    assert (client.received, server.received) == ([b"welcome"], [b"hello"])
    assert (connection.client, connection.server, connection.over) == (client, server, False)


def test_chunks(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server, chunk=2)
    connection.client_transport.write(b"abcde")
    pump()
    assert server.received == [b"ab", b"cd", b"e"]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.integers(1, 20))
def test_nothing_is_lost_in_chunks(texts: list[bytes], chunk: int) -> None:
    pump, server = Pump(Clock()), Recorder()
    connection = pump.join(Recorder(), server, chunk=chunk)
    for text in texts:
        connection.client_transport.write(text)
        if len(text) % 2:
            pump()
    pump()
    assert b"".join(server.received) == b"".join(texts)
    assert all(len(received) <= chunk for received in server.received)


def test_who_pauses_receives_nothing(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.server_transport.pauseProducing()
    connection.client_transport.write(b"x" * (1 << 20))
    connection.client_transport.loseConnection()
    pump()
    assert server.received == []
    assert connection.client_transport.buffered == (1 << 20) - memory_module.KERNEL_BUFFER
    connection.server_transport.resumeProducing()
    pump()
    assert sum(map(len, server.received)) == 1 << 20
    assert (client.reason, server.reason) == (ConnectionDone, ConnectionDone)


def test_closing(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.client_transport.write(b"bye")
    connection.client_transport.loseConnection()
    assert client.reason is None
    pump()
    assert (client.reason, server.reason) == (ConnectionDone, ConnectionDone)
    assert server.received == [b"bye"]
    assert connection.over
    assert pump.connections == []


def test_aborting(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.client_transport.write(b"bye")
    connection.client_transport.abortConnection()
    pump()
    assert (client.reason, server.reason) == (ConnectionAborted, ConnectionLost)
    assert server.received == []


def test_writing_to_who_has_gone(pump: Pump) -> None:
    """An end that is paused does not see it until it writes."""
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.server_transport.pauseProducing()
    connection.client_transport.loseConnection()
    pump()
    assert (client.reason, server.reason) == (ConnectionDone, None)
    connection.server_transport.write(b"hello?")
    pump()
    assert server.reason is ConnectionLost


def test_breaking_off(pump: Pump) -> None:
    client, server = Recorder(), Recorder()
    connection = pump.join(client, server)
    connection.server_transport.write(b"x")
    connection.break_off()
    assert (client.reason, server.reason) == (ConnectionLost, ConnectionLost)
    connection.break_off(ConnectionDone())
    pump()
    assert client.received == []


def test_descriptors(pump: Pump, pipe: tuple[int, int]) -> None:
    server = DescriptorRecorder()
    connection = pump.join(Recorder(), server)
    transport: Any = connection.client_transport
    transport.write(b"ab")
    transport.sendFileDescriptor(pipe[0])
    pump()
    assert server.received == [b"<fd>", b"a", b"b"]
    assert identity(server.descriptors[0]) == identity(pipe[0])
    os.close(server.descriptors[0])


def test_descriptors_nobody_wants(pump: Pump, pipe: tuple[int, int]) -> None:
    """They are closed: the leak check would tell."""
    deaf, server = Recorder(), DescriptorRecorder()
    first, second = pump.join(Recorder(), deaf), pump.join(Recorder(), server)
    second.server_transport.pauseProducing()
    for connection in (first, second):
        transport: Any = connection.client_transport
        transport.sendFileDescriptor(pipe[0])
        transport.write(b"a")
    pump()
    assert deaf.received == [b"a"]
    second.break_off()
    assert server.descriptors == []
    third = pump.join(Recorder(), server)
    third.server_transport.abortConnection()
    transport = third.client_transport
    transport.sendFileDescriptor(pipe[0])
    transport.write(b"a")
    pump()
    assert server.descriptors == []


def test_descriptor_overrun(pump: Pump, pipe: tuple[int, int]) -> None:
    client, server = Recorder(), Recorder()
    transport: Any = pump.join(client, server).client_transport
    transport.sendFileDescriptor(pipe[0])
    pump()
    assert (client.reason, server.reason) == (FileDescriptorOverrun, ConnectionLost)


# Time


def test_what_is_due_happens(pump: Pump) -> None:
    happened: list[float] = []
    pump.clock.callLater(0, happened.append, 0)
    pump.clock.callLater(1, happened.append, 1)
    pump()
    assert happened == [0]


def test_advance() -> None:
    """From one delayed call to the next, and the pump runs after each."""
    clock = Clock()
    pump, server = Pump(clock), Recorder()
    transport = pump.join(Recorder(), server).client_transport

    def speak(number: int) -> None:
        transport.write(b"%d" % number)
        if number < 3:
            clock.callLater(0.1, speak, number + 1)

    clock.callLater(0.1, speak, 1)
    clock.callLater(5, speak, 9)
    pump.advance(1)
    assert server.received == [b"1", b"2", b"3"]
    assert clock.seconds() == pytest.approx(1)
    pump.advance(4)
    assert server.received[3:] == [b"9"]


def test_ends_that_never_rest(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data)

    monkeypatch.setattr(memory_module, "MAX_TURNS", 100)
    pump.join(Echo(), Echo()).client_transport.write(b"x")
    with pytest.raises(RuntimeError, match="still busy after 100 turns"):
        pump()


def test_pumping_within(pump: Pump) -> None:
    class Impatient(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            pump()

    server = Impatient()
    pump.join(Recorder(), server).client_transport.write(b"x")
    pump()
    assert server.received == [b"x"]


# Sessions


def test_connect_in_memory() -> None:
    client, server, pump = connect_in_memory(SimulatedVM())
    assert client.state is RunState.RUNNING
    assert server.negotiated
    reply = client.execute("query-status")
    pending(reply)
    pump()
    assert success(reply)["running"]
    closed = client.disconnect()
    pump()
    success(closed)
    assert pump.clock.getDelayedCalls() == []


def test_the_clock_is_shared(clock: Clock) -> None:
    first = connect_in_memory(SimulatedVM(clock))
    second = connect_in_memory(SimulatedVM(), clock)
    third = connect_in_memory(QMPServerFactory(clock), Clock())
    assert first.pump.clock is second.pump.clock is clock
    assert second.server.vm.clock is third.server.server.clock is clock
    assert third.pump.clock is not clock
    for client, _, pump in (first, second, third):
        client.abort()
        pump()


def test_options() -> None:
    settings = SessionSettings(oob=False)
    client, server, _ = connect_in_memory(
        SimulatedVM(), settings=settings, name="vm7", chunk=1, descriptors=False
    )
    assert (client.name, client.settings, client.oob_enabled) == ("vm7", settings, False)
    assert server.negotiated
    failure(client.execute("getfd", {"fdname": "a"}, fds=[0]), DescriptorError)


def test_a_server_that_takes_nobody() -> None:
    vm = SimulatedVM()
    vm.kill()
    with pytest.raises(ValueError, match="takes no connection"):
        connect_in_memory(vm)


def test_endpoint(clock: Clock) -> None:
    """A factory dials in memory, and dials again."""
    pump, vm = Pump(clock), SimulatedVM()
    endpoint = MemoryEndpoint(pump, vm)
    endpoint.problem = ConnectionRefusedError()
    factory = QMPClientFactory(clock, backoff=Backoff(jitter=0))
    factory.dial(endpoint)
    pump()
    assert factory.session is None
    endpoint.problem = None
    pump.advance(1)
    session = success(factory.when_ready())
    assert (session.state, endpoint.attempts) == (RunState.RUNNING, 2)
    vm.kill()
    pump.advance(1)
    assert session.state is RunState.IDLE
    pending(waiting := factory.when_ready())
    vm.boot()
    pump.advance(20)
    assert success(waiting) is not session
    stopped = factory.stop()
    pump()
    success(stopped)


def test_endpoint_refused() -> None:
    pump = Pump(Clock())

    class Nobody(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> None:
            return None

    class Somebody(Factory):
        noisy = False
        protocol = Recorder  # type: ignore[assignment]

    failure(MemoryEndpoint(pump, Nobody()).connect(Somebody()), ConnectionRefusedError)
    failure(MemoryEndpoint(pump, Somebody()).connect(Nobody()), ConnectionAborted)
    script = ScriptedServer([greeting()])
    protocol = success(MemoryEndpoint(pump, script).connect(Somebody()))
    pump()
    assert isinstance(protocol, Recorder)
    assert b"QMP" in protocol.received[0]
    assert script.clock is pump.clock
