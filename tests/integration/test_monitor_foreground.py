"""``qmp-monitor`` in the foreground: a process, its log and its exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogLevel

from support.daemon import LIMIT, PROGRAM, Output
from support.told import Told
from txqmp.monitor.commands.foreground import observer


#: Runs a service that ends as it is told.
SERVICE = """
import sys
from twisted.application.service import Service
from twisted.internet import reactor
from txqmp import ConnectError
from txqmp.monitor.commands.foreground import run_service

class Ends(Service):
    exit_code = 0

    def startService(self):
        if sys.argv[1] == "refuses":
            raise ConnectError("cannot listen")
        if sys.argv[1] == "breaks":
            raise ZeroDivisionError("a defect")
        if sys.argv[1] == "fails":
            self.exit_code = 3
        reactor.callLater(0, reactor.stop)

    def stopService(self):
        print("stopped")
        if sys.argv[1] == "stays":
            raise ZeroDivisionError

sys.exit(run_service(reactor, Ends()))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="txqmp-") as directory:
        yield Path(directory)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


class Foreground:
    """A running ``qmp-monitor``."""

    def __init__(self, *words: str, stderr: int | None = None, **variables: str) -> None:
        reader, writer = os.pipe()
        self.log = Output(reader)
        output, ours = os.pipe()
        self.output = Output(output)
        self.process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=ours,
            stderr=writer if stderr is None else stderr,
            env={**os.environ, **variables},
            # A shell's background jobs ignore it, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(writer)
        os.close(ours)

    def told(self) -> Told:
        """Return the next event that it prints."""
        line = self.output.line(time.monotonic() + LIMIT)
        assert line is not None
        return Told.read(line)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.output.close()
        self.log.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_was_asked_to_end(place: Path, number: int) -> None:
    """And it prints events, and nothing else, and leaves no files."""
    with socket.socket(socket.AF_UNIX) as monitor:
        path = str(place / "vm1.sock")
        monitor.bind(path)
        monitor.listen()
        daemon = Foreground(path)
        try:
            monitor.settimeout(LIMIT)
            client, _ = monitor.accept()
            with client:
                client.sendall(
                    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7},'
                    b' "package": ""}, "capabilities": []}}\r\n'
                )
                assert b"qmp_capabilities" in client.recv(4096)
            assert daemon.told().vm == "vm1"
            assert daemon.end(number) == 0
            assert all(Told.read(line).id for line in daemon.output.rest().splitlines())
            assert b"Traceback" not in daemon.log.rest()
        finally:
            daemon.close()
    assert os.listdir(place) == ["vm1.sock"]


@pytest.mark.parametrize("words", [["--nonsense"], [], ["--webhook", "ftp://x"]])
def test_a_command_line_that_is_wrong(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("qmp-monitor: ")
    assert done.stderr.count("\n") == 1


def test_a_place_that_cannot_be_listened_on(place: Path) -> None:
    (place / "qmp.sock").write_text("something else")
    done = run("--listen", f"unix:{place}/qmp.sock")
    assert done.returncode == 1
    (problem,) = [line for line in done.stderr.splitlines() if line.startswith("qmp-monitor: ")]
    assert "cannot listen on" in problem
    assert "Traceback" not in done.stderr


def test_help_and_version() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--webhook" in done.stdout
    assert "\n  qmp-monitor status   Show how the daemon" in done.stdout
    assert done.stdout.startswith("Usage: qmp-monitor [options]")
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("txqmp ")


def test_help_that_nobody_reads() -> None:
    """``qmp-monitor --help | head -1``"""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run(
            [*PROGRAM, "--help"], stdout=closed, stderr=subprocess.PIPE, timeout=LIMIT, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("well", 0, ""),
        ("fails", 3, ""),
        ("refuses", 1, "qmp-monitor: cannot listen\n"),
        ("breaks", 1, "qmp-monitor: a defect\n"),
        ("stays", 0, ""),
    ],
)
def test_exit_codes(how: str, code: int, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, how],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == "stopped\n"
    assert told in done.stderr
    assert done.stderr == told or how in ("breaks", "stays")


# The log


def test_log_in_the_journal(place: Path) -> None:
    """Its lines have priorities, and no time of their own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        daemon = Foreground(f"{place}/missing.sock", stderr=theirs.fileno(), JOURNAL_STREAM=stream)
        try:
            ours.settimeout(LIMIT)
            text = ours.recv(4096)
            assert text.startswith(b"<6>[")
            assert daemon.end(signal.SIGTERM) == 0
            while text and not text.endswith(b"\n"):
                text += ours.recv(4096)
            assert all(line.startswith(b"<") for line in text.splitlines())
        finally:
            daemon.close()


def test_lines_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        status = os.fstat(log.fileno())
        write = observer(log, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        for level in (LogLevel.debug, LogLevel.warn, LogLevel.error, LogLevel.critical):
            write({"log_level": level, "log_format": "one\ntwo", "log_namespace": "n"})
        write({"log_format": "no level"})
        log.seek(0)
        assert log.read() == (
            "<4>[n#warn] one\n<4>two\n<3>[n#error] one\n<3>two\n"
            "<2>[n#critical] one\n<2>two\n<6>[-#-] no level\n"
        )


@pytest.mark.parametrize("stream", ["", "1:2", "x"])
def test_a_log_elsewhere(tmp_path: Path, stream: str) -> None:
    with (tmp_path / "log").open("w+") as log:
        write = observer(log, {"JOURNAL_STREAM": stream})
        write({"log_format": "text", "log_namespace": "n", "log_time": 0.0})
        log.seek(0)
        assert log.read().endswith("[n#-] text\n")
        assert not log.read().startswith("<")
