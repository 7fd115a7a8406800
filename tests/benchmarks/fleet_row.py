"""The row about many VMs: what it takes to watch them, in one process of ``qmp-monitor``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.helper import Helper

from benchmarks.sides import SideError
from benchmarks.table import Line
from support.daemon import RUNNERS
from txqmp.monitor.spool import Reader, SpoolStorageError


LIMIT = 120.0
"""How long all may take to be watched, in seconds."""

SETTLE = 3.0
"""How long events come before it is measured, in seconds."""

_CONFIG = """
[monitor]
state_dir = "{here}/state"
[[source]]
glob = ["{here}/vms/*.sock"]
[[sink]]
type = "jsonl"
path = "{here}/events.jsonl"
"""


def watch(vms: int, seconds: float) -> Iterator[Line]:
    """VMs that raise an event a second each, and a daemon that writes all to a file."""
    what = f"{vms:,} VMs watched, an event a second each"
    if sys.platform != "linux":
        yield Line(what, "(measured on Linux)", "", "")
        return
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        for name in ("vms", "state"):
            (here / name).mkdir(mode=0o700)
        (here / "config.toml").write_text(_CONFIG.format(here=here))
        helper = Helper(
            "vms",
            here / "vms.log",
            seed=1,
            vms=vms,
            dialling=0,
            rate=vms,
            directory=str(here / "vms"),
            dial="",
            record=str(here / "raised.json"),
        )
        with helper, _daemon(here) as pid:
            spool = str(here / "state" / "spool")
            # That it came, and how it is, of each.
            _until(lambda: _committed(spool) >= 2 * vms, "all VMs are watched")
            idle = _resident(pid)
            helper.tell("begin")
            time.sleep(SETTLE)
            committed, processor, began = _committed(spool), _processor(pid), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            processor = _processor(pid) - processor
            committed = _committed(spool) - committed
            resident = _resident(pid)
    if committed < 0.9 * vms * took:
        raise SideError(f"fleet: {committed} events were committed in {took:.0f} s")
    yield Line(
        f"{what}: memory",
        f"{resident / 1e6:.0f} MB",
        "before the first",
        f"{idle / 1e6:.0f} MB",
    )
    yield Line(
        "the same: processor",
        f"{processor / took:.0%} of a core",
        "for each event",
        f"{processor / committed * 1e6:.0f} µs",
    )


@contextmanager
def _daemon(here: Path) -> Iterator[int]:
    """A daemon; its pid."""
    with (here / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, *RUNNERS["twistd"]),
                *("qmp-monitor", "--config", str(here / "config.toml")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _committed(spool: str) -> int:
    """How many events there ever were in a spool."""
    try:
        with Reader(spool) as reader:
            return reader.state().last
    except SpoolStorageError:
        return 0  # it is not there yet


def _resident(pid: int) -> int:
    """The memory that a process holds, in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def _processor(pid: int) -> float:
    """The processor time that a process has had, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise SideError(f"fleet: {what}: not within {LIMIT:g} s")
        time.sleep(0.1)
