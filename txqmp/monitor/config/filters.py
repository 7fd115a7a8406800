"""Which events are wanted: names of QEMU's events, or types of CloudEvents, and globs of them."""

from __future__ import annotations

import re

from txqmp.fleet.records import Kind
from txqmp.monitor.envelope import OWN_TYPES, QEMU_TYPES


MAX_PATTERN = 300
"""The longest name or glob, in characters."""

_OWN_WORDS = frozenset(kind.value for kind in Kind if kind is not Kind.EVENT)
_LITERAL = re.compile(r"[^*?\[]*")


def event_names(text: str) -> tuple[str, ...]:
    """
    Names of QEMU's events, or globs of names, from a list with commas.

    :raises ValueError: it is no such list.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not name or not name.isprintable() or " " in name:
            raise ValueError(f"{text!r} is no list of events, such as STOP,BLOCK_*")
    return names


def pattern_of(text: str) -> str:
    """
    A name, or a glob of names: ``*``, ``?``, ``[A-F]`` and ``[!A-F]`` stand for others.

    :raises ValueError: it can fit nothing.
    """
    if not text or len(text) > MAX_PATTERN or not text.isprintable():
        raise ValueError(f"{text[:50]!r} is no name, and no glob of names such as BLOCK_*")
    rest = text
    while "[" in rest:
        rest = rest.partition("[")[2].removeprefix("!")
        # As everywhere, a "]" that comes first is one of those that it stands for.
        end = rest.find("]", 1)
        if end < 0:
            raise ValueError(f"{text!r} has a [ without its ]")
        rest = rest[end + 1 :]
    return text


def type_pattern(text: str, qemu_types: str = QEMU_TYPES, own_types: str = OWN_TYPES) -> str:
    """
    The glob of types that a name or a glob stands for. One that begins as a type does, with one of
    the two prefixes, is a type already; any other is QEMU's: ``BLOCK_*`` is
    ``org.qemu.qmp.BLOCK_*``.

    :param text: such as ``"STOP"``, ``"BLOCK_*"``, ``"txqmp.monitor.*"``.
    :param qemu_types: what the types of QEMU's events begin with.
    :param own_types: what those of the daemon's own words begin with.
    :returns: for the ``types`` of a :class:`~txqmp.monitor.spool.Filter`.
    :raises ValueError: it can fit nothing.
    """
    pattern_of(text)
    literal = _LITERAL.match(text)
    begin = literal[0] if literal else ""
    for prefix in (f"{qemu_types}.", f"{own_types}."):
        # "org.*" and "txqmp.monitor*" are globs of types as well.
        may_become = "." in begin and text != begin and prefix.startswith(begin)
        if begin.startswith(prefix) or may_become:
            return text
    if text in _OWN_WORDS:
        raise ValueError(f"QEMU has no event {text!r}; what the daemon says is {own_types}.{text}")
    # What vendors add has full stops: __com.redhat_…
    if "." in begin and not begin.startswith("__"):
        raise ValueError(
            f"{text!r} begins neither with {qemu_types!r} nor with {own_types!r}: no type does so"
        )
    return f"{qemu_types}.{text}"
