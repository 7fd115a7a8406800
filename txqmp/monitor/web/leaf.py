"""What all resources have in common: :class:`Leaf`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.web import http
from twisted.web.resource import Resource

from txqmp.monitor.web.front import text


class Leaf(Resource):
    """A resource with nothing below it."""

    def getChild(self, path: bytes, request: Any) -> Resource:
        return NotFound()

    @abstractmethod
    def render_GET(self, request: Any) -> Any:
        """The body of an answer; that to HEAD lacks only that."""

    def render_HEAD(self, request: Any) -> bytes:
        body = self.render_GET(request)
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return b""


class NotFound(Leaf):
    """What is not there."""

    def render_GET(self, request: Any) -> bytes:
        return text(request, http.NOT_FOUND, "not found")
