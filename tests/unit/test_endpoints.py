"""Where a monitor is: every way to say it, every way it can fail; and what a failure means."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error as tx_error
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
)
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import (
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.python.systemd import ListenFDs
from zope.interface import implementer

from support.deferreds import failure, pending, success
from support.transports import FakeEndpoint, identity
from txqmp.endpoints import (
    MAX_UNIX_PATH,
    ChildClient,
    DescriptorClient,
    ProcessAddress,
    UNIXClient,
    client_endpoint,
    connect_error,
    connect_in_time,
    server_endpoint,
)
from txqmp.errors import ConnectError, ConnectFailure, ConnectTimeoutError
from txqmp.inherited import InheritedServer


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    """Adopts connections as a real reactor does, and starts no process.

    :ivar adopted: which files the adopted descriptors were.
    :ivar spawned: the arguments of each process, with its protocol first.
    """

    nameResolver = None  # type: ignore[assignment]
    installNameResolver = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[tuple[int, int]] = []
        self.spawned: list[tuple[Any, ...]] = []

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> None:
        assert addressFamily == socket.AF_UNIX
        self.adopted.append(identity(fileDescriptor))
        protocol = factory.buildProtocol(UNIXAddress(None))
        if protocol is not None:
            protocol.makeConnection(StringTransport())

    def spawnProcess(self, *args: Any, **options: Any) -> None:
        self.spawned.append((*args, options))


class Recorder(Factory):
    """Makes protocols that keep what happens to them.

    :ivar refuse: take no connection.
    """

    noisy = False

    def __init__(self) -> None:
        self.built: list[Noting] = []
        self.addresses: list[Any] = []
        self.refuse = False

    def buildProtocol(self, addr: Any) -> Protocol | None:
        self.addresses.append(addr)
        if self.refuse:
            return None
        self.built.append(Noting())
        return self.built[-1]


class Noting(Protocol):
    """Keeps what happens to it."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = Failure(ProcessDone(0))) -> None:  # noqa: B008
        self.events.append(reason.type)


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def factory() -> Recorder:
    return Recorder()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for a UNIX socket's."""
    with tempfile.TemporaryDirectory(prefix="txqmp-") as directory:
        yield Path(directory)


