"""
How a session begins: greeting and negotiation.

QEMU does not keep this phase as clean as its specification says: events may come before the
greeting and before the reply to ``qmp_capabilities`` (fact G8), and so may the reply to a command
of the connection's previous client (fact G9).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone, ProcessDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txqmp.dispatch import PendingCommands
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    DisconnectedError,
    ExecuteError,
    ExecuteTimeoutError,
    GreetingError,
    NegotiationError,
    ObjectTypeError,
    ProtocolError,
    QMPError,
)
from txqmp.jsontext import write
from txqmp.messages import Event, Greeting
from txqmp.redaction import excerpt
from txqmp.settings import SessionSettings


class Handshake:
    """
    The beginning of one session. It ends by one call of ``done`` or of ``failed``.

    :param pending: sends ``qmp_capabilities``.
    :param done: called with ``True`` if out-of-band commands are enabled.
    :param failed: called with the error that makes a session impossible.

    :ivar phase: ``"greeting"`` or ``"negotiation"``.
    :ivar greeting: what the server said first, ``None`` before it did.
    :ivar early: events that came already; they are delivered when the session runs.
    :ivar early_dropped: events dropped because too many came.
    :ivar stale_replies: replies to the connection's previous client; dropped.
    """

    def __init__(
        self,
        settings: SessionSettings,
        clock: IReactorTime,
        pending: PendingCommands,
        done: Callable[[bool], None],
        failed: Callable[[QMPError], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pending = pending
        self._done = done
        self._failed = failed
        self._timer: IDelayedCall | None = None
        self.phase = "greeting"
        self.greeting: Greeting | None = None
        self.early: deque[Event] = deque()
        self.early_dropped = 0
        self.stale_replies = 0

    def begin(self) -> None:
        """The connection is made."""
        if not self._settings.await_greeting:
            self._negotiate()
        elif self._settings.timeouts.greeting is not None:
            limit = self._settings.timeouts.greeting
            self._timer = self._clock.callLater(limit, self._too_late, limit)

    def cancel(self) -> None:
        """Stop waiting."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _too_late(self, limit: float) -> None:
        self._timer = None
        self._failed(
            ConnectTimeoutError(
                f"no greeting within {limit:g} s: the peer is stopped,"
                " or another client holds the monitor",
                ConnectFailure.SILENT,
                self.phase,
            )
        )

    def keep(self, event: Event) -> None:
        """Keep an event until the session runs."""
        self.early.append(event)
        if len(self.early) > self._settings.max_early_events:
            self.early.popleft()
            self.early_dropped += 1

    def received(self, message: dict[str, Any]) -> None:
        """A message came that is not an event."""
        if "QMP" in message:
            self._greeted(message)
        elif "return" in message or "error" in message:
            # An id of null, or none, is the previous client's: ours is a string.
            if "id" in message and self._pending.expects(message["id"]):
                self._pending.settle(message)
            else:
                self.stale_replies += 1
        else:
            self._failed(GreetingError(f"neither a greeting nor a reply: {excerpt(message)}"))

    def _greeted(self, message: dict[str, Any]) -> None:
        if self.greeting is not None:
            self._failed(GreetingError(f"a second greeting: {excerpt(message)}"))
            return
        try:
            self.greeting = Greeting.parse(message, strict=self._settings.strict)
        except ObjectTypeError as error:
            problem = GreetingError(str(error))
            problem.__cause__ = error
            self._failed(problem)
            return
        if self._settings.await_greeting:
            self.cancel()
            self._negotiate()

    def _negotiate(self) -> None:
        self.phase = "negotiation"
        if not self._settings.negotiate:
            self._done(False)
            return
        offered = self.greeting.capabilities if self.greeting is not None else ()
        oob = self._settings.oob and "oob" in offered
        ident = self._pending.next_id()
        members: dict[str, Any] = {"execute": "qmp_capabilities", "id": ident}
        if oob:
            members["arguments"] = {"enable": ["oob"]}
        negotiated = self._pending.issue(
            "qmp_capabilities",
            write(members),
            ident,
            timeout=self._settings.timeouts.negotiation,
        )
        negotiated.addCallbacks(lambda _: self._done(oob), self._refused)

    def _refused(self, failure: Failure) -> None:
        error = failure.value
        problem: QMPError
        if isinstance(error, DisconnectedError):
            return
        if isinstance(error, ExecuteError):
            problem = NegotiationError(
                f"the peer refused qmp_capabilities: {error.desc}", error.received
            )
        elif isinstance(error, ExecuteTimeoutError):
            problem = ConnectTimeoutError(
                f"no reply to qmp_capabilities within {error.timeout:g} s",
                ConnectFailure.SILENT,
                self.phase,
            )
        elif isinstance(error, ProtocolError):
            problem = NegotiationError(f"no sound reply to qmp_capabilities: {error}", None)
        else:
            problem = ConnectError(f"cannot negotiate: {error}", phase=self.phase)
        problem.__cause__ = error
        self._failed(problem)

    def unreadable(self, error: ProtocolError) -> None:
        """What came is not a message at all."""
        if self.phase == "greeting":
            problem: QMPError = GreetingError(f"expected a greeting: {error}")
        else:
            problem = NegotiationError(f"expected a reply to qmp_capabilities: {error}", None)
        problem.__cause__ = error
        self._failed(problem)

    def lost(self, reason: Failure) -> ConnectError:
        """The error to report when the connection ends in this phase."""
        if reason.check(ConnectionDone, ProcessDone):
            text = f"the peer closed the connection before the {self.phase} was done"
            error = ConnectError(text, ConnectFailure.CLOSED, self.phase)
        else:
            text = f"the connection was lost before the {self.phase} was done"
            error = ConnectError(
                f"{text}: {reason.getErrorMessage()}", ConnectFailure.RESET, self.phase
            )
        error.__cause__ = reason.value
        return error
