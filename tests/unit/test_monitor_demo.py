"""The demonstration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.internet.error import CannotListenError, ProcessDone, ProcessExitedAlready
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from txqmp.fleet import Fleet
from txqmp.monitor import demo
from txqmp.monitor.demo import DemoService, RealDemoVM, SimulatedDemoVM, find_qemu
from txqmp.server.commands import CommandError
from txqmp.testing import MemoryEndpoint, Pump, SimulatedVM


class Process:
    """A process that does what the test says."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.gone = False

    def signalProcess(self, name: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(name)


class Reactor(MemoryReactorClock):
    """A reactor in memory that starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[Any] = []
        self.commands: list[list[str]] = []

    def callWhenRunning(self, function: Any, *args: Any, **_: Any) -> None:
        function(*args)

    def spawnProcess(self, protocol: Any, program: str, args: list[str], **_: Any) -> None:
        protocol.transport = Process()
        self.protocols.append(protocol)
        self.commands.append(args)

    def end(self, number: int = -1) -> None:
        self.protocols[number].processEnded(Failure(ProcessDone(0)))

    def left(self) -> list[str]:
        return [str(call) for call in self.getDelayedCalls()]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    assert reactor.left() == []


def executable(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], None),
        (["a/qemu-img", "b/cat"], None),
        (["a/qemu-system-arm", "b/qemu-system-x86_64"], "b/qemu-system-x86_64"),
        (["b/qemu-system-mips", "a/qemu-system-riscv64"], "a/qemu-system-riscv64"),
        (["b/qemu-system-mips", "b/qemu-system-arm"], "b/qemu-system-arm"),
    ],
)
def test_find_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], found: str | None
) -> None:
    for name in files:
        executable(tmp_path / name)
    path = os.pathsep.join(str(tmp_path / each) for each in "ab")
    monkeypatch.setenv("PATH", path)
    assert find_qemu() == (str(tmp_path / found) if found else None)


def test_what_is_not_executable_is_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "qemu-system-arm").chmod(0o644)
    (tmp_path / "qemu-system-mips").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_qemu() is None


class NotRunning(Reactor):
    """A reactor that has not begun."""

    def callWhenRunning(self, function: Any, *args: Any, **_: Any) -> None:
        self.waiting = function


class Demonstration:
    """The service, and what it says of the directory that it makes."""

    def __init__(self, reactor: Reactor, base: Path) -> None:
        self.base = base
        self.fleet = Fleet(reactor, lambda record: None)
        self.service = DemoService(self.fleet)

    @property
    def directories(self) -> list[str]:
        return os.listdir(self.base)


@pytest.fixture
def demonstration(
    reactor: Reactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Demonstration:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Demonstration(reactor, tmp_path)


def test_a_real_qemu(
    demonstration: Demonstration, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_qemu", lambda: "/usr/bin/qemu-system-x86_64")
    demonstration.service.startService()
    (directory,) = demonstration.directories
    (command,) = reactor.commands
    assert command[0] == "/usr/bin/qemu-system-x86_64"
    assert f"{directory}/qmp.sock" in " ".join(command)
    assert [vm.name for vm in demonstration.fleet.vms] == ["demo"]
    stopped = demonstration.service.stopService()
    pending(stopped)
    assert reactor.protocols[0].transport.signals == ["TERM"]
    assert demonstration.directories == [directory]
    reactor.end()
    success(stopped)
    assert demonstration.directories == []


def test_a_simulated_vm(
    demonstration: Demonstration, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_qemu", lambda: None)
    demonstration.service.startService()
    assert reactor.commands == []
    ((path, factory, _, mode, _),) = reactor.unixServers
    assert path.endswith("/qmp.sock")
    assert mode == 0o600
    assert isinstance(factory, SimulatedVM)
    assert [vm.name for vm in demonstration.fleet.vms] == ["demo"]
    success(demonstration.service.stopService())
    assert demonstration.directories == []


def test_starts_anew(
    demonstration: Demonstration, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_qemu", lambda: None)
    for _ in range(2):
        demonstration.service.startService()
        success(demonstration.service.stopService())
    assert demonstration.directories == []
    assert [vm.name for vm in demonstration.fleet.vms] == ["demo"]


def test_begins_when_a_signal_ends_it_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the reactor runs, SIGTERM ends the process at once."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    demonstration = Demonstration(NotRunning(), tmp_path)
    demonstration.service.startService()
    assert demonstration.directories == []
    success(demonstration.service.stopService())
    demonstration.fleet.reactor.waiting()
    assert demonstration.directories == []


def test_a_qemu_that_does_not_run_is_replaced(
    demonstration: Demonstration, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_qemu", lambda: "/usr/bin/qemu-system-x86_64")
    demonstration.service.startService()
    reactor.end()
    ((_, factory, *_),) = reactor.unixServers
    assert isinstance(factory, SimulatedVM)
    success(demonstration.service.stopService())


def test_a_qemu_that_has_run_is_not_replaced(
    demonstration: Demonstration, reactor: Reactor
) -> None:
    demonstration.service.running = 1
    demonstration.service._ended(True, "it was killed")
    assert reactor.unixServers == []
    success(demonstration.service.stopService())


def test_a_qemu_that_ends_at_the_end_is_not_replaced(
    demonstration: Demonstration, reactor: Reactor
) -> None:
    """Ctrl-C ends it too."""
    demonstration.service._ended(False, "it was interrupted")
    assert reactor.unixServers == []


class Real:
    """A :class:`RealDemoVM` whose second monitor is a simulated VM's."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.ended: list[tuple[bool, str]] = []
        self.vm = RealDemoVM(
            reactor,
            "/usr/bin/qemu-system-x86_64",
            "/tmp/a,b",
            "/tmp/a,b/qmp.sock",
            lambda ran, reason: self.ended.append((ran, reason)),
        )
        self.simulated = SimulatedVM(reactor, running=False)
        self.pump = Pump(reactor)
        endpoint = MemoryEndpoint(self.pump, self.simulated)
        dial = self.vm._factory.dial
        self.vm._factory.dial = lambda _: dial(endpoint)  # type: ignore[method-assign]

    def start(self) -> None:
        self.vm.start()
        self.pump()

    def stop(self) -> None:
        stopped = self.vm.stop()
        self.pump()
        self.reactor.end()
        success(stopped)


def test_the_command_line(reactor: Reactor) -> None:
    command = RealDemoVM(reactor, "/usr/bin/qemu", "/tmp/a,b", "/tmp/a,b/qmp.sock", print).command
    assert command[0] == "/usr/bin/qemu"
    assert "socket,id=qmp,path=/tmp/a,,b/qmp.sock,server=on,wait=off" in command
    assert "socket,id=control,path=/tmp/a,,b/control.sock,server=on,wait=off" in command


def test_something_happens_every_second(reactor: Reactor) -> None:
    real = Real(reactor)
    seen: list[str] = []
    for name in ("cont", "stop", "system_reset", "blockdev-mirror", "job-complete"):

        def note(call: Any, name: str = name, **_: Any) -> None:
            seen.append(name)
            if name == "job-complete":
                raise CommandError("no such job")

        real.simulated.register(name, note)
    real.start()
    real.pump.advance(8.5)
    assert seen == [
        "cont",
        "stop",
        "cont",
        "system_reset",
        "blockdev-mirror",
        "job-complete",
        "stop",
        "cont",
    ]
    real.stop()


def test_nothing_happens_without_a_session(reactor: Reactor) -> None:
    vm = RealDemoVM(reactor, "/usr/bin/qemu", "/nowhere", "/nowhere/qmp.sock", print)
    vm.start()
    reactor.advance(5)
    stopped = vm.stop()
    reactor.end()
    success(stopped)


def test_an_end_is_told(reactor: Reactor) -> None:
    real = Real(reactor)
    real.start()
    real.simulated.kill()
    reactor.end()
    real.pump()
    ((ran, reason),) = real.ended
    assert ran
    assert "without apparent errors" in reason
    success(real.vm.stop())


def test_qemu_is_killed_if_it_does_not_end(reactor: Reactor) -> None:
    vm = RealDemoVM(reactor, "/usr/bin/qemu", "/nowhere", "/nowhere/qmp.sock", print)
    vm.start()
    stopped = vm.stop()
    reactor.advance(2.9)
    process = reactor.protocols[0].transport
    assert process.signals == ["TERM"]
    reactor.advance(0.1)
    assert process.signals == ["TERM", "KILL"]
    pending(stopped)
    reactor.end()
    success(stopped)


def test_qemu_may_have_ended_already(reactor: Reactor) -> None:
    vm = RealDemoVM(reactor, "/usr/bin/qemu", "/nowhere", "/nowhere/qmp.sock", print)
    vm.start()
    reactor.protocols[0].transport.gone = True
    stopped = vm.stop()
    reactor.end()
    success(stopped)


def test_stops_before_it_began(reactor: Reactor) -> None:
    success(RealDemoVM(reactor, "/usr/bin/qemu", "/nowhere", "/x", print).stop())
    success(SimulatedDemoVM(reactor, "/nowhere/qmp.sock").stop())
    success(DemoService(Fleet(reactor, print)).stopService())


def test_what_qemu_says_is_logged(reactor: Reactor) -> None:
    vm = RealDemoVM(reactor, "/usr/bin/qemu", "/nowhere", "/nowhere/qmp.sock", print)
    vm.start()
    reactor.protocols[0].outReceived(b"a warning\n")
    reactor.protocols[0].errReceived(b"\xff")
    stopped = vm.stop()
    reactor.end()
    success(stopped)


def test_a_demonstration_that_fails_is_logged(
    reactor: Reactor, logged_errors: LoggedErrors
) -> None:
    real = Real(reactor)
    real.vm._plan = iter(())
    real.start()
    real.pump.advance(1)
    assert len(logged_errors.flush(StopIteration)) == 1
    real.stop()


def test_a_simulated_vm_that_cannot_listen_is_logged(
    reactor: Reactor, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = SimulatedDemoVM(reactor, "/nowhere/qmp.sock")
    monkeypatch.setattr(
        vm._endpoint,
        "listen",
        lambda _: fail(CannotListenError("any", "/nowhere/qmp.sock", OSError(2, "no"))),
    )
    vm.start()
    assert len(logged_errors.flush(CannotListenError)) == 1
    success(vm.stop())
