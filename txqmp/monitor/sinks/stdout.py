"""Events on the standard output, a line for each: :func:`stdout_delivery`."""

from __future__ import annotations

import errno
import select
from collections.abc import Sequence
from typing import Any

from txqmp.monitor.sinks.lines import EventLines, LineWriter
from txqmp.monitor.sinks.settings import StdoutSettings
from txqmp.monitor.sinks.threaded import ThreadedDelivery
from txqmp.monitor.worker import Worker


STANDARD_OUTPUT = 1

BATCH = 1000
"""How many events are printed at a time, at most."""

_GONE = (errno.EPIPE, errno.EBADF)


class Descriptor:
    """
    Lines to an open descriptor. It is written to as it is, past Python's ``sys.stdout``, which
    Twisted puts into the log.

    A pipe whose reader is stuck blocks the thread that writes, and nobody else.
    """

    def __init__(self, descriptor: int = STANDARD_OUTPUT) -> None:
        self._descriptor = descriptor
        self._writer = LineWriter(select.PIPE_BUF)

    def write(self, lines: Sequence[bytes]) -> None:
        """:raises WriteError: not all were written."""
        self._writer.write(self._descriptor, lines)

    def reopen(self) -> None:
        """It cannot be opened anew."""

    def close(self) -> None:
        """It is not ours to close."""


def stdout_delivery(
    reactor: Any, settings: StdoutSettings, descriptor: int = STANDARD_OUTPUT
) -> ThreadedDelivery:
    """
    Prints events. They are delivered when they are handed to the kernel, which may be before
    anybody reads them. Where nobody reads any more (``qmp-monitor … | head -1``), or there is no
    standard output, it fails with :exc:`~txqmp.monitor.sinks.delivery.GoneError`.

    :param reactor: the running one.
    :param settings: nothing.
    :param descriptor: where to print.
    """
    receiver = EventLines(Descriptor(descriptor), _GONE)
    return ThreadedDelivery("stdout", BATCH, receiver, Worker(reactor, "stdout"), reactor)
