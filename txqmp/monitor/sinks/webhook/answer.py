"""What a receiver's answer means: taken, not this event, not now, never again."""

from __future__ import annotations

import datetime as dt
import email.utils
import enum
import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from txqmp.redaction import REDACTED


MAX_BODY = 4096
"""How much of an answer's body is read, in bytes."""

MAX_RETRY_AFTER = 3600.0
"""The longest ``Retry-After`` that is obeyed, in seconds."""

MAX_QUOTE = 200
"""How much of an answer's body a reason quotes, in characters."""

_MAX_DATE = 100
_SECONDS = re.compile(r"[0-9]+")


class Verdict(enum.Enum):
    """What becomes of what was posted."""

    TAKEN = "taken"
    REJECTED = "rejected"
    """What was posted is at fault: another attempt would end so too."""
    UNAVAILABLE = "unavailable"
    """The receiver is at fault: try again later."""
    GONE = "gone"
    """The receiver wants no more events, ever."""


_REJECTED = frozenset({400, 413, 415, 422})
_GONE = 410


def verdict(status: int) -> Verdict:
    """What an answer with this status means."""
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status in _REJECTED:
        return Verdict.REJECTED
    return Verdict.GONE if status == _GONE else Verdict.UNAVAILABLE


@attrs.frozen
class Answer:
    """
    What a post came to.

    :ivar verdict: what becomes of it.
    :ivar reason: why, for people, without secrets; empty where it was taken.
    :ivar retry_after: how long the receiver asks us to wait, in seconds; ``None`` where it does not
        say.
    """

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None


def retry_after(values: Iterable[str], now: float) -> float | None:
    """
    How long a receiver asks us to wait (RFC 9110, section 10.2.3).

    :param values: of its ``Retry-After`` headers: of several that make sense the longest counts.
    :param now: in seconds since the epoch.
    :returns: in seconds, from 0 to :data:`MAX_RETRY_AFTER`; ``None`` where nothing makes sense.
    """
    waits = [wait for value in values if (wait := _wait(value.strip(), now)) is not None]
    return min(max(waits), MAX_RETRY_AFTER) if waits else None


def _wait(text: str, now: float) -> float | None:
    if _SECONDS.fullmatch(text):
        return float(text)
    if len(text) > _MAX_DATE:
        return None
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:  # HTTP knows no other
            date = date.replace(tzinfo=dt.timezone.utc)
        return max(0.0, date.timestamp() - now)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


def quoted(body: bytes, secrets: Sequence[str]) -> str:
    """
    The beginning of an answer's body, for people: on one line, without what a terminal would obey,
    and without our secrets, which a receiver may send back.

    :param body: as much as was read of it.
    :param secrets: what must not be shown.
    :returns: at most :data:`MAX_QUOTE` characters; empty where there is nothing to show.
    """
    text = body.decode("utf-8", "replace")
    longest_first = sorted(filter(None, secrets), key=len, reverse=True)
    for secret in longest_first:
        text = text.replace(secret, REDACTED)
    if len(body) >= MAX_BODY and longest_first:
        # One may have been cut in two by the end.
        text = text[: -len(longest_first[0])]
    text = printable(text)
    return text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]}…"


def printable(text: str) -> str:
    """A text on one line, with ``?`` in the place of what a terminal may not show as it is."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "?" for each in line)


class Body(Protocol):
    """
    Reads an answer's body to its end, or as much of it as is bearable.

    :param cut: ends the connection.

    :ivar ended: fires when there is nothing more to read, however that came about.
    :ivar data: what came, at most :data:`MAX_BODY` bytes.
    """

    def __init__(self, cut: Any) -> None:
        self.data = b""
        self.ended: Deferred[None] = Deferred()
        self._cut = cut

    def dataReceived(self, data: bytes) -> None:
        if self.ended.called:
            return
        room = MAX_BODY - len(self.data)
        self.data += data[:room]
        if len(data) > room:
            self._cut()
            self._end()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # However it ends: the status has come, and it is what counts.
        self._end()

    def _end(self) -> None:
        if not self.ended.called:
            self.ended.callback(None)
