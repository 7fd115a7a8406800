"""
JSON text in and out, with the checks that QMP needs and ``orjson`` does not make; and
:class:`Message`, which is both text and mapping.

Reading is as strict as the standard: UTF-8 only, no NaN. Writing refuses what QEMU would refuse,
because QEMU answers text that it cannot read with errors that name no command (fact G18).
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from typing import Any, final

import orjson

from txqmp.errors import DeserializationError, UnexpectedTypeError
from txqmp.redaction import redact


MAX_DEPTH = 1024
"""The nesting that QEMU reads (fact G18)."""

MAX_TOKENS = 2 << 20
"""The number of tokens in one message that QEMU reads (fact G18)."""

MAX_SIZE = 64 << 20
"""The size of a message that QEMU reads, in bytes (fact G18)."""

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_BRACKETS, _PUNCTUATION = b"{}[]", b"{}[]:,"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_NOT_PUNCTUATION = bytes(set(range(256)) - set(_PUNCTUATION))
_PUNCTUATION_TO_SPACE = bytes.maketrans(_PUNCTUATION, b" " * len(_PUNCTUATION))


class UnwritableError(ValueError):
    """A value that has no JSON text which QEMU reads; the message says why."""


def read_object(text: bytes) -> dict[str, Any]:
    """
    One JSON object from its text.

    :param text: UTF-8.
    :raises DeserializationError: the text is not JSON, or not UTF-8.
    :raises UnexpectedTypeError: it is JSON, but not an object.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DeserializationError(f"not JSON ({error})", bytes(text)) from None
    if type(value) is not dict:
        raise UnexpectedTypeError(value)
    return value


def write(value: Any) -> bytes:
    """
    The text of a JSON value, without a line end in it.

    :param value: mappings with string keys, lists, tuples, strings, numbers, booleans, ``None``.
    :raises UnwritableError: it holds NaN or an infinity, a lone surrogate, an integer of more than
        64 bits, a key that is not a string or an object of another type; or it is larger, or
        nested deeper, than QEMU reads (fact G18).
    """
    try:
        text = orjson.dumps(value, _plain, _OPTIONS)
    except TypeError as error:
        if "ecursion" not in str(error):
            raise UnwritableError(str(error)) from None
        return _write_deep(value)
    if text.find(b"null") >= 0:  # half the cost of "in"
        _refuse_not_finite(value)
    if len(text) > MAX_TOKENS:
        _refuse_large(text)
    return text


def _plain(value: Any) -> dict[Any, Any]:
    """A mapping that is no dict, as one."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON text")


def _write_deep(value: Any) -> bytes:
    """The text of a value that is nested too deep for ``orjson`` (254 levels)."""
    try:
        text = json.dumps(
            value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain
        )
        encoded = text.encode("utf-8")
    except RecursionError:
        raise UnwritableError("nested too deep") from None
    except (TypeError, ValueError) as error:
        raise UnwritableError(str(error)) from None
    _refuse_what_orjson_refuses(value)
    if _depth(encoded) > MAX_DEPTH:
        raise UnwritableError(f"nested deeper than {MAX_DEPTH} levels")
    if len(encoded) > MAX_TOKENS:
        _refuse_large(encoded)
    return encoded


def without_strings(text: bytes) -> tuple[bytes, int]:
    """
    What stands outside of the strings of a JSON text, and how many quotation marks delimit them:
    an odd number where the last string is not closed. Strings are cut out by splitting, because
    a regular expression would need memory for each escape.
    """
    parts = text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    return b" ".join(parts[::2]), len(parts) - 1


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for bracket in without_strings(text)[0].translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _count_tokens(text: bytes) -> int:
    outside, quotes = without_strings(text)
    punctuation = len(outside.translate(None, _NOT_PUNCTUATION))
    return quotes // 2 + punctuation + len(outside.translate(_PUNCTUATION_TO_SPACE).split())


def _refuse_not_finite(value: Any) -> None:
    """``orjson`` writes NaN and the infinities as ``null``: find them in the value instead."""
    for item in _walk(value):
        if isinstance(item, float) and not math.isfinite(item):
            raise UnwritableError(f"{item} is not a JSON number")


def _refuse_what_orjson_refuses(value: Any) -> None:
    """``json`` writes integers of any size, and makes strings of keys that are none."""
    for item in _walk(value):
        if isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
            raise UnwritableError(f"an integer of more than 64 bits: {item}")
        if isinstance(item, Mapping) and not all(isinstance(name, str) for name in item):
            raise UnwritableError("a key that is not a string")


def _walk(value: Any) -> Iterator[Any]:
    """A value and all values in it, however deep."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, enum.Enum):
            item = item.value
        if isinstance(item, Mapping):
            left.extend(item.values())
        elif isinstance(item, (list, tuple)):
            left.extend(item)
        yield item


