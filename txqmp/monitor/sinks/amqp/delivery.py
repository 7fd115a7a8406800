"""The connection that is kept, and the batches that go over it: :class:`AMQPDelivery`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.sinks.amqp.connection import BrokerConnection
from txqmp.monitor.sinks.amqp.dial import dial
from txqmp.monitor.sinks.amqp.publisher import Publisher
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.delivery import EventRejectedError, OutgoingEvent, UnavailableError
from txqmp.reconnect import Backoff, Redialler


RETRY = Backoff(initial=1.0, maximum=60.0, factor=2.0, jitter=0.5)
"""How long to wait before the next attempt to connect, where nobody asks for one earlier."""

WINDOWS = 5
"""How many windows of events are handed over at a time. Between two batches nothing is on its way,
so one window at a time would have broker and daemon wait for each other in turn."""


class AMQPDelivery:
    """
    Publishes events to RabbitMQ: a :class:`~txqmp.monitor.sinks.delivery.Delivery`.

    One connection is kept from :meth:`start` to :meth:`stop`, so that what is wrong with it shows
    before there is an event. When it ends it is made anew: after a wait, or at once where there is
    a batch, because whoever delivers has waited already. (Twisted's ``ClientService`` can do the
    waits, but not the second.)

    :param reactor: the running one.
    :param settings: where the broker is.
    :param endpoint: the broker's; ``None`` for the one of the settings.
    :param backoff: the waits between attempts to connect.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: AMQPSettings,
        *,
        endpoint: IStreamClientEndpoint | None = None,
        backoff: Backoff = RETRY,
    ) -> None:
        self.name = f"{settings.place} vhost {settings.vhost} exchange {settings.exchange}"
        self.batch = settings.window * WINDOWS
        self._reactor = reactor
        self._settings = settings
        self._endpoint = endpoint
        self._redialler = Redialler(reactor, self._connect, backoff)
        self._connection: BrokerConnection | None = None
        self._attempt: Deferred[Any] | None = None
        self._publisher: Publisher | None = None
        # Who waits for a publisher: the delivery that is under way.
        self._waiter: Deferred[Publisher] | None = None
        self._delivering: Deferred[None] | None = None
        self._careful = False
        # What is wrong, as it was logged; "" while all is well, None before the beginning.
        self._told: str | None = None
        self._stopped = False

    @property
    def blocked(self) -> str | None:
        """Why the broker takes nothing at present, in its words; ``None`` while it does."""
        return None if self._connection is None else self._connection.blocked

    def start(self) -> None:
        """Begin to connect."""
        self._connect()

    def reopen(self) -> None:
        """Try to connect now, if that is being waited for. Files are read at each connection."""
        self._redialler.hasten()

    def stop(self) -> Deferred[None]:
        """Fail the batch that is under way, and close the connection."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._redialler.stop()
        if self._delivering is not None:
            self._delivering.cancel()
        if self._attempt is not None:
            over = Deferred[None]()
            self._attempt.addBoth(lambda _: over.callback(None))
            self._attempt.cancel()
            await over
        if self._connection is not None:
            self._connection.leave()
            await self._connection.when_lost()

    # Batches

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        """
        Publish a batch.

        :returns: fires when the broker has confirmed all of them.
        :raises RuntimeError: the one before has not ended.
        :raises EventRejectedError: through the Deferred: no broker, or this one never, takes the
            event as a message.
        :raises UnavailableError: through the Deferred: no connection, or the broker refused.
        """
        if self._delivering is not None:
            raise RuntimeError("the delivery before this one has not ended")
        if self._stopped:
            return fail(UnavailableError("stopped"))
        self._delivering = delivering = Deferred.fromCoroutine(self._deliver(tuple(events)))
        return delivering.addBoth(self._delivered)

    async def _deliver(self, events: Sequence[OutgoingEvent]) -> None:
        try:
            publisher = await self._ready()
        except CancelledError:
            raise UnavailableError("given up") from None
        outcome = await publisher.publish(events, careful=self._careful)
        # What was refused may be refused again: then the others are not to go round and round.
        self._careful = outcome.problem is not None and not outcome.rejected
        if outcome.problem is None:
            return
        if outcome.rejected:
            raise EventRejectedError(outcome.problem, outcome.taken)
        raise UnavailableError(outcome.problem, outcome.taken)

    def _delivered(self, result: Any) -> Any:
        self._delivering = None
        return result

    async def _ready(self) -> Publisher:
        """Something to publish with; what there is none for is said as for :meth:`deliver`."""
        if self._publisher is not None and self._publisher.usable:
            return self._publisher
        self._waiter = waiter = Deferred[Publisher]()
        if not self._redialler.hasten():
            self._connect()
        return await waiter

    # The connection

    def _connect(self) -> None:
        """Begin an attempt, unless there is one."""
        if self._attempt is not None or self._stopped:
            return
        self._publisher = None
        self._attempt = attempt = Deferred.fromCoroutine(self._establish())
        limit = self._settings.connect_timeout
        attempt.addTimeout(limit, self._reactor, onTimeoutCancel=_too_late)
        attempt.addCallbacks(self._established, self._failed)

    async def _establish(self) -> Publisher:
        """A channel, on the connection that there is, else on a new one."""
        connection = self._connection
        if connection is None or connection.problem is not None:
            connection = await dial(self._reactor, self._settings, self._endpoint)
            self._connection = connection
            connection.when_lost().addCallback(self._lost, connection)
        try:
            channel = await connection.open_channel()
            publisher = Publisher(connection, channel, self._settings, self._reactor)
            await publisher.prepare()
        except CancelledError:
            connection.give_up("no answer")
            raise UnavailableError("connected, but the broker opens no channel") from None
        return publisher

    def _established(self, publisher: Publisher) -> None:
        self._attempt = None
        self._publisher = publisher
        self._redialler.succeeded()
        if self._told != "":
            self._told = ""
            self._log.info("{sink}: connected", sink=self.name)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(publisher)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        waiter, self._waiter = self._waiter, None
        if self._stopped:
            return
        if not failure.check(UnavailableError):
            self._log.failure("{sink}: cannot connect", failure, sink=self.name)
            failure = Failure(UnavailableError(f"cannot connect: {failure.getErrorMessage()}"))
        self._redialler.failed()
        self._tell(failure.getErrorMessage())
        if waiter is not None:
            waiter.errback(failure)

    def _lost(self, _: None, connection: BrokerConnection) -> None:
        was_up, self._publisher = self._publisher is not None, None
        if self._connection is connection:
            self._connection = None
        # Else an attempt is under way, or has failed, because of this.
        if was_up and not self._stopped:
            self._redialler.lost()
            self._tell(str(connection.problem))

    def _tell(self, problem: str) -> None:
        """Log what is wrong, when it is something new."""
        emit = self._log.debug if problem == self._told else self._log.warn
        self._told = problem
        emit("{sink}: {problem}; it will be tried again", sink=self.name, problem=problem)


def _too_late(result: Any, limit: float) -> Any:
    """The time for an attempt is up: say so, and what it was waiting for."""
    what = result.getErrorMessage() if isinstance(result, Failure) else "no connection"
    raise UnavailableError(f"{what} within {limit:g} s")
