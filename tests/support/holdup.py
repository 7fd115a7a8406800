"""Hold up QEMU's main loop: commands that are running, and do not end until they are let."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from support.qemu import RealQEMU
from support.waiting import until


class HoldUp:
    """A pipe that nobody reads. A command that opens it blocks QEMU's main loop, not its I/O
    thread: connections are taken, the parser reads, out-of-band commands are answered, and all
    else waits.

    :param directory: for the pipe and for the files that tell how far QEMU has come.
    """

    #: What the commands are.
    NAME = "chardev-add"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pipe = directory / "pipe"
        self._end = -1
        os.mkfifo(self._pipe)

    def arguments(self, name: str, *, fails: bool = False) -> dict[str, Any]:
        """Return a command's arguments.

        :param name: tells this command from others.
        :param fails: what becomes of the command when it goes on.
        """
        # QEMU makes the log file first, then opens "out", and last "in".
        data = {"logfile": str(self._mark(name)), "out": str(self._pipe)}
        if fails:
            data["in"] = str(self._directory / "missing")
        return {"id": name, "backend": {"type": "file", "data": data}}

    def running(self, name: str) -> Deferred[None]:
        """Return a Deferred that fires when a command is being executed."""
        return until(self._mark(name).exists)

    def _mark(self, name: str) -> Path:
        return self._directory / f"{name}.running"

    def release(self) -> None:
        """Let all go on that are held up now or later."""
        if self._end < 0:
            self._end = os.open(self._pipe, os.O_RDWR)

    def close(self) -> None:
        """Hold nobody up any more."""
        if self._end >= 0:
            os.close(self._end)
        self._end = -1


@contextmanager
def held_up(qemu: RealQEMU) -> Iterator[HoldUp]:
    """A :class:`HoldUp` for a QEMU, which goes on at the end."""
    hold = HoldUp(qemu.directory)
    try:
        yield hold
    finally:
        hold.release()
        if qemu.running:
            qemu.execute("query-status")  # after that nobody opens the pipe
        hold.close()
