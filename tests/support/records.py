"""Records of a fleet, and such as hypothesis makes up: with names and data that mean harm."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from txqmp.fleet import Kind, Record
from txqmp.messages import Event


SPOOL_ID = "8f3c1d2a9b7e4c60"
NODE = "node7.example"
UUID = "4c4c4544-0042-4c10-8042-b4c04f564433"

RAW = {
    "timestamp": {"seconds": 1795224000, "microseconds": 123456},
    "event": "STOP",
    "data": {"a": [1, None]},
    "unknown": True,
}
"""An event as QEMU sends it."""


def record(**changes: Any) -> Record:
    """QEMU's ``STOP``, or what the changes make of it."""
    members: dict[str, Any] = {
        "vm": "web",
        "identity": UUID,
        "seq": 4,
        "session": 1,
        "received": 1795224000.125001,
        "kind": Kind.EVENT,
    }
    return Record(**{**members, **changes})


def deep(levels: int) -> Any:
    """A value that is nested so deep."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: With everything that no attribute may hold, and that headers, URIs, JSON and terminals quote.
NAMES = st.text(st.characters(), max_size=8) | st.text(
    st.sampled_from(" \"%\\'<>&\r\n\t\0\x1b\x7f\x85\ud83d\udc80\ufffe\U0001ffff€😀/?#"), max_size=8
)
LONG_NAMES = ("v" * (1 << 16), "\0" * (1 << 16), '"%' * (1 << 15), "😀" * (1 << 14))
"""Of 64 KiB."""
TEXT = st.text(max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=2)
#: Up to the year 9999, where calendars end, and beyond; -1 is a clock that failed.
SECONDS = st.just(-1) | st.integers(0, 253402300799) | st.integers(-(2**63), 2**63)
MICROSECONDS = st.just(-1) | st.integers(0, 999_999) | st.integers(0, 2_000_000)


def _event(
    name: str, data: dict[str, Any] | None, seconds: int, microseconds: int, more: dict[str, Any]
) -> Event:
    raw = {"event": name, "timestamp": {"seconds": seconds, "microseconds": microseconds}, **more}
    return Event(raw if data is None else {**raw, "data": data})


EVENTS = st.builds(
    _event,
    st.sampled_from(["STOP", "__com.redhat_X"]) | NAMES,
    st.none() | OBJECTS,
    SECONDS,
    MICROSECONDS,
    st.just({}) | st.dictionaries(st.sampled_from(["more", "id", "€"]), VALUES, max_size=2),
)
_COMMON: dict[str, Any] = {
    "vm": NAMES,
    "identity": NAMES,
    "seq": st.integers(1, 2**63),
    "session": st.integers(0, 2**31),
    "received": st.floats(0, 4e9),
}
RECORDS = st.builds(Record, kind=st.just(Kind.EVENT), event=EVENTS, **_COMMON) | st.builds(
    Record, kind=st.sampled_from(Kind), details=OBJECTS, **_COMMON
)
"""Words of QEMU's and of ours."""
