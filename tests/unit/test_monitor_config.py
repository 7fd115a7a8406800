"""What the daemon is to do, checked."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from txqmp.monitor import config
from txqmp.monitor.config import Config, Endpoint


@pytest.mark.parametrize(
    ("text", "name", "where"),
    [
        ("unix:/nowhere/vm1.sock", "vm1", "unix:/nowhere/vm1.sock"),
        ("/nowhere/vm1.sock", "vm1", "/nowhere/vm1.sock"),
        ("web=unix:/nowhere/vm1.sock", "web", "unix:/nowhere/vm1.sock"),
        ("web=/nowhere/vm1.sock", "web", "/nowhere/vm1.sock"),
        ("web 1=/nowhere/vm1.sock", "web 1", "/nowhere/vm1.sock"),
        ("unix:path=/nowhere/vm1.sock", "vm1", "unix:path=/nowhere/vm1.sock"),
        ("a=unix:path=/nowhere/vm1.sock", "a", "unix:path=/nowhere/vm1.sock"),
        ("/nowhere/a=b.sock", "a=b", "/nowhere/a=b.sock"),
        ("tcp:127.0.0.1:4444", "127.0.0.1:4444", "tcp:127.0.0.1:4444"),
        ("tcp:host=h:port=4444", "host=h:port=4444", "tcp:host=h:port=4444"),
        ("x=tcp:127.0.0.1:4444", "x", "tcp:127.0.0.1:4444"),
    ],
)
def test_endpoint(text: str, name: str, where: str) -> None:
    assert config.endpoint(text) == Endpoint(name, where)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lacks an endpoint"),
        ("a=", "lacks an endpoint"),
        ("=unix:/x", "no name for a VM"),
        ("a\nb=/x", "no name for a VM"),
        ("a" * 201 + "=/x", "no name for a VM"),
        ("unx:/run/vm.sock", "Unknown endpoint type"),
        ("unix:", "lacks a path"),
        ("unix:/x:mode=600", "means nothing here"),
        ("tcp:host", "no endpoint"),
        ("/etc/passwd", "/etc/passwd is no socket"),
    ],
)
def test_no_endpoint(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config.endpoint(text)


def test_a_directory_is_no_endpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--glob"):
        config.endpoint(str(tmp_path))


def test_a_socket_is_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("vm1.sock")
    assert config.endpoint("vm1.sock") == Endpoint("vm1", "vm1.sock")


def test_a_path_that_cannot_be_looked_at() -> None:
    assert config.endpoint("/nowhere/a\0b.sock").where == "/nowhere/a\0b.sock"


@pytest.mark.parametrize("text", ["tcp:4444", "tcp:4444:interface=127.0.0.1", "relative.sock"])
def test_listen(text: str) -> None:
    assert config.listen(text) == text


@pytest.mark.parametrize(
    "text", ["/tmp/in.sock", "unix:/tmp/in.sock:mode=660", "unix:path=/tmp/in.sock"]
)
def test_listen_on_a_unix_socket(text: str) -> None:
    assert config.listen(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nothing:here", "Unknown endpoint type"),
        ("unix:/tmp/x:mode=abc", "no endpoint"),
        ("/nowhere/in.sock", "there is no directory /nowhere"),
        ("unix:/nowhere/in.sock:mode=660", "there is no directory /nowhere"),
        ("unix:path=/nowhere/in.sock", "there is no directory /nowhere"),
        ("/" + "x" * 200, "longer than"),
    ],
)
def test_nowhere_to_listen(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config.listen(text)


def test_no_permission_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"no permission to make /tmp/in\.sock"):
        config.listen("/tmp/in.sock")


def test_pattern(tmp_path: Path) -> None:
    assert config.pattern("/run/*.sock") == "/run/*.sock"
    assert config.pattern(str(tmp_path)) == f"{tmp_path}/*"
    with pytest.raises(ValueError, match="empty"):
        config.pattern("")


def test_event_names() -> None:
    assert config.event_names("STOP") == ("STOP",)
    assert config.event_names("STOP, BLOCK_*,[A-C]?") == ("STOP", "BLOCK_*", "[A-C]?")


@pytest.mark.parametrize("text", ["", ",", "STOP,", "STOP RESUME", "A\x07"])
def test_no_event_names(text: str) -> None:
    with pytest.raises(ValueError, match="no list of events"):
        config.event_names(text)


def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.file("out.jsonl") == str(tmp_path / "out.jsonl")
    (tmp_path / "there.jsonl").touch()
    assert config.file("there.jsonl") == str(tmp_path / "there.jsonl")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "empty"), ("/tmp", "is a directory"), ("/nowhere/x", "there is no directory /nowhere")],
)
def test_no_file(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config.file(text)


def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = tmp_path / "out.jsonl"
    for _ in range(2):
        with pytest.raises(ValueError, match="no permission"):
            config.file(str(path))
        path.touch()


@pytest.mark.parametrize(
    "text",
    ["http://host", "https://host.example:8443/a?b=c", "http://127.0.0.1/", "http://[::1]:8080/x"],
)
def test_url(text: str) -> None:
    assert config.url(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no URL"),
        ("host", "no URL"),
        ("ftp://host/", "no URL"),
        ("http://", "no URL"),
        ("http://host:0/", "no URL"),
        ("http://host:99999/", "no URL"),
        ("http://host:x/", "no URL"),
        ("http://[::1/", "no URL"),
        ("http://host/a b", "no URL"),
        ("http://host/\n", "no URL"),
        ("http://user@host/", "user or a password"),
        ("http://user:password@host/", "user or a password"),
    ],
)
def test_no_url(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        config.url(text)
    assert "password@" not in str(raised.value)


ONE = Endpoint("a", "/run/a.sock")


@pytest.mark.parametrize(
    "members",
    [
        {"endpoints": (ONE,)},
        {"endpoints": (ONE, Endpoint("b", "/run/b.sock"))},
        {"listens": ("tcp:1",)},
        {"globs": ("/run/*",)},
        {"demo": True},
        {"demo": True, "stdout": False, "jsonl": ("/tmp/x",)},
        {"demo": True, "stdout": False, "webhooks": ("http://x",)},
    ],
)
def test_goes_together(members: dict[str, Any]) -> None:
    config.check(Config(**members))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "nothing to watch"),
        ({"demo": True, "stdout": False}, "nobody would be told"),
        ({"endpoints": (ONE, Endpoint("a", "/run/b.sock"))}, "two VMs would be called 'a'"),
        ({"endpoints": (Endpoint("demo", "/x"),), "demo": True}, "two VMs would be called 'demo'"),
        ({"endpoints": (ONE, Endpoint("b", "/run/a.sock"))}, "/run/a.sock is given twice"),
        (
            {"endpoints": (ONE, Endpoint("b", "unix:/run/x/../a.sock"))},
            "/run/a.sock is given twice",
        ),
        ({"endpoints": (ONE,), "listens": ("/run/a.sock",)}, "/run/a.sock is given twice"),
        (
            {"endpoints": (Endpoint("a", "tcp:h:1"), Endpoint("b", "tcp:h:1"))},
            "tcp:h:1 is given twice",
        ),
        ({"listens": ("tcp:1", "tcp:1")}, "tcp:1 is given twice"),
        ({"demo": True, "jsonl": ("/x", "/x")}, "/x is given twice"),
        ({"demo": True, "webhooks": ("http://x", "http://x")}, "http://x is given twice"),
    ],
)
def test_does_not_go_together(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config.check(Config(**members))
