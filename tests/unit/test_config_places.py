"""Places, as people write them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from txqmp.monitor.config import Dial, Glob, Listen, places
from txqmp.monitor.config.filters import event_names


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
    found = places.endpoint(text)
    assert found == Dial(where=where, name=name)
    assert found.named == (text != where)


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
        places.endpoint(text)


def test_a_directory_is_no_endpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="glob of all sockets"):
        places.endpoint(str(tmp_path))


def test_a_socket_is_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("vm1.sock")
    assert places.endpoint("vm1.sock") == Dial(where="vm1.sock", name="vm1")


def test_a_path_that_cannot_be_looked_at() -> None:
    assert places.endpoint("/nowhere/a\0b.sock").where == "/nowhere/a\0b.sock"


@pytest.mark.parametrize("text", ["tcp:4444", "tcp:4444:interface=127.0.0.1", "relative.sock"])
def test_listen(text: str) -> None:
    assert places.listen(text) == text


@pytest.mark.parametrize(
    "text", ["/tmp/in.sock", "unix:/tmp/in.sock:mode=660", "unix:path=/tmp/in.sock"]
)
def test_listen_on_a_unix_socket(text: str) -> None:
    assert places.listen(text) == text


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
        places.listen(text)


def test_no_permission_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"no permission to make /tmp/in\.sock"):
        places.listen("/tmp/in.sock")


def test_pattern(tmp_path: Path) -> None:
    assert places.pattern("/run/*.sock") == "/run/*.sock"
    assert places.pattern(str(tmp_path)) == f"{tmp_path}/*"
    with pytest.raises(ValueError, match="empty"):
        places.pattern("")


def test_event_names() -> None:
    assert event_names("STOP") == ("STOP",)
    assert event_names("STOP, BLOCK_*,[A-C]?") == ("STOP", "BLOCK_*", "[A-C]?")


@pytest.mark.parametrize("text", ["", ",", "STOP,", "STOP RESUME", "A\x07"])
def test_no_event_names(text: str) -> None:
    with pytest.raises(ValueError, match="no list of events"):
        event_names(text)


def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.file("out.jsonl") == str(tmp_path / "out.jsonl")
    (tmp_path / "there.jsonl").touch()
    assert places.file("there.jsonl") == str(tmp_path / "there.jsonl")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "empty"), ("/tmp", "is a directory"), ("/nowhere/x", "there is no directory /nowhere")],
)
def test_no_file(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        places.file(text)


def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = tmp_path / "out.jsonl"
    for _ in range(2):
        with pytest.raises(ValueError, match="no permission"):
            places.file(str(path))
        path.touch()


@pytest.mark.parametrize(
    "text",
    ["http://host", "https://host.example:8443/a?b=c", "http://127.0.0.1/", "http://[::1]:8080/x"],
)
def test_url(text: str) -> None:
    assert places.url(text) == text


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
        places.url(text)
    assert "password@" not in str(raised.value)


# The URL's user or query may be secret, whatever is wrong with the rest.
@pytest.mark.parametrize("text", ["http://user:hush@ho st/", "x://host/?token=hush", "hush@x?hush"])
def test_a_url_that_is_none_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        places.url(text)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("text", ["tcp:9177", "tcp6:9177", "unix:/tmp/http.sock", "/tmp/http.sock"])
def test_web(text: str) -> None:
    assert places.web(text) == text


def test_web_for_other_hosts() -> None:
    text = "tcp:9177:interface=0.0.0.0"
    assert places.web(text, remote=True) == text
    with pytest.raises(ValueError, match="open to other hosts"):
        places.web(text)


@pytest.mark.parametrize("text", ["tcp:65536", "tcp6:port=99999:interface=lo", "ssl:70000"])
def test_no_ports(text: str) -> None:
    with pytest.raises(ValueError, match="ports end with 65535"):
        places.listen(text)


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.state_directory("new") == f"{tmp_path}/new"
    assert places.state_directory(".") == str(tmp_path)
    for text, problem in [
        ("", "is empty"),
        ("/etc/passwd", "/etc/passwd is no directory"),
        ("a/b", f"there is no directory {tmp_path}/a"),
    ]:
        with pytest.raises(ValueError, match=problem):
            places.state_directory(text)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission to write in"):
        places.state_directory(".")


def test_what_tells_sources_apart(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    dial = places.endpoint(f"a={tmp_path}/x.sock")
    assert places.place_of(dial) == ("socket", f"{tmp_path}/x.sock")
    assert places.place_of(places.endpoint(f"b=unix:{tmp_path}/link/x.sock")) == places.place_of(
        dial
    )
    assert places.place_of(Listen(where=f"unix:{tmp_path}/link/x.sock:mode=660")) == (
        places.place_of(dial)
    )
    assert places.place_of(Listen(where="tcp:1")) == ("socket", "tcp:1")
    assert places.place_of(Glob(patterns=("/x/*", "/y/*"))) == ("glob", "/x/*\n/y/*")
