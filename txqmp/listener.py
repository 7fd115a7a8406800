"""A bounded queue of events: :class:`Listener`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from txqmp.errors import (
    DisconnectedError,
    EventTimeoutError,
    ListenerOverflowError,
    QMPError,
)
from txqmp.messages import Event


if TYPE_CHECKING:
    from txqmp.events import EventHub, Where


Overflow = Literal["drop_oldest", "drop_newest", "fail"]
"""What a full queue does with one event more."""


class Listener:
    """
    A bounded queue of events. Made by :meth:`EventHub.listen`; it listens at once, until
    :meth:`close`, the end of its ``with`` block, or the end of the session.

    ``async for`` gives the events as they come. It ends when the listener is closed or when the
    session ended as expected, and raises :exc:`~txqmp.errors.DisconnectedError` when it did not.

    :ivar dropped: events that the full queue has dropped.
    """

    def __init__(
        self,
        hub: EventHub,
        names: tuple[str, ...],
        where: Where,
        limit: int,
        overflow: Overflow,
        history: int,
    ) -> None:
        if limit < 1:
            raise ValueError(f"a listener cannot hold {limit} events")
        if overflow not in ("drop_oldest", "drop_newest", "fail"):
            raise ValueError(f"no such overflow policy: {overflow!r}")
        self._queue: deque[Event] = deque()
        self._getters: deque[Deferred[Event]] = deque()
        self._history: deque[Event] = deque(maxlen=history)
        self._limit = limit
        self._overflow = overflow
        self._end: QMPError | None = None
        self._closed = False
        self.dropped = 0
        self._subscription = hub.subscribe(self._put, *names, where=where)
        self._hub = hub
        hub._listeners[self] = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def empty(self) -> bool:
        """Whether no event waits to be taken."""
        return not self._queue

    @property
    def history(self) -> tuple[Event, ...]:
        """The last events that came, taken or not, oldest first; at most as many as asked for."""
        return tuple(self._history)

    def clear(self) -> list[Event]:
        """Take all events that wait."""
        events = list(self._queue)
        self._queue.clear()
        return events

    def get(self, timeout: float | None = None) -> Deferred[Event]:
        """
        Take the next event.

        :param timeout: in seconds; ``None`` for no limit.
        :returns: a Deferred of it; cancelling it loses no event.
        :raises EventTimeoutError: (by the Deferred) none came in time.
        :raises DisconnectedError: (by the Deferred) the session has ended, and no event is left.
        :raises ListenerOverflowError: the queue was full, its policy is ``"fail"``, and no event
            is left.
        """
        if self._queue:
            return succeed(self._queue.popleft())
        if self._end is not None:
            return fail(self._end.twin())
        if self._closed:
            return fail(DisconnectedError("the listener is closed", expected=True))
        getter: Deferred[Event] = Deferred(self._forget)
        self._getters.append(getter)
        if timeout is not None:
            error = EventTimeoutError(self._subscription.names, timeout)
            timer = self._hub.clock.callLater(max(0.0, timeout), self._too_late, getter, error)
            getter.addBoth(_without, timer)
        return getter

    def _too_late(self, getter: Deferred[Event], error: EventTimeoutError) -> None:
        self._forget(getter)
        getter.errback(error)

    def close(self) -> None:
        """Listen no more. What waits can still be taken; who waits is told."""
        self._closed = True
        self._stop(DisconnectedError("the listener is closed", expected=True))

    def _stop(self, error: QMPError) -> None:
        self._subscription.cancel()
        self._hub._listeners.pop(self, None)
        getters, self._getters = tuple(self._getters), deque()
        for getter in getters:
            if not getter.called:
                getter.errback(error.twin())

    def _forget(self, getter: Deferred[Event]) -> None:
        if getter in self._getters:
            self._getters.remove(getter)

    def _put(self, event: Event) -> None:
        if self._history.maxlen:
            self._history.append(event)
        if self._getters:
            self._getters.popleft().callback(event)
        elif len(self._queue) < self._limit:
            self._queue.append(event)
        elif self._overflow == "fail":
            self._ended(ListenerOverflowError(f"{self._limit} events wait, and one more came"))
        else:
            self.dropped += 1
            if self._overflow == "drop_oldest":
                self._queue.popleft()
                self._queue.append(event)

    def _ended(self, error: QMPError) -> None:
        if self._end is None and not self._closed:
            self._end = error
            self._stop(error)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            try:
                event = await self.get()
            except DisconnectedError as error:
                if error.expected:
                    return
                raise
            yield event


def _without(outcome: Any, timer: IDelayedCall) -> Any:
    """Stop a timer that has served its purpose."""
    if timer.active():
        timer.cancel()
    return outcome
