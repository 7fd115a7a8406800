"""The promise of the file with an event on each line, against SIGKILL in the middle of a write."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from support.outgoing import event
from txqmp.monitor.sinks.jsonl import AppendedFile


KILLS = 8
BATCH = 1000
DATA = b'{"text":"%b"}' % (b"x" * 3000)
THEIRS = b'{"by":"others"}\n'

#: Delivers events from a number on, in batches, and prints the number up to which each batch was
#: acknowledged. What is printed is written at once: SIGKILL leaves no time.
PROGRAM = """
import os, sys
from twisted.internet.task import react
from twisted.internet.defer import ensureDeferred
from support.outgoing import event
from txqmp.monitor.sinks.jsonl import jsonl_delivery
from txqmp.monitor.sinks.settings import JSONLSettings

async def main(reactor, path, number, batch, data):
    number, batch, data = int(number), int(batch), data.encode()
    delivery = jsonl_delivery(reactor, JSONLSettings(path=path))
    while True:
        events = [event(number + each, data=data) for each in range(batch)]
        await delivery.deliver(events)
        number += batch
        os.write(1, b"%d\\n" % number)

react(lambda *args: ensureDeferred(main(*args)), sys.argv[1:])
"""


def run(path: Path, number: int, chance: random.Random) -> int:
    """Let it write from this number on, and kill it; return where the next one is to begin."""
    size = path.stat().st_size + chance.randrange(3 * BATCH * len(DATA))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(number), str(BATCH), DATA],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        while path.stat().st_size < size and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().splitlines(keepends=True)
        assert process.stderr.read() == b""
    numbers = [int(line) for line in told if line[:1].isdigit() and line.endswith(b"\n")]
    return numbers[-1] if numbers else number


def numbers(path: Path) -> list[int]:
    """The numbers of the events in a file, each as it comes for the first time; every line of it is
    JSON."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    found = [orjson.loads(line) for line in text.splitlines()]
    return list(dict.fromkeys(int(each["sequence"]) for each in found if "id" in each))


@pytest.mark.timeout(240)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Whatever was acknowledged is there, in its order, and every line can be read."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(THEIRS)
    chance = random.Random(4)
    acknowledged, torn = 0, 0
    for _ in range(KILLS):
        acknowledged = run(path, acknowledged, chance)
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            torn += 1
        else:
            # A power failure takes more than a SIGKILL does: all that was not acknowledged.
            end = text.rfind(b"\n", 0, -1) + 1
            if orjson.loads(text[end:]).get("sequence", "") >= f"{acknowledged:020}":
                with path.open("r+b") as file:
                    file.truncate(end + chance.randrange(1, len(text) - end))
                torn += 1
        # What mends it writes the next batch.
        target = AppendedFile(str(path))
        target.write([event(acknowledged + each, data=DATA).text for each in range(BATCH)])
        target.close()
        acknowledged += BATCH
        assert numbers(path) == list(range(acknowledged))
    assert torn > 0
    assert path.read_bytes().startswith(THEIRS)
