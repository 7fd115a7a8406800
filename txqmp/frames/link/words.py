"""
What the two ends of a link say to each other.

All of it stays inside the frame types of r37304, so a peer that knows nothing of it is not
disturbed. The client speaks by commands, each of which is one frame: the name of the command is a
line of words. The server answers the first, ``link``, with a response that does not end, and what
it has to say are the lines of that response.

==================================== ===================================
the client's commands                the server's lines
==================================== ===================================
``link 1 TERMS``                     ``link 1 TERMS``
``link-ping TOKEN``, the response to ``ping TOKEN``
which is the token
``link-pong TOKEN``
``link-credit REQUEST:OFFSET …``     ``credit REQUEST:OFFSET …``
``link-cancel REQUEST …``
``link-goaway REASON``               ``goaway LAST-REQUEST REASON``
==================================== ===================================

A credit that grants nothing is there for the stream on which it travels: to end it.

A client has at most :data:`MOST` commands of one word unanswered, and a server at most so many
pings: what they have to say meanwhile waits, and is said together.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from txqmp.frames.credit import Grant
from txqmp.frames.encodings import ENCODINGS, IDENTITY
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import MAX_PAYLOAD, Limits


VERSION = 1
"""The version of the link's words."""

LINK = b"link"
PING = b"link-ping"
PONG = b"link-pong"
CREDIT = b"link-credit"
CANCEL = b"link-cancel"
GOAWAY = b"link-goaway"

COMMANDS = frozenset({LINK, PING, PONG, CREDIT, CANCEL, GOAWAY})
"""The first words of the client's commands about the connection."""

REFUSED = "refused: not run"
"""The message of the error that answers a request which was not run, and can be sent again."""

CANCELLED = "cancelled: may have run"
"""The message of the error that answers a cancelled request which had begun."""

MOST = 4
"""How many commands of one word a client has unanswered at a time."""

TOGETHER = 32
"""How many grants, or requests to cancel, are told at a time."""

MIN_FRAME = 1024
"""What both sides must be able to send and to take for a link, in bytes: all words fit in."""

MAX_LINE = 4096
"""The longest line that is taken, in bytes."""


@attrs.frozen(kw_only=True)
class Terms:
    """
    What one side offers the other: those of its limits that a peer must know so as not to go over
    them without meaning to.

    :ivar window: how many bytes of each message it takes before it grants more.
    :ivar connection_window: the same for all messages together.
    :ivar max_frame: the largest payload that it takes, in bytes.
    :ivar message: the most data that a request may have, in bytes.
    :ivar request_arguments: the same for its arguments together.
    :ivar active: how many requests may be active at a time.
    :ivar half_received: how many may have been sent in part at a time.
    :ivar half_received_bytes: how large they may be together, in bytes.
    :ivar streams: how many streams may be open.
    :ivar encoded_streams: how many of them may have an encoding.
    :ivar encodings: the encodings that it takes, best first.
    """

    window: int = attrs.field(validator=attrs.validators.ge(1))
    connection_window: int = attrs.field(validator=attrs.validators.ge(1))
    max_frame: int = attrs.field(
        validator=[attrs.validators.ge(MIN_FRAME), attrs.validators.le(MAX_PAYLOAD)]
    )
    message: int = attrs.field(validator=attrs.validators.ge(0))
    request_arguments: int = attrs.field(validator=attrs.validators.ge(0))
    active: int = attrs.field(validator=attrs.validators.ge(1))
    half_received: int = attrs.field(validator=attrs.validators.ge(1))
    half_received_bytes: int = attrs.field(validator=attrs.validators.ge(0))
    streams: int = attrs.field(validator=attrs.validators.ge(1))
    encoded_streams: int = attrs.field(validator=attrs.validators.ge(0))
    encodings: tuple[str, ...] = ()

    @classmethod
    def of(cls, limits: Limits, encodings: Iterable[str]) -> Terms:
        """
        What a side with these limits offers.

        :raises FrameUsageError: its frames are too small for a link.
        """
        if min(limits.send_frame, limits.receive_frame) < MIN_FRAME:
            raise FrameUsageError(f"a link needs frames of {MIN_FRAME} bytes")
        numbers = {name: getattr(limits, name) for name in _NUMBERS if name != "max_frame"}
        return cls(
            **numbers,
            max_frame=limits.receive_frame,
            encodings=tuple(name for name in encodings if name != IDENTITY),
        )

    def encode(self) -> bytes:
        """The terms as text."""
        words = [f"{word}={getattr(self, name)}" for name, word in _NUMBERS.items()]
        words.append(f"encodings={','.join(self.encodings)}")
        return " ".join(words).encode("ascii")

    @classmethod
    def decode(cls, text: bytes) -> Terms:
        """
        The terms in a text. Words that are not known are passed over: a newer peer may have more.

        :raises FrameProtocolError: they make no sense.
        """
        try:
            words = {name: value for name, _, value in (w.partition(b"=") for w in text.split())}
            numbers = {name: decode_number(words[word.encode()]) for name, word in _NUMBERS.items()}
            encodings = words[b"encodings"].decode("ascii").split(",")
            return cls(**numbers, encodings=tuple(filter(None, encodings)))
        except (KeyError, ValueError):
            raise malformed(text) from None

    def best(self, ours: Iterable[str]) -> str | None:
        """The first of our encodings that the other side takes too, or ``None``."""
        return next((name for name in ours if name in self.encodings and name in ENCODINGS), None)


_NUMBERS = {
    field.name: field.name.replace("_", "-")
    for field in attrs.fields(Terms)
    if field.name != "encodings"
}


def encode_grants(grants: Iterable[Grant]) -> bytes:
    """Grants as text."""
    return b" ".join(b"%d:%d" % grant for grant in grants)


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


def is_token(token: bytes) -> bool:
    """Whether these are 1 to 64 printable ASCII characters without a space."""
    return 0 < len(token) <= 64 and all(0x20 < byte < 0x7F for byte in token)


def check_token(token: bytes) -> bytes:
    """
    The word that a ping carries.

    :raises FrameUsageError: it is none.
    """
    if not is_token(token):
        raise FrameUsageError(f"a ping carries 1 to 64 printable characters, not {token!r:.80}")
    return token


def decode_token(token: bytes) -> bytes:
    """
    The word that a ping carries.

    :raises FrameProtocolError: it is none.
    """
    if not is_token(token):
        raise malformed(token)
    return token


def one_line(reason: str) -> bytes:
    """A reason as part of a line."""
    text = " ".join(reason.split()).encode("utf-8", "replace")[:512]
    return text.decode("utf-8", "ignore").encode("utf-8")  # without half of a character


def malformed(text: bytes) -> FrameProtocolError:
    """The error for a message about the connection that makes no sense."""
    return FrameProtocolError(Code.MALFORMED_CONTROL, f"a malformed control message: {text[:64]!r}")
