"""Events on the standard output."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor

from support.outgoing import event, events, lines, refusal
from support.waiting import within
from txqmp.monitor.sinks import stdout
from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    GoneError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.settings import StdoutSettings
from txqmp.monitor.sinks.stdout import stdout_delivery


class Pipe:
    """A pipe that is closed at the end of the test."""

    def __init__(self) -> None:
        self.reader: int | None
        self.reader, self.writer = os.pipe()

    def leave(self) -> None:
        assert self.reader is not None
        os.close(self.reader)
        self.reader = None

    def read(self, size: int) -> bytes:
        assert self.reader is not None
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
        return data

    def close(self) -> None:
        if self.reader is not None:
            self.leave()
        os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_it_is_the_real_one() -> None:
    """Twisted replaces ``sys.stdout`` by the log."""
    assert stdout.STANDARD_OUTPUT == 1
    delivery = stdout_delivery(reactor, StdoutSettings())
    assert (delivery.name, delivery.batch) == ("stdout", 1000)


@pytest_twisted.ensureDeferred
async def test_prints(pipe: Pipe) -> None:
    delivery = stdout_delivery(reactor, StdoutSettings(), pipe.writer)
    delivery.start()
    for start in (0, 20):
        await within(delivery.deliver(events(20, start=start)))
    delivery.reopen()
    await within(delivery.deliver([event(40)]))
    expected = lines(events(41))
    assert pipe.read(len(expected)) == expected
    await within(delivery.stop())
    os.write(pipe.writer, b"it is open")


@pytest_twisted.ensureDeferred
async def test_nobody_reads_any_more(pipe: Pipe) -> None:
    delivery = stdout_delivery(reactor, StdoutSettings(), pipe.writer)
    await within(delivery.deliver(events(2)))
    pipe.leave()
    problem = await refusal(delivery.deliver(events(2)))
    assert type(problem) is GoneError
    assert (str(problem), problem.delivered) == ("nobody reads any more", 0)
    await within(delivery.stop())


@pytest_twisted.ensureDeferred
async def test_there_is_none() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    delivery = stdout_delivery(reactor, StdoutSettings(), writer)
    assert type(await refusal(delivery.deliver(events(2)))) is GoneError
    await within(delivery.stop())


@pytest_twisted.ensureDeferred
async def test_a_pipe_that_is_stuck(pipe: Pipe) -> None:
    """It blocks its thread, not the end."""
    delivery = stdout_delivery(reactor, StdoutSettings(), pipe.writer)
    delivery._grace = 0.05
    many = events(1000)
    delivering = delivery.deliver(many)
    stopping = delivery.stop()
    problem = await refusal(delivering)
    assert type(problem) is UnavailableError
    assert str(problem) == "stopped"
    await within(stopping)
    # The thread ends when it can, and until then it has the descriptor.
    assert pipe.read(len(lines(many))) == lines(many)


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_full() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    delivery = stdout_delivery(reactor, StdoutSettings(), full)
    problem = await refusal(delivery.deliver(events(2)))
    assert type(problem) is UnavailableError
    assert str(problem) == "cannot write: No space left on device"
    await within(delivery.stop())
    os.close(full)


@pytest.mark.parametrize("place", [0, 2])
@pytest_twisted.ensureDeferred
async def test_a_line_end_in_an_event(pipe: Pipe, place: int) -> None:
    """It would be two lines. What comes before it is written."""
    delivery = stdout_delivery(reactor, StdoutSettings(), pipe.writer)
    batch = events(4)
    batch[place] = OutgoingEvent(id="x", type="y", vm="z", text=b"{\n}")
    problem = await refusal(delivery.deliver(batch))
    assert type(problem) is EventRejectedError
    assert problem.delivered == place
    await within(delivery.deliver(batch[place + 1 :]))
    expected = lines(events(4)[:place] + events(4)[place + 1 :])
    assert pipe.read(len(expected)) == expected
    await within(delivery.stop())
