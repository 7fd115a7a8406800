"""File descriptors on their way to a real QEMU: none crossed, none leaked (facts G31 to G34)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from soak import descriptors
from support.holdup import held_up
from support.leaks import open_descriptors
from support.qemu import RealQEMU
from support.sessions import Dial
from support.waiting import end_session
from txqmp import DescriptorError, DisconnectedError, QMPProtocol, SessionSettings


pytest_plugins = ["support.sessions"]

with_and_without_oob = pytest.mark.parametrize("oob", [True, False], ids=["oob", "no oob"])


def open_in(qemu: RealQEMU, path: Path) -> int:
    """How many of QEMU's descriptors are of this file."""
    directory = Path(f"/proc/{qemu.pid}/fd")
    return sum(os.readlink(entry) == str(path) for entry in directory.iterdir())


def send(session: QMPProtocol, path: Path, command: str = "getfd", **arguments: object) -> object:
    with path.open("w") as file:
        return session.execute(command, arguments, fds=[file])


@pytest_twisted.ensureDeferred
async def test_hundred_concurrent() -> None:
    report = await descriptors.run(reactor, 100)
    assert report.problems() == []
    assert report.sent == 200


@with_and_without_oob
@pytest_twisted.ensureDeferred
async def test_alternating_files(qemu: RealQEMU, dial: Dial, oob: bool) -> None:
    session = await dial(qemu.path(), settings=SessionSettings(oob=oob))
    before = open_descriptors()
    files = ["/dev/null", "/dev/zero"]
    with open(files[0], "rb") as null, open(files[1], "rb") as zero:
        added = [
            session.execute("add-fd", {"fdset-id": number}, fds=[(null, zero)[number % 2]])
            for number in range(100)
        ]
    for number, each in enumerate(added):
        answer = await each
        assert answer["fdset-id"] == number
        assert os.readlink(f"/proc/{qemu.pid}/fd/{answer['fd']}") == files[number % 2]
    sets = await session.execute("query-fdsets")
    assert len(sets) == 100
    assert all(len(each["fds"]) == 1 for each in sets)
    assert open_descriptors() == before


@with_and_without_oob
@pytest_twisted.ensureDeferred
async def test_getfd(qemu: RealQEMU, dial: Dial, place: Path, oob: bool) -> None:
    session = await dial(qemu.path(), settings=SessionSettings(oob=oob))
    before = open_descriptors()
    files = [place / str(number) for number in range(20)]
    for answer in [send(session, path, fdname=f"name{path.name}") for path in files]:
        assert await answer == {}
    assert [open_in(qemu, path) for path in files] == [1] * len(files)
    # It is a descriptor by that name that was closed: each name has its own file.
    for path in files[::2]:
        await session.execute("closefd", {"fdname": f"name{path.name}"})
    assert [open_in(qemu, path) for path in files] == [0, 1] * (len(files) // 2)
    assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_behind_a_full_buffer(qemu: RealQEMU, dial: Dial, place: Path) -> None:
    """The descriptor waits until all that was written before it has left."""
    session = await dial(qemu.path(), settings=SessionSettings(window=64))
    # More than the kernel takes at once; QEMU reads it byte by byte.
    line = {"command-line": "x" * 30_000}
    fillers = [session.execute("human-monitor-command", line) for _ in range(10)]
    added = send(session, place / "file", "add-fd")
    for filler in fillers:
        assert "unknown command" in await filler
    answer = await added
    assert os.readlink(f"/proc/{qemu.pid}/fd/{answer['fd']}") == str(place / "file")


@pytest_twisted.ensureDeferred
async def test_closed_on_every_path(qemu: RealQEMU, dial: Dial, place: Path) -> None:
    with held_up(qemu) as hold:
        without = open_descriptors()
        session = await dial(qemu.path())
        held = session.execute(hold.NAME, hold.arguments("held"))
        await hold.running("held")
        travelling, cancelled, waiting = (
            send(session, place / name) for name in ("travelling", "cancelled", "waiting")
        )
        await session.execute("query-yank", oob=True)  # by then the first of them has left
        cancelled.cancel()
        with pytest.raises(CancelledError):
            await cancelled
        await end_session(session)
        for command, sent in ((held, True), (travelling, True), (waiting, False)):
            with pytest.raises(DisconnectedError) as caught:
                await command
            assert caught.value.sent is sent
        assert open_descriptors() == without


@pytest_twisted.ensureDeferred
async def test_none_came(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    with pytest.raises(Exception, match="No file descriptor supplied via SCM_RIGHTS"):
        await session.execute("getfd", {"fdname": "nothing"})


@pytest_twisted.ensureDeferred
async def test_not_over_tcp(qemu_factory: Callable[..., RealQEMU], dial: Dial, place: Path) -> None:
    qemu = qemu_factory(
        *("-chardev", "socket,id=tcp,host=127.0.0.1,port=0,server=on,wait=off"),
        *("-mon", "chardev=tcp,mode=control"),
    )
    (name,) = (each["filename"] for each in qemu.execute("query-chardev") if each["label"] == "tcp")
    session = await dial(("127.0.0.1", int(name.split(":")[3].split(",")[0])))
    before = open_descriptors()
    with pytest.raises(DescriptorError, match="UNIX sockets only"):
        await send(session, place / "file", fdname="x")
    assert open_descriptors() == before
    assert (await session.execute("query-status"))["running"] is False
