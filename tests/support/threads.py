"""A reactor for threads to call, which runs nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.internet.task import Clock


class ReactorThread(Clock):
    """What comes from a thread, called when the test asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self.from_threads.put((function, args))

    def turn(self) -> None:
        """Make the next call, when there is one."""
        function, args = self.from_threads.get(timeout=20)
        function(*args)
