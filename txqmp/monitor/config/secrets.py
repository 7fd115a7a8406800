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
import stat
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from txqmp.monitor.config.table import At, Key, Keys, members, text


MAX_SECRET = 1 << 16
"""How large a secret may be, in bytes."""

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""The environment variable in which systemd names the directory of a service's credentials."""

_FORMS = '{ file = "…" }, { env = "…" } or { credential = "…" }'
_KEYS: Keys = {kind: Key(text) for kind in ("file", "env", "credential")}
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


def secret(value: object, at: At) -> str:
    """
    A secret that is referred to.

    :raises ValueError: it is no reference, or what it refers to is not there, is empty, too large,
        no text, or open to others. No message shows it.
    """
    kind, name = _reference(value, at, "a secret is not written here: give")
    if kind == "env":
        found = _variable(name, at.source.environ)
        if len(found) > MAX_SECRET:
            raise ValueError(f"the environment variable {name} is too large for a secret")
        what = f"the environment variable {name}"
    else:
        what = _path(kind, name, at)
        found = _read(what, private=kind == "file")
    found = found.rstrip()
    if not found:
        raise ValueError(f"{what} is empty")
    return found


def secret_path(value: object, at: At) -> str:
    """
    The path of a file that holds a secret, such as the key of a certificate, by a reference to it.
    That of an environment variable is what the variable says.

    :raises ValueError: as above.
    """
    kind, name = _reference(value, at, "it is given as")
    path = _path(kind, name, at)
    with closing(_Opened(path, private=kind != "credential")):
        return path


def open_path(value: object, at: At) -> str:
    """
    The path of a file that is no secret, such as a certificate: as text, or by a reference.

    :raises ValueError: it is none, or cannot be read.
    """
    if isinstance(value, str):
        path = at.path(value)
    else:
        kind, name = _reference(value, at, "it is given as a path,")
        path = _path(kind, name, at)
    with closing(_Opened(path, private=False)):
        return path


def _reference(value: object, at: At, hint: str) -> tuple[str, str]:
    """Which kind of reference, and to what."""
    if not isinstance(value, dict):
        raise ValueError(f"{hint} {_FORMS}")
    found: Mapping[str, Any] = members(value, _KEYS, at)
    if len(found) != 1:
        raise ValueError(f"{hint} one of {_FORMS}")
    ((kind, name),) = found.items()
    return kind, name


def _variable(name: str, environ: Mapping[str, str]) -> str:
    found = environ.get(name, "")
    if not found.strip():
        raise ValueError(f"the environment variable {name} is not set, or empty")
    return found


def _path(kind: str, name: str, at: At) -> str:
    """The path that a reference stands for."""
    if kind == "env":
        return at.path(_variable(name, at.source.environ))
    if kind == "file":
        return at.path(name)
    if "/" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of a credential")
    directory = at.source.environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        raise ValueError(f"there is no ${CREDENTIALS_VARIABLE}: systemd gave no credentials")
    return os.path.join(directory, name)


class _Opened:
    """A file that is open to be read, and is one."""

    def __init__(self, path: str, *, private: bool) -> None:
        try:
            # What is no file could make us wait.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise ValueError(f"{path}: {problem.strerror}") from problem
        try:
            mode = os.fstat(self._file).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{path} is no file")
            if private and mode & _OTHERS:
                raise ValueError(
                    f"{path} is open to others than its owner: its mode is"
                    f" {stat.S_IMODE(mode):o} and must be 600"
                )
        except BaseException:
            self.close()
            raise

    def read(self, limit: int) -> bytes:
        with open(self._file, "rb", closefd=False) as file:
            return file.read(limit)

    def close(self) -> None:
        os.close(self._file)


def _read(path: str, *, private: bool) -> str:
    with closing(_Opened(path, private=private)) as opened:
        try:
            data = opened.read(MAX_SECRET + 1)
        except OSError as problem:
            raise ValueError(f"{path}: {problem.strerror}") from problem
    if len(data) > MAX_SECRET:
        raise ValueError(f"{path} is larger than {MAX_SECRET} bytes: it is no secret")
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Its message would show a part of it, and so would it as a cause.
        problem_free = ValueError(f"{path} is not UTF-8 text")
    raise problem_free
