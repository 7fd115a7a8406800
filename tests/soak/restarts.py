"""QEMUs that are killed and restarted under one factory (fact G37).

After each return there is one gap and one snapshot, and whoever has subscribed on the factory gets
the new session's events.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from support.qemu import RealQEMU
from support.waiting import within
from txqmp import (
    Backoff,
    DisconnectedError,
    Gap,
    QMPClientFactory,
    QMPError,
    QMPProtocol,
    RunState,
    Snapshot,
)


@attrs.define
class RestartsReport:
    """What was told, in which order: one tuple of names for each life of a QEMU."""

    lives: list[tuple[str, ...]] = attrs.field(factory=list)
    failed: Counter[str] = attrs.field(factory=Counter)
    gaps: list[Gap] = attrs.field(factory=list)

    def lines(self) -> list[str]:
        counted = Counter(self.lives)
        lines = [f"{count} times {', '.join(told)}" for told, count in counted.items()]
        lines += [f"{count} attempts failed: {kind}" for kind, count in self.failed.items()]
        if self.gaps:
            longest = max(gap.until - gap.since for gap in self.gaps)
            lines.append(f"{len(self.gaps)} gaps, the longest of {longest:.3f} s")
        return lines

    def problems(self) -> list[str]:
        problems = []
        first = ("ready", "event", "waiter", "lost")
        later = ("ready", "gap", "snapshot", "event", "waiter", "lost")
        for number, told in enumerate(self.lives):
            if told != (later if number else first):
                problems.append(f"life {number}: {told}")
        for before, after in zip(self.gaps, self.gaps[1:], strict=False):
            if not before.since < before.until < after.since:
                problems.append(f"gaps that overlap: {before}, {after}")
        return problems


async def run(reactor: Any, count: int) -> RestartsReport:
    report = RestartsReport()
    told: list[str] = []
    snapshot: Deferred[Snapshot] = Deferred()

    def lost(_: QMPProtocol, error: QMPError) -> None:
        assert isinstance(error, DisconnectedError)
        told.append("lost" if not error.expected else "lost as expected")

    def gap(news: Gap) -> None:
        told.append("gap")
        report.gaps.append(news)

    def took(news: Snapshot) -> None:
        told.append("snapshot")
        snapshot.callback(news)

    factory = QMPClientFactory(reactor, backoff=Backoff(initial=0.01, maximum=0.1))
    factory.subscribe(lambda event: told.append("event"), "RESUME")
    factory.observe(
        ready=lambda _: told.append("ready"),
        lost=lost,
        gap=gap,
        snapshot=took,
        failed=lambda error: report.failed.update([error.kind.value]),  # type: ignore[attr-defined]
    )
    with tempfile.TemporaryDirectory(prefix="txqmp-") as place:
        path = Path(place) / "qmp.sock"
        factory.dial(path)
        for number in range(count):
            with listening_qemu(path) as qemu:
                session = await within(factory.when_ready(), what="when_ready()")
                if number:
                    taken = await within(snapshot, what="the snapshot")
                    assert taken.results["query-status"]["running"] is False
                    assert not taken.errors
                snapshot = Deferred()
                waiter = factory.wait_for("RESUME", timeout=20)
                await session.execute("cont")
                await waiter
                told.append("waiter")
                gone = session.when_state(RunState.IDLE)
                qemu.kill()
                await within(gone, what="the session's end")
            report.lives.append(tuple(told))
            told.clear()
        await within(factory.stop(), what="the factory's stop")
    return report


def listening_qemu(path: Path) -> RealQEMU:
    """A QEMU with a monitor at a path that outlives it."""
    chardev = f"socket,id=lasting,path={path},server=on,wait=off"
    return RealQEMU("-chardev", chardev, "-mon", "chardev=lasting,mode=control", monitors=[])
