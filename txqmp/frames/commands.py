"""
Messages over frames: how a request and a response are cut, and what the flags of a piece say.

A *part* is what one frame says, before it is known on which stream it travels.
:mod:`txqmp.frames.assembly` puts the pieces together again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOBase
from typing import BinaryIO

from txqmp.frames.codec import (
    APPLICATION_ERROR,
    ARGUMENT_CONTINUATION,
    BYTES_RESPONSE,
    COMMAND_ARGUMENT,
    COMMAND_DATA,
    COMMAND_NAME,
    CONTINUATION,
    END_OF_ARGUMENTS,
    EOS,
    ERROR_RESPONSE,
    HAVE_ARGS,
    HAVE_DATA,
    NAME_EOS,
    PROTOCOL_ERROR,
)
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_PAYLOAD


Part = tuple[int, int, bytes]
"""What one frame says: type, flags, payload."""

Name = str | bytes
"""The name of a command or an argument: ASCII."""

_lengths = struct.Struct("<HH")


def command_parts(
    name: Name,
    arguments: Mapping[Name, bytes] | None = None,
    data: bytes | BinaryIO | None = None,
    max_payload: int = DEFAULT_PAYLOAD,
) -> Iterable[Part]:
    """
    The parts of a request: the name, the arguments in the order of their names, the data.

    :param name: not empty.
    :param arguments: their values, by name. One that does not fit into a frame is continued in
        further ones, which only newer peers understand.
    :param data: the data, or a file to read it from, to its end; ``None`` for none, which is not
        the same as no bytes. A read may give less than it was asked for, but not ``None``.
    :param max_payload: the most that one frame takes, in bytes.
    :raises FrameUsageError: the name is empty or not ASCII, or does not fit; the same for an
        argument; an argument's value has more than 65,535 bytes; two have one name, once as text
        and once as bytes. Raised at once; while the parts are taken only what reading the file
        raises, and this where it gives anything but the bytes that it was asked for.
    """
    text = _ascii(name)
    if not text or len(text) > max_payload:
        raise FrameUsageError(f"a command's name has 1 to {max_payload} bytes, not {len(text)}")
    if not arguments and data is None:
        return ((COMMAND_NAME, NAME_EOS, text),)
    values: dict[bytes, bytes] = {}
    for each, value in (arguments or {}).items():
        key = _ascii(each)
        if key in values:
            raise FrameUsageError(f"argument {key!r:.60} is there twice")
        if len(key) > 0xFFFF or len(key) + _lengths.size > max_payload:
            raise FrameUsageError(f"an argument's name of {len(key)} bytes does not fit a frame")
        values[key] = _bytes(value)
        if len(values[key]) > 0xFFFF:
            raise FrameUsageError(
                f"the value of argument {key!r:.60} has {len(values[key])} bytes, more than 65,535"
            )
    if isinstance(data, TextIOBase):
        raise FrameUsageError("the data are in a file that is open for text")
    if data is not None and not hasattr(data, "read"):
        data = _bytes(data)
    return _command_parts(text, sorted(values.items()), data, max_payload)


def _command_parts(
    name: bytes,
    arguments: list[tuple[bytes, bytes]],
    data: bytes | BinaryIO | None,
    max_payload: int,
) -> Iterator[Part]:
    flags = (HAVE_ARGS if arguments else 0) | (HAVE_DATA if data is not None else 0)
    yield COMMAND_NAME, flags, name
    for number, (key, value) in enumerate(arguments, 1):
        end = END_OF_ARGUMENTS if number == len(arguments) else 0
        piece = _lengths.pack(len(key), len(value)) + key
        at = max_payload - len(piece)
        piece += value[:at]
        while at < len(value):
            yield COMMAND_ARGUMENT, ARGUMENT_CONTINUATION, piece
            piece = value[at : at + max_payload]
            at += max_payload
        yield COMMAND_ARGUMENT, end, piece
    if data is not None:
        for piece in _pieces(data, max_payload):
            yield COMMAND_DATA, CONTINUATION if len(piece) == max_payload else EOS, piece


def _pieces(data: bytes | BinaryIO, size: int) -> Iterator[bytes]:
    """Pieces of a size, and a last one that is shorter: empty, where nothing is left for it."""
    if isinstance(data, bytes):
        for start in range(0, len(data) + 1, size):
            yield data[start : start + size]
        return
    while True:
        piece = _read(data, size)
        yield piece
        if len(piece) < size:
            return


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes of a file; less where it ends."""
    pieces: list[bytes] = []
    while size:
        piece = file.read(size)
        if not isinstance(piece, bytes) or len(piece) > size:
            # None, for one, is a file that has nothing yet: as its end it would lose the rest.
            raise FrameUsageError(f"a file was asked for {size} bytes and gave {piece!r:.60}")
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def response_parts(data: bytes, max_payload: int = DEFAULT_PAYLOAD) -> Iterable[Part]:
    """
    The parts of a response. The last one is full where the data is a multiple of ``max_payload``.

    :raises FrameUsageError: nothing fits into a frame.
    """
    data = _bytes(data)
    if len(data) <= max_payload:
        return ((BYTES_RESPONSE, EOS, data),)
    if max_payload < 1:
        raise FrameUsageError(f"nothing fits into frames of {max_payload} bytes")
    return _response_parts(data, max_payload)


