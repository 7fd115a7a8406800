"""
What a reactor answers with: what its owner is to do, or may want to know.

The ``repr()`` of an action has the sizes of data and of arguments, but not what is in them: that
may be large, and secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

import attrs

from txqmp.frames.errors import FrameProtocolError
from txqmp.frames.link.words import Terms
from txqmp.frames.sources import FrameSource
from txqmp.frames.text import TextAtom


def _size(data: bytes | None) -> str:
    """What is shown of data, which may be large, and secret."""
    return "None" if data is None else f"<{len(data)} bytes>"


def _sizes(arguments: Mapping[bytes, bytes]) -> str:
    shown = (f"{name!r:.60}: {_size(value)}" for name, value in islice(arguments.items(), 16))
    more = f", and {len(arguments) - 16} more" if len(arguments) > 16 else ""
    return f"{{{', '.join(shown)}{more}}}"


def _beginning(text: str | bytes) -> str:
    return f"{text!r:.200}"


@attrs.define
class Nothing:
    """There is nothing to do."""


@attrs.define
class WantFrame:
    """
    More frames are needed.

    :ivar state: what the server is doing: ``"command-receiving"`` or ``"idle"``.
    """

    state: str


@attrs.define
class SendFrames:
    """
    Send frames. Over a transport that carries both directions at once, hand the sources to a
    :class:`~txqmp.frames.sources.Scheduler`; else iterate: all frames, one source after another.

    :ivar sources: where the frames come from.
    :ivar urgent: whether they should go before those of others.
    """

    sources: tuple[FrameSource, ...]
    urgent: bool = False

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.sources)


@attrs.define
class Failed:
    """
    The peer broke the protocol: send ``farewell``, and close the connection.

    :ivar error: what it did.
    :ivar farewell: a frame that tells it; empty where there is none to send.
    """

    error: FrameProtocolError
    farewell: bytes = attrs.field(default=b"", repr=_size)


@attrs.define
class RunCommand:
    """
    A request came whole: run it, and answer it.

    :ivar request_id: by which it is answered.
    :ivar name: the command's name.
    :ivar arguments: values by name.
    :ivar data: the data; ``None`` where none was announced.
    """

    request_id: int
    name: bytes = attrs.field(repr=_beginning)
    arguments: Mapping[bytes, bytes] = attrs.field(repr=_sizes)
    data: bytes | None = attrs.field(repr=_size)


@attrs.define
class CancelCommand:
    """
    The client does not want the answer to a request any more.

    If it has none yet, answer it all the same, best with ``respond_cancelled()``: until then it
    counts as active. It may have been answered since the reactor gave this.

    :ivar answered: whether it was answered already: the answer, or a response in pieces, is cut
        short, and nothing is left to do but to stop writing.
    """

    request_id: int
    answered: bool = False


@attrs.define
class ResponseData:
    """
    A piece of a response came.

    :ivar data: the piece; it can be empty.
    :ivar last: whether it is the last.
    """

    request_id: int
    data: bytes = attrs.field(repr=_size)
    last: bool


@attrs.define
class Response:
    """A response came whole."""

    request_id: int
    data: bytes = attrs.field(repr=_size)


@attrs.define
class RequestFailed:
    """
    A request was answered with an error.

    :ivar message: what the server says.
    :ivar may_have_run: whether the command may have run, in part or whole.
    """

    request_id: int
    message: str = attrs.field(repr=_beginning)
    may_have_run: bool = True


@attrs.define
class RequestCancelled:
    """
    A request that was cancelled is over; its id is free.

    :ivar may_have_run: whether the command may have run, in part or whole.
    """

    request_id: int
    may_have_run: bool = True


@attrs.define
class RequestLost:
    """
    The input ended before a request was answered.

    :ivar may_have_run: whether the command may have run, in part or whole.
    """

    request_id: int
    may_have_run: bool = True


@attrs.define
class TextOutput:
    """The server has something for people to read."""

    request_id: int
    atoms: tuple[TextAtom, ...]


@attrs.define
class StreamEncoded:
    """The peer has chosen the encoding of a stream."""

    stream_id: int
    encoding: str


@attrs.define
class LinkOpened:
    """
    The peer speaks the link.

    :ivar terms: what it offers.
    """

    terms: Terms


@attrs.define
class Pong:
    """The peer has answered a ping; ``token`` tells which."""

    token: bytes


@attrs.define
class GoingAway:
    """
    The peer takes no new requests, and will close the connection when the old ones are answered.

    :ivar last_request: the last request that it took; 0 where it is a client that goes.
    :ivar reason: why, for people.
    """

    last_request: int
    reason: str


Action = (
    Nothing
    | WantFrame
    | SendFrames
    | Failed
    | RunCommand
    | CancelCommand
    | ResponseData
    | Response
    | RequestFailed
    | RequestCancelled
    | RequestLost
    | TextOutput
    | StreamEncoded
    | LinkOpened
    | Pong
    | GoingAway
)
"""Anything that a reactor answers with."""
