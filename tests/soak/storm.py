"""Reconnects while the VM is stopped and continued all the time (facts G8, G12).

A second monitor, driven by a process of its own, makes QEMU emit events as fast as it can. Some of
them come to a client before the greeting, or between the greeting and the reply to
``qmp_capabilities``: a client that goes by the specification alone fails then.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from soak import stop_and_continue
from support.prepared import Prepared
from support.qemu import RealQEMU
from support.waiting import end_session
from txqmp import Event, Message, QMPError, QMPProtocol, connect


@attrs.define
class StormReport:
    sessions: int = 0
    events_before_greeting: int = 0
    sessions_before_greeting: int = 0
    events_before_reply: int = 0
    sessions_before_reply: int = 0
    stale_replies: int = 0
    events_caused: int = 0
    lost: int = 0
    failures: Counter[str] = attrs.field(factory=Counter)

    def lines(self) -> list[str]:
        before = "had events before the"
        late = f"{before} negotiation's reply"
        return [
            f"{self.sessions} sessions, {sum(self.failures.values())} failed",
            f"{self.sessions_before_greeting} {before} greeting: {self.events_before_greeting}",
            f"{self.sessions_before_reply} {late}: {self.events_before_reply}",
            f"{self.stale_replies} replies to a previous client",
            f"{self.events_caused} events caused meanwhile",
        ]

    def problems(self) -> list[str]:
        problems = [f"{count} times {failure}" for failure, count in self.failures.items()]
        if self.lost:
            problems.append(f"{self.lost} sessions lost an early event")
        return problems


async def run(reactor: Any, count: int) -> StormReport:
    report = StormReport()
    with RealQEMU(monitors=["watched", "storm"]) as qemu, storm(qemu.path("storm"), report):
        for number in range(count):
            try:
                await one_session(reactor, qemu.path("watched"), number, report)
            except QMPError as error:
                report.failures[f"{type(error).__name__}: {error}"] += 1
    return report


@contextmanager
def storm(path: str, report: StormReport) -> Iterator[None]:
    """Stop and continue the VM from another process, as long as this is open."""
    command = [sys.executable, str(Path(stop_and_continue.__file__)), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield
        finally:
            process.terminate()
            output, _ = process.communicate()
            report.events_caused = int(output or 0)


async def one_session(reactor: Any, path: str, number: int, report: StormReport) -> None:
    beginning = Beginning()
    session = await connect(reactor, Prepared(reactor, path, beginning.watch))
    try:
        delivered: list[Event] = []
        # connect() fires before the early events are delivered: nobody who subscribes here, at
        # once, misses them.
        session.subscribe(delivered.append)
        report.sessions += 1
        if number % 4 == 0:
            assert (await session.execute("query-status"))["status"]
        elif number % 4 == 1:
            # A reply of 200 kB, which nobody reads.
            session.execute("query-qmp-schema").addErrback(lambda _: None)
        elif number % 4 == 2:
            await session.disconnect()
        report.events_before_greeting += beginning.before_greeting
        report.sessions_before_greeting += beginning.before_greeting > 0
        report.events_before_reply += beginning.before_reply
        report.sessions_before_reply += beginning.before_reply > 0
        report.stale_replies += session.stale_replies
    finally:
        await end_session(session)
    early = beginning.before_greeting + beginning.before_reply
    report.lost += [event.raw for event in delivered[:early]] != beginning.events


class Beginning:
    """Counts the events that come before a session runs."""

    def __init__(self) -> None:
        self.before_greeting = 0
        self.before_reply = 0
        self.events: list[dict[str, Any]] = []
        self._greeted = False
        self._negotiated = False
        self._id: object = None

    def watch(self, session: QMPProtocol) -> None:
        session.taps.add_outbound(self._sent)
        session.taps.add_inbound(self._came)

    def _sent(self, message: Message) -> Message:
        if message["execute"] == "qmp_capabilities":
            self._id = message["id"]
        return message

    def _came(self, message: Message) -> Message:
        if "QMP" in message:
            self._greeted = True
        elif "event" not in message:
            self._negotiated = self._negotiated or message.get("id") == self._id
        elif not self._negotiated:
            self.before_greeting += not self._greeted
            self.before_reply += self._greeted
            self.events.append(message.members)
        return message
