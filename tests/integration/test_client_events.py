"""Events of a real QEMU: armed before the command, nothing is missed (fact G25)."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from support.qemu import RealQEMU
from support.sessions import Dial
from support.waiting import within
from txqmp import Event, EventTimeoutError, ListenerOverflowError, QMPProtocol


pytest_plugins = ["support.sessions"]


async def add_disks(session: QMPProtocol) -> None:
    for name in ("source", "target"):
        disk = {"driver": "null-co", "node-name": name, "size": 1 << 20, "read-zeroes": True}
        await session.execute("blockdev-add", disk)


def mirror(session: QMPProtocol, job: str) -> Deferred[Any]:
    arguments = {"job-id": job, "device": "source", "target": "target", "sync": "full"}
    return session.execute("blockdev-mirror", arguments)


@pytest_twisted.ensureDeferred
async def test_events_before_the_return(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    await add_disks(session)
    order: list[str] = []
    session.subscribe(lambda event: order.append(f"{event.name} {event.data.get('status', '')}"))
    ready = session.wait_for("BLOCK_JOB_READY", timeout=20)
    await mirror(session, "job").addCallback(lambda _: order.append("return"))
    await ready
    # Nearly always all four come before the return, these two always.
    assert order.index("return") > order.index("JOB_STATUS_CHANGE running")
    order.remove("return")
    assert order == [
        "JOB_STATUS_CHANGE created",
        "JOB_STATUS_CHANGE running",
        "JOB_STATUS_CHANGE ready",
        "BLOCK_JOB_READY ",
    ]


@pytest_twisted.ensureDeferred
async def test_armed_before_the_command(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    await add_disks(session)
    for number in range(10):
        job = f"job{number}"
        ready = session.wait_for("BLOCK_JOB_READY", where={"device": job}, timeout=20)
        with session.listen("JOB_STATUS_CHANGE", where={"id": job}) as events:
            await mirror(session, job)
            assert (await ready).data["type"] == "mirror"
            concluded = session.wait_for("BLOCK_JOB_COMPLETED", where={"device": job}, timeout=20)
            gone = session.wait_for(
                "JOB_STATUS_CHANGE", where={"id": job, "status": "null"}, timeout=20
            )
            await session.execute("block-job-complete", {"device": job})
            await gatherResults([concluded, gone])
            seen = [event.data["status"] for event in events.clear()]
        assert seen[:3] == ["created", "running", "ready"]
        assert seen[-2:] == ["concluded", "null"]


@pytest_twisted.ensureDeferred
async def test_armed_too_late(qemu: RealQEMU, dial: Dial) -> None:
    """What the other way leads to: the event has gone by when the command has returned."""
    session = await dial(qemu.path())
    await add_disks(session)
    await mirror(session, "job")
    running = {"id": "job", "status": "running"}
    with pytest.raises(EventTimeoutError, match=r"no JOB_STATUS_CHANGE within 0\.1 s"):
        await session.wait_for("JOB_STATUS_CHANGE", where=running, timeout=0.1)


@pytest_twisted.ensureDeferred
async def test_stop_and_cont(qemu: RealQEMU, dial: Dial) -> None:
    """Each in its order, once: with a name, with a glob, with a predicate, with none."""
    session = await dial(qemu.path())
    seen: dict[str, list[str]] = {"name": [], "glob": [], "predicate": [], "all": []}
    session.subscribe(lambda event: seen["name"].append(event.name), "STOP")
    session.subscribe(lambda event: seen["glob"].append(event.name), "R*", "S[A-Z]OP")
    session.subscribe(
        lambda event: seen["predicate"].append(event.name), where=lambda event: "U" in event.name
    )

    @session.on_event()
    def everything(event: Event) -> None:
        seen["all"].append(event.name)
        assert event.timestamp.known
        assert event.data == {}

    for _ in range(50):
        await session.execute("cont")
        await session.execute("stop")
    assert seen == {
        "name": ["STOP"] * 50,
        "glob": ["RESUME", "STOP"] * 50,
        "predicate": ["RESUME"] * 50,
        "all": ["RESUME", "STOP"] * 50,
    }


@pytest_twisted.ensureDeferred
async def test_taken_one_by_one(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())

    async def take(count: int) -> list[str]:
        names = []
        with session.listen(history=3) as events:
            toggled = gatherResults([session.execute(name) for name in ("cont", "stop") * 10])
            async for event in events:
                names.append(event.name)
                if len(names) == count:
                    break
            await toggled
            assert [event.name for event in events.history] == ["STOP", "RESUME", "STOP"]
            assert len(events) == 20 - count
            assert events.dropped == 0
        return names

    assert await within(take(15)) == ["RESUME", "STOP"] * 7 + ["RESUME"]


@pytest_twisted.ensureDeferred
async def test_bounded(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    oldest = session.listen(limit=3)
    newest = session.listen(limit=3, overflow="drop_newest")
    failing = session.listen(limit=3, overflow="fail")
    for name in ("cont", "stop", "cont", "stop"):
        await session.execute(name)
    assert [event.name for event in oldest.clear()] == ["STOP", "RESUME", "STOP"]
    assert [event.name for event in newest.clear()] == ["RESUME", "STOP", "RESUME"]
    assert oldest.dropped == newest.dropped == 1
    assert [(await failing.get()).name for _ in range(3)] == ["RESUME", "STOP", "RESUME"]
    with pytest.raises(ListenerOverflowError):
        await failing.get()
