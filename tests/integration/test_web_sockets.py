"""The HTTP face on real sockets: who can connect, who does not read, and its end."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor

from support.qemu import RealQEMU
from support.waiting import within
from support.web import FakeSource
from support.webface import WebFace
from txqmp import ConnectError
from txqmp.monitor.qmpevents import KNOWN
from txqmp.monitor.web.connections import GRACE
from txqmp.monitor.web.service import WebService


pytest_plugins = ["support.sessions"]

pytestmark = pytest.mark.timeout(180)


class UNIXConnection(http.client.HTTPConnection):
    """To a server on a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def get(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    with closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def tcp(face: WebFace) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", face.port, timeout=20)


def stream(face: WebFace, query: str = "", *, buffer: int | None = None) -> socket.socket:
    """Ask for the stream; nothing of it is read."""
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", face.port))
    sock.sendall(f"GET /events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


def read_until(sock: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        more = sock.recv(1 << 16)
        assert more, data[-2000:]
        data += more
    return data


@pytest.fixture
def face() -> Iterator[WebFace]:
    with WebFace("--last", "40") as face:
        yield face


def test_what_there_is(face: WebFace) -> None:
    for path in ("/", "/static/page.js", "/static/page.css", "/healthz", "/readyz"):
        assert get(tcp(face), path)[0] == 200
    assert get(tcp(face), "/nothing")[0] == 404
    status, body = get(tcp(face), "/api/v1/status")
    assert status == 200
    assert json.loads(body)["feed"]["last"] == 40
    status, body = get(tcp(face), "/metrics")
    assert status == 200
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"txqmp_vm_up", "txqmp_sink_lag_seconds", "txqmp_events_received"} <= names


def test_another_name(face: WebFace) -> None:
    assert get(tcp(face), "/", Host=f"evil.example:{face.port}")[0] == 421
    assert get(tcp(face), "/events", Host="evil.example")[0] == 421


def test_a_stream(face: WebFace) -> None:
    with stream(face, "?after=38") as sock:
        text = read_until(sock, b"id: 40\ndata: ")
        assert b'"seq": 39' in text and b'"seq": 38' not in text
        face.happen(2)
        read_until(sock, b"id: 42\ndata: ")


def test_unix_socket(place: Path) -> None:
    path = place / "http.sock"
    with WebFace(where=f"unix:{path}") as face:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert get(UNIXConnection(path), "/readyz") == (200, b"ready\n")
        # No browser gets here by itself: what stands before it may call us as it likes.
        assert get(UNIXConnection(path), "/", Host="monitor.example")[0] == 200
        face.stop()
    assert not path.exists()


def test_who_never_reads_costs_no_memory() -> None:
    with WebFace("--rate=2000", "--size=4000") as face, ExitStack() as stack:
        for _ in range(5):  # what the first ones cost is not what is asked for
            with stream(face) as sock:
                read_until(sock, b"event: hello")
        before = face.rss
        for _ in range(30):
            stack.enter_context(stream(face, buffer=4096))
        reader = stack.enter_context(stream(face))
        read = 0
        while read < 24 << 20:  # the others could have had as much
            read += len(reader.recv(1 << 20))
        # A connection holds up to two pieces of 64 KiB before it says stop.
        assert face.rss - before < 30 * (160 << 10) + (8 << 20)
        assert get(tcp(face), "/healthz") == (200, b"ok\n")
        streams = json.loads(get(tcp(face), "/api/v1/status")[1])["streams"]
        assert streams["clients"] == 31
        assert face.stop() < GRACE + 4


def test_stopping_with_clients_of_all_kinds() -> None:
    with WebFace("--rate=2000", "--size=4000") as face, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(stream(face, "?after=0"))  # never reads
            stack.enter_context(socket.create_connection(("127.0.0.1", face.port)))  # says nothing
            half = stack.enter_context(socket.create_connection(("127.0.0.1", face.port)))
            half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        read_until(stack.enter_context(stream(face)), b"id: ")
        time.sleep(1)
        assert face.stop() < GRACE + 4


# In this process


async def started(where: str, **options: bool) -> WebService:
    service = WebService(reactor, where, FakeSource(), **options)  # type: ignore[arg-type]
    service.privilegedStartService()
    service.startService()
    return service


@pytest_twisted.ensureDeferred
async def test_loopback_is_all_that_is_open() -> None:
    service = await started("tcp:0")
    address = service.address
    assert address is not None and address.host == "127.0.0.1"  # type: ignore[attr-defined]
    await within(service.stopService())


def test_other_hosts_have_to_be_allowed() -> None:
    for where in ("tcp:0:interface=0.0.0.0", r"tcp6:0:interface=\:\:"):
        with pytest.raises(ValueError, match="open to other hosts"):
            WebService(reactor, where, FakeSource())


# Twisted 24.7 leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken() -> None:
    service = await started("tcp:0")
    port = service.address.port  # type: ignore[union-attr]
    with pytest.raises(ConnectError, match="in use"):
        await started(f"tcp:{port}")
    await within(service.stopService())
    again = await started(f"tcp:{port}")
    await within(again.stopService())


@pytest_twisted.ensureDeferred
async def test_a_socket_that_was_left_behind(place: Path) -> None:
    path = place / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (place / "http.sock.lock").symlink_to(str(gone.pid))
    service = await started(str(path))
    await within(service.stopService())
    assert list(place.iterdir()) == []


# The names of events


def test_the_names_of_events_are_known(qemu: RealQEMU) -> None:
    """Every event of the QEMU that is installed has a label of its own in the metrics."""
    schema = qemu.execute("query-qmp-schema")
    names = {entry["name"] for entry in schema if entry["meta-type"] == "event"}
    assert len(names) > 40
    assert names - KNOWN == set()
