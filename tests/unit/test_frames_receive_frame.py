"""Frames that are handed to a reactor in place of their bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.frames import (
    ENCODINGS,
    ClientReactor,
    Code,
    Failed,
    Frame,
    FrameLimitError,
    FrameUsageError,
    Limits,
    RunCommand,
    ServerReactor,
    WantFrame,
)
from txqmp.frames.codec import BYTES_RESPONSE, COMMAND_NAME, EOS, NAME_EOS, STREAM_BEGIN


COMMAND = Frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"c")


def side(kind: str, **limits: int) -> Any:
    """A server, or a client that waits for the answer to request 1."""
    if kind == "server":
        return ServerReactor(limits=Limits(**limits), encodings=tuple(ENCODINGS))
    client = ClientReactor(limits=Limits(**limits))
    assert len(list(client.request("c")[1])) == 1
    return client


@pytest.mark.parametrize("kind", ["client", "server"])
@pytest.mark.parametrize(
    "changed",
    [
        {"request_id": -1},
        {"request_id": 65_536},
        {"request_id": 1.0},
        {"request_id": None},
        {"stream_id": -1},
        {"stream_id": 256},
        {"stream_flags": -1},
        {"stream_flags": 256},
        {"type": -1},
        {"type": 16},
        {"flags": -1},
        {"flags": 16},
        {"flags": "1"},
        {"payload": bytearray(b"c")},
        {"payload": "c"},
        {"payload": None},
    ],
)
def test_what_no_bytes_would_be_is_refused_and_changes_nothing(
    kind: str, changed: dict[str, Any]
) -> None:
    reactor = side(kind)
    with pytest.raises(FrameUsageError):
        reactor.receive_frame(COMMAND._replace(**changed))
    assert reactor.error is None
    assert len(reactor._inputs) == 0
    if kind == "server":
        assert reactor.receive_frame(COMMAND) == [RunCommand(1, b"c", {}, None)]


def test_a_tuple_is_no_frame() -> None:
    with pytest.raises(FrameUsageError, match="is a Frame"):
        ServerReactor().receive_frame(tuple(COMMAND))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["request_id", "stream_id", "stream_flags", "type", "flags"])
def test_a_field_goes_to_its_largest_value(field: str) -> None:
    largest = {"request_id": 65_535, "stream_id": 255, "stream_flags": 255}.get(field, 15)
    frame = COMMAND._replace(**{field: largest})
    bytes_say, frame_says = ServerReactor(), ServerReactor()
    assert str(frame_says.receive_frame(frame)) == str(
        bytes_say.receive(frame.encode()) or [WantFrame("command-receiving")]
    )


@pytest.mark.parametrize("kind", ["client", "server"])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_frame_is_no_larger_than_bytes_may_be(kind: str, size: int) -> None:
    stream, type, flags = (1, COMMAND_NAME, NAME_EOS) if kind == "server" else (2, 4, EOS)
    frame = Frame(1, stream, STREAM_BEGIN, type, flags, b"x" * size)
    reactor = side(kind, receive_frame=size)
    (action,) = reactor.receive_frame(frame)
    assert not isinstance(action, Failed)
    reactor = side(kind, receive_frame=size)
    (failed,) = reactor.receive_frame(frame._replace(payload=b"x" * (size + 1)))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, FrameLimitError)
    assert (failed.error.limit, failed.error.allowed) == ("receive_frame", size)
    assert failed.error.request_id == 1
    assert reactor.error is failed.error
    assert bool(failed.farewell) == (kind == "server")
    (again, *_) = reactor.receive_frame(frame)
    assert again.error.code is Code.ALREADY_ERRORED


def test_a_frame_has_no_place_in_the_middle_of_another() -> None:
    server = ServerReactor()
    data = COMMAND.encode()
    assert server.receive(data[:-1]) == []
    with pytest.raises(FrameUsageError, match="in part"):
        server.receive_frame(COMMAND)
    assert server.receive(data[-1:]) == [RunCommand(1, b"c", {}, None)]
    answer = COMMAND._replace(request_id=3, stream_flags=0)
    assert server.receive_frame(answer) == [RunCommand(3, b"c", {}, None)]


FRAMES = st.builds(
    Frame,
    st.sampled_from([1, 1, 3, 65_535]),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, 1, 2, 3, 4, 5]),
    st.sampled_from([1, 1, 2, 3, BYTES_RESPONSE, 5, 6, 8, 15]),
    st.sampled_from([0, 1, 2, 4]),
    st.binary(max_size=20),
)


@given(st.lists(FRAMES, max_size=8), st.sampled_from(["client", "server"]))
def test_a_frame_is_answered_as_its_bytes_are(frames: list[Frame], kind: str) -> None:
    whole, pieces = side(kind, receive_frame=15), side(kind, receive_frame=15)
    for frame in frames:
        expected = pieces.receive(frame.encode())
        actions = whole.receive_frame(frame)
        if kind == "server" and not expected:
            assert isinstance(actions.pop(), WantFrame)
        assert str(actions) == str(expected)
        assert str(whole.error) == str(pieces.error)
