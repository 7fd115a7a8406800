"""Clients that vanish with commands on their way, and whoever connects next (fact G9).

QEMU gives the reply to a command that ran while its client left to the next client. Here a plain
client sends a burst of commands, half of which fail, and closes its socket at once; then a session
of ours connects. Whether a reply leaks is up to QEMU: the runs are many, and the leaks counted.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

import attrs

from support.prepared import Prepared
from support.qemu import RealQEMU
from support.waiting import end_session
from txqmp import Message, QMPError, QMPProtocol, connect


#: One that succeeds and takes a while, and one that fails: the leaked reply is of either kind.
COMMANDS = (
    {"execute": "query-qmp-schema"},
    {"execute": "no-such-command"},
)


@attrs.define
class StaleReport:
    sessions: int = 0
    successes: int = 0
    errors: int = 0
    failures: Counter[str] = attrs.field(factory=Counter)

    def lines(self) -> list[str]:
        return [
            f"{self.sessions} sessions, {sum(self.failures.values())} failed",
            f"replies to a previous client: {self.successes} of success, {self.errors} of error",
        ]

    def watch(self, session: QMPProtocol) -> None:
        """Count what was meant for the previous client: it sent no ids, and ours all have one."""

        def tap(message: Message) -> Message:
            if "id" not in message:
                self.successes += "return" in message
                self.errors += "error" in message
            return message

        session.taps.add_inbound(tap)

    def problems(self) -> list[str]:
        return [f"{count} times {failure}" for failure, count in self.failures.items()]


async def run(reactor: Any, count: int) -> StaleReport:
    report = StaleReport()
    with RealQEMU() as qemu:
        endpoint = Prepared(reactor, qemu.path(), report.watch)
        for number in range(count):
            vanish(qemu.path(), burst=1 + number % 8, first=number % 2, oob=number % 3 == 0)
            try:
                session = await connect(reactor, endpoint)
            except QMPError as error:
                report.failures[f"{type(error).__name__}: {error}"] += 1
                continue
            try:
                assert (await session.execute("query-status"))["status"]
                report.sessions += 1
            finally:
                await end_session(session)
    return report


def vanish(path: str, *, burst: int, first: int, oob: bool) -> None:
    """Connect, send a burst of commands without ids, and close."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        with client.makefile("rb") as lines:
            lines.readline()
            capabilities = {"enable": ["oob"] if oob else []}
            client.sendall(
                json.dumps({"execute": "qmp_capabilities", "arguments": capabilities}).encode()
            )
            while b'"return"' not in lines.readline():
                pass
            commands = [COMMANDS[(first + number) % 2] for number in range(burst)]
            client.sendall(b"".join(json.dumps(command).encode() for command in commands))
