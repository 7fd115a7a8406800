"""Concurrent ``add-fd``: each file descriptor arrives with its own command (facts G32, G33).

Every command carries a file of its own, which is closed here as soon as the command is issued.
QEMU says which of its descriptors it took; ``/proc`` says which file that is.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from support.leaks import open_descriptors
from support.qemu import RealQEMU
from support.waiting import end_session
from txqmp import QMPProtocol, SessionSettings, connect


@attrs.define
class DescriptorsReport:
    sent: int = 0
    crossed: int = 0
    left: int = 0
    between: int = 0

    def lines(self) -> list[str]:
        return [
            f"{self.sent} descriptors sent, {self.crossed} crossed",
            f"{self.between} other commands between them",
            f"{self.left} descriptors of ours left open",
        ]

    def problems(self) -> list[str]:
        problems = []
        if self.crossed:
            problems.append(f"{self.crossed} descriptors arrived with another's command")
        if self.left:
            problems.append(f"{self.left} descriptors of ours were left open")
        return problems


async def run(reactor: Any, count: int) -> DescriptorsReport:
    report = DescriptorsReport()
    for oob in (True, False):
        with RealQEMU() as qemu:
            session = await connect(reactor, qemu.path(), settings=SessionSettings(oob=oob))
            assert session.oob_enabled is oob
            await burst(report, session, qemu, count)
            await end_session(session)
    return report


async def burst(
    report: DescriptorsReport, session: QMPProtocol, qemu: RealQEMU, count: int
) -> None:
    """Send so many descriptors, without waiting for any answer."""
    before = len(open_descriptors())
    with tempfile.TemporaryDirectory(prefix="txqmp-") as directory:
        files = [Path(directory) / str(number) for number in range(count)]
        answers = []
        others = []
        for number, path in enumerate(files):
            answers.append(add_fd(session, path, number))
            if number % 3 == 0:
                others.append(session.execute("query-status"))
            if number % 5 == 0 and session.oob_enabled:
                others.append(session.execute("query-yank", oob=True))
        for path, answer in zip(files, answers, strict=True):
            taken = (await answer)["fd"]
            report.sent += 1
            report.crossed += os.readlink(f"/proc/{qemu.pid}/fd/{taken}") != str(path)
        for other in others:
            await other
            report.between += 1
        report.left += len(open_descriptors()) - before


def add_fd(session: QMPProtocol, path: Path, number: int) -> Deferred[Any]:
    """Send a new file's descriptor, and close it here."""
    with path.open("w") as file:
        return session.execute("add-fd", {"fdset-id": number}, fds=[file])
