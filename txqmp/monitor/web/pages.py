"""The resources that answer at once, and :class:`Root`, which has them all."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.resource import Resource

from txqmp.monitor.web.events import EventsResource
from txqmp.monitor.web.front import text
from txqmp.monitor.web.leaf import Leaf, NotFound
from txqmp.monitor.web.source import Source
from txqmp.monitor.web.status import write_status


PAGE = "page.html"
"""The file that is shown at ``/``."""

STATIC = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
"""The files under ``/static/``, and their types."""


class MetricsText(Protocol):
    """What ``/metrics`` shows."""

    content_type: bytes

    def text(self) -> bytes:
        """The metrics, as they are now or were a moment ago."""


class Root(Resource):
    """
    All that there is.

    :param clock: tells the time.
    :param source: the daemon.
    :param metrics: for ``/metrics``; ``None`` where there are none.

    :ivar events: the resource of ``/events``.
    """

    def __init__(
        self, clock: IReactorTime, source: Source, metrics: MetricsText | None = None
    ) -> None:
        super().__init__()
        self.events = EventsResource(clock, source)
        static = NotFound()
        for name, kind in STATIC.items():
            static.putChild(name.encode(), _File(name, kind))
        api, first = NotFound(), NotFound()
        api.putChild(b"v1", first)
        first.putChild(b"status", _Status(clock, source, self.events))
        self.putChild(b"", _File(PAGE, "text/html; charset=utf-8"))
        self.putChild(b"static", static)
        self.putChild(b"events", self.events)
        self.putChild(b"api", api)
        self.putChild(b"healthz", _Health())
        self.putChild(b"readyz", _Ready(source))
        if metrics is not None:
            self.putChild(b"metrics", _Metrics(metrics))

    def getChild(self, path: bytes, request: Any) -> Resource:
        return NotFound()


class _File(Leaf):
    """A file of ours, read once."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__()
        self._data = (files(__package__) / "static" / name).read_bytes()
        self._kind = kind.encode()

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Content-Type", self._kind)
        return self._data


class _Status(Leaf):
    def __init__(self, clock: IReactorTime, source: Source, events: EventsResource) -> None:
        super().__init__()
        self._clock = clock
        self._source = source
        self._events = events

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return write_status(
            self._source.status(), self._source.feed, self._events.counters, self._clock.seconds()
        )


class _Metrics(Leaf):
    def __init__(self, metrics: MetricsText) -> None:
        super().__init__()
        self._metrics = metrics

    def render_GET(self, request: Any) -> bytes:
        body = self._metrics.text()
        request.setHeader(b"Content-Type", self._metrics.content_type)
        return body


class _Health(Leaf):
    def render_GET(self, request: Any) -> bytes:
        return text(request, http.OK, "ok")


class _Ready(Leaf):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def render_GET(self, request: Any) -> bytes:
        missing = self._source.readiness().missing
        if missing:
            return text(request, http.SERVICE_UNAVAILABLE, "\n".join(missing))
        return text(request, http.OK, "ready")
