"""The service: it ends within its deadline, whatever the peer does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.error import CannotListenError

from support.leaks import LoggedErrors
from support.qemu import RealQEMU
from support.waiting import until, wait_stopped, within
from txqmp import (
    Backoff,
    DisconnectedError,
    QMPClientFactory,
    QMPService,
    RunState,
    SessionSettings,
    StateError,
    Timeouts,
)


pytest_plugins = ["support.sessions"]

#: How long the peer gets to take what was written, in seconds.
CLOSE = 0.2

SETTINGS = SessionSettings(timeouts=Timeouts(close=CLOSE))

Run = Callable[..., Awaitable[QMPService]]


@pytest_twisted.async_yield_fixture
async def run() -> AsyncIterator[Run]:
    """Start services; those that run still are stopped at the end."""
    services: list[QMPService] = []

    async def run(where: Any, **options: Any) -> QMPService:
        factory = QMPClientFactory(reactor, settings=SETTINGS, backoff=Backoff(initial=0.01))
        service = QMPService(reactor, where, factory, **options)
        services.append(service)
        service.startService()
        return service

    yield run
    for service in services:
        if service.running:
            await stop(service)


async def stop(service: QMPService) -> None:
    """Stop a service; far more than its deadline would be for ever."""
    await within(service.stopService(), 10 + CLOSE, "stopService()")


@pytest_twisted.ensureDeferred
async def test_runs_and_stops(qemu: RealQEMU, run: Run) -> None:
    service = await run(qemu.path())
    session = await within(service.factory.when_ready())
    assert await session.execute("query-name") == {}
    await stop(service)
    assert session.state is RunState.IDLE
    with pytest.raises(StateError, match="stopped"):
        await service.factory.when_ready()
    service.startService()
    session = await within(service.factory.when_ready())
    assert await session.execute("query-name") == {}


@pytest_twisted.ensureDeferred
async def test_peer_that_does_not_read(qemu: RealQEMU, run: Run) -> None:
    """QEMU is stopped with SIGSTOP, and megabytes wait to be sent."""
    service = await run(qemu.path())
    session = await within(service.factory.when_ready())
    qemu.pause()
    wait_stopped(qemu.pid)
    line = {"command-line": "x" * 1_000_000}
    commands = [session.execute("human-monitor-command", line) for _ in range(20)]
    event = service.factory.wait_for("STOP")
    await stop(service)
    assert session.state is RunState.IDLE
    for number, command in enumerate(commands):
        with pytest.raises(DisconnectedError, match="we disconnected") as caught:
            await command
        assert caught.value.expected
        assert caught.value.sent is (number < 8)
    with pytest.raises(DisconnectedError, match="the factory was stopped"):
        await event


@pytest_twisted.ensureDeferred
async def test_peer_that_does_not_greet(qemu: RealQEMU, run: Run) -> None:
    qemu.pause()
    wait_stopped(qemu.pid)
    service = await run(qemu.path())
    ready = service.factory.when_ready()
    await stop(service)
    with pytest.raises(StateError, match="stopped"):
        await ready


@pytest_twisted.ensureDeferred
async def test_no_peer(place: Path, run: Run) -> None:
    service = await run(place / "absent.sock")
    await until(lambda: service.factory.last_error is not None)
    await stop(service)


@pytest_twisted.ensureDeferred
async def test_commands_that_are_under_way(qemu: RealQEMU, run: Run) -> None:
    """What was written is still sent: QEMU has it before the connection ends."""
    service = await run(qemu.path())
    session = await within(service.factory.when_ready())
    command = session.execute("query-qmp-schema")
    await stop(service)
    with pytest.raises(DisconnectedError) as caught:
        await command
    assert caught.value.may_have_run


@pytest_twisted.ensureDeferred
async def test_accepts(place: Path, run: Run, qemu_factory: Callable[..., RealQEMU]) -> None:
    path = place / "ours.sock"
    service = await run(path, accept=True)
    assert service.listening is not None
    await service.listening
    qemu = qemu_factory(
        *("-chardev", f"socket,id=dials,path={path},server=off,reconnect=1"),
        *("-mon", "chardev=dials,mode=control"),
    )
    session = await within(service.factory.when_ready())
    assert await session.execute("query-name") == {}
    qemu.pause()
    await stop(service)
    assert session.state is RunState.IDLE
    assert not path.exists()
    qemu.resume()
    service.startService()
    session = await within(service.factory.when_ready())
    assert await session.execute("query-name") == {}


@pytest_twisted.ensureDeferred
async def test_cannot_listen(place: Path, run: Run, logged_errors: LoggedErrors) -> None:
    first = await run(place / "ours.sock", accept=True)
    second = await run(place / "ours.sock", accept=True)
    assert second.listening is not None
    await second.listening
    assert len(logged_errors.flush(CannotListenError)) == 1
    await stop(second)
    await stop(first)


@pytest_twisted.ensureDeferred
async def test_in_an_application(qemu_factory: Callable[..., RealQEMU]) -> None:
    """Several under one parent: it waits for all of them, and the slowest has its deadline."""
    qemu = qemu_factory(monitors=["a", "b", "c"])
    parent = MultiService()
    sessions = []
    for name in ("a", "b", "c"):
        factory = QMPClientFactory(reactor, settings=SETTINGS)
        QMPService(reactor, qemu.path(name), factory).setServiceParent(parent)
        sessions.append(factory.when_ready())
    parent.startService()
    for session in sessions:
        assert (await within(session)).state is RunState.RUNNING
    qemu.pause()
    await within(parent.stopService(), 10 + CLOSE, "stopService()")
