"""One command on its way: :class:`PendingCommand`."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred


class PendingCommand:
    """
    One command, from the call to its reply.

    :ivar name: the command's name.
    :ivar text: what is sent.
    :ivar key: its id, comparable by value (:func:`~txqmp.jsontext.id_key`); ``None`` without one.
    :ivar oob: whether it overtakes.
    :ivar sent: whether it was written.
    :ivar abandoned: whether the caller has gone, by cancelling or by a timeout.
    :ivar number: its place in the order of the calls; this and the times are set by who issues it.
    :ivar since: when it was issued, by the clock.
    :ivar deadline: when its time is up; infinity for never.
    :ivar notice_at: when to say that it still waits.
    """

    __slots__ = (
        "_abandon",
        "_deferred",
        "deadline",
        "descriptor",
        "key",
        "name",
        "notice_at",
        "number",
        "oob",
        "sent",
        "since",
        "text",
        "timeout",
        "whole",
    )

    number: int
    since: float
    deadline: float
    notice_at: float

    def __init__(
        self,
        abandon: Callable[[PendingCommand], None],
        name: str,
        text: bytes,
        key: Hashable | None,
        oob: bool,
        timeout: float | None,
        descriptor: int | None,
        whole: bool,
    ) -> None:
        self._abandon = abandon
        self._deferred: Deferred[Any] | None = Deferred(self._cancelled)
        self.name = name
        self.text = text
        self.key = key
        self.oob = oob
        self.timeout = timeout
        self.descriptor = descriptor
        self.whole = whole
        self.sent = False

    @property
    def abandoned(self) -> bool:
        return self._deferred is None

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        self._deferred = None
        self._abandon(self)

    def succeed(self, value: Any) -> None:
        """Give the caller, if there still is one, a result."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred.callback(value)

    def fail(self, error: Exception) -> None:
        """Give the caller, if there still is one, an error."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred.errback(error)

    def close_descriptor(self) -> None:
        """Close our duplicate of the descriptor, if one travels with the command."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)
