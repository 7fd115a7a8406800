"""
How a table of a TOML file becomes the arguments of a class: which keys it may have, and how the
value of each is read. Whatever is wrong is noted, and the reading goes on: people want to hear of
all of it at once.
"""

from __future__ import annotations

import difflib
import enum
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs

from txqmp.monitor.config import units


_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.Enum)

_MOST_SHOWN = 60  # characters of what somebody wrote


@attrs.frozen
class Document:
    """
    What is being read.

    :ivar directory: of the file: paths that are not absolute begin there.
    :ivar environ: the environment.
    :ivar problems: what was found to be wrong.
    """

    directory: str
    environ: Mapping[str, str]
    problems: list[str] = attrs.Factory(list)


@attrs.frozen
class At:
    """
    Where a value stands.

    :ivar place: for people, such as ``[[sink]] number 2 ("ops")``.
    :ivar source: what it is from.
    """

    place: str
    source: Document

    def within(self, part: str) -> At:
        """A part of it."""
        return At(f"{self.place}: {part}" if self.place else part, self.source)

    def path(self, text: str) -> str:
        """
        An absolute path.

        :raises ValueError: the text is empty.
        """
        if not text:
            raise ValueError("the path is empty")
        return os.path.normpath(os.path.join(self.source.directory, text))

    def problem(self, text: str) -> None:
        """Note that something is wrong with it."""
        line = f"{self.place}: {text}" if self.place else text
        self.source.problems.append("".join(c if c.isprintable() else "?" for c in line))


class Reported(Exception):  # noqa: N818 - it is no error of its own, but the end of one
    """Something is wrong, and was noted."""


Read: TypeAlias = Callable[[Any, At], Any]
"""Reads a value: it returns what it stands for, raises ``ValueError`` with what is wrong with it,
or :class:`Reported` if that was noted."""


@attrs.frozen
class Key:
    """
    A key that a table may have.

    :ivar read: how its value is read.
    :ivar member: the argument that it becomes; ``None`` for one that is called as it is.
    :ivar required: whether it must be there.
    """

    read: Read
    member: str | None = None
    required: bool = False


Keys: TypeAlias = Mapping[str, Key]
"""The keys that a table may have, by name."""


def members(table: Mapping[str, Any], keys: Keys, at: At) -> dict[str, Any]:
    """
    The arguments that a table stands for.

    :raises Reported: something is wrong with it.
    """
    found: dict[str, Any] = {}
    wrong = False
    for name, value in table.items():
        key = keys.get(name)
        try:
            if key is None:
                raise ValueError(_unknown(name, keys))
            found[key.member or name] = read_in(key.read, value, name, at)
        except ValueError as problem:
            at.problem(str(problem))
            wrong = True
        except Reported:
            wrong = True
    for name, key in keys.items():
        if key.required and name not in table:
            at.problem(f"{quoted(name)} is missing")
            wrong = True
    if wrong:
        raise Reported
    return found


def read_in(read: Read, value: Any, part: str, at: At) -> Any:
    """
    Read a part of a value.

    :raises Reported: something is wrong with it.
    """
    inner = at.within(part)
    try:
        return read(value, inner)
    except ValueError as problem:
        inner.problem(str(problem))
        raise Reported from None


def make(cls: Callable[..., _T], found: Mapping[str, Any], at: At) -> _T:
    """
    The object that checked arguments make.

    :raises Reported: they do not go together.
    """
    try:
        return cls(**found)
    except ValueError as problem:
        at.problem(str(problem))
        raise Reported from None


def quoted(name: str) -> str:
    """A name as it stands in a file."""
    shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"
    return json.dumps(shown, ensure_ascii=False)


def nearest(name: str, known: Mapping[str, object]) -> str | None:
    """The known name that is most like another; ``None`` where none is."""
    if len(name) > _MOST_SHOWN:
        return None
    found = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    return found[0] if found else None


def _unknown(name: str, keys: Keys) -> str:
    near = nearest(name, keys)
    if near is not None:
        return f"unknown key {quoted(name)}; did you mean {quoted(near)}?"
    return f"unknown key {quoted(name)}; there are {', '.join(map(quoted, keys))}"


# How values are read


def kind_of(value: object) -> str:
    """What a value is, in words."""
    for types, word in (
        (str, "text"),
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "a table"),
    ):
        if isinstance(value, types):
            return word
    return "a date or a time"


def _expect(value: object, types: type, what: str) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise ValueError(f"it must be {what}, and is {kind_of(value)}")


def text(value: Any, at: At) -> str:
    """Text that is not empty."""
    _expect(value, str, "text")
    if not value:
        raise ValueError("it is empty")
    return str(value)


def boolean(value: Any, at: At) -> bool:
    """``true`` or ``false``."""
    _expect(value, bool, "true or false")
    return bool(value)


def integer(least: int, most: int) -> Read:
    """A whole number in a range."""

    def read(value: Any, at: At) -> int:
        _expect(value, int, "a whole number")
        if not least <= value <= most:
            raise ValueError(f"it must be from {least} to {most}")
        return int(value)

    return read


def duration(least: float, most: float = math.inf) -> Read:
    """A duration in a range, in seconds."""

    def read(value: Any, at: At) -> float:
        found = units.seconds(value)
        if not least <= found <= most:
            limits = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise ValueError(f"it must be {limits} seconds")
        return found

    return read


def whole_seconds(most: int) -> Read:
    """A duration of whole seconds."""

    def read(value: Any, at: At) -> int:
        found = units.seconds(value)
        if found > most or found != int(found):
            raise ValueError(f"it must be whole seconds, from 0 to {most}")
        return int(found)

    return read


def size(least: int) -> Read:
    """A size in bytes."""

    def read(value: Any, at: At) -> int:
        found = units.size(value)
        if not least <= found < 1 << 63:
            raise ValueError(f"it must be from {least} bytes to 8 EiB")
        return found

    return read


def choice(kind: type[_E]) -> Read:
    """One of the words of an enumeration."""
    words = {str(each.value): each for each in kind}

    def read(value: Any, at: At) -> _E:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"it must be {' or '.join(map(quoted, words))}")
        return words[value]

    return read


def several(read: Read, *, least: int = 0) -> Read:
    """A list, each of whose values is read the same way; or one such value."""

    def read_all(value: Any, at: At) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (read(value, at),)
        if len(value) < least:
            raise ValueError("the list is empty")
        found, wrong = [], False
        for number, each in enumerate(value, 1):
            try:
                found.append(read_in(read, each, f"number {number}", at))
            except Reported:
                wrong = True
        if wrong:
            raise Reported
        return tuple(found)

    return read_all


def table(keys: Keys, cls: Callable[..., Any]) -> Read:
    """A table, as an object."""

    def read(value: Any, at: At) -> Any:
        _expect(value, dict, "a table")
        return make(cls, members(value, keys, at), at)

    return read


def checked(check: Callable[[str], _T]) -> Read:
    """Text, as a function makes something else of it."""
    return lambda value, at: check(text(value, at))
