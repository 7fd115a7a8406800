"""
A QMP session: :class:`QMPProtocol`, from the greeting to the end.

It joins framing (:mod:`txqmp.framing`), dispatch (:mod:`txqmp.dispatch`) and events
(:mod:`txqmp.events`), and knows the phases of a session: what comes before the greeting, between
greeting and negotiation, and after the end.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.dispatch import PendingCommands
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    DisconnectedError,
    GreetingError,
    ObjectTypeError,
    ProtocolError,
    QMPError,
    ServerParseError,
)
from txqmp.events import EventHub, EventSource
from txqmp.execute import CommandVerbs
from txqmp.framing import JSONLineReceiver
from txqmp.handshake import Handshake
from txqmp.lifecycle import Lifecycle, RunState
from txqmp.messages import ErrorReply, Event, Greeting, Message
from txqmp.pending import PendingCommand
from txqmp.redaction import excerpt
from txqmp.settings import DEFAULT_SETTINGS, SessionSettings


class SessionOwner(Protocol):
    """Who is told of a session's beginning and end: the factory."""

    def session_connected(self, session: QMPProtocol) -> None:
        """The connection is made; the session may come to be."""

    def session_ready(self, session: QMPProtocol) -> None:
        """The session runs; no event has been delivered yet."""

    def session_ended(self, session: QMPProtocol, error: QMPError) -> None:
        """
        The session is over; ``error`` tells how: a :exc:`~txqmp.errors.DisconnectedError` if it
        ran, else why it did not come to be.
        """


_strict_event = functools.partial(Event.parse, strict=True)
_NO_REASON = Failure(ConnectionDone())


