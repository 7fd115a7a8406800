"""QEMU dials us: ``server=off,reconnect=1`` (fact G7)."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from soak import refusals
from support.qemu import RealQEMU
from support.scripted import stranger
from support.sessions import MakeFactory
from support.waiting import end_session, until, within
from txqmp import (
    ConnectError,
    Gap,
    QMPClientFactory,
    QMPProtocol,
    RunState,
    SessionSettings,
    Snapshot,
    Timeouts,
    listen,
    server_endpoint,
)


pytest_plugins = ["support.sessions"]

StartQEMU = Callable[..., RealQEMU]


def dialling(where: Path | tuple[str, int], name: str = "dials") -> list[str]:
    """QEMU's arguments to dial us."""
    if isinstance(where, tuple):
        address = f"host={where[0]},port={where[1]}"
    else:
        address = f"path={where}"
    chardev = f"socket,id={name},{address},server=off,reconnect=1"
    return ["-chardev", chardev, "-mon", f"chardev={name},mode=control"]


async def works(session: QMPProtocol) -> None:
    with session.listen("RESUME", "STOP") as events:
        await session.execute("cont")
        await session.execute("stop")
        assert len(events) == 2


@asynccontextmanager
async def listening(where: object, factory: QMPClientFactory) -> AsyncIterator[IListeningPort]:
    """Listen with a factory, and stop it at the end."""
    port = await server_endpoint(reactor, where).listen(factory)
    try:
        yield port
    finally:
        await maybeDeferred(port.stopListening)
        await within(factory.stop())


