"""The program: which command it is, and how it ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from txqmp.monitor.commands import dead, events, forget, replay, show, status
from txqmp.monitor.commands.asking import Ask, ask
from txqmp.monitor.commands.errors import CommandFailedError, WrongUsageError
from txqmp.monitor.spool import SpoolError


COMMANDS = {
    "status": status,
    "events": events,
    "replay": replay,
    "dead": dead,
    "forget": forget,
}
"""The modules of the commands, by name. Each has ``add_arguments`` and ``run``."""


def main(words: Sequence[str] | None = None, ask: Ask = ask) -> int:
    """
    Run the program.

    :param words: the command line without the program's name; by default that of this process.
    :param ask: how the running daemon is asked.
    :returns: the exit code.
    """
    words = sys.argv[1:] if words is None else list(words)
    try:
        if words and words[0] in COMMANDS:
            return _run(words, ask)
        return _run_daemon(words)
    except BrokenPipeError:
        # Nobody reads any more (``qmp-monitor events | head``). Python would complain when it
        # writes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _run_daemon(words: Sequence[str]) -> int:
    from txqmp.monitor.commands.foreground import run_daemon

    code = run_daemon(words)
    if "--help" in words:
        show.say(_overview())
        sys.stdout.flush()
    return code


def _overview() -> str:
    """The commands, for who asks for help."""
    lines = [f"  qmp-monitor {name:<8} {_summary(name)}" for name in COMMANDS]
    return "\n".join(["Commands for what a daemon has left, or does (--help says more):", *lines])


def _summary(name: str) -> str:
    return (COMMANDS[name].__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")


def _run(words: Sequence[str], ask: Ask) -> int:
    name = words[0]
    module = COMMANDS[name]
    parser = argparse.ArgumentParser(f"qmp-monitor {name}", description=_summary(name))
    module.add_arguments(parser)
    try:
        arguments = parser.parse_args(words[1:])
    except SystemExit as end:
        return int(end.code or 0)
    try:
        code = int(module.run(arguments, ask))
        sys.stdout.flush()
        return code
    except WrongUsageError as problem:
        show.complain(str(problem))
        return 2
    except (CommandFailedError, SpoolError) as problem:
        sys.stdout.flush()
        show.complain(str(problem))
        return 1
