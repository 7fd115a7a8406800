"""
CloudEvents, version 1.0.2 of the specification, in the forms in which they are sent: one as JSON
(*structured*), one as headers and a body (*binary*), many as a JSON array (*batched*).

The structured form of a word of QEMU's; it is one line, and the members always come in this order::

    {"specversion":"1.0","id":"8f3c1d2a9b7e4c60-00000000000000004711",
     "sequence":"00000000000000004711","source":"qmp://node7.example/4c4c4544-0042",
     "type":"org.qemu.qmp.STOP","subject":"web","time":"2026-11-21T01:20:00.123456Z",
     "recordedtime":"2026-11-21T01:20:00.125001Z","partitionkey":"4c4c4544-0042",
     "vmsession":"0000000001","vmsequence":"00000000000000000004",
     "datacontenttype":"application/json",
     "data":{"timestamp":{"seconds":1795224000,"microseconds":123456},"event":"STOP"}}

What the members mean is told in :mod:`txqmp.monitor.envelope`, which makes events of records. An
event gets its number last, when it is committed to the spool. Until then it is a *draft*: the
structured form without ``id`` and ``sequence``. The draft is what the spool keeps, and this is how
it becomes what sinks send::

    body = numbered(draft, "8f3c1d2a9b7e4c60", 4711)  # to be sent as STRUCTURED
    event = CloudEvent.parse(body)
    event.headers(), event.data                       # the same event, to be sent as BINARY
    EventBatch([event]).structured()                  # to be sent as BATCHED
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote

import attrs
import orjson

from txqmp.errors import DeserializationError, UnexpectedTypeError
from txqmp.jsontext import read_object
from txqmp.redaction import excerpt


STRUCTURED = "application/cloudevents+json; charset=utf-8"
"""The content type of :meth:`CloudEvent.structured`."""

BATCHED = "application/cloudevents-batch+json; charset=utf-8"
"""
The content type of :meth:`EventBatch.structured`. It is only for who has asked for it
(HTTP binding, section 3).
"""

BINARY = "application/json"
"""The content type of the binary form, whose body is the data alone."""

# Characters that no attribute may hold: controls, surrogates (in a str each is a lone one) and
# noncharacters (spec, "Type System").
_DISALLOWED = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)

_ID = re.compile(r"[0-9a-f]{16}-[0-9]{20}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_TEXT = re.compile(r".+", re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)

# What each attribute looks like, beside holding nothing that is disallowed.
_RULES = {
    "id": _ID,
    "source": _URI,
    "type": _TEXT,
    "subject": _TEXT,
    "time": _TIME,
    "recordedtime": _TIME,
    "partitionkey": _TEXT,
    "vmsession": re.compile(r"[0-9]{10}"),
    "vmsequence": re.compile(r"[0-9]{20}"),
}

_BEGINNING = b'{"specversion":"1.0",'
_DATA = b',"data":'

# What is not percent-encoded in a header: all of U+0021 to U+007E but the double quote and the
# percent sign (HTTP binding, section 3.1.3.2).
_IN_HEADER = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def clean(text: str) -> str:
    """
    A text as an attribute may have it: with ``?`` in the place of each control, lone surrogate and
    noncharacter (spec, *Type System*), and never empty.
    """
    return (text if _is_clean(text) else _DISALLOWED.sub("?", text)) or "?"


def _is_clean(text: str) -> bool:
    # What is plain ASCII needs no search, which takes its time.
    return (text.isascii() and text.isprintable()) or _DISALLOWED.search(text) is None


@attrs.frozen(kw_only=True, slots=True)
class CloudEvent:
    """
    An event that can be sent. Its members are the attributes that the specification and its
    extensions name so, in their text form.

    :ivar id: of the event, such as ``"8f3c1d2a9b7e4c60-00000000000000004711"``.
    :ivar source: the node and the VM, as a URI.
    :ivar type: what kind of thing happened.
    :ivar subject: the VM's name.
    :ivar time: when it happened: RFC 3339, in UTC, with microseconds.
    :ivar recordedtime: when it came to our notice, likewise.
    :ivar partitionkey: the VM's identity.
    :ivar vmsession: the number of the session with the VM, of 10 digits.
    :ivar vmsequence: the number among the VM's own records, of 20 digits.
    :ivar data: the UTF-8 text of a JSON object, on one line.
    :raises ValueError: an attribute is not as the specification wants it, or not as we write it.
    """

    id: str
    source: str
    type: str
    subject: str
    time: str
    recordedtime: str
    partitionkey: str
    vmsession: str
    vmsequence: str
    data: bytes = attrs.field(repr=excerpt)

    def __attrs_post_init__(self) -> None:
        for name, rule in _RULES.items():
            value = getattr(self, name)
            if rule.fullmatch(value) is None or not _is_clean(value):
                raise ValueError(f"{excerpt(value)} is not a {name}")
        data = self.data
        if not (data.startswith(b"{") and data.endswith(b"}")) or b"\n" in data or b"\r" in data:
            raise ValueError("the data is not a JSON object on one line")

    @property
    def sequence(self) -> str:
        """The number of the event in its spool, of 20 digits: it compares as text."""
        return self.id[-20:]

    @property
    def attributes(self) -> dict[str, str]:
        """All attributes by name, in their order."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "sequence": self.sequence,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
            "recordedtime": self.recordedtime,
            "partitionkey": self.partitionkey,
            "vmsession": self.vmsession,
            "vmsequence": self.vmsequence,
            "datacontenttype": BINARY,
        }

    def structured(self) -> bytes:
        """
        All of it as a JSON object on one line, with the data in it byte for byte
        (JSON format, section 3).
        """
        return orjson.dumps({**self.attributes, "data": orjson.Fragment(self.data)})

    @classmethod
    def parse(cls, text: bytes) -> CloudEvent:
        """
        What :meth:`structured` wrote, read again. The data stay byte for byte what they were.

        :param text: one JSON object, without a line end.
        :raises ValueError: it is not exactly as :meth:`structured` writes it.
        """
        # A quotation mark in a string has a backslash before it, and all attributes are strings:
        # the first of these is where the attributes end.
        end = text.find(_DATA)
        data = text[end + len(_DATA) : -1]
        try:
            members = orjson.loads(text[:end] + b"}")
            for derived in ("specversion", "sequence", "datacontenttype"):
                members.pop(derived, None)
            event = cls(data=data, **members)
            read_object(data)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"not an event as it is written here: {error}") from None
        except (DeserializationError, UnexpectedTypeError) as error:
            raise ValueError(f"the data of an event is broken: {error}") from None
        if event.structured() != text:
            raise ValueError("an event, but not as it is written here")
        return event

    def headers(self) -> dict[str, str]:
        """
        The headers of the binary form, whose body is :attr:`data` (HTTP binding, section 3.1). A
        signature of the body does not cover them.

        :returns: by name, in small letters.
        """
        headers = {
            f"ce-{name}": quote(value, safe=_IN_HEADER)
            for name, value in self.attributes.items()
            if name != "datacontenttype"
        }
        headers["content-type"] = BINARY
        return headers


