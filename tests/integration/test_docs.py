"""The examples of the documentation and of README run, and do what is said of them."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from support.programs import require
from support.qemu import RealQEMU
from support.rabbitmq import RabbitMQ
from support.waiting import until, within
from txqmp import connect
from txqmp.monitor.signature import SigningKey, headers
from txqmp.testing import SimulatedVM


pytest_plugins = ["support.rabbitmq", "support.sessions"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


class Program(ProcessProtocol):
    """A running example.

    :ivar output: what it wrote to its standard output and error, in the order in which it came.
    :ivar status: its exit code, negative for a signal; None while it runs.
    """

    def __init__(self) -> None:
        self.output = ""
        self.status: int | None = None
        self.ended: Deferred[None] = Deferred()

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        self.output += data.decode()

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = 0 if reason.check(ProcessDone) else value.exitCode or -value.signal
        self.ended.callback(None)

    async def says(self, *texts: str) -> None:
        """Wait until it has written all of these."""
        try:
            await until(lambda: all(text in self.output for text in texts) or self.ended.called)
        finally:
            for text in texts:
                assert text in self.output, self.output

    async def end(self) -> str:
        """Wait for its end; return what it wrote."""
        await within(self.ended, what="the example")
        assert self.status == 0, self.output
        return self.output

    async def interrupt(self) -> str:
        """End it as Ctrl-C does; return what it wrote."""
        assert self.transport is not None
        self.transport.signalProcess("INT")
        await within(self.ended, what="the example")
        assert self.status in (0, -signal.SIGINT), self.output
        return self.output


Start = Callable[..., Program]


@pytest_twisted.async_yield_fixture
async def start() -> AsyncIterator[Start]:
    """Start an example with arguments, and variables for its environment."""
    from twisted.internet import reactor

    started: list[Program] = []

    def start(name: str, *args: str, **variables: str) -> Program:
        if name.endswith(".tac"):
            command = ["-m", "twisted", "-n", "--pidfile=", "-y", str(EXAMPLES / name)]
            command[:2] = ["-c", "from twisted.scripts.twistd import run; run()"]
        else:
            command = ["-u", str(EXAMPLES / name)]
        program = Program()
        reactor.spawnProcess(
            program,
            sys.executable,
            [sys.executable, *command, *args],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        )
        started.append(program)
        return program

    yield start
    for program in started:
        if program.status is None:
            assert program.transport is not None
            program.transport.signalProcess("KILL")
            await program.ended


MakeVM = Callable[..., Awaitable[SimulatedVM]]


@pytest_twisted.async_yield_fixture
async def make_vm(place: Path) -> AsyncIterator[MakeVM]:
    """Make a simulated VM with its monitor at a name in the place."""
    from twisted.internet import reactor

    made: list[tuple[SimulatedVM, Any]] = []

    async def make(name: str = "qmp.sock", **options: Any) -> SimulatedVM:
        vm = SimulatedVM(reactor, **options)
        made.append((vm, await UNIXServerEndpoint(reactor, str(place / name)).listen(vm)))
        return vm

    yield make
    for vm, port in made:
        vm.kill()
        await maybeDeferred(port.stopListening)
        await vm.disconnect_all()


@pytest_twisted.async_yield_fixture(params=["simulated", "real"])
async def monitor(
    request: pytest.FixtureRequest, place: Path, make_vm: MakeVM
) -> AsyncIterator[str]:
    """The path of a monitor, of a simulated VM or of a real QEMU."""
    if request.param == "simulated":
        vm = await make_vm(running=False)
        vm.register("query-migrate", lambda call: {})
        yield str(place / "qmp.sock")
    else:
        with RealQEMU() as qemu:
            yield qemu.path()


# Examples that run against a VM and end by themselves: what each writes, as patterns, in order.

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+00:00"

WRITTEN: dict[str, list[str]] = {
    "quickstart.py": [r"'status': 'prelaunch'", r"Event\(.*'RESUME'"],
    "inline_callbacks.py": [r"^prelaunch\n$"],
    "errors.py": [
        r"^done\n",
        r"^QEMU refused: CommandNotFound: The command no-such-command has not been found\n",
        r"^never sent: stop: nan is not a JSON number\n",
        r"^too slow; may still run\n",
        r"^done\n",
        r"^never sent: query-status: the session is idle",
    ],
    "time_limits.py": [r"^all in time\n"],
    "at_once.py": [r"^query-name {", r"^query-version {'qemu'", r"^query-status {", r"^gave up\n"],
    "descriptors.py": [r"^1 \['nothing'\]\n"],
    "raw_messages.py": [
        r'^-> {"execute":"query-name","id":"my own"}\n<- {.*"id":"my own"',
        r'^-> {"execute":"stop","surprise":1,"id":".*"}\n',
        r"^QMP input member 'surprise' is unexpected\n",
    ],
    "log_messages.py": [
        r"\[txqmp\.session\.vm1#info\] -> .*'password': '\[redacted\]'",
        r"<- .*'error'",
    ],
    "events.py": [
        r"^any: RESUME\n",
        rf"^RESUME {STAMP} running\n",
        r"^any: STOP\n",
        rf"^STOP {STAMP} paused\n",
        r"^0 failed, 0 dropped\n",
    ],
    "listen_first.py": [rf"^runs since {STAMP}\n"],
    "block_job.py": [
        r"^copy created\ncopy running\ncopy ready\n",
        r"^copy concluded\ndone\n$",
    ],
    "ask_again.py": [r"'status': 'prelaunch'"],
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest_twisted.ensureDeferred
async def test_example(name: str, monitor: str, start: Start) -> None:
    output = await start(name, monitor).end()
    position = 0
    for pattern in WRITTEN[name]:
        found = re.compile(pattern, re.MULTILINE).search(output, position)
        assert found, f"{pattern} is not in, or not behind what is before it:\n{output}"
        position = found.end()
    assert "swordfish" not in output


@pytest_twisted.ensureDeferred
async def test_readme_example(monitor: str, start: Start, place: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (place / "readme.py").write_text(code, encoding="utf-8")
    output = await start(str(place / "readme.py"), monitor).end()
    assert "'status': 'prelaunch'" in output
    assert "RESUME" in output


# The others


@pytest_twisted.ensureDeferred
async def test_no_session(start: Start, place: Path) -> None:
    program = start("errors.py", str(place / "missing.sock"))
    await within(program.ended)
    assert program.status == 1
    assert program.output == f"no session: {place}/missing.sock: there is no such socket\n"


@pytest_twisted.ensureDeferred
async def test_lost_commands(start: Start, place: Path, make_vm: MakeVM) -> None:
    """What ``errors.attempt`` says when the session is lost, and what ``ask_again`` does then."""
    vm = await make_vm()
    vm.hold("stop")
    program = start("errors.py", str(place / "qmp.sock"))
    again = vm.hold("query-status")
    await until(lambda: vm.clients and vm._holds["stop"].calls)
    vm.kill()
    await program.says("session lost; may have run")
    await program.end()

    vm.boot()
    program = start("ask_again.py", str(place / "qmp.sock"))
    await until(lambda: again.calls)
    vm.kill()
    again.release()
    vm.boot()
    await program.says("asking again: ", "'status': 'running'")
    await program.end()


@pytest_twisted.ensureDeferred
async def test_wait_for(start: Start, place: Path, make_vm: MakeVM) -> None:
    vm = await make_vm()
    program = start("wait_for.py", str(place / "qmp.sock"), "0.01")
    assert await program.end() == "it still runs\n"

    program = start("wait_for.py", str(place / "qmp.sock"), "20")
    await until(lambda: any(client.negotiated for client in vm.clients))
    vm.shut_down()
    assert await program.end() == "it ends: guest-shutdown\n"


@pytest_twisted.ensureDeferred
async def test_reconnect(start: Start, place: Path, make_vm: MakeVM) -> None:
    vm = await make_vm()
    program = start("reconnect.py", str(place / "qmp.sock"))
    await program.says("ready (7, 2, 22)", "'status': 'running'")
    vm.kill()
    await program.says("lost the peer closed the connection", "failed ")
    vm.boot(running=False)
    await program.says("gap ", "snapshot prelaunch")
    vm.resume()
    await program.says("event RESUME")
    output = await program.interrupt()
    assert output.count("ready") == 2


@pytest.mark.parametrize("name", ["accept_one.py", "accept_many.py"])
@pytest_twisted.ensureDeferred
async def test_accept(
    name: str, start: Start, place: Path, qemu_factory: Callable[..., RealQEMU]
) -> None:
    path = place / "qmp.sock"
    program = start(name, str(path))
    await until(path.exists)
    dial = f"unix:{path},server=off,reconnect=1"
    qemu = qemu_factory("-qmp", dial, "-name", "vm1")
    if name == "accept_one.py":
        assert "'status': 'prelaunch'" in await program.end()
        await until(lambda: not qemu.running)
        return
    await program.says("vm1 came")
    other = qemu_factory("-qmp", dial, "-name", "vm2")
    await program.says("vm2 came")
    qemu.execute("cont")
    other.stop()
    await program.says("vm1 RESUME", "vm2 SHUTDOWN", "lost: ")
    await program.interrupt()


@pytest.mark.parametrize("name", ["watch.tac", "fleet.tac"])
@pytest_twisted.ensureDeferred
async def test_application(name: str, start: Start, place: Path, make_vm: MakeVM) -> None:
    vm = await make_vm("vm1.sock")
    program = start(name, QMP=str(place / "vm1.sock"), QMP_GLOB=str(place / "*.sock"))
    await until(lambda: any(client.negotiated for client in vm.clients))
    await program.says("the session runs")
    vm.pause()
    await program.says("STOP")
    await program.interrupt()


@pytest_twisted.ensureDeferred
async def test_simulated_vm(start: Start, place: Path) -> None:
    from twisted.internet import reactor

    path = place / "qmp.sock"
    program = start("simulated_vm.py", str(path))
    await until(path.exists)
    qmp = await connect(reactor, path)
    await qmp.wait_for("STOP", timeout=20)
    assert await qmp.execute("query-name") == {"name": "vm1"}
    await qmp.disconnect()
    await program.interrupt()


@pytest_twisted.ensureDeferred
async def test_amplifier(start: Start, place: Path) -> None:
    from twisted.internet import reactor

    path = place / "amplifier.sock"
    program = start("amplifier.py", str(path))
    await until(path.exists)
    qmp = await connect(reactor, path)
    with qmp.listen("VOLUME_CHANGED") as changes:
        assert await qmp.execute("set-volume", {"level": 11, "mute-first": True}) == {}
        assert (await changes.get()).data == {"volume": 11}
    with pytest.raises(Exception, match="expects a value between 0 and 11"):
        await qmp.execute("set-volume", {"level": 12})
    assert await qmp.execute("warm-up") == {"warm": True}
    assert await qmp.execute("query-volume") == {"volume": 11}
    await qmp.disconnect()
    await program.interrupt()


KEY = SigningKey(b"k" * 32)


async def post(
    port: int,
    event: dict[str, Any],
    *,
    key: SigningKey = KEY,
    age: float = 0,
    size: int | None = None,
) -> int:
    """Post an event as the daemon does; return the status of the answer.

    :param size: what to say that the body has, in bytes.
    """
    body = json.dumps(event).encode()

    def send() -> int:
        signed = headers([key], event["id"], time.time() - age, body)
        if size is not None:
            signed["Content-Length"] = str(size)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("POST", "/", body, signed)
            return connection.getresponse().status
        finally:
            connection.close()

    return await within(deferToThread(send))


@pytest_twisted.ensureDeferred
async def test_webhook_receiver(start: Start, place: Path) -> None:
    (place / "key").write_text(f"whsec_{base64.b64encode(b'k' * 32).decode()}\n")
    program = start("webhook_receiver.py", str(place / "key"), "0")
    await program.says("listening on port")
    await program.says("\n")
    port = int(program.output.split()[-1])
    event = {"id": "1-1", "time": "2026-11-21T01:20:00Z", "subject": "vm1", "type": "STOP"}
    assert await post(port, event) == 204
    assert await post(port, event) == 204
    assert await post(port, {**event, "id": "1-2", "type": "RESUME"}) == 204
    other = {**event, "id": "1-3", "type": "FORGED"}
    assert await post(port, other, key=SigningKey(b"x" * 32)) == 401
    assert await post(port, other, age=301) == 401
    assert await post(port, other, size=(2 << 20) + 1) == 413
    assert program.output.splitlines()[1:] == [
        "2026-11-21T01:20:00Z vm1 STOP",
        "2026-11-21T01:20:00Z vm1 RESUME",
    ]
    await program.interrupt()


def test_units(place: Path) -> None:
    """systemd understands each line of "qmp-monitor.service" and its socket."""
    analyze = require("systemd-analyze", package="systemd")
    for kind in ("service", "socket"):
        name = f"qmp-monitor.{kind}"
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        # It looks for the program too.
        (place / name).write_text(text.replace("/opt/txqmp/bin/qmp-monitor", "/bin/true"))
    units = [str(place / name) for name in ("qmp-monitor.service", "qmp-monitor.socket")]
    done = subprocess.run(
        [analyze, "verify", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    # "qmp-monitor" is what they start, and the commands of it are those that there are.
    commands = re.findall(r"^Exec\w+=/opt/txqmp/bin/(.*)$", text_of("service"), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["qmp-monitor"] * 2


def text_of(kind: str) -> str:
    return (EXAMPLES / f"qmp-monitor.{kind}").read_text(encoding="utf-8")


def test_rabbitmq(rabbitmq: RabbitMQ) -> None:
    """What "rabbitmq.json" defines is there: a quorum queue gets what is published."""
    rabbitmq.control("import_definitions", str(EXAMPLES / "rabbitmq.json"))
    with rabbitmq.channel() as channel:
        channel.confirm_delivery()
        channel.basic_publish("qmp", "qmp.STOP.uuid", b"event", mandatory=True)
        method, _, body = channel.basic_get("qmp-events", auto_ack=True)
        assert (method.routing_key, body) == ("qmp.STOP.uuid", b"event")
        with pytest.raises(Exception, match="inequivalent arg 'x-queue-type'"):
            limits = {"x-max-length": 1_000_000, "x-overflow": "reject-publish"}
            channel.queue_declare("qmp-events", durable=True, arguments=limits)
    with rabbitmq.channel() as channel:
        channel.queue_delete("qmp-events")


@pytest.mark.parametrize("name", ["test_power_down", "test_reconnect"])
@pytest_twisted.ensureDeferred
async def test_examples_of_tests(name: str, start: Start, place: Path) -> None:
    """As the examples say: ``python -m twisted.trial NAME``, in their directory."""
    runner = place / "runner.py"
    runner.write_text(
        "import os, sys\n"
        f"os.chdir({str(EXAMPLES)!r})\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "from twisted.scripts.trial import run\n"
        "run()\n"
    )
    program = start(str(runner), f"--temp-directory={place}/trial", name)
    assert "PASSED" in await program.end()


def test_all_examples_are_tested() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    names = {path.stem for path in EXAMPLES.iterdir() if path.is_file()}
    tested = {name for name in names if re.search(rf'"(test_)?{name}(\.\w+)?"', tests)}
    assert names == tested
