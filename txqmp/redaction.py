"""Messages as people see them: without passwords, secrets and keys, and short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


REDACTED = "[redacted]"
"""What stands in the place of a secret."""

_SECRET_NAME = re.compile(r"passw(or)?d|passphrase|secret|credential|token|(^|[-_])key$", re.I)
_SECRET_LINE = re.compile(r"passw(or)?d|secret", re.I)


def redact(value: Any) -> Any:
    """
    A copy of a JSON value without its secrets.

    Replaced are the values of members whose name speaks of a password, a secret, a token or a key,
    the ``data`` of a ``secret`` object in the making (``object-add``), and a
    ``human-monitor-command`` that names a password or a secret. What is nested too deep to walk
    is replaced as a whole.

    :param value: a JSON value: dicts, lists, strings, numbers.
    :returns: a value of the same shape; the one given is not changed.
    """
    try:
        return _redact(value)
    except RecursionError:
        return REDACTED


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        is_secret = _makes_secret(value)
        return {
            name: REDACTED if _hides(name, member, is_secret) else _redact(member)
            for name, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redact(member) for member in value]
    return value


def _makes_secret(value: Mapping[Any, Any]) -> bool:
    """Whether these are the arguments of an ``object-add`` that makes a secret."""
    return str(value.get("qom-type", "")).startswith("secret")


def _hides(name: Any, member: Any, is_secret: bool) -> bool:
    if not isinstance(name, str):
        return False
    if is_secret and name in ("data", "props"):
        return True
    if name == "command-line" and isinstance(member, str):
        return _SECRET_LINE.search(member) is not None
    return _SECRET_NAME.search(name) is not None and not isinstance(member, (bool, type(None)))


EXCERPT_LENGTH = 200
"""How many characters of what came an error's message shows."""


def excerpt(what: Any, limit: int = EXCERPT_LENGTH) -> str:
    """
    What came, without its secrets, as text short enough to read; the work is bounded too, however
    large it is.

    :param what: bytes, or a JSON value.
    :param limit: how many characters of it to show.
    :returns: its beginning, with "…" where something is left out.
    """
    if isinstance(what, (bytes, bytearray, memoryview)):
        shown = repr(bytes(what[:limit]))
        return shown if len(what) <= limit else f"{shown}… ({len(what) - limit} more bytes)"
    shown = ""
    for piece in _pieces(what, limit):
        shown += piece
        if len(shown) > limit:
            return f"{shown[:limit]}…"
    return shown


def _pieces(value: Any, limit: int) -> Iterator[str]:
    """The ``repr`` of a JSON value, piece by piece, secrets replaced."""
    if isinstance(value, Mapping):
        yield "{"
        is_secret = _makes_secret(value)
        for number, (name, member) in enumerate(value.items()):
            yield f"{', ' if number else ''}{_short(name, limit)}: "
            if _hides(name, member, is_secret):
                yield REDACTED
            else:
                yield from _pieces(member, limit)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for number, member in enumerate(value):
            if number:
                yield ", "
            yield from _pieces(member, limit)
        yield "]"
    else:
        yield _short(value, limit)


def _short(value: Any, limit: int) -> str:
    return repr(value[: limit + 1] if isinstance(value, str) else value)
