"""Events to publish, and a broker in memory that says what a test tells it to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pika import BasicProperties, frame, spec
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.monitor.sinks.amqp import AMQPSettings


def data(text: bytes) -> bytes:
    """The data of an event that says this."""
    return b'{"text":"%b"}' % text


def settings(**changes: Any) -> AMQPSettings:
    """Settings for a broker in memory."""
    usual = {"host": "localhost", "user": "qmp", "password": "swordfish", "heartbeat": 0}
    return AMQPSettings(**{**usual, **changes})


@dataclass
class Published:
    """A message that a client published."""

    exchange: str
    key: str
    mandatory: bool
    properties: BasicProperties
    body: bytes


@implementer(IStreamClientEndpoint)
class FakeBroker:
    """A place to dial, where the test decides what becomes of each attempt.

    :ivar attempts: the Deferreds of the attempts, each with its factory.
    """

    def __init__(self) -> None:
        self.attempts: list[tuple[Deferred[Any], Any]] = []
        self.cancelled = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(self._cancelled)
        self.attempts.append((attempt, factory))
        return attempt

    def _cancelled(self, _: object) -> None:
        self.cancelled += 1

    def refuse(self, reason: Exception) -> None:
        """Let the last attempt fail."""
        self.attempts[-1][0].errback(reason)

    def accept(self) -> BrokerEnd:
        """Let the last attempt succeed; nothing is said."""
        attempt, factory = self.attempts[-1]
        protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 5672))
        end = BrokerEnd(protocol)
        protocol.makeConnection(end.transport)
        attempt.callback(protocol)
        return end

    def log_in(self) -> BrokerEnd:
        """Let the last attempt succeed, up to an open connection."""
        end = self.accept()
        end.log_in()
        return end

    def serve(self) -> BrokerEnd:
        """Let the last attempt succeed, up to a channel in confirm mode."""
        end = self.log_in()
        end.open_channel()
        return end


class Wire(StringTransport):
    """A transport that knows how it was closed."""

    aborting = False

    def abortConnection(self) -> None:
        self.aborting = True
        self.loseConnection()


class BrokerEnd:
    """The broker's end of a connection. It answers nothing by itself.

    :ivar transport: the client's.
    """

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.transport = Wire()
        self._read = 0
        self._ended = False

    # Words

    def say(self, *methods: Any, channel: int = 1) -> None:
        """Send methods, in one piece; a pair is one with content: the method and the message."""
        data = b""
        for method in methods:
            if isinstance(method, tuple):
                returned, message = method
                data += frame.Method(channel, returned).marshal()
                data += frame.Header(channel, len(message.body), message.properties).marshal()
                data += frame.Body(channel, message.body).marshal()
            else:
                data += frame.Method(channel, method).marshal()
        self.protocol.dataReceived(data)

    def heard(self) -> list[Any]:
        """Return what the client has said since the last time: methods, and what it published."""
        data = self.transport.value()[self._read :]
        self._read += len(data)
        words: list[Any] = []
        while data:
            size, value = frame.decode_frame(data)
            assert value is not None, data
            data = data[size:]
            if isinstance(value, frame.Header):
                words[-1].properties = value.properties
            elif isinstance(value, frame.Body):
                words[-1].body += value.fragment
            elif isinstance(getattr(value, "method", None), spec.Basic.Publish):
                publish = value.method
                words.append(
                    Published(
                        publish.exchange,
                        publish.routing_key,
                        publish.mandatory,
                        BasicProperties(),
                        b"",
                    )
                )
            else:
                words.append(getattr(value, "method", value))
        return words

    def expect(self, *kinds: type) -> Any:
        """Return the last of what the client has said since the last time: these, no more."""
        words = self.heard()
        assert [type(word) for word in words] == list(kinds), words
        return words[-1] if words else None

    def published(self) -> list[Published]:
        """Return what the client has published since the last time; it did nothing else."""
        words = self.heard()
        assert all(isinstance(word, Published) for word in words), words
        return words

    # What a broker does

    def greet(self, mechanisms: str = "PLAIN EXTERNAL") -> None:
        """Send Connection.Start."""
        capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
        properties = {"capabilities": capabilities}
        self.say(spec.Connection.Start(0, 9, properties, mechanisms, "en_US"), channel=0)

    def log_in(self) -> None:
        """Do what comes before channels."""
        self.expect(frame.ProtocolHeader)
        self.greet()
        self.expect(spec.Connection.StartOk)
        self.say(spec.Connection.Tune(2047, 131072, 60), channel=0)
        self.expect(spec.Connection.TuneOk, spec.Connection.Open)
        self.say(spec.Connection.OpenOk(), channel=0)

    def open_channel(self) -> None:
        """Do what comes before messages."""
        self.expect(spec.Channel.Open)
        self.say(spec.Channel.OpenOk())
        declare = self.expect(spec.Exchange.Declare)
        assert declare.passive
        self.say(spec.Exchange.DeclareOk())
        self.expect(spec.Confirm.Select)
        self.say(spec.Confirm.SelectOk())

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self.say(spec.Basic.Ack(tag, multiple))

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        self.say(spec.Basic.Nack(tag, multiple))

    def close_channel(self, code: int, text: str) -> None:
        """End the channel because of what the client did."""
        self.say(spec.Channel.Close(code, text, 60, 40))
        self.expect(spec.Channel.CloseOk)

    @property
    def left(self) -> bool:
        """Whether the client has closed the connection."""
        return self.transport.disconnecting

    def end(self, reason: Exception | None = None) -> None:
        """End the connection, if it has not ended yet."""
        if not self._ended:
            self._ended = True
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


def returned(message: Published, why: str = "NO_ROUTE") -> tuple[Any, Published]:
    """A message that comes back; see :meth:`BrokerEnd.say`."""
    return spec.Basic.Return(312, why, message.exchange, message.key), message
