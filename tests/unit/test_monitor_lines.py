"""Lines, written to their end."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from txqmp.monitor.sinks.lines import LineWriter, WriteError


def read_all(descriptor: int) -> bytes:
    return os.read(descriptor, 1 << 20)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == reader  # the test has closed it


class Recorded:
    """``os.write`` that keeps what was written, and does a part of it, or fails, as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: int | Exception) -> None:
        self.writes: list[bytes] = []
        self._outcomes = list(outcomes)
        monkeypatch.setattr("txqmp.monitor.sinks.lines.os.write", self)

    def __call__(self, descriptor: int, data: memoryview) -> int:
        outcome = self._outcomes.pop(0) if self._outcomes else len(data)
        if isinstance(outcome, Exception):
            raise outcome
        self.writes.append(bytes(data[:outcome]))
        return outcome


def test_writer(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    LineWriter(4096).write(writer, [b"one", b"two"])
    assert read_all(reader) == b"one\ntwo\n"


def test_writer_keeps_lines_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no larger than PIPE_BUF goes into a pipe as a whole."""
    recorded = Recorded(monkeypatch)
    LineWriter(10).write(1, [b"1234", b"1234", b"123", b"x" * 20, b"1"])
    assert recorded.writes == [b"1234\n1234\n", b"123\n", b"x" * 20 + b"\n", b"1\n"]


def test_writer_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch, 2, 3)
    LineWriter(4096).write(1, [b"one", b"two"])
    assert recorded.writes == [b"on", b"e\nt", b"wo\n"]


@pytest.mark.parametrize(
    ("written", "whole", "then"),
    [
        (0, 0, b"one\n"),
        (2, 0, b"e\n"),
        (3, 0, b"\n"),
        (4, 1, b"two\n"),
        (5, 1, b"wo\n"),
    ],
)
def test_writer_ends_a_line_that_was_torn(
    monkeypatch: pytest.MonkeyPatch, written: int, whole: int, then: bytes
) -> None:
    lines = [b"one", b"two"]
    problem = OSError(errno.ENOSPC, "No space left on device")
    outcomes: list[int | Exception] = [written, problem] if written else [problem]
    recorded = Recorded(monkeypatch, *outcomes)
    writer = LineWriter(4096)
    with pytest.raises(WriteError, match="No space left") as raised:
        writer.write(1, lines)
    assert raised.value.written == whole
    assert raised.value.errno == errno.ENOSPC
    recorded.writes.clear()
    writer.write(1, lines[whole : whole + 1])
    assert recorded.writes == [then]


def test_writer_that_is_torn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = OSError(errno.ENOSPC, "No space left on device")
    recorded = Recorded(monkeypatch, 1, problem, 1, problem, 1, problem)
    writer = LineWriter(4096)
    for _ in range(3):
        with pytest.raises(WriteError) as raised:
            writer.write(1, [b"one"])
        assert raised.value.written == 0
    writer.write(1, [b"one"])
    assert b"".join(recorded.writes) == b"one\n"


def test_writer_does_not_mend_lines_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was torn and does not come again is ended before the next."""
    problem = OSError(errno.ENOSPC, "No space left on device")
    recorded = Recorded(monkeypatch, 2, problem, 1, problem, 2, problem)
    writer = LineWriter(4096)
    for line in (b"one", b"two", b"six"):
        with pytest.raises(WriteError) as raised:
            writer.write(1, [line])
        assert raised.value.written == 0
    writer.write(1, [b"six", b"ten"])
    assert b"".join(recorded.writes) == b"on\nsix\nten\n"


def test_writer_counts_the_pieces_before(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded(monkeypatch, 4, 4, OSError(errno.EIO, "broken"))
    with pytest.raises(WriteError) as raised:
        LineWriter(1).write(1, [b"one", b"two", b"six"])
    assert raised.value.written == 2


def test_writer_waits_for_a_descriptor_that_does_not_block(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = [b"x" * 999] * 200
    thread = threading.Thread(target=LineWriter(4096).write, args=(writer, lines))
    thread.start()
    size = 0
    while size < 200_000:
        size += len(os.read(reader, 4096))
    thread.join(20)
    assert not thread.is_alive()
    assert size == 200_000


def test_writer_without_a_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(WriteError) as raised:
        LineWriter(4096).write(writer, [b"one"])
    assert raised.value.errno == errno.EPIPE
