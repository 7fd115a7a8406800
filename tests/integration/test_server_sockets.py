"""The server and the testing kit on real sockets: what no memory shows."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort

from support.deferreds import failure
from support.sessions import Dial
from support.waiting import until, within
from txqmp import (
    ConnectError,
    ConnectTimeoutError,
    DisconnectedError,
    RunState,
    SessionSettings,
    Timeouts,
)
from txqmp.server import QMPServerFactory
from txqmp.testing import (
    After,
    Close,
    Expect,
    Pretty,
    Reply,
    Reset,
    ScriptedServer,
    SimulatedVM,
    SplitWrites,
    Torn,
    greeting,
    identity,
)


pytest_plugins = ["support.sessions"]

reactor: Any = _reactor
Listen = Callable[..., Awaitable[str]]


@pytest_twisted.async_yield_fixture
async def listen(place: Path) -> AsyncIterator[Listen]:
    """Has a server listen, and returns where."""
    ports: list[IListeningPort] = []
    servers: list[Any] = []

    async def listen(server: Any, *, tcp: bool = False) -> str:
        path = f"{place}/{len(ports)}"
        if tcp:
            endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        else:
            endpoint = UNIXServerEndpoint(reactor, path, mode=0o600)
        port = await endpoint.listen(server)
        ports.append(port)
        servers.append(server)
        return f"tcp:127.0.0.1:{port.getHost().port}" if tcp else path

    yield listen
    for port in ports:
        await port.stopListening()
    for server in servers:
        if isinstance(server, QMPServerFactory):
            await within(server.disconnect_all())


@pytest.fixture
def blocking() -> Iterator[Callable[[str], socket.socket]]:
    """Makes clients that do nothing by themselves."""
    clients: list[socket.socket] = []

    def connect(path: str) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        clients.append(client)
        client.connect(path)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("oob", [True, False], ids=["oob", "no oob"])
@pytest_twisted.ensureDeferred
async def test_descriptors(listen: Listen, dial: Dial, oob: bool) -> None:
    """G32, G33: of a hundred commands at once each gets its own."""
    vm = SimulatedVM(reactor)
    session = await dial(await listen(vm), settings=SessionSettings(oob=oob))
    sources = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/zero") * 50]
    replies = [
        session.execute("getfd", {"fdname": f"n{number}"}, fds=[source])
        for number, source in enumerate(sources)
    ]
    await within(DeferredList(replies, fireOnOneErrback=True))
    for number, source in enumerate(sources):
        assert identity(vm.descriptors.named[f"n{number}"]) == identity(source)
        os.close(source)
    vm.descriptors.close()


@pytest_twisted.ensureDeferred
async def test_descriptors_of_one_receive(
    listen: Listen, blocking: Callable[[str], socket.socket]
) -> None:
    """G31: QEMU hands out one, and closes the rest."""
    vm = SimulatedVM(reactor)
    client = blocking(await listen(vm))
    with open("/dev/null") as null, open("/dev/zero") as zero:
        text = b'{"execute":"qmp_capabilities"}{"execute":"getfd","arguments":{"fdname":"a"}}'
        socket.send_fds(client, [text], [zero.fileno(), null.fileno()])
        await until(lambda: vm.descriptors.named)
        assert identity(vm.descriptors.named["a"]) == identity(zero.fileno())
        # One that was not claimed goes when another comes.
        socket.send_fds(client, [b" "], [zero.fileno()])
        socket.send_fds(client, [b'{"execute":"add-fd"}'], [null.fileno()])
        await until(lambda: vm.descriptors.sets)
        assert identity(vm.descriptors.sets[0][0].descriptor) == identity(null.fileno())
        socket.send_fds(client, [b" "], [zero.fileno()])
    vm.kill()


@pytest_twisted.ensureDeferred
async def test_who_does_not_read_is_cut_off(
    listen: Listen, dial: Dial, blocking: Callable[[str], socket.socket]
) -> None:
    vm = SimulatedVM(reactor, exclusive=False, max_output=1 << 20)
    path = await listen(vm)
    session = await dial(path)
    slow = blocking(path)
    slow.sendall(b'{"execute":"qmp_capabilities"}')
    await until(lambda: all(client.negotiated for client in vm.clients) and len(vm.clients) == 2)
    with session.listen("LOUD", limit=5000) as loud:
        for number in range(20):
            for _ in range(100):
                vm.send_event("LOUD", {"text": "x" * 1000})
            await until(lambda wanted=100 * (number + 1): len(loud) == wanted)
        await until(lambda: len(vm.clients) == 1)
    assert vm.cut_off == 1
    assert (await session.execute("query-status"))["running"]


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("ends_by", ["eof", "reset"])
@pytest_twisted.ensureDeferred
async def test_quit(listen: Listen, dial: Dial, ends_by: Any, tcp: bool) -> None:
    """G26: both ends are real."""
    vm = SimulatedVM(reactor, ends_by=ends_by)
    session = await dial(await listen(vm, tcp=tcp))
    assert await within(session.execute("quit")) == {}
    await within(session.when_state(RunState.IDLE))
    assert session.last_shutdown is not None
    end = failure(session.when_ready()).value
    assert ("closed" in str(end)) == (ends_by == "eof")


@pytest.mark.parametrize("how", [Close(), Reset()], ids=["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_the_end_within_a_message(listen: Listen, dial: Dial, how: Any) -> None:
    vm = SimulatedVM(reactor, faults=[Torn("query-name", 10, how)])
    session = await dial(await listen(vm))
    with pytest.raises(DisconnectedError, match="10 bytes of an unfinished message") as caught:
        await within(session.execute("query-name"))
    assert ("closed" in str(caught.value)) == (how == Close())


@pytest_twisted.ensureDeferred
async def test_one_client_at_a_time(
    listen: Listen, dial: Dial, blocking: Callable[[str], socket.socket]
) -> None:
    """G1: the second is connected and hears nothing; one that gave up meanwhile is passed over."""
    vm = SimulatedVM(reactor)
    path = await listen(vm)
    first = await dial(path)
    gone = blocking(path)
    await until(lambda: len(vm.waiting) == 1)
    gone.close()
    quick = SessionSettings(timeouts=Timeouts(greeting=0.1))
    with pytest.raises(ConnectTimeoutError):
        await dial(path, settings=quick)
    second = dial(path)
    await first.disconnect()
    session = await second
    assert await session.execute("query-name") == {}


@pytest_twisted.ensureDeferred
async def test_who_leaves_while_a_command_runs(listen: Listen, dial: Dial) -> None:
    """With out-of-band execution the server goes on reading, and sees it at once."""
    vm = SimulatedVM(reactor)
    path = await listen(vm)
    held = vm.hold("query-name")
    first = await dial(path)
    first.execute("query-name").addErrback(lambda _: None)
    await until(lambda: len(held))
    first.abort()
    assert (await (await dial(path)).execute("query-status"))["running"]
    held.release()
    assert vm.replies_dropped == 1


@pytest_twisted.ensureDeferred
async def test_freeze(listen: Listen, dial: Dial) -> None:
    """G5: as after SIGSTOP, and after SIGCONT the reply comes."""
    vm = SimulatedVM(reactor, exclusive=False)
    path = await listen(vm)
    session = await dial(path)
    vm.freeze()
    late = session.execute("query-name")
    with pytest.raises(ConnectTimeoutError):
        await dial(path, settings=SessionSettings(timeouts=Timeouts(greeting=0.1)))
    assert not late.called
    vm.thaw()
    assert await within(late) == {}


@pytest.mark.parametrize(
    "faults", [[SplitWrites(1)], [Pretty()], [Pretty(), SplitWrites(3)]], ids=["1", "p", "p3"]
)
@pytest_twisted.ensureDeferred
async def test_faults(listen: Listen, dial: Dial, faults: Any) -> None:
    """G13, G15."""
    session = await dial(await listen(SimulatedVM(reactor, faults=faults)))
    assert await within(session.execute("query-name")) == {}


@pytest_twisted.ensureDeferred
async def test_a_large_reply(listen: Listen, dial: Dial) -> None:
    """G14: larger than what is held for a client that does not read."""
    vm = SimulatedVM(reactor, max_output=1000)
    vm.hmp["info big"] = "x" * (11 << 20)
    session = await dial(await listen(vm))
    line = {"command-line": "info big"}
    assert len(await within(session.execute("human-monitor-command", line))) == 11 << 20
    assert len(await within(session.execute("query-qmp-schema"))) > 100


@pytest_twisted.ensureDeferred
async def test_many_large_replies_at_once(listen: Listen, dial: Dial) -> None:
    """More than is held for a client that does not read; this one reads."""
    vm = SimulatedVM(reactor, max_output=1 << 20)
    session = await dial(await listen(vm), settings=SessionSettings(window=100))
    replies = [session.execute("query-qmp-schema") for _ in range(50)]
    outcome = await within(DeferredList(replies, fireOnOneErrback=True))
    assert len(outcome) == 50
    assert vm.cut_off == 0


@pytest_twisted.ensureDeferred
async def test_disconnecting_a_client_that_does_not_read(
    listen: Listen, blocking: Callable[[str], socket.socket]
) -> None:
    vm = SimulatedVM(reactor, close_timeout=0.05)
    vm.hmp["info big"] = "x" * (11 << 20)
    client = blocking(await listen(vm))
    client.sendall(
        b'{"execute":"qmp_capabilities"}'
        b'{"execute":"human-monitor-command","arguments":{"command-line":"info big"}}'
    )
    await until(lambda: vm.commands_run == 2)
    await within(vm.disconnect_all())
    assert vm.clients == ()


@pytest_twisted.ensureDeferred
async def test_script(listen: Listen, dial: Dial) -> None:
    hello = [greeting(), Expect("qmp_capabilities"), Reply(), Expect("query-name")]
    server = ScriptedServer([Reset()], [*hello, Reply({"name": "a"}), Reset()], clock=reactor)
    path = await listen(server)
    with pytest.raises(ConnectError):
        await dial(path)
    session = await dial(path)
    assert await within(session.execute("query-name")) == {"name": "a"}
    await within(session.when_state(RunState.IDLE))
    assert "lost" in str(failure(session.when_ready()).value)


@pytest_twisted.ensureDeferred
async def test_demo(listen: Listen, dial: Dial) -> None:
    vm = SimulatedVM(reactor, faults=[After("STOP", {"event": "EXTRA"})])
    session = await dial(await listen(vm))
    with session.listen() as events:
        vm.run_demo(interval=0.01)
        names = [(await within(events.get())).name for _ in range(10)]
        vm.stop_demo()
    assert names[:3] == ["STOP", "EXTRA", "RESUME"]
    vm.kill()
    await within(session.when_state(RunState.IDLE))
