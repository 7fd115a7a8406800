"""treq's client without what a webhook has no use for: cookies, compressed answers, retries."""

from __future__ import annotations

from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionClosed
from twisted.web._newclient import ParseError
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.tls import why_tls
from txqmp.monitor.sinks.webhook.answer import printable


def client(reactor: Any, endpoint: Any, pool: HTTPConnectionPool) -> HTTPClient:
    """
    What posts.

    :param endpoint: whom to connect to (``IAgentEndpointFactory``).
    :param pool: what keeps its connections.
    """
    agent = _PlainAgent(Agent.usingEndpointFactory(reactor, endpoint, pool))
    return HTTPClient(agent, data_to_body_producer=_Bytes)


class _EncodedURL(EncodedURL):
    """
    A URL that is sent as it is. treq would encode it at each post, which takes its time, and fails
    on an IPv6 address.
    """

    def to_uri(self) -> _EncodedURL:
        return self


def encoded(url: str) -> EncodedURL:
    """A URL for treq: one that is in ASCII."""
    return _EncodedURL.from_text(url)


@implementer(IAgent)
class _PlainAgent:
    """
    Leaves answers as they come: a short one that is compressed could become endless, and cookies
    would gather in memory.

    :param agent: what requests.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        answered: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return answered.addCallback(_plain)


def _plain(response: Any) -> Any:
    # treq reads them, and fails where they are not as they should be.
    for name in ("Content-Encoding", "Set-Cookie", "Set-Cookie2"):
        response.headers.removeHeader(name)
    return response


@implementer(IBodyProducer)
class _Bytes:
    """A body that is there: it is handed to the transport at once, which takes no turns."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


def why_no_answer(error: BaseException) -> str:
    """Why a post came to no answer, for people."""
    while reasons := getattr(
        error, "reasons", None
    ):  # twisted.web's wrapper around what went wrong
        error = reasons[0].value
    if isinstance(error, UnavailableError):
        return error.reason
    tls = why_tls(error, "the receiver")
    if tls is not None:
        return tls
    if isinstance(error, ParseError):
        return "what answers there does not speak HTTP"
    text = printable(str(error)).rstrip(".") or type(error).__name__
    if isinstance(error, ConnectionClosed):
        return f"the receiver closed the connection without an answer ({text})"
    return f"no connection: {text}"
