"""A receiver of webhooks that does as little as it can: ``post_taker.py``.

It prints its port, answers each POST on its one connection with 204, and ends with its input.
"""

from __future__ import annotations

import os
import socket
import threading


ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
LENGTH = b"content-length:"


def serve(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            take(connection)


def take(connection: socket.socket) -> None:
    data = b""
    while True:
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            at = data.lower().index(LENGTH) + len(LENGTH)
            size = end + 4 + int(data[at : data.index(b"\r\n", at)])
            if len(data) >= size:
                data = data[size:]
                connection.sendall(ANSWER)
                continue
        more = connection.recv(1 << 20)
        if not more:
            return
        data += more


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        os.write(1, b"%d\n" % listening.getsockname()[1])
        while os.read(0, 1):
            pass


if __name__ == "__main__":
    main()
