"""What is shown of actions and frames: never what is in them."""

from __future__ import annotations

import pytest

from txqmp.frames import (
    Action,
    Code,
    Failed,
    Frame,
    FrameProtocolError,
    RequestFailed,
    Response,
    ResponseData,
    RunCommand,
)


SECRET = b"hunter2"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (Response(1, SECRET), "Response(request_id=1, data=<7 bytes>)"),
        (ResponseData(1, SECRET, True), "ResponseData(request_id=1, data=<7 bytes>, last=True)"),
        (
            RunCommand(1, b"c", {b"pw": SECRET, b"b": b""}, SECRET),
            (
                "RunCommand(request_id=1, name=b'c', arguments={b'pw': <7 bytes>, b'b': <0 bytes>},"
                " data=<7 bytes>)"
            ),
        ),
        (
            RunCommand(1, b"c", {}, None),
            "RunCommand(request_id=1, name=b'c', arguments={}, data=None)",
        ),
        (
            Failed(FrameProtocolError(Code.LIMIT, "no"), SECRET),
            "Failed(error=FrameProtocolError('no'), farewell=<7 bytes>)",
        ),
        (
            Frame(1, 2, 3, 4, 5, SECRET),
            "Frame(request_id=1, stream_id=2, stream_flags=3, type=4, flags=5, payload=<7 bytes>)",
        ),
    ],
)
def test_sizes_are_shown_in_place_of_what_may_be_secret(
    shown: Action | Frame, expected: str
) -> None:
    assert repr(shown) == expected


@pytest.mark.parametrize(
    "action",
    [
        RunCommand(
            1, b"c" * 65_535, {b"%05d" % n * 4000: b"x" for n in range(100)}, bytes(1 << 20)
        ),
        Response(1, bytes(1 << 20)),
        ResponseData(1, bytes(1 << 20), False),
        RequestFailed(1, "m" * (1 << 20)),
        Failed(FrameProtocolError(Code.LIMIT, "no"), bytes(1 << 20)),
        Frame(1, 1, 0, 3, 2, bytes(1 << 20)),
    ],
)
def test_what_is_shown_is_short_however_large_it_is(action: Action | Frame) -> None:
    assert len(repr(action)) < 2000


def test_more_than_a_few_arguments_are_counted() -> None:
    shown = repr(RunCommand(1, b"c", {b"%d" % n: b"" for n in range(17)}, None))
    assert "b'15': <0 bytes>, and 1 more}" in shown
    assert "more" not in repr(RunCommand(1, b"c", {b"%d" % n: b"" for n in range(16)}, None))
