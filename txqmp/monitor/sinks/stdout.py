"""The sink that prints: a line for each record on the standard output."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from txqmp.monitor.sinks.lines import LineSink, LineWriter
from txqmp.monitor.sinks.worker import Worker


STANDARD_OUTPUT = 1


class Descriptor:
    """
    Lines to an open descriptor. It is written to as it is, past Python's ``sys.stdout``, which
    Twisted puts into the log.

    A pipe whose reader is stuck blocks the thread that writes, and nobody else.
    """

    def __init__(self, descriptor: int = STANDARD_OUTPUT) -> None:
        self._descriptor = descriptor
        self._writer = LineWriter(select.PIPE_BUF)

    def write(self, lines: list[bytes]) -> None:
        """:raises WriteError: not all were written."""
        self._writer.write(self._descriptor, lines)

    def reopen(self) -> None:
        """It cannot be opened anew."""

    def close(self) -> None:
        """It is not ours to close."""


def stdout_sink(reactor: Any, closed: Callable[[], object]) -> LineSink:
    """
    The sink that prints.

    :param closed: called when nobody reads any more (``qmp-monitor … | head -1``).
    """
    return LineSink("stdout", reactor, Worker(reactor, "stdout"), Descriptor(), closed=closed)
