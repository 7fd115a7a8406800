"""How a session with a real QEMU ends: one typed outcome, whatever the manner (G25 to G27)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from soak import ends
from support.qemu import RealQEMU
from support.sessions import Dial
from support.waiting import within
from txqmp import DisconnectedError, Listener, RunState, StateError


pytest_plugins = ["support.sessions"]


# The soak does each as often.
TIMES = dict.fromkeys(ends.MANNERS, 25) | {"SIGKILL": 5, "guest reset": 5}


@pytest.mark.parametrize("manner", ends.MANNERS)
@pytest_twisted.ensureDeferred
async def test_one_outcome(manner: str) -> None:
    report = ends.EndsReport()
    await ends.run_manner(reactor, manner, TIMES[manner], report)
    assert report.problems() == []
    assert sum(report.outcomes[manner].values()) == TIMES[manner]


@pytest_twisted.ensureDeferred
async def test_commands_behind_quit(qemu: RealQEMU, dial: Dial) -> None:
    """``quit`` has succeeded; what was pipelined behind it never answers, and nobody hangs."""
    session = await dial(qemu.path())
    order: list[str] = []
    session.subscribe(lambda event: order.append(event.name))
    quitting = session.execute("quit")
    quitting.addCallback(lambda _: order.append("quit"))
    behind = [session.execute("query-status") for _ in range(20)]
    await quitting
    for number, command in enumerate(behind):
        with pytest.raises(DisconnectedError) as caught:
            await within(command)
        assert caught.value.expected
        if number != 7:  # in the window once quit was answered, if that was before the end
            assert caught.value.sent is (number < 7)
    assert order == ["SHUTDOWN", "quit"]
    assert session.last_shutdown is not None
    assert session.last_shutdown.data == {"guest": False, "reason": "host-qmp-quit"}
    await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_quit_and_disconnect(qemu: RealQEMU, dial: Dial) -> None:
    """QEMU forgets the commands of a client that leaves: our own end is no success of ``quit``."""
    session = await dial(qemu.path())
    quitting = session.execute("quit")
    closed = session.disconnect()
    assert session.state is RunState.DISCONNECTING
    with pytest.raises(StateError, match="disconnecting"):
        await session.execute("query-status")
    await within(closed)
    with pytest.raises(DisconnectedError, match="quit was sent and may have run") as caught:
        await quitting
    assert caught.value.expected


@pytest_twisted.ensureDeferred
async def test_our_own_disconnect(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    waiter = session.wait_for("STOP")
    listener = session.listen()
    taken = listener.get()
    pending = session.execute("query-status")
    await gatherResults([session.disconnect(), session.disconnect()])
    for waiting in (waiter, taken, listener.get(), pending):
        with pytest.raises(DisconnectedError, match="we disconnected") as caught:
            await waiting
        assert caught.value.expected
    assert [event async for event in listener] == []
    # QEMU takes the next client.
    assert await (await dial(qemu.path())).execute("query-name") == {}


@pytest_twisted.ensureDeferred
async def test_async_for_ends_as_the_session_does(qemu: RealQEMU, dial: Dial) -> None:
    async def names(listener: Listener) -> list[str]:
        return [event.name async for event in listener]

    session = await dial(qemu.path())
    with session.listen() as events:
        await session.execute("quit")
        assert await within(names(events)) == ["SHUTDOWN"]


@pytest_twisted.ensureDeferred
async def test_async_for_raises_where_the_end_was_not_expected(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    with session.listen() as events:
        await session.execute("cont")
        qemu.kill()
        with pytest.raises(DisconnectedError) as caught:
            async for event in events:
                assert event.name == "RESUME"
    assert not caught.value.expected


@pytest_twisted.ensureDeferred
async def test_end_seen_from_a_second_session(
    qemu_factory: Callable[..., RealQEMU], dial: Dial
) -> None:
    """Each of two monitors is told; quitting through one ends both."""
    qemu = qemu_factory(monitors=["a", "b"])
    first, second = await dial(qemu.path("a")), await dial(qemu.path("b"))
    told = second.wait_for("SHUTDOWN", where={"reason": "host-qmp-quit"})
    await first.execute("quit")
    assert (await within(told)).data["guest"] is False
    await within(second.when_state(RunState.IDLE))
    await second.disconnect()
