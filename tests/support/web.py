"""The HTTP face without a reactor: a daemon that is told what to say, and its clients in memory."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from txqmp.monitor.web.connections import Connections
from txqmp.monitor.web.front import Site
from txqmp.monitor.web.pages import Root
from txqmp.monitor.web.source import FeedBatch, FeedEvent, FeedGap, Readiness, Status


#: How much a connection of Twisted's holds before it asks its producer to pause.
BUFFER = 1 << 16

HERE = IPv4Address("TCP", "127.0.0.1", 9177)

READY = Readiness(config=True, spool=True, listeners=True)


def record(vm: str, seq: int, event: str = "STOP", **data: Any) -> bytes:
    """Return an event as the daemon writes it."""
    qmp = {"event": event, "data": data, "timestamp": {"seconds": seq, "microseconds": 0}}
    members = {
        "vm": vm,
        "seq": seq,
        "session": 1,
        "time": "2026-11-21T01:20:00.123456Z",
        "kind": "event",
        "event": event,
        "qmp": qmp,
    }
    return json.dumps(members).encode()


class MemoryFeed:
    """A feed in memory.

    :ivar reads: what was read: after which position, and how many.
    :ivar held: reads that wait for :meth:`answer`, where ``hold`` is set.
    """

    def __init__(self, identity: str = "feed-1") -> None:
        self.identity = identity
        self.first = 1
        self.last = 0
        self.reads: list[tuple[int, int]] = []
        self.hold = False
        self.held: list[tuple[Deferred[Any], int, int]] = []
        self.problem: Exception | None = None
        self._events: dict[int, bytes] = {}
        self.watchers: dict[Deferred[None], int] = {}

    def add(self, *events: bytes) -> None:
        """Let things happen."""
        for data in events:
            self.last += 1
            self._events[self.last] = data
        for watcher, position in list(self.watchers.items()):
            if self.last > position:
                del self.watchers[watcher]
                watcher.callback(None)

    def drop(self, count: int) -> None:
        """Forget the oldest events."""
        for position in range(self.first, self.first + count):
            del self._events[position]
        self.first += count

    def read(self, after: int, count: int) -> Deferred[FeedBatch]:
        assert 0 <= after <= self.last
        self.reads.append((after, count))
        reading: Deferred[FeedBatch] = Deferred()
        self.held.append((reading, after, count))
        if not self.hold:
            self.answer()
        return reading

    def answer(self) -> None:
        """Let what was read come."""
        held, self.held = self.held, []
        for reading, after, count in held:
            if self.problem is not None:
                reading.errback(self.problem)
                continue
            gap = FeedGap(after + 1, self.first - 1) if after + 1 < self.first else None
            begin = max(after + 1, self.first)
            end = min(begin + count - 1, self.last)
            found = range(begin, end + 1)
            events = tuple(FeedEvent(position, self._events[position]) for position in found)
            reading.callback(FeedBatch(gap, events, end))

    def when_beyond(self, position: int) -> Deferred[None]:
        if self.last > position:
            return succeed(None)
        watcher: Deferred[None] = Deferred(self.watchers.pop)
        self.watchers[watcher] = position
        return watcher


class FakeSource:
    """A daemon that says what it is told to.

    :ivar asked: how often it was asked how it stands.
    """

    def __init__(self) -> None:
        self.feed = MemoryFeed()
        self.now = Status(version="0.1.0", node="node7.example", started=0.0)
        self.ready = READY
        self.asked = 0

    def status(self) -> Status:
        self.asked += 1
        return self.now

    def readiness(self) -> Readiness:
        return self.ready


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire(StringTransport):
    """A connection which holds what is written until the other end reads, and then asks for more,
    as Twisted's own does.

    :ivar held: how many bytes are held.
    :ivar most: how many were at most.
    """

    def __init__(self, address: IAddress) -> None:
        super().__init__(hostAddress=address, lenient=True)
        self.held = self.most = 0
        self._paused = False

    def write(self, data: bytes) -> None:
        if self.disconnected:
            return
        super().write(data)
        self.held += len(data)
        self.most = max(self.most, self.held)
        if self.held > BUFFER and self.producer is not None and not self._paused:
            self._paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def unregisterProducer(self) -> None:
        if self.producer is not None:
            super().unregisterProducer()

    def read(self) -> bytes:
        """Read what there is; return it."""
        data = self.value()
        self.clear()
        self.held = 0
        if self._paused:
            self._paused = False
            if self.producer is not None:
                self.producer.resumeProducing()
        return data


class Client:
    """One connection to a site.

    :ivar wire: it.
    """

    def __init__(self, connections: Connections, address: IAddress = HERE) -> None:
        self.wire = Wire(address)
        self._protocol = connections.buildProtocol(address)
        self._over = False
        self._text = b""
        self.refused = self._protocol is None
        if self._protocol is not None:
            self._protocol.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._protocol.dataReceived(data)
        self.look()

    def request(
        self,
        path: str,
        method: str = "GET",
        *,
        host: str | None = "localhost:9177",
        version: str = "1.1",
        **headers: str,
    ) -> None:
        """Send a request. Underscores in the headers' names are hyphens."""
        lines = [f"{method} {path} HTTP/{version}"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def get(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """Send a request, and return what comes back at once."""
        self.request(path, method, **options)
        return parse(self.wire.read(), method)

    def look(self) -> None:
        """End the connection where that was asked for, as a reactor would."""
        wire = self.wire
        if not self._over and (wire.disconnected or (wire.disconnecting and not wire.held)):
            self.lose(ConnectionAborted() if wire.disconnected else ConnectionDone())

    def lose(self, reason: Exception | None = None) -> None:
        """End the connection."""
        if not self._over and self._protocol is not None:
            self._over = True
            self._protocol.connectionLost(Failure(reason or ConnectionDone()))

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of a stream that have come since the last time, read."""
        return stream_messages(self.stream_text())

    def stream_text(self) -> str:
        """Return what has come of a stream since the last time."""
        text = self.wire.read()
        if text.startswith(b"HTTP/"):
            head, _, text = text.partition(b"\r\n\r\n")
            assert b"\r\nTransfer-Encoding: chunked" in head, head
        self._text += text
        whole = b""
        while b"\r\n" in self._text:
            size, _, rest = self._text.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            whole, self._text = whole + rest[:length], rest[length + 2 :]
        return whole.decode()


def stream_messages(text: str) -> list[dict[str, Any]]:
    """Return the messages of a stream: their fields, with the data as what it is in JSON."""
    found = []
    for block in text.split("\n\n"):
        fields: dict[str, Any] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name and not name.startswith(":"):
                assert name not in fields
                fields[name] = json.loads(value) if name == "data" else value
        if "data" in fields:
            found.append(fields)
    return found


def parse(data: bytes, method: str = "GET") -> Answer:
    """Return an answer from its bytes."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b": ")
        headers.addRawHeader(name, value)
    answer = Answer(int(status.split()[1]), headers, body)
    length = answer.header("Content-Length")
    if method != "HEAD" and length is not None:
        assert int(length) == len(body)
    return answer


class Face:
    """The HTTP face in memory.

    :param options: of the site.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        metrics: Any = None,
        connections: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.source = FakeSource()
        self.root = Root(clock, self.source, metrics)
        self.site = Site(clock, self.root, **options)
        self.connections = Connections(clock, self.site, **(connections or {}))
        self.connections.doStart()
        self.clients: list[Client] = []

    @property
    def feed(self) -> MemoryFeed:
        return self.source.feed

    def client(self, address: IAddress = HERE) -> Client:
        """Connect."""
        client = Client(self.connections, address)
        self.clients.append(client)
        return client

    def get(self, path: str, *, address: IAddress = HERE, **options: Any) -> Answer:
        """Send a request on a connection of its own, and return what comes back at once."""
        return self.client(address).get(path, **options)

    def stream(self, query: str = "", **headers: str) -> Client:
        """Ask for the stream of events."""
        client = self.client()
        client.request(f"/events{query}", **headers)
        return client

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, in steps that are short for a stream."""
        self.clock.advance(0)
        while seconds > 0:
            step = min(seconds, 0.05)
            self.clock.advance(step)
            self.clock.advance(0)
            seconds -= step
        for client in self.clients:
            client.look()

    def close(self) -> None:
        """End everything."""
        for client in self.clients:
            client.lose()
        self.connections.doStop()
