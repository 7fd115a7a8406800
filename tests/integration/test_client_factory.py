"""The factory and a QEMU that comes and goes (fact G37).

The long run is ``python tests/soak restarts``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from soak import restarts
from support.qemu import RealQEMU
from support.sessions import MakeFactory
from support.waiting import wait_stopped, within
from txqmp import (
    Backoff,
    ConnectError,
    ConnectFailure,
    DisconnectedError,
    Gap,
    QMPClientFactory,
    QMPError,
    QMPProtocol,
    RunState,
    SessionSettings,
    Snapshot,
    StateError,
    Timeouts,
)


pytest_plugins = ["support.sessions"]

QUICK = Backoff(initial=0.01, maximum=0.1)
IMPATIENT = SessionSettings(timeouts=Timeouts(greeting=0.1))


class Told:
    """What a factory has told, in order."""

    def __init__(self, factory: QMPClientFactory) -> None:
        self.what: list[str] = []
        self.gaps: list[Gap] = []
        self.snapshots: list[Snapshot] = []
        self.errors: list[QMPError] = []
        factory.observe(
            ready=lambda _: self.what.append("ready"),
            lost=lambda _, error: self._append("lost", error, self.errors),
            gap=lambda gap: self._append("gap", gap, self.gaps),
            snapshot=lambda snapshot: self._append("snapshot", snapshot, self.snapshots),
            failed=lambda error: self._append("failed", error, self.errors),
        )

    def _append(self, what: str, news: Any, those: list[Any]) -> None:
        self.what.append(what)
        those.append(news)


@pytest_twisted.ensureDeferred
async def test_twenty_restarts() -> None:
    report = await restarts.run(reactor, 20)
    assert report.problems() == []
    assert len(report.lives) == 20
    assert len(report.gaps) == 19


@pytest_twisted.ensureDeferred
async def test_what_spans_a_gap(place: Path, make_factory: MakeFactory) -> None:
    """What was asked of the factory goes on; what was asked of the session ends with it."""
    factory = make_factory(backoff=QUICK)
    told = Told(factory)
    path = place / "qmp.sock"
    factory.dial(path)
    lasting = factory.listen("RESUME")
    waiter = factory.wait_for("STOP", timeout=20)
    with restarts.listening_qemu(path) as qemu:
        session = await within(factory.when_ready())
        passing = session.listen("RESUME")
        await session.execute("cont")
        qemu.kill()
        await within(session.when_state(RunState.IDLE))
        assert factory.session is None
        ready = factory.when_ready()
        assert not ready.called
    with restarts.listening_qemu(path):
        again = await within(ready)
        assert again is factory.session is not session
        await again.execute("cont")
        await again.execute("stop")
        assert (await waiter).name == "STOP"
    assert [event.name for event in lasting.clear()] == ["RESUME", "RESUME"]
    assert [event.name for event in passing.clear()] == ["RESUME"]
    with pytest.raises(DisconnectedError):
        await passing.get()
    with pytest.raises(StateError):
        await session.execute("query-status")
    assert factory.sessions_begun == 2
    assert len(told.gaps) == len(told.snapshots) == 1


@pytest_twisted.ensureDeferred
async def test_commands_are_not_repeated(place: Path, make_factory: MakeFactory) -> None:
    """One may have run: the caller is told so, and the next session knows nothing of it."""
    factory = make_factory(backoff=QUICK)
    path = place / "qmp.sock"
    factory.dial(path)
    with restarts.listening_qemu(path) as qemu:
        session = await within(factory.when_ready())
        qemu.pause()
        wait_stopped(qemu.pid)
        commands = [session.execute("cont") for _ in range(10)]
        qemu.kill()
        for number, command in enumerate(commands):
            with pytest.raises(DisconnectedError) as caught:
                await within(command)
            assert caught.value.may_have_run is (number < 8)
    with restarts.listening_qemu(path):
        session = await within(factory.when_ready())
        assert (await session.execute("query-status"))["running"] is False


@pytest_twisted.ensureDeferred
async def test_a_silent_peer_is_a_failed_attempt(qemu: RealQEMU, make_factory: MakeFactory) -> None:
    factory = make_factory(backoff=QUICK, settings=IMPATIENT)
    told = Told(factory)
    qemu.pause()
    wait_stopped(qemu.pid)
    factory.dial(qemu.path())
    with pytest.raises(ConnectError) as caught:
        await factory.when_ready(failures=3)
    assert caught.value.kind in (ConnectFailure.SILENT, ConnectFailure.BUSY)
    assert set(told.what) == {"failed"}
    assert factory.last_error is not None
    qemu.resume()
    session = await within(factory.when_ready())
    assert factory.last_error is None
    assert (await session.execute("query-status"))["running"] is False
    # There was no session before: nothing was missed between two of them.
    assert told.gaps == []


@pytest_twisted.ensureDeferred
async def test_kill_and_quit_are_told_apart(place: Path, make_factory: MakeFactory) -> None:
    factory = make_factory(backoff=QUICK)
    told = Told(factory)
    path = place / "qmp.sock"
    factory.dial(path)
    for end in ("kill", "quit"):
        with restarts.listening_qemu(path) as qemu:
            session = await within(factory.when_ready())
            if end == "kill":
                qemu.kill()
            else:
                assert await session.execute("quit") == {}
            await within(session.when_state(RunState.IDLE))
    await factory.stop()
    ends = [error for error in told.errors if isinstance(error, DisconnectedError)]
    assert [end.expected for end in ends] == [False, True]
    assert ends[0].shutdown is None
    assert ends[1].shutdown.data["reason"] == "host-qmp-quit"
    assert told.gaps[0].reason == ends[0].reason


@pytest_twisted.ensureDeferred
async def test_with_a_connector(
    place: Path, make_factory: MakeFactory, qemu_factory: Callable[..., RealQEMU]
) -> None:
    """``reactor.connectUNIX`` and ``connectTCP`` reconnect too."""
    factory = make_factory(backoff=QUICK)
    path = place / "qmp.sock"
    reactor.connectUNIX(str(path), factory)
    for _ in range(3):
        with restarts.listening_qemu(path) as qemu:
            session = await within(factory.when_ready())
            assert (await session.execute("query-status"))["running"] is False
            qemu.kill()
            await within(session.when_state(RunState.IDLE))
    assert factory.sessions_begun == 3


@pytest_twisted.ensureDeferred
async def test_stop(qemu: RealQEMU, make_factory: MakeFactory) -> None:
    """In every phase: nothing is left, who waits is told, and the factory can be used again."""
    factory = make_factory(backoff=QUICK)
    ready: list[QMPProtocol] = []
    factory.observe(ready=ready.append)

    factory.dial(qemu.path("absent"))
    waiting = factory.when_ready()
    await within(factory.stop())
    with pytest.raises(StateError, match="stopped"):
        await waiting
    with pytest.raises(StateError, match="stopped"):
        await factory.when_ready()

    qemu.pause()
    factory.dial(qemu.path())
    waiting = factory.when_ready()
    await within(factory.stop())
    with pytest.raises(StateError, match="stopped"):
        await waiting
    qemu.resume()
    assert ready == []

    factory.dial(qemu.path())
    event = factory.wait_for("STOP")
    session = await within(factory.when_ready())
    await within(factory.stop())
    assert session.state is RunState.IDLE
    with pytest.raises(DisconnectedError, match="stopped") as caught:
        await event
    assert caught.value.expected

    factory.dial(qemu.path())
    assert await (await within(factory.when_ready())).execute("query-name") == {}
    assert len(ready) == 2
