"""
Streams: what frames travel on, one direction each; a stream is a context for an encoding.

The client's have odd ids, the server's even ones. :class:`OutputStream` encodes a payload at the
moment its frame is made, and frames must be sent in the order in which they were made: requests
whose frames take turns on one stream can then neither mix nor corrupt each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from txqmp.frames.codec import (
    ENCODED,
    STREAM_BEGIN,
    STREAM_END,
    STREAM_SETTINGS,
    Frame,
    encode_fields,
    encode_frame,
)
from txqmp.frames.encodings import ENCODINGS, IDENTITY, Decoder, Encoder, UndecodableError
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_LIMITS, Limits


class _Identity:
    """The encoding that changes nothing."""

    def decode(self, data: bytes, room: int) -> bytes:
        return data


_identity = _Identity()


class OutputStream:
    """
    A stream to the peer. It begins with its first frame.

    :param stream_id: 0 to 255; odd for a client, even for a server.
    :param encoding: a name in :data:`~txqmp.frames.encodings.ENCODINGS`, or ``"identity"``. The
        peer must have said that it takes it.
    :param limits: its ``send_frame`` is the largest payload.
    :param on_end: called with the stream when its last frame has been made.
    :raises FrameUsageError: there is no such encoding here, or ``send_frame`` is too small for it.

    :ivar max_payload: how much of a message fits into one frame, before it is encoded, in bytes.
    :ivar closing: whether the stream is to end with the last of :attr:`messages`.
    :ivar messages: the sources of what is still said before that.
    """

    __slots__ = (
        "_begun",
        "_encoder",
        "_ended",
        "_limit",
        "_on_end",
        "_simple",
        "closing",
        "encoding",
        "id",
        "max_payload",
        "messages",
    )

    def __init__(
        self,
        stream_id: int,
        encoding: str = IDENTITY,
        limits: Limits = DEFAULT_LIMITS,
        *,
        on_end: Callable[[OutputStream], None] | None = None,
    ) -> None:
        self.id = stream_id
        self.encoding = encoding
        self.closing = False
        self.messages: set[object] = set()
        self._on_end = on_end
        self.max_payload = self._limit = limits.send_frame
        self._begun = self._ended = False
        # Whether the next frame is nothing but a header and its payload.
        self._simple = False
        self._encoder: Encoder | None = None
        if encoding != IDENTITY:
            known = ENCODINGS.get(encoding)
            if known is None:
                raise FrameUsageError(f"no encoding is called {encoding!r} here")
            if self._limit <= known.overhead:
                raise FrameUsageError(
                    f"frames of {self._limit} bytes (send_frame) are too small for {encoding},"
                    f" which needs more than {known.overhead}"
                )
            self._encoder = known.encoder()
            self.max_payload = min(self._limit, 32_768) - known.overhead

    @property
    def begun(self) -> bool:
        """Whether a frame has been made."""
        return self._begun

    @property
    def ended(self) -> bool:
        """Whether no more frames are made."""
        return self._ended

    def end_unbegun(self) -> None:
        """
        Make no frames at all.

        :raises FrameUsageError: there is one already: it takes another to end the stream.
        """
        if self._begun:
            raise FrameUsageError(f"stream {self.id} has begun")
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._simple = False
        self._encoder = None
        if self._on_end is not None:
            self._on_end(self)

    def shrink(self, largest: int) -> None:
        """Make no frames with payloads of more than so many bytes, from now on."""
        if largest < self._limit:
            overhead = 0 if self._encoder is None else ENCODINGS[self.encoding].overhead
            self._limit = largest
            self.max_payload = min(self.max_payload, largest - overhead)

    def frame(
        self,
        request_id: int,
        type: int,
        flags: int,
        payload: bytes,
        *,
        plain: bool = False,
        last: bool = False,
    ) -> bytes:
        """
        Make the stream's next frame, which must be sent before any that is made later.

        :param plain: leave the stream's encoding off: for what must not share a context with what
            a stranger may have influenced.
        :param last: end the stream with it.
        :returns: the frame's bytes; before the first, those of the stream's settings, where it has
            an encoding.
        :raises FrameUsageError: a field is out of its range, the payload too large, or the stream
            has ended.
        """
        if self._simple and not last:
            return encode_frame(request_id, self.id, 0, type, flags, payload, self._limit)
        if self._ended:
            raise FrameUsageError(f"stream {self.id} has ended")
        encoder = self._encoder
        stream_flags = STREAM_END if last else 0
        settings = b""
        if not self._begun:
            if encoder is None:
                stream_flags |= STREAM_BEGIN
            else:
                settings = encode_frame(
                    request_id,
                    self.id,
                    STREAM_BEGIN,
                    STREAM_SETTINGS,
                    0,
                    encode_settings(self.encoding),
                )
        if encoder is None or plain or not payload:
            frame = encode_frame(
                request_id, self.id, stream_flags, type, flags, payload, self._limit
            )
        else:
            if len(payload) > self.max_payload:
                raise FrameUsageError(
                    f"a payload of {len(payload)} bytes, more than {self.max_payload}"
                )
            # The fields first: what is refused must not touch the encoder, whose every byte the
            # peer's decoder has to see.
            fields = encode_fields(request_id, self.id, stream_flags | ENCODED, type, flags)
            encoded = encoder.encode(payload)
            frame = len(encoded).to_bytes(3, "little") + fields + encoded
        self._begun = True
        self._simple = encoder is None
        if last:
            self._end()
        return settings + frame if settings else frame


class InputStreams:
    """
    The streams of the peer.

    :param odd: whether their ids are odd: the peer is a client.
    :param encodings: the names of the encodings that are taken, besides ``"identity"``.
    """

    __slots__ = ("_decoders", "_encodings", "_limits", "_odd")

    def __init__(
        self, odd: bool, limits: Limits = DEFAULT_LIMITS, encodings: Collection[str] = ()
    ) -> None:
        self._odd = odd
        self._limits = limits
        self._encodings = frozenset(encodings)
        self._decoders: dict[int, Decoder | None] = {}
        unknown = self._encodings - {*ENCODINGS, IDENTITY}
        if unknown:
            raise FrameUsageError(f"no encoding is called {min(unknown)!r} here")

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._decoders)

    @property
    def takes_settings(self) -> bool:
        """Whether the peer may choose an encoding."""
        return bool(self._encodings)

    def accept(self, frame: Frame, room: Callable[[Frame], int]) -> bytes:
        """
        Take the peer's next frame.

        :param room: tells how much of a frame's message may still come, in bytes.
        :returns: its payload, decoded.
        :raises FrameProtocolError: the stream may not carry it, or it cannot be decoded.
        """
        stream_id, flags = frame.stream_id, frame.stream_flags
        if stream_id & 1 != self._odd:
            kind = "even" if self._odd else "odd"
            raise FrameProtocolError(
                Code.WRONG_STREAM_PARITY,
                f"received frame with {kind} numbered stream ID: {stream_id}",
                frame.request_id,
            )
        if flags & STREAM_BEGIN:
            self._begin(frame)
        elif stream_id not in self._decoders:
            raise FrameProtocolError(
                Code.STREAM_NOT_BEGUN,
                "received frame on unknown inactive stream without beginning of stream flag set",
                frame.request_id,
            )
        payload = frame.payload
        if flags & ENCODED:
            payload = self._decode(frame, room(frame))
        if flags & STREAM_END:
            del self._decoders[stream_id]
        return payload

    def _begin(self, frame: Frame) -> None:
        # A stream that is open already begins anew: servers at r37304 begin it with each response.
        if frame.stream_id not in self._decoders and len(self._decoders) >= self._limits.streams:
            raise FrameLimitError(
                "streams", self._limits.streams, "one more stream", frame.request_id
            )
        self._decoders[frame.stream_id] = None

    def _decode(self, frame: Frame, room: int) -> bytes:
        decoder = self._decoders[frame.stream_id]
        if decoder is None:
            raise FrameProtocolError(
                Code.ENCODED_WITHOUT_SETTINGS if self._encodings else Code.ENCODING_NOT_ENABLED,
                f"an encoded frame on stream {frame.stream_id}, which has no encoding",
                frame.request_id,
            )
        limit, allowed = "decoded_frame", self._limits.decoded_frame
        if room < allowed:
            limit, allowed, room = "message", self._limits.message, max(0, room)
        else:
            room = allowed
        try:
            payload = decoder.decode(frame.payload, room)
        except UndecodableError as error:
            raise FrameProtocolError(
                Code.CORRUPT_ENCODING,
                f"a payload on stream {frame.stream_id} that cannot be decoded: {error}",
                frame.request_id,
            ) from None
        if len(payload) > room:
            raise FrameLimitError(
                limit,
                allowed,
                f"a payload that decodes to more than {room} bytes",
                frame.request_id,
            )
        return payload

    def set_encoding(self, frame: Frame, payload: bytes) -> str:
        """
        Take the stream settings that :meth:`accept` let pass.

        :param payload: the frame's payload, decoded.
        :returns: the encoding's name.
        :raises FrameProtocolError: they are malformed, or come elsewhere than at the stream's
            beginning; or the encoding is not one that is taken.
        """
        if not frame.stream_flags & STREAM_BEGIN:
            raise FrameProtocolError(
                Code.SETTINGS_OUTSIDE_BEGIN,
                "stream settings outside the beginning of a stream",
                frame.request_id,
            )
        name, extra = decode_settings(payload, frame.request_id)
        if name != IDENTITY and name not in self._encodings:
            known = name in ENCODINGS
            raise FrameProtocolError(
                Code.ENCODING_NOT_ENABLED if known else Code.UNKNOWN_ENCODING,
                f"stream {frame.stream_id} has the encoding {name!r}, which is not taken",
                frame.request_id,
            )
        if extra:
            raise FrameProtocolError(
                Code.MALFORMED_SETTINGS, f"{name} has no parameters", frame.request_id
            )
        encoded = sum(each not in (None, _identity) for each in self._decoders.values())
        if name != IDENTITY and encoded >= self._limits.encoded_streams:
            raise FrameLimitError(
                "encoded_streams",
                self._limits.encoded_streams,
                "one more stream with an encoding",
                frame.request_id,
            )
        if frame.stream_id in self._decoders:  # else the same frame ended it
            self._decoders[frame.stream_id] = (
                _identity if name == IDENTITY else ENCODINGS[name].decoder()
            )
        return name


def encode_settings(encoding: str, extra: bytes = b"") -> bytes:
    """
    The payload of a stream-settings frame.

    :param encoding: the encoding's name: ASCII, 1 to 255 characters.
    :param extra: the encoding's parameters; those that there are have none.
    :raises FrameUsageError: the name is none.
    """
    if not encoding.isascii() or not 0 < len(encoding) < 256:
        raise FrameUsageError(f"an encoding's name has 1 to 255 ASCII characters, not {encoding!r}")
    return bytes([len(encoding)]) + encoding.encode("ascii") + extra


def decode_settings(payload: bytes, request_id: int | None = None) -> tuple[str, bytes]:
    """
    The encoding's name and parameters in the payload of a stream-settings frame.

    :raises FrameProtocolError: it is malformed.
    """
    length = payload[0] if payload else 0
    name = payload[1 : 1 + length]
    if not length or len(name) < length or not name.isascii():
        raise FrameProtocolError(
            Code.MALFORMED_SETTINGS, f"malformed stream settings: {payload[:64]!r}", request_id
        )
    return name.decode("ascii"), payload[1 + length :]
