"""QEMUs that a factory refuses as they start, because it has a session already.

QEMU 7.2.22 may crash where the connection that it dials as it starts is closed before its greeting
is out: 4 times in 150, with a plain socket too.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import maybeDeferred

from support.qemu import RealQEMU
from support.waiting import until, within
from txqmp import QMPClientFactory, server_endpoint


@attrs.define
class RefusalsReport:
    refused: int = 0
    ended: Counter[int] = attrs.field(factory=Counter)

    def lines(self) -> list[str]:
        return [f"{self.refused} QEMUs refused, {sum(self.ended.values())} ended by themselves"]

    def problems(self) -> list[str]:
        return [f"{count} QEMUs ended with {code}" for code, count in self.ended.items()]


async def run(reactor: Any, count: int) -> RefusalsReport:
    report = RefusalsReport()
    factory = QMPClientFactory(reactor)
    with tempfile.TemporaryDirectory(prefix="txqmp-") as place:
        path = Path(place) / "ours.sock"
        chardev = f"socket,id=dials,path={path},server=off,reconnect=1"
        arguments = ["-chardev", chardev, "-mon", "chardev=dials,mode=control"]
        port = await server_endpoint(reactor, path).listen(factory)
        try:
            with RealQEMU(*arguments, monitors=[]):
                session = await within(factory.when_ready(), what="when_ready()")
                for number in range(1, count + 1):
                    with RealQEMU(*arguments, monitors=[]) as qemu:
                        await until(lambda number=number: factory.refused >= number)
                        await survived(qemu, report)
                        report.refused += 1
                assert await session.execute("query-name") == {}
                await within(factory.stop(), what="the factory's stop")
        finally:
            await maybeDeferred(port.stopListening)
    return report


async def survived(qemu: RealQEMU, report: RefusalsReport) -> None:
    """See whether QEMU still answers, after it has seen that it was refused."""
    try:
        await until(lambda: disconnected(qemu))
    except (OSError, RuntimeError):
        qemu.wait(5)
        report.ended[qemu.returncode or 0] += 1


def disconnected(qemu: RealQEMU) -> bool:
    chardevs = qemu.execute("query-chardev")
    return any(each["filename"].startswith("disconnected:unix:") for each in chardevs)
