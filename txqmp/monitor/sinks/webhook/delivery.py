"""Posts to one receiver, one after another: :class:`WebhookDelivery`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.settings import WebhookMode, WebhookSettings, shown
from txqmp.monitor.sinks.webhook.answer import (
    Answer,
    Body,
    Verdict,
    printable,
    quoted,
    retry_after,
    verdict,
)
from txqmp.monitor.sinks.webhook.client import client, encoded, why_no_answer
from txqmp.monitor.sinks.webhook.connection import WebhookEndpoint
from txqmp.monitor.sinks.webhook.pool import OneConnection
from txqmp.monitor.sinks.webhook.request import Post, post


_SECRET = 4  # shorter than this is no secret, and would be found everywhere


class WebhookDelivery:
    """
    Posts events to a URL: a :class:`~txqmp.monitor.sinks.delivery.Delivery`.

    A connection is made when there is something to post, and kept. Where the receiver refuses a
    batch for what it is, its halves are posted, in their order, until it is clear which event is at
    fault: the others are not to suffer for it.

    :param reactor: the running one.
    :param settings: where to post, and how.
    :param now: the time of day, in seconds since the epoch.
    """

    def __init__(
        self, reactor: Any, settings: WebhookSettings, *, now: Callable[[], float] = time.time
    ) -> None:
        self.name = f"webhook {shown(settings.url)}"
        self.batch = settings.batch if settings.mode is WebhookMode.BATCHED else 1
        self._reactor = reactor
        self._settings = settings
        self._now = now
        self._url = encoded(settings.url)
        self._secrets = _secrets(settings)
        self._endpoint = WebhookEndpoint(reactor, settings)
        self._pool = OneConnection(reactor)
        self._client = client(reactor, self._endpoint, self._pool)
        self._delivering: Deferred[None] | None = None
        self._attempt: Deferred[Answer] | None = None
        # Why the delivery that is under way ends early; None while it does not.
        self._given_up: str | None = None
        self._renew = False
        self._stopped = False

    def start(self) -> None:
        """A connection is made when there is something to post."""

    def reopen(self) -> None:
        """Post on a new connection, for which files are read anew; the post under way goes on."""
        self._renew = True

    def stop(self) -> Deferred[None]:
        """Fail the batch that is under way, and close the connection."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        self._give_up("stopped")
        self._pool.closeCachedConnections()
        return self._endpoint.close()

    # Batches

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        """
        Post events: each by itself, or in the mode ``batched`` together.

        :returns: fires when the receiver has taken all of them.
        :raises RuntimeError: the one before has not ended.
        :raises EventRejectedError: through the Deferred: the receiver refuses an event for what it
            is, or it is no event.
        :raises UnavailableError: through the Deferred: no answer, or one that says so.
        :raises GoneError: through the Deferred: the answer was 410.
        """
        if self._delivering is not None:
            raise RuntimeError("the delivery before this one has not ended")
        if self._stopped:
            return fail(UnavailableError("stopped"))
        self._given_up = None
        self._delivering = delivering = Deferred[None](lambda _: self._give_up("given up"))
        Deferred.fromCoroutine(self._deliver(tuple(events))).addBoth(self._delivered, delivering)
        return delivering

    def _delivered(self, result: Any, delivering: Deferred[None]) -> None:
        self._delivering = None
        delivering.callback(result)

    def _give_up(self, reason: str) -> None:
        """End the delivery that is under way, if there is one."""
        self._given_up = reason
        attempt = self._attempt
        if attempt is not None:
            # In this order: whoever waits for the end may begin anew at once.
            self._pool.abort()
            attempt.cancel()

    async def _deliver(self, events: Sequence[OutgoingEvent]) -> None:
        taken = 0
        # What to post together, from where to where; what is next comes last.
        starts = range(0, len(events), self.batch)
        waiting = [(start, min(start + self.batch, len(events))) for start in reversed(starts)]
        while waiting:
            start, end = waiting.pop()
            answer = await self._try(events[start:end])
            if answer.verdict is Verdict.TAKEN:
                taken = end
            if self._given_up is not None:
                raise UnavailableError(self._given_up, taken)
            if answer.verdict is Verdict.UNAVAILABLE:
                raise UnavailableError(answer.reason, taken, answer.retry_after)
            if answer.verdict is Verdict.GONE:
                raise GoneError(answer.reason, taken)
            if answer.verdict is Verdict.REJECTED:
                if end - start == 1:
                    raise EventRejectedError(answer.reason, taken)
                middle = (start + end) // 2
                waiting += [(middle, end), (start, middle)]

    # A post

    async def _try(self, events: Sequence[OutgoingEvent]) -> Answer:
        """Post once; what it came to."""
        try:
            what = post(events, self._settings.mode)
        except ValueError as error:
            return Answer(Verdict.REJECTED, printable(f"cannot be posted: {error}"))
        attempt = Deferred.fromCoroutine(self._exchange(what))
        attempt.addTimeout(self._settings.timeout, self._reactor, onTimeoutCancel=self._too_late)
        self._attempt = attempt
        try:
            return await attempt
        except UnavailableError as error:
            return Answer(Verdict.UNAVAILABLE, error.reason)
        finally:
            self._attempt = None

    async def _exchange(self, what: Post) -> Answer:
        if self._renew:
            self._renew = False
            self._pool.closeCachedConnections()
        self._endpoint.begin()
        settings = self._settings
        headers: Any = what.headers(settings.signing_keys, self._now(), settings.authorization)
        try:
            response = await self._client.post(
                self._url,
                data=what.body,
                headers=headers,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
        except Exception as error:
            raise UnavailableError(self._endpoint.problem or why_no_answer(error)) from None
        body = Body(self._pool.abort)
        response.deliverBody(body)
        with contextlib.suppress(CancelledError):
            await body.ended
        return self._read(response, body.data)

    def _read(self, response: Any, body: bytes) -> Answer:
        what = verdict(response.code)
        if what is Verdict.TAKEN:
            return Answer(what)
        reason = f"answered {response.code}"
        text = quoted(body, self._secrets)
        if text:
            reason = f"{reason}: {text}"
        waits = response.headers.getRawHeaders(b"Retry-After") or []
        wait = retry_after([each.decode("latin-1") for each in waits], self._now())
        return Answer(what, reason, wait)

    def _too_late(self, result: Any, limit: float) -> Answer:
        """The time for an attempt is up. What was answered counts, if anything was."""
        connected = self._pool.abort()
        if isinstance(result, Answer):
            return result
        what = "connected, but no answer" if connected else "no connection"
        raise UnavailableError(f"{what} within {limit:g} s")


def _secrets(settings: WebhookSettings) -> tuple[str, ...]:
    """What a receiver may send back, and nobody else is to see."""
    query = urlsplit(settings.url).query
    values = [value for _, value in parse_qsl(query) if len(value) >= _SECRET]
    values += [part.partition("=")[2] for part in query.split("&")]
    found = [query, *values]
    if settings.authorization is not None:
        found += [settings.authorization, settings.authorization.rpartition(" ")[2]]
    return tuple(each for each in found if len(each) >= _SECRET)
