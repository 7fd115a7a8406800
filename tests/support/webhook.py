"""A real receiver of posts on loopback, which answers as it is told.

A test module takes the fixtures by ``pytest_plugins``.

PYTEST_DONT_REWRITE: test modules import types from here before pytest sees that it is a plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from support.waiting import within
from txqmp.monitor.sinks.settings import WebhookSettings
from txqmp.monitor.sinks.webhook import webhook_delivery
from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery


@dataclass
class Arrived:
    """A post that came.

    :ivar headers: by name in small letters; what came twice is joined by a comma.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: Any


class Posts(Resource):
    """Answers as it is told; 204 where it is told nothing.

    :ivar answers: status codes, or functions of the request.
    :ivar arrived: what came.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []
        self.arrived: list[Arrived] = []
        self.hanging: list[Any] = []

    def render(self, request: Any) -> Any:
        headers = {
            name.decode().lower(): ",".join(value.decode("latin-1") for value in values)
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        self.arrived.append(
            Arrived(
                request.method.decode(),
                request.uri.decode(),
                headers,
                request.content.read(),
                request.getClientAddress(),
            )
        )
        answer = self.answers.pop(0) if self.answers else 204
        if callable(answer):
            return answer(request)
        request.setResponseCode(answer)
        return b""

    # Answers

    def hang(self, request: Any) -> int:
        """Say nothing."""
        self.hanging.append(request)
        request.notifyFinish().addErrback(lambda _: None)
        return NOT_DONE_YET

    def hang_in_body(self, status: int, data: bytes = b"some") -> Callable[[Any], int]:
        """Answer, but never end."""

        def answer(request: Any) -> int:
            request.setResponseCode(status)
            request.setHeader("Content-Length", "100000")
            request.write(data)
            return self.hang(request)

        return answer

    def say(self, status: int, body: bytes = b"", **headers: Any) -> Callable[[Any], bytes]:
        """Answer with headers, each a value or a list of them; ``_`` stands for ``-``."""

        def answer(request: Any) -> bytes:
            request.setResponseCode(status)
            for name, value in headers.items():
                values = value if isinstance(value, list) else [value]
                request.responseHeaders.setRawHeaders(name.replace("_", "-"), values)
            return body

        return answer


class _Doors(WrappingFactory):
    """Knows who is connected."""

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)
        self.made = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.made += 1
        return super().buildProtocol(addr)


class Receiver:
    """A server on a loopback port, and what it got."""

    def __init__(self, *, tls: Any = None, interface: str = "127.0.0.1", port: int = 0) -> None:
        from twisted.internet import reactor

        self.posts = Posts()
        self._reactor: Any = reactor
        self._tls = tls
        site = Site(self.posts)
        site.noisy = False  # type: ignore[attr-defined]
        site.log = lambda request: None  # type: ignore[method-assign]
        self._doors = doors = _Doors(site)
        if tls is None:
            self._port = self._reactor.listenTCP(port, doors, interface=interface)
        else:
            self._port = self._reactor.listenSSL(port, doors, tls, interface=interface)
        self.number: int = self._port.getHost().port

    @property
    def arrived(self) -> list[Arrived]:
        return self.posts.arrived

    def url(self, host: str = "127.0.0.1", path: str = "/qmp") -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}:{self.number}{path}"

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return self._doors.made

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._doors.protocols)

    def cut(self) -> None:
        """Cut off who is connected."""
        for each in tuple(self._doors.protocols):
            each.transport.abortConnection()

    def stop(self) -> Deferred[None]:
        """Listen no more, and cut off who is connected."""
        self.cut()
        return maybeDeferred(self._port.stopListening)


class Raw:
    """A server that answers each connection with the same bytes, whatever comes.

    :param answer: what to send when something comes, or as soon as somebody connects.
    """

    def __init__(self, answer: bytes = b"", *, at_once: bytes = b"", endless: bytes = b"") -> None:
        from twisted.internet import reactor

        self.connections: list[Any] = []
        self.lost: Deferred[None] = Deferred()
        outer = self

        class Answering(Protocol):
            def connectionMade(self) -> None:
                outer.connections.append(self)
                if at_once:
                    self.transport.write(at_once)

            def dataReceived(self, data: bytes) -> None:
                if answer:
                    self.transport.write(answer)
                if endless:
                    self.transport.registerProducer(self, False)

            def resumeProducing(self) -> None:
                self.transport.write(endless)

            def stopProducing(self) -> None:
                pass

            def connectionLost(self, reason: Any = None) -> None:
                if not outer.lost.called:
                    outer.lost.callback(None)

        factory = Factory.forProtocol(Answering)
        factory.noisy = False
        self._reactor: Any = reactor
        self._port = self._reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.number: int = self._port.getHost().port

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.number}/qmp"

    def stop(self) -> Deferred[None]:
        for each in self.connections:
            each.transport.abortConnection()
        return maybeDeferred(self._port.stopListening)


def delivery(url: str, **changes: Any) -> WebhookDelivery:
    """A delivery under the real reactor."""
    from twisted.internet import reactor

    return webhook_delivery(reactor, WebhookSettings(url=url, **changes))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    pytest_twisted.blockon(within(receiver.stop()))


@pytest.fixture
def make() -> Iterator[Callable[..., WebhookDelivery]]:
    """Make deliveries to a URL, with settings by their names; they end with the test."""
    made: list[WebhookDelivery] = []

    def start(url: str, **changes: Any) -> WebhookDelivery:
        made.append(delivery(url, **changes))
        return made[-1]

    yield start
    for each in made:
        pytest_twisted.blockon(within(each.stop()))
