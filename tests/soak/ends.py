"""The ends of a session, of each manner many times: one typed outcome each (facts G26, G27).

With each end goes what was under way: a waiter for an event, and, where QEMU is killed while its
main loop is held up, commands that were sent and one that was not.
"""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from support import firmware
from support.holdup import HoldUp
from support.qemu import RealQEMU
from support.waiting import process_ended, within
from txqmp import DisconnectedError, QMPProtocol, RunState, StateError, connect


@attrs.frozen
class End:
    """How one session ended, without the words, which tell more and differ.

    :ivar waiter: the error that a waiter for an event got.
    :ivar commands: the errors that the pending commands got.
    :ivar disconnect: what ``disconnect()`` gave, the first time and the second.
    :ivar quit: what the command gave that ended the session, if one did.
    """

    waiter: str
    commands: tuple[str, ...] = ()
    disconnect: tuple[str, str] = ("nothing", "nothing")
    quit: str = "nothing"


@attrs.frozen
class Manner:
    """A way to end.

    :ivar end: brings it about; returns what ``quit`` gave, if it was that.
    :ivar outcome: what it must come to, each time.
    :ivar guest: makes QEMU's arguments for a guest; without one there is no machine.
    :ivar held: whether commands are pending: eight that were sent, and one that was not.
    """

    end: Callable[[QMPProtocol, RealQEMU], Awaitable[str]]
    outcome: End
    guest: Callable[[Path], list[str]] | None = None
    held: bool = False


async def quit_(session: QMPProtocol, qemu: RealQEMU) -> str:
    return repr(await session.execute("quit"))


async def terminate(session: QMPProtocol, qemu: RealQEMU) -> str:
    qemu.signal(signal.SIGTERM)
    return "nothing"


async def kill(session: QMPProtocol, qemu: RealQEMU) -> str:
    qemu.signal(signal.SIGKILL)
    return "nothing"


async def go_on(session: QMPProtocol, qemu: RealQEMU) -> str:
    await session.execute("cont")
    return "nothing"


def reset_guest(place: Path) -> list[str]:
    return [*firmware.reset(place), "-no-reboot"]


def expected(reason: str) -> str:
    return f"DisconnectedError: expected, SHUTDOWN {reason}, not sent"


UNEXPECTED = "DisconnectedError: unexpected, not sent"
UNEXPECTED_SENT = "DisconnectedError: unexpected, sent"

MANNERS = {
    "quit": Manner(quit_, End(expected("host-qmp-quit"), quit="{}")),
    "SIGTERM": Manner(terminate, End(expected("host-signal"))),
    "SIGKILL": Manner(kill, End(UNEXPECTED, disconnect=(UNEXPECTED, "nothing"))),
    "SIGKILL, commands pending": Manner(
        kill,
        End(UNEXPECTED, (*[UNEXPECTED_SENT] * 8, UNEXPECTED), (UNEXPECTED, "nothing")),
        held=True,
    ),
    "guest shutdown": Manner(go_on, End(expected("guest-shutdown")), guest=firmware.power_off),
    "guest reset": Manner(go_on, End(expected("guest-reset")), guest=reset_guest),
}


def described(error: BaseException) -> str:
    """The error without the words."""
    text = type(error).__name__
    if isinstance(error, DisconnectedError):
        text += f": {'expected' if error.expected else 'unexpected'}"
        if error.shutdown is not None:
            text += f", SHUTDOWN {error.shutdown.data['reason']}"
        text += f", {'sent' if error.sent else 'not sent'}"
    return text


@attrs.define
class EndsReport:
    outcomes: dict[str, Counter[End]] = attrs.field(factory=dict)
    words: dict[str, Counter[str]] = attrs.field(factory=dict)

    def lines(self) -> list[str]:
        lines = []
        for name, outcomes in self.outcomes.items():
            lines += [f"{name}: {count} times {end}" for end, count in outcomes.items()]
            lines += [f"    {count} times {text!r}" for text, count in self.words[name].items()]
        return lines

    def problems(self) -> list[str]:
        return [
            f"{name} ended {count} times as {end}, not as {MANNERS[name].outcome}"
            for name, outcomes in self.outcomes.items()
            for end, count in outcomes.items()
            if end != MANNERS[name].outcome
        ]


async def run(reactor: Any, count: int) -> EndsReport:
    report = EndsReport()
    for name in MANNERS:
        await run_manner(reactor, name, count, report)
    return report


async def run_manner(reactor: Any, name: str, count: int, report: EndsReport) -> None:
    outcomes = report.outcomes[name] = Counter()
    report.words[name] = Counter()
    for _ in range(count):
        outcomes[await one_end(reactor, name, report)] += 1


async def one_end(reactor: Any, name: str, report: EndsReport) -> End:
    manner = MANNERS[name]
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txqmp-")))
        arguments = [] if manner.guest is None else manner.guest(place)
        machine = "none" if manner.guest is None else "pc"
        qemu = stack.enter_context(RealQEMU(*arguments, machine=machine))
        session = await connect(reactor, qemu.path())
        waiter = session.wait_for("NEVER")
        commands = []
        if manner.held:
            hold = HoldUp(place)
            commands.append(session.execute(hold.NAME, hold.arguments("held")))
            await hold.running("held")
            commands += [session.execute("query-status") for _ in range(8)]
        ended = process_ended(qemu.pid)
        quit_gave = await manner.end(session, qemu)
        await within(session.when_state(RunState.IDLE), what="the session's end")
        await ended
        error = await outcome(waiter)
        report.words[name][str(error)] += 1
        end = End(
            quit=quit_gave,
            waiter=described(error),
            commands=tuple([described(await outcome(command)) for command in commands]),
            disconnect=(await disconnected(session), await disconnected(session)),
        )
        assert isinstance(await outcome(session.execute("query-status")), StateError)
        return end


async def outcome(waiting: Any) -> BaseException:
    """The error of what fails."""
    try:
        result = await within(waiting, what="a pending Deferred")
    except Exception as error:
        return error
    raise AssertionError(f"an error was expected, not {result!r}")


async def disconnected(session: QMPProtocol) -> str:
    try:
        await session.disconnect()
    except Exception as error:
        return described(error)
    return "nothing"
