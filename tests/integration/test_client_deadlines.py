"""A QEMU that is stopped with SIGSTOP, in each phase of a session (fact G5).

It keeps its sockets, the kernel connects to them, and nothing is ever answered. Each phase has its
own deadline. After SIGCONT QEMU goes on where it was: what it answers late disturbs nobody.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from support.prepared import Prepared, before_command
from support.qemu import RealQEMU
from support.sessions import Dial
from support.waiting import LIMIT, wait_stopped, within
from txqmp import (
    ConnectFailure,
    ConnectTimeoutError,
    EventTimeoutError,
    ExecuteTimeoutError,
    QMPProtocol,
    SessionSettings,
    Timeouts,
)


pytest_plugins = ["support.sessions"]

SHORT = 0.2


def limits(**limits: float) -> SessionSettings:
    return SessionSettings(timeouts=Timeouts(**limits))


def stop(qemu: RealQEMU) -> None:
    qemu.pause()
    wait_stopped(qemu.pid)


@contextmanager
def stopped(qemu: RealQEMU) -> Iterator[None]:
    stop(qemu)
    try:
        yield
    finally:
        qemu.resume()


async def works(session: QMPProtocol) -> None:
    """A session in order, and nothing left from what went before."""
    assert (await session.execute("query-status", timeout=LIMIT))["running"] is False
    assert session.parse_errors == session.malformed == session.pending.unknown_replies == 0
    assert len(session.pending) == 0


def tcp_port(qemu: RealQEMU) -> int:
    (name,) = (each["filename"] for each in qemu.execute("query-chardev") if each["label"] == "tcp")
    return int(name.split(":")[3].split(",")[0])


@contextmanager
def full_backlog(port: int) -> Iterator[None]:
    """Connections that nobody accepts, so many that the kernel takes no more."""
    held: list[socket.socket] = []
    try:
        while True:
            client = socket.socket()
            held.append(client)
            client.settimeout(SHORT)
            try:
                client.connect(("127.0.0.1", port))
            except TimeoutError:
                break
            assert len(held) < 10
        yield
    finally:
        for client in held:
            client.close()


@pytest_twisted.ensureDeferred
async def test_connect(qemu_factory: Callable[..., RealQEMU], dial: Dial) -> None:
    qemu = qemu_factory(
        *("-chardev", "socket,id=tcp,host=127.0.0.1,port=0,server=on,wait=off"),
        *("-mon", "chardev=tcp,mode=control"),
    )
    where = ("127.0.0.1", tcp_port(qemu))
    with stopped(qemu), full_backlog(where[1]):
        with pytest.raises(ConnectTimeoutError, match=r"no connection within 0\.2 s") as caught:
            await dial(where, settings=limits(connect=SHORT))
        assert caught.value.kind is ConnectFailure.SILENT
        assert caught.value.phase == "connect"
    # QEMU still has to see that those who filled the backlog have gone.
    await works(await dial(where))


@pytest_twisted.ensureDeferred
async def test_greeting(qemu: RealQEMU, dial: Dial) -> None:
    with stopped(qemu):
        with pytest.raises(ConnectTimeoutError, match=r"no greeting within 0\.2 s") as caught:
            await dial(qemu.path(), settings=limits(greeting=SHORT))
        assert caught.value.kind is ConnectFailure.SILENT
        assert caught.value.phase == "greeting"
    await works(await dial(qemu.path()))


@pytest_twisted.ensureDeferred
async def test_negotiation(qemu: RealQEMU, dial: Dial) -> None:
    prepare = before_command("qmp_capabilities", lambda: stop(qemu))
    where = Prepared(reactor, qemu.path(), prepare)
    with pytest.raises(ConnectTimeoutError, match=r"qmp_capabilities within 0\.2 s") as caught:
        await dial(where, settings=limits(negotiation=SHORT))
    assert caught.value.kind is ConnectFailure.SILENT
    assert caught.value.phase == "negotiation"
    qemu.resume()
    await works(await dial(qemu.path()))


@pytest_twisted.ensureDeferred
async def test_command(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path(), settings=limits(command=SHORT))
    with stopped(qemu):
        with pytest.raises(ExecuteTimeoutError, match=r"no reply within 0\.2 s") as caught:
            await session.execute("query-name")
        assert caught.value.command == "query-name"
        assert caught.value.sent
        with pytest.raises(ExecuteTimeoutError, match=r"no reply within 0\.1 s"):
            await session.execute("query-version", timeout=0.1)
        with pytest.raises(EventTimeoutError):
            await session.wait_for("STOP", timeout=0.1)
        assert len(session.pending) == session.pending.in_flight == 2
    after = await session.execute("query-status", timeout=LIMIT)
    assert after["running"] is False
    # They were executed after all, in order, and their replies swallowed.
    assert session.pending.late_replies == 2
    await works(session)


@pytest_twisted.ensureDeferred
async def test_commands_with_limits_of_their_own(qemu: RealQEMU, dial: Dial) -> None:
    settings = SessionSettings(
        timeouts=Timeouts(command=None, commands={"query-name": SHORT, "query-uuid": None})
    )
    session = await dial(qemu.path(), settings=settings)
    with stopped(qemu):
        lasting = [session.execute("query-uuid"), session.execute("query-status")]
        with pytest.raises(ExecuteTimeoutError, match=r"query-name: no reply within 0\.2 s"):
            await session.execute("query-name")
        assert not any(command.called for command in lasting)
    assert len(await gatherResults(lasting)) == 2
    assert session.pending.late_replies == 0
    await session.execute("query-status")
    assert session.pending.late_replies == 1


@pytest_twisted.ensureDeferred
async def test_stopped_again_and_again(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    for number in range(1, 11):
        with stopped(qemu), pytest.raises(ExecuteTimeoutError):
            await session.execute("query-name", timeout=0.02)
        assert (await session.execute("query-status"))["running"] is False
        assert session.pending.late_replies == number
    await works(session)


@pytest_twisted.ensureDeferred
async def test_more_than_the_window(qemu: RealQEMU, dial: Dial) -> None:
    """A command that was never sent says so, and never runs."""
    session = await dial(qemu.path(), settings=limits(command=SHORT))
    with stopped(qemu):
        commands = [session.execute("cont") for _ in range(8)]
        commands.append(session.execute("quit", timeout=SHORT))
        for number, command in enumerate(commands):
            with pytest.raises(ExecuteTimeoutError) as caught:
                await command
            assert caught.value.sent is (number < 8)
    assert (await session.execute("query-status", timeout=LIMIT))["running"] is True
    assert session.pending.late_replies == 8
    assert qemu.running


@pytest_twisted.ensureDeferred
async def test_disconnect(qemu: RealQEMU, dial: Dial) -> None:
    """What was written to a peer that does not read delays the end for a limited time."""
    session = await dial(qemu.path(), settings=limits(close=SHORT))
    with stopped(qemu):
        line = {"command-line": "x" * 1_000_000}
        commands = [session.execute("human-monitor-command", line) for _ in range(4)]
        await within(session.disconnect())
        for command in commands:
            with pytest.raises(Exception, match="we disconnected"):
                await command


def test_backlog_helper() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        port = server.getsockname()[1]
        with full_backlog(port), socket.socket() as client:
            client.setblocking(False)
            assert client.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
