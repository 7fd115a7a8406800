"""The sink that appends: a line for each record at the end of a file."""

from __future__ import annotations

import os
from typing import Any

from txqmp.monitor.sinks.lines import LineSink, LineWriter, WriteError
from txqmp.monitor.sinks.worker import Worker


MODE = 0o640
"""The permissions of a new file, before the umask."""

_PIECE = 1 << 16


class AppendedFile:
    """
    Lines to the end of a file, which is opened when there is a line and made where it is missing.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._writer = LineWriter(_PIECE)

    def write(self, lines: list[bytes]) -> None:
        """:raises WriteError: not all were written."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            try:
                self._descriptor = os.open(self._path, flags, MODE)
            except OSError as problem:
                raise WriteError(problem, 0) from problem
        self._writer.write(self._descriptor, lines)

    def reopen(self) -> None:
        """Open it anew before the next write: it may have been rotated."""
        self.close()

    def close(self) -> None:
        """Close it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def jsonl_sink(reactor: Any, path: str) -> LineSink:
    """The sink that appends to a file."""
    return LineSink(f"jsonl {path}", reactor, Worker(reactor, "jsonl"), AppendedFile(path))
