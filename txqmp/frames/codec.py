"""
Frames as bytes: the 8-byte header of revision r37304, out and in.

====== ==== ============================================
offset size field (little endian)
====== ==== ============================================
0      3    length of the payload
3      2    request id
5      1    stream id
6      1    stream flags
7      1    type in the high four bits, flags in the low
====== ==== ============================================
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import MAX_PAYLOAD, MAX_UNNEGOTIATED


HEADER_SIZE: Final = 8
"""The size of a frame's header, in bytes."""

COMMAND_NAME: Final = 1
COMMAND_ARGUMENT: Final = 2
COMMAND_DATA: Final = 3
BYTES_RESPONSE: Final = 4
ERROR_RESPONSE: Final = 5
TEXT_OUTPUT: Final = 6
STREAM_SETTINGS: Final = 8

STREAM_BEGIN: Final = 0x01
STREAM_END: Final = 0x02
ENCODED: Final = 0x04

#: Flags of ``COMMAND_NAME``.
NAME_EOS: Final = 0x01
HAVE_ARGS: Final = 0x02
HAVE_DATA: Final = 0x04

#: Flags of ``COMMAND_ARGUMENT``.
ARGUMENT_CONTINUATION: Final = 0x01
END_OF_ARGUMENTS: Final = 0x02

#: Flags of ``COMMAND_DATA`` and ``BYTES_RESPONSE``.
CONTINUATION: Final = 0x01
EOS: Final = 0x02

#: Flags of ``ERROR_RESPONSE``.
PROTOCOL_ERROR: Final = 0x01
APPLICATION_ERROR: Final = 0x02

TYPE_NAMES: Final = {
    COMMAND_NAME: "command-name",
    COMMAND_ARGUMENT: "command-argument",
    COMMAND_DATA: "command-data",
    BYTES_RESPONSE: "bytes-response",
    ERROR_RESPONSE: "error-response",
    TEXT_OUTPUT: "text-output",
    STREAM_SETTINGS: "stream-settings",
}
"""The names of the frame types."""

STREAM_FLAG_NAMES: Final = {
    STREAM_BEGIN: "stream-begin",
    STREAM_END: "stream-end",
    ENCODED: "encoded",
}
"""The names of the stream flags."""

FLAG_NAMES: Final[dict[int, dict[int, str]]] = {
    COMMAND_NAME: {NAME_EOS: "eos", HAVE_ARGS: "have-args", HAVE_DATA: "have-data"},
    COMMAND_ARGUMENT: {ARGUMENT_CONTINUATION: "continuation", END_OF_ARGUMENTS: "eoa"},
    COMMAND_DATA: {CONTINUATION: "continuation", EOS: "eos"},
    BYTES_RESPONSE: {CONTINUATION: "continuation", EOS: "eos"},
    ERROR_RESPONSE: {PROTOCOL_ERROR: "protocol", APPLICATION_ERROR: "application"},
    TEXT_OUTPUT: {},
    STREAM_SETTINGS: {},
}
"""The names of the flags of each frame type."""

_header = struct.Struct("<HBHBBB")
_pack, _unpack_from = _header.pack, _header.unpack_from
_pack_fields = struct.Struct("<HBBB").pack


class Frame(NamedTuple):
    """
    One frame.

    :ivar request_id: 0 to 65535; odd where the client opened the request.
    :ivar stream_id: 0 to 255; odd where the client sends.
    :ivar stream_flags: ``STREAM_BEGIN``, ``STREAM_END``, ``ENCODED``.
    :ivar type: 0 to 15, such as ``COMMAND_NAME``.
    :ivar flags: 0 to 15; their meaning depends on the type.
    :ivar payload: as it is on the wire.
    """

    request_id: int
    stream_id: int
    stream_flags: int
    type: int
    flags: int
    payload: bytes

    def __repr__(self) -> str:
        # A payload may be large, and secret.
        fields = ", ".join(
            f"{name}={value!r}" for name, value in zip(self._fields, self[:5], strict=False)
        )
        return f"Frame({fields}, payload=<{len(self.payload)} bytes>)"

    def encode(self, max_payload: int = MAX_PAYLOAD) -> bytes:
        """:func:`encode_frame` of this frame."""
        return encode_frame(*self, max_payload)


# A Frame from a tuple of its fields, without the checks of a call.
_new_frame = tuple.__new__


def encode_frame(
    request_id: int,
    stream_id: int,
    stream_flags: int,
    type: int,
    flags: int,
    payload: bytes,
    max_payload: int = MAX_PAYLOAD,
) -> bytes:
    """
    The bytes of a frame; the parameters are those of :class:`Frame`.

    :param max_payload: the largest payload, in bytes.
    :raises FrameUsageError: a field is out of its range, or the payload too large.
    """
    length = len(payload)
    if length > max_payload:
        raise FrameUsageError(f"a payload of {length} bytes, more than {max_payload}")
    if type > 15 or flags > 15:
        raise _out_of_range(request_id, stream_id, stream_flags, type, flags)
    try:
        return (
            _pack(
                length & 0xFFFF,
                length >> 16,
                request_id,
                stream_id,
                stream_flags,
                type << 4 | flags,
            )
            + payload
        )
    except struct.error:
        if length > MAX_PAYLOAD:
            raise FrameUsageError(f"a payload of {length} bytes, more than {MAX_PAYLOAD}") from None
        raise _out_of_range(request_id, stream_id, stream_flags, type, flags) from None


