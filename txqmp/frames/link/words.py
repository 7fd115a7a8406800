"""
What the two ends of a link say to each other.

All of it stays inside the frame types of r37304, so a peer that knows nothing of it is not
disturbed. The client speaks by commands whose names begin with ``link``. The server answers the
first, ``link``, with a response that does not end, and what it has to say are the lines of that
response::

    link 1 window=262144 connection-window=1048576 max-frame=65535 encodings=zstd,zlib
    ping TOKEN
    credit REQUEST:OFFSET …
    goaway LAST-REQUEST REASON
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from txqmp.frames.credit import Grant
from txqmp.frames.encodings import ENCODINGS
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import MAX_PAYLOAD, MAX_UNNEGOTIATED


VERSION = 1
"""The version of the link's words."""

LINK = b"link"
PING = b"link-ping"
PONG = b"link-pong"
CREDIT = b"link-credit"
CANCEL = b"link-cancel"
GOAWAY = b"link-goaway"

COMMANDS = frozenset({LINK, PING, PONG, CREDIT, CANCEL, GOAWAY})
"""The names of the client's commands about the connection."""

REFUSED = "refused: not run"
"""The message of the error that answers a request which was not run, and can be sent again."""

CANCELLED = "cancelled: may have run"
"""The message of the error that answers a cancelled request which had begun."""

MAX_LINE = 4096
"""The longest line, in bytes."""


@attrs.frozen(kw_only=True)
class Terms:
    """
    What one side offers the other.

    :ivar window: how many bytes of each message it takes before it grants more.
    :ivar connection_window: the same for all messages together.
    :ivar max_frame: the largest payload that it takes, in bytes.
    :ivar encodings: the encodings that it takes, best first.
    """

    window: int = attrs.field(default=256 << 10, validator=attrs.validators.ge(1))
    connection_window: int = attrs.field(default=1 << 20, validator=attrs.validators.ge(1))
    max_frame: int = attrs.field(
        default=MAX_UNNEGOTIATED,
        validator=[attrs.validators.ge(1), attrs.validators.le(MAX_PAYLOAD)],
    )
    encodings: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The terms as text."""
        words = [
            f"window={self.window}",
            f"connection-window={self.connection_window}",
            f"max-frame={self.max_frame}",
            f"encodings={','.join(self.encodings)}",
        ]
        return " ".join(words).encode("ascii")

    @classmethod
    def decode(cls, text: bytes) -> Terms:
        """
        The terms in a text. Words that are not known are passed over: a newer peer may have more.

        :raises FrameProtocolError: they make no sense.
        """
        try:
            words = dict(word.split("=", 1) for word in text.decode("ascii").split())
            return cls(
                window=int(words["window"]),
                connection_window=int(words["connection-window"]),
                max_frame=int(words["max-frame"]),
                encodings=tuple(filter(None, words["encodings"].split(","))),
            )
        except (KeyError, ValueError):
            raise malformed(text) from None

    def best(self, ours: Iterable[str]) -> str | None:
        """The first of our encodings that the other side takes too, or ``None``."""
        return next((name for name in ours if name in self.encodings and name in ENCODINGS), None)


def encode_grants(grants: Iterable[Grant]) -> bytes:
    """Grants as text."""
    return " ".join(f"{request_id}:{offset}" for request_id, offset in grants).encode("ascii")


def decode_grants(text: bytes) -> list[Grant]:
    """
    The grants in a text.

    :raises FrameProtocolError: they make no sense.
    """
    grants = []
    for word in text.split():
        request_id, _, offset = word.partition(b":")
        grants.append((decode_number(request_id), decode_number(offset)))
    return grants


def decode_number(text: bytes) -> int:
    """
    A number in a text, of at most 18 digits.

    :raises FrameProtocolError: it is none.
    """
    if not text.isdigit() or len(text) > 18:
        raise malformed(text)
    return int(text)


def check_token(token: bytes) -> bytes:
    """
    The word that a ping carries.

    :raises FrameUsageError: it is not 1 to 64 printable ASCII characters without a space.
    """
    if not 0 < len(token) <= 64 or any(not 0x20 < byte < 0x7F for byte in token):
        raise FrameUsageError(f"a ping carries 1 to 64 printable characters, not {token!r}")
    return token


def one_line(reason: str) -> bytes:
    """A reason as part of a line."""
    return " ".join(reason.split()).encode("utf-8", "replace")[:1024]


def argument(arguments: Mapping[bytes, bytes], name: bytes) -> bytes:
    """
    An argument of one of the link's commands.

    :raises FrameProtocolError: it is missing.
    """
    if name not in arguments:
        raise malformed(b" ".join(arguments))
    return arguments[name]


def malformed(text: bytes) -> FrameProtocolError:
    """The error for a message about the connection that makes no sense."""
    return FrameProtocolError(Code.MALFORMED_CONTROL, f"a malformed control message: {text[:64]!r}")
