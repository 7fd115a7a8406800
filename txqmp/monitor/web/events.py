"""
``/events``: what happens, as it happens, for browsers (``EventSource``) and for programs
(``curl -N``). The format is that of Server-Sent Events::

    retry: 3000

    event: hello
    id: 4710
    data: {"version": …, "node": …, "feed": …, "position": 4710}

    id: 4711
    data: {"specversion":"1.0", …}

    event: gap
    id: 4800
    data: {"reason":"skipped","first":4712,"last":4800,"count":89}

The ``id`` is the position in the spool. Who comes back with it, in the header ``Last-Event-ID`` or
as ``?after=4711``, goes on after it; without it the stream begins with what happens next.

A ``gap`` says what is missing: events that were ``dropped`` from the spool before they could be
read, or ``skipped`` because the client is too far behind. How far it may be is ``?behind=1000``,
or ``?behind=all``; without it 1000 events, or any number for who asked for a position with
``?after=``. ``unknown position`` says that the client's position is not from this spool: the stream
begins with the oldest event that there is.

``feed`` in the ``hello`` tells one spool from another that counts anew from 1: positions of the one
mean nothing in the other.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.server import NOT_DONE_YET

from txqmp.monitor.web.front import text
from txqmp.monitor.web.leaf import Leaf
from txqmp.monitor.web.source import Source
from txqmp.monitor.web.stream import Stream, StreamCounters


MAX_CLIENTS = 32
"""How many clients there may be at once."""

BEHIND = 1000
"""How many events a client may be behind, where it asks for nothing else."""

COME_BACK = 10
"""How long a client that is one too many is asked to wait, in seconds."""

CONTENT_TYPE = b"text/event-stream"

# A position of the spool has at most 63 bits.
_NUMBER = re.compile(rb"[0-9]{1,18}")


@attrs.frozen
class Wish:
    """
    What a client asks for.

    :ivar after: the position to go on after; ``None`` to begin with what comes next.
    :ivar behind: how far behind it may be; ``None`` for any number.
    """

    after: int | None
    behind: int | None


def wish(request: Any) -> Wish:
    """
    What a client asks for.

    :raises ValueError: that makes no sense; the message says what.
    """
    after = request.args.get(b"after", [b""])[-1]
    behind = request.args.get(b"behind", [b"all" if after else b"%d" % BEHIND])[-1]
    # A browser that comes back says both, and this is the newer one.
    after = request.getHeader(b"Last-Event-ID") or after
    return Wish(
        after=_number(after, "a position") if after else None,
        behind=None if behind == b"all" else _number(behind, "a number of events, or 'all'"),
    )


def _number(text: bytes, what: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:100].decode(errors='replace')!r} is not {what}")
    return int(text)


class EventsResource(Leaf):
    """
    The resource.

    :ivar counters: what became of the clients.
    """

    def __init__(self, clock: IReactorTime, source: Source) -> None:
        super().__init__()
        self.counters = StreamCounters()
        self._clock = clock
        self._source = source
        self._streams: set[Stream] = set()
        self._closed = False

    def render_GET(self, request: Any) -> Any:
        try:
            wanted = wish(request)
        except ValueError as problem:
            return text(request, http.BAD_REQUEST, str(problem))
        if self._closed or len(self._streams) >= MAX_CLIENTS:
            self.counters.refused += 1
            request.setHeader(b"Retry-After", b"%d" % COME_BACK)
            return text(request, http.SERVICE_UNAVAILABLE, "too many clients; come back later")
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        # nginx would collect what comes until it has a page of it.
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            return b""
        status = self._source.status()
        feed = self._source.feed
        stream = Stream(
            self._clock,
            request,
            feed,
            after=feed.last if wanted.after is None else wanted.after,
            behind=wanted.behind,
            hello={"version": status.version, "node": status.node},
            counters=self.counters,
            ended=self._ended,
        )
        self._streams.add(stream)
        self.counters.clients += 1
        stream.start()
        return NOT_DONE_YET

    def render_HEAD(self, request: Any) -> bytes:
        self.render_GET(request)
        return b""  # and no length: a stream has none

    def _ended(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self.counters.clients -= 1

    def open(self) -> None:
        """Take clients."""
        self._closed = False

    def close(self) -> None:
        """End all streams, and take no more clients."""
        self._closed = True
        for stream in tuple(self._streams):
            stream.stop()