Listen = Callable[..., socket.socket]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Make UNIX sockets that listen; nobody accepts on them."""
    with_all: list[socket.socket] = []

    def make(path: str | Path, backlog: int = 5) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        with_all.append(one)
        one.bind(str(path))
        one.listen(backlog)
        return one

    yield make
    for one in with_all:
        one.close()


# Client endpoints


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("/run/vm1.sock", "/run/vm1.sock"),
        ("vm1.sock", "vm1.sock"),
        ("./vm:1.sock", "./vm:1.sock"),
        (Path("/run/vm1.sock"), "/run/vm1.sock"),
        (Path("vm:1"), "vm:1"),
        (Path("a\\b"), "a\\b"),
        ("unix:/run/vm1.sock", "/run/vm1.sock"),
        ("unix:path=/run/vm1.sock", "/run/vm1.sock"),
        ("unix:/run/vm\\:1.sock", "/run/vm:1.sock"),
        ("unix:/run/vm=1.sock", "/run/vm=1.sock"),
        ("unix:vm1.sock", "vm1.sock"),
        ("unix:@abstract", "@abstract"),
        ("@abstract", "@abstract"),
    ],
)
def test_a_unix_socket_can_be_named_in_many_ways(where: Any, path: str) -> None:
    endpoint = client_endpoint(None, where)
    assert isinstance(endpoint, UNIXClient)
    assert endpoint.path == path
    assert repr(endpoint) == f"unix:{path}"


@given(st.text(min_size=1).map(lambda text: "/" + text), st.booleans())
def test_any_bare_path_is_the_path(path: str, as_path: bool) -> None:
    endpoint = client_endpoint(None, Path(path) if as_path else path)
    assert isinstance(endpoint, UNIXClient)
    assert endpoint.path == (str(Path(path)) if as_path else path)


@pytest.mark.parametrize("path", ["path=x", "path=a/b", "mode=1"])
def test_a_bare_path_may_look_like_an_option(path: str) -> None:
    assert client_endpoint(None, Path(path)).path == path  # type: ignore[attr-defined]
    assert client_endpoint(None, path).path == path  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("where", "host", "port"),
    [
        ("tcp:127.0.0.1:4444", "127.0.0.1", 4444),
        ("tcp:host=127.0.0.1:port=4444", "127.0.0.1", 4444),
    ],
)
def test_a_host_and_port_can_be_named_in_many_ways(
    reactor: Reactor, factory: Recorder, where: Any, host: str, port: int
) -> None:
    attempt = client_endpoint(reactor, where).connect(factory)
    assert reactor.tcpClients[0][:2] == (host, port)
    attempt.cancel()
    failure(attempt)


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "vm.example.org"])
def test_a_host_is_dialled_by_any_kind_of_address(reactor: Reactor, host: str) -> None:
    endpoint = client_endpoint(reactor, (host, 4444))
    assert isinstance(endpoint, HostnameEndpoint)
    assert f"{host}:4444" in repr(endpoint).replace("[", "").replace("]", "")


@pytest.mark.parametrize("where", ["tls:vm.example.org:4444", "ssl:vm.example.org:4444"])
def test_the_other_strings_of_twisted_will_do(reactor: Reactor, where: str) -> None:
    assert IStreamClientEndpoint.providedBy(client_endpoint(reactor, where))


def test_a_descriptor_and_a_child_can_be_named() -> None:
    descriptor = client_endpoint(None, "fd:5")
    assert isinstance(descriptor, DescriptorClient)
    assert repr(descriptor) == "fd:5"
    child = client_endpoint(None, "exec:qemu-system-x86_64 -qmp stdio -name 'a b'")
    assert isinstance(child, ChildClient)
    assert repr(child) == "exec:qemu-system-x86_64 -qmp stdio -name 'a b'"


def test_an_endpoint_is_an_endpoint(clock: Clock) -> None:
    endpoint = FakeEndpoint(clock)
    assert client_endpoint(None, endpoint) is endpoint


NO_PLACE = [
    "",
    None,
    5,
    b"/run/vm.sock",
    ["a"],
    "nothing:here",
    "vm:1.sock",
    "tcp:",
    "tcp:host",
    "tcp:host:port",
    "tcp:host:1:2:3:4:5",
    ":",
    "unix:",
    "unix:path=",
    "unix:/run/vm.sock:",
    "unix:/run/vm.sock:colour=red",
    ("host",),
    ("host", "4444"),
    ("host", True),
    (4444, "host"),
    ("host", 1, 2),
]


@pytest.mark.parametrize(
    "where",
    [
        *NO_PLACE,
        "unix:/run/vm.sock:mode=600",
        "tls:",
        "fd:",
        "fd:-1",
        "fd:x",
        "fd:1.5",
        "fd:²",
        "exec:",
        "exec: ",
        "exec:a 'b",
    ],
)
def test_what_names_no_place_to_dial_is_a_value_error(reactor: Reactor, where: Any) -> None:
    with pytest.raises(ValueError):
        client_endpoint(reactor, where)


KINDS = ["", "unix:", "tcp:", "tls:", "fd:", "exec:", "systemd:", "haproxy:", "path=", "a:"]
PIECES = st.sampled_from(
    [*"/:=\\@ '\"1", "path=", "mode=", "host", "4444", "port=", "é", "\0", "x"]
)


@given(st.sampled_from(KINDS), st.lists(PIECES, max_size=6).map("".join))
def test_every_string_is_an_endpoint_or_a_value_error(kind: str, rest: str) -> None:
    reactor = Reactor()
    for make in (client_endpoint, server_endpoint):
        with contextlib.suppress(ValueError):
            make(reactor, kind + rest)


def test_what_is_wrong_with_a_place_is_said_with_the_place() -> None:
    with pytest.raises(ValueError, match=r"'tcp:host:port' is no endpoint: .*port"):
        client_endpoint(None, "tcp:host:port")
    with pytest.raises(ValueError, match="'colour=red' means nothing here"):
        client_endpoint(None, "unix:/x:colour=red")
    with pytest.raises(ValueError, match="lacks a path"):
        client_endpoint(None, "unix:")
    with pytest.raises(ValueError, match="a descriptor is a number"):
        client_endpoint(None, "fd:x")
    with pytest.raises(ValueError, match="lacks a command"):
        client_endpoint(None, "exec:")


# Server endpoints


@pytest.mark.parametrize(
    ("where", "path", "mode", "backlog", "lockfile"),
    [
        ("/run/vm.sock", "/run/vm.sock", 0o600, 50, True),
        (Path("/run/vm:1.sock"), "/run/vm:1.sock", 0o600, 50, True),
        ("unix:/run/vm.sock", "/run/vm.sock", 0o600, 50, True),
        ("unix:path=/run/vm.sock:mode=660", "/run/vm.sock", 0o660, 50, True),
        ("unix:/run/vm.sock:mode=0666:backlog=5:lockfile=0", "/run/vm.sock", 0o666, 5, False),
    ],
)
def test_a_unix_socket_to_listen_on_is_private_unless_it_says_otherwise(
    reactor: Reactor,
    factory: Recorder,
    where: Any,
    path: str,
    mode: int,
    backlog: int,
    lockfile: bool,
) -> None:
    success(server_endpoint(reactor, where).listen(factory))
    assert reactor.unixServers == [(path, factory, backlog, mode, lockfile)]


@pytest.mark.parametrize(
    ("where", "port", "interface"),
    [
        (("127.0.0.1", 4444), 4444, "127.0.0.1"),
        (("::1", 4444), 4444, "::1"),
        ("tcp:4444", 4444, ""),
        ("tcp:4444:interface=127.0.0.1", 4444, "127.0.0.1"),
    ],
)
def test_a_port_to_listen_on_can_be_named_in_many_ways(
    reactor: Reactor, factory: Recorder, where: Any, port: int, interface: str
) -> None:
    success(server_endpoint(reactor, where).listen(factory))
    assert (reactor.tcpServers[0][0], reactor.tcpServers[0][3]) == (port, interface)


@pytest.mark.parametrize("where", ["systemd:domain=UNIX:name=none", "systemd:domain=UNIX:index=7"])
def test_a_socket_that_was_not_passed_to_us(where: str) -> None:
    with pytest.raises(ValueError, match="no such socket was passed to us"):
        server_endpoint(None, where)


def test_sockets_of_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of UNIX sockets Twisted would change the permissions, and delete the file."""
    listening = ListenFDs([7, 8], ("a", "b"))
    monkeypatch.setattr("twisted.internet.endpoints._SystemdParser._sddaemon", listening)
    unix = server_endpoint(None, "systemd:domain=UNIX:name=b")
    assert isinstance(unix, InheritedServer)
    assert repr(unix) == "<InheritedServer 8>"
    tcp = server_endpoint(None, "systemd:domain=INET:name=a")
    assert isinstance(tcp, AdoptedStreamServerEndpoint)


