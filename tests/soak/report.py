"""What a long run has to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Report(Protocol):
    """The outcome of one run."""

    def lines(self) -> list[str]:
        """What was counted and measured, for people."""

    def problems(self) -> list[str]:
        """What must not have happened; nothing for a run that went well."""


Run = Callable[[Any, int], Awaitable[Report]]
"""A run, given the reactor and how often to do what it does."""
