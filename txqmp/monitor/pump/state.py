"""How a sink stands, and what became of its events."""

from __future__ import annotations

import enum
from typing import Protocol

import attrs


class PumpState(enum.Enum):
    """How a sink stands."""

    UP = "up"
    """It delivers, or has nothing to deliver."""
    WAITING = "waiting"
    """It waits because the receiver asked for that."""
    FAILING = "failing"
    """Its last attempt failed; it tries again."""
    DISABLED = "disabled"
    """The receiver wants no more, until the configuration is loaded anew."""


@attrs.define
class PumpCounters:
    """
    What became of a sink's events.

    :ivar sent: were taken by the receiver.
    :ivar attempts: how often that was tried.
    :ivar failures: how many of the attempts failed, for no fault of an event's.
    :ivar dead: became dead letters.
    :ivar lost: were gone before the sink had them, because the spool was full.
    """

    sent: int = 0
    attempts: int = 0
    failures: int = 0
    dead: int = 0
    lost: int = 0


class PumpObserver(Protocol):
    """Is told what a pump does."""

    def sink_sent(self, sink: str, events: int = 1) -> None:
        """The receiver has taken events."""

    def sink_attempt(self, sink: str, outcome: str, seconds: float | None = None) -> None:
        """There was an attempt; ``outcome`` is ``ok``, ``rejected``, ``retry`` or ``gone``."""

    def sink_dead(self, sink: str, reason: str, events: int = 1) -> None:
        """Events became dead letters."""

    def spool_dropped(self, sink: str, reason: str, events: int = 1) -> None:
        """The sink has lost events."""


class Unobserved:
    """The observer where nobody wants to know."""

    def sink_sent(self, sink: str, events: int = 1) -> None:
        """Nothing."""

    def sink_attempt(self, sink: str, outcome: str, seconds: float | None = None) -> None:
        """Nothing."""

    def sink_dead(self, sink: str, reason: str, events: int = 1) -> None:
        """Nothing."""

    def spool_dropped(self, sink: str, reason: str, events: int = 1) -> None:
        """Nothing."""
