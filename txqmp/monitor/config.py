"""What the daemon is to do, checked: :class:`Config`."""

from __future__ import annotations

import os
import re
import stat
from urllib.parse import urlsplit

import attrs

from txqmp.endpoints import UNIXClient, client_endpoint, server_endpoint
from txqmp.fleet.naming import MAX_NAME, name_of


@attrs.frozen
class Endpoint:
    """
    A monitor to dial.

    :ivar name: what to call the VM.
    :ivar where: the place, as for :func:`txqmp.connect`.
    """

    name: str
    where: str


@attrs.frozen(kw_only=True)
class Config:
    """
    What the daemon is to do.

    :ivar endpoints: the monitors to dial.
    :ivar listens: where QEMU dials us.
    :ivar globs: patterns of sockets to dial.
    :ivar events: names of the events to tell, or globs of names; none for all.
    :ivar stdout: print the records.
    :ivar jsonl: files to append them to.
    :ivar webhooks: URLs to post them to.
    :ivar demo: start a VM, and watch it.
    """

    endpoints: tuple[Endpoint, ...] = ()
    listens: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    stdout: bool = True
    jsonl: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    demo: bool = False


DEMO_NAME = "demo"
"""What the VM of the demonstration is called."""


def endpoint(text: str) -> Endpoint:
    """
    A monitor to dial, from ``NAME=ENDPOINT`` or ``ENDPOINT``.

    :raises ValueError: it is neither; the message says why.
    """
    name, equals, where = text.partition("=")
    named = bool(equals) and not set(name) & set(":/")
    if not named:
        name, where = "", text
    elif not name or not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(f"{text!r}: what stands before the '=' is no name for a VM")
    if not where:
        raise ValueError(f"{text!r} lacks an endpoint, such as unix:/run/vm1.sock")
    place = client_endpoint(None, where)
    if isinstance(place, UNIXClient):
        _check_socket(place.path)
    return Endpoint(name or name_of(where, place), where)


def _check_socket(path: str) -> None:
    """What is not there may come; what is something else will never be a socket."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a directory; for all sockets in it: --glob '{path}/*'")
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"{path} is no socket")


def listen(text: str) -> str:
    """
    A place to listen on.

    :raises ValueError: it is none.
    """
    server_endpoint(None, text)
    path = _UNIX_PATH.fullmatch(text)
    if path is not None:
        _check_directory(path["path"])
    return text


# A plain path to listen on; what has a backslash in it is left to itself.
_UNIX_PATH = re.compile(r"(unix:(path=)?)?(?P<path>/[^:\\]*)(:.*)?")


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


def event_names(text: str) -> tuple[str, ...]:
    """
    Names of events, or globs of names, from a list with commas.

    :raises ValueError: it is no such list.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not name or not name.isprintable() or " " in name:
            raise ValueError(f"{text!r} is no list of events, such as STOP,BLOCK_*")
    return names


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


def url(text: str) -> str:
    """
    A URL to post to.

    :raises ValueError: it is none, or holds a password.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no URL, such as https://ops.example/qmp")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or a password in it is not taken: everybody can see it")
    return text


def check(config: Config) -> None:
    """
    Whether all of it goes together.

    :raises ValueError: it does not.
    """
    if not (config.endpoints or config.listens or config.globs or config.demo):
        raise ValueError("nothing to watch: give an ENDPOINT, --listen, --glob or --demo")
    if not (config.stdout or config.jsonl or config.webhooks):
        raise ValueError("nobody would be told: --quiet needs --jsonl or --webhook")
    names = [each.name for each in config.endpoints]
    if config.demo:
        names.append(DEMO_NAME)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two VMs would be called {name!r}: name them, as in NAME=ENDPOINT")
    places = [_place(each.where) for each in config.endpoints]
    places += [_listening_place(each) for each in config.listens]
    for what in (places, config.jsonl, config.webhooks):
        for each in what:
            if what.count(each) > 1:
                raise ValueError(f"{each} is given twice")


def _place(where: str) -> str:
    """What tells a monitor from others: of a socket the real path."""
    place = client_endpoint(None, where)
    return os.path.realpath(place.path) if isinstance(place, UNIXClient) else where


def _listening_place(where: str) -> str:
    path = _UNIX_PATH.fullmatch(where)
    return os.path.realpath(path["path"]) if path is not None else where
