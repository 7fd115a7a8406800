"""The tables ``[[source]]`` and ``[http]``: where VMs come from, and where the page is."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from functools import partial
from typing import Any

from txqmp.fleet.peers import Peers
from txqmp.monitor.config import places
from txqmp.monitor.config.model import HTTP, Glob, Listen, Source
from txqmp.monitor.config.table import (
    At,
    Key,
    Keys,
    Reported,
    boolean,
    checked,
    duration,
    kind_of,
    make,
    members,
    quoted,
    several,
    table,
    text,
)


def _dial(value: Any, at: At) -> str:
    where = _absolute(text(value, at))
    places.dial(where)
    return where


def _absolute(where: str) -> str:
    path = places.unix_path(where)
    if path is not None and not path.startswith(("/", "@")):
        raise ValueError(f"{quoted(where)}: the path of a socket must be absolute")
    return where


def _vm_name(value: str) -> str:
    if not places.is_vm_name(value):
        raise ValueError(f"{quoted(value)} is no name for a VM")
    return value


def _pattern(value: Any, at: At) -> str:
    return places.pattern(at.path(text(value, at)))


def _number(lookup: Callable[[str], int], what: str) -> Callable[[Any, At], int]:
    """The number of a user or a group, which is given by name or by number."""

    def read(value: Any, at: At) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < (1 << 32) - 1:
                raise ValueError(f"{value} is no number of a {what}")
            return value
        if not isinstance(value, str):
            raise ValueError(f"it must be the name or number of a {what}, and is {kind_of(value)}")
        try:
            return lookup(value)
        except KeyError:
            raise ValueError(f"there is no {what} {quoted(value)}") from None

    return read


def _peers(**found: Any) -> Peers:
    if not any(found.values()):
        raise ValueError('nobody could connect: give "users" or "groups"')
    return Peers(**{name: frozenset(numbers) for name, numbers in found.items()})


_USER = _number(lambda name: pwd.getpwnam(name).pw_uid, "user")
_GROUP = _number(lambda name: grp.getgrnam(name).gr_gid, "group")
_PEERS: Keys = {"users": Key(several(_USER), "uids"), "groups": Key(several(_GROUP), "gids")}
_SYSTEMD_UNIX = ("systemd:UNIX:", "systemd:domain=UNIX:")


def _make_listen(where: str, allow: Peers | None = None) -> Listen:
    unix = places.unix_path(where) is not None or where.startswith(_SYSTEMD_UNIX)
    if allow is not None and not unix:
        raise ValueError('"allow" is for UNIX sockets: elsewhere nobody says who connects')
    return Listen(where=where, allow=allow)


def kinds(inherited: bool) -> dict[str, Keys]:
    """
    The kinds of sources, by the key that each must have, and all keys of each.

    :param inherited: whether sockets that systemd is to hand over must be there.
    """
    listen = checked(lambda where: places.listen(_absolute(where), inherited=inherited))
    return {
        "dial": {"dial": Key(_dial, "where"), "name": Key(checked(_vm_name))},
        "glob": {
            "glob": Key(several(_pattern, least=1), "patterns"),
            "rescan": Key(duration(0.1, 86400.0)),
        },
        "listen": {"listen": Key(listen, "where"), "allow": Key(table(_PEERS, _peers))},
    }


def read_source(value: dict[str, Any], known: dict[str, Keys], at: At) -> list[Source]:
    """
    A source, or several: one for each pattern of a glob.

    :param value: its table.
    :param known: of :func:`kinds`.
    :raises Reported: something is wrong with it.
    """
    given = [kind for kind in known if kind in value]
    if len(given) != 1:
        said = f"it has {' and '.join(map(quoted, given))}" if given else "it has none"
        at.problem(f'a source has one of "dial", "glob" and "listen", and {said}')
        raise Reported
    (kind,) = given
    keys = known[kind]
    _check_others(value, kind, known, at)
    found = members(value, keys, at)
    if kind == "dial":
        return [make(places.dial, found, at)]
    if kind == "listen":
        return [make(_make_listen, found, at)]
    patterns = found.pop("patterns")
    return [Glob(patterns=(pattern,), **found) for pattern in patterns]


def _check_others(value: dict[str, Any], kind: str, known: dict[str, Keys], at: At) -> None:
    """Keys of other kinds are known, but not here."""
    wrong = False
    for other, keys in known.items():
        for name in keys:
            if name in value and name not in known[kind]:
                at.problem(f"{quoted(name)} goes with {quoted(other)}, not with {quoted(kind)}")
                wrong = True
    if wrong:
        raise Reported


def http_keys() -> Keys:
    """The keys of ``[http]``."""
    return {
        "listen": Key(checked(_absolute), required=True),
        "names": Key(several(checked(_host))),
        "remote": Key(boolean),
        "log_requests": Key(boolean),
    }


def _host(value: str) -> str:
    if not value.isascii() or not value.isprintable() or set(value) & set(" /:@[]"):
        raise ValueError(f"{quoted(value)} is no name of a host")
    return value.lower().rstrip(".")


def make_http(found: dict[str, Any], inherited: bool, at: At) -> HTTP:
    """
    The status page.

    :param found: the arguments that its table stands for.
    :param inherited: as for :func:`kinds`.
    :raises Reported: something is wrong with it.
    """
    check = partial(places.web, remote=found.get("remote", False), inherited=inherited)
    make(check, {"text": found["listen"]}, at.within("listen"))
    return make(HTTP, found, at)
