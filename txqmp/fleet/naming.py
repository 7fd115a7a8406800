"""
Who a VM is, and what it is called.

**Who it is**, whatever source it comes from, is the first of these that there is:

1. the name that the configuration gives it;
2. its UUID, where that is not all zero;
3. the name that QEMU was given (``-name``);
4. its socket, where we dial it; where it dials us the process at the other end of the UNIX socket,
   or the address.

Whatever it is called, no two VMs have one UUID at the same time, and no two without UUID and
configured name have one ``-name``. The second is refused (:mod:`txqmp.fleet.introduction`).

**What it is called** in records is the name that the configuration gives it. Else one that we dial
is called after its socket (:func:`name_of`, :func:`name_in_glob`); one that dials us by its name,
its UUID or its process, the first that there is and that no other VM is called.

**Its identity** in records is its UUID, where it has one that is not all zero, else what it is
called.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from typing import Any

import attrs

from txqmp.endpoints import UNIXClient, shown
from txqmp.fleet.peers import credentials


MAX_NAME = 200
"""The longest name of a VM, in characters; what is longer is cut."""

NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What ``query-uuid`` returns of a VM that was given none."""

_GENERIC = frozenset({"events", "qmp", "qmp-sock", "monitor", "mon", "control", "qemu"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@attrs.frozen
class Identity:
    """
    Who a VM is.

    :ivar key: who, and what tells so, such as ``"uuid 4c4c4544-…"``.
    :ivar uuid: its UUID, ``None`` where it has none.
    :ivar exclusive: what no other VM may be at the same time, such as ``"name web"``; ``None``
        where what it is called says it all.
    :ivar names: what it may be called if it dials us, the best first.
    """

    key: str
    uuid: str | None
    exclusive: str | None
    names: tuple[str, ...]


def clean(name: str) -> str:
    """A name without what does not print, and of bearable length."""
    printing = "".join(char if char.isprintable() else "?" for char in name[:MAX_NAME])
    return printing.strip() or "?"


def name_of(where: Any, endpoint: Any) -> str:
    """
    What a VM is called that was given no name.

    :param where: the place as it was given.
    :param endpoint: the endpoint made from it.
    :returns: the name of the socket without its ending (``/run/vm1.sock`` is ``vm1``); the
        directory's where that says nothing (``/run/vm1/qmp.sock`` is ``vm1``); for what is no UNIX
        socket the place itself.
    """
    if isinstance(endpoint, UNIXClient):
        directory, file = os.path.split(shown(endpoint.path))
        stem = os.path.splitext(file)[0]
        parent = os.path.basename(directory)
        return clean(parent if stem.lower() in _GENERIC and parent else stem)
    text = where if isinstance(where, str) else repr(where)
    return clean(text.removeprefix("tcp:"))


def name_in_glob(pattern: str, path: str) -> str:
    """
    What a VM is called whose socket a glob has found: the parts of the path that have a wildcard
    in the pattern, without the file's ending. ``/run/*/qmp.sock`` calls ``/run/vm1/qmp.sock``
    ``vm1``.
    """
    path = shown(path)
    wild = [
        found
        for part, found in zip(pattern.split(os.sep), path.split(os.sep), strict=False)
        if glob.has_magic(part)
    ]
    name = os.sep.join(wild) or os.path.basename(path)
    if name.endswith(os.path.basename(path)):
        name = os.path.splitext(name)[0]
    return clean(name)


def identify(
    results: Mapping[str, Any],
    place: str,
    *,
    configured: str | None = None,
    known: str | None = None,
) -> Identity:
    """
    Who a VM is.

    :param results: what ``query-uuid`` and ``query-name`` returned, by command; either may lack.
    :param place: its socket, or who is at the other end, see :func:`peer_of`.
    :param configured: the name that the configuration gives it.
    :param known: the UUID that it had before; it counts where ``query-uuid`` was not answered.
    """
    uuid = _uuid(results["query-uuid"]) if "query-uuid" in results else known
    name = _text(results.get("query-name"), "name")
    names = tuple(each for each in (name, uuid, place) if each)
    exclusive = None
    if uuid:
        exclusive = f"uuid {uuid}"
    elif name and not configured:
        exclusive = f"name {name}"
    key = f"configured {configured}" if configured else exclusive or place
    return Identity(key, uuid, exclusive, names)


def _uuid(answer: Any) -> str | None:
    """The UUID in an answer; ``None`` where there is none."""
    uuid = _text(answer, "UUID").lower()
    return uuid if uuid != NIL_UUID and _UUID.fullmatch(uuid) else None


def _text(answer: Any, member: str) -> str:
    value = answer.get(member) if isinstance(answer, Mapping) else None
    return clean(value) if isinstance(value, str) and value else ""


def peer_of(transport: Any) -> str:
    """
    Who is at the other end: ``"pid 4711"`` on a UNIX socket, ``"socket 815"`` (its inode) where the
    process cannot be seen from here, ``"127.0.0.1:4444"`` otherwise.
    """
    who = credentials(transport)
    if who is not None:
        inode = os.fstat(transport.getHandle().fileno()).st_ino
        return f"pid {who.pid}" if who.pid else f"socket {inode}"
    peer = transport.getPeer()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return f"{host}:{port}" if host is not None else clean(str(peer))
