"""CloudEvents in each form, with the library of the specification's own people as the judge."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    from_structured_event,
    to_binary_event,
)
from hypothesis import example, given
from hypothesis import strategies as st

from support.records import LONG_NAMES, NAMES, NODE, RAW, RECORDS, SPOOL_ID, record
from txqmp.fleet import Kind
from txqmp.messages import Event
from txqmp.monitor.cloudevents import (
    BATCHED,
    BINARY,
    STRUCTURED,
    CloudEvent,
    EventBatch,
    attributes,
    numbered,
)
from txqmp.monitor.envelope import Envelope


ENVELOPE = Envelope(node=NODE)
DRAFT = ENVELOPE.draft(record(event=Event(RAW)))
TEXT = numbered(DRAFT, SPOOL_ID, 4711)
EVENT = CloudEvent.parse(TEXT)
EVENTS = st.builds(
    lambda record, number: ENVELOPE.event(record, SPOOL_ID, number),
    RECORDS,
    st.integers(0, 2**63),
)


def changed(**changes: Any) -> CloudEvent:
    """The event with other attributes."""
    members = {name: getattr(EVENT, name) for name in CloudEvent.__slots__ if name[0] != "_"}
    return CloudEvent(**{**members, **changes})


def assert_equal(theirs: BaseCloudEvent, ours: CloudEvent) -> None:
    """The library has read what we wrote."""
    attributes: dict[str, Any] = dict(ours.attributes)
    attributes["time"] = datetime.fromisoformat(ours.time.replace("Z", "+00:00"))
    assert theirs.get_attributes() == attributes
    assert theirs.get_data() == json.loads(ours.data)


# Structured


def test_structured() -> None:
    assert EVENT.structured() == TEXT
    assert TEXT.startswith(
        b'{"specversion":"1.0","id":"8f3c1d2a9b7e4c60-00000000000000004711",'
        b'"sequence":"00000000000000004711","source":"qmp://node7.example/4c4c4544-'
    )
    assert TEXT.endswith(b',"datacontenttype":"application/json","data":' + EVENT.data + b"}")
    assert list(json.loads(TEXT)) == [*EVENT.attributes, "data"]
    assert json.loads(EVENT.data) == RAW


@given(EVENTS)
def test_structured_is_accepted(event: CloudEvent) -> None:
    message = HTTPMessage({"content-type": STRUCTURED}, event.structured())
    assert_equal(from_http_event(message), event)


@given(EVENTS)
def test_structured_is_read_as_it_was_written(event: CloudEvent) -> None:
    text = event.structured()
    read = CloudEvent.parse(text)
    assert read == event
    assert read.structured() == text
    assert b"\n" not in text


def test_the_data_stay_as_they_are() -> None:
    data = b'{"b": 1.50, "b":1E2,"a" :"\\u00e9\xc3\xa9\\/", "data":{}, "n":12345678901234567890123}'
    event = changed(data=data)
    assert CloudEvent.parse(event.structured()).data == data
    assert data in event.structured()


def test_a_name_with_what_the_data_begin_with() -> None:
    event = changed(subject=',"data":{"a":1}}', partitionkey='\\",\\"data\\":')
    assert CloudEvent.parse(event.structured()) == event


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEXT, b""),
        (TEXT, b"{}"),
        (TEXT, b"[]"),
        (TEXT, b'[1,"data":{}}'),
        (TEXT, b'1,"data":{}}'),
        (TEXT, b'{,"data":{}}'),
        (TEXT, TEXT + b"\n"),
        (TEXT, TEXT[:-1]),
        (TEXT, TEXT[:-2]),
        (TEXT, b"[" + TEXT + b"]"),
        (TEXT, b" " + TEXT),
        (TEXT, DRAFT),
        (b'"1.0"', b'"0.3"'),
        (b'"1.0"', b"1.0"),
        (b'"subject"', b'"Subject"'),
        (b'"subject":', b'"extra":"1","subject":'),
        (b'"subject":', b'"subject":"old","subject":'),
        (b'"subject":', b' "subject":'),
        (b'"subject":"web",', b""),
        (b'"subject":"web"', b'"subject":""'),
        (b'"subject":"web"', b'"subject":null'),
        (b'"subject":"web"', b'"subject":{"a":1,"data":{}}'),
        (b'"subject":"web"', b'"subject":"w\\u0065b"'),
        (b'"subject":"web"', b'"subject":"we\\nb"'),
        (b'"subject":"web"', b'"subject":"we\\ud800b"'),
        (b'"subject":"web"', b'"subject":"we\xffb"'),
        (b'"subject":"web"', b'"subject":"we\xef\xbf\xbeb"'),
        (b'"sequence":"00', b'"sequence":"01'),
        (b'"id":"8f', b'"id":"8F'),
        (b'"application/json"', b'"application/xml"'),
        (b'"data":{"t', b'"data_base64":{"t'),
        (b',"data":{"t', b', "data":{"t'),
        (b',"data":{"t', b',"data":{t'),
        (b',"data":' + EVENT.data, b',"data":[1]'),
        (b',"data":' + EVENT.data, b',"data":null'),
        (b',"data":' + EVENT.data, b',"data":{"a":\n1}'),
        (b',"data":' + EVENT.data, b',"data":{"a":\r1}'),
        (b',"data":' + EVENT.data, b',"data":{"a":NaN}'),
        (b',"data":' + EVENT.data, b',"data":{},"data":{}'),
        (b',"data":' + EVENT.data, b',"data":{},"more":{}'),
    ],
)
def test_what_is_not_written_here_is_not_read(old: bytes, new: bytes) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(ValueError, match="event"):
        CloudEvent.parse(TEXT.replace(old, new))


@given(st.data())
def test_what_is_read_is_as_it_is_written(data: st.DataObject) -> None:
    """Any change makes it another event, or none."""
    text = bytearray(TEXT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b"}", b',"data":'])
        )
    try:
        event = CloudEvent.parse(bytes(text))
    except ValueError:
        return
    assert event.structured() == text


@given(EVENTS)
def test_attributes_are_read_alone(event: CloudEvent) -> None:
    assert attributes(event.structured()) == event.attributes
    # What comes behind them is not looked at.
    assert attributes(event.structured()[:-1] + b"\xff") == event.attributes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEXT, b""),
        (TEXT, b"{}"),
        (TEXT, b"[]"),
        (TEXT, b'[1,"data":{}}'),
        (TEXT, b'1,"data":{}}'),
        (TEXT, DRAFT),
        (b'"subject":"web",', b""),
        (b'"subject":"web"', b'"subject":1'),
        (b'"subject":"web"', b'"subject":{"a":1,"data":{}}'),
        (b'"subject":"web"', b'"subject":"we\xffb"'),
        (b',"data":{"t', b',"Data":{"t'),
    ],
)
def test_attributes_that_cannot_be_read(old: bytes, new: bytes) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(ValueError, match="event"):
        attributes(TEXT.replace(old, new))


# Binary


def test_binary() -> None:
    assert changed(subject='Euro € 😀 "50%"').headers() == {
        "ce-specversion": "1.0",
        "ce-id": "8f3c1d2a9b7e4c60-00000000000000004711",
        "ce-sequence": "00000000000000004711",
        "ce-source": "qmp://node7.example/4c4c4544-0042-4c10-8042-b4c04f564433",
        "ce-type": "org.qemu.qmp.STOP",
        "ce-subject": "Euro%20%E2%82%AC%20%F0%9F%98%80%20%2250%25%22",
        "ce-time": "2026-11-21T01:20:00.123456Z",
        "ce-recordedtime": "2026-11-21T01:20:00.125001Z",
        "ce-partitionkey": "4c4c4544-0042-4c10-8042-b4c04f564433",
        "ce-vmsession": "0000000001",
        "ce-vmsequence": "00000000000000000004",
        "content-type": "application/json",
    }


def test_what_a_header_takes_is_not_encoded() -> None:
    plain = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    assert changed(subject=plain).headers()["ce-subject"] == plain


@given(EVENTS)
def test_binary_is_accepted(event: CloudEvent) -> None:
    message = HTTPMessage(event.headers(), event.data)
    theirs = from_http_event(message)
    assert_equal(theirs, event)
    # The library writes no fraction of a second that is zero.
    written = {**event.headers(), "ce-time": event.time.replace(".000000", "")}
    assert to_binary_event(theirs).headers == written


@given(EVENTS)
def test_headers_are_such_as_http_takes(event: CloudEvent) -> None:
    for name, value in event.headers().items():
        assert re.fullmatch("content-type|ce-[a-z0-9]{1,20}", name)
        assert re.fullmatch("[!-~]+", value)
        if name != "content-type":
            assert unquote(value, errors="strict") == event.attributes[name[3:]]


@pytest.mark.parametrize("name", LONG_NAMES, ids=lambda name: ascii(name[0]))
def test_long_names(name: str) -> None:
    """Such as no server takes in its headers."""
    event = ENVELOPE.event(record(vm=name, identity=name, kind=Kind.GONE), SPOOL_ID, 1)
    structured = HTTPMessage({"content-type": STRUCTURED}, event.structured())
    assert_equal(from_http_event(structured), event)
    assert_equal(from_http_event(HTTPMessage(event.headers(), event.data)), event)
    assert json.loads(event.data)["vm"] == name
    assert max(map(len, event.headers().values())) < 4096


# Batched


@attrs.frozen
class Written:
    """An event as it is sent."""

    event: CloudEvent

    @property
    def id(self) -> str:
        return self.event.id

    @property
    def text(self) -> bytes:
        return self.event.structured()


def events(*numbers: int) -> list[Written]:
    texts = [numbered(DRAFT, SPOOL_ID, number) for number in numbers]
    return [Written(CloudEvent.parse(text)) for text in texts]


def test_batch() -> None:
    one, two, three = events(1, 2, 30)
    batch = EventBatch(iter([one, two, three]))
    assert batch.events == (one, two, three)
    assert batch.id == f"{one.id}_{three.id}"
    assert "." not in batch.id
    assert batch.structured() == b"[%b,%b,%b]" % tuple(e.text for e in batch.events)
    assert EventBatch([one]).structured() == b"[%b]" % one.text
    assert EventBatch([one, two, three]) == batch


@pytest.mark.parametrize("numbers", [(), (2, 1), (1, 1), (1, 3, 2)])
def test_no_batch(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="batch"):
        EventBatch(events(*numbers))


@given(st.lists(EVENTS, min_size=1, max_size=3, unique_by=lambda event: event.id))
def test_the_events_of_a_batch_are_accepted(unordered: list[CloudEvent]) -> None:
    """The library reads no batches; each event in one is as if it came by itself."""
    ordered = sorted(unordered, key=lambda event: event.sequence)
    texts = json.loads(EventBatch(map(Written, ordered)).structured())
    for text, event in zip(texts, ordered, strict=True):
        message = HTTPMessage({"content-type": STRUCTURED}, json.dumps(text).encode())
        assert_equal(from_structured_event(message), event)


# The rules


def test_content_types() -> None:
    """A receiver tells the forms apart by these beginnings (HTTP binding, section 3)."""
    assert BATCHED.startswith("application/cloudevents-batch+json")
    assert STRUCTURED.startswith("application/cloudevents+json")
    assert EVENT.attributes["datacontenttype"] == BINARY


def test_names_of_attributes() -> None:
    for name in EVENT.attributes:
        assert re.fullmatch("[a-z0-9]{1,20}", name)
        assert name != "data"


@given(EVENTS)
def test_values_of_attributes(event: CloudEvent) -> None:
    for value in event.attributes.values():
        assert value
        for char in value:
            code = ord(char)
            assert not (code < 0x20 or 0x7F <= code < 0xA0)
            assert not (0xD800 <= code < 0xE000 or 0xFDD0 <= code < 0xFDF0)
            assert code & 0xFFFE != 0xFFFE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("id", "8f3c1d2a9b7e4c60-4711"),
        ("id", "8f3c1d2a9b7e4c6.-00000000000000004711"),
        ("id", EVENT.id + "\n"),
        ("source", ""),
        ("source", "node/vm"),
        ("source", "qmp://node/a b"),
        ("source", "qmp://node/é"),
        ("source", 'qmp://node/"'),
        ("type", ""),
        ("type", "a\0"),
        ("subject", ""),
        ("subject", "\x7f"),
        ("subject", "é\x80"),
        ("subject", "\udc80"),
        ("subject", "\ufdd0"),
        ("subject", "\U0002fffe"),
        ("partitionkey", ""),
        ("partitionkey", "a\nb"),
        ("time", ""),
        ("time", "2026-11-21 01:20:00.123456Z"),
        ("time", "2026-11-21T01:20:00Z"),
        ("time", "2026-11-21T01:20:00.123456+00:00"),
        ("recordedtime", "\u0662026-11-21T01:20:00.123456Z"),
        ("recordedtime", "2026-11-21T01:20:00.123456Z\n"),
        ("vmsession", "1"),
        ("vmsequence", "4"),
        ("vmsequence", "-0000000000000000004"),
        ("data", b""),
        ("data", b"[]"),
        ("data", b'{"a":1'),
        ("data", b'{"a":\n1}'),
        ("data", b'{"a":\r1}'),
    ],
)
def test_what_the_rules_forbid(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        changed(**{name: value})


@example("\ud83d\ude00")
@given(NAMES)
def test_whatever_a_name_is_it_is_allowed_or_not(name: str) -> None:
    try:
        event = changed(subject=name)
    except ValueError:
        assert (
            not name
            or re.search("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]", name)
            or any(ord(char) & 0xFFFE == 0xFFFE for char in name)
        )
    else:
        assert CloudEvent.parse(event.structured()).subject == name


def test_repr_is_short() -> None:
    assert len(repr(changed(data=b'{"a":"' + b"x" * 100_000 + b'"}'))) < 2000


@pytest.mark.parametrize(
    ("draft", "spool_id", "number"),
    [
        (DRAFT, "", 1),
        (DRAFT, "8f3c1d2a9b7e4c6", 1),
        (DRAFT, "8F3C1D2A9B7E4C60", 1),
        (DRAFT, "8f3c1d2a9b7e.c60", 1),
        (DRAFT, SPOOL_ID, -1),
        (DRAFT, SPOOL_ID, 10**20),
        (b"", SPOOL_ID, 1),
        (EVENT.data, SPOOL_ID, 1),
    ],
)
def test_what_gets_no_number(draft: bytes, spool_id: str, number: int) -> None:
    with pytest.raises(ValueError, match="cannot become the event"):
        numbered(draft, spool_id, number)


@given(st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1))
def test_numbers_compare_as_text(one: int, other: int) -> None:
    first, second = (written.event for written in events(one, other))
    assert (first.sequence < second.sequence) == (one < other)
    assert first.id == f"{SPOOL_ID}-{first.sequence}"
