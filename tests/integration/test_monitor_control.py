"""Commands for a running daemon: real sockets, real users, real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from support.daemon import LIMIT, PROGRAM, Output, command
from support.spool import item
from support.waiting import end_session, until, within
from txqmp import ConnectError, ExecuteError, QMPProtocol, ServerParseError, connect
from txqmp.monitor import control
from txqmp.monitor.control import ControlService
from txqmp.monitor.pump import PumpState
from txqmp.monitor.spool import Spool, SpoolLimits, Start, make_spool
from txqmp.monitor.web.source import SinkStatus


pytest_plugins = ["support.sessions"]


class World:
    """A spool, the service, and who commands it."""

    def __init__(self, directory: Path) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = str(directory)
        self.sinks: list[SinkStatus] = []
        self.spool: Spool = make_spool(reactor, str(directory / "spool"), SpoolLimits())
        self.woken: list[str] = []
        self.service = ControlService(
            reactor, self.directory, self.spool, sinks=lambda: self.sinks, wake=self.woken.append
        )
        self.sessions: list[QMPProtocol] = []

    async def connect(self) -> QMPProtocol:
        session = await connect(self.reactor, self.service.path)
        self.sessions.append(session)
        return session

    def acked(self, sink: str) -> int:
        return {each.name: each.acked for each in self.spool.state.sinks}[sink]


@pytest_twisted.async_yield_fixture
async def world(place: Path) -> AsyncIterator[World]:
    world = World(place)
    await world.spool.start()
    await world.spool.add_sink("ops", Start.BEGINNING)
    for number in range(5):
        await world.spool.put(item(str(number)))
    await world.spool.ack("ops", 5)
    world.service.startService()
    yield world
    for session in world.sessions:
        await end_session(session)
    await within(world.service.stopService())
    await within(world.spool.close())


@pytest_twisted.ensureDeferred
async def test_commands(world: World) -> None:
    qmp = await world.connect()
    (first, *_) = (await world.spool.read()).records
    number = await world.spool.bury("ops", first, "no", 1)
    assert await qmp.execute("rewind", {"sink": "ops", "position": 2}) == {"count": 3}
    assert world.acked("ops") == 2
    assert await qmp.execute("retry-dead", {"sink": "ops", "numbers": [9]}) == {"count": 0}
    assert await qmp.execute("retry-dead", {"sink": "ops"}) == {"count": 1}
    assert world.spool.state.sinks[0].retrying == 1
    assert world.woken == ["ops", "ops"]
    dropped = await qmp.execute("drop-dead", {"sink": "ops", "numbers": [number]})
    assert dropped == {"count": 1}
    assert await qmp.execute("drop-dead", {"sink": "ops"}) == {"count": 0}


@pytest_twisted.ensureDeferred
async def test_status(world: World) -> None:
    world.sinks = [
        SinkStatus(name="ops", kind="webhook", state=PumpState.UP, sent=7),
        SinkStatus(
            name="bus\ud800",
            kind="amqp",
            state=PumpState.FAILING,
            last_error="\ud800" * 5000,
            next_attempt=1_800_000_000.0,
        ),
    ]
    qmp = await world.connect()
    status = await qmp.execute("status")
    assert (status["version"], status["pid"]) == (control.version(), os.getpid())
    first, second = status["sinks"]
    assert first == {
        "name": "ops",
        "kind": "webhook",
        "state": "up",
        "sent": 7,
        "last-error": None,
        "next-attempt": None,
    }
    assert second["name"] == "bus\\ud800"
    assert second["next-attempt"] == "2027-01-15T08:00:00.000000Z"
    assert len(second["last-error"]) < 7000


@pytest_twisted.ensureDeferred
async def test_what_is_refused(world: World) -> None:
    qmp = await world.connect()
    for name, arguments, why in (
        ("rewind", {"sink": "nobody", "position": 1}, "knows no sink 'nobody'"),
        ("rewind", {"sink": "ops", "position": 6}, "never had a record 6"),
        ("rewind", {"sink": "ops", "position": -1}, "never had a record -1"),
        ("rewind", {"sink": "ops"}, "'position' is missing"),
        ("rewind", {"sink": "ops", "position": "1"}, "expected: integer"),
        ("retry-dead", {"sink": "nobody"}, "knows no sink"),
        ("retry-dead", {"sink": "ops", "numbers": ["1"]}, "expected: integer"),
        ("drop-dead", {"sink": "nobody"}, "knows no sink"),
        ("forget-sink", {"sink": "nobody"}, "knows no sink"),
        ("forget-sink", {"sink": "ops"}, "'ops' is in use"),
        ("quit", {}, "has not been found"),
    ):
        with pytest.raises(ExecuteError, match=why):
            await qmp.execute(name, arguments)
    assert world.acked("ops") == 5


@pytest_twisted.ensureDeferred
async def test_forget(world: World) -> None:
    """One that was taken out of the configuration."""
    await world.spool._change(lambda db: db.execute("UPDATE cursor SET attached = 0") and None)
    qmp = await world.connect()
    assert await qmp.execute("forget-sink", {"sink": "ops"}) == {}
    assert world.spool.state.sinks == ()


@pytest_twisted.ensureDeferred
async def test_the_spool_is_closed(world: World) -> None:
    qmp = await world.connect()
    await world.spool.close()
    with pytest.raises(ExecuteError, match="the spool is closed"):
        await qmp.execute("rewind", {"sink": "ops", "position": 1})


# The socket


@pytest_twisted.ensureDeferred
async def test_life(world: World) -> None:
    path = Path(world.service.path)
    assert path == Path(world.directory) / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    qmp = await world.connect()
    await within(world.service.stopService())
    await within(qmp.when_state(type(qmp.state).IDLE))
    assert not path.exists()
    assert sorted(os.listdir(world.directory)) == ["spool"]
    world.service.startService()
    assert (await (await world.connect()).execute("status"))["pid"] == os.getpid()


@pytest_twisted.ensureDeferred
async def test_what_a_daemon_left_that_was_killed(place: Path) -> None:
    world = World(place)
    left = socket.socket(socket.AF_UNIX)
    left.bind(world.service.path)
    left.close()
    with pytest.raises(ConnectError):
        await world.connect()
    world.service.startService()
    await within(world.connect())
    for session in world.sessions:
        await end_session(session)
    await within(world.service.stopService())


def test_something_else_is_in_its_place(place: Path) -> None:
    world = World(place)
    Path(world.service.path).write_text("mine")
    with pytest.raises(ConnectError, match="something else is there"):
        world.service.startService()
    assert Path(world.service.path).read_text() == "mine"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than the 107 bytes"):
        World(tmp_path / ("x" * 100))


@pytest_twisted.ensureDeferred
async def test_names_that_are_special_to_endpoints(place: Path) -> None:
    (place / r"a:b\c").mkdir()
    world = World(place / r"a:b\c")
    world.service.startService()
    assert os.path.exists(f"{place}/a:b\\c/control.sock")
    await within(world.service.stopService())


#: Says what it hears within its time from the socket that it is given.
STRANGER = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect(sys.argv[1])
    try:
        client.sendall(b'{"execute":"qmp_capabilities"}{"execute":"status"}')
        print(client.recv(4096))
    except ConnectionError:
        print(b"")
"""


