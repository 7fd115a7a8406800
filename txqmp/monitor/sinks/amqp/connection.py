"""
pika's connection for Twisted, with what it lacks: :class:`BrokerConnection`.

It uses attributes of pika's that are private, so only pika 1.4 will do. What is put right:

* Why a connection ended gets lost: a wrong password, a wrong virtual host, a wrong certificate all
  become ``AMQPConnectionError: 1``. Here the reason is kept, and told in words.
* Its channels (``TwistedChannel``) blame the wrong message where one is returned while others are
  on their way, and log the bodies of what is returned. Here a channel is pika's own ``Channel``,
  which :class:`~txqmp.monitor.sinks.amqp.publisher.Publisher` follows by itself.
* Asking for a channel raises at once where the connection is closed. Here the Deferred fails.
* A connection is closed when the other side has read everything, which one that is stuck never
  does. Here it is cut off after :data:`CLOSING` seconds.
"""

from __future__ import annotations

import logging
from typing import Any

from pika import ConnectionParameters, exceptions
from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.connection import Connection
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.sinks.amqp.words import not_amqp, why_closed, why_lost
from txqmp.monitor.sinks.delivery import UnavailableError


CLOSING = 2.0
"""How long a connection has to close by itself, in seconds."""

# What it calls errors is told by us, with the reason; and it logs more than everybody may read.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class BrokerConnection(TwistedProtocolConnection):
    """
    A connection to the broker.

    :param parameters: for pika.
    :param reactor: where time comes from.

    :ivar blocked: why the broker takes nothing at present, in its words; ``None`` while it does.
    :ivar problem: why the connection ended, or is about to; ``None`` while it is of use.
    :ivar max_size: how many bytes the broker takes as one message, where it has said so.
    """

    ready: Any
    _log = Logger()

    def __init__(self, parameters: ConnectionParameters, reactor: Any) -> None:
        super().__init__(parameters, custom_reactor=reactor)
        self.blocked: str | None = None
        self.problem: str | None = None
        self.max_size: int | None = None
        self._reactor = reactor
        self._parameters = parameters
        self._spoke = False
        self._ended = False
        self._last_call: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._impl._adapter_disconnect_stream = self._disconnect
        self._impl.add_on_connection_blocked_callback(self._on_blocked)
        self._impl.add_on_connection_unblocked_callback(self._on_unblocked)

    # Its life

    def makeConnection(self, transport: Any) -> None:
        if ITCPTransport.providedBy(transport):
            # A batch's last bytes are not to wait for the broker's answer to its first.
            transport.setTcpNoDelay(True)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        if not self._spoke:
            self._spoke = True
            problem = not_amqp(data)
            if problem is not None:
                self.give_up(problem)
                return
        super().dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:
        last_call, self._last_call = self._last_call, None
        if last_call is not None:
            last_call.cancel()
        # pika would forget its own reason, and then which phase this was.
        cause: Any = self._impl._error or reason.value
        phase = self._impl.connection_state
        if self.problem is None:
            self.problem = why_lost(cause, phase, self._parameters, self.blocked, self.transport)
        self._ended = True
        super().connectionLost(Failure(cause))
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def when_lost(self) -> Deferred[None]:
        """A new Deferred, which fires when the connection has ended."""
        lost = Deferred[None]()
        if self._ended:
            lost.callback(None)
        else:
            self._waiting.append(lost)
        return lost

    def give_up(self, reason: str) -> None:
        """Cut it off, for a reason that is told as its own."""
        if self._ended:
            return
        if self.problem is None:
            self.problem = reason
        self.transport.abortConnection()

    def leave(self) -> None:
        """Close it as the protocol asks for, within :data:`CLOSING` seconds."""
        if self.problem is None and self._impl.is_open:
            self._limit_closing()
            self._impl.close()

    def _disconnect(self) -> None:
        """pika wants to close the connection."""
        self._limit_closing()
        self.transport.loseConnection()

    def _limit_closing(self) -> None:
        if self._last_call is None:
            self._last_call = self._reactor.callLater(CLOSING, self._cut_off)

    def _cut_off(self) -> None:
        self._last_call = None
        self.transport.abortConnection()

    def _on_connection_failed(self, _: Connection, error: Exception | None = None) -> None:
        ready, self.ready = self.ready, None
        if ready is not None:
            ready.errback(UnavailableError(self.problem or "no connection"))

    # What it is for

    async def open_channel(self) -> Any:
        """
        Open a channel.

        :returns: pika's own ``Channel``.
        :raises UnavailableError: the connection has ended, or the broker refused.
        """
        opened = Deferred[Any]()

        def closed(_: object, reason: Exception) -> None:
            if not opened.called:
                opened.errback(UnavailableError(self.problem or why_closed(reason)))

        try:
            channel = self._impl.channel(on_open_callback=opened.callback)
        except exceptions.AMQPError as error:
            raise UnavailableError(self.problem or f"no channel: {error!r}") from error
        channel.add_on_close_callback(closed)
        return await opened

    # What the broker tells

    def _on_blocked(self, _: Connection, frame: Any) -> None:
        self.blocked = str(frame.method.reason)
        self._log.warn(
            "the broker at {host} takes nothing at present: {reason}",
            host=self._parameters.host,
            reason=self.blocked,
        )

    def _on_unblocked(self, *_: object) -> None:
        self.blocked = None
        self._log.info("the broker at {host} takes messages again", host=self._parameters.host)
