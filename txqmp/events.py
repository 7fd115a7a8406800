"""
Events on their way to those who asked for them.

:class:`EventHub` gives each event to its subscribers, one after another, at once: who subscribes
before a command is sent cannot miss what the command brings about (fact G25). Nobody can hurt
anybody else: what a callback or a filter raises is logged, every queue is bounded, and what is
dropped is counted.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.errors import EventTimeoutError, QMPError
from txqmp.jsontext import id_key
from txqmp.listener import Listener, Overflow
from txqmp.messages import Event


Callback = Callable[[Event], Any]
"""Called with each event; it may return a Deferred or a coroutine, which is then run."""

Where = Callable[[Event], Any] | Mapping[str, Any] | None
"""A filter: a predicate over the event, or what its ``data`` must contain (nested mappings too)."""

DEFAULT_LIMIT = 1000
"""How many events a listener holds, and how many answers of one callback may be outstanding."""

_MAX_ROUTES = 1024
_MAX_ROUTE_NAME = 256
_log = Logger()
_F = TypeVar("_F", bound=Callback)


def contains(data: Any, wanted: Any) -> bool:
    """
    Whether ``data`` is ``wanted``, or, for mappings, has all its members (nested too). Values
    compare as JSON's: ``true`` is not ``1``.
    """
    if isinstance(wanted, Mapping):
        return isinstance(data, Mapping) and all(
            name in data and contains(data[name], member) for name, member in wanted.items()
        )
    return id_key(data) == id_key(wanted)


def _ignore(_: Event) -> None:
    """Where the events of a cancelled subscription go."""


class Subscription:
    """
    One callback's wish for events.

    :ivar names: the names, or globs of names, that it wants; none for all.
    :ivar failures: events on which the callback or the filter raised. The first is logged with
        its traceback, the number of all when the subscription ends.
    :ivar dropped: events not given, because :data:`DEFAULT_LIMIT` earlier ones, which the
        callback answered with a Deferred or a coroutine, were not done.
    """

    __slots__ = (
        "_callback",
        "_hub",
        "_receive",
        "_running",
        "_where",
        "dropped",
        "failures",
        "names",
    )

    def __init__(
        self, hub: EventHub, callback: Callback, names: tuple[str, ...], where: Where
    ) -> None:
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"an event's name is a string, not {name!r}")
        if where is not None and not callable(where) and not isinstance(where, Mapping):
            raise TypeError(f"where is a function or a mapping, not {where!r}")
        if not callable(callback):
            raise TypeError(f"cannot call {callback!r}")
        self._hub = hub
        self._callback = callback
        self._where = where
        # Where events go: the callback, its filter, or what stands in for it when it takes none.
        self._receive = callback if where is None else self._filter
        self._running = 0
        self.names = names
        self.failures = 0
        self.dropped = 0

    @property
    def active(self) -> bool:
        """Whether events still come."""
        return self._receive is not _ignore

    def cancel(self) -> None:
        """Take no more events; a second time does nothing."""
        if self.active:
            self._receive = _ignore
            self._where = None
            self._hub._remove(self)
            if self.failures > 1:
                _log.warn(
                    "event callback {callback!r} failed on {failures} events",
                    callback=self._callback,
                    failures=self.failures,
                )

    def wants(self, name: str) -> bool:
        """Whether events of this name are among those asked for."""
        if not self.names:
            return True
        return any(fnmatch.fnmatchcase(name, wanted) for wanted in self.names)

    def _passes(self, event: Event) -> bool:
        if callable(self._where):
            return bool(self._where(event))
        return self._where is None or contains(event.data, self._where)

    def _filter(self, event: Event) -> Any:
        return self._callback(event) if self._passes(event) else None

    def _drop(self, event: Event) -> None:
        if self._passes(event):
            self.dropped += 1

    def _await(self, result: Any, event: Event) -> None:
        if isinstance(result, Coroutine):
            result = Deferred.fromCoroutine(result)
        elif not isinstance(result, Deferred):
            return

        def done(outcome: Any) -> None:
            self._running -= 1
            if self.active:
                self._receive = self._callback if self._where is None else self._filter
            if isinstance(outcome, Failure) and not outcome.check(CancelledError):
                self._failed(outcome, event)

        self._running += 1
        if self._running >= DEFAULT_LIMIT and self.active:
            self._receive = self._drop
        result.addBoth(done)

    def _failed(self, failure: Failure, event: Event) -> None:
        self.failures += 1
        if self.failures == 1:
            _log.failure(
                "event callback {callback!r} failed on {event!r}",
                failure,
                callback=self._callback,
                event=event,
            )


class SessionEnd(Protocol):
    """What tells that a session has ended: called anew for each waiter."""

    def __call__(self) -> QMPError: ...


class EventHub:
    """
    Gives events to subscribers.

    :param clock: where the time limits of waiters come from.

    :ivar clock: the same.
    """

    __slots__ = (
        "_by_name",
        "_listeners",
        "_over",
        "_subscriptions",
        "_waiters",
        "clock",
    )

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self._subscriptions: dict[Subscription, None] = {}
        self._by_name: dict[str, tuple[Subscription, ...]] = {}
        self._listeners: dict[Listener, None] = {}
        self._waiters: dict[_Waiter, None] = {}
        self._over: SessionEnd | None = None

    def subscribe(self, callback: Callback, *names: str, where: Where = None) -> Subscription:
        """
        Have a callback called with each event.

        :param callback: called with the event, at once. What it returns is waited for if it is a
            Deferred or a coroutine, but the next event does not wait. What it raises is logged.
        :param names: names of events, or globs such as ``"BLOCK_*"``; none for all.
        :param where: a predicate over the event, or a mapping that its ``data`` must contain.
        :returns: a handle with ``cancel()`` and counters.
        """
        subscription = Subscription(self, callback, names, where)
        self._subscriptions[subscription] = None
        self._by_name.clear()
        return subscription

    def on_event(self, *names: str, where: Where = None) -> Callable[[_F], _F]:
        """:meth:`subscribe` as a decorator."""

        def decorate(callback: _F) -> _F:
            self.subscribe(callback, *names, where=where)
            return callback

        return decorate

    def listen(
        self,
        *names: str,
        where: Where = None,
        limit: int = DEFAULT_LIMIT,
        overflow: Overflow = "drop_oldest",
        history: int = 0,
    ) -> Listener:
        """
        Queue events, to take them one by one.

        :param names: as for :meth:`subscribe`, and so ``where``.
        :param limit: how many events the queue holds.
        :param overflow: what a full queue does: ``"drop_oldest"`` and ``"drop_newest"`` count what
            they drop, ``"fail"`` ends the listener.
        :param history: how many of the last events to keep for a look back.
        :returns: the listener, a context manager, listening already.
        """
        listener = Listener(self, names, where, limit, overflow, history)
        if self._over is not None:
            listener._ended(self._over())
        return listener

    def wait_for(
        self, *names: str, where: Where = None, timeout: float | None = None
    ) -> Deferred[Event]:
        """
        The next matching event.

        :param names: as for :meth:`subscribe`, and so ``where``.
        :param timeout: in seconds; ``None`` for no limit.
        :returns: a Deferred of the event.
        :raises EventTimeoutError: (by the Deferred) none came in time.
        :raises DisconnectedError: the session ended first.
        """
        waiter = _Waiter(self, names, where, timeout, self.clock)
        if self._over is not None:
            waiter.fail(self._over())
        return waiter.deferred

    def publish(self, event: Event) -> None:
        """Give an event to all who want it."""
        name = event.raw["event"]
        try:
            subscriptions = self._by_name[name]
        except KeyError:
            subscriptions = self._route(name)
        for subscription in subscriptions:
            try:
                receive = subscription._receive
                result = receive(event)
            except Exception:
                subscription._failed(Failure(), event)
                continue
            if result is not None:
                subscription._await(result, event)

    def _route(self, name: str) -> tuple[Subscription, ...]:
        subscriptions = tuple(s for s in self._subscriptions if s.wants(name))
        if len(self._by_name) >= _MAX_ROUTES:
            self._by_name.clear()
        if len(name) <= _MAX_ROUTE_NAME:
            self._by_name[name] = subscriptions
        return subscriptions

    def end(self, make_error: SessionEnd) -> None:
        """
        No more events come: each waiter fails, each listener ends once it is empty, and so does
        each that is made later. Subscriptions stay.

        :param make_error: makes the error, anew for each of them.
        """
        self._over = make_error
        waiters, self._waiters = self._waiters, {}
        listeners, self._listeners = self._listeners, {}
        for waiter in waiters:
            waiter.fail(make_error())
        for listener in listeners:
            listener._ended(make_error())

    def begin(self) -> None:
        """Events come again, after :meth:`end`."""
        self._over = None

    def _remove(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)
        self._by_name.clear()


class EventSource:
    """The verbs for events, on an object that has a hub."""

    events: EventHub

    def subscribe(self, callback: Callback, *names: str, where: Where = None) -> Subscription:
        """:meth:`EventHub.subscribe`."""
        return self.events.subscribe(callback, *names, where=where)

    def on_event(self, *names: str, where: Where = None) -> Callable[[_F], _F]:
        """:meth:`EventHub.on_event`."""
        return self.events.on_event(*names, where=where)

    def listen(
        self,
        *names: str,
        where: Where = None,
        limit: int = DEFAULT_LIMIT,
        overflow: Overflow = "drop_oldest",
        history: int = 0,
    ) -> Listener:
        """:meth:`EventHub.listen`."""
        return self.events.listen(
            *names, where=where, limit=limit, overflow=overflow, history=history
        )

    def wait_for(
        self, *names: str, where: Where = None, timeout: float | None = None
    ) -> Deferred[Event]:
        """:meth:`EventHub.wait_for`."""
        return self.events.wait_for(*names, where=where, timeout=timeout)


class _Waiter:
    """Somebody who waits for one event."""

    def __init__(
        self,
        hub: EventHub,
        names: tuple[str, ...],
        where: Where,
        timeout: float | None,
        clock: IReactorTime,
    ) -> None:
        self._hub = hub
        self._timer: IDelayedCall | None = None
        self.deferred: Deferred[Event] = Deferred(lambda _: self._stop())
        self._subscription = hub.subscribe(self._came, *names, where=where)
        hub._waiters[self] = None
        if timeout is not None:
            error = EventTimeoutError(names, timeout)
            self._timer = clock.callLater(max(0.0, timeout), self._expired, error)

    def _expired(self, error: EventTimeoutError) -> None:
        self._timer = None
        self.fail(error)

    def _stop(self) -> None:
        self._subscription.cancel()
        self._hub._waiters.pop(self, None)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _came(self, event: Event) -> None:
        self._stop()
        self.deferred.callback(event)

    def fail(self, error: Exception) -> None:
        self._stop()
        if not self.deferred.called:
            self.deferred.errback(error)
