"""
Which names this server answers to.

A browser can be made to take us for another site: a name that its owner points first to their own
server and then to 127.0.0.1 (DNS rebinding) lets that site's scripts read ours. They cannot change
the ``Host`` header, which holds their name.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[^:\[\]/@\s]+))(?::\d{0,5})?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether a name or an address stands for this host alone, and whoever asks."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def name_in(header: bytes) -> str | None:
    """
    The name in a ``Host`` header, in lower case and without its port.

    :returns: ``None`` where it holds none.
    """
    found = _HOST.fullmatch(header.decode("latin-1").strip().lower())
    if found is None:
        return None
    return found["six"] or found["name"].rstrip(".") or None


def answers_to(header: bytes, reached: IAddress, names: frozenset[str]) -> bool:
    """
    Whether a request is meant for us.

    :param header: its ``Host`` header.
    :param reached: our end of its connection.
    :param names: what we are called beside ``localhost`` and our addresses, in lower case.
    """
    if isinstance(reached, UNIXAddress):
        return True  # no browser gets there by itself
    host = name_in(header)
    if host is None:
        return False
    own = isinstance(reached, IPv4Address | IPv6Address) and host == reached.host
    return own or is_loopback(host) or host in names
