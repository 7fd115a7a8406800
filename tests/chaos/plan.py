"""What is to happen, and when: :class:`Plan`."""

from __future__ import annotations

import random
from dataclasses import dataclass


TIMEOUT = 2.0
"""How long the daemon waits for a webhook's answer, in seconds."""

SINGLES = 10
"""Of how many VMs the events are posted one by one; those of all are posted in batches."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What is to happen. All that is random is drawn from the seed.

    :ivar seconds: for how long events are raised.
    :ivar vms: how many VMs there are.
    :ivar rate: how many events they raise in a second, all together.
    :ivar kills: how often the daemon is killed.
    :ivar broker_kills: how often the broker is; ``None`` for no broker.
    :ivar drain: how long the daemon may take after that to deliver everything, in seconds.
    """

    seed: int
    seconds: float = 120.0
    vms: int = 200
    rate: float = 2000.0
    kills: int = 10
    broker_kills: int | None = 2
    drain: float = 180.0

    def draw(self, what: str) -> random.Random:
        """The numbers that one thing is decided by; they are the same for the same seed."""
        return random.Random(f"{self.seed} {what}")

    @property
    def dialling(self) -> int:
        """How many of the VMs dial in; the daemon dials the others."""
        return self.vms // 5

    def kill_moments(self) -> list[float]:
        """When the daemon is killed, in seconds from the first event."""
        draw = self.draw("kills")
        return sorted(draw.uniform(0.02, 0.98) * self.seconds for _ in range(self.kills))

    def broker_moments(self) -> list[float]:
        """When the broker is killed: once in each of as many equal parts of the time."""
        count = self.broker_kills or 0
        draw = self.draw("broker")
        return [(at + draw.uniform(0.2, 0.8)) * self.seconds / count for at in range(count)]


def name_of(number: int) -> str:
    """What a VM is called."""
    return f"vm-{number:04d}"
