"""
Another configuration for a daemon that runs::

    try:
        new = reload(path, old)
    except ConfigError as error:
        ...                             # say so; everything goes on as it was
    changes = differences(old, new)
    for sink in changes.sinks.removed: ...
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import attrs

from txqmp.monitor.config import model
from txqmp.monitor.config.errors import ConfigError
from txqmp.monitor.config.model import HTTP, Config, Source
from txqmp.monitor.config.places import place_of
from txqmp.monitor.config.toml import load


_T = TypeVar("_T")

FIXED = ("state_dir", "events", "spool", "demo")
"""What cannot be changed while the daemon runs, as members of
:class:`~txqmp.monitor.config.model.Config`."""

_AS_WRITTEN = {"spool": "[spool]"}


@attrs.frozen(kw_only=True)
class Changes(Generic[_T]):
    """
    What is different between things of one kind.

    :ivar removed: what is no more.
    :ivar changed: what is there still, but with other settings: how it was and how it is to be.
    :ivar added: what is new.
    """

    removed: tuple[_T, ...] = ()
    changed: tuple[tuple[_T, _T], ...] = ()
    added: tuple[_T, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.removed or self.changed or self.added)


@attrs.frozen(kw_only=True)
class Differences:
    """
    What is different between two configurations.

    :ivar sources: the same one is the one with the same place.
    :ivar sinks: the same one is the one with the same name.
    :ivar http: there is one at most.
    :ivar envelope: whether events are to be made otherwise: with another node or other prefixes.
    :ivar fixed: what is different of :data:`FIXED`.
    """

    sources: Changes[Source] = Changes()
    sinks: Changes[model.Sink] = Changes()
    http: Changes[HTTP] = Changes()
    envelope: bool = False
    fixed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.sources or self.sinks or self.http or self.envelope or self.fixed)


def differences(old: Config, new: Config) -> Differences:
    """
    What is different between two configurations. The order of sources and of sinks makes no
    difference; secrets are compared as well.
    """
    return Differences(
        sources=_changes(old.sources, new.sources, place_of),
        sinks=_changes(old.sinks, new.sinks, lambda sink: sink.name),
        http=_changes(_one(old.http), _one(new.http), lambda _: None),
        envelope=old.envelope() != new.envelope(),
        fixed=tuple(name for name in FIXED if getattr(old, name) != getattr(new, name)),
    )


def reload(path: str, old: Config) -> Config:
    """
    Read a configuration again, for a daemon that runs. As :func:`~txqmp.monitor.config.toml.load`
    this may take a while.

    :param path: of the file.
    :param old: what the daemon does now.
    :raises ConfigError: it cannot be used, or differs in what cannot be changed while the daemon
        runs; all that is wrong is told.
    """
    new = load(path)
    fixed = differences(old, new).fixed
    if fixed:
        raise ConfigError(
            path,
            [
                f"{_AS_WRITTEN.get(name, f'[monitor]: {name}')} cannot be changed while the daemon"
                " runs: start it anew"
                for name in fixed
            ],
        )
    return new


def _one(http: HTTP | None) -> tuple[HTTP, ...]:
    return () if http is None else (http,)


def _changes(old: Iterable[_T], new: Iterable[_T], key: Callable[[_T], Hashable]) -> Changes[_T]:
    before = {key(each): each for each in old}
    after = {key(each): each for each in new}
    return Changes(
        removed=tuple(each for place, each in before.items() if place not in after),
        changed=tuple(
            (each, after[place])
            for place, each in before.items()
            if place in after and after[place] != each
        ),
        added=tuple(each for place, each in after.items() if place not in before),
    )