@pytest_twisted.ensureDeferred
async def test_one_session(qemu_factory: StartQEMU, place: Path) -> None:
    path = place / "ours.sock"
    waiting = listen(reactor, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    qemu_factory(*dialling(path))
    session = await within(waiting)
    await works(session)
    # Descriptors travel this way round too.
    with open("/dev/null", "rb") as null:
        assert (await session.execute("add-fd", fds=[null]))["fdset-id"] == 0
    assert not path.exists()
    assert await session.execute("quit") == {}
    await within(session.when_state(RunState.IDLE))


@pytest_twisted.ensureDeferred
async def test_one_session_over_tcp(qemu_factory: StartQEMU, make_factory: MakeFactory) -> None:
    factory = make_factory()
    async with listening(("127.0.0.1", 0), factory) as port:
        qemu_factory(*dialling(("127.0.0.1", port.getHost().port)))
        await works(await within(factory.when_ready()))


@pytest_twisted.ensureDeferred
async def test_strangers_do_not_count(qemu_factory: StartQEMU, place: Path) -> None:
    path = place / "ours.sock"
    settings = SessionSettings(timeouts=Timeouts(greeting=0.1))
    waiting = listen(reactor, path, settings=settings)
    for says in (b"hello\r\n", b"", b'{"event": "STOP"}\r\n'):
        await within((await stranger(reactor, str(path), says)).gone)
    assert not waiting.called
    qemu_factory(*dialling(path))
    session = await within(waiting)
    await works(session)
    await end_session(session)


@pytest_twisted.ensureDeferred
async def test_cancelled(place: Path) -> None:
    path = place / "ours.sock"
    waiting = listen(reactor, path)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_place_is_taken(place: Path) -> None:
    path = place / "ours.sock"
    waiting = listen(reactor, path)
    with pytest.raises(ConnectError, match="cannot listen"):
        await listen(reactor, path)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    with pytest.raises(ValueError, match="longer than the 107 bytes"):
        await listen(reactor, place / ("long" * 30))


@pytest_twisted.ensureDeferred
async def test_qemu_is_restarted(
    qemu_factory: StartQEMU, make_factory: MakeFactory, place: Path
) -> None:
    """One gap and one snapshot after each return; subscriptions live on."""
    path = place / "ours.sock"
    factory = make_factory()
    told: list[str] = []
    snapshots: list[Snapshot] = []
    gaps: list[Gap] = []
    factory.subscribe(lambda event: told.append(event.name))
    factory.observe(
        ready=lambda _: told.append("ready"),
        lost=lambda _, __: told.append("lost"),
        gap=gaps.append,
        snapshot=snapshots.append,
    )
    async with listening(path, factory):
        for number in range(5):
            qemu = qemu_factory(*dialling(path), monitors=[])
            session = await within(factory.when_ready())
            await until(lambda number=number: len(snapshots) == number)
            await works(session)
            qemu.kill()
            await within(session.when_state(RunState.IDLE))
            assert factory.session is None
            assert len(gaps) == len(snapshots) == number
    assert told == ["ready", "RESUME", "STOP", "lost"] * 5
    assert all(gap.since < gap.until for gap in gaps)
    assert {snapshot.results["query-status"]["running"] for snapshot in snapshots} == {False}


@pytest_twisted.ensureDeferred
async def test_qemu_dials_again(
    qemu_factory: StartQEMU, make_factory: MakeFactory, place: Path
) -> None:
    """The connection is lost, and QEMU lives: it dials again within a second or two."""
    path = place / "ours.sock"
    factory = make_factory()
    gaps: list[Gap] = []
    factory.observe(gap=gaps.append)
    async with listening(path, factory):
        qemu_factory(*dialling(path), monitors=[])
        first = await within(factory.when_ready())
        await first.execute("cont")
        await first.disconnect()
        second = await within(factory.when_ready())
        assert second is not first
        assert (await second.execute("query-status"))["running"] is True
        assert len(gaps) == 1


@pytest_twisted.ensureDeferred
async def test_many_qemus(qemu_factory: StartQEMU, make_factory: MakeFactory, place: Path) -> None:
    path = place / "ours.sock"
    factory = make_factory(max_sessions=None)
    async with listening(f"unix:{path}:mode=660", factory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        qemus = [qemu_factory(*dialling(path), monitors=[]) for _ in range(5)]
        await until(lambda: len(factory.sessions) == 5)
        for session in factory.sessions:
            await works(session)
        qemus[2].kill()
        await until(lambda: len(factory.sessions) == 4)
        for session in factory.sessions:
            await works(session)
    assert factory.sessions == ()


@pytest_twisted.ensureDeferred
async def test_one_too_many(
    qemu_factory: StartQEMU, make_factory: MakeFactory, place: Path
) -> None:
    """A second QEMU is refused as long as the first is there; then it is its turn."""
    path = place / "ours.sock"
    factory = make_factory()
    async with listening(path, factory):
        first = qemu_factory(*dialling(path), monitors=[])
        session = await within(factory.when_ready())
        second = qemu_factory(*dialling(path), monitors=[])
        await until(lambda: factory.refused == 2)  # it has dialled again
        await works(session)
        assert factory.sessions == (session,)
        assert second.running
        first.kill()
        await within(session.when_state(RunState.IDLE))
        await works(await within(factory.when_ready()))


@pytest_twisted.ensureDeferred
async def test_who_is_refused_may_speak_first(
    qemu_factory: StartQEMU, make_factory: MakeFactory, place: Path
) -> None:
    """QEMU 7.2.22 that is cut off before its greeting is out, as it starts, may crash.

    The long run is ``python tests/soak refusals``.
    """
    path = place / "ours.sock"
    factory = make_factory(settings=SessionSettings(timeouts=Timeouts(close=20)))
    async with listening(path, factory):
        qemu_factory(*dialling(path), monitors=[])
        session = await within(factory.when_ready())
        caller, silent = [await stranger(reactor, str(path)) for _ in range(2)]
        await until(lambda: factory.refused == 2)
        await works(session)
        assert not caller.gone.called
        caller.transport.write(b"a greeting")
        await within(caller.gone)
        assert not silent.gone.called
        await within(factory.stop())
        await within(silent.gone)


@pytest_twisted.ensureDeferred
async def test_refused_qemus_live() -> None:
    report = await refusals.run(reactor, 10)
    assert report.problems() == []
    assert report.refused == 10


@pytest_twisted.ensureDeferred
async def test_left_over_socket(qemu_factory: StartQEMU, place: Path) -> None:
    """A program that was killed has left its socket's file and its lock."""
    path = place / "ours.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with subprocess.Popen(["true"]) as process:
        pass
    os.symlink(str(process.pid), f"{path}.lock")
    assert path.exists()
    waiting = listen(reactor, path)
    qemu_factory(*dialling(path))
    session = await within(waiting)
    await works(session)
    await end_session(session)
