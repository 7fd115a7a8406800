"""
JSON text in and out, with the checks that QMP needs and ``orjson`` does not make; and
:class:`Message`, which is both text and mapping.

Reading is as strict as the standard: UTF-8 only, no NaN. Writing refuses what QEMU would refuse,
because QEMU answers text that it cannot read with errors that name no command (fact G18).
"""

from __future__ import annotations

import json
import math
import re
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
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+')


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
    if b"null" in text:
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
    if _depth(encoded) > MAX_DEPTH:
        raise UnwritableError(f"nested deeper than {MAX_DEPTH} levels")
    if len(encoded) > MAX_TOKENS:
        _refuse_large(encoded)
    return encoded


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        if text[token.start()] in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif text[token.start()] in b"]}":
            depth -= 1
    return deepest


def _refuse_not_finite(value: Any) -> None:
    """``orjson`` writes NaN and the infinities as ``null``: find them in the value instead."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                raise UnwritableError(f"{item} is not a JSON number")
        elif isinstance(item, Mapping):
            left.extend(item.values())
        elif isinstance(item, (list, tuple)):
            left.extend(item)


def _refuse_large(text: bytes) -> None:
    if len(text) > MAX_SIZE:
        raise UnwritableError(f"{len(text)} bytes, more than the {MAX_SIZE} that QEMU reads")
    tokens = sum(1 for _ in _TOKEN.finditer(text))
    if tokens > MAX_TOKENS:
        raise UnwritableError(f"{tokens} tokens, more than the {MAX_TOKENS} that QEMU reads")


def id_key(value: Any) -> Hashable:
    """
    A key by which ids compare as JSON values do: ``1`` equals ``1.0``, ``true`` does not equal
    ``1``, the order of an object's members means nothing (fact G17: QEMU writes ids anew).

    :param value: any JSON value.
    """
    if type(value) is str:
        return value
    return _frozen(value)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return ("object", frozenset((name, _frozen(member)) for name, member in value.items()))
    if isinstance(value, (list, tuple)):
        return ("array", tuple(_frozen(member) for member in value))
    return ("boolean" if isinstance(value, bool) else "scalar", value)


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
        return self._members[name]

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
