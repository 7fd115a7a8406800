"""The fleet only watches: nothing leaves its sessions but a few queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from support.deferreds import failure, success
from txqmp import InvalidCommandError, Message, QMPProtocol
from txqmp.fleet import HARMLESS, DialSource, Fleet, Record
from txqmp.fleet.readonly import WatchingFactory
from txqmp.observer import ask
from txqmp.testing import MemoryEndpoint, Pump, SimulatedVM


@pytest.fixture
def vm(clock: Clock) -> SimulatedVM:
    return SimulatedVM(clock)


@pytest.fixture
def pump(clock: Clock) -> Pump:
    return Pump(clock)


@pytest.fixture
def session(clock: Clock, vm: SimulatedVM, pump: Pump) -> Iterator[QMPProtocol]:
    factory = WatchingFactory(clock, backoff=None)
    factory.dial(MemoryEndpoint(pump, vm))
    pump()
    assert factory.session is not None
    yield factory.session
    factory.stop()
    pump()


def test_the_list() -> None:
    """Every name here can be sent to a VM of which nothing else is known: think before adding."""
    assert set(HARMLESS) == {"qmp_capabilities", "query-name", "query-uuid", "query-status"}


def test_harmless_commands_pass(session: QMPProtocol, pump: Pump) -> None:
    answers = ask(session, "query-status", "query-uuid")
    pump()
    snapshot = success(answers)
    assert snapshot.results["query-status"]["running"] is True
    assert set(snapshot.results) == {"query-status", "query-uuid"}
    assert snapshot.errors == {}


@pytest.mark.parametrize(
    "send",
    [
        lambda s: s.execute("quit"),
        lambda s: s.execute("query-commands"),
        lambda s: s.execute("human-monitor-command", {"command-line": "quit"}),
        lambda s: s.execute("query-status", {"a": 1}),
        lambda s: s.execute("query-status", oob=True),
        lambda s: s.execute_msg(Message({"execute": "stop"})),
        lambda s: s.execute_raw({"execute": "stop"}),
        lambda s: s.execute_raw({"exec-oob": "query-status"}),
        lambda s: s.execute_raw({"execute": ["query-status"]}),
        lambda s: s.execute_raw({"execute": "query-status", "control": {"run-oob": True}}),
        lambda s: s.execute_raw({}),
    ],
)
def test_nothing_else_passes(session: QMPProtocol, send: Any) -> None:
    transport: Any = session.transport
    before = transport.value()
    failure(send(session), InvalidCommandError)
    assert transport.value() == before


def test_out_of_band_does_not_pass_where_it_is_enabled(clock: Clock) -> None:
    """The fleet declines ``oob``; what is sent past the window is watched all the same."""
    factory = WatchingFactory(clock)
    session = factory.buildProtocol(None)
    assert session is not None
    transport = StringTransport()
    session.makeConnection(transport)
    session.dataReceived(
        json.dumps(
            {
                "QMP": {
                    "version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                    "capabilities": ["oob"],
                }
            }
        ).encode()
        + b"\n"
    )
    negotiation = json.loads(transport.value())
    session.dataReceived(json.dumps({"return": {}, "id": negotiation["id"]}).encode() + b"\n")
    assert session.oob_enabled
    transport.clear()
    failure(session.execute("query-status", oob=True), InvalidCommandError)
    assert transport.value() == b""
    session.abort()
    session.connectionLost()


def test_a_whole_life_sends_nothing_else(clock: Clock, vm: SimulatedVM, pump: Pump) -> None:
    records: list[Record] = []
    fleet = Fleet(clock, records.append)
    DialSource(fleet, MemoryEndpoint(pump, vm), "a").setServiceParent(fleet)
    fleet.startService()
    seen: list[str] = []
    for _ in range(3):
        pump.advance(10)
        (connection,) = pump.connections
        vm.pause()
        vm.resume()
        pump.advance(10)
        text = connection.client_transport.value()
        seen += [json.loads(line)["execute"] for line in text.splitlines()]
        vm.terminate()
        pump()
        vm.boot()
    assert set(seen) == HARMLESS
    fleet.stopService()
    pump.advance(10)


def test_what_is_asked_may_fail(session: QMPProtocol, vm: SimulatedVM, pump: Pump) -> None:
    answers = ask(session, "query-status", "stop")
    vm.kill()
    pump()
    snapshot = success(answers)
    assert snapshot.results == {}
    assert isinstance(snapshot.errors["stop"], InvalidCommandError)
    assert set(snapshot.errors) == {"query-status", "stop"}


def test_a_factory_that_is_stopped_makes_no_session(clock: Clock) -> None:
    factory = WatchingFactory(clock)
    success(factory.stop())
    assert not isinstance(factory.buildProtocol(None), QMPProtocol)


def test_tcp_peers_are_kept_alive(clock: Clock, vm: SimulatedVM) -> None:
    """A host that fell silent would never be noticed by who writes nothing."""
    factory = WatchingFactory(clock)
    session = factory.buildProtocol(None)
    assert session is not None

    class TCPTransport(StringTransport):
        kept_alive = False

        def setTcpKeepAlive(self, enabled: bool) -> None:
            self.kept_alive = enabled

    transport = TCPTransport()
    session.transport = transport
    factory.session_ready(session)
    assert transport.kept_alive
