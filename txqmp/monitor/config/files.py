"""Files that are read whole, and are files: what is none could make the reader wait."""

from __future__ import annotations

import os
import stat
from types import TracebackType


_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


class OpenFile:
    """
    A file that is open to be read.

    :param path: where it is.
    :param private: refuse one that others than its owner may read or write.
    :raises ValueError: it cannot be opened, is no file, or open to others. The message leaves the
        path to the caller.
    """

    def __init__(self, path: str, *, private: bool = False) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise ValueError(problem.strerror) from problem
        try:
            self._check(os.fstat(self._file).st_mode, private)
        except ValueError:
            os.close(self._file)
            raise

    def _check(self, mode: int, private: bool) -> None:
        if stat.S_ISDIR(mode):
            raise ValueError("it is a directory")
        if not stat.S_ISREG(mode):
            raise ValueError("it is no file")
        if private and mode & _OTHERS:
            shown = f"{stat.S_IMODE(mode):o}"
            raise ValueError(
                f"it is open to others than its owner: its mode is {shown} and must be 600"
            )

    def read(self, limit: int) -> bytes:
        """
        What is in it.

        :param limit: how much that may be, in bytes.
        :raises ValueError: it is more, or cannot be read.
        """
        try:
            with open(self._file, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        except OSError as problem:
            raise ValueError(problem.strerror) from problem
        if len(data) > limit:
            raise ValueError(f"it is larger than {limit >> 10} KiB")
        return data

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)