def _refuse_large(text: bytes) -> None:
    if len(text) > MAX_SIZE:
        raise UnwritableError(f"{len(text)} bytes, more than the {MAX_SIZE} that QEMU reads")
    tokens = _count_tokens(text)
    if tokens > MAX_TOKENS:
        raise UnwritableError(f"{tokens} tokens, more than the {MAX_TOKENS} that QEMU reads")


def id_key(value: Any) -> Hashable:
    """
    A key by which ids compare as JSON values do: ``1`` equals ``1.0``, ``true`` does not equal
    ``1``, the order of an object's members means nothing (fact G17: QEMU writes ids anew).

    :param value: any JSON value.
    """
    if isinstance(value, str):
        return value
    return _frozen(value)


def _frozen(value: Any) -> Hashable:
    """The value's parts in one flat row: a peer may send an id that is nested very deep."""
    row: list[Hashable] = []
    left: list[tuple[str, Any]] = [("value", value)]
    while left:
        kind, item = left.pop()
        if kind == "name":
            row.append(item)
        elif isinstance(item, dict):
            row.append(("object", len(item)))
            for name in sorted(item):
                left += (("value", item[name]), ("name", name))
        elif isinstance(item, (list, tuple)):
            row.append(("array", len(item)))
            left += (("value", member) for member in item)
        else:
            row.append(("boolean" if isinstance(item, bool) else "scalar", item))
    return tuple(row)


@final
class Message(MutableMapping[str, Any]):
    """
    A message as a mapping, made from its text or from its members; the other form is made when
    it is asked for. ``bytes(message)`` is the text.

    :param content: UTF-8 text of one JSON object, or a mapping (which is copied, one level deep).
    :raises DeserializationError: the text is not JSON.
    :raises UnexpectedTypeError: the text is JSON, but not an object.
    """

    __slots__ = ("_members", "_text")

    def __init__(self, content: bytes | Mapping[str, Any]) -> None:
        self._text: bytes | None = None
        if isinstance(content, (bytes, bytearray, memoryview)):
            self._text = bytes(content)
            self._members = read_object(self._text)
        elif isinstance(content, Mapping):
            self._members = dict(content)
        else:
            raise UnexpectedTypeError(content)

    @classmethod
    def adopt(cls, members: dict[str, Any]) -> Message:
        """A message over a dict that nobody else changes; it is not copied."""
        message = cls.__new__(cls)
        message._members = members
        message._text = None
        return message

    def __getitem__(self, name: str) -> Any:
        value = self._members[name]
        if type(value) is dict or type(value) is list:
            # Who gets it may change it.
            self._text = None
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._members[name] = value
        self._text = None

    def __delitem__(self, name: str) -> None:
        del self._members[name]
        self._text = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __repr__(self) -> str:
        return f"Message({redact(self._members)!r})"

    def __bytes__(self) -> bytes:
        """
        :raises UnwritableError: it holds what has no JSON text.
        """
        if self._text is None:
            self._text = write(self._members)
        return self._text

    @property
    def members(self) -> dict[str, Any]:
        """The members, as a plain dict; change the message instead of this."""
        return self._members
