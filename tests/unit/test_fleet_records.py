"""Records: what the fleet tells."""

from __future__ import annotations

from datetime import datetime, timezone

import attrs
import pytest

from txqmp.fleet.records import Kind, Record, timestamp, utc
from txqmp.messages import Event


def record(event: Event | None = None) -> Record:
    return Record(vm="a", seq=1, session=1, received=1000.5, kind=Kind.EVENT, event=event)


def test_time_is_qemus() -> None:
    assert record(Event.make("STOP", at=1.25)).time == datetime(
        1970, 1, 1, 0, 0, 1, 250000, timezone.utc
    )


@pytest.mark.parametrize("event", [None, Event.make("STOP"), Event({"event": "STOP"})])
def test_time_of_receipt_where_qemu_has_none(event: Event | None) -> None:
    assert record(event).time == utc(1000.5)


def test_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record().seq = 2  # type: ignore[misc]


def test_details_are_shared_and_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        record().details["a"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1795224000.123456, "2026-11-21T01:20:00.123456Z"),
    ],
)
def test_timestamp(seconds: float, text: str) -> None:
    assert timestamp(utc(seconds)) == text
