"""The asyncio library ``qemu.qmp`` is served: it negotiates, executes, hears events and leaves."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.utils import getProcessOutputAndValue

from support.programs import missing
from txqmp.testing import Before, Fault, SimulatedVM, SplitWrites


pytest_plugins = ["support.sessions"]

reactor: Any = _reactor

# What the client does is written here; what it saw is its output.
PREAMBLE = """
    import asyncio, json, logging, sys
    from qemu.qmp import ExecuteError, QMPClient, Runstate

    logging.disable(logging.CRITICAL)
    seen = {}

    async def connected():
        qmp = QMPClient("the client")
        await qmp.connect(sys.argv[1])
        return qmp
"""
POSTAMBLE = """
    asyncio.run(main())
    print(json.dumps(seen))
"""


@pytest.fixture(autouse=True)
def _installed() -> None:
    if importlib.util.find_spec("qemu") is None or importlib.util.find_spec("qemu.qmp") is None:
        missing("qemu.qmp is not installed")


@pytest_twisted.async_yield_fixture
async def vm(place: Path) -> AsyncIterator[SimulatedVM]:
    vm = SimulatedVM(reactor, name="vm1", running=False)
    port = await UNIXServerEndpoint(reactor, f"{place}/vm", mode=0o600).listen(vm)
    yield vm
    await port.stopListening()
    await vm.disconnect_all()


async def run(place: Path, code: str) -> dict[str, Any]:
    """What the client saw."""
    program = "\n".join(map(textwrap.dedent, (PREAMBLE, code, POSTAMBLE)))
    output, errors, status = await getProcessOutputAndValue(
        sys.executable, ["-c", program, f"{place}/vm"], env=None
    )
    assert (status, errors) == (0, b""), errors.decode()
    seen: dict[str, Any] = json.loads(output)
    return seen


@pytest_twisted.ensureDeferred
async def test_execute(place: Path, vm: SimulatedVM) -> None:
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            seen["greeting"] = qmp.greeting._asdict()["QMP"]
            seen["status"] = await qmp.execute("query-status")
            seen["name"] = await qmp.execute("query-name")
            schema = await qmp.execute("query-qmp-schema")
            seen["schema"] = len(schema)
            several = [qmp.execute("query-name") for _ in range(50)]
            seen["several"] = len(await asyncio.gather(*several))
            await qmp.disconnect()
        """,
    )
    assert seen["greeting"] == vm.greeting()["QMP"]
    assert seen["status"] == {"status": "prelaunch", "singlestep": False, "running": False}
    assert seen["name"] == {"name": "vm1"}
    assert seen["schema"] > 100
    assert seen["several"] == 50


@pytest_twisted.ensureDeferred
async def test_errors(place: Path, vm: SimulatedVM) -> None:
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            for name, arguments in (("nothing", None), ("getfd", {}), ("getfd", {"fdname": 1})):
                try:
                    await qmp.execute(name, arguments)
                except ExecuteError as error:
                    seen.setdefault("errors", []).append([error.error_class, str(error)])
            await qmp.disconnect()
        """,
    )
    assert seen["errors"] == [
        ["CommandNotFound", "The command nothing has not been found"],
        ["GenericError", "Parameter 'fdname' is missing"],
        ["GenericError", "Invalid parameter type for 'fdname', expected: string"],
    ]


@pytest_twisted.ensureDeferred
async def test_events(place: Path, vm: SimulatedVM) -> None:
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            with qmp.listener() as listener:
                await qmp.execute("cont")
                await qmp.execute("system_reset")
                await qmp.execute("stop")
                events = [await listener.get() for _ in range(3)]
            seen["events"] = [[event["event"], event.get("data")] for event in events]
            seen["stamps"] = [sorted(event["timestamp"]) for event in events]
            await qmp.disconnect()
        """,
    )
    assert seen["events"] == [
        ["RESUME", None],
        ["RESET", {"guest": False, "reason": "host-qmp-system-reset"}],
        ["STOP", None],
    ]
    assert seen["stamps"] == [["microseconds", "seconds"]] * 3


@pytest_twisted.ensureDeferred
async def test_out_of_band(place: Path, vm: SimulatedVM) -> None:
    """The reply to a command out of band overtakes the one that waits."""
    held = vm.hold("query-name")
    vm.register("let-go", lambda call: held.release(), oob=True)
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            order = seen["order"] = []
            async def execute(name, oob=False):
                await qmp.execute(name, oob=oob)
                order.append(name)
            waiting = asyncio.create_task(execute("query-name"))
            await asyncio.sleep(0)
            await execute("query-yank", oob=True)
            await execute("let-go", oob=True)
            await waiting
            await qmp.disconnect()
        """,
    )
    assert seen["order"][0] == "query-yank"
    assert sorted(seen["order"]) == ["let-go", "query-name", "query-yank"]


@pytest_twisted.ensureDeferred
async def test_quit(place: Path, vm: SimulatedVM) -> None:
    """SHUTDOWN comes before the reply, and the end after it (facts G25, G26)."""
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            with qmp.listener() as listener:
                seen["reply"] = await qmp.execute("quit")
                event = await listener.get()
                seen["event"] = [event["event"], event["data"]]
            while qmp.runstate is Runstate.RUNNING:
                await qmp.runstate_changed()
            try:
                await qmp.disconnect()
            except EOFError:
                seen["end"] = "EOF"
        """,
    )
    assert seen == {
        "reply": {},
        "event": ["SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}],
        "end": "EOF",
    }
    assert vm.exited


@pytest_twisted.ensureDeferred
async def test_one_after_another(place: Path, vm: SimulatedVM) -> None:
    """One client at a time: the second is greeted when the first has left (fact G1)."""
    seen = await run(
        place,
        """
        async def main():
            first = await connected()
            second = asyncio.create_task(connected())
            await first.execute("query-name")
            seen["early"] = second.done()
            await first.disconnect()
            qmp = await second
            seen["name"] = await qmp.execute("query-name")
            await qmp.disconnect()
        """,
    )
    assert seen == {"early": False, "name": {"name": "vm1"}}


@pytest.mark.parametrize(
    "fault",
    [SplitWrites(7), Before("query-status", {"return": {}, "id": "nobody"})],
    ids=["split writes", "an unknown reply"],
)
@pytest_twisted.ensureDeferred
async def test_faults_that_it_bears(place: Path, vm: SimulatedVM, fault: Fault) -> None:
    vm.faults.append(fault)
    seen = await run(
        place,
        """
        async def main():
            qmp = await connected()
            seen["running"] = (await qmp.execute("query-status"))["running"]
            await qmp.disconnect()
        """,
    )
    assert seen == {"running": False}


@pytest_twisted.ensureDeferred
async def test_a_fault_that_it_does_not_bear(place: Path, vm: SimulatedVM) -> None:
    """An event before the greeting (fact G8): it shows that the fault is real."""
    vm.faults.append(Before("greeting", vm.send_event("STOP")))
    seen = await run(
        place,
        """
        async def main():
            try:
                await connected()
            except Exception as error:
                seen["error"] = type(error).__name__
        """,
    )
    assert seen == {"error": "ConnectError"}
