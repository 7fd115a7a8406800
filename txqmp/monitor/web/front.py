"""
What holds for every request, whatever it asks for: :class:`Site`.

Only GET and HEAD, only names that are ours, no body; and headers that let a browser use nothing but
what comes from here, and keep nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import IResource

from txqmp.monitor.web.hosts import answers_to


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""What every answer has."""

METHODS = (b"GET", b"HEAD")
"""The methods that there are."""

MAX_BODY = 1 << 16
"""How much of a request's body is read, and thrown away, before the connection is closed."""

TIMEOUT = 75.0
"""How long a connection may be idle between two requests, in seconds."""

TEXT = b"text/plain; charset=utf-8"


def text(request: Any, status: int, words: str) -> bytes:
    """
    Make an answer of a few words.

    :returns: its body.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", TEXT)
    return f"{words}\n".encode()


class Request(server.Request):
    """A request; it gets to a resource when nothing is wrong with it."""

    channel: Any
    transport: Any
    _body_size = 0

    def handleContentChunk(self, data: bytes) -> None:
        # Twisted would put a large body on the disk. Nothing here reads one.
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            self.transport.abortConnection()

    def process(self) -> None:
        for name, value in HEADERS.items():
            self.setHeader(name, value)
        refusal = self._refusal()
        if refusal is None:
            super().process()
            return
        body = text(self, *refusal)
        self.setHeader(b"Content-Length", b"%d" % len(body))
        if self.method != b"HEAD":
            self.write(body)
        self.finish()

    def _refusal(self) -> tuple[int, str] | None:
        """What is wrong with it: a status, and what to say."""
        if self.method not in METHODS:
            self.setHeader(b"Allow", b", ".join(METHODS))
            return http.NOT_ALLOWED, "this only shows: GET and HEAD are all there is"
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) > 1 or (not hosts and self.clientproto != b"HTTP/1.0"):
            return http.BAD_REQUEST, "one Host header is needed"
        if hosts and not answers_to(hosts[0], self.getHost(), self.channel.site.names):
            return _MISDIRECTED, "this server is not known by that name"
        return None


_MISDIRECTED = 421


class Site(server.Site):
    """
    The site.

    :param reactor: tells the time.
    :param root: the resource of ``/``.
    :param names: what we are called beside ``localhost`` and our addresses.
    :param log_requests: write a line to the log for each request.

    :ivar names: the names, in lower case.
    """

    noisy = False
    requestFactory = Request
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        root: IResource,
        *,
        names: tuple[str, ...] = (),
        log_requests: bool = False,
    ) -> None:
        super().__init__(root, reactor=reactor, timeout=TIMEOUT)
        self.names = frozenset(name.lower() for name in names)
        self._log_requests = log_requests

    def log(self, request: Any) -> None:
        """A request was answered."""
        if self._log_requests:
            self._log.info(
                "{peer}: {method} {uri} {status}, {size} bytes",
                peer=getattr(request.getClientAddress(), "host", "unix"),
                # A stranger's bytes, and this may be a terminal.
                method=ascii(request.method)[2:-1],
                uri=ascii(request.uri)[2:-1],
                status=request.code,
                size=request.sentLength,
            )
