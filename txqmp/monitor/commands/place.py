"""Which state directory a command is about."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from txqmp.monitor.commands.errors import CommandFailedError
from txqmp.monitor.statedir import default_state_directory


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which it is."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--state-dir",
        metavar="DIRECTORY",
        help="where the daemon keeps its state; by default $STATE_DIRECTORY, or"
        " /var/lib/qmp-monitor",
    )
    group.add_argument(
        "--config", metavar="FILE", help="the daemon's configuration, which says where that is"
    )


def state_directory(arguments: argparse.Namespace) -> str:
    """
    The state directory that a command line means.

    :raises CommandFailedError: the configuration cannot be read, or there is no such directory.
    """
    found = arguments.state_dir
    if arguments.config is not None:
        found = _configured(arguments.config)
    if not found:
        found = default_state_directory(os.environ)
    if not os.path.isdir(found):
        raise CommandFailedError(f"{found}: there is no such directory; --state-dir names another")
    return str(found)


def _configured(path: str) -> str | None:
    """
    What a configuration says of the state directory; ``None`` where it says nothing.

    :raises CommandFailedError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            monitor = _read_toml(file.read().decode()).get("monitor", {})
    except OSError as problem:
        raise CommandFailedError(f"{path}: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise CommandFailedError(f"{path}: {problem}") from problem
    found = monitor.get("state_dir") if isinstance(monitor, dict) else None
    if found is not None and not isinstance(found, str):
        raise CommandFailedError(f"{path}: monitor.state_dir is not a text")
    return found


def _read_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib.loads(text)
    raise ValueError("this version of Python cannot read it: use --state-dir")
