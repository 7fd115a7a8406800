"""Servers that misbehave: each fault is what it says, and the session meets it as it should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from txqmp import (
    ConnectError,
    ConnectTimeoutError,
    DisconnectedError,
    ExecuteError,
    ExecuteTimeoutError,
    GreetingError,
    NegotiationError,
    ObjectTypeError,
    ProtocolError,
    QMPProtocol,
    RunState,
    ServerParseError,
    SessionSettings,
    Timeouts,
)
from txqmp.messages import Event
from txqmp.testing import (
    BAD_UTF8,
    BLANK_LINES,
    GARBAGE,
    IDLESS_ERROR,
    STALE_ERROR,
    STALE_SUCCESS,
    TWO_OBJECTS,
    After,
    Altered,
    Before,
    Close,
    Duplicate,
    Expect,
    Fault,
    Instead,
    JoinWrites,
    Late,
    NamedFault,
    Outgoing,
    Pause,
    Pretty,
    Pump,
    Refuse,
    Reply,
    Reset,
    ScriptedServer,
    Silence,
    SimulatedVM,
    SplitWrites,
    Torn,
    connect_in_memory,
    greeting,
    huge,
    idless_errors,
    malformed,
    silent,
    without_id,
    wrong_id,
)
from txqmp.testing.faults import apply
from txqmp.testing.steps import Player


STOP = Event.make("STOP", at=1)
QUICK = SessionSettings(timeouts=Timeouts(greeting=5, negotiation=5, command=5))


def connect(*faults: Fault, **options: Any) -> tuple[QMPProtocol, Pump, SimulatedVM]:
    """A session with a VM that has these faults."""
    clock = Clock()
    vm = SimulatedVM(clock, faults=faults)
    client, _, pump = connect_in_memory(vm, settings=QUICK, **options)
    return client, pump, vm


def execute(client: QMPProtocol, pump: Pump, cmd: str = "query-name") -> Deferred[Any]:
    reply = client.execute(cmd)
    pump()
    return reply


def works(client: QMPProtocol, pump: Pump) -> bool:
    """Whether a command is answered as it should be."""
    return bool(success(execute(client, pump, "query-uuid"))["UUID"])


# What a session bears


@pytest.mark.parametrize(
    "faults",
    [
        [Before("greeting", STOP)],
        [Before("greeting", *[STOP] * 50)],
        [Before("qmp_capabilities", STOP)],
        [Before("qmp_capabilities", STALE_SUCCESS)],
        [Before("qmp_capabilities", STALE_ERROR)],
        [Before("qmp_capabilities", {**STALE_SUCCESS, "id": None})],
        [Before("qmp_capabilities", {**STALE_ERROR, "id": None})],
        [Before("qmp_capabilities", {**STALE_SUCCESS, "id": "theirs-1"})],
        [Before("qmp_capabilities", {**STALE_ERROR, "id": 1}, STOP)],
        [Pretty()],
        [SplitWrites()],
        [SplitWrites(3, delay=0.01)],
        [JoinWrites()],
        [Pretty(), SplitWrites(5)],
        [Before("*", BLANK_LINES)],
        [Before("query-uuid", {"return": {}, "id": "nobody"})],
        [Duplicate("query-uuid")],
        [Before("query-uuid", {"neither": 1})],
        [Late("query-uuid", 1)],
        [Late("*", 1)],
        [Before("query-uuid", Pause(1), STOP)],
    ],
)
def test_a_session_bears_it(faults: list[Fault]) -> None:
    """G8, G9, G13, G15, G18."""
    client, pump, _ = connect(*faults)
    pump.advance(10)
    assert client.state is RunState.RUNNING
    for _ in range(2):
        reply = client.execute("query-uuid")
        pump.advance(3)
        assert success(reply)["UUID"]


def test_events_before_the_greeting_are_delivered() -> None:
    """G8."""
    clock = Clock()
    vm = SimulatedVM(
        clock, faults=[Before("greeting", STOP), Before("qmp_capabilities", STOP, times=1)]
    )
    client = QMPProtocol(clock)
    heard: list[str] = []
    client.subscribe(lambda event: heard.append(event.name))
    pump = Pump(clock)
    server = vm.buildProtocol(None)
    assert server is not None
    pump.join(client, server)
    pump()
    assert heard == ["STOP", "STOP"]
    client.abort()
    pump()


def test_a_thousand_errors_without_an_id() -> None:
    """G18."""
    client, pump, _ = connect(idless_errors("query-status"))
    first, second = client.execute("query-status"), client.execute("query-name")
    pump()
    assert success(first)["running"]
    assert success(second) == {}
    assert client.parse_errors == 1027


def test_an_error_without_an_id() -> None:
    """G18: it must mean the only command that is in flight."""
    client, pump, _ = connect(Instead("query-name", IDLESS_ERROR))
    failure(execute(client, pump), ServerParseError)
    assert works(client, pump)


def test_a_huge_reply() -> None:
    """G14."""
    client, pump, _ = connect(huge("query-name", 11 << 20))
    assert len(success(execute(client, pump))) == 11 << 20


# What it does not bear


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (silent("greeting"), ConnectTimeoutError),
        (silent("qmp_capabilities"), ConnectTimeoutError),
        (Before("greeting", GARBAGE), GreetingError),
        (Before("greeting", BAD_UTF8), GreetingError),
        (After("greeting", greeting()), GreetingError),
        (Before("qmp_capabilities", GARBAGE), NegotiationError),
        (malformed("qmp_capabilities", **IDLESS_ERROR), NegotiationError),
        (malformed("qmp_capabilities", error="text"), NegotiationError),
        (without_id("qmp_capabilities"), ConnectTimeoutError),
        (wrong_id("qmp_capabilities", 5), ConnectTimeoutError),
        (Instead("greeting", Close()), ConnectError),
        (Instead("greeting", Reset()), ConnectError),
        (Torn("greeting", 20, Close()), ConnectError),
        (Torn("qmp_capabilities", 5, Reset()), ConnectError),
    ],
)
def test_no_session(fault: Fault, error: type[Exception]) -> None:
    """G5, G9, G20: each phase ends, and says how."""
    client, pump, _ = connect(fault)
    ready = client.when_ready()
    pump.advance(20)
    assert client.state is RunState.IDLE
    failure(ready, error)


@pytest.mark.parametrize("text", [GARBAGE, BAD_UTF8, TWO_OBJECTS], ids=["line", "utf-8", "two"])
def test_what_breaks_a_session(text: bytes, logged_errors: LoggedErrors) -> None:
    """G20: a typed error, and nothing else is hurt."""
    client, pump, _ = connect(Before("query-name", text))
    error = failure(execute(client, pump), DisconnectedError).value
    assert isinstance(error.__cause__, ProtocolError)
    logged_errors.flush()


@pytest.mark.parametrize("then", [Close(), Reset()], ids=["close", "reset"])
def test_the_end_within_a_message(then: Close | Reset) -> None:
    client, pump, _ = connect(Torn("query-name", 10, then))
    error = failure(execute(client, pump), DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert "10 bytes of an unfinished message" in str(error)
    assert ("closed" in error.reason) == (then == Close())


def test_the_end_after_a_message() -> None:
    client, pump, _ = connect(After("query-name", Reset()))
    assert success(execute(client, pump)) == {}
    assert client.state is RunState.IDLE


@pytest.mark.parametrize(
    "members",
    [{"error": "text"}, {"error": {}}, {"return": {}, "error": {"class": "a", "desc": "b"}}],
    ids=str,
)
def test_malformed_replies(members: dict[str, Any]) -> None:
    client, pump, vm = connect(malformed("query-name", **members))
    failure(execute(client, pump), ObjectTypeError)
    assert works(client, pump)
    vm.faults.clear()
    assert success(execute(client, pump)) == {}


def test_silence_and_time_limits() -> None:
    client, pump, _ = connect(silent("query-name"))
    reply = execute(client, pump)
    pump.advance(4)
    pending(reply)
    pump.advance(2)
    failure(reply, ExecuteTimeoutError)
    reply = execute(client, pump, "query-uuid")
    pump.advance(6)
    failure(reply, ExecuteTimeoutError)


def test_late_replies() -> None:
    """G6, G29: swallowed, and nothing is confused."""
    client, pump, _ = connect(Late("query-name", 10, times=1))
    reply = execute(client, pump)
    pump.advance(6)
    failure(reply, ExecuteTimeoutError)
    pump.advance(6)
    assert client.pending.late_replies == 1
    assert success(execute(client, pump)) == {}


# The faults themselves


def message(name: str = "query-name", **members: Any) -> Outgoing:
    text = json.dumps(members or {"return": {}, "id": 1}).encode() + b"\r\n"
    return Outgoing(name, "reply", text)


def test_names_and_times() -> None:
    fault = Before("query-*", b"x", times=2)
    assert list(fault.change(message("stop"))) == [message("stop")]
    for _ in range(2):
        assert list(fault.change(message())) == [b"x", message()]
    assert list(fault.change(message())) == [message()]


def test_faults_work_in_order() -> None:
    extra = {"return": 1}
    plan = apply([Duplicate("*"), After("*", extra), SplitWrites(100)], message())
    assert len(plan) == 4
    assert apply([Before("*", STOP, Silence())], message())[0] == (
        b'{"event":"STOP","timestamp":{"seconds":1,"microseconds":0}}\r\n'
    )
    assert apply([], message()) == [message().data]
    assert apply([Fault()], message()) == [message().data]


def test_alterations() -> None:
    def altered(fault: Fault) -> Any:
        (step,) = apply([fault], message())
        assert isinstance(step, bytes)
        return json.loads(step)

    assert altered(malformed("*", error=1)) == {"error": 1, "id": 1}
    assert altered(malformed("*")) == {"id": 1}
    assert altered(without_id("*")) == {"return": {}}
    assert altered(wrong_id("*", None)) == {"return": {}, "id": None}
    assert altered(huge("*", 3)) == {"return": "xxx", "id": 1}
    assert apply([Altered("*", lambda _: b"raw")], message()) == [b"raw"]
    assert apply([malformed("*")], message(**{"return": 1})) == [b"{}\r\n"]


def test_an_own_fault() -> None:
    class Backwards(NamedFault):
        def befall(self, message: Outgoing) -> Any:
            return [message.data[::-1]]

    assert apply([Backwards("query-name")], message()) == [message().data[::-1]]
    with pytest.raises(NotImplementedError):
        apply([NamedFault("*")], message())


def test_resets_are_known_beforehand() -> None:
    """Over a UNIX socket the server has to read byte by byte."""
    assert Torn("*", 1, Reset()).resets
    assert After("quit", Reset()).resets
    assert not any(fault.resets for fault in (Torn("*", 1, Close()), Before("*", b""), Pretty()))


def test_pretty_spreads_over_lines() -> None:
    (step,) = apply([Pretty()], message())
    assert isinstance(step, bytes)
    assert step.count(b"\r\n") == step.count(b"\n") == 4


def test_joined_writes() -> None:
    """Several messages in one piece."""
    client, pump, vm = connect(JoinWrites(within=1))
    pump.advance(10)
    received: list[int] = []
    inner = client.dataReceived

    def data_received(data: bytes) -> None:
        received.append(len(data))
        inner(data)

    client.dataReceived = data_received  # type: ignore[method-assign]
    heard: list[str] = []
    client.subscribe(lambda event: heard.append(event.name))
    vm.send_event("STOP")
    pump.advance(0.5)
    vm.send_event("RESUME")
    reply = execute(client, pump)
    assert received == []
    pump.advance(0.6)
    assert success(reply) == {}
    assert len(received) == 1
    assert heard == ["STOP", "RESUME"]


# The player


class Played:
    """What a player has written, and how it ended."""

    def __init__(self, limit: int = 100) -> None:
        self.clock = Clock()
        self.written: list[bytes] = []
        self.ends: list[Any] = []
        self.player = Player(self.written.append, self.ends.append, lambda: self.clock, limit)


def test_player() -> None:
    played = Played()
    played.player.play([b"a", Pause(1), b"b", {"c": 1}])
    played.player.play([STOP])
    assert played.written == [b"a"]
    played.clock.advance(1)
    assert played.written[1:3] == [b"b", b'{"c":1}\r\n']
    assert b"STOP" in played.written[3]
    played.player.play([Pause(1), Close(), b"never"])
    played.clock.advance(1)
    played.player.play([b"never"])
    assert (len(played.written), played.ends, played.player.silent) == (4, [Close()], True)


def test_player_silence() -> None:
    played = Played()
    played.player.play(apply([JoinWrites(1)], message()))
    played.player.play([Silence(), b"never"])
    assert played.written == [message().data]
    assert not played.clock.getDelayedCalls()


def test_player_holds() -> None:
    played = Played()
    played.player.play([Pause(1), b"a"])
    played.player.hold()
    played.clock.advance(1)
    played.player.play([b"b"])
    assert played.written == []
    played.player.release()
    assert played.written == [b"a", b"b"]


def test_player_stops() -> None:
    played = Played()
    played.player.play([*apply([JoinWrites(1)], message()), Pause(1), b"a"])
    played.player.stop()
    played.clock.advance(5)
    assert played.written == []


def test_player_that_has_too_much_to_do() -> None:
    played = Played(limit=4)
    played.player.play([Pause(1), b"a", b"b", b"c"])
    played.player.play([b"d"])
    assert played.ends == []
    played.player.play([b"e"])
    played.clock.advance(1)
    assert (played.written, played.ends) == ([], [Reset()])


def test_player_that_is_stopped_while_it_writes() -> None:
    played = Played()

    def write(data: bytes) -> None:
        played.written.append(data)
        player.stop()

    player = Player(write, played.ends.append, lambda: played.clock)
    player.play(apply([SplitWrites(1)], message()))
    assert (len(played.written), played.clock.getDelayedCalls()) == (1, [])


# Scripts


def talk(*scripts: Any, **options: Any) -> tuple[QMPProtocol, Pump, ScriptedServer]:
    server = ScriptedServer(*scripts, clock=Clock())
    client, _, pump = connect_in_memory(server, settings=QUICK, **options)
    return client, pump, server


HELLO = [greeting(), Expect("qmp_capabilities"), Reply()]


def test_script() -> None:
    client, pump, server = talk(
        [*HELLO, Expect("query-name"), STOP, Reply({"name": "x"}), Expect(), Refuse("No", "Odd")]
    )
    assert client.state is RunState.RUNNING
    assert success(execute(client, pump)) == {"name": "x"}
    error = failure(execute(client, pump, "anything"), ExecuteError).value
    assert isinstance(error, ExecuteError)
    assert (error.desc, error.error_class) == ("No", "Odd")
    names = [command["execute"] for command in server.received]
    assert names == ["qmp_capabilities", "query-name", "anything"]
    assert server.surprises == []


def test_script_with_pauses_and_an_end() -> None:
    client, pump, _ = talk([Pause(1), greeting(), Expect(), Pause(1), Reply(), Pause(1), Reset()])
    pump.advance(2.5)
    assert client.state is RunState.RUNNING
    pump.advance(1)
    assert client.state is RunState.IDLE
    client, pump, _ = talk([*HELLO, Close()])
    assert client.state is RunState.IDLE


def test_script_with_another_for_the_next() -> None:
    clock = Clock()
    server = ScriptedServer([Close()], HELLO, clock=clock)
    clients = [connect_in_memory(server, clock, settings=QUICK).client for _ in range(3)]
    assert [client.state for client in clients] == [
        RunState.IDLE,
        RunState.RUNNING,
        RunState.RUNNING,
    ]
    assert server.connections == 3


def test_script_surprised() -> None:
    client, pump, server = talk([*HELLO, Expect("query-name"), Reply()])
    pending(execute(client, pump, "query-uuid"))
    ((expected, command),) = server.surprises
    assert (expected, command["execute"]) == (Expect("query-name"), "query-uuid")


def test_script_without_ids_and_with_descriptors() -> None:
    with open("/dev/null") as null:
        client, pump, server = talk([*HELLO, Expect("getfd"), Reply(1), Expect(), Reply(2)])
        reply = client.execute("getfd", {"fdname": "a"}, fds=[null])
        pump()
        assert success(reply) == 1
    nameless = client.execute_raw({"exec-oob": "b"}, assign_id=False)
    client.write_raw(b"nil [1]")
    pump()
    assert success(nameless)["return"] == 2
    assert len(server.received) == 3
    client.abort()
    pump()


def test_script_on_any_transport() -> None:
    """On a socket that is to be reset, bytes are read one by one."""
    for script, size in (([greeting(), Reset()], 1), ([greeting()], 65536)):
        transport: Any = StringTransport()
        transport.bufferSize = 65536
        transport.startWriting = lambda: None
        protocol = ScriptedServer(script, clock=Clock()).buildProtocol(None)
        protocol.makeConnection(transport)
        assert transport.bufferSize == size
        assert b"QMP" in transport.value()
    assert ScriptedServer([]).clock is global_reactor


def test_simulated_vm_reads_byte_by_byte_if_it_is_to_reset() -> None:
    for vm, size in (
        (SimulatedVM(Clock(), ends_by="reset"), 1),
        (SimulatedVM(Clock(), faults=[After("quit", Reset())]), 1),
        (SimulatedVM(Clock()), 65536),
    ):
        transport: Any = StringTransport()
        transport.bufferSize = 65536
        protocol = vm.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(transport)
        assert transport.bufferSize == size
        protocol.connectionLost()
