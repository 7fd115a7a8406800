"""``qmp-monitor --demo``, with QEMU and without."""

from __future__ import annotations

import os
import signal

import pytest

from support.daemon import RUNNERS, Daemon
from support.programs import require


pytestmark = pytest.mark.timeout(180)


def children(pid: int) -> list[str]:
    """Return the programs that a process has started and that run."""
    with open(f"/proc/{pid}/task/{pid}/children") as listing:
        pids = listing.read().split()
    names = []
    for each in pids:
        with open(f"/proc/{each}/comm") as name:
            names.append(name.read().strip())
    return names


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_real_vm(runner: str, number: int) -> None:
    require("qemu-system-x86_64", package="qemu-system-x86")
    with Daemon("--demo", runner=runner) as daemon:
        for what in ("connected", "snapshot", "RESUME", "STOP", "RESUME", "RESET"):
            daemon.expect("demo", what)
        (program,) = children(daemon.pid)
        assert program.startswith("qemu-system")
        assert daemon.stop(number) == -number
        assert daemon.left_files == []
        assert daemon.of("demo")[-2:] == ["disconnected", "gone"]
        assert "Traceback" not in daemon.log


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_simulated_vm(runner: str) -> None:
    with Daemon("--demo", runner=runner, env={"PATH": ""}) as daemon:
        for what in ("connected", "snapshot", "STOP", "RESUME", "RTC_CHANGE"):
            daemon.expect("demo", what)
        assert children(daemon.pid) == []
        assert daemon.stop() == -signal.SIGTERM
        assert daemon.left_files == []
        assert "a simulated VM" in daemon.log
        assert "Traceback" not in daemon.log


def test_a_qemu_that_does_not_run(tmp_path: os.PathLike[str]) -> None:
    program = os.path.join(tmp_path, "qemu-system-x86_64")
    with open(program, "w") as file:
        file.write("#!/bin/sh\necho 'no firmware' >&2\nexit 1\n")
    os.chmod(program, 0o755)
    with Daemon("--demo", env={"PATH": str(tmp_path)}) as daemon:
        for what in ("connected", "snapshot", "STOP"):
            daemon.expect("demo", what)
        assert daemon.stop() == -signal.SIGTERM
        assert "no firmware" in daemon.log
        assert "goes on with a simulated VM" in daemon.log
        assert daemon.left_files == []


@pytest.mark.parametrize("runner", RUNNERS)
def test_stopped_while_it_starts(runner: str) -> None:
    require("qemu-system-x86_64", package="qemu-system-x86")
    with Daemon("--demo", runner=runner) as daemon:
        daemon.wait_for_log("the demonstration starts")
        daemon.stop()
        assert daemon.left_files == []
        assert "Traceback" not in daemon.log
