"""A TOML file as a :class:`~txqmp.monitor.config.model.Config`: :func:`load`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from txqmp.monitor.config import places
from txqmp.monitor.config.errors import ConfigError
from txqmp.monitor.config.files import OpenFile
from txqmp.monitor.config.filters import pattern_of
from txqmp.monitor.config.model import (
    DEMO_NAME,
    HTTP,
    Config,
    Dial,
    Glob,
    Sink,
    Source,
    default_state_dir,
)
from txqmp.monitor.config.sinks import common_keys, read_sink
from txqmp.monitor.config.sources import http_keys, kinds, make_http, read_source
from txqmp.monitor.config.table import (
    At,
    Document,
    Key,
    Keys,
    Reported,
    boolean,
    checked,
    choice,
    duration,
    integer,
    kind_of,
    members,
    nearest,
    quoted,
    read_in,
    several,
    size,
    text,
)
from txqmp.monitor.envelope import OWN_TYPES, QEMU_TYPES, Envelope
from txqmp.monitor.sinks.settings import JSONLSettings, StdoutSettings
from txqmp.monitor.spool.limits import SpoolLimits, WhenFull


_T = TypeVar("_T")

MAX_FILE = 1 << 20
"""How large a configuration may be, in bytes."""

_Placed: TypeAlias = list[tuple[_T, At]]


def load(path: str, *, inherited: bool = True, environ: Mapping[str, str] | None = None) -> Config:
    """
    Read a configuration. It reads files and asks the system for users and groups, which may take a
    while: in a running daemon have a thread do it.

    :param path: of the file. Paths in it that are not absolute begin in its directory.
    :param inherited: whether sockets that systemd is to hand over (``systemd:…``) must be there.
        Only the daemon itself has them.
    :param environ: the environment, for secrets and the directory for state; that of the process
        by default.
    :raises ConfigError: it cannot be used; all that is wrong is told.
    """
    path = os.path.abspath(path)
    tables = _parse(path, _text(path, _read(path)))
    document = Document(os.path.dirname(path), os.environ if environ is None else environ)
    config = _config(tables, inherited, At("", document))
    if config is None:
        raise ConfigError(path, document.problems)
    return config


def state_directory(path: str) -> str | None:
    """
    What a configuration says of the state directory, as an absolute path; ``None`` where it says
    nothing. It is for who looks at what a daemon keeps: all else in the file may be wrong, and
    secrets that it refers to need not be there, or not for everybody.

    :param path: of the file.
    :raises ConfigError: it cannot be read, or says that wrong.
    """
    path = os.path.abspath(path)
    tables = _parse(path, _text(path, _read(path)))
    document = Document(os.path.dirname(path), {})
    root = At("", document)
    if "monitor" in tables and _is_table(tables["monitor"], "monitor", root):
        monitor = tables["monitor"]
        if "state_dir" not in monitor:
            return None
        with suppress(Reported):
            found = read_in(
                lambda value, at: at.path(text(value, at)),
                monitor["state_dir"],
                "state_dir",
                root.within("[monitor]"),
            )
            return str(found)
    if document.problems:
        raise ConfigError(path, document.problems)
    return None


# The file


def _read(path: str) -> bytes:
    try:
        with OpenFile(path) as file:
            return file.read(MAX_FILE)
    except ValueError as problem:
        raise ConfigError(path, [str(problem)]) from problem


def _text(path: str, data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(path, ["it begins with a byte order mark, which TOML does not have"])
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        before = data[: problem.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode()) + 1
    raise ConfigError(path, [f"it is not UTF-8 (at line {line}, column {column})"])


def _parse(path: str, content: str) -> dict[str, Any]:
    # Not above: the command line does without it.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables: dict[str, Any] = tomllib.loads(content)
        return tables
    except RecursionError:
        problem = "it is nested too deep"
    except ValueError as error:  # the parser's own, and those of numbers that are too long
        problem = f"it is no TOML: {error}"
    raise ConfigError(path, [problem])


# Its tables

_MONITOR: Keys = {
    "node": Key(checked(lambda name: Envelope(node=name).node)),
    "state_dir": Key(lambda value, at: places.state_directory(at.path(text(value, at)))),
    "events": Key(several(checked(pattern_of), least=1)),
    "qemu_types": Key(checked(lambda types: Envelope(node="x", qemu_types=types).qemu_types)),
    "own_types": Key(checked(lambda types: Envelope(node="x", own_types=types).own_types)),
    "demo": Key(boolean),
}

_SPOOL: Keys = {
    "max_bytes": Key(size(1)),
    "when_full": Key(choice(WhenFull)),
    "keep_bytes": Key(size(0)),
    "keep_for": Key(duration(0.0), "keep_seconds"),
    "max_waiting": Key(size(1)),
    "max_wait": Key(duration(0.001)),
    "max_dead": Key(integer(1, 10_000_000)),
    "max_dead_bytes": Key(size(1)),
}

_TABLES = {"monitor": _MONITOR, "spool": _SPOOL, "http": http_keys()}
_LISTS = ("source", "sink")
_NAMES = (*_TABLES, *_LISTS)


def _config(tables: dict[str, Any], inherited: bool, root: At) -> Config | None:
    """What the tables amount to; ``None`` where something is wrong, which is noted."""
    for name in tables:
        if name not in _NAMES:
            root.problem(_unknown(name))
    monitor = _table(tables, "monitor", root) or {}
    spool = _table(tables, "spool", root) or {}
    http = _http(tables, inherited, root)
    prefixes = (monitor.get("qemu_types", QEMU_TYPES), monitor.get("own_types", OWN_TYPES))
    sources = _sources(_list(tables, "source", root), inherited)
    sinks = _sinks(_list(tables, "sink", root), prefixes)
    _check_vms(sources, bool(monitor.get("demo")))
    _check_sinks(sinks)
    if not (tables.get("source") or monitor.get("demo")):
        root.problem("nothing to watch: there is no [[source]]")
    if not (tables.get("sink") or "http" in tables):
        root.problem("nobody would be told: there is no [[sink]] and no [http]")
    if root.source.problems:
        return None
    monitor.setdefault("state_dir", default_state_dir(root.source.environ))
    return Config(
        **monitor,
        spool=SpoolLimits(**spool),
        sources=tuple(source for source, _ in sources),
        sinks=tuple(sink for sink, _ in sinks),
        http=http,
    )


def _brackets(name: str) -> str:
    return f"[[{name}]]" if name in _LISTS else f"[{name}]"


def _unknown(name: str) -> str:
    near = nearest(name, dict.fromkeys(_NAMES))
    if near is not None:
        return f"unknown table {quoted(name)}; did you mean {_brackets(near)}?"
    return f"unknown table {quoted(name)}; there are {', '.join(map(_brackets, _NAMES))}"


def _is_table(value: Any, name: str, root: At) -> bool:
    """Whether this is a table; if it is not, that is noted."""
    if isinstance(value, dict):
        return True
    if isinstance(value, list):
        root.problem(f"[[{name}]] must be [{name}]: there is one such table")
    else:
        root.problem(f"[{name}] must be a table, and is {kind_of(value)}")
    return False


def _table(tables: dict[str, Any], name: str, root: At) -> dict[str, Any] | None:
    """
    The arguments that a table stands for, of which there may be one; ``None`` where there is none,
    or something is wrong with it.
    """
    if name not in tables or not _is_table(tables[name], name, root):
        return None
    try:
        return members(tables[name], _TABLES[name], root.within(f"[{name}]"))
    except Reported:
        return None


def _http(tables: dict[str, Any], inherited: bool, root: At) -> HTTP | None:
    found = _table(tables, "http", root)
    try:
        return None if found is None else make_http(found, inherited, root.within("[http]"))
    except Reported:
        return None


def _list(tables: dict[str, Any], name: str, root: At) -> list[tuple[dict[str, Any], At]]:
    """The tables of which there may be several, and where they stand."""
    value = tables.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        root.problem(f"[[{name}]] must be tables, each with two brackets around its name")
        return []
    found = []
    for number, each in enumerate(value, 1):
        called = each.get("name")
        shown = f" ({quoted(called)})" if isinstance(called, str) and called else ""
        found.append((each, root.within(f"[[{name}]] number {number}{shown}")))
    return found


def _sources(tables: Sequence[tuple[dict[str, Any], At]], inherited: bool) -> _Placed[Source]:
    known = kinds(inherited)
    found: _Placed[Source] = []
    for value, at in tables:
        try:
            found += [(source, at) for source in read_source(value, known, at)]
        except Reported:
            continue
    return found


def _sinks(tables: Sequence[tuple[dict[str, Any], At]], prefixes: tuple[str, str]) -> _Placed[Sink]:
    common = common_keys(*prefixes)
    found: _Placed[Sink] = []
    for value, at in tables:
        try:
            found.append((read_sink(value, common, at), at))
        except Reported:
            continue
    return found


# What goes together


def _check_vms(sources: _Placed[Source], demo: bool) -> None:
    _once(sources, places.place_of, lambda source: f"{_where(source)} is")
    dials = [(source, at) for source, at in sources if isinstance(source, Dial)]
    _once(dials, lambda dial: dial.name, lambda dial: f"the name {quoted(dial.name)} is")
    for dial, at in dials:
        if demo and dial.name == DEMO_NAME:
            at.problem(f"the VM of the demonstration is called {quoted(DEMO_NAME)} too")


def _check_sinks(sinks: _Placed[Sink]) -> None:
    _once(sinks, lambda sink: sink.name, lambda sink: f"the name {quoted(sink.name)} is")
    printing = [placed for placed in sinks if isinstance(placed[0].settings, StdoutSettings)]
    _once(printing, lambda _: True, lambda _: "the standard output is")
    files = [(s.settings, at) for s, at in sinks if isinstance(s.settings, JSONLSettings)]
    _once(files, lambda file: os.path.realpath(file.path), lambda file: f"{file.path} is")


def _once(placed: _Placed[_T], key: Callable[[_T], Hashable], words: Callable[[_T], str]) -> None:
    """Note what is there twice."""
    first: dict[Hashable, At] = {}
    for each, at in placed:
        before = first.get(key(each))
        if before is None:
            first[key(each)] = at
        else:
            at.problem(f"{words(each)} {'here' if before is at else f'in {before.place}'} already")


def _where(source: Source) -> str:
    return ", ".join(source.patterns) if isinstance(source, Glob) else source.where
