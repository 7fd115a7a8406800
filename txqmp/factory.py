"""Sessions that last: :class:`QMPClientFactory` dials or accepts, and dials again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    fail,
    succeed,
)
from twisted.internet.interfaces import IAddress, IConnector, IProtocol
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import Place, client_endpoint, connect_error, connect_in_time
from txqmp.errors import (
    DisconnectedError,
    QMPError,
    StateError,
)
from txqmp.events import EventHub, EventSource
from txqmp.lifecycle import RunState
from txqmp.observer import Gap, Observer, Snapshot, ask, ignore
from txqmp.protocol import QMPProtocol
from txqmp.reconnect import DEFAULT_BACKOFF, Backoff, Redialler
from txqmp.refusal import Refusal
from txqmp.settings import DEFAULT_SETTINGS, SessionSettings


MAX_REFUSALS = 100
"""How many connections are refused gently at once; further ones are just closed."""


class QMPClientFactory(EventSource, ClientFactory):
    """
    Makes sessions, and remakes the one that was lost.

    Use it with :meth:`dial`, with ``reactor.connectUNIX`` or ``connectTCP``, with a server
    endpoint's ``listen`` (QEMU dials us), or under an application as
    :class:`~txqmp.service.QMPService`. A client endpoint's ``connect`` gives a single session: the
    endpoint is not known here, so it cannot be dialled again.

    Subscriptions made on the factory outlive a session; its ``events`` hub ends with :meth:`stop`.

    :param reactor: also the clock.
    :param name: a name for the log.
    :param settings: for each session.
    :param backoff: the waits between attempts; ``None`` to dial once only.
    :param max_sessions: how many sessions there may be at once; further connections are refused.
        ``None`` for any number, for a server endpoint that many QEMUs dial.
    :param snapshot: the queries to run after a gap.

    :ivar last_error: why the last attempt came to nothing, ``None`` after a success.
    :ivar sessions_begun: how many sessions ran so far.
    :ivar refused: connections refused, because of ``max_sessions`` or because it is stopped.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        name: str = "qmp",
        settings: SessionSettings = DEFAULT_SETTINGS,
        backoff: Backoff | None = DEFAULT_BACKOFF,
        max_sessions: int | None = 1,
        snapshot: tuple[str, ...] = ("query-status",),
    ) -> None:
        self.name = name
        self.settings = settings
        self.events = EventHub(reactor)
        self.last_error: QMPError | None = None
        self.sessions_begun = 0
        self.refused = 0
        self._reactor = reactor
        self._backoff = backoff
        self._max_sessions = max_sessions
        self._snapshot = snapshot
        self._observers: list[Observer] = []
        self._connections: dict[QMPProtocol, None] = {}
        self._refusals: set[Refusal] = set()
        self._running: dict[QMPProtocol, None] = {}
        self._waiters: list[tuple[int | None, Deferred[QMPProtocol]]] = []
        self._redialler: Redialler | None = None
        self._attempt: Deferred[Any] | None = None
        self._connector: IConnector | None = None
        self._stopped = False
        self._failures = 0
        self._lost_at: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def session(self) -> QMPProtocol | None:
        """The session that runs, the newest where there are several, or ``None``."""
        return next(iter(reversed(self.sessions)), None)

    @property
    def sessions(self) -> tuple[QMPProtocol, ...]:
        """All sessions that run."""
        return tuple(s for s in self._running if s.state is RunState.RUNNING)

    # What users call

    def dial(self, where: Place) -> None:
        """
        Connect, and connect again whenever the session is lost, until :meth:`stop`.

        :param where: as for :func:`connect`.
        :raises ValueError: it is no endpoint.
        :raises StateError: the factory dials already.
        """
        if self._redialler is not None:
            raise StateError(f"{self.name}: the factory dials already")
        endpoint = client_endpoint(self._reactor, where)

        def attempt() -> None:
            self._attempt = connect_in_time(
                self._reactor, endpoint, self, self.settings.timeouts.connect
            )
            self._attempt.addCallbacks(self._attempt_made, self._attempt_failed)

        self._begin(Redialler(self._reactor, attempt, self._backoff))
        attempt()

    def when_ready(self, failures: int | None = None) -> Deferred[QMPProtocol]:
        """
        Wait for a session that runs.

        :param failures: give up after so many failed attempts in a row; ``None`` for never.
        :returns: a fresh Deferred of the session, at once where there is one.
        :raises QMPError: (by the Deferred) the error of the last attempt, or a
            :exc:`~txqmp.errors.StateError` when the factory is stopped.
        """
        if self.session is not None:
            return succeed(self.session)
        if self._stopped:
            return fail(self._stopped_error())
        deferred: Deferred[QMPProtocol] = Deferred(self._forget_waiter)
        self._waiters.append((failures, deferred))
        return deferred

    def observe(
        self,
        *,
        ready: Callable[[QMPProtocol], Any] = ignore,
        lost: Callable[[QMPProtocol, QMPError], Any] = ignore,
        gap: Callable[[Gap], Any] = ignore,
        snapshot: Callable[[Snapshot], Any] = ignore,
        failed: Callable[[QMPError], Any] = ignore,
    ) -> Observer:
        """
        Be told of sessions: the parameters are those of :class:`Observer`.

        :returns: a handle with ``cancel()``.
        """
        observer = Observer(
            ready=ready,
            lost=lost,
            gap=gap,
            snapshot=snapshot,
            failed=failed,
            observers=self._observers,
        )
        self._observers.append(observer)
        return observer

    def stop(self) -> Deferred[None]:
        """
        Dial no more, and end what runs. The factory can be used again afterwards.

        :returns: a Deferred that fires when all connections are closed: a peer that does not
            read is cut off after the settings' ``timeouts.close``.
        """
        self._stopped = True
        redialler, self._redialler = self._redialler, None
        if redialler is not None:
            redialler.stop()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connector, self._connector = self._connector, None
        if connector is not None and getattr(connector, "state", None) == "connecting":
            connector.stopConnecting()
        self._lost_at = None
        waiters, self._waiters = self._waiters, []
        for refusal in tuple(self._refusals):
            refusal.abort()
        closing = [session.disconnect() for session in tuple(self._connections)]
        # Last, as who is told may dial again.
        end = DisconnectedError(f"{self.name}: the factory was stopped", expected=True)
        self.events.end(end.twin)
        for _, waiter in waiters:
            if not waiter.called:
                waiter.errback(self._stopped_error())
        return _all(closing)

    def _stopped_error(self) -> StateError:
        return StateError(f"{self.name}: the factory is stopped")

    def _forget_waiter(self, deferred: Deferred[QMPProtocol]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter[1] is not deferred]

    def _begin(self, redialler: Redialler) -> None:
        self._redialler = redialler
        self.resume()

    def resume(self) -> None:
        """Take connections again after :meth:`stop`; :meth:`dial` does so by itself."""
        if self._stopped:
            self._stopped = False
            self.events.begin()

    # What Twisted calls

    def buildProtocol(self, addr: IAddress | None) -> QMPProtocol | Refusal | None:
        full = self._max_sessions is not None and len(self._connections) >= self._max_sessions
        if full or self._stopped:
            self.refused += 1
            return self._refuse()
        session = QMPProtocol(self._reactor, self.settings, self.name, self)
        session.factory = self
        return session

    def _refuse(self) -> Refusal | None:
        if len(self._refusals) >= MAX_REFUSALS:
            return None
        refusal = Refusal(self._reactor, self.settings.timeouts.close, self._refusals.discard)
        self._refusals.add(refusal)
        return refusal

    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector
        if self._redialler is None:
            self._begin(Redialler(self._reactor, connector.connect, self._backoff))

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._failed(connect_error(reason))

    # What sessions call

    def session_connected(self, session: QMPProtocol) -> None:
        """A connection is made: it counts from now on."""
        self._connections[session] = None

    def session_ready(self, session: QMPProtocol) -> None:
        """A session runs: tell all who want to know."""
        self.last_error = None
        self._failures = 0
        self.sessions_begun += 1
        self._running[session] = None
        lost_at, self._lost_at = self._lost_at, None
        if self._redialler is not None:
            self._redialler.succeeded()
        session.events.subscribe(self.events.publish)
        self._log.info("{name}: the session runs", name=self.name)
        self._tell("ready", session)
        if lost_at is not None:
            since, reason = lost_at
            self._tell("gap", Gap(since, self._reactor.seconds(), reason))
            ask(session, *self._snapshot).addCallback(lambda taken: self._tell("snapshot", taken))
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            if not waiter.called:
                waiter.callback(session)

    def session_ended(self, session: QMPProtocol, error: QMPError) -> None:
        """A session is over, or never ran: dial again."""
        self._connections.pop(session, None)
        if session not in self._running:
            self._failed(error)
            return
        del self._running[session]
        if self._max_sessions == 1 and not self._stopped:
            self._lost_at = (self._reactor.seconds(), str(error))
        if self._redialler is not None:
            self._redialler.lost()
        self._tell("lost", session, error)

    # Attempts

    def _attempt_made(self, _: IProtocol) -> None:
        self._attempt = None

    def _attempt_failed(self, failure: Failure) -> None:
        self._attempt = None
        self._failed(connect_error(failure))

    def _failed(self, error: QMPError) -> None:
        if self._stopped:
            return
        if self.last_error is None or str(error) != str(self.last_error):
            self._log.info("{name}: no session: {error}", name=self.name, error=error)
        self.last_error = error
        self._failures += 1
        if self._redialler is not None:
            self._redialler.failed()
        once = self._redialler is not None and self._backoff is None
        tired = [
            waiter
            for limit, waiter in self._waiters
            if once or (limit is not None and self._failures >= limit)
        ]
        self._waiters = [waiter for waiter in self._waiters if waiter[1] not in tired]
        self._tell("failed", error)
        for waiter in tired:
            if not waiter.called:
                waiter.errback(error.twin())

    def _tell(self, what: str, *news: object) -> None:
        for observer in tuple(self._observers):
            if observer not in self._observers:
                continue
            try:
                getattr(observer, what)(*news)
            except Exception:
                self._log.failure("{name}: an observer failed on {what}", name=self.name, what=what)


def _all(deferreds: list[Deferred[Any]]) -> Deferred[None]:
    """Wait for all of them, however each ends."""
    return DeferredList(deferreds, consumeErrors=True).addCallback(lambda _: None)
