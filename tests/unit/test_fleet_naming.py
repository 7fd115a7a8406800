"""What VMs are called, and who they are."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport

from txqmp import client_endpoint
from txqmp.fleet.naming import NIL_UUID, clean, identify, name_in_glob, name_of, peer_of
from txqmp.fleet.peers import Credentials


UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("/run/vm1.sock", "vm1"),
        ("unix:/run/vm1.sock", "vm1"),
        ("unix:path=/run/vm1", "vm1"),
        ("/var/run/qemu-server/100.qmp", "100"),
        ("/run/vm.with.dots.sock", "vm.with.dots"),
        ("/run/vms/web/qmp.sock", "web"),
        ("/run/vms/web/monitor.sock", "web"),
        ("/run/vms/web/QMP", "web"),
        ("/qmp.sock", "qmp"),
        ("qmp.sock", "qmp"),
        ("vm1.sock", "vm1"),
        ("tcp:127.0.0.1:4444", "127.0.0.1:4444"),
        ("tls:host.example:4444", "tls:host.example:4444"),
        ("fd:3", "fd:3"),
    ],
)
def test_name_of(where: str, name: str) -> None:
    assert name_of(where, client_endpoint(None, where)) == name


def test_name_of_an_endpoint_object() -> None:
    endpoint = client_endpoint(None, "fd:7")
    assert name_of(endpoint, endpoint) == "fd:7"


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        ("/run/qmp/*.sock", "/run/qmp/vm1.sock", "vm1"),
        ("/run/qmp/vm-*.sock", "/run/qmp/vm-1.sock", "vm-1"),
        ("/run/vms/*/qmp.sock", "/run/vms/web/qmp.sock", "web"),
        ("/run/vms/*/qmp.sock", "/run/vms/web.1/qmp.sock", "web.1"),
        ("/run/*/[ab]*.qmp", "/run/x/b1.qmp", "x/b1"),
        ("/run/qmp/*", "/run/qmp/vm1", "vm1"),
        ("/run/qmp/vm1.sock", "/run/qmp/vm1.sock", "vm1"),
        ("/run/qmp/*.sock", "/run/qmp/vm\udcff.sock", r"vm\udcff"),
    ],
)
def test_name_in_glob(pattern: str, path: str, name: str) -> None:
    assert name_in_glob(pattern, path) == name


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("web", "web"),
        (" web ", "web"),
        ("a\x1b[31mb\n", "a?[31mb?"),
        ("ü", "ü"),
        ("", "?"),
        ("x" * 300, "x" * 200),
    ],
)
def test_clean(name: str, cleaned: str) -> None:
    assert clean(name) == cleaned


@pytest.mark.parametrize(
    ("results", "options", "key", "uuid", "exclusive"),
    [
        # What the configuration says comes first, and a UUID is one VM's all the same.
        ({"query-uuid": {"UUID": UUID}}, {"configured": "a"}, "configured a", UUID, f"uuid {UUID}"),
        ({"query-name": {"name": "web"}}, {"configured": "a"}, "configured a", None, None),
        ({"query-uuid": {"UUID": UUID.upper()}}, {}, f"uuid {UUID}", UUID, f"uuid {UUID}"),
        ({"query-name": {"name": "web"}}, {}, "name web", None, "name web"),
        ({}, {}, "socket x", None, None),
        # What was known counts where there is no answer, and not where there is another one.
        ({}, {"known": UUID}, f"uuid {UUID}", UUID, f"uuid {UUID}"),
        ({"query-uuid": {"UUID": NIL_UUID}}, {"known": UUID}, "socket x", None, None),
        # No UUID that a hostile one could be known by.
        ({"query-uuid": {"UUID": "name web"}}, {}, "socket x", None, None),
        ({"query-uuid": {"UUID": UUID + "\n"}}, {}, "socket x", None, None),
    ],
)
def test_who_it_is(
    results: Any, options: Any, key: str, uuid: str | None, exclusive: str | None
) -> None:
    identity = identify(results, "socket x", **options)
    assert (identity.key, identity.uuid, identity.exclusive) == (key, uuid, exclusive)


@pytest.mark.parametrize(
    ("uuid", "name", "key", "names"),
    [
        ({"UUID": UUID}, {"name": "web"}, f"uuid {UUID}", ("web", UUID, "pid 7")),
        ({"UUID": UUID}, {}, f"uuid {UUID}", (UUID, "pid 7")),
        ({"UUID": NIL_UUID}, {"name": "web"}, "name web", ("web", "pid 7")),
        ({"UUID": NIL_UUID}, {}, "pid 7", ("pid 7",)),
        (None, None, "pid 7", ("pid 7",)),
        ({"UUID": 7}, {"name": ["web"]}, "pid 7", ("pid 7",)),
        ([], "web", "pid 7", ("pid 7",)),
    ],
)
def test_identify(uuid: Any, name: Any, key: str, names: tuple[str, ...]) -> None:
    identity = identify({"query-uuid": uuid, "query-name": name}, "pid 7")
    assert (identity.key, identity.names) == (key, names)


def test_identify_without_answers() -> None:
    assert identify({}, "127.0.0.1:4444").key == "127.0.0.1:4444"


class SocketTransport(StringTransport):
    """A transport over a real socket."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 4444))
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle


def test_peer_on_a_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(SocketTransport(ours)) == f"pid {os.getpid()}"


def test_peer_in_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have the number 0."""
    monkeypatch.setattr("txqmp.fleet.naming.credentials", lambda _: Credentials(0, 0, 0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(SocketTransport(ours)) == f"socket {os.fstat(ours.fileno()).st_ino}"


def test_peer_on_tcp() -> None:
    with socket.socket() as handle:
        assert peer_of(SocketTransport(handle)) == "127.0.0.1:4444"


def test_peer_on_a_closed_socket() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert peer_of(SocketTransport(ours)) == "127.0.0.1:4444"


def test_peer_without_a_socket() -> None:
    transport = StringTransport(peerAddress=UNIXAddress("/run/vm1.sock"))
    assert "vm1" in peer_of(transport)
