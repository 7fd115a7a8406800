"""A process of its own: the plainest QMP server, as ``python … DESCRIPTOR``.

What it costs is not in our process, so that time and memory there are the client's alone. It knows
two commands: ``fill`` returns a string of so many ``bytes``, ``flood`` sends so many ``events``
before it returns.
"""

from __future__ import annotations

import json
import socket
import sys


GREETING = b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, '
GREETING += b'"capabilities": []}}\r\n'

#: As many events as QEMU's socket buffer may hold at once.
BATCH = 512


def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as client:
        client.sendall(GREETING)
        with client.makefile("rb") as lines:
            for line in lines:
                if line.strip():
                    answer(client, json.loads(line))


def answer(client: socket.socket, command: dict[str, object]) -> None:
    arguments = command.get("arguments")
    assert arguments is None or isinstance(arguments, dict)
    value: object = {}
    if command["execute"] == "flood":
        assert arguments is not None
        flood(client, arguments["events"])
    elif command["execute"] == "fill":
        assert arguments is not None
        value = "0x00 " * (arguments["bytes"] // 5)
    client.sendall(json.dumps({"return": value, "id": command["id"]}).encode() + b"\r\n")


def flood(client: socket.socket, count: int) -> None:
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        client.sendall(b"".join(event(number) for number in numbers))


def event(number: int) -> bytes:
    return (
        b'{"timestamp": {"seconds": 1795231104, "microseconds": 526266}, "event": "RTC_CHANGE", '
        b'"data": {"offset": %d, "qom-path": "/machine/unattached/device[7]/rtc"}}\r\n' % number
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