def _response_parts(data: bytes, max_payload: int) -> Iterator[Part]:
    last = (len(data) - 1) // max_payload * max_payload
    for start in range(0, last, max_payload):
        yield BYTES_RESPONSE, CONTINUATION, data[start : start + max_payload]
    yield BYTES_RESPONSE, EOS, data[last:]


def error_part(
    message: str | bytes,
    *,
    protocol: bool = False,
    application: bool = False,
    max_payload: int = DEFAULT_PAYLOAD,
) -> Part:
    """
    The part that says that a request failed.

    :param message: for people.
    :param protocol: the peer broke the protocol; the connection should be closed.
    :param application: the request could not be served.
    :raises FrameUsageError: not exactly one of the two is true, or the message does not fit into
        one frame.
    """
    if protocol == application:
        raise FrameUsageError("an error is either the protocol's or the application's")
    text = message.encode("utf-8", "replace") if isinstance(message, str) else _bytes(message)
    if len(text) > max_payload:
        raise FrameUsageError(f"an error message of {len(text)} bytes, more than {max_payload}")
    return ERROR_RESPONSE, PROTOCOL_ERROR if protocol else APPLICATION_ERROR, text


def _ascii(name: Name) -> bytes:
    if not isinstance(name, str):
        name = _bytes(name)
    if not name.isascii():
        raise FrameUsageError(f"a name is ASCII, not {name!r:.60}")
    return name.encode("ascii") if isinstance(name, str) else name


def _bytes(value: bytes) -> bytes:
    """
    Bytes that do not change while they wait to be sent.

    :raises TypeError: they are none; ``bytes()`` would make some of a number.
    """
    return value if type(value) is bytes else bytes(memoryview(value))


def check_end(flags: int, what: str, request_id: int) -> bool:
    """
    Whether a frame of data or of a response is the last.

    :raises FrameProtocolError: it has both of the flags that exclude each other, or none.
    """
    kind = flags & (CONTINUATION | EOS)
    if kind == EOS:
        return True
    if kind == CONTINUATION:
        return False
    if kind:
        raise FrameProtocolError(
            Code.EXCLUSIVE_FLAGS, f"{what} frame that is the last and is not", request_id
        )
    raise FrameProtocolError(Code.MISSING_FLAGS, f"{what} frame without flags", request_id)


def check_error(flags: int, request_id: int) -> bool:
    """
    Whether an error is the protocol's; else it is the application's.

    :raises FrameProtocolError: it has both of the flags that exclude each other, or none.
    """
    kind = flags & (PROTOCOL_ERROR | APPLICATION_ERROR)
    if not kind:
        raise FrameProtocolError(Code.MISSING_FLAGS, "error response without flags", request_id)
    if kind == PROTOCOL_ERROR | APPLICATION_ERROR:
        raise FrameProtocolError(
            Code.EXCLUSIVE_FLAGS, "an error of both the protocol and the application", request_id
        )
    return kind == PROTOCOL_ERROR


def check_name(flags: int, name: bytes, request_id: int) -> bool:
    """
    Whether a command's name is all of its request.

    :raises FrameProtocolError: the name is empty, or its flags exclude each other, or are missing.
    """
    if not name:
        raise FrameProtocolError(Code.EMPTY_COMMAND, "a command without a name", request_id)
    if flags & NAME_EOS:
        if flags & (HAVE_ARGS | HAVE_DATA):
            raise FrameProtocolError(
                Code.EXCLUSIVE_FLAGS, "a command that is whole and is not", request_id
            )
        return True
    if not flags & (HAVE_ARGS | HAVE_DATA):
        raise FrameProtocolError(
            Code.MISSING_FLAGS, "missing frame flags on command frame", request_id
        )
    return False
