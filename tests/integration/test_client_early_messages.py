"""What comes before a session runs, and what was meant for the client before (facts G8, G9)."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from support.holdup import held_up
from support.prepared import Prepared, before_command
from support.qemu import RealQEMU
from support.scripted import GREETING, Caller
from support.sessions import Dial, MakePeer
from support.waiting import end_session
from txqmp import DisconnectedError, Event, SessionSettings


pytest_plugins = ["support.sessions"]

STALE = {
    "success": {"return": {}},
    "error": {"error": {"class": "GenericError", "desc": "the previous client's"}},
    "success with an id": {"return": {}, "id": "previous-1"},
    "error with an id": {"error": {"class": "GenericError", "desc": "old"}, "id": "previous-1"},
    "success with an id of null": {"return": {}, "id": None},
}


@pytest.mark.parametrize("oob", [True, False], ids=["oob", "no oob"])
@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
@pytest_twisted.ensureDeferred
async def test_reply_to_the_previous_client(
    qemu: RealQEMU, dial: Dial, fails: bool, oob: bool
) -> None:
    settings = SessionSettings(oob=oob)
    with held_up(qemu) as hold:
        previous = await dial(qemu.path(), settings=settings)
        arguments = hold.arguments("left", fails=fails)
        left = previous.execute(hold.NAME, arguments)
        await hold.running("left")
        await end_session(previous)
        with pytest.raises(DisconnectedError) as caught:
            await left
        assert caught.value.may_have_run

        came: list[dict[str, Any]] = []

        def prepare(session: Any) -> None:
            session.taps.add_inbound(lambda message: came.append(message.members) or message)
            before_command("qmp_capabilities", hold.release)(session)

        session = await dial(Prepared(reactor, qemu.path(), prepare), settings=settings)
        # The greeting, what was meant for the previous client, and the reply to our own.
        assert [sorted(message)[0] for message in came] == [
            "QMP",
            "error" if fails else "id",
            "id",
        ]
        assert session.stale_replies == 1
        assert (await session.execute("query-status"))["running"] is False
        assert session.parse_errors == 0


@pytest.mark.parametrize("when", ["before the greeting", "before the reply"])
@pytest.mark.parametrize("stale", STALE.values(), ids=STALE.keys())
@pytest_twisted.ensureDeferred
async def test_stale_reply(
    make_peer: MakePeer, dial: Dial, stale: dict[str, Any], when: str
) -> None:
    async def script(caller: Caller) -> None:
        if when == "before the greeting":
            caller.send(stale)
        caller.send(GREETING)
        command = await caller.receive()
        if when == "before the reply":
            caller.send(stale)
        caller.send({"return": {}, "id": command["id"]})
        await caller.answer("ours")

    peer = await make_peer(script)
    session = await dial(peer.path)
    assert session.stale_replies == 1
    assert await session.execute("query-name") == "ours"


@pytest_twisted.ensureDeferred
async def test_early_events(make_peer: MakePeer, dial: Dial) -> None:
    stamp = {"seconds": 1, "microseconds": 2}

    async def script(caller: Caller) -> None:
        caller.send({"event": "STOP", "timestamp": stamp}, GREETING)
        command = await caller.receive()
        caller.send(
            {"event": "RESUME", "timestamp": stamp},
            STALE["error"],
            {"event": "STOP", "timestamp": stamp},
            {"return": {}, "id": command["id"]},
            {"event": "RESET", "timestamp": stamp},
        )
        await caller.answer()

    peer = await make_peer(script)
    session = await dial(peer.path)
    seen: list[Event] = []
    session.subscribe(seen.append)
    await session.execute("query-status")
    assert [event.name for event in seen] == ["STOP", "RESUME", "STOP", "RESET"]
    assert session.early_events_dropped == 0
