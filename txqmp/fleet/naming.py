"""
What a VM is called, and who it is.

A VM that we dial is called what the configuration says, or after its socket. One that dials us
says itself who it is; in this order its identity is: its uuid, if it is not all zero; its name; the
process at the other end of the UNIX socket; the address at the other end.
"""

from __future__ import annotations

import glob
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

import attrs

from txqmp.endpoints import UNIXClient


MAX_NAME = 200
"""The longest name of a VM, in characters; what is longer is cut."""

NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What ``query-uuid`` returns of a VM that was given none."""

_GENERIC = frozenset({"events", "qmp", "qmp-sock", "monitor", "mon", "control", "qemu"})
_CREDENTIALS = struct.Struct("3i")


@attrs.frozen
class Identity:
    """
    Who a VM is that dials us.

    :ivar key: what no two VMs may share, such as ``"uuid 4c4c4544-…"``.
    :ivar names: what it may be called, the best first.
    """

    key: str
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
        directory, file = os.path.split(endpoint.path)
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
    wild = [
        found
        for part, found in zip(pattern.split(os.sep), path.split(os.sep), strict=False)
        if glob.has_magic(part)
    ]
    name = os.sep.join(wild) or os.path.basename(path)
    if name.endswith(os.path.basename(path)):
        name = os.path.splitext(name)[0]
    return clean(name)


def identify(results: Mapping[str, Any], peer: str) -> Identity:
    """
    Who a VM is.

    :param results: what ``query-uuid`` and ``query-name`` returned, by command; either may lack.
    :param peer: who is at the other end, see :func:`peer_of`.
    """
    uuid = _text(results.get("query-uuid"), "UUID")
    name = _text(results.get("query-name"), "name")
    names = tuple(each for each in (name, uuid if uuid != NIL_UUID else "", peer) if each)
    if uuid and uuid != NIL_UUID:
        return Identity(f"uuid {uuid}", names)
    if name:
        return Identity(f"name {name}", names)
    return Identity(peer, names)


def _text(answer: Any, member: str) -> str:
    value = answer.get(member) if isinstance(answer, Mapping) else None
    return clean(value) if isinstance(value, str) and value else ""


def peer_of(transport: Any) -> str:
    """
    Who is at the other end: ``"pid 4711"`` on a UNIX socket, ``"127.0.0.1:4444"`` otherwise.
    """
    try:
        handle = transport.getHandle()
        if handle.family == socket.AF_UNIX:
            size = _CREDENTIALS.size
            found = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            return f"pid {_CREDENTIALS.unpack(found)[0]}"
    except (AttributeError, OSError):
        pass  # no socket of this kind, or no such system: the address must do
    peer = transport.getPeer()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return f"{host}:{port}" if host is not None else clean(str(peer))
