"""What there is to know of sinks that are rewound while they deliver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger


_T = TypeVar("_T")


class Rewinds:
    """
    Which sinks are being rewound, and who is told when one was.

    From the moment when it is asked for until whoever delivers is told that it is committed,
    acknowledgements are of what was read before: they would undo it.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._watchers: dict[Callable[[], object], str] = {}

    def watch(self, sink: str, call: Callable[[], object]) -> Callable[[], None]:
        """
        Have something called when a sink was rewound.

        :returns: what ends that; a second time does nothing.
        """

        def watcher() -> None:
            call()

        def stop() -> None:
            self._watchers.pop(watcher, None)

        self._watchers[watcher] = sink
        return stop

    def is_running(self, sink: str) -> bool:
        """Whether a sink is being rewound."""
        return self._running[sink] > 0

    def begin(self, sink: str) -> None:
        """It was asked for."""
        self._running[sink] += 1

    def end(self, result: _T, sink: str) -> _T:
        """
        It is done, or has failed: then whoever delivers is told too, because acknowledgements may
        have been left out meanwhile.

        :returns: the result, as it is.
        """
        # First this: who is told may read and acknowledge at once.
        self._running[sink] -= 1
        if not self._running[sink]:
            del self._running[sink]
        for watcher in [each for each, name in self._watchers.items() if name == sink]:
            try:
                watcher()
            except Exception:
                self._log.failure("nobody could be told that {sink} was rewound", sink=sink)
        return result
