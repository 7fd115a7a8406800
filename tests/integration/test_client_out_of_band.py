"""Commands that are blocked, and those that overtake them (facts G22 to G24)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from support.holdup import HoldUp, held_up
from support.qemu import RealQEMU
from support.sessions import Dial
from txqmp import ExecuteError, ExecuteTimeoutError, SessionSettings, StateError


pytest_plugins = ["support.sessions"]


@pytest_twisted.ensureDeferred
async def test_ten_blocked(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    with held_up(qemu) as hold:
        blocked = [
            session.execute(hold.NAME, hold.arguments(f"blocked{number}")) for number in range(10)
        ]
        await hold.running("blocked0")
        assert (session.pending.in_flight, session.pending.waiting) == (8, 2)
        instances = await session.execute("query-yank", oob=True)
        assert {"type": "chardev", "id": "qmp"} in instances
        with pytest.raises(ExecuteError, match="migrate-pause is currently only supported"):
            await session.execute("migrate-pause", oob=True)
        assert not any(command.called for command in blocked)
        assert (session.pending.in_flight, session.pending.waiting) == (8, 2)
        hold.release()
        assert await gatherResults(blocked) == [{}] * 10
    assert len(session.pending) == 0


@pytest_twisted.ensureDeferred
async def test_hundred_blocked_in_order(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    order: list[int] = []
    with held_up(qemu) as hold:
        first = session.execute(hold.NAME, hold.arguments("blocked"))
        await hold.running("blocked")
        others = [session.execute("query-status") for _ in range(100)]
        for number, command in enumerate(others):
            command.addCallback(lambda _, number=number: order.append(number))
        urgent = [session.execute("query-yank", oob=True) for _ in range(20)]
        assert len(await gatherResults(urgent)) == 20
        assert order == []
        hold.release()
        await gatherResults([first, *others])
    assert order == list(range(100))


@pytest_twisted.ensureDeferred
async def test_abandoned_commands_keep_their_place(qemu: RealQEMU, dial: Dial) -> None:
    """QEMU has them still: a ninth in-band command would keep the one out of band waiting."""
    session = await dial(qemu.path())
    with held_up(qemu) as hold:
        commands = [session.execute(hold.NAME, hold.arguments("blocked"), timeout=0.1)]
        commands += [session.execute("query-status", timeout=0.1) for _ in range(9)]
        for number, command in enumerate(commands):
            with pytest.raises(ExecuteTimeoutError) as caught:
                await command
            assert caught.value.sent is (number < 8)
        assert (session.pending.in_flight, session.pending.waiting) == (8, 0)
        after = session.execute("query-status")
        assert session.pending.waiting == 1
        await session.execute("query-yank", oob=True)
        hold.release()
        assert (await after)["running"] is False
    assert session.pending.late_replies == 8
    assert len(session.pending) == 0


@pytest_twisted.ensureDeferred
async def test_declined(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path(), settings=SessionSettings(oob=False))
    with pytest.raises(StateError, match="not enabled"):
        await session.execute("query-yank", oob=True)
    reply = await session.execute_raw({"exec-oob": "query-yank"})
    assert "exec-oob" in reply["error"]["desc"]
    assert {"type": "chardev", "id": "qmp"} in await session.execute("query-yank")


@pytest_twisted.ensureDeferred
async def test_not_for_every_command(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    with pytest.raises(ExecuteError, match="does not support OOB"):
        await session.execute("query-status", oob=True)


@pytest_twisted.ensureDeferred
async def test_one_blocked_session_of_two(
    qemu_factory: Callable[..., RealQEMU], dial: Dial
) -> None:
    """QEMU executes one command at a time, whichever monitor it came from."""
    qemu = qemu_factory(monitors=["a", "b"])
    first, second = await dial(qemu.path("a")), await dial(qemu.path("b"))
    with held_up(qemu) as hold:
        blocked = first.execute(hold.NAME, hold.arguments("blocked"))
        await hold.running("blocked")
        waiting = second.execute("query-status")
        assert await second.execute("query-yank", oob=True)
        assert not waiting.called
        hold.release()
        assert await blocked == {}
        assert (await waiting)["running"] is False


def test_hold_up_helper(qemu: RealQEMU) -> None:
    with held_up(qemu) as hold:
        assert isinstance(hold, HoldUp)
        hold.release()
        qemu.execute(hold.NAME, hold.arguments("fine"))
        with pytest.raises(RuntimeError, match="missing"):
            qemu.execute(hold.NAME, hold.arguments("bad", fails=True))
