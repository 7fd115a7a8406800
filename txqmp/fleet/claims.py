"""Who is who now: :class:`Claims`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime


if TYPE_CHECKING:
    from txqmp.fleet.vm import VM


REFUSE_FOR = 30.0
"""How long a VM that was refused is left alone, in seconds, where nothing changes before."""


class Claims:
    """
    Which VM holds which identity, and who waits for it. A VM holds one as long as its session runs.
    """

    def __init__(self) -> None:
        self._holders: dict[str, VM] = {}
        self._waiting: dict[str, list[Waiter]] = {}

    def holder(self, key: str) -> VM | None:
        """The VM that holds an identity."""
        return self._holders.get(key)

    def take(self, key: str, vm: VM) -> None:
        """Have a VM hold an identity that nobody holds."""
        assert key not in self._holders
        self._holders[key] = vm

    def give_back(self, key: str) -> None:
        """Have nobody hold an identity, and tell those who wait for it."""
        self._holders.pop(key, None)
        for waiter in self._waiting.pop(key, ()):
            waiter.freed()

    def wait(self, key: str, clock: IReactorTime, again: Callable[[], object]) -> Waiter:
        """
        Have something called when an identity may be free, once, but not at once: when its holder
        has gone, or after :data:`REFUSE_FOR` seconds.

        :returns: what can be cancelled.
        """
        waiter = Waiter(self, key, clock, again)
        if key in self._holders:
            self._waiting.setdefault(key, []).append(waiter)
        return waiter

    def _forget(self, key: str, waiter: Waiter) -> None:
        waiting = self._waiting.get(key, [])
        if waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[key]


class Waiter:
    """One that was refused, and may try again later. Made by :meth:`Claims.wait`."""

    def __init__(
        self, claims: Claims, key: str, clock: IReactorTime, again: Callable[[], object]
    ) -> None:
        self._claims = claims
        self._key = key
        self._again = again
        self._call: IDelayedCall | None = clock.callLater(REFUSE_FOR, self._due)

    def freed(self) -> None:
        """The identity is free now."""
        if self._call is not None:
            self._call.reset(0)

    def _due(self) -> None:
        self._call = None
        self._claims._forget(self._key, self)
        self._again()

    def cancel(self) -> None:
        """Wait no more; a second time does nothing."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            self._claims._forget(self._key, self)
