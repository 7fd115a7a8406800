"""Events as a post: the body, which is the same at each attempt, and the headers, which are not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import attrs

from txqmp.monitor import signature
from txqmp.monitor.cloudevents import BATCHED, STRUCTURED, EventBatch, attributes
from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.delivery import OutgoingEvent
from txqmp.monitor.sinks.settings import WebhookMode


USER_AGENT = "txqmp qmp-monitor"

# What a header takes, without the full stop that a signature has between its parts.
_ID = re.compile(r"[!-\-/-~]+")


@attrs.frozen(kw_only=True)
class Post:
    """
    What is posted, whenever it is.

    :ivar id: the event's, or the batch's; the same at each attempt.
    :ivar form: the headers that say what the body is, by name in small letters.
    :ivar body: the bytes that are sent.
    """

    id: str
    form: dict[str, str]
    body: bytes = attrs.field(repr=False)

    def headers(
        self, keys: Sequence[SigningKey], now: float, authorization: str | None = None
    ) -> dict[str, str]:
        """
        The headers of an attempt, by name in small letters.

        Without a key there are the id and the time all the same: who gets a post twice can tell.

        :param keys: sign with each of them.
        :param now: in seconds since the epoch.
        :param authorization: of the header of this name.
        """
        headers = {"user-agent": USER_AGENT, **self.form}
        if keys:
            headers.update(signature.headers(keys, self.id, now, self.body))
        else:
            headers.update(zip(signature.HEADERS[:2], (self.id, str(math.floor(now))), strict=True))
        if authorization is not None:
            headers["authorization"] = authorization
        return headers


def post(events: Sequence[OutgoingEvent], mode: WebhookMode) -> Post:
    """
    Events in the form in which they are posted.

    :param events: one; in the mode ``batched`` at least one.
    :raises ValueError: an event is not as it should be, or they are not in the order of their
        numbers.
    """
    for event in events:
        if _ID.fullmatch(event.id) is None:
            raise ValueError(f"{event.id!r} cannot be the id of a post")
    if mode is WebhookMode.BATCHED:
        for event in events:
            # One that is damaged would spoil the others: this is the cheapest look at it.
            attributes(event.text)
        batch = EventBatch(events)
        return Post(id=batch.id, form={"content-type": BATCHED}, body=batch.structured())
    (event,) = events
    if mode is WebhookMode.BINARY:
        parsed = event.cloudevent
        return Post(id=event.id, form=parsed.headers(), body=parsed.data)
    return Post(id=event.id, form={"content-type": STRUCTURED}, body=event.text)
