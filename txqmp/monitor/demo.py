"""
The demonstration: a VM that the daemon starts itself, in which something happens every second.

It is a real QEMU where one is installed, and otherwise the simulated one of
:mod:`txqmp.testing`. Either has its monitor on a socket in a private directory, and is watched
there like any other VM.
"""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.factory import QMPClientFactory
from txqmp.fleet import DialSource, Fleet
from txqmp.monitor.config import DEMO_NAME


INTERVAL = 1.0
"""How often something happens, in seconds."""

KILL_AFTER = 3.0
"""How long QEMU has to end when it is asked to, in seconds."""

_PREFERRED = "qemu-system-x86_64"
_DISK = 16 << 20


def find_qemu() -> str | None:
    """The path of a QEMU, or ``None``."""
    preferred = shutil.which(_PREFERRED)
    if preferred is not None:
        return preferred
    for directory in os.get_exec_path():
        for path in sorted(glob.glob(os.path.join(glob.escape(directory), "qemu-system-*"))):
            if shutil.which(path) is not None:
                return path
    return None


class DemoVM(Protocol):
    """A VM of the demonstration."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> Deferred[None]:
        """End it; the Deferred fires when nothing of it is left."""


class DemoService(Service):
    """
    Starts a VM, and has the fleet watch it.

    :param fleet: what watches it; the service starts after it and stops after it.
    """

    _log = Logger()

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._directory: str | None = None
        self._vm: DemoVM | None = None
        self._source: DialSource | None = None

    def startService(self) -> None:
        super().startService()
        # Before the reactor runs a signal ends us at once, and would leave a QEMU behind.
        self._fleet.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        self._directory = tempfile.mkdtemp(prefix="qmp-monitor-demo-")
        program = find_qemu()
        if program is None:
            self._log.info("no QEMU is installed: the demonstration has a simulated VM")
            self._start(SimulatedDemoVM(self._fleet.reactor, self._monitor))
        else:
            self._log.info("the demonstration starts {program}", program=program)
            self._start(
                RealDemoVM(
                    self._fleet.reactor, program, self._directory, self._monitor, self._ended
                )
            )
        self._source = DialSource(self._fleet, self._monitor, DEMO_NAME)
        self._source.setServiceParent(self._fleet)

    @property
    def _monitor(self) -> str:
        assert self._directory is not None
        return os.path.join(self._directory, "qmp.sock")

    def _start(self, vm: DemoVM) -> None:
        self._vm = vm
        vm.start()

    def _ended(self, ran: bool, reason: str) -> None:
        """QEMU has ended without being asked to."""
        if not self.running:
            return  # by the Ctrl-C that ends us
        self._log.warn("the demonstration's QEMU has ended: {reason}", reason=reason)
        if not ran:
            self._log.warn("the demonstration goes on with a simulated VM")
            self._start(SimulatedDemoVM(self._fleet.reactor, self._monitor))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            await source.drop("the demonstration is over")
        vm, self._vm = self._vm, None
        if vm is not None:
            await vm.stop()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


class SimulatedDemoVM:
    """
    A VM that is not there.

    :param path: of the socket of its monitor.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: str) -> None:
        # Not above: it is for tests, and for those without QEMU.
        from txqmp.testing import SimulatedVM

        self._vm = SimulatedVM(reactor, name=DEMO_NAME)
        self._endpoint = UNIXServerEndpoint(reactor, path, mode=0o600, wantPID=True)
        self._port: Deferred[Any] | None = None

    def start(self) -> None:
        """Listen, and let things happen."""
        self._vm.run_demo(interval=INTERVAL)
        self._port = self._endpoint.listen(self._vm).addErrback(self._cannot)

    def _cannot(self, failure: Failure) -> None:
        self._log.failure("the demonstration has failed", failure)

    def stop(self) -> Deferred[None]:
        """Stop listening, and end what is connected."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._vm.stop_demo()
        port, self._port = self._port, None
        listening = await port if port is not None else None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        await self._vm.disconnect_all()


class RealDemoVM:
    """
    A QEMU without a machine, which starts at once and needs next to nothing. A second monitor, on
    a socket beside the first, is what makes things happen.

    :param program: the QEMU.
    :param directory: a private one.
    :param path: of the socket of the monitor to watch.
    :param ended: called when it ends without being asked to: whether it ever ran, and the reason.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        program: str,
        directory: str,
        path: str,
        ended: Callable[[bool, str], object],
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._control = os.path.join(directory, "control.sock")
        self._path = path
        self._tell_ended = ended
        self._factory = QMPClientFactory(reactor, name="demo control", snapshot=())
        self._plan = _plan()
        self._loop = LoopingCall(self._happen)
        self._loop.clock = reactor
        self._process: _Process | None = None

    @property
    def command(self) -> list[str]:
        """QEMU's command line."""
        command = [self._program, "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-machine", "none", "-S", "-name", DEMO_NAME]
        for name, path in (("qmp", self._path), ("control", self._control)):
            # A comma ends an option's value, two are a comma.
            path = path.replace(",", ",,")
            command += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
            command += ["-mon", f"chardev={name},mode=control"]
        for name in ("disk", "copy"):
            node = f"driver=null-co,node-name={name},size={_DISK},read-zeroes=on"
            command += ["-blockdev", node]
        return command

    def start(self) -> None:
        """Start QEMU."""
        self._process = _Process(self._reactor, self._ended)
        self._reactor.spawnProcess(self._process, self._program, self.command, env=None)
        self._factory.dial(self._control)
        self._loop.start(INTERVAL, now=False).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the demonstration has failed", failure)

    def _happen(self) -> None:
        session = self._factory.session
        if session is not None:
            command, arguments = next(self._plan)
            session.execute(command, arguments).addErrback(self._refused)

    def _refused(self, failure: Failure) -> None:
        self._log.debug("demonstration: {problem}", problem=failure.value)

    def _ended(self, reason: str) -> None:
        self._rest().addCallback(
            lambda _: self._tell_ended(self._factory.sessions_begun > 0, reason)
        )

    def _rest(self) -> Deferred[None]:
        if self._loop.running:
            self._loop.stop()
        return self._factory.stop()

    def stop(self) -> Deferred[None]:
        """End QEMU, by force if need be."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._rest()
        process, self._process = self._process, None
        if process is not None:
            await process.end()


def _plan() -> Iterator[tuple[str, dict[str, Any]]]:
    """What happens, second by second."""
    for number in itertools.count(1):
        yield "cont", {}
        yield "stop", {}
        yield "cont", {}
        yield "system_reset", {}
        job = f"mirror{number}"
        arguments = {"job-id": job, "device": "disk", "target": "copy", "sync": "full"}
        yield "blockdev-mirror", arguments
        yield "job-complete", {"id": job}
        yield "stop", {}


class _Process(ProcessProtocol):
    """QEMU's process: it is told to end by its own pid, and waited for."""

    _log = Logger()

    def __init__(self, reactor: Any, ended: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._tell_ended = ended
        self._ending: Deferred[None] | None = None
        self._kill: IDelayedCall | None = None
        self._over = False

    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    def errReceived(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace").strip()
        self._log.info("QEMU: {text}", text=text)

    def processEnded(self, reason: Failure) -> None:
        self._over = True
        kill, self._kill = self._kill, None
        if kill is not None and kill.active():
            kill.cancel()
        if self._ending is not None:
            self._ending.callback(None)
        else:
            self._tell_ended(reason.getErrorMessage())

    def end(self) -> Deferred[None]:
        """Ask it to end, and make it end a little later."""
        self._ending = Deferred()
        if self._over:
            self._ending.callback(None)
        else:
            self._signal("TERM")
            self._kill = self._reactor.callLater(KILL_AFTER, self._signal, "KILL")
        return self._ending

    def _signal(self, name: str) -> None:
        try:
            if self.transport is not None:
                self.transport.signalProcess(name)
        except ProcessExitedAlready:
            pass  # its end is about to be told
