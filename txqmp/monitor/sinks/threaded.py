"""Deliveries that may block, and do so in a thread of their own: :class:`ThreadedDelivery`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.sinks.delivery import DeliveryError, OutgoingEvent, UnavailableError
from txqmp.monitor.worker import Runner


GRACE = 5.0
"""How long what is under way has to end when the delivery is stopped, in seconds."""


class BlockingReceiver(Protocol):
    """Takes events. Its methods may block; they are called in one thread, one after another."""

    def take(self, events: Sequence[OutgoingEvent]) -> None:
        """
        Take a batch.

        :raises DeliveryError: not all were taken.
        """

    def reopen(self) -> None:
        """Open anew what may have been moved away."""

    def close(self) -> None:
        """The end."""


class ThreadedDelivery:
    """
    Hands events to a receiver that may block: a :class:`~txqmp.monitor.sinks.delivery.Delivery`.

    What was begun in the thread cannot be interrupted. If it is given up, the events that it was
    about may arrive all the same, and until it ends nothing else is begun.

    :param name: of the receiver.
    :param batch: how many events it takes at a time.
    :param receiver: takes them, in the thread.
    :param runner: the thread.
    :param clock: where the wait comes from.
    :param grace: how long what is under way has to end when this is stopped, in seconds.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        batch: int,
        receiver: BlockingReceiver,
        runner: Runner,
        clock: IReactorTime,
        *,
        grace: float = GRACE,
    ) -> None:
        self.name = name
        self.batch = batch
        self._receiver = receiver
        self._runner = runner
        self._clock = clock
        self._grace = grace
        self._busy = False
        self._reopening = False
        self._stopped = False
        self._delivering: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def start(self) -> None:
        """Nothing needs to be opened before there is an event."""

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        """
        Hand over a batch.

        :raises RuntimeError: the one before has not ended.
        :raises DeliveryError: through the Deferred: not all were taken.
        """
        if self._delivering is not None:
            raise RuntimeError("the delivery before this one has not ended")
        if self._stopped:
            return fail(UnavailableError("stopped"))
        if self._busy:
            return fail(UnavailableError("the attempt that was given up has not ended"))
        self._busy = True
        self._delivering = delivering = Deferred[None](lambda _: self._fail("given up"))
        self._runner.run(self._receiver.take, tuple(events)).addBoth(self._taken)
        return delivering

    def reopen(self) -> None:
        """Open anew what may have been moved away, before the next batch."""
        if self._stopped or self._reopening:
            return
        self._reopening = True
        self._runner.run(self._receiver.reopen).addBoth(self._reopened)

    def stop(self) -> Deferred[None]:
        """
        End what is under way, for a limited time. A batch that the receiver takes within that time
        is delivered; else its delivery fails.
        """
        if self._stopped:
            return succeed(None)
        self._stopped = True
        self._stopping = stopping = Deferred[None]()
        self._deadline = self._clock.callLater(self._grace, self._too_late)
        self._runner.run(self._receiver.close).addBoth(self._closed)
        self._runner.stop()
        return stopping

    def _taken(self, result: Any) -> None:
        self._busy = False
        delivering, self._delivering = self._delivering, None
        if isinstance(result, Failure) and not result.check(DeliveryError):
            self._log.failure("{sink}: cannot deliver", result, sink=self.name)
            result = Failure(UnavailableError(f"a defect: {result.getErrorMessage()}"))
        if delivering is not None:
            delivering.callback(result)

    def _fail(self, reason: str) -> None:
        """Wait no longer for the batch that is under way."""
        delivering, self._delivering = self._delivering, None
        if delivering is not None:
            delivering.errback(UnavailableError(reason))

    def _reopened(self, result: Any) -> None:
        self._reopening = False
        if isinstance(result, Failure):
            self._log.failure("{sink}: cannot reopen", result, sink=self.name)

    def _closed(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._log.failure("{sink}: cannot close", result, sink=self.name)
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._end()

    def _too_late(self) -> None:
        self._log.warn("{sink}: what was under way has not ended", sink=self.name)
        self._end()

    def _end(self) -> None:
        stopping, self._stopping = self._stopping, None
        self._fail("stopped")
        if stopping is not None:
            stopping.callback(None)
