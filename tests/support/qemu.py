"""Real QEMU processes for the integration tests."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from support.programs import require


PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"


class RealQEMU:
    """A QEMU process with QMP monitors on UNIX sockets in a directory of its own.

    When :meth:`start` returns, QEMU's main loop runs and every socket listens. That is known from a
    control monitor, on a socket pair, which also lets a test do things behind the back of what it
    tests: see :meth:`execute`. Until the first :meth:`execute` the control monitor is in
    negotiation mode and gets no events.

    :param args: further arguments for QEMU. ``{dir}`` in one stands for the directory.
    :param monitors: the names of the sockets; the socket of ``NAME`` is ``DIR/NAME.sock``.
    :param pretty: whether the monitors write each object over many lines.
    :param machine: the machine; ``none`` has no CPU and no memory, and starts in 50 ms.
    :param paused: start with ``-S``, so that ``cont`` and ``stop`` have something to do.
    :param pass_fds: file descriptors for QEMU to inherit.
    """

    def __init__(
        self,
        *args: str,
        monitors: Iterable[str] = ("qmp",),
        pretty: bool = False,
        machine: str = "none",
        paused: bool = True,
        pass_fds: Iterable[int] = (),
    ) -> None:
        self._program = require(PROGRAM, package=PACKAGE)
        self._args = args
        self._monitors = tuple(monitors)
        self._pretty = pretty
        self._machine = machine
        self._paused = paused
        self._pass_fds = tuple(pass_fds)
        # Not pytest's directory: a UNIX socket's path has at most 107 bytes.
        self._directory = tempfile.TemporaryDirectory(prefix="txqmp-qemu-")
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._control: socket.socket | None = None
        self._buffer = b""
        self._negotiated = False

        #: The events that :meth:`execute` came across.
        self.events: list[dict[str, Any]] = []

    # Where things are

    @property
    def directory(self) -> Path:
        """The directory with the sockets and the output; it goes away with :meth:`stop`."""
        return Path(self._directory.name)

    def path(self, monitor: str = "qmp") -> str:
        """Return the path of a monitor's socket."""
        return str(self.directory / f"{monitor}.sock")

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """What QEMU ended with, negative for a signal; None while it runs."""
        return self._started().poll()

    @property
    def output(self) -> str:
        """What QEMU wrote to its standard output and error."""
        log = self.directory / "output.log"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def command_line(self) -> list[str]:
        """The arguments, without the control monitor's."""
        command = [self._program, "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-machine", self._machine]
        if self._paused:
            command.append("-S")
        pretty = "on" if self._pretty else "off"
        for name in self._monitors:
            command += ["-chardev", f"socket,id={name},path={self.path(name)},server=on,wait=off"]
            command += ["-mon", f"chardev={name},mode=control,pretty={pretty}"]
        command += [arg.replace("{dir}", self._directory.name) for arg in self._args]
        return command

    # Its life

    def start(self, timeout: float = 20) -> RealQEMU:
        """Start QEMU and return when it answers.

        :raises RuntimeError: with QEMU's output, if it ends or does not answer in time.
        """
        command = self.command_line
        ours, theirs = socket.socketpair()
        with theirs, open(self.directory / "output.log", "wb") as output:
            number = theirs.fileno()
            command += ["-chardev", f"socket,id=txqmp-control,fd={number}"]
            command += ["-mon", "chardev=txqmp-control,mode=control"]
            self._control = ours
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[number, *self._pass_fds],
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        try:
            deadline = time.monotonic() + timeout
            self._receive(deadline)  # the greeting, which QEMU may send before it is ready
            self._send("query-status", {})
            self._receive(deadline)  # an error, which its main loop sends
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End QEMU, by force if need be, and remove the directory."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            if not self.wait(5):
                self.kill()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._control is not None:
            self._control.close()
            self._control = None
        self._directory.cleanup()

    def kill(self) -> None:
        """End QEMU with SIGKILL, as a crash would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._started().wait()

    def pause(self) -> None:
        """Stop the process: it keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal to this process; nothing if it has ended."""
        if self.running:
            self._started().send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Wait for QEMU to end by itself; return whether it has.

        This blocks the reactor: it is for after the part that needs one.
        """
        if self._pidfd >= 0:
            select.select([self._pidfd], [], [], timeout)
        return not self.running

    def __enter__(self) -> RealQEMU:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # The control monitor

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command on the control monitor and return what it returns.

        This blocks, and shares no code with txqmp. An error reply raises :exc:`RuntimeError`.
        """
        deadline = time.monotonic() + 20
        if not self._negotiated:
            self._call("qmp_capabilities", {}, deadline)
            self._negotiated = True
        return self._call(command, arguments or {}, deadline)

    def _call(self, command: str, arguments: dict[str, Any], deadline: float) -> Any:
        self._send(command, arguments)
        while True:
            message = self._receive(deadline)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise RuntimeError(f"{command}: {message['error']}")
            else:
                return message["return"]

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        assert self._control is not None, "QEMU is not started"
        self._control.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())

    def _receive(self, deadline: float) -> dict[str, Any]:
        """Return the next object from the control monitor."""
        assert self._control is not None, "QEMU is not started"
        while b"\n" not in self._buffer:
            left = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([self._control, self._pidfd], [], [], left)
            data = self._control.recv(65536) if self._control in ready else b""
            if not data:
                raise RuntimeError(self._why_silent(ended=bool(ready)))
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _why_silent(self, *, ended: bool) -> str:
        if ended:
            self.wait(5)
            return f"QEMU has ended with {self.returncode}. It wrote:\n{self.output}"
        return f"QEMU does not answer. It wrote:\n{self.output}"

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "QEMU is not started"
        return self._process
