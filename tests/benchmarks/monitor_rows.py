"""The rows of the table that are about ``qmp-monitor``: into the spool, and to the sinks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median

from benchmarks.peers import PostTaker
from benchmarks.sides import take_turns
from benchmarks.table import Line, at_most, wanted
from support import broker as brokers


RATE = 2000.0
"""The steady rate, in events a second."""

LATENCY = 0.05
"""What 99 of 100 commits are to stay below, in seconds."""


def burst(rounds: int, path: str, count: int) -> Iterator[Line]:
    """Many events at once: the spool alone, and with what makes events of records."""
    took = take_turns(path, ["spool"], rounds, "burst", count=count)["spool"]
    yield wanted(f"events into the spool, {count:,} at once", "/s", count, took, 40_000)
    from_records = take_turns(path, ["spool"], rounds, "records", count=count)["spool"]
    rates = [count / median(wall for wall, _ in each) for each in (from_records, took)]
    yield Line(
        "the same, from the fleet's records",
        f"{rates[0]:,.0f} /s",
        "the spool alone",
        f"{rates[1]:,.0f}",
        [rates[0] / rates[1]],
    )


def steady(rounds: int, path: str, seconds: float) -> Iterator[Line]:
    """Events at a steady rate: how long one takes."""
    took = take_turns(path, ["spool"], rounds, "steady", rate=RATE, seconds=seconds)["spool"]
    halves, most = ([each[number] for each in took] for number in (0, 1))
    what = f"until the disk has it, {RATE:,.0f}/s"
    yield Line(f"{what}, p50", f"{median(halves) * 1e3:.1f} ms", "", "")
    yield Line(
        f"{what}, p99",
        f"{median(most) * 1e3:.1f} ms",
        "what is wanted",
        f"{LATENCY * 1e3:.0f} ms",
        [each / LATENCY for each in most],
        goal=at_most(1),
    )


def file(rounds: int, path: str, count: int) -> Iterator[Line]:
    """From the spool to a file."""
    took = take_turns(path, ["sinks"], rounds, "jsonl", count=count)["sinks"]
    yield wanted("spool to a file, each line on the disk", "/s", count, took, 30_000)


def webhook(rounds: int, path: str, count: int) -> Iterator[Line]:
    """From the spool to a webhook, one post after another."""
    for mode, times, what in (
        ("structured", 1, "spool to a webhook, one in flight"),
        ("batched", 10, "the same, a hundred in each post"),
    ):
        with PostTaker() as taker:
            took = take_turns(
                path, ["sinks"], rounds, "webhook", count=count * times, port=taker.port, mode=mode
            )["sinks"]
        yield wanted(what, "/s", count * times, took, 1000)


def broker(rounds: int, path: str, count: int) -> Iterator[Line]:
    """From the spool to RabbitMQ: a quorum queue, each event confirmed."""
    what = "spool to RabbitMQ, quorum, confirmed"
    if find_spec("pika") is None or not brokers.is_installed():
        yield Line(what, "(not installed)", "", "")
        return
    with _quorum_queue() as rabbitmq:
        took = take_turns(
            path,
            ["sinks"],
            rounds,
            "amqp",
            count=count,
            port=rabbitmq.port,
            user=brokers.USER,
            password=brokers.PASSWORD,
        )["sinks"]
    yield wanted(what, "/s", count, took, 8000)


@contextmanager
def _quorum_queue() -> Iterator[brokers.RabbitMQ]:
    """A broker with a quorum queue that all events go to."""
    rabbitmq = brokers.RabbitMQ()
    try:
        rabbitmq.start()
        with rabbitmq.channel() as channel:
            channel.queue_declare("all", durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind("all", "qmp", "#")
        yield rabbitmq
    finally:
        rabbitmq.stop()
