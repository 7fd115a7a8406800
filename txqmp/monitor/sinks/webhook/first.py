"""
The sink that posts: each record to a URL, in order, one at a time.

A record is delivered when the answer is 2xx. One that the receiver refuses for what it is (400,
413, 415, 422) is left out and counted; after anything else (no connection, no answer in time, a
redirect, 401, 404, 429, 5xx …) the same record is posted again, after a wait that grows: a
receiver may see a record twice, which ``vm`` and ``seq`` tell.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.records import Entry
from txqmp.monitor.sinks.base import GRACE, Counters
from txqmp.monitor.sinks.queue import DEFAULT_MAX_SIZE, RecordQueue
from txqmp.reconnect import Backoff


DEADLINE = 15.0
"""How long one attempt may take, from the connection to the end of the answer, in seconds."""

MAX_BODY = 4096
"""How much of an answer's body is read, in bytes; a longer one ends the connection."""

MAX_RETRY_AFTER = 3600.0
"""The longest ``Retry-After`` that is obeyed, in seconds."""

RETRY = Backoff(initial=1.0, maximum=300.0, factor=2.0, jitter=0.5)
"""How long to wait before the next attempt."""

REJECTED = frozenset({400, 413, 415, 422})
"""The answers that are about the record: another attempt would end in the same way."""

_HEADERS = {"Content-Type": ["application/json"], "User-Agent": ["txqmp qmp-monitor"]}


def shown(url: str) -> str:
    """A URL without what may be secret: its user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


@attrs.frozen
class _Answer:
    """
    What an attempt came to.

    :ivar status: of the answer, ``None`` where there was none.
    :ivar problem: why the record is not delivered, ``None`` where it is.
    :ivar retry_after: how long the receiver asks us to wait, in seconds.
    """

    status: int | None
    problem: str | None
    retry_after: float = 0.0


class _Body(Protocol):
    """Reads an answer's body to its end, or as much of it as is bearable."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self._leave())
        self._size = 0

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            self._leave()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # However it ends: the status has come, and it is what counts.
        if not self.ended.called:
            self.ended.callback(None)


