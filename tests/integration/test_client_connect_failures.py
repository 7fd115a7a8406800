"""Why no session came to be: each cause has its name (facts G1 to G5)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import UNIXClientEndpoint

from support.prepared import Prepared, before_command
from support.qemu import RealQEMU
from support.scripted import GREETING, Caller
from support.sessions import Dial, MakeFactory, MakePeer
from support.waiting import LIMIT, wait_stopped, within
from txqmp import (
    Backoff,
    ConnectError,
    ConnectFailure,
    GreetingError,
    NegotiationError,
    QMPProtocol,
    SessionSettings,
    Timeouts,
    connect,
)


pytest_plugins = ["support.sessions"]

SHORT = SessionSettings(timeouts=Timeouts(greeting=0.2))


async def failure(
    dial: Dial, where: object, settings: SessionSettings | None = None
) -> tuple[ConnectFailure, str]:
    """The kind of failure and its phase."""
    with pytest.raises(ConnectError) as caught:
        await dial(where, settings=settings or SessionSettings())
    error = caught.value
    assert error.__cause__ is not None or error.kind is ConnectFailure.SILENT
    return error.kind, error.phase


@contextmanager
def waiting_clients(path: str) -> Iterator[None]:
    """So many clients that the kernel takes no more: one that QEMU serves, and a full queue."""
    with ExitStack() as clients:
        served = clients.enter_context(socket.socket(socket.AF_UNIX))
        served.settimeout(LIMIT)
        served.connect(path)
        assert b"QMP" in served.recv(65536)  # from now on QEMU accepts nobody
        for _ in range(10):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(path) == errno.EAGAIN:
                break
        yield


# As both our own client and Twisted's find it.
both_clients = pytest.mark.parametrize(
    "place_of", [str, lambda path: UNIXClientEndpoint(reactor, path)], ids=["ours", "Twisted's"]
)


@both_clients
@pytest_twisted.ensureDeferred
async def test_absent(dial: Dial, place: Path, place_of: object) -> None:
    where = place_of(str(place / "absent.sock"))  # type: ignore[operator]
    assert await failure(dial, where) == (ConnectFailure.ABSENT, "connect")


@both_clients
@pytest_twisted.ensureDeferred
async def test_refused(qemu: RealQEMU, dial: Dial, place_of: object) -> None:
    """The socket's file is left over from a QEMU that was killed."""
    qemu.kill()
    assert os.path.exists(qemu.path())
    where = place_of(qemu.path())  # type: ignore[operator]
    assert await failure(dial, where) == (ConnectFailure.REFUSED, "connect")


@both_clients
@pytest_twisted.ensureDeferred
async def test_busy(qemu: RealQEMU, dial: Dial, place_of: object) -> None:
    where = place_of(qemu.path())  # type: ignore[operator]
    with waiting_clients(qemu.path()):
        assert await failure(dial, where) == (ConnectFailure.BUSY, "connect")


@pytest_twisted.ensureDeferred
async def test_busy_for_a_while(qemu: RealQEMU, make_factory: MakeFactory) -> None:
    """Who dials again and again comes through when the others have gone."""
    factory = make_factory(backoff=Backoff(initial=0.01))
    kinds: set[ConnectFailure] = set()
    factory.observe(failed=lambda error: kinds.add(error.kind))  # type: ignore[attr-defined]
    with waiting_clients(qemu.path()):
        factory.dial(qemu.path())
        with pytest.raises(ConnectError):
            await factory.when_ready(failures=3)
        assert kinds == {ConnectFailure.BUSY}
    session = await within(factory.when_ready())
    assert await session.execute("query-name") == {}


@pytest_twisted.ensureDeferred
async def test_silent(qemu: RealQEMU, dial: Dial) -> None:
    """The monitor is another client's: the second one connects, and is told nothing."""
    first = await dial(qemu.path())
    assert await failure(dial, qemu.path(), SHORT) == (ConnectFailure.SILENT, "greeting")
    second = connect(reactor, qemu.path())
    assert await first.execute("query-name") == {}
    assert not second.called
    await first.disconnect()
    # Now it is its turn.
    session = await within(second)
    assert await session.execute("query-name") == {}
    await session.disconnect()