def test_a_server_endpoint_is_a_server_endpoint() -> None:
    endpoint = TCP4ServerEndpoint(None, 4444)
    assert server_endpoint(None, endpoint) is endpoint


@pytest.mark.parametrize(
    "where",
    [
        *NO_PLACE,
        "unix:/run/vm.sock:mode=9",
        "unix:/run/vm.sock:mode=",
        "unix:/run/vm.sock:backlog=x",
        "unix:/run/vm.sock:lockfile=yes",
        "fd:5",
        "exec:true",
    ],
)
def test_what_names_no_place_to_listen_on_is_a_value_error(reactor: Reactor, where: Any) -> None:
    with pytest.raises(ValueError):
        server_endpoint(reactor, where)


def test_a_certificate_that_cannot_be_read_is_a_value_error(reactor: Reactor, place: Path) -> None:
    with pytest.raises(ValueError, match="is no endpoint"):
        server_endpoint(reactor, f"ssl:4444:privateKey={place}/none.pem")
    (place / "bad.pem").write_text("nonsense")
    with pytest.raises(ValueError, match="is no endpoint"):
        server_endpoint(reactor, f"ssl:4444:privateKey={place}/bad.pem")


def test_a_client_is_no_server_endpoint(reactor: Reactor) -> None:
    with pytest.raises(ValueError):
        server_endpoint(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", 1))
    with pytest.raises(ValueError):
        client_endpoint(reactor, TCP4ServerEndpoint(reactor, 1))
    assert IStreamServerEndpoint.providedBy(server_endpoint(reactor, "tcp:1"))


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_a_path_too_long_to_listen_on_is_told_at_once(reactor: Reactor, letter: str) -> None:
    longest = "/" + "x" * (MAX_UNIX_PATH - 1 - len(letter.encode())) + letter
    server_endpoint(reactor, longest)
    with pytest.raises(ValueError, match="longer than the 107 bytes"):
        server_endpoint(reactor, "/x" + longest[1:])


# Dialling a UNIX socket


def dial(reactor: Reactor, path: object, factory: Recorder) -> Deferred[Any]:
    return UNIXClient(reactor, str(path)).connect(factory)


def refused(deferred: Deferred[Any]) -> ConnectError:
    error = failure(deferred, ConnectError).value
    assert isinstance(error, ConnectError)
    assert error.phase == "connect"
    return error


def test_a_socket_that_listens_is_connected(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    server = listen(place / "vm.sock")
    protocol = success(dial(reactor, place / "vm.sock", factory))
    assert protocol is factory.built[0]
    assert factory.built[0].events == ["made"]
    connection, _ = server.accept()
    connection.close()


def test_an_abstract_socket_is_connected(
    reactor: Reactor, factory: Recorder, listen: Listen
) -> None:
    name = f"txqmp-test-{os.getpid()}"
    listen("\0" + name)
    success(dial(reactor, "@" + name, factory))


def test_our_own_descriptor_of_the_socket_is_closed(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    listen(place / "vm.sock")
    before = set(os.listdir("/proc/self/fd"))
    success(dial(reactor, place / "vm.sock", factory))
    failure(dial(reactor, place / "none.sock", factory))
    assert set(os.listdir("/proc/self/fd")) == before


def test_no_such_socket_is_absent(reactor: Reactor, factory: Recorder, place: Path) -> None:
    error = refused(dial(reactor, place / "vm.sock", factory))
    assert error.kind is ConnectFailure.ABSENT
    assert str(error) == f"{place}/vm.sock: there is no such socket"
    assert isinstance(error.__cause__, FileNotFoundError)
    (place / "file").touch()
    assert refused(dial(reactor, place / "file/vm.sock", factory)).kind is ConnectFailure.ABSENT


def test_a_dead_socket_is_refused(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    listen(place / "vm.sock").close()
    error = refused(dial(reactor, place / "vm.sock", factory))
    assert error.kind is ConnectFailure.REFUSED
    assert "nobody listens there" in str(error)


def test_a_socket_that_is_not_listening_yet_is_refused(
    reactor: Reactor, factory: Recorder, place: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place / "vm.sock"))
        assert refused(dial(reactor, place / "vm.sock", factory)).kind is ConnectFailure.REFUSED


def test_a_full_queue_of_callers_is_busy(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    listen(place / "vm.sock", backlog=0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(place / "vm.sock"))
        error = refused(dial(reactor, place / "vm.sock", factory))
    assert error.kind is ConnectFailure.BUSY
    assert "another client holds the monitor" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is allowed to root")
def test_a_socket_that_may_not_be_used_is_denied(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    listen(place / "vm.sock")
    (place / "vm.sock").chmod(0)
    assert refused(dial(reactor, place / "vm.sock", factory)).kind is ConnectFailure.DENIED


def test_a_file_that_is_no_socket_is_refused(
    reactor: Reactor, factory: Recorder, place: Path
) -> None:
    (place / "vm.sock").touch()
    assert refused(dial(reactor, place / "vm.sock", factory)).kind is ConnectFailure.REFUSED


def test_a_path_that_can_be_none_fails_the_attempt(reactor: Reactor, factory: Recorder) -> None:
    refused(dial(reactor, "/run/a\0b.sock", factory))


def test_a_factory_that_takes_no_connection_fails_the_attempt(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    listen(place / "vm.sock")
    factory.refuse = True
    assert "takes no connection now" in str(refused(dial(reactor, place / "vm.sock", factory)))


@pytest.fixture
def deep(place: Path) -> Path:
    """A directory whose path is longer than a socket's may be."""
    directory = place / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    return directory


def bind_deep(path: Path) -> socket.socket:
    """Listen at a path that is too long, as QEMU does after a change of directory."""
    handle = os.open(path.parent, os.O_PATH)
    try:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"/proc/self/fd/{handle}/{path.name}")
        server.listen(5)
        return server
    finally:
        os.close(handle)


def test_a_path_longer_than_the_kernel_takes_is_reached_all_the_same(
    reactor: Reactor, factory: Recorder, deep: Path
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with bind_deep(deep / "vm.sock"):
        success(dial(reactor, deep / "vm.sock", factory))
    failure(dial(reactor, deep / "none.sock", factory))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_long_path_fails_as_a_short_one_does(
    reactor: Reactor, factory: Recorder, deep: Path
) -> None:
    assert refused(dial(reactor, deep / "vm.sock", factory)).kind is ConnectFailure.ABSENT
    assert refused(dial(reactor, deep / "no/vm.sock", factory)).kind is ConnectFailure.ABSENT
    bind_deep(deep / "vm.sock").close()
    assert refused(dial(reactor, deep / "vm.sock", factory)).kind is ConnectFailure.REFUSED


def test_a_long_relative_path_is_reached(
    reactor: Reactor, factory: Recorder, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "v" * (MAX_UNIX_PATH - 20)
    with bind_deep(deep / name):
        monkeypatch.chdir(deep)
        success(dial(reactor, "./" * 20 + name, factory))


def test_a_path_of_exactly_the_longest_kind_is_dialled_as_it_is(
    reactor: Reactor, factory: Recorder, place: Path, listen: Listen
) -> None:
    path = place / ("x" * (MAX_UNIX_PATH - len(str(place)) - 1))
    assert len(str(path)) == MAX_UNIX_PATH
    listen(path)
    success(dial(reactor, path, factory))


def test_a_name_that_is_too_long_alone_is_told_at_once(
    reactor: Reactor, factory: Recorder, place: Path
) -> None:
    error = refused(dial(reactor, place / ("x" * 110), factory))
    assert error.kind is ConnectFailure.PATH_TOO_LONG
    assert "longer than the 107 bytes the kernel takes" in str(error)
    before = set(os.listdir("/proc/self/fd"))
    refused(dial(reactor, "x" * 200, factory))
    refused(dial(reactor, "@" + "x" * 200, factory))
    assert set(os.listdir("/proc/self/fd")) == before


# A descriptor


def test_a_descriptor_is_used_and_then_closed(reactor: Reactor, factory: Recorder) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        which, number = identity(ours.fileno()), ours.detach()
        protocol = success(DescriptorClient(reactor, number).connect(factory))
    assert protocol is factory.built[0]
    assert reactor.adopted == [which]
    with pytest.raises(OSError):
        os.fstat(number)


def test_a_descriptor_can_be_used_once(reactor: Reactor, factory: Recorder) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        endpoint = DescriptorClient(reactor, ours.detach())
        success(endpoint.connect(factory))
        error = refused(endpoint.connect(factory))
    assert error.kind is ConnectFailure.CLOSED
    assert "was used before" in str(error)


def test_a_descriptor_that_is_no_socket_is_refused(reactor: Reactor, factory: Recorder) -> None:
    with open(os.devnull) as file:
        error = refused(DescriptorClient(reactor, file.fileno()).connect(factory))
        assert "is no socket" in str(error)
        assert stat.S_ISCHR(os.fstat(file.fileno()).st_mode)


@pytest.mark.parametrize("number", [99_999, 10**12])
def test_a_descriptor_that_is_not_open_is_refused(
    reactor: Reactor, factory: Recorder, number: int
) -> None:
    error = refused(DescriptorClient(reactor, number).connect(factory))
    assert f"descriptor {number}" in str(error)
    assert error.__cause__ is not None


# A child process


def spawned(
    reactor: Reactor, factory: Recorder, *command: str
) -> tuple[Deferred[Any], tuple[Any, ...]]:
    attempt = ChildClient(reactor, list(command)).connect(factory)
    return attempt, reactor.spawned[0]


def test_a_child_is_started_with_pipes_and_our_standard_error(
    reactor: Reactor, factory: Recorder
) -> None:
    attempt, (_, program, arguments, options) = spawned(reactor, factory, "qemu", "-qmp", "stdio")
    assert (program, arguments) == ("qemu", ["qemu", "-qmp", "stdio"])
    assert options == {"env": None, "childFDs": {0: "w", 1: "r", 2: 2}}
    assert success(attempt) is factory.built[0]
    assert factory.addresses == [ProcessAddress("qemu")]


def test_a_childs_pipes_are_one_connection(reactor: Reactor, factory: Recorder) -> None:
    _, (child, *_rest) = spawned(reactor, factory, "qemu")
    transport = StringTransport()
    child.makeConnection(transport)
    assert factory.built[0].transport is transport
    child.childDataReceived(1, b"hello")
    child.childConnectionLost(1)
    child.childDataReceived(1, b"late")
    child.processEnded(Failure(ProcessDone(0)))
    assert factory.built[0].events == ["made", b"hello", tx_error.ConnectionDone]


def test_a_child_that_ends_with_its_output_open_ends_the_connection(
    reactor: Reactor, factory: Recorder
) -> None:
    _, (child, *_rest) = spawned(reactor, factory, "qemu")
    child.makeConnection(StringTransport())
    child.processEnded(Failure(ProcessDone(0)))
    child.childConnectionLost(1)
    assert factory.built[0].events == ["made", ProcessDone]


def test_no_child_is_started_for_a_factory_that_takes_no_connection(
    reactor: Reactor, factory: Recorder
) -> None:
    factory.refuse = True
    refused(ChildClient(reactor, ["qemu"]).connect(factory))
    assert reactor.spawned == []


def test_a_child_that_cannot_be_started_fails_the_attempt(factory: Recorder) -> None:
    class Exhausted(Reactor):
        def spawnProcess(self, *args: Any, **options: Any) -> None:
            raise OSError(errno.EAGAIN, "no more processes")

    error = refused(ChildClient(Exhausted(), ["qemu"]).connect(factory))
    assert isinstance(error.__cause__, OSError)


# Time limits


def test_a_connection_in_time_is_a_connection(clock: Clock, factory: Recorder) -> None:
    endpoint = FakeEndpoint(clock)
    attempt = connect_in_time(clock, endpoint, factory, 5)
    clock.advance(4)
    endpoint.attempts[0][0].callback("protocol")
    assert success(attempt) == "protocol"


def test_an_attempt_fails_at_exactly_its_time_limit(clock: Clock, factory: Recorder) -> None:
    endpoint = FakeEndpoint(clock)
    attempt = connect_in_time(clock, endpoint, factory, 5)
    clock.advance(4.999)
    pending(attempt)
    clock.advance(0.001)
    error = refused(attempt)
    assert isinstance(error, ConnectTimeoutError)
    assert error.kind is ConnectFailure.SILENT
    assert str(error) == "no connection within 5 s"
    assert endpoint.cancelled == 1


def test_without_a_limit_an_attempt_may_take_for_ever(clock: Clock, factory: Recorder) -> None:
    endpoint = FakeEndpoint(clock)
    attempt = connect_in_time(clock, endpoint, factory, None)
    clock.advance(1_000_000)
    pending(attempt)


def test_a_cancelled_attempt_is_cancelled(clock: Clock, factory: Recorder) -> None:
    endpoint = FakeEndpoint(clock)
    attempt = connect_in_time(clock, endpoint, factory, 5)
    attempt.cancel()
    failure(attempt, CancelledError)
    assert endpoint.cancelled == 1


def test_an_endpoint_that_raises_fails_the_attempt(clock: Clock, factory: Recorder) -> None:
    class Broken:
        def connect(self, factory: object) -> None:
            raise OSError("no more descriptors")

    failure(connect_in_time(clock, Broken(), factory, 5), OSError)  # type: ignore[arg-type]


# What a failure means


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), ConnectFailure.ABSENT),
        (OSError(errno.ENOTDIR, "x"), ConnectFailure.ABSENT),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), ConnectFailure.REFUSED),
        (BlockingIOError(errno.EAGAIN, "x"), ConnectFailure.BUSY),
        (PermissionError(errno.EACCES, "x"), ConnectFailure.DENIED),
        (PermissionError(errno.EPERM, "x"), ConnectFailure.DENIED),
        (OSError(errno.ENAMETOOLONG, "x"), ConnectFailure.PATH_TOO_LONG),
        (ConnectionResetError(errno.ECONNRESET, "x"), ConnectFailure.RESET),
        (BrokenPipeError(errno.EPIPE, "x"), ConnectFailure.RESET),
        (OSError(errno.ENOTCONN, "x"), ConnectFailure.RESET),
        (OSError(errno.EINVAL, "x"), ConnectFailure.OTHER),
        (OSError("x"), ConnectFailure.OTHER),
        (tx_error.ConnectionRefusedError(errno.ECONNREFUSED, "x"), ConnectFailure.REFUSED),
        (tx_error.UnknownHostError(errno.EINVAL, "x"), ConnectFailure.OTHER),
        (tx_error.ConnectError(errno.ENOENT, "x"), ConnectFailure.ABSENT),
        (tx_error.ConnectError(errno.EACCES, "x"), ConnectFailure.DENIED),
        (tx_error.ConnectError(errno.EINVAL, "x"), ConnectFailure.OTHER),
        (tx_error.ConnectError(string="x"), ConnectFailure.BUSY),
        (tx_error.ConnectionDone(), ConnectFailure.BUSY),
        (tx_error.DNSLookupError("x"), ConnectFailure.OTHER),
        (tx_error.TimeoutError(), ConnectFailure.SILENT),
        (TimeoutError(), ConnectFailure.SILENT),
        (tx_error.UserError(), ConnectFailure.CANCELLED),
        (CancelledError(), ConnectFailure.CANCELLED),
        (ZeroDivisionError("x"), ConnectFailure.OTHER),
    ],
    ids=repr,
)
def test_each_failure_to_connect_is_of_a_kind(cause: Exception, kind: ConnectFailure) -> None:
    error = connect_error(Failure(cause))
    assert error.kind is kind
    assert error.__cause__ is cause
    assert isinstance(error, ConnectTimeoutError) is (kind is ConnectFailure.SILENT)
    assert str(error)


def test_a_failure_of_an_unknown_kind_says_what_it_is() -> None:
    assert "division by zero" in str(connect_error(Failure(ZeroDivisionError("division by zero"))))


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = ConnectError("no", ConnectFailure.ABSENT)
    assert connect_error(Failure(error)) is error
    assert error.__cause__ is None


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_longest_path_is_the_kernels(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place) + "/" + "x" * (MAX_UNIX_PATH - len(str(place)) - 1))
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="too long"):
        sock.bind(str(place) + "/" + "x" * (MAX_UNIX_PATH - len(str(place))))
    shutil.rmtree(place)
    place.mkdir()