def encode_fields(
    request_id: int, stream_id: int, stream_flags: int, type: int, flags: int
) -> bytes:
    """
    What follows the length in a header, for a payload that is not known yet.

    :raises FrameUsageError: a field is out of its range.
    """
    if type > 15 or flags > 15:
        raise _out_of_range(request_id, stream_id, stream_flags, type, flags)
    try:
        return _pack_fields(request_id, stream_id, stream_flags, type << 4 | flags)
    except struct.error:
        raise _out_of_range(request_id, stream_id, stream_flags, type, flags) from None


def _out_of_range(
    request_id: int, stream_id: int, stream_flags: int, type: int, flags: int
) -> FrameUsageError:
    return FrameUsageError(
        f"a field is out of range: request id {request_id} (to 65535), stream id {stream_id},"
        f" stream flags {stream_flags} (to 255), type {type}, flags {flags} (to 15)"
    )


def check_frame(frame: Frame) -> None:
    """
    See that there are bytes that would be a frame, if not of which length.

    :raises FrameUsageError: it is none; a field is out of its range; or the payload is not bytes.
    """
    if not isinstance(frame, Frame) or not isinstance(frame.payload, bytes):
        raise FrameUsageError("a frame is a Frame, and its payload is bytes")
    fields = frame[:5]
    for field, largest in zip(fields, _LARGEST, strict=True):
        if not isinstance(field, int) or not 0 <= field <= largest:
            raise _out_of_range(*fields)


_LARGEST = (0xFFFF, 0xFF, 0xFF, 15, 15)


def too_large(length: int, largest: int, request_id: int) -> FrameLimitError:
    """The error for a frame whose payload is longer than is taken."""
    return FrameLimitError("receive_frame", largest, f"a frame of {length} bytes", request_id)


class FrameDecoder:
    """
    Frames out of bytes that come in any pieces, in linear time.

    :param max_payload: the largest payload taken, in bytes. A larger one is refused as soon as its
        header is there.

    :ivar error: what is wrong with what came, ``None`` as long as nothing is. Nothing after it is
        read.
    """

    __slots__ = ("_held", "_wanted", "error", "max_payload")

    def __init__(self, max_payload: int = MAX_UNNEGOTIATED) -> None:
        self.max_payload = max_payload
        self.error: FrameProtocolError | None = None
        # A frame's beginning; a bytearray from its second piece on, which grows in linear time and
        # takes little more than the bytes themselves, however small the pieces are.
        self._held: bytes | bytearray = b""
        self._wanted = HEADER_SIZE

    @property
    def held(self) -> int:
        """How many bytes of a frame that is not whole are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take bytes.

        :returns: the frames that are whole now, those before an error included; see :attr:`error`.
        """
        if self.error is not None:
            return []
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # its owner may fill a buffer anew
        held = self._held
        if held:
            if len(held) + len(data) < self._wanted:
                if isinstance(held, bytes):
                    self._held = held = bytearray(held)
                held += data
                return []
            data = b"".join((held, data))
            self._held = held = b""
        size, start, begin, largest = len(data), 0, HEADER_SIZE, self.max_payload
        if HEADER_SIZE <= size <= HEADER_SIZE + largest:
            low, high, request, stream, stream_flags, kind = _unpack_from(data)
            if (high << 16 | low) + HEADER_SIZE == size:
                # A chunk that is one frame: that is how small messages come.
                fields = (request, stream, stream_flags, kind >> 4, kind & 15, data[HEADER_SIZE:])
                return [_new_frame(Frame, fields)]
        frames: list[Frame] = []
        add, new, unpack = frames.append, _new_frame, _unpack_from
        wanted = HEADER_SIZE
        while begin <= size:
            low, high, request, stream, stream_flags, kind = unpack(data, start)
            length = high << 16 | low
            if length > largest:
                self.error = too_large(length, largest, request)
                return frames
            end = begin + length
            if end > size:
                wanted = HEADER_SIZE + length
                break
            fields = (request, stream, stream_flags, kind >> 4, kind & 15, data[begin:end])
            add(new(Frame, fields))
            start = end
            begin = end + HEADER_SIZE
        self._wanted = wanted
        self._held = data[start:]
        return frames

    def finish(self) -> FrameProtocolError | None:
        """
        No more bytes come.

        :returns: :attr:`error`, which is set now if a frame was cut short.
        """
        held, wanted = len(self._held), self._wanted
        if self.error is None and held:
            if held < HEADER_SIZE:
                self.error = FrameProtocolError(
                    Code.INCOMPLETE_HEADER, f"the input ended after {held} bytes of a header"
                )
            else:
                self.error = FrameProtocolError(
                    Code.INCOMPLETE_PAYLOAD,
                    f"the input ended after {held - HEADER_SIZE} bytes of a payload of"
                    f" {wanted - HEADER_SIZE}",
                )
            self._held = b""
        return self.error


def decode_header(header: bytes, max_payload: int = MAX_UNNEGOTIATED) -> tuple[int, Frame]:
    """
    The fields of a header.

    :param header: eight bytes.
    :returns: the length of the payload, and the frame without it.
    :raises FrameLimitError: the payload is larger than ``max_payload``.
    :raises FrameProtocolError: it is not eight bytes.
    """
    if len(header) != HEADER_SIZE:
        raise FrameProtocolError(Code.INCOMPLETE_HEADER, f"a header of {len(header)} bytes")
    low, high, request, stream, stream_flags, kind = _header.unpack(header)
    length = high << 16 | low
    if length > max_payload:
        raise too_large(length, max_payload, request)
    return length, Frame(request, stream, stream_flags, kind >> 4, kind & 15, b"")
