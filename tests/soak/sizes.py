"""Replies of some tens of megabytes: time grows in proportion to size (fact G14).

One row per size. "CPU" is our own process's; the other end makes the text meanwhile, in a process
of its own.
"""

from __future__ import annotations

import time
from typing import Any

import attrs

from soak.plain import plain_peer_process
from support.qemu import RealQEMU
from support.waiting import end_session
from txqmp import QMPProtocol, connect


MEGABYTE = 1_000_000

#: Of each size, in megabytes, a reply.
SIZES = (5, 10, 20, 40)

#: What ``xp /1xb`` makes of a byte, on average.
DUMPED = 7.375


@attrs.define
class Row:
    peer: str
    size: int
    wall: float
    cpu: float

    def __str__(self) -> str:
        megabytes = self.size / MEGABYTE
        wall, cpu = self.wall * 1000, self.cpu * 1000
        return (
            f"{self.peer:<11} {megabytes:6.1f} MB {wall:9.1f} ms"
            f" {wall / megabytes:8.2f} ms/MB {cpu / megabytes:8.2f} CPU ms/MB"
        )


@attrs.define
class SizesReport:
    rows: list[Row] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    def lines(self) -> list[str]:
        return [str(row) for row in self.rows]

    def problems(self) -> list[str]:
        return self.wrong


async def run(reactor: Any, count: int) -> SizesReport:
    report = SizesReport()
    sizes = [size * MEGABYTE for size in SIZES if size <= count] or [count * MEGABYTE]
    with plain_peer_process() as where:
        session = await connect(reactor, where)
        for size in sizes:
            await one(report, session, "plain peer", size, "fill", {"bytes": size})
        await end_session(session)
    with RealQEMU("-m", "16", machine="pc") as qemu:
        session = await connect(reactor, qemu.path())
        for size in sizes:
            dump = {"command-line": f"xp /{round(size / DUMPED / 8) * 8}xb 0"}
            await one(report, session, "QEMU", size, "human-monitor-command", dump)
        await end_session(session)
    return report


async def one(
    report: SizesReport,
    session: QMPProtocol,
    peer: str,
    size: int,
    command: str,
    arguments: dict[str, Any],
) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    text = await session.execute(command, arguments)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    report.rows.append(Row(peer, len(text), wall, cpu))
    if abs(len(text) - size) > 100:
        report.wrong.append(f"{peer}: {len(text)} bytes instead of {size}")
