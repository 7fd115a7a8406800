"""
What can go wrong with frames::

    FrameError
    ├── FrameUsageError      (ValueError) the caller asked for what cannot be sent; nothing was
    └── FrameProtocolError   what the peer sent breaks the protocol; ``code`` says which rule
        └── FrameLimitError  … or is more than a limit allows; ``limit`` names it
"""

from __future__ import annotations

import enum
from typing import Any


class Code(enum.Enum):
    """Which rule was broken."""

    INCOMPLETE_HEADER = "incomplete-header"
    INCOMPLETE_PAYLOAD = "incomplete-payload"
    AFTER_END_OF_INPUT = "after-end-of-input"
    ALREADY_ERRORED = "already-errored"
    LIMIT = "limit"
    # Streams
    WRONG_STREAM_PARITY = "wrong-stream-parity"
    STREAM_NOT_BEGUN = "stream-not-begun"
    SETTINGS_OUTSIDE_BEGIN = "settings-outside-begin"
    MALFORMED_SETTINGS = "malformed-settings"
    UNKNOWN_ENCODING = "unknown-encoding"
    ENCODING_NOT_ENABLED = "encoding-not-enabled"
    ENCODED_WITHOUT_SETTINGS = "encoded-without-settings"
    CORRUPT_ENCODING = "corrupt-encoding"
    # Flags and types
    MISSING_FLAGS = "missing-flags"
    EXCLUSIVE_FLAGS = "exclusive-flags"
    EXPECTED_COMMAND = "expected-command"
    UNEXPECTED_FRAME_TYPE = "unexpected-frame-type"
    # Requests
    WRONG_REQUEST_PARITY = "wrong-request-parity"
    EMPTY_COMMAND = "empty-command"
    ALREADY_RECEIVING = "already-receiving"
    ALREADY_ACTIVE = "already-active"
    NOT_RECEIVING = "not-receiving"
    STILL_ACTIVE = "still-active"
    INACTIVE_REQUEST = "inactive-request"
    ANSWERED_EARLY = "answered-early"
    ARGUMENTS_NOT_EXPECTED = "arguments-not-expected"
    ARGUMENT_AFTER_END = "argument-after-end-of-arguments"
    DUPLICATE_ARGUMENT = "duplicate-argument"
    MALFORMED_ARGUMENT = "malformed-argument"
    DATA_NOT_EXPECTED = "data-not-expected"
    DATA_BEFORE_END_OF_ARGUMENTS = "data-before-end-of-arguments"
    PARTIAL_REQUEST = "partial-request-at-eof"
    # Responses
    MALFORMED_ERROR = "malformed-error"
    MALFORMED_TEXT = "malformed-text"
    # The link
    MALFORMED_CONTROL = "malformed-control"
    CREDIT_EXCEEDED = "credit-exceeded"
    # What the peer says of us
    REPORTED_BY_PEER = "reported-by-peer"


class FrameError(Exception):
    """Anything that went wrong with frames."""


class FrameUsageError(FrameError, ValueError):
    """What the caller asked for cannot be sent, and nothing of it was."""


class FrameProtocolError(FrameError):
    """
    The peer broke the protocol; the connection cannot be used any more.

    :ivar code: which rule it broke.
    :ivar request_id: the request that it was about, or ``None``.
    """

    def __init__(self, code: Code, text: str, request_id: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        # The text alone, which an exception is made of by default, does not make one of these.
        return _again, (type(self), self.args, self.__dict__)


class FrameLimitError(FrameProtocolError):
    """
    The peer sent more than a limit allows.

    :ivar limit: the limit's name in :class:`~txqmp.frames.limits.Limits`.
    :ivar allowed: the limit.
    """

    def __init__(
        self, limit: str, allowed: float, text: str, request_id: int | None = None
    ) -> None:
        super().__init__(Code.LIMIT, f"{text} ({limit}: {allowed})", request_id)
        self.limit = limit
        self.allowed = allowed


def _again(kind: type[FrameProtocolError], args: tuple[Any, ...], state: Any) -> Any:
    """A copied or unpickled error."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error
