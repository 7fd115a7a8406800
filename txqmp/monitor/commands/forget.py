"""Keep nothing any more for a sink that has been taken out of the configuration."""

from __future__ import annotations

import argparse

from txqmp.monitor.commands import place, show
from txqmp.monitor.commands.asking import Ask, change


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be given."""
    place.add_options(parser)
    parser.add_argument("--sink", required=True, metavar="NAME", help="which sink")


def run(arguments: argparse.Namespace, ask: Ask) -> int:
    """
    Do it: its place and its dead letters are gone.

    :raises CommandFailedError: the daemon uses it.
    :raises SpoolError: there is no such sink, or the spool cannot be changed.
    """
    state, sink = place.state_directory(arguments), arguments.sink
    change(ask, state, "forget-sink", {"sink": sink}, lambda control: control.forget_sink(sink))
    show.say(f"{show.harmless(sink)}: nothing is kept for it any more")
    return 0
