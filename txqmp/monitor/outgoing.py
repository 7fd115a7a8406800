"""
What is in the spool, as it is sent (:class:`~txqmp.monitor.sinks.delivery.OutgoingEvent`).

A sink that has lost events because the spool was full is told so in their place, by an event of
the type ``txqmp.monitor.gap``. It is about no VM: its ``subject`` is ``qmp-monitor``, its
``source`` and ``partitionkey`` are the node's, ``vmsession`` and ``vmsequence`` are zero. Its
``data`` is ``{"kind": "gap", "data": {…}}`` with the ``sink``, the ``reason``, ``count``, the
sequence numbers of the ``first`` and the ``last`` event that is missing, and their times, ``since``
and ``until``, where they are known. It is in no spool; its id is made of the spool's own and the
last number, so that it is the same if it is sent twice.
"""

from __future__ import annotations

from typing import Any

from txqmp.fleet.records import Kind, timestamp, utc
from txqmp.jsontext import write
from txqmp.monitor.cloudevents import CloudEvent, numbered
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.sinks.delivery import OutgoingEvent
from txqmp.monitor.spool import SpoolGap, Stored


SUBJECT = "qmp-monitor"
"""The subject of what is about no VM."""

FULL = "the spool was full"
"""Why a sink has lost events."""


def outgoing(stored: Stored) -> OutgoingEvent:
    """
    A record of the spool.

    :raises ValueError: it is no draft of an event.
    """
    text = numbered(stored.data, f"{stored.run:016x}", stored.position)
    return OutgoingEvent(id=stored.id, type=stored.type, vm=stored.vm, text=text)


def outgoing_gap(
    envelope: Envelope, sink: str, gap: SpoolGap, spool: str, now: float
) -> OutgoingEvent:
    """
    What a sink is told that has lost events.

    :param spool: the spool's identity: 16 hexadecimal digits.
    :param now: in seconds since the epoch.
    """
    details: dict[str, Any] = {
        "sink": sink,
        "reason": FULL,
        "count": gap.count,
        "first": f"{gap.first:020d}",
        "last": f"{gap.last:020d}",
    }
    for name, moment in (("since", gap.since), ("until", gap.until)):
        if moment is not None:
            details[name] = timestamp(utc(moment))
    when = timestamp(utc(now if gap.until is None else gap.until))
    event = CloudEvent(
        id=f"{spool}-{gap.last:020d}",
        source=f"qmp://{envelope.node}",
        type=f"{envelope.own_types}.{Kind.GAP.value}",
        subject=SUBJECT,
        time=when,
        recordedtime=timestamp(utc(now)),
        partitionkey=envelope.node,
        vmsession=f"{0:010d}",
        vmsequence=f"{0:020d}",
        data=write({"kind": Kind.GAP.value, "data": details}),
    )
    return OutgoingEvent(id=event.id, type=event.type, vm=SUBJECT, text=event.structured())
