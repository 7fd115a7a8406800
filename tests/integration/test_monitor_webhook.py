"""``--webhook``, with a receiver that is sometimes good."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.daemon import LIMIT, Daemon
from support.qemu import RealQEMU
from support.told import Told
from txqmp.monitor.cloudevents import STRUCTURED


pytestmark = pytest.mark.timeout(180)


class Receiver(ThreadingHTTPServer):
    """Answers as it is told; 200 where it is told nothing.

    :ivar answers: status codes, or ``"hang"``, ``"hang in the body"``, ``"cut"``, ``"flood"``.
    :ivar seen: the events that came, each with the answer that it got.
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


def test_posts(receiver: Receiver, qemu: RealQEMU) -> None:
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(2)
        for _ in range(5):
            qemu.execute("cont")
            qemu.execute("stop")
        receiver.wait_for(12)
        assert daemon.stop() == -signal.SIGTERM
        assert [told for _, told in receiver.seen] == daemon.records
        assert daemon.of("a")[-1] == "disconnected"
        # One connection, kept: every body was read.
        assert receiver.connections == 1
        assert "13 events were delivered, 0 put aside, 0 lost; 0 of 13 attempts" in daemon.log
        assert "were not delivered" not in daemon.log
        assert "secret" not in daemon.log


def test_a_receiver_that_is_sometimes_good(receiver: Receiver, qemu: RealQEMU) -> None:
    receiver.answers = [500, 200, 303, "cut", "flood", 422]
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(6)
        qemu.execute("cont")
        receiver.wait_for(7)
        daemon.stop()
        assert [(answer, told.seq) for answer, told in receiver.seen[:7]] == [
            (500, 1),
            (200, 1),
            (303, 2),
            ("cut", 2),
            ("flood", 2),
            (422, 2),
            (200, 3),
        ]
        # Whoever has it twice can tell.
        assert len({told.id for _, told in receiver.seen[2:6]}) == 1
        assert receiver.others == []
        assert f"event {daemon.records[1].id} of a is put aside (rejected): " in daemon.log
        assert "3 events were delivered, 1 put aside" in daemon.log


@pytest.mark.parametrize("how", ["hang", "hang in the body"])
def test_a_receiver_that_hangs_slows_nobody(receiver: Receiver, qemu: RealQEMU, how: str) -> None:
    receiver.answers = [how]
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(1)
        daemon.expect("a", "snapshot")
        for _ in range(50):
            qemu.execute("cont")
            qemu.execute("stop")
            daemon.expect("a", "STOP")
        began = time.monotonic()
        assert daemon.stop() == -signal.SIGTERM
        assert time.monotonic() - began < 20
        assert "events were not delivered and are lost" in daemon.log
        assert "Traceback" not in daemon.log


def test_nobody_receives(qemu: RealQEMU) -> None:
    with Daemon(f"a={qemu.path()}", "--webhook", "http://127.0.0.1:9/") as daemon:
        daemon.expect("a", "snapshot")
        daemon.wait_for_log("no connection: Connection was refused")
        assert daemon.stop() == -signal.SIGTERM
        assert "3 events were not delivered and are lost: no state directory" in daemon.log
