"""Commands that take as long as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from txqmp.server.commands import Call, Handler


class Hold:
    """
    Calls of a command that wait. Made by :meth:`~txqmp.testing.SimulatedVM.hold`.

    :ivar calls: the calls that wait, oldest first.
    """

    def __init__(self, name: str, forget: Callable[[], object]) -> None:
        self.name = name
        self.calls: list[Call] = []
        self._forget = forget
        self._gates: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self.calls)

    def wrap(self, handler: Handler) -> Handler:
        """A handler that first waits here."""

        def wait(call: Call, **arguments: Any) -> Deferred[Any]:
            gate: Deferred[None] = Deferred()
            self.calls.append(call)
            self._gates.append(gate)
            return gate.addCallback(lambda _: maybeDeferred(handler, call, **arguments))

        return wait

    def let_one_go(self) -> None:
        """Let the oldest call run."""
        self.calls.pop(0)
        self._gates.pop(0).callback(None)

    def release(self) -> None:
        """Let all calls run, and hold none any more; a second time does nothing."""
        forget, self._forget = self._forget, lambda: None
        forget()
        while self.calls:
            self.let_one_go()
