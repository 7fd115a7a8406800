"""What can go wrong with a command."""

from __future__ import annotations


class CommandFailedError(Exception):
    """
    A command cannot be carried out; the text, of one line, says why. The exit code is 1.
    """


class WrongUsageError(Exception):
    """The command line is wrong; the text says how. The exit code is 2."""


class NoDaemonError(Exception):
    """No daemon takes commands in this state directory."""
