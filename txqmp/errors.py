"""
Every exception that txqmp raises, in one tree::

    QMPError
    ├── ConnectError              no session came to be; .kind says why
    │   └── ConnectTimeoutError   (TimeoutError) … because a deadline passed
    ├── StateError                the call does not fit the state of the session
    ├── InvalidCommandError       (ValueError) the caller's command cannot be sent
    ├── DescriptorError           a file descriptor cannot travel with the command
    ├── TooManyCommandsError      too many commands wait for their turn
    ├── CommandError              a handler of our server answers with an error (txqmp.server)
    ├── ExecuteError              the peer answered the command with an error
    ├── ExecuteTimeoutError       (TimeoutError) the command's time limit passed
    ├── DisconnectedError         the session ended before the answer came
    ├── ListenerError             a listener cannot give an event
    │   ├── ListenerOverflowError   its queue was full and its policy is to fail
    │   └── EventTimeoutError       (TimeoutError) no such event in time
    └── ProtocolError             the peer broke the protocol
        ├── DeserializationError    a text that is not JSON
        ├── UnexpectedTypeError     JSON, but not an object
        ├── ObjectTypeError         an object, but not of a message's shape
        ├── ServerParseError        the peer could not read what it was sent
        ├── MessageTooLongError     a message above the limit
        ├── GreetingError           the peer did not greet as QMP does
        └── NegotiationError        the peer refused ``qmp_capabilities``

The first group is the caller's or the environment's, :class:`ProtocolError` is the peer's;
no class serves both. An exception object belongs to one failed call and is never shared.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from txqmp.redaction import excerpt


_Error = TypeVar("_Error", bound="QMPError")


class QMPError(Exception):
    """The base of all exceptions of this package."""

    def twin(self: _Error) -> _Error:
        """A like error, for another caller."""
        twin = type(self).__new__(type(self))
        twin.args = self.args
        twin.__dict__.update(self.__dict__)
        twin.__cause__ = self.__cause__
        return twin


class ConnectFailure(enum.Enum):
    """Why no session came to be (:attr:`ConnectError.kind`)."""

    ABSENT = "absent"
    """No such socket file: QEMU has not made it yet, or it never will."""
    REFUSED = "refused"
    """Nobody listens: not yet, or the file is a dead QEMU's."""
    BUSY = "busy"
    """The monitor's queue of callers is full: another client holds it."""
    DENIED = "denied"
    """The file's permissions do not allow it."""
    PATH_TOO_LONG = "path too long"
    """The kernel takes no socket path of this length."""
    SILENT = "silent"
    """Connected, but the peer did not speak in time: stopped, or held by another client."""
    CLOSED = "closed"
    """The peer closed the connection before the session began."""
    RESET = "reset"
    """The peer reset the connection before the session began."""
    CANCELLED = "cancelled"
    """The caller gave up, by cancelling or by disconnecting."""
    OTHER = "other"
    """Anything else; the cause tells more."""


