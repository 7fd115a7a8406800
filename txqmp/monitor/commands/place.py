"""Which state directory a command is about."""

from __future__ import annotations

import argparse
import os

from txqmp.monitor.commands.errors import CommandFailedError
from txqmp.monitor.config import ConfigError
from txqmp.monitor.config import state_directory as configured
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
        try:
            found = configured(arguments.config)
        except ConfigError as problem:
            raise CommandFailedError("; ".join(str(problem).splitlines())) from problem
    if not found:
        found = default_state_directory(os.environ)
    if not os.path.isdir(found):
        raise CommandFailedError(f"{found}: there is no such directory; --state-dir names another")
    return str(found)
