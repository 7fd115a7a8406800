"""
A record as one JSON object: what is printed, appended and posted.

A word of QEMU's::

    {"vm":"vm1","seq":4,"session":1,"time":"2026-11-21T01:20:00.123456Z","kind":"event",
     "event":"STOP","qmp":{"timestamp":{"seconds":1795224000,"microseconds":123456},"event":"STOP"}}

A word of ours::

    {"vm":"vm1","seq":5,"session":1,"time":"2026-11-21T01:20:07.000000Z","kind":"disconnected",
     "data":{"reason":"the peer closed the connection","expected":false}}

The members always come in this order.

``vm``
    the VM's name
``seq``
    the number among the VM's records: a hole in the numbers is a loss
``session``
    the number of the session with the VM, which grows with each return; 0 before the first
``time``
    in UTC: when QEMU says that it happened; where its clock failed (fact G40), and for words of
    ours, when we noticed
``kind``
    ``event`` for a word of QEMU's; for ours ``connected``, ``gap``, ``snapshot``,
    ``disconnected``, ``busy``, ``refused``, ``dropped`` or ``gone``
    (:class:`~txqmp.fleet.records.Kind`)
``event`` and ``qmp``
    only in QEMU's: the event's name, and the object as it came, whole
``data``
    only in ours: what there is to say

A sink that had to leave records out says so in their place: a ``dropped`` whose ``data`` has
``sink``, ``reason``, ``count`` and the numbers of the ``first`` and the ``last`` one; ``seq`` is
the last one's.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from txqmp.fleet.records import Kind, Record, timestamp, utc
from txqmp.jsontext import UnwritableError, write


# What a terminal could take for a command: JSON escapes the controls below U+0020 only.
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


@attrs.frozen(slots=True)
class Entry:
    """
    A record on its way to a sink.

    :ivar vm: the VM's name.
    :ivar seq: the record's number.
    :ivar session: the session's number.
    :ivar text: the record as JSON, without a line end.
    """

    vm: str
    seq: int
    session: int
    text: bytes


def encode(record: Record) -> Entry:
    """The JSON text of a record. What cannot be written is left out, and that is said."""
    members: dict[str, Any] = {
        "vm": record.vm,
        "seq": record.seq,
        "session": record.session,
        "time": timestamp(record.time),
        "kind": record.kind.value,
    }
    if record.event is not None:
        members["event"] = record.event.name
        members["qmp"] = record.event.raw
    else:
        members["data"] = dict(record.details)
    try:
        text = _write(members)
    except UnwritableError as problem:
        # Such as an object that is nested deeper than JSON is written.
        members.pop("qmp", None)
        members["data"] = {"unwritable": str(problem)}
        text = _write(members)
    return Entry(record.vm, record.seq, record.session, text)


def encode_hole(
    sink: str, reason: str, vm: str, session: int, first: int, last: int, count: int, now: float
) -> Entry:
    """
    What a sink says in place of the records that it left out.

    :param sink: the sink's name.
    :param first: the number of the first record that is missing.
    :param last: the number of the last one.
    :param count: how many are missing.
    :param now: in seconds since the epoch.
    """
    members = {
        "vm": vm,
        "seq": last,
        "session": session,
        "time": timestamp(utc(now)),
        "kind": Kind.DROPPED.value,
        "data": {
            "sink": sink,
            "reason": reason,
            "count": count,
            "first": first,
            "last": last,
        },
    }
    return Entry(vm, last, session, _write(members))


def _write(members: dict[str, Any]) -> bytes:
    return _CONTROLS.sub(_escape, write(members))


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found.group().decode())
