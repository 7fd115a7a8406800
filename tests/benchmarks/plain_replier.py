"""
``replier.c`` in Python, for where there is no compiler. It is slower than what it is measured
against deserves, so the ratios come out flatter than they are.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys


GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},'
    b' "capabilities": ["oob"]}}\r\n'
)
STATUS = b'{"status": "running", "singlestep": false, "running": true}'
EVENT = (
    b'{"timestamp": {"seconds": 1784937600, "microseconds": %d}, "event": "JOB_STATUS_CHANGE",'
    b' "data": {"status": "running", "id": "job-%d"}}\r\n'
)
COMMAND = re.compile(rb'"(?:execute|exec-oob)"\s*:\s*"([^"]*)"')
ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*")')
NUMBER = re.compile(rb'"(?:events|bytes)"\s*:\s*(\d+)')


class Peer:
    """One connection. The commands that it sends have no braces in their strings."""

    floods: dict[int, bytes] = {}

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._held = b""
        connection.sendall(GREETING)

    def read(self) -> bool:
        """Answer what came; ``False`` at the end."""
        try:
            data = self.connection.recv(1 << 16)
            self._held += data
            if data and self._held.count(b"{") == self._held.count(b"}"):
                held, self._held = self._held, b""
                self.connection.sendall(self._answers(held))
        except ConnectionError:
            return False
        return bool(data)

    def _answers(self, text: bytes) -> bytes:
        names = COMMAND.findall(text)
        idents = ID.findall(text)
        if len(idents) < len(names):  # only qmp_capabilities, which comes alone, may lack an id
            return b"".join(b'{"return": {}}\r\n' for _ in names)
        return b"".join(
            self._answer(name, ident, text) for name, ident in zip(names, idents, strict=True)
        )

    def _answer(self, name: bytes, ident: bytes, text: bytes) -> bytes:
        reply = b'{"return": %b, "id": %b}\r\n'
        if name == b"qmp_capabilities":
            return reply % (b"{}", ident)
        if name == b"bulk":
            return reply % (b'"' + b"A" * self._number(text) + b'"', ident)
        if name == b"flood":
            return self._flood(self._number(text)) + reply % (STATUS, ident)
        return reply % (STATUS, ident)

    @staticmethod
    def _number(text: bytes) -> int:
        found = NUMBER.search(text)
        return int(found[1]) if found is not None else 0

    @classmethod
    def _flood(cls, events: int) -> bytes:
        if events not in cls.floods:
            cls.floods[events] = b"".join(EVENT % (n % 1_000_000, n % 100) for n in range(events))
        return cls.floods[events]


def main(path: str) -> None:
    """Serve until the input ends."""
    selector = selectors.DefaultSelector()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4096)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in selector.select():
                peer = key.data
                if peer is not None:
                    if not peer.read():
                        selector.unregister(peer.connection)
                        peer.connection.close()
                elif key.fileobj is listener:
                    connection, _ = listener.accept()
                    selector.register(connection, selectors.EVENT_READ, Peer(connection))
                else:
                    return


main(sys.argv[1])
