"""What holds for every request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from support.leaks import LoggedErrors
from support.web import Face, parse
from txqmp.monitor.web.hosts import answers_to, is_loopback, name_in


PATHS = ["/", "/static/page.css", "/static/page.js", "/api/v1/status", "/healthz", "/readyz"]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " frame-ancestors 'none'"
)


@pytest.fixture
def face(clock: Clock) -> Iterator[Face]:
    face = Face(clock)
    yield face
    face.close()


def assert_guarded(answer: Any) -> None:
    assert answer.header("Content-Security-Policy") == CSP
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Set-Cookie") is None
    assert answer.header("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("path", PATHS)
def test_get_and_head(face: Face, path: str) -> None:
    answer = face.get(path)
    assert answer.status == 200
    assert answer.body
    assert_guarded(answer)
    head = face.get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Length") == answer.header("Content-Length")
    assert head.header("Content-Type") == answer.header("Content-Type")
    assert_guarded(head)


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]
)
@pytest.mark.parametrize("path", ["/", "/events", "/nothing", "*"])
def test_other_methods(face: Face, path: str, method: str) -> None:
    answer = face.get(path, method=method)
    assert answer.status == 405
    assert answer.header("Allow") == "GET, HEAD"
    assert_guarded(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/favicon.ico",
        "/static",
        "/static/",
        "/static/page.html",
        "/static/../source.py",
        "/static/%2e%2e/source.py",
        "/api",
        "/api/v1",
        "/api/v1/status/",
        "/events/more",
        "/healthz/",
        "/metrics",  # where there are none
        "//",
        "http://localhost/nothing",
    ],
)
def test_what_is_not_there(face: Face, path: str) -> None:
    answer = face.get(path)
    assert (answer.status, answer.body) == (404, b"not found\n")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert_guarded(answer)
    assert face.get(path, method="HEAD").status == 404


@pytest.mark.parametrize("path", ["/nothing?<script>", "/<script>alert(1)</script>"])
def test_nothing_is_echoed(face: Face, path: str) -> None:
    assert b"script" not in face.get(path.replace(" ", "%20")).body


# Host


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9177",
        "LOCALHOST.",
        "127.0.0.1",
        "127.0.0.1:9177",
        "127.8.9.10",
        "[::1]",
        "[::1]:9177",
        "monitor.example",
        "Monitor.Example:443",
    ],
)
@pytest.mark.parametrize("path", ["/", "/events"])
def test_our_names(clock: Clock, host: str, path: str) -> None:
    face = Face(clock, names=("monitor.EXAMPLE",))
    assert face.get(path, host=host).status == 200
    face.close()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9177",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example/localhost",
        "localhost@evil.example",
        "evil.example:9177:localhost",
        "192.0.2.7",
        "[2001:db8::7]",
        "2130706433",  # 127.0.0.1, for some
        "0x7f.1",
        "",
        ":9177",
        "localhost:port",
        "[::1",
        "\x7f",
    ],
)
@pytest.mark.parametrize("path", ["/", "/events", "/nothing"])
def test_names_of_others(face: Face, host: str, path: str) -> None:
    answer = face.get(path, host=host)
    assert answer.status == 421
    assert host.encode() not in answer.body or not host
    assert_guarded(answer)


def test_no_name(face: Face) -> None:
    assert face.get("/healthz", host=None).status == 400
    assert face.get("/healthz", host=None, version="1.0").status == 200
    assert face.get("/healthz", Host="localhost").status == 400
    assert face.get("/healthz", host="evil.example", Host="localhost").status == 400


@pytest.mark.parametrize(
    ("address", "host", "known"),
    [
        (UNIXAddress(b"/run/http.sock"), b"whatever", True),
        (IPv4Address("TCP", "192.0.2.7", 9177), b"192.0.2.7:9177", True),
        (IPv4Address("TCP", "192.0.2.7", 9177), b"192.0.2.8:9177", False),
        (IPv6Address("TCP", "2001:db8::7", 9177), b"[2001:db8::7]:9177", True),
        (IPv6Address("TCP", "2001:db8::7", 9177), b"evil.example", False),
    ],
)
def test_names_by_the_way_that_was_taken(address: Any, host: bytes, known: bool) -> None:
    assert answers_to(host, address, frozenset()) is known


def test_name_in_a_header() -> None:
    assert name_in(b"Example.ORG:80") == "example.org"
    assert name_in(b"[::1]:80") == "::1"
    assert name_in(b".") is None
    assert is_loopback("127.0.0.1") and is_loopback("::1")
    assert not is_loopback("example.org")


# Requests that cost


def test_a_small_body_is_not_read(face: Face) -> None:
    client = face.client()
    client.request("/healthz", Content_Length="3")
    assert client.wire.read() == b""
    client.send(b"abc")
    assert parse(client.wire.read()).status == 200
    assert client.get("/readyz").status == 200


def test_a_large_body_ends_the_connection(face: Face) -> None:
    client = face.client()
    client.request("/healthz", method="POST", Content_Length=str(1 << 40))
    sent = 0
    while not client.wire.disconnected:
        client.send(b"x" * 8192)
        sent += 8192
        assert sent < 1 << 20
    assert client.wire.value() == b""


def test_a_large_header_ends_the_connection(face: Face) -> None:
    client = face.client()
    client.request("/healthz", X="x" * 20000)
    assert client.wire.disconnecting


def test_connections_are_limited(clock: Clock) -> None:
    face = Face(clock, connections={"maximum": 3})
    clients = [face.client() for _ in range(5)]
    assert [client.refused for client in clients] == [False, False, False, True, True]
    assert face.connections.refused == 2
    clients[0].lose()
    assert not face.client().refused
    face.close()


def test_an_idle_connection_is_closed(face: Face) -> None:
    client = face.client()
    assert client.get("/healthz").status == 200
    face.turn(80)
    assert client.wire.disconnecting


# What goes wrong on our side


def test_a_source_that_raises(face: Face, logged_errors: LoggedErrors) -> None:
    def status() -> Any:
        raise ZeroDivisionError("the secret is 42")

    face.source.status = status  # type: ignore[method-assign]
    answer = face.get("/api/v1/status")
    assert answer.status == 500
    assert b"42" not in answer.body
    assert_guarded(answer)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    assert face.get("/healthz").status == 200


# The log


@pytest.fixture
def log() -> Iterator[list[str]]:
    from twisted.logger import formatEvent

    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_requests_are_not_logged(face: Face, log: list[str]) -> None:
    face.get("/healthz")
    face.get("/", method="HEAD")
    face.get("/nothing")
    assert log == []


def test_requests_are_logged_where_that_is_wanted(clock: Clock, log: list[str]) -> None:
    face = Face(clock, log_requests=True)
    face.get("/healthz?\x9b")
    face.get("/", address=UNIXAddress(b"/run/http.sock"), method="POST")
    assert log == [
        r"192.168.1.1: GET /healthz?\x9b 200, 3 bytes",
        "192.168.1.1: POST / 405, 47 bytes",
    ]
    face.close()
