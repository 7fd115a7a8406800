"""
Where the HTTP face listens: on loopback or on a UNIX socket, unless it is told otherwise. There is
no login, and whoever can connect sees all of it.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint

from txqmp.endpoints import server_endpoint
from txqmp.monitor.web.hosts import is_loopback


SOCKET_MODE = 0o660
"""The permissions of a UNIX socket, where none are given."""

_LOOPBACK = {"tcp": "127.0.0.1", "tcp6": r"\:\:1"}


def web_endpoint(reactor: Any, where: str, *, remote: bool = False) -> IStreamServerEndpoint:
    """
    The endpoint to listen on.

    :param where: such as ``"tcp:9177"``, which is on 127.0.0.1 unless it names an ``interface``,
        ``"unix:/run/qmp-monitor/http.sock"``, or another of the strings of Twisted.
    :param remote: whether others than this host may connect.
    :raises ValueError: it is none, or they could and may not.
    """
    kind, _, rest = where.partition(":")
    if kind in _LOOPBACK:
        interface = _interface(rest)
        if interface is None:
            where = f"{where}:interface={_LOOPBACK[kind]}"
        elif not remote and not is_loopback(interface):
            raise ValueError(f"{where!r} is open to other hosts, which has to be allowed")
    return server_endpoint(reactor, where, mode=SOCKET_MODE)


def _interface(arguments: str) -> str | None:
    """The interface that a ``tcp:`` endpoint string names; ``None`` where it names none."""
    found = None
    for number, part in enumerate(re.split(r"(?<!\\):", arguments)):
        name, equals, value = re.sub(r"\\(.)", r"\1", part).partition("=")
        if equals and name == "interface":
            found = value
        elif number == 1 and not equals:
            found = name
    return found


def is_local(address: IAddress) -> bool:
    """Whether only this host can connect to what listens there."""
    if isinstance(address, UNIXAddress):
        return True
    return isinstance(address, IPv4Address | IPv6Address) and is_loopback(address.host)
