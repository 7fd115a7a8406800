"""What must not be read in a log: passwords, secrets and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
        is_secret = str(value.get("qom-type", "")).startswith("secret")
        return {
            name: REDACTED
            if _hides(name, member) or (is_secret and name in ("data", "props"))
            else _redact(member)
            for name, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redact(member) for member in value]
    return value


def _hides(name: Any, member: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name == "command-line" and isinstance(member, str):
        return _SECRET_LINE.search(member) is not None
    return _SECRET_NAME.search(name) is not None and not isinstance(member, (bool, type(None)))
