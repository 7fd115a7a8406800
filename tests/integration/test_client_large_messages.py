"""Large replies and replies over many lines (facts G13, G14).

How the time grows with the size is printed by ``python tests/soak sizes``.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet import reactor

from soak import sizes
from support.qemu import RealQEMU
from support.sessions import Dial
from txqmp import MessageTooLongError, SessionSettings


pytest_plugins = ["support.sessions"]


@pytest_twisted.ensureDeferred
async def test_pretty(qemu_factory: Callable[..., RealQEMU], dial: Dial) -> None:
    qemu = qemu_factory(pretty=True)
    session = await dial(qemu.path())
    assert session.greeting is not None
    assert session.greeting.version[0] >= 7
    with session.listen("RESUME", "STOP") as events:
        await session.execute("cont")
        await session.execute("stop")
        assert [event.name for event in events.clear()] == ["RESUME", "STOP"]
    # Many commands at once: objects over many lines, one after another in one read.
    answers = [session.execute("query-status") for _ in range(50)]
    for answer in answers:
        assert (await answer)["running"] is False
    schema = await session.execute("query-qmp-schema")
    assert len(schema) > 1000
    with pytest.raises(Exception, match="CommandNotFound"):
        await session.execute("no-such-command")


@pytest_twisted.ensureDeferred
async def test_schema(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    schema = await session.execute("query-qmp-schema")
    assert len(json.dumps(schema)) > 200_000
    assert schema == qemu.execute("query-qmp-schema")


@pytest_twisted.ensureDeferred
async def test_many_schemas_at_once(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path())
    replies = [session.execute("query-qmp-schema") for _ in range(20)]
    first = await replies[0]
    for reply in replies[1:]:
        assert await reply == first


@pytest_twisted.ensureDeferred
async def test_twenty_megabytes(qemu_factory: Callable[..., RealQEMU], dial: Dial) -> None:
    qemu = qemu_factory("-m", "16", machine="pc")
    session = await dial(qemu.path())
    dump = session.execute("human-monitor-command", {"command-line": "xp /2800000xb 0"})
    status = session.execute("query-status")
    text = await dump
    assert len(text) > 20 * sizes.MEGABYTE
    assert text.count("0x00") > 2_000_000
    assert (await status)["running"] is False


@pytest_twisted.ensureDeferred
async def test_more_than_the_limit(qemu: RealQEMU, dial: Dial) -> None:
    session = await dial(qemu.path(), settings=SessionSettings(max_message=100_000))
    assert (await session.execute("query-status"))["running"] is False
    with pytest.raises(Exception, match="more than 100000 bytes") as caught:
        await session.execute("query-qmp-schema")
    assert isinstance(caught.value.__cause__, MessageTooLongError)
    # disconnect() tells it too, once.
    with pytest.raises(MessageTooLongError):
        await session.disconnect()
    await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_sizes() -> None:
    report = await sizes.run(reactor, 10)
    assert report.problems() == []
    assert [row.size // sizes.MEGABYTE for row in report.rows if row.peer != "QEMU"] == [5, 10]
