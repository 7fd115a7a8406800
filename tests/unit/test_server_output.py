"""A server's output to one client, bounded, and the descriptors that the client sent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest

from txqmp.jsontext import UnwritableError
from txqmp.server.output import BoundedOutput, ReceivedDescriptors, encode
from txqmp.testing import MemoryTransport


# Text


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "é😀\x00\x7f\u2028",
        [1, -1.5, 1e300, 2**63, 2**64 - 1, 2**64, -(2**63) - 1],
        {"a": {"b": [None, {}]}},
        json.loads("[" * 300 + "]" * 300),
        MappingProxyType({"a": MappingProxyType({"é": None})}),
    ],
    ids=["null", "true", "text", "numbers", "nested", "deep", "mapping"],
)
def test_text_is_ascii(value: Any) -> None:
    text = encode({"return": value})
    assert text.isascii()
    assert b"\n" not in text
    assert json.loads(text) == {"return": value}


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], "\ud800", ["\udc00", None], {1, 2}, b"x", object()],
    ids=["nan", "infinity", "surrogate", "surrogate and null", "set", "bytes", "object"],
)
def test_what_has_no_text(value: Any) -> None:
    with pytest.raises(UnwritableError):
        encode({"return": value})


def test_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnwritableError):
        encode({"return": deep})


def test_large_texts_are_no_matter() -> None:
    assert len(encode({"return": "x" * (65 << 20)})) > 65 << 20


# Output


def close(transport: Any) -> None:
    transport.loseConnection()


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


def output(transport: MemoryTransport, limit: int = 1000) -> tuple[BoundedOutput, list[str]]:
    told: list[str] = []
    out = BoundedOutput(
        transport, limit, lambda: told.append("overflow"), lambda: told.append("relief")
    )
    return out, told


def test_written_at_once(transport: MemoryTransport) -> None:
    out, _ = output(transport)
    out.write(b"a")
    assert (transport.value(), out.held) == (b"a", 0)


def test_held_while_the_peer_does_not_read(transport: MemoryTransport) -> None:
    out, overflows = output(transport)
    out.write(b"x" * 100_000)
    for number in range(10):
        out.write(b"%d" % number)
    assert (len(transport.value()), out.held) == (100_000, 10)
    transport.flush()
    assert transport.value().endswith(b"x0123456789")
    assert out.held == 0
    out.write(b"!")
    assert transport.value().endswith(b"9!")
    assert not overflows


def test_held_in_pieces(transport: MemoryTransport) -> None:
    """What was held does not all go to the transport at once."""
    out, _ = output(transport, 1 << 20)
    out.write(b"x" * 100_000)
    for _ in range(10):
        out.write(b"y" * 50_000)
    transport.flush()
    assert transport.buffered == 100_000
    assert out.held == 400_000
    while transport.flush():
        pass
    assert out.held == 0
    assert transport.value() == b"x" * 100_000 + b"y" * 500_000


def test_congestion(transport: MemoryTransport) -> None:
    out, told = output(transport, 200_000)
    out.write(b"x" * 100_000)
    assert not out.congested
    out.write(b"y" * 40_000)
    assert not out.congested
    out.write(b"z" * 90_000)
    assert out.congested
    transport.flush()
    assert (out.congested, told) == (False, ["relief"])
    transport.flush()
    assert told == ["relief"]


def test_a_single_message_may_be_of_any_size(transport: MemoryTransport) -> None:
    out, overflows = output(transport, limit=10)
    out.write(b"x" * 100_000)
    out.write(b"y" * 100_000)
    assert (out.held, overflows) == (100_000, [])
    out.write(b"z")
    assert (out.held, overflows) == (0, ["overflow"])
    out.write(b"z")
    assert overflows == ["overflow"]


def test_finish(transport: MemoryTransport) -> None:
    out, _ = output(transport)
    out.write(b"a")
    out.finish(close)
    assert transport.disconnecting
    assert transport.producer is None
    out.write(b"b")
    assert transport.value() == b"a"


def test_finish_when_what_is_held_was_written(transport: MemoryTransport) -> None:
    out, _ = output(transport)
    out.write(b"x" * 100_000)
    out.write(b"y")
    out.finish(close)
    out.write(b"too late")
    assert not transport.disconnecting
    transport.flush()
    assert transport.disconnecting
    assert transport.value().endswith(b"xy")


def test_stopped(transport: MemoryTransport) -> None:
    out, overflows = output(transport)
    out.write(b"x" * 100_000)
    out.write(b"y")
    transport.lost()
    assert out.held == 0
    out.write(b"z" * 2000)
    out.finish(close)
    assert not transport.disconnecting
    assert not overflows


# Descriptors


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    """Descriptors that are the test's own."""
    descriptors = [end for _ in range(3) for end in os.pipe()]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_one_is_handed_out_and_the_rest_closed(pipes: list[int]) -> None:
    received = ReceivedDescriptors()
    mine = [os.dup(descriptor) for descriptor in pipes]
    for descriptor in mine:
        received.add(descriptor)
    received.received()
    assert len(received) == 6
    assert received.take() == mine[0]
    assert [is_open(descriptor) for descriptor in mine] == [True] + [False] * 5
    assert not os.get_inheritable(mine[0])
    assert received.take() is None
    os.close(mine[0])


def test_the_latest_receive_counts(pipes: list[int]) -> None:
    """A receive without descriptors changes nothing (fact G31)."""
    received = ReceivedDescriptors()
    first, second, third = (os.dup(descriptor) for descriptor in pipes[:3])
    received.add(first)
    received.received()
    received.received()
    assert is_open(first)
    received.add(second)
    received.add(third)
    received.received()
    assert [is_open(descriptor) for descriptor in (first, second, third)] == [False, True, True]
    received.close()
    assert [is_open(descriptor) for descriptor in (first, second, third)] == [False] * 3
    assert len(received) == 0
    fourth = os.dup(pipes[0])
    received.add(fourth)
    received.close()
    assert not is_open(fourth)
