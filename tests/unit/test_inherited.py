"""Sockets that somebody else has made."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from support.deferreds import failure, success
from support.waiting import until, within
from txqmp.errors import ConnectError
from txqmp.inherited import InheritedServer


pytest_plugins = ["support.sessions"]


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    """A socket that listens, made with mode 0640."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(place / "in.sock")
        listener.bind(path)
        os.chmod(path, 0o640)
        listener.listen()
        yield listener


class Greeter(Protocol):
    """Says which connection this is, and leaves."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.factory.count += 1  # type: ignore[union-attr]
        self.transport.write(b"%d" % self.factory.count)  # type: ignore[union-attr]
        self.transport.loseConnection()


class Greeters(Factory):
    protocol = Greeter
    noisy = False
    count = 0


async def greeted(path: str) -> bytes:
    """What one who connects is told."""
    from twisted.internet import reactor

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.setblocking(False)
        told: list[bytes] = []

        def look() -> bool:
            try:
                told.append(client.recv(100))
            except BlockingIOError:
                return False
            return told[-1] == b""

        assert reactor is not None
        await until(look)
        return b"".join(told)


@pytest_twisted.ensureDeferred
async def test_its_file_stays_as_it_is(listener: socket.socket) -> None:
    from twisted.internet import reactor

    endpoint = InheritedServer(reactor, listener.fileno())
    factory = Greeters()
    path = listener.getsockname()
    before = os.stat(path)
    for number in (b"1", b"2"):
        port: Any = await within(endpoint.listen(factory))
        assert port.getHost().name == os.fsencode(path)
        assert await greeted(path) == number
        port.stopListening()
        port.stopListening()
        after = os.stat(path)
        assert (after.st_ino, stat.S_IMODE(after.st_mode)) == (before.st_ino, 0o640)
    assert factory.numPorts == 0


@pytest_twisted.ensureDeferred
async def test_who_comes_while_nobody_listens_waits(listener: socket.socket) -> None:
    from twisted.internet import reactor

    with socket.socket(socket.AF_UNIX) as early:
        early.connect(listener.getsockname())
        factory = Greeters()
        port: Any = await within(InheritedServer(reactor, listener.fileno()).listen(factory))
        await until(lambda: factory.count == 1)
        port.stopListening()


def test_what_does_not_listen(place: Path) -> None:
    def refused(descriptor: int) -> str:
        listening: Deferred[Any] = InheritedServer(None, descriptor).listen(Greeters())
        return str(failure(listening, ConnectError).value)

    with socket.socket(socket.AF_UNIX) as idle, socket.create_server(("127.0.0.1", 0)) as tcp:
        assert "no UNIX socket that listens" in refused(idle.fileno())
        assert "no UNIX socket that listens" in refused(tcp.fileno())
    with open(place / "file", "w") as file:
        assert "socket operation on non-socket" in refused(file.fileno()).lower()
    assert "Bad file descriptor" in refused(1_000_000)
    assert refused(2**40)


class Reactor:
    """Counts readers, and has no descriptor left."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.calls: list[Any] = []
        self.problem: OSError | None = OSError(errno.EMFILE, "Too many open files")
        self.adopted = 0

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def callLater(self, delay: float, call: Any) -> Any:
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.calls.pop()

    def adoptStreamConnection(self, *_: object) -> None:
        if self.problem is not None:
            raise self.problem
        self.adopted += 1


def test_no_descriptor_is_left(listener: socket.socket) -> None:
    reactor = Reactor()
    port: Any = success(InheritedServer(reactor, listener.fileno()).listen(Greeters()))
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(listener.getsockname())
        second.connect(listener.getsockname())
        port.doRead()
        assert reactor.readers == []
        reactor.problem = None
        (go_on,) = reactor.calls
        reactor.calls.clear()
        go_on()
        assert reactor.readers == [port]
        port.doRead()
        assert reactor.adopted == 1
        reactor.problem = OSError(errno.EMFILE, "Too many open files")
        first.close()
        with socket.socket(socket.AF_UNIX) as third:
            third.connect(listener.getsockname())
            port.doRead()
        port.connectionLost(None)
        assert reactor.calls == []
        assert reactor.readers == []


class FullSocket:
    """A socket that cannot give a connection, for want of descriptors or of anybody who waits."""

    def __init__(self, *problems: int) -> None:
        self.problems = list(problems)

    def fileno(self) -> int:
        return 0

    def accept(self) -> Any:
        number = self.problems.pop(0)
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("problems", "rests"),
    [
        ([errno.EMFILE], True),
        ([errno.ECONNABORTED, errno.ENFILE], True),
        ([errno.EAGAIN], False),
        ([errno.ECONNABORTED, errno.EAGAIN], False),
    ],
)
def test_nothing_can_be_accepted(listener: socket.socket, problems: list[int], rests: bool) -> None:
    reactor = Reactor()
    port: Any = success(InheritedServer(reactor, listener.fileno()).listen(Greeters()))
    with port._socket:
        port._socket, sock = FullSocket(*problems), port._socket
        port.doRead()
        assert bool(reactor.calls) is rests
        assert (reactor.readers == []) is rests
        assert port._socket.problems == []
        port._socket = sock
        port.stopListening()
