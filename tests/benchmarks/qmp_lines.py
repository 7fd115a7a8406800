"""Lines such as a monitor's client reads: what is compressed when it is measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any


def qmp_lines(count: int) -> list[bytes]:
    """Events and replies, the same ones each time, all of them different."""
    return [json.dumps(message).encode("ascii") + b"\r\n" for message in _messages(count)]


def _messages(count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(1)
    microseconds = 1_784_937_600_000_000
    for number in range(count):
        microseconds += chance.randrange(1, 50_000)
        seconds, rest = divmod(microseconds, 1_000_000)
        stamp = {"seconds": seconds, "microseconds": rest}
        yield chance.choice(_KINDS)(chance, number, stamp)


def _job(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    states = ("created", "running", "paused", "ready", "waiting", "pending", "concluded")
    data = {"status": chance.choice(states), "id": f"job-{chance.randrange(100)}"}
    return {"timestamp": stamp, "event": "JOB_STATUS_CHANGE", "data": data}


def _balloon(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    data = {"actual": chance.randrange(1 << 20) << 12}
    return {"timestamp": stamp, "event": "BALLOON_CHANGE", "data": data}


def _turn(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    return {"timestamp": stamp, "event": chance.choice(("STOP", "RESUME"))}


def _clock(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    data = {"offset": chance.randrange(100), "qom-path": "/machine/unattached/device[3]/rtc"}
    return {"timestamp": stamp, "event": "RTC_CHANGE", "data": data}


def _block(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    length = chance.randrange(1 << 20) << 16
    data = {
        "device": f"drive-virtio-disk{chance.randrange(8)}",
        "len": length,
        "offset": chance.randrange(length + 1),
        "speed": 0,
        "type": chance.choice(("backup", "mirror", "stream")),
    }
    return {"timestamp": stamp, "event": "BLOCK_JOB_COMPLETED", "data": data}


def _done(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    return {"return": {}, "id": f"5f0c3a1e-{number}"}


def _status(chance: random.Random, number: int, stamp: dict[str, int]) -> dict[str, Any]:
    running = chance.random() < 0.8
    status = {
        "status": "running" if running else "paused",
        "singlestep": False,
        "running": running,
    }
    return {"return": status, "id": f"5f0c3a1e-{number}"}


_KINDS = (_job, _job, _job, _balloon, _turn, _clock, _block, _done, _status)
