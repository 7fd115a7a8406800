"""What QEMU cannot read: refused here, or survived (facts G18 to G20)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from support.qemu import RealQEMU
from support.sessions import Dial
from txqmp import (
    DisconnectedError,
    ExecuteError,
    InvalidCommandError,
    Message,
    ProtocolError,
    QMPProtocol,
    ServerParseError,
)


pytest_plugins = ["support.sessions"]


def nested(depth: int) -> Any:
    """Lists in lists, so many levels deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


BAD = {
    "a surrogate": "\udc80",
    "half a pair": "\ud83d",
    "NaN": math.nan,
    "infinity": -math.inf,
    "too deep": nested(1023),
    "deeper than Python goes": nested(100_000),
    "an integer of 65 bits": 1 << 64,
    "bytes": b"bytes",
    "a set": {1},
    "a key that is no string": {1: 2},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest_twisted.ensureDeferred
async def test_fails_its_own_call(qemu: RealQEMU, dial: Dial, bad: Any) -> None:
    session = await dial(qemu.path())
    before = session.execute("query-commands")
    refused = session.execute("query-status", {"argument": bad})
    after = session.execute("query-status")
    with pytest.raises(InvalidCommandError) as caught:
        await refused
    assert caught.value.command == "query-status"
    assert len(await before) > 100
    assert (await after)["running"] is False
    assert session.parse_errors == 0
    assert len(session.pending) == 0


@pytest_twisted.ensureDeferred
async def test_larger_than_qemu_reads(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    parallel = session.execute("query-status")
    with pytest.raises(InvalidCommandError, match="more than the 67108864 that QEMU reads"):
        await session.execute("query-status", {"argument": "x" * (64 << 20)})
    with pytest.raises(InvalidCommandError, match="tokens"):
        await session.execute("query-status", {"argument": [0] * (1 << 20)})
    assert (await parallel)["running"] is False


@pytest_twisted.ensureDeferred
async def test_deep(qemu: RealQEMU, dial: Dial) -> None:
    """Deeper than ``orjson`` goes, and QEMU reads it: what is wrong is the argument."""
    session = await dial(qemu.path())
    for depth in (200, 255, 500, 800):
        with pytest.raises(ExecuteError, match="unexpected"):
            await session.execute("query-status", {"argument": nested(depth)})
    assert session.parse_errors == 0


@pytest_twisted.ensureDeferred
async def test_odd_but_sound(qemu: RealQEMU, dial: Dial) -> None:
    """Characters, numbers and ids of every kind come back as they went."""
    session = await dial(qemu.path())
    for ident in ("é\U0001f600\0", 0.1, 1.0, 1 << 63, -(1 << 63), None, {"b": [1, None], "a": ""}):
        message = session.make_execute_msg("query-name")
        message["id"] = ident
        reply = await session.execute_raw(message)
        assert reply["id"] == ident
    assert session.pending.unknown_replies == 0


@pytest_twisted.ensureDeferred
async def test_thousand_errors_without_id(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    told: list[ProtocolError] = []
    session.add_error_hook(told.append)
    before = session.execute("query-qmp-schema")
    session.write_raw(b"[" * 1100 + b"]" * 1100 + b"\n")
    after = [session.execute("query-status") for _ in range(20)]
    assert len(await before) > 1000
    assert [status["running"] for status in await gatherResults(after)] == [False] * 20
    assert session.parse_errors == 1027
    assert len(told) == 1027
    assert {type(error) for error in told} == {ServerParseError}
    assert (await session.execute("query-status"))["running"] is False


@pytest.mark.parametrize(
    ("sent", "errors"),
    [
        (b'{"execute": }', 1),
        (b'{"execute": "query-status", "arguments": {"a": NaN}}', 3),
        (b'{"execute": "\x01"}', 2),
        (b'{"execute": "\xff"}\n', 2),
        (b"[1, 2]\n", 1),
        (b'"text"\n', 1),
        (b"7\n", 1),
        (b"{}\n", 1),
        (b'{"execute": 7}', 1),
        (b'{"execute": "query-status", "extra": 1}', 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_raw_text(qemu: RealQEMU, dial: Dial, sent: bytes, errors: int) -> None:
    """QEMU's errors without an id go to the hook; the session and its commands live."""
    session = await dial(qemu.path())
    parallel = session.execute("query-commands")
    session.write_raw(sent)
    after = session.execute("query-status")
    assert len(await parallel) > 100
    assert (await after)["running"] is False
    assert session.parse_errors == errors


@pytest_twisted.ensureDeferred
async def test_one_suspect(qemu: RealQEMU, dial: Dial) -> None:
    """An error without an id, while one command only is in flight, is that command's."""
    session = await dial(qemu.path())
    duplicate(session)
    with pytest.raises(ServerParseError, match="duplicate key"):
        await session.execute("query-status")
    assert (await session.execute("query-name")) == {}


def duplicate(session: QMPProtocol) -> None:
    """Give the next command a member twice: that is JSON, but none that QEMU reads."""

    def tap(message: Message) -> Message:
        handle.cancel()
        return Message(bytes(message)[:-1] + b',"execute":"query-status"}')

    handle = session.taps.add_outbound(tap)


@pytest_twisted.ensureDeferred
async def test_half_a_command(qemu: RealQEMU, dial: Dial) -> None:
    """The other half makes it whole; what is sent between is swallowed by it."""
    session = await dial(qemu.path())
    session.write_raw(b'{"execute": "query-status", "id": "')
    session.write_raw(b'half"}')
    assert (await session.execute("query-name")) == {}
    assert session.pending.unknown_replies == 1
    session.write_raw(b'{"execute": ')
    lost = session.execute("query-status", timeout=0.1)
    with pytest.raises((TimeoutError, ServerParseError)):
        await lost
    await session.disconnect()
    with pytest.raises(DisconnectedError):
        await session.wait_for("STOP")
