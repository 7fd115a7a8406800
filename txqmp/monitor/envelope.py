"""
How a record becomes a CloudEvent (:mod:`txqmp.monitor.cloudevents`): :class:`Envelope`.

``id``
    a random id, another one each time the spool is opened, and the number of the record in it: the
    same whenever the event is sent
``sequence``
    that number again; it is padded, because the extension *sequence* compares it as text
``source``
    ``qmp://``, the node and the VM's identity: while a VM migrates, two nodes tell of it
``type``
    ``org.qemu.qmp.`` and the name of QEMU's event, or ``txqmp.monitor.`` and what it is that we
    tell (:class:`~txqmp.fleet.records.Kind`)
``subject``
    the VM's name
``time``
    when QEMU says that it happened; where its clock failed (fact G40), and for words of ours, when
    it came to our notice
``recordedtime``
    when it came to our notice (extension *recordedtime*)
``partitionkey``
    the VM's identity, as :class:`~txqmp.fleet.records.Record` has it (extension *partitioning*)
``vmsession``, ``vmsequence``
    the numbers of the session with the VM and of the record among the VM's own, as the fleet
    counts them: a hole is a loss. They are text, because a number in an attribute has 32 bits only
``data``
    QEMU's object as it came, whole. Of a word of ours ``{"vm": …, "seq": …, "session": …,
    "kind": …, "data": {…}}``, where ``vm`` is the VM's name as it is

Attributes go into headers, and allow fewer characters than JSON does: a name has ``?`` in the place
of the others, and is cut at 200 characters, as the fleet's own. Where something cannot be written
as JSON, ``data`` has a member ``unwritable`` that says why, and not what it would have told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import attrs

from txqmp.fleet.naming import MAX_NAME
from txqmp.fleet.records import Record, utc
from txqmp.jsontext import UnwritableError, write
from txqmp.monitor.cloudevents import BINARY, CloudEvent, clean, numbered


QEMU_TYPES = "org.qemu.qmp"
"""What the types of QEMU's words begin with: it is QEMU that says what they mean."""

OWN_TYPES = "txqmp.monitor"
"""What the types of our words begin with."""

_NODE = re.compile(r"[A-Za-z0-9._~-]{1,253}")
_TYPES = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# What may stand in a segment of a path as it is, beside letters, digits and "_.-~" (RFC 3986).
_IN_SEGMENT = "!$&'()*+,;=:@"
# What a terminal could take for a command: JSON escapes the controls below U+0020 only.
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


@attrs.frozen(kw_only=True, slots=True)
class Envelope:
    """
    Makes CloudEvents of the records of one daemon.

    :ivar node: the name of this host: letters, digits and ``._~-``.
    :ivar qemu_types: what the types of QEMU's words begin with, without the full stop at its end.
    :ivar own_types: what those of ours begin with.
    :raises ValueError: one of them cannot be put to this use.
    """

    node: str
    qemu_types: str = QEMU_TYPES
    own_types: str = OWN_TYPES

    def __attrs_post_init__(self) -> None:
        if _NODE.fullmatch(self.node) is None:
            raise ValueError(f"{self.node!r} is no name of a host")
        for prefix in (self.qemu_types, self.own_types):
            if _TYPES.fullmatch(prefix) is None:
                raise ValueError(f"{prefix!r} is nothing that types begin with, as {QEMU_TYPES!r}")

    def type_of(self, record: Record) -> str:
        """The ``type`` of the event that a record is."""
        if record.event is not None:
            return f"{self.qemu_types}.{clean(record.event.name[:MAX_NAME])}"
        return f"{self.own_types}.{record.kind.value}"

    def draft(self, record: Record) -> bytes:
        """
        The event that a record is, but for its number.

        :param record: what happened.
        :returns: for :func:`~txqmp.monitor.cloudevents.numbered`: a JSON object on one line, with
            nothing in it that moves a terminal.
        """
        key, segment = _place(record.identity[:MAX_NAME])
        recorded = _recorded(record)
        members: dict[str, Any] = {
            "specversion": "1.0",
            "source": f"qmp://{self.node}/{segment}",
            "type": self.type_of(record),
            "subject": clean(record.vm[:MAX_NAME]),
            "time": _happened(record) or recorded,
            "recordedtime": recorded,
            "partitionkey": key,
            "vmsession": f"{record.session:010d}",
            "vmsequence": f"{record.seq:020d}",
            "datacontenttype": BINARY,
            "data": _data(record),
        }
        try:
            text = write(members)
        except UnwritableError as problem:
            # Such as an object that is nested deeper than JSON is written.
            members["data"] = _unwritable(record, problem)
            text = write(members)
        if text.isascii() and b"\x7f" not in text:
            return text
        return _CONTROLS.sub(_escape, text)

    def event(self, record: Record, spool_id: str, number: int) -> CloudEvent:
        """
        The event that a record is, where its number is known: :meth:`draft`,
        :func:`~txqmp.monitor.cloudevents.numbered` and
        :meth:`~txqmp.monitor.cloudevents.CloudEvent.parse` in one.
        """
        return CloudEvent.parse(numbered(self.draft(record), spool_id, number))


# Events come in bursts, of few VMs and in few seconds. What those have in common is kept: without
# it a draft takes twice the time.


@lru_cache(maxsize=1024)
def _place(identity: str) -> tuple[str, str]:
    """A VM's identity as text, and as a segment of a path."""
    key = clean(identity)
    return key, quote(key, safe=_IN_SEGMENT)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """A second since the epoch in UTC, without its fraction and the zone."""
    return utc(seconds).replace(tzinfo=None).isoformat()


def _recorded(record: Record) -> str:
    """When it came to our notice."""
    seconds = math.floor(record.received)
    microseconds = round((record.received - seconds) * 1_000_000)
    if microseconds == 1_000_000:
        seconds, microseconds = seconds + 1, 0
    return f"{_second(seconds)}.{microseconds:06d}Z"


def _happened(record: Record) -> str | None:
    """When it happened; ``None`` where QEMU does not say, or no calendar holds it."""
    if record.event is None:
        return None
    when = record.event.timestamp
    if not when.known or when.microseconds > 999_999:
        return None
    try:
        return f"{_second(when.seconds)}.{when.microseconds:06d}Z"
    except (OSError, OverflowError, ValueError):
        return None


def _data(record: Record) -> Mapping[str, Any]:
    if record.event is not None:
        return record.event.raw
    return {**_about(record), "data": record.details}


def _unwritable(record: Record, problem: UnwritableError) -> Mapping[str, Any]:
    """What there is to say where the data cannot be written."""
    about = _about(record) if record.event is None else {"event": clean(record.event.name)}
    return {**about, "unwritable": clean(str(problem))}


def _about(record: Record) -> dict[str, Any]:
    return {
        # JSON has no lone surrogates: of them it shows the numbers, as in \udc80.
        "vm": record.vm.encode("utf-8", "backslashreplace").decode("utf-8"),
        "seq": record.seq,
        "session": record.session,
        "kind": record.kind.value,
    }


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found.group().decode())