class QMPProtocol(JSONLineReceiver, CommandVerbs, EventSource):
    """
    One session with a QMP server.

    Use :func:`txqmp.connect` or a :class:`~txqmp.factory.QMPClientFactory` to make one.

    :param clock: where time limits come from, usually the reactor.
    :param settings: what can be chosen.
    :param name: a name for the log.
    :param owner: who is told of beginning and end.

    :ivar events: the hub that delivers this session's events.
    :ivar greeting: the server's greeting; ``None`` before it came.
    :ivar oob_enabled: whether out-of-band commands can be executed.
    :ivar last_shutdown: the last SHUTDOWN event of the session, or ``None``.
    :ivar parse_errors: errors without an id that came (fact G18).
    :ivar malformed: messages of the wrong shape that came, and were dropped.
    :ivar stale_replies: replies to the connection's previous client, dropped (fact G9).
    :ivar early_events_dropped: events dropped because too many came before the session ran.
    """

    greeting: Greeting | None = None
    last_shutdown: Event | None = None
    parse_errors = 0
    malformed = 0
    stale_replies = 0
    early_events_dropped = 0

    _closing: IDelayedCall | None = None
    _leaving = False
    _shutting_down = False
    _cause: QMPError | None = None
    _cause_told = False
    _closers: tuple[Deferred[None], ...] = ()
    _error_hooks: tuple[Callable[[ProtocolError], Any], ...] = ()

    def __init__(
        self,
        clock: IReactorTime,
        settings: SessionSettings = DEFAULT_SETTINGS,
        name: str = "qmp",
        owner: SessionOwner | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.max_message = settings.max_message
        self.events = EventHub(clock)
        self.events.subscribe(self._turned, "SHUTDOWN", "RESUME")
        self._clock = clock
        self._owner = owner
        self._handshake: Handshake | None = None
        self._read_event = _strict_event if settings.strict else Event.of
        self._lifecycle = Lifecycle()
        self._pending = PendingCommands(
            self,
            clock,
            window=settings.window,
            max_waiting=settings.max_waiting,
            strict=settings.strict,
            slow=settings.timeouts.slow,
        )

    # State

    @property
    def state(self) -> RunState:
        """What the session is doing."""
        return self._lifecycle.state

    @property
    def left(self) -> bool:
        """Whether we have ended the session: by :meth:`disconnect` or :meth:`abort`."""
        return self._leaving

    @property
    def shutting_down(self) -> bool:
        """Whether SHUTDOWN came, and no RESUME since, as it can with ``-no-shutdown``."""
        return self._shutting_down

    @property
    def pending(self) -> PendingCommands:
        """The commands that have no reply yet, and the counters of replies."""
        return self._pending

    @property
    def log(self) -> Logger:
        """The session's logger: ``txqmp.session.`` and the session's name."""
        return Logger(namespace=f"txqmp.session.{self.name}", source=self)

    def when_state(self, *states: RunState) -> Deferred[RunState]:
        """
        Wait for a state.

        :param states: any of these.
        :returns: a fresh Deferred of the state; at once where the session is in it.
        :raises QMPError: (by the Deferred) the session ended without coming to such a state; as
            for :meth:`when_ready` where it never ran, else a
            :exc:`~txqmp.errors.DisconnectedError`.
        """
        return self._lifecycle.when(*states)

    def when_ready(self) -> Deferred[QMPProtocol]:
        """
        Wait until commands can be executed.

        :returns: a fresh Deferred of this session.
        :raises ConnectError: (by the Deferred) no session came to be.
        :raises GreetingError: the peer does not speak QMP.
        :raises NegotiationError: the peer refused.
        """
        return self._lifecycle.when(RunState.RUNNING).addCallback(lambda _: self)

    # The beginning

    def connectionMade(self) -> None:
        if self._owner is not None:
            self._owner.session_connected(self)
        self.output.nudge_over_tls(self._clock)
        self._handshake = Handshake(
            self.settings, self._clock, self._pending, self._ready, self._break
        )
        self._lifecycle.enter(RunState.CONNECTING)
        if self.state is RunState.CONNECTING:
            self._handshake.begin()

    def _ready(self, oob: bool) -> None:
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        self.oob_enabled = oob
        self.greeting = handshake.greeting
        self.stale_replies = handshake.stale_replies
        self.early_events_dropped = handshake.early_dropped
        self._lifecycle.state = RunState.RUNNING
        if self._owner is not None:
            self._owner.session_ready(self)
        self._lifecycle.tell()
        for event in handshake.early:
            self.events.publish(event)

    # Messages

    def message_received(self, message: dict[str, Any]) -> None:
        if "event" in message:
            try:
                read = self._read_event
                event = read(message)
            except ObjectTypeError as error:
                self._drop_malformed(error)
                return
            if self._handshake is None:
                self.events.publish(event)
            else:
                self._handshake.keep(event)
        elif self._handshake is not None:
            self._handshake.received(message)
        elif "return" in message or "error" in message:
            if "id" not in message:
                self._received_nameless(message)
            elif not self._pending.settle(message):
                self._drop_unknown(message)
        elif "QMP" in message:
            self._break(GreetingError(f"a second greeting: {excerpt(message)}"))
        else:
            self._drop_malformed(
                ObjectTypeError("neither a greeting nor a reply nor an event", message)
            )

    def _turned(self, event: Event) -> None:
        """The VM is about to end, or, with ``-no-shutdown``, goes on all the same."""
        self._shutting_down = event.name == "SHUTDOWN"
        if self._shutting_down:
            self.last_shutdown = event

    def _received_nameless(self, message: dict[str, Any]) -> None:
        if self._pending.awaits_nameless:
            self._pending.settle_nameless(message)
            return
        if "error" not in message:
            self._pending.unknown_replies += 1
            self._drop_unknown(message)
            return
        self._pending.settle_nameless(message)
        try:
            reply = ErrorReply.parse(message, strict=self.settings.strict)
        except ObjectTypeError as problem:
            self._drop_malformed(problem)
            return
        self.parse_errors += 1
        error = ServerParseError(reply.error.error_class, reply.error.desc, reply)
        if self.parse_errors == 1:
            self.log.warn("{session}: {problem}", session=self.name, problem=error)
        self._run_error_hooks(error)

    def _drop_unknown(self, message: dict[str, Any]) -> None:
        emit = self.log.warn if self._pending.unknown_replies == 1 else self.log.debug
        emit(
            "{session}: dropped a reply to nobody's command (one of {count}): {reply}",
            session=self.name,
            count=self._pending.unknown_replies,
            reply=excerpt(message),
        )

    def _drop_malformed(self, error: ObjectTypeError) -> None:
        self.malformed += 1
        emit = self.log.warn if self.malformed == 1 else self.log.debug
        emit(
            "{session}: dropped a message (one of {count}): {problem}",
            session=self.name,
            count=self.malformed,
            problem=error,
        )
        self._run_error_hooks(error)

    def add_error_hook(self, hook: Callable[[ProtocolError], Any]) -> None:
        """
        Have a function called with each problem that no command owns and that the session
        survives: a :exc:`~txqmp.errors.ServerParseError` (an error without an id) or an
        :exc:`~txqmp.errors.ObjectTypeError` (a message of the wrong shape).
        """
        self._error_hooks = (*self._error_hooks, hook)

    def _run_error_hooks(self, error: ProtocolError) -> None:
        for hook in self._error_hooks:
            try:
                hook(error)
            except Exception:
                self.log.failure("{session}: an error hook failed", session=self.name)

    def framing_failed(self, error: ProtocolError) -> None:
        if self._handshake is not None:
            self._handshake.unreadable(error)
        else:
            self._break(error)

    def still_waiting(self, command: PendingCommand, seconds: float) -> None:
        """Say that a command takes long; called by the dispatch."""
        self.log.info(
            "{session}: {command} still waiting after {seconds:.0f} s{where}",
            session=self.name,
            command=command.name,
            seconds=seconds,
            where="" if command.sent else ", not sent yet",
        )

    # The end

    def disconnect(self) -> Deferred[None]:
        """
        End the session. What was written is still sent, for a limited time.

        :returns: a Deferred that fires when the connection is closed.
        :raises QMPError: (by the Deferred, once) what broke the session before: a
            :exc:`~txqmp.errors.ProtocolError`, or a :exc:`~txqmp.errors.DisconnectedError` where
            the end was not expected.
        """
        if self.state is RunState.IDLE:
            return self._tell_cause(Deferred())
        closed: Deferred[None] = Deferred(self._forget_closer)
        self._closers = (*self._closers, closed)
        if self.state is not RunState.DISCONNECTING:
            self._leave()
            self._closing = self._clock.callLater(
                self.settings.timeouts.close, self._closing_too_late
            )
            self.output.close()
        return closed

    def abort(self) -> None:
        """End the session at once; what was written and not sent yet is lost."""
        if self.state is RunState.IDLE:
            return
        if self.state is not RunState.DISCONNECTING:
            self._leave()
        self._abort_transport()

    def _leave(self) -> None:
        self._leaving = True
        if self._handshake is not None:
            self._handshake.cancel()
            self._cause = ConnectError(
                "disconnected before the session began",
                ConnectFailure.CANCELLED,
                self._handshake.phase,
            )
            self._cause_told = True
            self.stop_reading()
        self._lifecycle.enter(RunState.DISCONNECTING)

    def _forget_closer(self, closed: Deferred[None]) -> None:
        self._closers = tuple(closer for closer in self._closers if closer is not closed)

    def _closing_too_late(self) -> None:
        self._closing = None
        self._abort_transport()

    def _abort_transport(self) -> None:
        transport = self.transport
        assert transport is not None
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _break(self, cause: QMPError) -> None:
        """The session cannot go on: remember why, and close the connection."""
        if self._cause is not None or self._lifecycle.over:
            return
        self._cause = cause
        self.stop_reading()
        if self._handshake is not None:
            self._handshake.cancel()
        else:
            self._log_broken(cause)
        self._lifecycle.enter(RunState.DISCONNECTING)
        self._abort_transport()

    def _log_broken(self, cause: QMPError) -> None:
        lines = traceback.format_exception(type(cause), cause, cause.__traceback__)
        self.log.error(
            "{session}: the session is broken: {problem}\n{trace}",
            session=self.name,
            problem=cause,
            trace="".join(f"  | {line}\n" for line in "".join(lines).splitlines()),
        )

    def connectionLost(self, reason: Failure = _NO_REASON) -> None:
        handshake, self._handshake = self._handshake, None
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()
        self.output.stop_nudging()
        end = self._end = self._describe_end(reason)
        self.stop_reading()
        told: QMPError = end
        if handshake is not None:
            handshake.cancel()
            told = self._cause = self._cause or handshake.lost(reason)
        elif self._cause is None:
            if not end.expected:
                self._cause = end
            emit = self.log.info if end.expected else self.log.warn
            emit("{session}: {reason}", session=self.name, reason=end.reason)
        self._lifecycle.finish(told.twin)
        # The owner first: whoever is told next may ask it for a session that lives.
        if self._owner is not None:
            self._owner.session_ended(self, told)
        self._pending.end(self._end_command)
        self.events.end(end.twin)
        if self._lifecycle.release() and handshake is not None:
            self._cause_told = True
        closers, self._closers = self._closers, ()
        for closed in closers:
            if not closed.called:
                self._tell_cause(closed)

    def _describe_end(self, reason: Failure) -> DisconnectedError:
        if self._cause is not None:
            text = f"the session was broken: {self._cause}"
        elif self._leaving:
            text = "we disconnected"
        elif reason.check(ConnectionDone, ProcessDone):
            text = "the peer closed the connection"
        else:
            text = f"the connection was lost: {reason.getErrorMessage()}"
        if self._shutting_down and self.last_shutdown is not None:
            text += f", after SHUTDOWN ({self.last_shutdown.data.get('reason', 'no reason given')})"
        if self.unfinished:
            text += f"; {self.unfinished} bytes of an unfinished message are lost"
        foreseen = self._leaving or self._pending.quitting or self._shutting_down
        end = DisconnectedError(
            text, expected=foreseen and self._cause is None, shutdown=self.last_shutdown
        )
        end.__cause__ = self._cause if self._cause is not None else reason.value
        return end

    def _end_command(self, command: PendingCommand) -> None:
        end = self._end
        assert end is not None
        # Where we left first, QEMU may not have read it (fact G49).
        by_peer = not self._leaving and self._cause in (None, end)
        if command.name == "quit" and command.sent and by_peer:
            command.succeed(Message({"return": {}}) if command.whole else {})
            return
        error = DisconnectedError(
            end.reason,
            command=command.name,
            sent=command.sent,
            expected=end.expected,
            shutdown=end.shutdown,
        )
        error.__cause__ = end.__cause__
        command.fail(error)

    def _tell_cause(self, closed: Deferred[None]) -> Deferred[None]:
        """End a ``disconnect()``: with the cause, if there is one that nobody was told."""
        if self._cause is None or self._cause_told:
            closed.callback(None)
        else:
            self._cause_told = True
            closed.errback(self._cause)
        return closed