class Stranger(ProcessProtocol):
    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[None] = Deferred()

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("user", "heard"), [(0, True), (65534, False)])
@pytest_twisted.ensureDeferred
async def test_users(world: World, user: int, heard: bool) -> None:
    """Whoever could connect is not heard for that."""
    os.chmod(world.service.path, 0o777)
    os.chmod(world.directory, 0o755)
    stranger = Stranger()
    command = [sys.executable, "-c", STRANGER, world.service.path, str(user)]
    world.reactor.spawnProcess(stranger, sys.executable, command, env={})
    await within(stranger.ended)
    assert (b"QMP" in stranger.output) is heard, stranger.output
    assert heard or stranger.output == b"b''\n"
    assert world.service.refused == int(not heard)
    # Others are heard as before.
    assert await (await world.connect()).execute("status")


@pytest_twisted.ensureDeferred
async def test_too_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS", 2)
    first, _ = await world.connect(), await world.connect()
    with pytest.raises(ConnectError):
        await world.connect()
    await first.disconnect()
    await until(lambda: len(world.service._server.clients) == 1)
    await world.connect()


@pytest_twisted.ensureDeferred
async def test_one_who_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LIFETIME", 0.05)
    qmp = await world.connect()
    await within(qmp.when_state(type(qmp.state).IDLE))
    assert world.service._server.clients == ()


@pytest_twisted.ensureDeferred
async def test_too_much(world: World) -> None:
    qmp = await world.connect()
    with pytest.raises(ServerParseError, match="size limit exceeded"):
        await qmp.execute("rewind", {"sink": "x" * (2 << 20), "position": 1})
    assert await (await world.connect()).execute("status")


# The commands themselves, with a daemon in a process of its own