@pytest_twisted.ensureDeferred
async def test_reset_in_the_queue(qemu: RealQEMU, dial: Dial) -> None:
    """QEMU dies before it accepts."""
    qemu.pause()
    wait_stopped(qemu.pid)
    waiting = failure(dial, Prepared(reactor, qemu.path(), lambda _: qemu.kill()))
    assert await waiting == (ConnectFailure.RESET, "greeting")


@pytest_twisted.ensureDeferred
async def test_reset_while_negotiating(qemu: RealQEMU, dial: Dial) -> None:
    """QEMU dies with our command unread."""

    def prepare(session: QMPProtocol) -> None:
        def stop() -> None:
            qemu.pause()
            wait_stopped(qemu.pid)
            reactor.callLater(0, qemu.kill)  # when the command is written

        before_command("qmp_capabilities", stop)(session)

    where = Prepared(reactor, qemu.path(), prepare)
    assert await failure(dial, where) == (ConnectFailure.RESET, "negotiation")


@pytest_twisted.ensureDeferred
async def test_closed(make_peer: MakePeer, dial: Dial) -> None:
    async def close(caller: Caller) -> None:
        caller.transport.loseConnection()

    async def greet_and_close(caller: Caller) -> None:
        caller.send(GREETING)
        await caller.receive()
        caller.transport.loseConnection()

    for script, phase in ((close, "greeting"), (greet_and_close, "negotiation")):
        peer = await make_peer(script)
        assert await failure(dial, peer.path) == (ConnectFailure.CLOSED, phase)


@pytest_twisted.ensureDeferred
async def test_not_a_socket(dial: Dial, place: Path) -> None:
    (place / "file").write_text("no socket")
    assert await failure(dial, place / "file") == (ConnectFailure.REFUSED, "connect")
    assert await failure(dial, place / "file" / "x") == (ConnectFailure.ABSENT, "connect")
    kind, _ = await failure(dial, place)
    assert kind is ConnectFailure.REFUSED


@contextmanager
def nobody_in_particular() -> Iterator[None]:
    """Have no more rights than others, for a moment, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest_twisted.ensureDeferred
async def test_denied(qemu: RealQEMU) -> None:
    os.chmod(qemu.path(), 0)
    with nobody_in_particular():
        connecting = connect(reactor, qemu.path())
    with pytest.raises(ConnectError, match="permission denied") as caught:
        await connecting
    assert caught.value.kind is ConnectFailure.DENIED


@pytest_twisted.ensureDeferred
async def test_refused_over_tcp(dial: Dial) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    assert await failure(dial, where) == (ConnectFailure.REFUSED, "connect")


@pytest_twisted.ensureDeferred
async def test_not_qmp(make_peer: MakePeer, dial: Dial) -> None:
    refused = {"error": {"class": "GenericError", "desc": "not you"}}

    async def refuse(caller: Caller) -> None:
        caller.send(GREETING)
        command = await caller.receive()
        caller.send({**refused, "id": command["id"]})

    for said in (
        b"220 mail.example ESMTP\r\n",
        b"[]\r\n",
        b'{"hello": "there"}\r\n',
        b"\xfe\xff\n",
    ):

        async def say(caller: Caller, said: bytes = said) -> None:
            caller.send(said)

        peer = await make_peer(say)
        with pytest.raises(GreetingError):
            await dial(peer.path)
    peer = await make_peer(refuse)
    with pytest.raises(NegotiationError, match="not you"):
        await dial(peer.path)


@pytest_twisted.ensureDeferred
async def test_cancelled(qemu: RealQEMU, dial: Dial) -> None:
    qemu.pause()
    connecting = connect(reactor, qemu.path())
    connecting.cancel()
    with pytest.raises(CancelledError):
        await connecting
    qemu.resume()
    assert await (await dial(qemu.path())).execute("query-name") == {}
