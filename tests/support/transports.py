"""Without a reactor: transports, a session's far end, and what a session is dialled with.

Nothing here reads a file descriptor or waits: a test says what arrives, and when.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IPullProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    IUNIXTransport,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp import QMPProtocol, SessionSettings


STOP = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}
RESUME = {"event": "RESUME", "timestamp": {"seconds": 3, "microseconds": 4}}
SHUTDOWN = {
    "event": "SHUTDOWN",
    "data": {"guest": True, "reason": "guest-shutdown"},
    "timestamp": {"seconds": 5, "microseconds": 6},
}


def greeting(*capabilities: str) -> dict[str, Any]:
    """Return what QEMU says first."""
    version = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}
    return {"QMP": {"version": version, "capabilities": list(capabilities)}}


def line(message: Mapping[str, Any]) -> bytes:
    """Return a message as QEMU writes it."""
    return json.dumps(message).encode() + b"\r\n"


@implementer(IUNIXTransport)
class DescriptorTransport(StringTransport):
    """A UNIX socket's transport: it holds what is written until :meth:`flush`.

    As Twisted's own does, it sends a descriptor with a byte from the front of what it holds, and
    asks a pull producer for more when it is registered and whenever nothing is held any more.

    :ivar carried: for each descriptor that was sent: how many bytes were sent before it, and which
        file it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = b""
        self._descriptors: list[int] = []
        self.carried: list[tuple[int, tuple[int, int]]] = []

    def write(self, data: bytes) -> None:
        self._held += data

    def sendFileDescriptor(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if not streaming:
            assert IPullProducer.providedBy(producer)
            producer.resumeProducing()

    def flush(self, size: int | None = None) -> None:
        """Send what is held, or its beginning, and what is written because of that."""
        data, self._held = self._held[:size], self._held[size:] if size is not None else b""
        descriptors, self._descriptors = self._descriptors, []
        assert len(descriptors) <= len(data), "a descriptor without a byte to go with"
        sent = len(self.value())
        for number, descriptor in enumerate(descriptors):
            self.carried.append((sent + number, identity(descriptor)))
        super().write(data)
        if data and not self._held and self.producer is not None and not self.streaming:
            self.producer.resumeProducing()
            if self._held and size is None:
                self.flush()

    def lose(self) -> None:
        """Do what a transport does for its producer when the connection is gone."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    @property
    def travelled(self) -> list[tuple[Any, tuple[int, int]]]:
        """For each descriptor: the message that it went with the first byte of, and its file."""
        found = []
        for offset, which in self.carried:
            text = self.value()[offset:]
            assert self.value()[:offset].endswith(b"\n") or not offset
            found.append((json.loads(text[: text.index(b"\n")]), which))
        return found


def identity(descriptor: int) -> tuple[int, int]:
    """Return which file an open descriptor is."""
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino)


class Peer:
    """The far end of a session: says what it is told to, and reads what was written.

    :param session: the protocol at the near end; one with these settings by default.
    """

    def __init__(
        self,
        clock: Clock,
        settings: SessionSettings | None = None,
        *,
        transport: StringTransport | None = None,
        session: QMPProtocol | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.transport = StringTransport() if transport is None else transport
        self.session = session or QMPProtocol(clock, settings or SessionSettings(), **options)
        self._read = 0
        self._closed = False

    def connect(self) -> Peer:
        """Make the connection."""
        self.session.makeConnection(self.transport)
        return self

    def run(self, *capabilities: str) -> Peer:
        """Make the connection, greet and negotiate."""
        self.connect()
        self.say(greeting(*capabilities))
        self.reply(self.command())
        return self

    def say(self, *messages: Mapping[str, Any] | bytes) -> None:
        """Send messages, and bytes as they are, in one piece."""
        self.session.dataReceived(
            b"".join(each if isinstance(each, bytes) else line(each) for each in messages)
        )

    def reply(self, command: Mapping[str, Any], value: Any = None) -> None:
        """Answer a command with success."""
        self.say({"return": {} if value is None else value, "id": command["id"]})

    def refuse(self, command: Mapping[str, Any], desc: str, kind: str = "GenericError") -> None:
        """Answer a command with an error."""
        self.say({"error": {"class": kind, "desc": desc}, "id": command["id"]})

    def heard(self) -> list[dict[str, Any]]:
        """Return the messages that have been written since the last time."""
        if isinstance(self.transport, DescriptorTransport):
            self.transport.flush()
        text = self.transport.value()[self._read :]
        self._read += len(text)
        assert not text or text.endswith(b"\n")
        return [json.loads(each) for each in text.split(b"\n") if each]

    def command(self) -> dict[str, Any]:
        """Return the one message that has been written since the last time."""
        (message,) = self.heard()
        return message

    def close(self, reason: Exception | None = None) -> None:
        """End the connection, if it has not ended yet."""
        if not self._closed and self.session.transport is not None:
            self._closed = True
            if isinstance(self.transport, DescriptorTransport):
                self.transport.lose()
            self.session.connectionLost(Failure(reason or ConnectionDone()))


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """A place to dial, where the test decides what becomes of each attempt.

    :ivar attempts: the Deferreds of the attempts, each with its factory.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.attempts: list[tuple[Deferred[Any], Any]] = []
        self.cancelled = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(self._cancelled)
        self.attempts.append((attempt, factory))
        return attempt

    def _cancelled(self, _: object) -> None:
        self.cancelled += 1

    def accept(self) -> Peer:
        """Let the last attempt succeed, and return the far end of the connection."""
        attempt, factory = self.attempts[-1]
        session = factory.buildProtocol(UNIXAddress("/run/vm.sock"))
        peer = Peer(self._clock, session=session)
        peer.connect()
        attempt.callback(session)
        return peer

    def refuse(self, reason: Exception) -> None:
        """Let the last attempt fail."""
        self.attempts[-1][0].errback(reason)

    def run(self, *capabilities: str) -> Peer:
        """Let the last attempt succeed, and the session begin."""
        peer = self.accept()
        peer.say(greeting(*capabilities))
        peer.reply(peer.command())
        return peer


@implementer(IStreamServerEndpoint)
class FakeServerEndpoint:
    """A place to listen on, where the test decides who comes.

    :ivar opened: the Deferred of the port, with the factory that listens on it; ``None`` before.
    :ivar port: the port, once it is open.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.opened: tuple[Deferred[Any], Any] | None = None
        self.port = FakePort()

    def listen(self, factory: Any) -> Deferred[Any]:
        opened: Deferred[Any] = Deferred()
        self.opened = (opened, factory)
        return opened

    def open(self) -> None:
        """Let the listening begin."""
        assert self.opened is not None
        self.opened[0].callback(self.port)

    def accept(self) -> Peer | None:
        """Let somebody dial, and return their end; ``None`` where they are turned away."""
        assert self.opened is not None
        session = self.opened[1].buildProtocol(UNIXAddress(None))
        if not isinstance(session, QMPProtocol):
            return None
        return Peer(self._clock, session=session).connect()


class FakePort:
    """A listening port.

    :ivar closing: who waits for the listening to end; fires when the test fires it.
    """

    def __init__(self) -> None:
        self.closing: list[Deferred[None]] = []
        self.slow = False

    def stopListening(self) -> Deferred[None] | None:
        closing: Deferred[None] = Deferred()
        self.closing.append(closing)
        if not self.slow:
            closing.callback(None)
        return closing


class FakeConnector(BaseConnector):
    """What ``reactor.connectUNIX`` returns, with Twisted's own states.

    :ivar attempts: how often it was dialled.
    """

    def __init__(self, factory: Any, clock: Clock) -> None:
        super().__init__(factory, None, clock)  # type: ignore[arg-type]
        self.attempts = 0

    def _makeTransport(self) -> Any:
        self.attempts += 1
        return self

    def failIfNotConnected(self, reason: Exception) -> None:
        self.connectionFailed(Failure(reason))

    def accept(self) -> Peer:
        """Let the attempt succeed, and return the far end of the connection."""
        session: Any = self.buildProtocol(UNIXAddress("/run/vm.sock"))
        return Peer(self.reactor, session=session).connect()  # type: ignore[arg-type]

    def run(self) -> Peer:
        """Let the attempt succeed, and the session begin."""
        peer = self.accept()
        peer.say(greeting())
        peer.reply(peer.command())
        return peer

    def close(self, peer: Peer) -> None:
        """End the connection, as Twisted does: the protocol is told first."""
        reason = ConnectionDone()
        peer.close(reason)
        self.connectionLost(Failure(reason))
