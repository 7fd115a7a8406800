"""A private RabbitMQ for the integration tests: one for the session, on loopback only.

A test module takes the fixtures by ``pytest_plugins``.

PYTEST_DONT_REWRITE: test modules import types from here before pytest sees that it is a plugin.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted

from support.broker import CLOSED_VHOST, PASSWORD, USER, WRITER, Queue, RabbitMQ
from support.waiting import within
from txqmp.monitor.sinks.amqp import AMQPSettings, amqp_delivery
from txqmp.monitor.sinks.amqp.delivery import AMQPDelivery


__all__ = [
    "CLOSED_VHOST",
    "PASSWORD",
    "USER",
    "WRITER",
    "MakeQueue",
    "MakeSink",
    "Queue",
    "RabbitMQ",
    "make_queue",
    "make_sink",
    "rabbitmq",
    "unique",
]

MakeQueue = Callable[..., Queue]
MakeSink = Callable[..., AMQPDelivery]


@pytest.fixture
def make_queue(rabbitmq: RabbitMQ) -> Iterator[MakeQueue]:
    """Make a queue, which goes away with the test.

    It takes the kind, ``quorum`` or ``classic``, the exchange, the binding, and arguments of
    RabbitMQ's by their names, with ``_`` for ``-``.
    """
    made: list[str] = []

    def make(
        kind: str = "quorum", *, exchange: str = "qmp", key: str = "qmp.#", **arguments: Any
    ) -> Queue:
        name = unique("queue")
        made.append(name)
        given = {f"x-{word.replace('_', '-')}": value for word, value in arguments.items()}
        with rabbitmq.channel() as channel:
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind, **given})
            channel.queue_bind(name, exchange, key)
        return Queue(rabbitmq, name)

    yield make
    with rabbitmq.channel() as channel:
        for name in made:
            channel.queue_delete(name)


@pytest_twisted.async_yield_fixture
async def make_sink(rabbitmq: RabbitMQ) -> AsyncIterator[MakeSink]:
    """Make a sink, started, which is stopped with the test; takes changes to its settings."""
    from twisted.internet import reactor

    made: list[AMQPDelivery] = []

    def make(**changes: Any) -> AMQPDelivery:
        usual = {"host": "127.0.0.1", "port": rabbitmq.port, "user": USER, "password": PASSWORD}
        sink = amqp_delivery(reactor, AMQPSettings(**{**usual, **changes}))
        made.append(sink)
        sink.start()
        return sink

    yield make
    for sink in made:
        await within(sink.stop(), what="the sink's end")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running broker, the same for all tests of the session."""
    broker = RabbitMQ()
    try:
        yield broker.start()
    finally:
        broker.stop()


def unique(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"