class ConnectError(QMPError):
    """
    No session came to be.

    :ivar kind: why, as one of :class:`ConnectFailure`.
    :ivar phase: how far it had come: ``"connect"``, ``"greeting"`` or ``"negotiation"``.
    """

    def __init__(
        self, message: str, kind: ConnectFailure = ConnectFailure.OTHER, phase: str = "connect"
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.phase = phase


class ConnectTimeoutError(ConnectError, TimeoutError):
    """A deadline passed before the session began; :attr:`~ConnectError.phase` says which."""


class StateError(QMPError):
    """
    The call does not fit the state of the session.

    :ivar state: the state that the session was in, a :class:`~txqmp.protocol.RunState`,
        or ``None`` where the object has no such state.
    """

    def __init__(self, message: str, state: Any = None) -> None:
        super().__init__(message)
        self.state = state


class _CommandError(QMPError):
    """What the failures of one command share: its name."""

    def __init__(self, message: str, command: str | None) -> None:
        super().__init__(message)
        self.command = command


class InvalidCommandError(_CommandError, ValueError):
    """
    The command cannot be sent: it is not JSON (NaN, a lone surrogate, a foreign type), or larger
    or deeper than QEMU reads (fact G18), or its id is in use, or a tap held it back.
    Nothing was written.

    :ivar command: the command's name.
    """


class DescriptorError(_CommandError):
    """
    A file descriptor cannot travel with the command. Nothing was written.

    :ivar command: the command's name.
    """


class TooManyCommandsError(_CommandError):
    """
    As many commands wait for their turn as may wait. Nothing was written.

    :ivar command: the command's name.
    """


class ExecuteError(_CommandError):
    """
    The peer answered the command with an error.

    :ivar command: the command's name.
    :ivar error_class: QMP's class of the error, nearly always ``GenericError`` (fact G28).
    :ivar desc: the text for people; programs should not parse it (QMP spec, *Response*).
    :ivar sent: the :class:`~txqmp.messages.Message` that was sent.
    :ivar received: the :class:`~txqmp.messages.ErrorReply` that came.
    """

    def __init__(
        self, command: str | None, error_class: str, desc: str, sent: Any, received: Any
    ) -> None:
        super().__init__(f"{command}: {desc} ({error_class})", command)
        self.error_class = error_class
        self.desc = desc
        self.sent = sent
        self.received = received


class ExecuteTimeoutError(_CommandError, TimeoutError):
    """
    The command's time limit passed. If it was sent it may still run: its late reply is swallowed.

    :ivar command: the command's name.
    :ivar timeout: the limit, in seconds.
    :ivar sent: whether its bytes were written; if not, it never runs.
    """

    def __init__(self, command: str | None, timeout: float, sent: bool) -> None:
        fate = "it may still run" if sent else "it was not sent"
        super().__init__(f"{command}: no reply within {timeout:g} s; {fate}", command)
        self.timeout = timeout
        self.sent = sent

    @property
    def may_have_run(self) -> bool:
        """Whether the command may have run, or may still: its bytes were written."""
        return self.sent


class DisconnectedError(_CommandError):
    """
    The session ended before the answer (or the event) came.

    :ivar command: the name of the command that was pending, ``None`` for a waiter.
    :ivar sent: whether the command's bytes were written. If so nobody can tell whether it ran.
    :ivar expected: whether the end was foreseen: ``disconnect()``, ``quit``, or a SHUTDOWN event.
    :ivar shutdown: the last SHUTDOWN :class:`~txqmp.messages.Event` of the session, or ``None``.
    :ivar reason: how the connection ended, in words.
    """

    def __init__(
        self,
        reason: str,
        *,
        command: str | None = None,
        sent: bool = False,
        expected: bool = False,
        shutdown: Any = None,
    ) -> None:
        text = reason
        if command is not None:
            text += f"; {command} " + ("was sent and may have run" if sent else "was not sent")
        super().__init__(text, command)
        self.reason = reason
        self.sent = sent
        self.expected = expected
        self.shutdown = shutdown

    @property
    def may_have_run(self) -> bool:
        """Whether the command may have run: its bytes were written, its reply did not come."""
        return self.sent


class ListenerError(QMPError):
    """A listener cannot give an event."""


class ListenerOverflowError(ListenerError):
    """The listener's queue was full, and its policy is to fail rather than to drop."""


class EventTimeoutError(ListenerError, TimeoutError):
    """
    No matching event came in time.

    :ivar names: the names that were waited for.
    :ivar timeout: the limit, in seconds.
    """

    def __init__(self, names: tuple[str, ...], timeout: float) -> None:
        wanted = " or ".join(names) or "event"
        super().__init__(f"no {wanted} within {timeout:g} s")
        self.names = names
        self.timeout = timeout


class ProtocolError(QMPError):
    """The peer broke the protocol."""


class DeserializationError(ProtocolError):
    """
    A text that is not JSON in UTF-8.

    :ivar raw: the text, as bytes.
    """

    def __init__(self, message: str, raw: bytes) -> None:
        super().__init__(f"{message}: {excerpt(raw)}")
        self.raw = raw


class UnexpectedTypeError(ProtocolError):
    """
    JSON, but not an object.

    :ivar value: what it was instead.
    """

    def __init__(self, value: Any) -> None:
        super().__init__(f"expected a JSON object, not {type(value).__name__}: {excerpt(value)}")
        self.value = value


class ObjectTypeError(ProtocolError):
    """
    An object, but not of a message's shape.

    :ivar raw: the object.
    """

    def __init__(self, message: str, raw: Mapping[str, Any]) -> None:
        super().__init__(f"{message}: {excerpt(raw)}")
        self.raw = raw


class ServerParseError(ProtocolError):
    """
    The peer could not read what it was sent: an error without an id (fact G18).

    :ivar error_class: QMP's class of the error.
    :ivar desc: the text for people.
    :ivar received: the :class:`~txqmp.messages.ErrorReply`.
    """

    def __init__(self, error_class: str, desc: str, received: Any) -> None:
        super().__init__(f"the server could not read its input: {desc} ({error_class})")
        self.error_class = error_class
        self.desc = desc
        self.received = received


class MessageTooLongError(ProtocolError):
    """
    A message above the limit.

    :ivar limit: the limit, in bytes.
    :ivar raw: the beginning of the message.
    """

    def __init__(self, limit: int, raw: bytes) -> None:
        super().__init__(f"a message of more than {limit} bytes: {excerpt(raw)}")
        self.limit = limit
        self.raw = raw


class GreetingError(ProtocolError):
    """The peer did not greet as QMP does, or greeted twice."""


class NegotiationError(ProtocolError):
    """
    The peer refused ``qmp_capabilities``.

    :ivar received: the :class:`~txqmp.messages.ErrorReply`.
    """

    def __init__(self, message: str, received: Any) -> None:
        super().__init__(message)
        self.received = received
