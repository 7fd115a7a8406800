"""How much may be sent, received and held: :class:`Limits`."""

from __future__ import annotations

from typing import Any

import attrs


MAX_PAYLOAD = (1 << 24) - 1
"""The largest payload that a header can announce, in bytes."""

MAX_UNNEGOTIATED = 65_535
"""The largest payload that may be sent to a peer that did not allow more, in bytes."""

DEFAULT_PAYLOAD = 32_768
"""The payload at which senders cut, in bytes."""


def _whole(low: int, high: int = 1 << 53) -> Any:
    return [
        attrs.validators.instance_of(int),
        attrs.validators.ge(low),
        attrs.validators.le(high),
    ]


@attrs.frozen(kw_only=True)
class Limits:
    """
    The limits of one connection, all of them enforced. What is over one of those on receiving is a
    :exc:`~txqmp.frames.errors.FrameLimitError` that names it.

    :ivar send_frame: the largest payload sent, in bytes.
    :ivar receive_frame: the largest payload taken, in bytes, as it is on the wire. It is refused by
        its header. More than 65,535 needs the peer's consent.
    :ivar message: the largest message taken (a command's data, a response), in bytes, decoded.
    :ivar decoded_frame: the largest payload taken, in bytes, decoded.
    :ivar half_received: how many requests may have been received in part at a time. A client sends
        so many in part to a server whose limit it does not know.
    :ivar request_arguments: how many bytes of arguments one of them may have.
    :ivar half_received_bytes: how many bytes all of them may hold. With less than ``message`` and
        ``request_arguments`` together, that is how large a request can be.
    :ivar half_received_seconds: how long each may take to be received.
    :ivar response_bytes: how many bytes a client holds of all responses that are given whole and
        have come in part. With less than ``message``, that is how large such a response can be.
    :ivar active: how many requests may be served, or waited for, at a time.
    :ivar streams: how many streams the peer may have open.
    :ivar encoded_streams: how many of them may have an encoding.
    :ivar message_frames: how many frames one message may have.
    :ivar empty_frames: how many empty frames of one message may follow one another.
    :ivar control: how many answers to messages about the link may wait to be sent.
    :ivar window: over a link, how many bytes of a message are taken before more are granted.
    :ivar connection_window: the same for all messages together.
    """

    send_frame: int = attrs.field(default=DEFAULT_PAYLOAD, validator=_whole(1, MAX_PAYLOAD))
    receive_frame: int = attrs.field(default=MAX_UNNEGOTIATED, validator=_whole(1, MAX_PAYLOAD))
    message: int = attrs.field(default=16 << 20, validator=_whole(0))
    decoded_frame: int = attrs.field(default=1 << 20, validator=_whole(0))
    half_received: int = attrs.field(default=64, validator=_whole(1))
    request_arguments: int = attrs.field(default=1 << 20, validator=_whole(0))
    half_received_bytes: int = attrs.field(default=16 << 20, validator=_whole(0))
    half_received_seconds: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    response_bytes: int = attrs.field(default=64 << 20, validator=_whole(0))
    active: int = attrs.field(default=256, validator=_whole(1))
    streams: int = attrs.field(default=128, validator=_whole(1, 128))
    encoded_streams: int = attrs.field(default=8, validator=_whole(0, 128))
    message_frames: int = attrs.field(default=(16 << 10) + 16, validator=_whole(1))
    empty_frames: int = attrs.field(default=8, validator=_whole(0))
    control: int = attrs.field(default=64, validator=_whole(32, 1024))
    window: int = attrs.field(default=256 << 10, validator=_whole(2))
    connection_window: int = attrs.field(default=1 << 20, validator=_whole(2))


DEFAULT_LIMITS = Limits()
"""What holds where nothing is chosen."""