#: Delivers the spool's records as lines on its standard output, and is commanded. A record that
#: says "bad" is given up.
DAEMON = """
import os, sys
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogBeginner
from txqmp.monitor.control import ControlService
from txqmp.monitor.spool import Item, SpoolLimits, Start, make_spool

globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
state, *texts = sys.argv[1:]

def say(text):
    os.write(1, text.encode() + b"\\n")

async def deliver():
    while True:
        batch = await spool.read_for("ops", count=2)
        for record in batch.records:
            text = record.data.decode().rstrip()
            if text == "bad":
                await spool.bury("ops", record, "it is bad", 1)
            else:
                say(text)
        await spool.ack("ops", batch.through)
        await spool.when_beyond(batch.through)

running = None

def begin():
    global running
    if running is not None:
        running.cancel()
    running = Deferred.fromCoroutine(deliver())
    running.addErrback(lambda failure: failure.trap(CancelledError))

async def main():
    await spool.start()
    await spool.add_sink("ops", Start.BEGINNING)
    spool.watch_rewinds("ops", begin)
    service.startService()
    for text in texts:
        await spool.put(Item("vm", "STOP", reactor.seconds(), text.encode()))
    begin()

spool = make_spool(reactor, os.path.join(state, "spool"), SpoolLimits())
service = ControlService(reactor, state, spool)
reactor.addSystemEventTrigger("before", "shutdown", lambda: service.stopService())
reactor.addSystemEventTrigger("during", "shutdown", lambda: spool.close())
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(lambda f: say(str(f))))
reactor.run()
"""


class Running:
    """A daemon in a process of its own."""

    def __init__(self, state: str, *texts: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, state, *texts], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self._output = Output(os.dup(self.process.stdout.fileno()))
        self.process.stdout.close()

    def lines(self, count: int) -> list[str]:
        """Return the next lines that it prints."""
        deadline = time.monotonic() + LIMIT
        lines = [self._output.line(deadline) for _ in range(count)]
        assert None not in lines, lines
        return [line.decode() for line in lines if line is not None]

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it; return what it has printed since."""
        self.process.send_signal(number)
        rest = self._output.rest().decode()
        self.process.wait(LIMIT)
        return rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self._output.close()


@pytest.fixture
def running(place: Path) -> Iterator[Running]:
    running = Running(str(place), "a", "bad", "c", "d")
    yield running
    running.close()


def test_a_running_daemon_is_commanded(running: Running, place: Path) -> None:
    assert running.lines(3) == ["a", "c", "d"]
    where = ("--state-dir", str(place))
    out, _ = command("status", *where)
    assert f" runs as process {running.process.pid}\n" in out
    # Back: it comes again, and what was given up is given up once more.
    out, _ = command("replay", *where, "--sink", "ops", "--after", "1")
    assert out == "ops: 3 events are delivered again\n"
    assert running.lines(2) == ["c", "d"]
    out, _ = command("replay", *where, "--sink", "ops", "--all")
    assert out == "ops: 4 events are delivered again\n"
    assert running.lines(3) == ["a", "c", "d"]
    out, _ = command("dead", "list", *where, "--json")
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["it is bad"]
    out, _ = command("dead", "retry", *where, "--sink", "ops", "1")
    assert out == "ops: 1 dead letter is tried again\n"
    out, _ = command("dead", "drop", *where, "--sink", "ops", "--all")
    assert out == "ops: 1 dead letter is dropped\n"
    _, err = command("forget", *where, "--sink", "ops", code=1)
    assert err.startswith("qmp-monitor: the sink 'ops' is in use: ")
    _, err = command("replay", *where, "--sink", "nobody", "--all", code=1)
    assert err == "qmp-monitor: the spool knows no sink 'nobody'\n"
    assert running.end() == ""
    assert command("status", *where, "--check", code=1)[1] == "qmp-monitor: no daemon runs\n"
    # And what is changed now is found by the next one.
    out, _ = command("replay", *where, "--sink", "ops", "--after", "2")
    assert out == "ops: 2 events are delivered again\n"
    again = Running(str(place))
    assert again.lines(2) == ["c", "d"]
    again.close()


def test_a_daemon_that_hangs(running: Running, place: Path) -> None:
    assert running.lines(3) == ["a", "c", "d"]
    where = ("--state-dir", str(place))
    running.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        out, err = command("status", *where, "--check", code=1)
        assert out.startswith(f"process {running.process.pid} runs, but does not answer: ")
        assert "does not answer" in err
        _, err = command("dead", "drop", *where, "--sink", "ops", "--all", code=1)
        assert err.startswith("qmp-monitor: the daemon does not take commands: ")
    finally:
        running.process.send_signal(signal.SIGCONT)


def test_a_daemon_that_was_killed(running: Running, place: Path) -> None:
    assert running.lines(3) == ["a", "c", "d"]
    where = ("--state-dir", str(place))
    running.end(signal.SIGKILL)
    assert (place / "control.sock").exists()
    assert command("status", *where)[0].startswith("no daemon runs\n")
    assert command("replay", *where, "--sink", "ops", "--all")[0].startswith("ops: ")
    again = Running(str(place))
    assert again.lines(3) == ["a", "c", "d"]
    assert "runs as process" in command("status", *where)[0]
    again.close()


def test_nobody_reads(place: Path) -> None:
    """``qmp-monitor status --help | true``"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "status", "--help"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
