"""The ways to a real QEMU: a path of any length, TCP, a descriptor, the standard streams."""

from __future__ import annotations

import os
import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint

from support.programs import require
from support.qemu import PACKAGE, PROGRAM, RealQEMU
from support.sessions import Dial
from support.waiting import process_ended, within
from txqmp import (
    ConnectError,
    ConnectFailure,
    DisconnectedError,
    GreetingError,
    QMPProtocol,
    RunState,
)


pytest_plugins = ["support.sessions"]

StartQEMU = Callable[..., RealQEMU]


async def works(session: QMPProtocol) -> None:
    """Commands, a large reply, and events."""
    with session.listen("RESUME", "STOP") as events:
        await session.execute("cont")
        await session.execute("stop")
        assert len(events) == 2
    assert len(await session.execute("query-qmp-schema")) > 1000


@contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest_twisted.ensureDeferred
async def test_unix(qemu: RealQEMU, dial: Dial) -> None:
    path = qemu.path()
    places = [
        path,
        Path(path),
        f"unix:{path}",
        f"unix:path={path}",
        UNIXClientEndpoint(reactor, path),
    ]
    for where in places:
        session = await dial(where)
        await works(session)
        await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_unix_with_odd_characters(qemu_factory: StartQEMU, dial: Dial, place: Path) -> None:
    path = place / "a:b \\ é='c.sock"
    quoted = str(path).replace(",", ",,")
    qemu_factory(
        *("-chardev", f"socket,id=odd,path={quoted},server=on,wait=off"),
        *("-mon", "chardev=odd,mode=control"),
    )
    session = await dial(path)
    await works(session)
    await session.disconnect()
    await works(await dial(str(path)))


@pytest_twisted.ensureDeferred
async def test_abstract(qemu_factory: StartQEMU, dial: Dial) -> None:
    name = f"txqmp-{os.getpid()}"
    qemu_factory(
        *("-chardev", f"socket,id=abstract,path={name},abstract=on,server=on,wait=off"),
        *("-mon", "chardev=abstract,mode=control"),
    )
    with pytest.raises(ConnectError):
        await dial(f"./{name}")
    # QEMU fills the name up with zeros, unless it is told "tight", which it is by default.
    await works(await dial(f"@{name}"))


@pytest_twisted.ensureDeferred
async def test_long_path(qemu_factory: StartQEMU, dial: Dial, place: Path) -> None:
    directory = place / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    with opened_directory(directory) as descriptor:
        path = f"/proc/self/fd/{descriptor}/qmp.sock"
        qemu_factory(
            *("-chardev", f"socket,id=long,path={path},server=on,wait=off"),
            *("-mon", "chardev=long,mode=control"),
            pass_fds=[descriptor],
        )
    assert len(str(directory / "qmp.sock")) > 200
    await works(await dial(directory / "qmp.sock"))
    with pytest.raises(ConnectError) as caught:
        await dial(directory / "absent.sock")
    assert caught.value.kind is ConnectFailure.ABSENT
    with pytest.raises(ConnectError) as caught:
        await dial(directory / ("n" * 108))
    assert caught.value.kind is ConnectFailure.PATH_TOO_LONG


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the host has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
@pytest_twisted.ensureDeferred
async def test_tcp(qemu_factory: StartQEMU, dial: Dial, host: str) -> None:
    qemu = qemu_factory(
        *("-chardev", f"socket,id=tcp,host={host},port=0,server=on,wait=off"),
        *("-mon", "chardev=tcp,mode=control"),
    )
    port = tcp_port(qemu)
    escaped = host.replace(":", "\\:")
    for where in ((host, port), f"tcp:{escaped}:{port}"):
        session = await dial(where)
        await works(session)
        await session.disconnect()


def tcp_port(qemu: RealQEMU) -> int:
    (name,) = (each["filename"] for each in qemu.execute("query-chardev") if each["label"] == "tcp")
    return int(name.partition(",")[0].rpartition(":")[2])


@pytest_twisted.ensureDeferred
async def test_descriptor_of_a_socket_pair(qemu_factory: StartQEMU, dial: Dial) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        qemu_factory(
            *("-chardev", f"socket,id=pair,fd={theirs.fileno()}"),
            *("-mon", "chardev=pair,mode=control"),
            pass_fds=[theirs.fileno()],
        )
    number = ours.detach()
    session = await dial(f"fd:{number}")
    await works(session)
    with open("/dev/null", "rb") as null:
        assert (await session.execute("add-fd", fds=[null]))["fdset-id"] == 0
    assert await session.execute("quit") == {}
    with pytest.raises(ConnectError, match="Bad file descriptor"):
        await dial(f"fd:{number}")


def child(*args: str) -> str:
    """Where to connect to a QEMU that is a child of ours."""
    command = [require(PROGRAM, package=PACKAGE), "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-machine", "none", "-S", "-qmp", "stdio", *args]
    return f"exec:{shlex.join(command)}"


@pytest_twisted.ensureDeferred
async def test_standard_streams_of_a_child(dial: Dial) -> None:
    session = await dial(child())
    await works(session)
    assert await session.execute("quit") == {}
    await within(session.when_state(RunState.IDLE))
    await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_child_that_is_killed(dial: Dial, place: Path) -> None:
    session = await dial(child("-pidfile", str(place / "pid")))
    waiter = session.wait_for("STOP")
    os.kill(int((place / "pid").read_text()), signal.SIGKILL)
    with pytest.raises(DisconnectedError, match="the peer closed the connection") as caught:
        await within(waiter)
    assert not caught.value.expected
    with pytest.raises(DisconnectedError):
        await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_disconnecting_from_a_child(dial: Dial, place: Path) -> None:
    """The pipes are closed; the process is the caller's to end."""
    session = await dial(child("-pidfile", str(place / "pid")))
    pid = int((place / "pid").read_text())
    ended = process_ended(pid)
    await within(session.disconnect())
    assert session.state is RunState.IDLE
    assert not ended.called
    os.kill(pid, signal.SIGKILL)
    await ended


@pytest_twisted.ensureDeferred
async def test_child_that_is_not_qemu(dial: Dial) -> None:
    with pytest.raises(ConnectError) as caught:
        await dial("exec:true")
    assert caught.value.kind is ConnectFailure.CLOSED
    with pytest.raises(GreetingError, match="expected a greeting"):
        await dial("exec:echo hello")
    with pytest.raises(ConnectError):
        await dial("exec:/no/such/program")
