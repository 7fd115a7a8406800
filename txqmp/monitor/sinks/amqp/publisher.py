"""Batches through one channel in confirm mode, one after another: :class:`Publisher`."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from pika import BasicProperties, exceptions, spec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txqmp.monitor.sinks.amqp.connection import BrokerConnection
from txqmp.monitor.sinks.amqp.flight import Flight
from txqmp.monitor.sinks.amqp.message import properties, routing_key
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.amqp.words import why_closed
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError


# RabbitMQ's words where a message is larger than its max_message_size allows.
_TOO_LARGE = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


@attrs.frozen
class Outcome:
    """
    What became of a batch.

    :ivar taken: how many events from the front the broker has taken.
    :ivar problem: why not all; ``None`` where all were taken.
    :ivar rejected: whether the event after those is at fault, and not the broker.
    """

    taken: int
    problem: str | None = None
    rejected: bool = False


class Publisher:
    """
    Publishes batches on a channel, one after another, and follows what becomes of each event.

    :param channel: pika's own ``Channel``, open.
    :param reactor: where time comes from.

    """

    def __init__(
        self, connection: BrokerConnection, channel: Any, settings: AMQPSettings, reactor: Any
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._settings = settings
        self._reactor = reactor
        self._answer: Deferred[Any] | None = None
        self._tag = 0
        self._events: Sequence[OutgoingEvent] = ()
        self._flight: Flight | None = None
        self._done: Deferred[Outcome] | None = None
        self._rejection: str | None = None
        self._patience: IDelayedCall | None = None
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)

    @property
    def usable(self) -> bool:
        """Whether something can be published."""
        return bool(self._channel.is_open) and self._connection.problem is None

    async def prepare(self) -> None:
        """
        See that the exchange is there, and turn on confirms. Publishing to an exchange that is
        missing would end the channel, and with it the account of all that is on its way.

        :raises UnavailableError: the broker refused.
        """
        declare = self._channel.exchange_declare
        await self._call(declare, exchange=self._settings.exchange, passive=True)
        await self._call(self._channel.confirm_delivery, ack_nack_callback=self._confirmed)

    async def _call(self, method: Callable[..., object], **arguments: object) -> None:
        self._answer = answer = Deferred[Any]()
        method(callback=answer.callback, **arguments)
        await answer

    def publish(
        self, events: Sequence[OutgoingEvent], *, careful: bool = False
    ) -> Deferred[Outcome]:
        """
        Publish a batch, after the one before has ended.

        :param careful: the first event alone, and the others when the broker has taken it.
        :returns: fires with what became of it. It does not fail; when it is cancelled the
            connection is cut off.
        """
        window = self._settings.window
        self._events = events
        self._rejection = None
        self._flight = Flight([each.id for each in events], window, careful=careful)
        self._done = done = Deferred[Outcome](self._abandon)
        self._patience = self._reactor.callLater(self._settings.confirm_timeout, self._no_confirm)
        self._go_on()
        return done

    def _go_on(self) -> None:
        flight = self._flight
        assert flight is not None
        while (place := flight.to_publish()) is not None:
            self._rejection = self._send(self._events[place])
            if self._rejection is None:
                flight.published(self._tag)
            else:
                flight.end_here()
        if flight.over:
            self._end(flight)

    def _send(self, event: OutgoingEvent) -> str | None:
        """Publish an event; return why it cannot be sent by anybody, if so."""
        too_large = self._too_large(event)
        if too_large is not None:
            return too_large
        try:
            self._channel.basic_publish(
                self._settings.exchange,
                routing_key(event),
                event.text,
                BasicProperties(**properties(event)),
                mandatory=True,
            )
        except (exceptions.ShortStringTooLong, ValueError, struct.error) as error:
            # All of it is encoded before any of it is written.
            return f"the event makes no AMQP message: {error}"
        self._tag += 1
        return None

    def _too_large(self, event: OutgoingEvent) -> str | None:
        limit = self._connection.max_size
        if limit is None or len(event.text) <= limit:
            return None
        return f"the event has {len(event.text)} bytes, and the broker takes {limit}"

    def _end(self, flight: Flight) -> None:
        """The fate of the whole batch is known."""
        done, self._done = self._done, None
        patience, self._patience = self._patience, None
        outcome = self._outcome(flight)
        self._flight = None
        self._events = ()
        assert done is not None
        assert patience is not None
        if patience.active():
            patience.cancel()
        done.callback(outcome)

    def _outcome(self, flight: Flight) -> Outcome:
        taken = flight.taken
        if taken == len(self._events):
            return Outcome(taken)
        rejection = self._too_large(self._events[taken])
        if rejection is None and flight.problem is None:
            rejection = self._rejection
        if rejection is not None:
            return Outcome(taken, rejection, rejected=True)
        return Outcome(taken, flight.problem)

    def _abandon(self, _: object) -> None:
        self._connection.give_up("given up")
        if self._flight is not None:
            self._flight.lost("given up")
            self._end(self._flight)

    def _no_confirm(self) -> None:
        limit = self._settings.confirm_timeout
        if self._connection.blocked is not None:  # that has a limit of its own
            self._patience = self._reactor.callLater(limit, self._no_confirm)
        else:
            self._connection.give_up(f"the broker confirmed nothing for {limit:g} s")

    # What the broker tells

    def _confirmed(self, frame: Any) -> None:
        flight = self._flight
        if flight is None:
            return
        method = frame.method
        problem = None
        if isinstance(method, spec.Basic.Nack):
            problem = "the broker did not take it (nack): a queue may be full or not available"
        assert self._patience is not None
        self._patience.reset(self._settings.confirm_timeout)
        flight.settled(method.delivery_tag, method.multiple, problem)
        self._go_on()

    def _returned(self, _: object, method: Any, header: BasicProperties, __: bytes) -> None:
        if self._flight is not None and header.message_id is not None:
            where = f"exchange {method.exchange!r}"
            self._flight.returned(
                header.message_id,
                f"no queue takes {method.routing_key!r} from {where}: {method.reply_text}",
            )

    def _closed(self, _: object, reason: Exception) -> None:
        problem = self._connection.problem or f"the broker refused: {why_closed(reason)}"
        found = _TOO_LARGE.search(str(reason))
        if found:
            self._connection.max_size = int(found[1])
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.errback(UnavailableError(problem))
        if self._flight is not None:
            self._flight.lost(problem)
            self._end(self._flight)
