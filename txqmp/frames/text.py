"""
Text output: what a server wants people to read while a request is served.

A frame of it holds a series of atoms. Each has a format, labels that say what it is, and arguments
for the format's ``%s``: who shows it may translate the format first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

import attrs

from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_PAYLOAD


_head = struct.Struct("<HBB")
_PERCENT = re.compile(r"%(%|s)")

Text = str | bytes
"""Text, or its UTF-8 bytes; what is not UTF-8 in them becomes U+FFFD."""


def _text(value: Text) -> str:
    if isinstance(value, str):
        # A lone surrogate has no UTF-8 form; it becomes "?" here and not an error far away.
        return value.encode("utf-8", "replace").decode("utf-8")
    # Not bytes(value), which would make text of a number too.
    return str(value, "utf-8", "replace")


def _ascii(label: Text) -> str:
    try:
        if not isinstance(label, str):
            return str(label, "ascii")
        label.encode("ascii")
    except UnicodeError:
        raise FrameUsageError(f"a label is ASCII, not {label!r:.60}") from None
    return label


def _labels(labels: Iterable[Text]) -> tuple[str, ...]:
    return tuple(map(_ascii, _several(labels)))


def _texts(values: Iterable[Text]) -> tuple[str, ...]:
    return tuple(map(_text, _several(values)))


def _several(values: Iterable[Text]) -> Iterable[Text]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"several texts are wanted, not one: {values!r:.60}")
    return values


@attrs.frozen
class TextAtom:
    """
    One piece of text output.

    :ivar format: with ``%s`` for each argument, and ``%%`` for a percent sign.
    :ivar labels: what it is, such as ``"error"``; ASCII.
    :ivar arguments: for the format's ``%s``, in order.
    :raises FrameUsageError: a label is not ASCII.
    """

    format: str = attrs.field(converter=_text)
    labels: tuple[str, ...] = attrs.field(default=(), converter=_labels)
    arguments: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    def render(self) -> str:
        """:func:`render_text` of this atom."""
        return render_text(self.format, self.arguments)


def render_text(format: str, arguments: Sequence[str] = ()) -> str:
    """
    The text that a format makes of arguments. Only ``%s`` and ``%%`` mean something; any other
    percent sign is itself, and so is a ``%s`` for which there is no argument.
    """
    left = iter(arguments)

    def replace(found: re.Match[str]) -> str:
        return "%" if found[1] == "%" else next(left, found[0])

    return _PERCENT.sub(replace, format)


def encode_text(atoms: Iterable[TextAtom], max_payload: int = DEFAULT_PAYLOAD) -> bytes:
    """
    The payload of a text-output frame.

    :raises FrameUsageError: an atom has more than 255 labels or arguments, a label of more than 255
        bytes or a format or argument of more than 65,535; or all of it is more than one frame.
    """
    parts = []
    for atom in atoms:
        format = atom.format.encode("utf-8")
        labels = [label.encode("ascii") for label in atom.labels]
        arguments = [argument.encode("utf-8") for argument in atom.arguments]
        if len(format) > 0xFFFF:
            raise FrameUsageError("a format cannot be longer than 65,535 bytes")
        if len(arguments) > 0xFF:
            raise FrameUsageError("an atom cannot have more than 255 arguments")
        if len(labels) > 0xFF:
            raise FrameUsageError("an atom cannot have more than 255 labels")
        if any(len(label) > 0xFF for label in labels):
            raise FrameUsageError("a label cannot be longer than 255 bytes")
        if any(len(argument) > 0xFFFF for argument in arguments):
            raise FrameUsageError("an argument cannot be longer than 65,535 bytes")
        parts.append(_head.pack(len(format), len(labels), len(arguments)))
        parts.append(bytes(map(len, labels)))
        parts.append(struct.pack(f"<{len(arguments)}H", *map(len, arguments)))
        parts += (format, *labels, *arguments)
    payload = b"".join(parts)
    if len(payload) > max_payload:
        raise FrameUsageError(
            f"text output of {len(payload)} bytes does not fit into a frame of {max_payload}"
        )
    return payload


def decode_text(payload: bytes, request_id: int | None = None) -> tuple[TextAtom, ...]:
    """
    The atoms in the payload of a text-output frame. What is not UTF-8 in a format or an argument
    becomes U+FFFD.

    :param request_id: the frame's, for the error.
    :raises FrameProtocolError: it is cut short, or a label is not ASCII.
    """
    atoms = []
    at = 0
    try:
        while at < len(payload):
            size, label_count, argument_count = _head.unpack_from(payload, at)
            at += _head.size
            lengths = struct.unpack_from(f"<{label_count}B{argument_count}H", payload, at)
            at += label_count + 2 * argument_count
            pieces = []
            for length in (size, *lengths):
                pieces.append(payload[at : at + length])
                at += length
            if at > len(payload):
                raise FrameProtocolError(Code.MALFORMED_TEXT, "text output cut short", request_id)
            format, *rest = pieces
            atoms.append(TextAtom(format, rest[:label_count], rest[label_count:]))
    except struct.error:
        raise FrameProtocolError(Code.MALFORMED_TEXT, "text output cut short", request_id) from None
    except FrameUsageError as error:
        raise FrameProtocolError(Code.MALFORMED_TEXT, str(error), request_id) from None
    return tuple(atoms)