class WebhookSink:
    """
    Posts records.

    :param reactor: where time comes from.
    :param url: where to.
    :param client: what posts: like treq's ``HTTPClient``.
    :param abort: ends the connection in use, whatever it does.
    :param close: called at the end; it may return a Deferred.
    :param deadline: for one attempt, in seconds.
    :param backoff: the waits between attempts.
    :param max_size: how many bytes of records may wait.
    :param grace: how long to go on after :meth:`stop`, in seconds.

    :ivar counters: what became of the records.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        url: str,
        client: Any,
        *,
        abort: Callable[[], object] = lambda: None,
        close: Callable[[], Deferred[Any] | None] = lambda: None,
        deadline: float = DEADLINE,
        backoff: Backoff = RETRY,
        max_size: int = DEFAULT_MAX_SIZE,
        grace: float = GRACE,
    ) -> None:
        self.name = f"webhook {shown(url)}"
        self.counters = Counters()
        self._clock = reactor
        self._url = url
        self._client = client
        self._abort = abort
        self._close = close
        self._deadline = deadline
        self._backoff = backoff
        self._grace = grace
        self._queue = RecordQueue(self.name, self.counters, reactor, max_size)
        self._head: Entry | None = None
        self._attempt: Deferred[Any] | None = None
        self._failures = 0
        self._rejecting = False
        self._retry: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None
        self._last_call: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """A connection is made when there is something to post."""

    def reopen(self) -> None:
        """Nothing to do; but if a wait is under way, it is over."""
        self._try_now()

    def put(self, entry: Entry) -> None:
        """Take a record."""
        if self._stopped:
            self.counters.taken += 1
            self.counters.dropped += 1
            return
        self._queue.put(entry)
        self._post()

    def stop(self) -> Deferred[None]:
        """Post what is held, for a limited time and until an attempt fails, and end."""
        if self._stopped:
            return succeed(None)
        self._stopping = stopping = Deferred[None]()
        self._last_call = self._clock.callLater(self._grace, self._end)
        self._try_now()
        return stopping

    # Posting

    def _try_now(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()
        self._post()

    def _post(self) -> None:
        if self._attempt is not None or self._retry is not None or self._stopped:
            return
        if self._head is None:
            taken = self._queue.take(1, 0)
            if not taken:
                if self._stopping is not None:
                    self._end()
                return
            self._head = taken[0]
        attempt = Deferred.fromCoroutine(self._post_once(self._head.text))
        self._attempt = attempt
        attempt.addTimeout(self._deadline, self._clock, onTimeoutCancel=self._too_late)
        attempt.addErrback(_no_answer)
        attempt.addCallback(self._answered)

    async def _post_once(self, text: bytes) -> _Answer:
        response = await self._client.post(
            self._url,
            data=text,
            headers=_HEADERS,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        body = _Body()
        response.deliverBody(body)
        await body.ended
        status = response.code
        if 200 <= status < 300:
            return _Answer(status, None)
        return _Answer(status, f"answered {status}", self._retry_after(response))

    def _retry_after(self, response: Any) -> float:
        """What the answer's ``Retry-After`` asks for, in seconds: 0 where it asks for nothing."""
        values = response.headers.getRawHeaders("Retry-After") or [""]
        text = str(values[-1]).strip()
        seconds = 0.0
        if text.isdecimal():
            seconds = float(text)
        elif text:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp()
                seconds -= self._clock.seconds()
            except (TypeError, ValueError, OverflowError):
                return 0.0
        return max(0.0, min(seconds, MAX_RETRY_AFTER))

    def _too_late(self, _: object, limit: float) -> _Answer:
        self._abort()
        return _Answer(None, f"no whole answer within {limit:g} s")

    def _answered(self, answer: _Answer) -> None:
        self._attempt = None
        if self._stopped:
            return
        head, self._head = self._head, None
        assert head is not None
        if answer.problem is None:
            self.counters.delivered += 1
            if self._failures:
                self._log.info("{sink}: delivers again", sink=self.name)
            self._failures = 0
            self._rejecting = False
        elif answer.status in REJECTED:
            self.counters.rejected += 1
            self._failures = 0
            emit = self._log.debug if self._rejecting else self._log.error
            self._rejecting = True
            emit(
                "{sink}: the receiver refused record {seq} of {vm} ({status}): it is left out",
                sink=self.name,
                seq=head.seq,
                vm=head.vm,
                status=answer.status,
            )
        else:
            self._head = head
            self._failed(answer)
            return
        self._post()

    def _failed(self, answer: _Answer) -> None:
        self._failures += 1
        self.counters.failures += 1
        if self._stopping is not None:
            self._log.warn("{sink}: {problem}", sink=self.name, problem=answer.problem)
            self._end()
            return
        delay = max(self._backoff.delay(self._failures), answer.retry_after)
        emit = self._log.warn if self._failures == 1 else self._log.debug
        emit(
            "{sink}: {problem}; the next attempt is in {delay:.1f} s",
            sink=self.name,
            problem=answer.problem,
            delay=delay,
        )
        self._retry = self._clock.callLater(delay, self._try_now)

    def _end(self) -> None:
        """Post no more."""
        self._stopped = True
        last_call, self._last_call = self._last_call, None
        if last_call is not None and last_call.active():
            last_call.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._abort()
            attempt.cancel()
        left = len(self._queue) + (self._head is not None)
        if left:
            self.counters.dropped += left
            self._log.warn("{sink}: {count} records were not posted", sink=self.name, count=left)
        stopping, self._stopping = self._stopping, None
        assert stopping is not None
        closed = self._close() or succeed(None)
        # What a connection does with its end is not waited for very long.
        closed.addTimeout(1.0, self._clock).addErrback(self._cannot_close)
        closed.addCallback(lambda _: stopping.callback(None))

    def _cannot_close(self, failure: Failure) -> None:
        self._log.debug("{sink}: {problem}", sink=self.name, problem=failure.value)


def _no_answer(failure: Failure) -> _Answer:
    """An attempt that came to no answer."""
    if failure.check(CancelledError):
        return _Answer(None, "given up")
    reasons = getattr(failure.value, "reasons", None)
    if reasons:  # twisted.web's wrapper around what went wrong
        failure = reasons[0]
    text = failure.getErrorMessage() or type(failure.value).__name__
    return _Answer(None, f"no answer: {text}")


def webhook_sink(reactor: Any, url: str) -> WebhookSink:
    """The sink that posts, with connections of its own."""
    # Not above: treq and TLS take their time to import, and are for those who post.
    from treq.client import HTTPClient
    from twisted.web.client import Agent

    from txqmp.monitor.sinks.webhook.pool import OneConnection

    pool = OneConnection(reactor)
    agent = Agent(reactor, pool=pool, connectTimeout=DEADLINE)
    return WebhookSink(
        reactor, url, HTTPClient(agent), abort=pool.abort, close=pool.closeCachedConnections
    )
