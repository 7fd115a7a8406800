"""
What ``query-qmp-schema`` of a simulated VM returns: its own commands in the shape of the real
thing, and as much else as makes it as large (fact G14).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from txqmp.server.commands import Kind, RegisteredCommand


REAL_SIZE = 206_999
"""The size of QEMU 7.2's schema, in bytes."""

_BUILTIN = {"str": "string", "int": "int", "bool": "boolean", "number": "number", "any": "value"}
_NAMES = {"string": "str", "integer": "int", "boolean": "bool", "number": "number"}


class _Types:
    """Entries of a schema, their types under numbers as QEMU masks them."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = [
            {"name": name, "meta-type": "builtin", "json-type": json_type}
            for name, json_type in _BUILTIN.items()
        ]
        self._arrays: dict[str, str] = {}
        self._last = 0

    def add(self, **entry: Any) -> str:
        """Add a type; its name is returned."""
        name = str(self._last)
        self._last += 1
        self.entries.append({"name": name, **entry})
        return name

    def of(self, kind: Kind | None) -> str:
        """The name of an argument's type."""
        if kind is None:
            return "any"
        if kind.values is not None:
            members = [{"name": value} for value in kind.values]
            return self.add(**{"meta-type": "enum"}, members=members, values=list(kind.values))
        if kind.name == "array":
            return self._array(self.of(kind.element))
        if kind.name == "object":
            return self.add(**{"meta-type": "object"}, members=[])
        return _NAMES[kind.name]

    def _array(self, element: str) -> str:
        if element not in self._arrays:
            name = f"[{element}]"
            entry = {"name": name, "meta-type": "array", "element-type": element}
            self.entries.append(entry)
            self._arrays[element] = name
        return self._arrays[element]


def schema(commands: Iterable[RegisteredCommand], size: int = REAL_SIZE) -> list[dict[str, Any]]:
    """
    The schema of a server.

    :param commands: the server's own.
    :param size: how large its text is at least, in bytes: the rest are enumerations that nothing
        uses.
    """
    types = _Types()
    nothing = types.add(**{"meta-type": "object"}, members=[])
    for command in commands:
        members: list[dict[str, Any]] = []
        for argument in command.arguments or ():
            member: dict[str, Any] = {"name": argument.name, "type": types.of(argument.kind)}
            if argument.optional:
                member["default"] = None
            members.append(member)
        entry: dict[str, Any] = {
            "name": command.name,
            "meta-type": "command",
            "arg-type": types.add(**{"meta-type": "object"}, members=members),
            "ret-type": nothing,
        }
        if command.oob:
            entry["allow-oob"] = True
        types.entries.append(entry)
    for name in ("STOP", "RESUME", "RESET", "SHUTDOWN", "POWERDOWN"):
        types.entries.append({"name": name, "meta-type": "event", "arg-type": nothing})
    left = size - len(orjson.dumps(types.entries))
    while left > 0:
        values = [f"value-{number}" for number in range(16)]
        members = [{"name": value} for value in values]
        types.add(**{"meta-type": "enum"}, members=members, values=values)
        left -= len(orjson.dumps(types.entries[-1])) + 1
    return types.entries
