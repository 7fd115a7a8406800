"""
One client of ``/events``: :class:`Stream`.

It holds no events. While its client reads, it reads the feed and writes what it read; while the
client does not, it does nothing, and the feed keeps what comes. A client that reads too slowly is
moved on, and told what it has missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.monitor.web.source import Feed, FeedBatch


COUNT = 100
"""How many events are read at once."""

PIECE = 1 << 16
"""How much is written at once, where it is more than one event, in bytes."""

PACE = 0.1
"""How long to wait when an event comes, for those that come with it, in seconds."""

KEEP_ALIVE = 15.0
"""How often something is written, if only a comment, in seconds: proxies close what is silent."""

STALLED = 120.0
"""How long a client may read nothing, in seconds, before it is cut off. It can come back, and go on
where it was."""

RETRY = 3.0
"""How long a client is asked to wait before it comes back, in seconds."""

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


@attrs.define
class StreamCounters:
    """
    What became of the clients of ``/events``.

    :ivar clients: how many there are.
    :ivar refused: how many were sent away, because there were too many.
    :ivar stalled: how many were cut off, because they did not read.
    :ivar skipped: how many events clients were moved over, because they read too slowly.
    """

    clients: int = 0
    refused: int = 0
    stalled: int = 0
    skipped: int = 0


def message(data: bytes, *, id: int | None = None, event: str = "") -> bytes:
    """
    A message of the stream.

    :param data: a JSON text.
    :param id: what the client is to say where it goes on.
    :param event: its type; none for what happened.
    """
    head = f"event: {event}\n" if event else ""
    if id is not None:
        head += f"id: {id}\n"
    # In JSON a line end can only stand where a space can.
    return b"%bdata: %b\n\n" % (head.encode(), data.translate(_LINE_ENDS))


@implementer(IPushProducer)
class Stream:
    """
    Writes the events of a feed to one client, from a position on.

    :param request: the client's; nothing was written to it yet.
    :param after: the position.
    :param behind: how many events the client may be behind before it is moved on; ``None`` for any
        number.
    :param hello: what to say first, beside the position.
    :param counters: what to count in.
    :param ended: called once, when the client is gone.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        request: Any,
        feed: Feed,
        *,
        after: int,
        behind: int | None,
        hello: Mapping[str, Any],
        counters: StreamCounters,
        ended: Callable[[Stream], object],
    ) -> None:
        self._clock = clock
        self._request = request
        self._feed = feed
        self._position = after
        self._behind = behind
        self._hello = hello
        self._counters = counters
        self._tell_ended = ended
        self._paused = False
        self._over = False
        # What comes next: a batch, an event, or the time to look for one.
        self._waiting: Deferred[Any] | None = None
        self._next: IDelayedCall | None = None
        self._alive: IDelayedCall | None = None
        self._stalled: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._request.notifyFinish().addBoth(lambda _: self._ended())
        self._request.registerProducer(self, True)
        self._keep_alive(b"retry: %d\n\n" % (RETRY * 1000))
        if self._position > self._feed.last:
            # From another feed, or from this one before its disk lost something.
            unknown, self._position = self._position, self._feed.first - 1
            self._greet()
            self._tell_gap("unknown position", {"position": unknown})
        else:
            self._greet()
        self._go_on()

    def stop(self) -> None:
        """End it; the client is to come back."""
        if not self._over:
            self._request.unregisterProducer()
            self._request.finish()

    # What the transport calls

    def pauseProducing(self) -> None:
        """The client does not read."""
        if not self._paused and not self._over:
            self._paused = True
            self._stalled = self._clock.callLater(STALLED, self._cut_off)

    def resumeProducing(self) -> None:
        """The client has read."""
        self._paused = False
        _cancel(self._stalled)
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is gone, which the request tells too."""

    # Reading and writing

    def _go_on(self) -> None:
        """Do the next thing, unless something is under way."""
        if self._paused or self._over or self._waiting is not None or _active(self._next):
            return
        newest = self._feed.last
        if self._behind is not None and newest - self._position > self._behind:
            self._skip_to(newest - self._behind)
        if self._position < newest:
            reading = self._feed.read(self._position, COUNT)
            self._wait_for(reading, self._write_batch)
        else:
            self._wait_for(self._feed.when_beyond(newest), lambda _: self._go_on_in(PACE))

    def _wait_for(self, waiting: Deferred[Any], then: Callable[[Any], None]) -> None:
        def came(result: Any) -> None:
            self._waiting = None
            if not self._over:
                then(result)

        self._waiting = waiting
        waiting.addCallbacks(came, self._failed).addErrback(self._broke)

    def _go_on_in(self, seconds: float) -> None:
        self._next = self._clock.callLater(seconds, self._go_on)

    def _skip_to(self, position: int) -> None:
        first, self._position = self._position + 1, position
        self._counters.skipped += position - first + 1
        self._tell_missing("skipped", first, position)

    def _write_batch(self, batch: FeedBatch) -> None:
        if self._paused:
            return  # it is read again: nothing is held
        before = self._position
        if batch.gap is not None:
            self._position = batch.gap.last
            self._tell_missing("dropped", batch.gap.first, batch.gap.last)
        piece = bytearray()
        last = self._position
        for event in batch.events:
            if self._paused:
                return
            piece += message(event.data, id=event.position)
            last = event.position
            if len(piece) >= PIECE:
                self._position = last
                self._write(bytes(piece))
                piece.clear()
        self._position = max(last, batch.through)
        if piece:
            self._write(bytes(piece))
        # Not at once: others want their turn. A feed that gives nothing is not asked all the time.
        self._go_on_in(0 if self._position > before else PACE)

    def _greet(self) -> None:
        hello = {**self._hello, "feed": self._feed.identity, "position": self._position}
        self._write(message(orjson.dumps(hello), id=self._position, event="hello"))

    def _tell_missing(self, reason: str, first: int, last: int) -> None:
        self._tell_gap(reason, {"first": first, "last": last, "count": last - first + 1})

    def _tell_gap(self, reason: str, details: Mapping[str, Any]) -> None:
        data = orjson.dumps({"reason": reason, **details})
        self._write(message(data, id=self._position, event="gap"))

    def _keep_alive(self, words: bytes = b":\n\n") -> None:
        self._alive = self._clock.callLater(KEEP_ALIVE, self._keep_alive)
        if not self._paused:
            self._write(words)

    def _write(self, data: bytes) -> None:
        self._request.write(data)

    # Its end

    def _failed(self, failure: Failure) -> None:
        self._waiting = None
        if not self._over:
            self._log.warn("a stream of events ends: {problem}", problem=failure.value)
            self.stop()

    def _broke(self, failure: Failure) -> None:
        self._log.failure("a stream of events ends", failure)
        self.stop()

    def _cut_off(self) -> None:
        self._counters.stalled += 1
        self._log.info("a stream of events ends: its client does not read")
        self._request.transport.abortConnection()

    def _ended(self) -> None:
        self._over = True
        for call in (self._next, self._alive, self._stalled):
            _cancel(call)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        self._tell_ended(self)


def _active(call: IDelayedCall | None) -> bool:
    return call is not None and call.active()


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
