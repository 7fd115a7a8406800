"""
The sink that publishes: events to RabbitMQ (AMQP 0-9-1), to a topic exchange, with confirms.

An event is taken when the broker confirms it: then it is in all queues that are bound to it, in a
quorum queue on most of its nodes. Up to a window of events is on its way at a time. What was not
confirmed when a connection ended is published again, with the same ``message_id``: a consumer may
see an event twice.

Events reach a queue in their order, unless the broker refuses one: those that were on their way
behind it may overtake it, and come once more after it.

It needs pika, which nothing imports until the sink is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txqmp.monitor.sinks.amqp.settings import AMQPTLS, AMQPSettings


if TYPE_CHECKING:
    from txqmp.monitor.sinks.amqp.delivery import AMQPDelivery


__all__ = ["AMQPSettings", "AMQPTLS", "amqp_delivery"]


def amqp_delivery(reactor: Any, settings: AMQPSettings) -> AMQPDelivery:
    """
    The sink that publishes.

    :param reactor: it must run.
    :raises ImportError: pika is not installed; the message says how to get it.
    """
    try:
        from txqmp.monitor.sinks.amqp.delivery import AMQPDelivery
    except ModuleNotFoundError as error:
        if error.name != "pika":
            raise
        message = "RabbitMQ needs pika, which is not installed: pip install 'txqmp[amqp]'"
        raise ImportError(message, name="pika") from error
    return AMQPDelivery(reactor, settings)