def attributes(text: bytes) -> dict[str, str]:
    """
    The attributes of an event by name, from its structured form: to read these takes a fraction of
    the time that :meth:`CloudEvent.parse` takes. What they are is not looked at, nor is the data.

    :param text: one JSON object, without a line end.
    :raises ValueError: it does not begin as :meth:`CloudEvent.structured` writes it.
    """
    try:
        members: dict[str, str] = orjson.loads(text[: text.find(_DATA)] + b"}")
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not an event as it is written here: {error}") from None
    if not (
        members.keys() >= _RULES.keys() and all(type(each) is str for each in members.values())
    ):
        raise ValueError("an event without some of its attributes")
    return members


def numbered(draft: bytes, spool_id: str, number: int) -> bytes:
    """
    The structured form of an event, now that its number is known.

    :param draft: the structured form without the number
        (:meth:`txqmp.monitor.envelope.Envelope.draft`).
    :param spool_id: what tells the spool from all others: 16 hexadecimal digits. With the number it
        is the event's id, which holds no full stop, as Standard Webhooks asks.
    :param number: of the record in the spool.
    :raises ValueError: one of them is not what it should be.
    """
    id = f"{spool_id}-{number:020d}"
    if _ID.fullmatch(id) is None or not draft.startswith(_BEGINNING):
        raise ValueError(f"{excerpt(draft, 40)} cannot become the event {id!r}")
    numbers = f'"id":"{id}","sequence":"{id[-20:]}",'.encode()
    return b"".join((_BEGINNING, numbers, draft[len(_BEGINNING) :]))


class Structured(Protocol):
    """An event as it is sent: its id and its structured form."""

    @property
    def id(self) -> str:
        """What tells it from all others."""

    @property
    def text(self) -> bytes:
        """A JSON object on one line."""


def _together(events: Iterable[Structured]) -> tuple[Structured, ...]:
    return tuple(events)


def _check_order(batch: EventBatch, attribute: object, events: tuple[Structured, ...]) -> None:
    if not events:
        raise ValueError("a batch holds at least one event")
    sequences = [each.id[-20:] for each in events]
    if any(one >= next for one, next in itertools.pairwise(sequences)):
        raise ValueError("the events of a batch are in the order of their numbers")


@attrs.frozen(slots=True)
class EventBatch:
    """
    Events that are sent together. What is in it never changes, so that another attempt sends the
    same bytes under the same id.

    :ivar events: at least one, in the order of their numbers.
    :raises ValueError: there is none, or they are in another order.
    """

    events: tuple[Structured, ...] = attrs.field(converter=_together, validator=_check_order)

    @property
    def id(self) -> str:
        """The ids of the first and the last event; it holds no full stop either."""
        return f"{self.events[0].id}_{self.events[-1].id}"

    def structured(self) -> bytes:
        """The events as a JSON array on one line (JSON format, section 4)."""
        # They are such objects already: to read and write them again would take most of the time.
        return b"[%b]" % b",".join([event.text for event in self.events])
