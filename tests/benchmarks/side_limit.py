"""The limit: a blocking socket with ``orjson`` and no library at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from benchmarks.meters import Stopwatch, Taken


CHUNK = 1 << 16


def run(serve: Callable[[Any], Coroutine[Any, Any, None]], path: str) -> None:
    """Serve tasks; none of them uses the loop."""
    asyncio.run(serve(Tasks(path)))


class Tasks:
    """What can be measured."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        _read_reply(connection)
        self._execute(connection, "qmp_capabilities", "caps")
        return connection

    @staticmethod
    def _execute(connection: socket.socket, name: str, ident: str, **arguments: Any) -> Any:
        message = {"execute": name, "arguments": arguments, "id": ident}
        connection.sendall(orjson.dumps(message) + b"\n")
        reply = _read_reply(connection)
        if reply["id"] != ident:
            raise RuntimeError(f"{ident} was answered with {reply['id']}")
        return reply["return"]

    def serial(self, count: int) -> Taken:
        """One command after another."""
        with self._connect() as connection:
            watch = Stopwatch()
            for number in range(count):
                ident = f"b-{number}"
                message = {"execute": "query-status", "id": ident}
                connection.sendall(orjson.dumps(message) + b"\n")
                if _read_reply(connection)["id"] != ident:
                    raise RuntimeError("answered out of order")
            return watch.read()

    def callers(self, callers: int, count: int, window: int) -> Taken:
        """So many commands in flight at any time; one ``send()`` for each."""
        total = callers * count
        sent = answered = 0
        in_flight = set()

        def send() -> None:
            nonlocal sent
            sent += 1
            ident = f"b-{sent}"
            in_flight.add(ident)
            connection.sendall(orjson.dumps({"execute": "query-status", "id": ident}) + b"\n")

        with self._connect() as connection:
            held = b""
            watch = Stopwatch()
            while sent < window:
                send()
            while answered < total:
                lines = (held + connection.recv(CHUNK)).split(b"\n")
                held = lines.pop()
                for line in lines:
                    in_flight.remove(orjson.loads(line)["id"])
                    answered += 1
                    if sent < total:
                        send()
            return watch.read()

    def events(self, count: int) -> Taken:
        """``orjson.loads`` alone: the lines are there, and cut already."""
        with self._connect() as connection:
            message = {"execute": "flood", "arguments": {"events": count}, "id": "flood"}
            connection.sendall(orjson.dumps(message) + b"\n")
            text = bytearray()
            while not text.endswith(b'"id": "flood"}\r\n'):
                text += connection.recv(CHUNK)
        lines = bytes(text).split(b"\n")[:count]
        watch = Stopwatch()
        for line in lines:
            orjson.loads(line)
        return watch.read()

    def bulk(self, size: int) -> Taken:
        """One large reply."""
        with self._connect() as connection:
            watch = Stopwatch()
            text = self._execute(connection, "bulk", "bulk", bytes=size)
            taken = watch.read()
        if len(text) != size:
            raise RuntimeError(f"{len(text)} of {size} bytes came")
        return taken


def _read_reply(connection: socket.socket) -> dict[str, Any]:
    """Read one line: nothing follows it before the next command."""
    data = connection.recv(CHUNK)
    if not data.endswith(b"\n"):
        pieces = [data]
        while data and not data.endswith(b"\n"):
            data = connection.recv(CHUNK)
            pieces.append(data)
        data = b"".join(pieces)
    reply: dict[str, Any] = orjson.loads(data)
    return reply
