"""
Credit: how much of a message may be sent before its receiver has dealt with what it has.

Counted in decoded bytes of commands' data and of responses, for each request and for the
connection as a whole (request id 0). A grant is an absolute offset: one that comes twice, or late,
changes nothing.

Neither side can wait for ever for the other. A receiver grants more as soon as half of a window has
been dealt with, so more than the other half is open to a sender whose bytes all have been; and a
sender never wants more than half of a window at a time.
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

    __slots__ = (
        "_allowed",
        "_connection_allowed",
        "_connection_sent",
        "_largest",
        "_sent",
        "_stalled",
        "_window",
    )

    def __init__(self, window: int, connection_window: int) -> None:
        self._window = window
        self._connection_allowed = connection_window
        self._connection_sent = 0
        self._largest = max(1, min(window, connection_window) // 2)
        # By request, from the first byte that it sends until it is over.
        self._sent: dict[int, int] = {}
        self._allowed: dict[int, int] = {}
        self._stalled: dict[int, FrameSource] = {}

    def __len__(self) -> int:
        """How many requests are counted."""
        return len(self._sent)

    @property
    def stalled(self) -> int:
        """How many messages wait for credit."""
        return len(self._stalled)

    def room(self, request_id: int) -> int:
        """How many bytes may be sent for a request."""
        allowed = self._allowed.get(request_id, self._window)
        return min(
            allowed - self._sent.get(request_id, 0),
            self._connection_allowed - self._connection_sent,
        )

    def spend(self, source: FrameSource, size: int) -> int:
        """For :class:`~txqmp.frames.sources.Credit`."""
        request_id = source.request_id
        size = min(size, self._largest)
        if self.room(request_id) < size:
            self._stalled[request_id] = source
            return 0
        self._sent[request_id] = self._sent.get(request_id, 0) + size
        self._connection_sent += size
        return size

    def grant(self, request_id: int, offset: int) -> None:
        """Take a grant; one for a request that is not counted means nothing."""
        if request_id == CONNECTION:
            if offset > self._connection_allowed:
                self._connection_allowed = offset
                stalled, self._stalled = self._stalled, {}
                for source in stalled.values():
                    _wake(source)
        elif request_id in self._sent and offset > self._allowed.get(request_id, self._window):
            self._allowed[request_id] = offset
            if request_id in self._stalled:
                _wake(self._stalled.pop(request_id))

    def forget(self, request_id: int) -> None:
        """A request is over."""
        if self._sent.pop(request_id, None) is not None:
            self._allowed.pop(request_id, None)
        self._stalled.pop(request_id, None)


def _wake(source: FrameSource) -> None:
    if source.wake is not None:
        source.wake(source)


class _Window:
    """What one request, or all together, may send us."""

    __slots__ = ("consumed", "granted", "received", "size")

    def __init__(self, size: int) -> None:
        self.size = self.granted = size
        self.received = self.consumed = 0

    def receive(self, size: int, request_id: int) -> None:
        self.received += size
        if self.received > self.granted:
            raise FrameProtocolError(
                Code.CREDIT_EXCEEDED, f"{self.received} bytes, more than was granted", request_id
            )

    def consume(self, size: int) -> bool:
        """Whether there is something to grant."""
        self.consumed += size
        if self.consumed + self.size - self.granted < self.size // 2:
            return False
        self.granted = self.consumed + self.size
        return True


class ReceiveCredit:
    """
    What we let the peer send.

    :param window: what each request may send at first, in bytes. More is granted when half of it
        has been dealt with.
    :param connection_window: the same for all together.
    """

    __slots__ = ("_connection", "_requests", "_window")

    def __init__(self, window: int, connection_window: int) -> None:
        self._window = window
        self._connection = _Window(connection_window)
        self._requests: dict[int, _Window] = {}

    def __len__(self) -> int:
        """How many requests are counted."""
        return len(self._requests)

    @property
    def held(self) -> int:
        """How many bytes came and have not been dealt with."""
        return self._connection.received - self._connection.consumed

    def receive(self, request_id: int, size: int) -> None:
        """
        Bytes came.

        :raises FrameProtocolError: more than was granted.
        """
        if not size:
            return
        window = self._requests.get(request_id)
        if window is None:
            window = self._requests[request_id] = _Window(self._window)
        window.receive(size, request_id)
        self._connection.receive(size, request_id)

    def consume(self, request_id: int, size: int) -> list[Grant]:
        """
        Bytes have been dealt with.

        :param size: of those that came, at most so many are counted.
        :returns: what to grant now.
        """
        window = self._requests.get(request_id)
        if window is None:
            return []
        size = min(size, window.received - window.consumed)
        if size <= 0:
            return []
        grants = []
        if window.consume(size):
            grants.append((request_id, window.granted))
        if self._connection.consume(size):
            grants.append((CONNECTION, self._connection.granted))
        return grants

    def forget(self, request_id: int) -> list[Grant]:
        """
        A request is over: what of it was not dealt with counts as if it had been.

        :returns: what to grant now.
        """
        window = self._requests.pop(request_id, None)
        if window is None or not self._connection.consume(window.received - window.consumed):
            return []
        return [(CONNECTION, self._connection.granted)]
