"""Places, as people write them: of monitors and sockets, files and URLs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from txqmp.endpoints import UNIXClient, client_endpoint, server_endpoint
from txqmp.fleet.naming import MAX_NAME, name_of
from txqmp.monitor.config.model import Dial, Glob, Listen, Source
from txqmp.monitor.web.place import web_endpoint


def endpoint(text: str) -> Dial:
    """
    A monitor to dial, from ``NAME=ENDPOINT`` or ``ENDPOINT``.

    :raises ValueError: it is neither; the message says why.
    """
    name, equals, where = text.partition("=")
    named = bool(equals) and not set(name) & set(":/")
    if not named:
        name, where = "", text
    elif not is_vm_name(name):
        raise ValueError(f"{text!r}: what stands before the '=' is no name for a VM")
    if not where:
        raise ValueError(f"{text!r} lacks an endpoint, such as unix:/run/vm1.sock")
    return dial(where, name)


def dial(where: str, name: str = "") -> Dial:
    """
    A monitor to dial.

    :param where: the place, as for :func:`txqmp.connect`.
    :param name: what to call the VM; :func:`~txqmp.fleet.naming.name_of` makes the default.
    :raises ValueError: there can be no monitor.
    """
    place = client_endpoint(None, where)
    if isinstance(place, UNIXClient):
        _check_socket(place.path)
    return Dial(where=where, name=name or name_of(where, place), named=bool(name))


def is_vm_name(name: str) -> bool:
    """Whether a VM can be called so."""
    return bool(name) and name.isprintable() and len(name) <= MAX_NAME


def unix_path(where: str) -> str | None:
    """What follows ``unix:`` in an endpoint, or a bare path; ``None`` where there is neither."""
    kind, colon, rest = where.partition(":")
    if not colon or "/" in kind:
        return where
    return rest.removeprefix("path=") if kind == "unix" else None


def place_of(source: Source) -> tuple[str, str]:
    """What tells a source from all others: its kind, and where it is; of a socket the real path."""
    if isinstance(source, Glob):
        return "glob", "\n".join(source.patterns)
    if isinstance(source, Listen):
        path = _UNIX_PATH.fullmatch(source.where)
        return "socket", os.path.realpath(path["path"]) if path is not None else source.where
    place = client_endpoint(None, source.where)
    return "socket", os.path.realpath(place.path) if isinstance(place, UNIXClient) else source.where


def _check_socket(path: str) -> None:
    """What is not there may come; what is something else will never be a socket."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a directory; the glob of all sockets in it is {path}/*")
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"{path} is no socket")


def listen(text: str, *, inherited: bool = True) -> str:
    """
    A place to listen on.

    :param inherited: whether a socket that systemd is to hand over must be there. Only the daemon
        itself has it.
    :raises ValueError: it is none.
    """
    if inherited or not text.startswith("systemd:"):
        _check_listen(text, server_endpoint)
    else:
        _check_systemd(text)
    return text


def web(text: str, *, remote: bool = False, inherited: bool = True) -> str:
    """
    A place for the status page to listen on.

    :param remote: whether other hosts may connect.
    :param inherited: as for :func:`listen`.
    :raises ValueError: it is none, or other hosts could connect and may not.
    """
    if inherited or not text.startswith("systemd:"):
        _check_listen(text, partial(web_endpoint, remote=remote))
    else:
        _check_systemd(text)
    return text


def _check_listen(text: str, endpoint: Callable[[Any, str], object]) -> None:
    port = _PORT.match(text)
    if port is not None and int(port[1]) > 65535:
        raise ValueError(f"{text!r} is no endpoint: ports end with 65535")
    endpoint(None, text)
    path = _UNIX_PATH.fullmatch(text)
    if path is not None:
        _check_directory(path["path"])


def _check_systemd(text: str) -> None:
    if _SYSTEMD.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no endpoint, such as systemd:domain=UNIX:name=dialin")


# A plain path to listen on; what has a backslash in it is left to itself.
_UNIX_PATH = re.compile(r"(unix:(path=)?)?(?P<path>/[^:\\]*)(:.*)?")
_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]{1,20})(?::|$)")
_SYSTEMD = re.compile(
    r"systemd:(domain=)?(UNIX|INET|INET6):(index=[0-9]{1,4}|name=[^:\\]+)", re.ASCII
)


def _check_directory(path: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise ValueError(f"there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise ValueError(f"no permission to make {path}")


def pattern(text: str) -> str:
    """
    A pattern of sockets.

    :raises ValueError: it is none.
    """
    if not text:
        raise ValueError("a pattern of sockets is empty")
    return os.path.join(text, "*") if os.path.isdir(text) else text


def file(text: str) -> str:
    """
    A file to append to, as an absolute path.

    :raises ValueError: it cannot be appended to, as things are.
    """
    if not text:
        raise ValueError("the name of a file is empty")
    path = os.path.abspath(text)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory")
    if not os.path.exists(path):
        _check_directory(path)
    elif not os.access(path, os.W_OK):
        raise ValueError(f"no permission to write {path}")
    return path


def state_directory(text: str) -> str:
    """
    A directory for what is to outlive the daemon, as an absolute path. It need not be there, but
    what it is in must.

    :raises ValueError: it can be none.
    """
    if not text:
        raise ValueError("the name of a directory is empty")
    path = os.path.abspath(text)
    if not os.path.exists(path):
        _check_directory(path)
    elif not os.path.isdir(path):
        raise ValueError(f"{path} is no directory")
    elif not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"no permission to write in {path}")
    return path


def url(text: str) -> str:
    """
    A URL to post to.

    :raises ValueError: it is none, or holds a password. What may be secret is not in the message.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if "@" in text.partition("//")[2].partition("/")[0]:
        raise ValueError("a URL with a user or a password in it is not taken: everybody can see it")
    if not valid or not text.isprintable() or " " in text:
        what = "this" if "@" in text or "?" in text else repr(text)
        raise ValueError(f"{what} is no URL, such as https://ops.example/qmp")
    return text
