"""The spool's promise against ends that nobody plans: SIGKILL, and a disk that is full."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from txqmp.monitor.spool import Reader, SpoolLimits
from txqmp.monitor.spool.store import Store


KILLS = 6

#: Puts records in, and prints the position of each that is committed; a sink reads and prints where
#: it acknowledged to. What is printed is written at once: SIGKILL leaves no time.
PROGRAM = """
import os, sys
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from txqmp.monitor.spool import Item, SpoolLimits, Start, make_spool

def say(what, position):
    os.write(1, b"%s %d\\n" % (what, position))

def ended(problem):
    os.write(1, b"failed %s\\n" % problem.kind.value.encode())
    reactor.stop()

async def deliver(spool):
    while True:
        batch = await spool.read_for("sink", count=20)
        assert batch.gap is None
        await spool.ack("sink", batch.through)
        say(b"acked", batch.through)
        await spool.when_beyond(batch.through)

async def main(reactor, directory):
    spool = make_spool(reactor, directory, SpoolLimits(), failed=ended)
    await spool.start()
    await spool.add_sink("sink", Start.BEGINNING)
    ensureDeferred(deliver(spool)).addErrback(lambda _: None)
    position = spool.state.last
    while True:
        group = []
        for _ in range(10):
            position += 1
            item = Item("vm", "STOP", reactor.seconds(), b"%d " % position + bytes(400))
            group.append(spool.put(item).addCallback(lambda at: say(b"put", at)))
        for each in group:
            await each

react(main, sys.argv[1:])
"""


def start(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A core is not wanted, and a file that is too large is an error like others.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )


def check(directory: Path, told: list[bytes]) -> tuple[int, int]:
    """Everything that was told is there; return what is: the last position and the sink's."""
    puts = [int(line.split()[1]) for line in told if line.startswith(b"put ")]
    acks = [int(line.split()[1]) for line in told if line.startswith(b"acked ")]
    assert puts == sorted(puts)
    assert acks == sorted(acks)
    with Reader(str(directory)) as reader:
        state = reader.state()
        (sink,) = state.sinks
        assert state.last >= max(puts, default=0)
        assert sink.acked >= max(acks, default=0)
        assert sink.acked <= state.last
        after = state.first - 1
        while after < state.last:
            batch = reader.read(after, count=1000)
            assert batch.gap is None
            positions = [each.position for each in batch.records]
            assert positions == list(range(after + 1, batch.through + 1))
            for each in batch.records:
                assert int(each.data.split(b" ")[0]) == each.position
            after = batch.through
    return state.last, sink.acked


def test_killed_at_any_moment(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    chance = random.Random(4)
    before = (0, 0)
    for _ in range(KILLS):
        process = start(directory)
        with process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 1000))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
            assert process.stderr is not None
            assert process.stderr.read() == b""
        now = check(directory, [line for line in lines if line.endswith(b"\n")])
        assert now[0] > before[0]
        assert now[1] >= before[1]
        before = now
    # And it is as good as new.
    store = Store(str(directory), SpoolLimits())
    assert store.commit((), (), 0.0).state.last == before[0]
    store.close()


def test_file_that_cannot_grow(tmp_path: Path) -> None:
    """The spool says so once, and lies to nobody."""
    directory = tmp_path / "spool"
    Store(str(directory)).close()
    process = start(directory)
    with process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        assert process.stdout is not None
        lines = process.stdout.read().splitlines(keepends=True)
        assert process.wait() != 0
    assert lines.count(b"failed io\n") == 1
    assert len(lines) > 100
    check(directory, lines)


@pytest.mark.parametrize("size", [1, 5000])
def test_torn_end_of_the_log(tmp_path: Path, size: int) -> None:
    """What a power failure can leave: the last write is not whole. It was told to nobody."""
    directory = tmp_path / "spool"
    process = start(directory)
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
    with (directory / "spool.db-wal").open("ab") as log:
        log.write(b"\x07" * size)
    check(directory, [line for line in lines if line.endswith(b"\n")])
