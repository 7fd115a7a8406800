"""Events as a receiver gets them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from twisted.internet.defer import Deferred

from support.deferreds import failure
from support.waiting import within
from txqmp.monitor.cloudevents import CloudEvent
from txqmp.monitor.sinks.delivery import DeliveryError, OutgoingEvent


SPOOL = "8f3c1d2a9b7e4c60"
VM = "4c4c4544-0042-3510-8052-b4c04f4d3532"
WHEN = dt.datetime(2026, 11, 21, 1, 20, 0, 123456, tzinfo=dt.timezone.utc)


def event(
    number: int,
    name: str = "STOP",
    *,
    vm: str = VM,
    data: bytes = b"{}",
    spool: str = SPOOL,
    called: str = "vm1",
) -> OutgoingEvent:
    """
    An event.

    :param number: in the spool.
    :param vm: the VM's UUID.
    :param called: the VM's name, of which the subject is not made here.
    """
    when = WHEN + dt.timedelta(milliseconds=number)
    event = CloudEvent(
        id=f"{spool}-{number:020}",
        source="qmp://node7.example/vm",
        type=f"org.qemu.qmp.{name}",
        subject="vm1",
        time=when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        recordedtime="2026-11-21T01:20:00.125001Z",
        partitionkey=vm,
        vmsession="0000000001",
        vmsequence="00000000000000000004",
        data=data,
    )
    return OutgoingEvent(id=event.id, type=event.type, vm=called, text=event.structured())


def events(count: int, *, start: int = 0) -> list[OutgoingEvent]:
    """So many events in a row."""
    return [event(number) for number in range(start, start + count)]


def lines(events: list[OutgoingEvent]) -> bytes:
    """Events as lines."""
    return b"".join(event.text + b"\n" for event in events)


def error(delivering: Deferred[None]) -> Any:
    """What a delivery has failed with."""
    return failure(delivering, DeliveryError).value


async def refusal(delivering: Deferred[None]) -> Any:
    """What a delivery fails with."""
    try:
        await within(delivering)
    except DeliveryError as problem:
        return problem
    raise AssertionError("it did not fail")
