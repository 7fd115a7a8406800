"""
Secrets, which a configuration only refers to:

``{ file = "/etc/qmp-monitor/ops.key" }``
    what is in a file, which nobody but its owner may read or write
``{ env = "OPS_KEY" }``
    what is in an environment variable
``{ credential = "ops-key" }``
    what systemd gives the service (``LoadCredential=``, ``LoadCredentialEncrypted=``)

White space at the end of a secret, such as the end of a line, is left aside. What a secret is does
not appear in any message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from txqmp.monitor.config.files import OpenFile
from txqmp.monitor.config.table import At, Key, Keys, members, text


MAX_SECRET = 1 << 16
"""How large a secret may be, in bytes."""

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""The environment variable in which systemd names the directory of a service's credentials."""

_FORMS = '{ file = "…" }, { env = "…" } or { credential = "…" }'
_KEYS: Keys = {kind: Key(text) for kind in ("file", "env", "credential")}


def secret(value: object, at: At) -> str:
    """
    A secret that is referred to.

    :raises ValueError: it is no reference, or what it refers to is not there, is empty, too large,
        no text, or open to others. No message shows it.
    """
    kind, name = _reference(value, at, "a secret is not written here: give")
    if kind == "env":
        what = f"the environment variable {name}"
        found = _variable(name, at)
        if len(found) > MAX_SECRET:
            raise ValueError(f"{what} is too large for a secret")
    else:
        what, _ = _path(kind, name, at)
        found = _decoded(_read(what, kind == "file"), what)
    found = found.rstrip()
    if not found:
        raise ValueError(f"{what} is empty")
    return found


def secret_path(value: object, at: At) -> str:
    """
    The path of a file that holds a secret, such as the key of a certificate, by a reference to it.
    That of an environment variable is what the variable says.

    :raises ValueError: it is no reference, or the file cannot be read, or is open to others. No
        message shows what a variable says: it may be the secret by mistake.
    """
    kind, name = _reference(value, at, "it is given as")
    path, shown = _path(kind, name, at)
    _try(path, shown, kind != "credential")
    return path


def open_path(value: object, at: At) -> str:
    """
    The path of a file that is no secret, such as a certificate: as text, or by a reference.

    :raises ValueError: it is none, or cannot be read.
    """
    if isinstance(value, str):
        path = shown = at.path(value)
    else:
        kind, name = _reference(value, at, "it is given as a path,")
        path, shown = _path(kind, name, at)
    _try(path, shown, False)
    return path


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # It would show a part of the secret, as a cause too.
        problem = ValueError(f"{what} is not UTF-8 text")
    raise problem


def _reference(value: object, at: At, hint: str) -> tuple[str, str]:
    """Which kind of reference, and to what."""
    if not isinstance(value, dict):
        raise ValueError(f"{hint} {_FORMS}")
    found: Mapping[str, Any] = members(value, _KEYS, at)
    if len(found) != 1:
        raise ValueError(f"{hint} one of {_FORMS}")
    ((kind, name),) = found.items()
    return kind, name


def _variable(name: str, at: At) -> str:
    found = at.source.environ.get(name, "")
    if not found.strip():
        raise ValueError(f"the environment variable {name} is not set, or empty")
    return found


def _path(kind: str, name: str, at: At) -> tuple[str, str]:
    """The path that a reference stands for, and what to call it in a message."""
    if kind == "env":
        return at.path(_variable(name, at).rstrip()), f"the file that ${name} names"
    if kind == "file":
        path = at.path(name)
        return path, path
    if "/" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of a credential")
    directory = at.source.environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        raise ValueError(f"there is no ${CREDENTIALS_VARIABLE}: systemd gave no credentials")
    path = os.path.join(directory, name)
    return path, path


def _read(path: str, private: bool) -> bytes:
    """What is in a file."""
    try:
        with OpenFile(path, private=private) as file:
            return file.read(MAX_SECRET)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem


def _try(path: str, shown: str, private: bool) -> None:
    """See that a file can be read."""
    try:
        with OpenFile(path, private=private):
            pass
    except ValueError as problem:
        reason = str(problem)
    else:
        return
    # Without a cause, which could show the path.
    raise ValueError(f"{shown}: {reason}")
