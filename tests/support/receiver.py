"""A receiver of posts on loopback, in threads: for tests of processes, which have no reactor.

A test module takes the fixture by ``pytest_plugins``.

PYTEST_DONT_REWRITE: test modules import types from here before pytest sees that it is a plugin.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.daemon import LIMIT
from support.told import Told
from txqmp.monitor.cloudevents import STRUCTURED


class Receiver(ThreadingHTTPServer):
    """Answers as it is told; 200 where it is told nothing.

    :ivar answers: status codes, or ``"hang"``, ``"hang in the body"``, ``"cut"``, ``"flood"``.
    :ivar seen: the events that came, each with the answer that it got.
    :ivar others: the methods of other requests.
    :ivar connections: how many connections were made.
    :ivar over: ends what hangs.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int | str] = []
        self.seen: list[tuple[int | str, Told]] = []
        self.others: list[str] = []
        self.connections = 0
        self.came = threading.Condition()
        self.over = threading.Event()

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/qmp?token=secret"

    @property
    def taken(self) -> list[Told]:
        """What was answered with 200."""
        with self.came:
            return [told for answer, told in self.seen if answer == 200]

    def wait_for(self, count: int) -> None:
        """Return when so many requests have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= count, LIMIT), self.seen


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        told = Told.read(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == STRUCTURED
        assert self.headers["webhook-id"] == told.id
        answer = self.server.answers.pop(0) if self.server.answers else 200
        with self.server.came:
            self.server.seen.append((answer, told))
            self.server.came.notify_all()
        if answer == "hang":
            self.server.over.wait()
        elif answer == "cut":
            self.connection.close()
            self.close_connection = True
        else:
            self.answer(answer)

    def answer(self, answer: int | str) -> None:
        status = answer if isinstance(answer, int) else 200
        size = {"hang in the body": 100, "flood": 1 << 30}.get(str(answer), 2)
        self.send_response(500 if answer == "flood" else status)
        self.send_header("Content-Length", str(size))
        if 300 <= status < 400:
            self.send_header("Location", self.server.url)
        self.end_headers()
        self.wfile.write(b"ok")
        self.wfile.flush()
        if answer == "hang in the body":
            self.server.over.wait()
        elif answer == "flood":
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True

    def do_GET(self) -> None:
        self.server.others.append("GET")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
