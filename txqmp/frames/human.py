"""
Frames as people write them, for tests and tools::

    1 1 stream-begin command-name have-args|have-data command

Request id, stream id, stream flags, type, flags, payload, cut at the first five spaces. Flags and
type by name or decimal number, flags joined by ``|``; the payload as in a Python bytes literal.
An empty payload still needs the space before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from txqmp.frames.codec import FLAG_NAMES, STREAM_FLAG_NAMES, TYPE_NAMES, Frame
from txqmp.frames.errors import FrameUsageError


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{0,2})|([0-7]{1,3})|([\\'\"abfnrtv\n])|\Z)")
_LETTERS = {
    b"\\": b"\\",
    b"'": b"'",
    b'"': b'"',
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\n": b"",
}
_TYPES = {name: number for number, name in TYPE_NAMES.items()}


def parse_frame(text: str) -> Frame:
    """
    The frame that a text describes.

    :param text: in it, a character that is not ASCII stands for its UTF-8 bytes.
    :raises FrameUsageError: it describes none.
    """
    fields = text.split(" ", 5)
    if len(fields) != 6:
        raise FrameUsageError(f"a frame has six fields, not {len(fields)}: {text!r:.60}")
    request, stream, stream_flags, type_name, flags, payload = fields
    type = _TYPES[type_name] if type_name in _TYPES else _number(type_name)
    if type not in FLAG_NAMES:
        raise FrameUsageError(f"no frame type has the number {type}")
    frame = Frame(
        _number(request),
        _number(stream),
        _flags(stream_flags, STREAM_FLAG_NAMES),
        type,
        _flags(flags, FLAG_NAMES[type]),
        _unescape(payload),
    )
    frame.encode()
    return frame


def format_frame(frame: Frame) -> str:
    """
    The text of a frame: :func:`parse_frame` makes the same frame of it, if its type is one that has
    a name.
    """
    kinds = FLAG_NAMES.get(frame.type, {})
    return " ".join(
        (
            str(frame.request_id),
            str(frame.stream_id),
            _flag_text(frame.stream_flags, STREAM_FLAG_NAMES),
            TYPE_NAMES.get(frame.type, str(frame.type)),
            _flag_text(frame.flags, kinds),
            _escape(frame.payload),
        )
    )


def _number(text: str) -> int:
    # No field has more digits; the length is also what int() may refuse.
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise FrameUsageError(f"neither a name nor a number: {text!r:.60}")
    return int(text)


def _flags(text: str, names: Mapping[int, str]) -> int:
    numbers = {name: number for number, name in names.items()}
    flags = 0
    for part in text.split("|"):
        flags |= numbers[part] if part in numbers else _number(part)
    return flags


def _flag_text(flags: int, names: Mapping[int, str]) -> str:
    parts = [name for number, name in names.items() if flags & number]
    rest = flags & ~sum(names)
    if rest or not parts:
        parts.append(str(rest))
    return "|".join(parts)


def _unescape(text: str) -> bytes:
    def replace(found: re.Match[bytes]) -> bytes:
        pair, octal, letter = found.groups()
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if letter is not None:
            return _LETTERS[letter]
        if pair is None or len(pair) < 2:
            raise FrameUsageError(f"an escape that is not whole: {found[0].decode()!r}")
        return bytes([int(pair, 16)])

    try:
        return _ESCAPE.sub(replace, text.encode("utf-8"))
    except UnicodeEncodeError:
        raise FrameUsageError("a payload with half of a surrogate pair") from None


def _escape(payload: bytes) -> str:
    special = {0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    return "".join(
        special.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
        for byte in payload
    )
