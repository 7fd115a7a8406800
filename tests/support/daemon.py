"""``qmp-monitor`` as an operator runs it: a process, its standard output and its log."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from support.told import Told


RUNNERS = {
    "twistd": [
        "-c",
        "from twisted.scripts.twistd import run; run()",
        "--nodaemon",
        "--pidfile=",
    ],
    "twist": [
        "-c",
        "from twisted.application.twist._twist import Twist; Twist.main()",
        "--log-format=text",
    ],
}

#: How long to wait for what should come at once, in seconds: a busy machine is no failure.
LIMIT = 40.0

#: The program itself: without a runner, its commands included.
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from txqmp.monitor.commands import main; sys.exit(main())",
]


def command_line(runner: str | None, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    """What runs the daemon: the program itself where the runner is None."""
    if runner is None:
        return [*PROGRAM, *words]
    return [sys.executable, *RUNNERS[runner], *options, "qmp-monitor", *words]


def run(runner: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line that ends by itself."""
    return subprocess.run(
        command_line(runner, *words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def command(*words: str, code: int = 0) -> tuple[str, str]:
    """Run a command of ``qmp-monitor``; return what it wrote to its standard output and error."""
    done = run(None, *words)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


class Output:
    """What somebody writes to a pipe, read as far as it has come.

    :param descriptor: the pipe's end; it is closed with :meth:`close`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self.data = b""
        self.ended = False

    def read(self, deadline: float) -> bool:
        """Read what is there, when there is something; return whether there was."""
        if self._descriptor is None or self.ended:
            return False
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._descriptor], [], [], left)[0]:
            return False
        data = os.read(self._descriptor, 1 << 16)
        self.data += data
        self.ended = not data
        return bool(data)

    def line(self, deadline: float) -> bytes | None:
        """Take the next line; None if none comes."""
        while b"\n" not in self.data:
            if not self.read(deadline):
                return None
        line, self.data = self.data.split(b"\n", 1)
        return line

    def rest(self) -> bytes:
        """Take all that comes until the end."""
        deadline = time.monotonic() + LIMIT
        while self.read(deadline):
            pass
        data, self.data = self.data, b""
        return data

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


class Daemon:
    """A running ``qmp-monitor``. Each event must be a line of JSON, and nothing else is printed.

    :param words: its command line.
    :param runner: ``"twistd"`` or ``"twist"``, None for the program itself.
    :param options: more options for the runner.
    :param prefix: what runs that.
    :param stdout: where its standard output goes; to here by default.
    :param env: changes to the environment.
    """

    def __init__(
        self,
        *words: str,
        runner: str | None = "twistd",
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        stdout: int | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="txqmp-daemon-")
        self._seen: dict[str, int] = {}
        self.records: list[Told] = []
        log, error = os.pipe()
        output, ours = os.pipe()
        self._log = Output(log)
        self._output = Output(output)
        self._process = subprocess.Popen(
            [*prefix, *command_line(runner, *words, options=options)],
            stdin=subprocess.DEVNULL,
            stdout=ours if stdout is None else stdout,
            stderr=error,
            env={**os.environ, "TMPDIR": self._directory.name, **(env or {})},
            # A shell's background jobs ignore it, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(error)
        os.close(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """The log, as far as it has come."""
        while self._log.read(0):
            pass
        return self._log.data.decode(errors="replace")

    @property
    def left_files(self) -> list[str]:
        """What is in its directory for temporary files."""
        return os.listdir(self._directory.name)

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Return when the log holds a text, so many times."""
        deadline = time.monotonic() + LIMIT
        while self.log.count(text) < times:
            assert self._log.read(deadline), f"{text!r} is not in the log:\n{self.log}"

    def wait_for(self, condition: Callable[[Told], Any]) -> Told:
        """Return the next event to come that fulfils a condition."""
        deadline = time.monotonic() + LIMIT
        while not condition(record := self._read(deadline)):
            pass
        return record

    def expect(self, vm: str, what: str) -> Told:
        """Return a VM's next event of this name. It is looked for after the one that was returned
        for this VM before, whatever came of others meanwhile."""
        deadline = time.monotonic() + LIMIT
        place = self._seen.get(vm, 0)
        while True:
            record = self.records[place] if place < len(self.records) else self._read(deadline)
            place += 1
            if record.vm == vm and record.name == what:
                self._seen[vm] = place
                return record

    def catch_up(self) -> list[Told]:
        """Return what has come so far."""
        while self._output.read(0):
            pass
        while b"\n" in self._output.data:
            self._read(0)
        return self.records

    def _read(self, deadline: float) -> Told:
        line = self._output.line(deadline)
        assert line is not None, f"no more events; so far: {self.records}\nthe log:\n{self.log}"
        record = Told.read(line)
        self.records.append(record)
        return record

    def of(self, vm: str) -> list[str]:
        """Return what was told of a VM so far."""
        return [record.name for record in self.records if record.vm == vm]

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Read no more of what it prints."""
        self._output.close()

    def wait(self) -> int:
        """Return what it ended with, when it has; read what it printed."""
        self.records += map(Told.read, self._output.rest().splitlines())
        return self._process.wait(LIMIT)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; return what it ended with."""
        self.send(number)
        return self.wait()

    def close(self) -> None:
        """End it by force, if it has not ended, and remove what it left."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._log.close()
        self._directory.cleanup()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
