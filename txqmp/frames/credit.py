"""
Credit: how much of a message may be sent before its receiver has dealt with what it has.

Counted in decoded bytes of commands' data and of responses, for each request and for the
connection as a whole (request id 0). A grant is an absolute offset: one that comes twice, or late,
changes nothing.
"""

from __future__ import annotations

from txqmp.frames.errors import Code, FrameProtocolError
from txqmp.frames.sources import FrameSource


CONNECTION = 0
"""The request id that stands for the connection as a whole."""

Grant = tuple[int, int]
"""A request id, and the offset up to which may be sent."""


class SendCredit:
    """
    What the peer lets us send.

    :param window: what each request may send at first, in bytes.
    :param connection_window: what all may send together at first.
    """

    def __init__(self, window: int, connection_window: int) -> None:
        self._window = window
        self._allowed = {CONNECTION: connection_window}
        self._sent = {CONNECTION: 0}
        self._stalled: dict[FrameSource, None] = {}

    @property
    def stalled(self) -> int:
        """How many messages wait for credit."""
        return len(self._stalled)

    def begin(self, request_id: int) -> None:
        """A request begins."""
        self._allowed[request_id] = self._window
        self._sent[request_id] = 0

    def room(self, request_id: int) -> int:
        """How many bytes may be sent for a request that has begun."""
        allowed, sent = self._allowed, self._sent
        return min(allowed[CONNECTION] - sent[CONNECTION], allowed[request_id] - sent[request_id])

    def spend(self, source: FrameSource, size: int) -> bool:
        """For :class:`~txqmp.frames.sources.Credit`."""
        request_id = source.request_id
        if self.room(request_id) < size:
            self._stalled[source] = None
            return False
        self._sent[request_id] += size
        self._sent[CONNECTION] += size
        return True

    def grant(self, request_id: int, offset: int) -> None:
        """Take a grant; one for a request that is over means nothing."""
        if request_id in self._allowed and offset > self._allowed[request_id]:
            self._allowed[request_id] = offset
            stalled, self._stalled = self._stalled, {}
            for source in stalled:
                if source.wake is not None:
                    source.wake()

    def forget(self, request_id: int) -> None:
        """A request is over."""
        self._allowed.pop(request_id, None)
        self._sent.pop(request_id, None)
        self._stalled = {
            source: None for source in self._stalled if source.request_id != request_id
        }


class ReceiveCredit:
    """
    What we let the peer send.

    :param window: what each request may send at first, in bytes. More is granted when half of it
        has been dealt with.
    :param connection_window: the same for all together.
    """

    def __init__(self, window: int, connection_window: int) -> None:
        self._window = window
        self._connection_window = connection_window
        self._received: dict[int, int] = {CONNECTION: 0}
        self._consumed: dict[int, int] = {CONNECTION: 0}
        self._granted: dict[int, int] = {CONNECTION: connection_window}

    def receive(self, request_id: int, size: int) -> None:
        """
        Bytes came.

        :raises FrameProtocolError: more than was granted.
        """
        for which in (request_id, CONNECTION):
            received = self._received[which] = self._received.get(which, 0) + size
            if received > self._granted.get(which, self._window):
                raise FrameProtocolError(
                    Code.CREDIT_EXCEEDED, f"{received} bytes, more than was granted", request_id
                )

    def consume(self, request_id: int, size: int) -> list[Grant]:
        """
        Bytes have been dealt with.

        :param size: of those that came, at most so many are counted.
        :returns: what to grant now.
        """
        left = self._received.get(request_id, 0) - self._consumed.get(request_id, 0)
        size = min(size, left)
        if size <= 0:
            return []
        return [
            *self._consume(request_id, size, self._window),
            *self._consume(CONNECTION, size, self._connection_window),
        ]

    def _consume(self, which: int, size: int, window: int) -> list[Grant]:
        consumed = self._consumed[which] = self._consumed.get(which, 0) + size
        if consumed + window - self._granted.get(which, window) < window // 2:
            return []
        self._granted[which] = consumed + window
        return [(which, consumed + window)]

    def forget(self, request_id: int) -> list[Grant]:
        """
        A request is over: what of it was not dealt with counts as if it had been.

        :returns: what to grant now.
        """
        received = self._received.pop(request_id, 0)
        left = received - self._consumed.pop(request_id, 0)
        self._granted.pop(request_id, None)
        return self._consume(CONNECTION, left, self._connection_window) if left else []
