"""The socket of a log, which reads when the test does."""

from __future__ import annotations

import os
import socket
from pathlib import Path


class LogEnd:
    """
    Where a log listens.

    :param path: of its socket.
    :param kind: ``socket.SOCK_DGRAM`` or ``socket.SOCK_STREAM``.
    """

    def __init__(self, path: Path, kind: int = socket.SOCK_DGRAM) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        self._socket.settimeout(20)
        if kind == socket.SOCK_STREAM:
            self._socket.listen(1)

    def accept(self) -> socket.socket:
        """The next one who connects."""
        connection, _ = self._socket.accept()
        connection.settimeout(20)
        return connection

    def read(self) -> bytes:
        """The next datagram, or what is in the file that came with it."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 4)
        if not descriptors:
            return data
        assert data == b""
        (self.file,) = descriptors
        return os.pread(self.file, os.fstat(self.file).st_size, 0)

    def waiting(self) -> list[bytes]:
        """All datagrams that have come."""
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self._socket.recv(1 << 20))
        except BlockingIOError:
            self._socket.settimeout(20)
        return found

    def close(self) -> None:
        """The log ends, and its socket goes."""
        self._socket.close()
        os.unlink(self.path)


def fields(datagram: bytes) -> dict[str, bytes]:
    """What the native protocol of the journal says, read as its documentation tells to."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode() not in found
        found[name.decode()] = value
        datagram = rest
    return found
