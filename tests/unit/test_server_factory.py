"""A QMP server: negotiation, commands in their order, errors in QEMU's words, events, and ends."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from txqmp.messages import NO_ID, Event
from txqmp.server import Call, CommandError, QMPServerFactory, QMPServerProtocol
from txqmp.server.protocol import OOB_LIMIT, QUEUE_LIMIT
from txqmp.testing import MemoryTransport


GENERIC = "GenericError"
NOT_FOUND = "CommandNotFound"


DEEP = json.loads("[" * 500 + "]" * 500)


class Client:
    """One end of a connection with a server: what is said to it, and what it says."""

    def __init__(self, factory: QMPServerFactory, *capabilities: str, negotiate: bool = True):
        self.protocol = factory.buildProtocol(None)
        assert self.protocol is not None
        self.transport = MemoryTransport()
        self.protocol.makeConnection(self.transport)
        self.capabilities = capabilities
        if negotiate:
            self.negotiate()

    def negotiate(self) -> None:
        self.heard()
        arguments = {"enable": list(self.capabilities)}
        assert self.ask({"execute": "qmp_capabilities", "arguments": arguments}) == [{"return": {}}]

    def say(self, *what: Any) -> None:
        for each in what:
            text = each if isinstance(each, bytes) else json.dumps(each).encode()
            self.protocol.dataReceived(text)

    def heard(self) -> list[dict[str, Any]]:
        """What the server has said since."""
        text = b""
        while pieces := self.transport.flush():
            text += b"".join(piece.data for piece in pieces)
        assert text.isascii()
        lines = text.split(b"\r\n")
        assert lines.pop() == b""
        return [json.loads(line) for line in lines]

    def ask(self, *what: Any) -> list[dict[str, Any]]:
        self.say(*what)
        return self.heard()

    @property
    def paused(self) -> bool:
        return self.transport.producerState == "paused"

    def leave(self) -> None:
        self.transport.lost()
        self.protocol.connectionLost(Failure(ConnectionDone()))


def run(name: str, ident: Any = NO_ID, **arguments: Any) -> dict[str, Any]:
    command: dict[str, Any] = {"execute": name}
    if arguments:
        command["arguments"] = arguments
    return command if ident is NO_ID else {**command, "id": ident}


def run_oob(name: str, ident: Any = NO_ID) -> dict[str, Any]:
    command: dict[str, Any] = {"exec-oob": name}
    return command if ident is NO_ID else {**command, "id": ident}


def error(desc: str, error_class: str = GENERIC) -> dict[str, Any]:
    return {"error": {"class": error_class, "desc": desc}}


def failed(name: str) -> dict[str, Any]:
    return error(f"The command {name} has failed unexpectedly")


@pytest.fixture
def factory(clock: Clock) -> QMPServerFactory:
    """A server with commands that return at once, wait, and fail."""
    factory = QMPServerFactory(clock, wall_clock=lambda: 1_234.5)
    factory.register("echo", lambda call, value=None: value)
    factory.register("fail", lambda call: fail(CommandError("No such thing", "DeviceNotFound")))
    return factory


def fail(problem: Exception) -> None:
    raise problem


class Waiting:
    """Commands that wait until the test lets them go."""

    def __init__(self, factory: QMPServerFactory) -> None:
        self.calls: list[tuple[Call, Deferred[Any]]] = []
        factory.register("wait", self.wait)
        factory.register("wait-oob", self.wait, oob=True)

    def wait(self, call: Call) -> Deferred[Any]:
        self.calls.append((call, Deferred()))
        return self.calls[-1][1]

    @property
    def ids(self) -> list[Any]:
        return [call.id for call, _ in self.calls]

    def go(self, value: Any = None, number: int = 0) -> None:
        self.calls.pop(number)[1].callback(value)


@pytest.fixture
def waiting(factory: QMPServerFactory) -> Waiting:
    return Waiting(factory)


# Greeting and negotiation


def test_greeting(clock: Clock) -> None:
    """S2."""
    factory = QMPServerFactory(clock, version=(1, 2, 3), package="mine", capabilities=("x-a",))
    client = Client(factory, negotiate=False)
    version = {"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": "mine"}
    assert client.heard() == [{"QMP": {"version": version, "capabilities": ["x-a"]}}]


def test_negotiation_mode(factory: QMPServerFactory) -> None:
    """S3, S4, G11."""
    client = Client(factory, negotiate=False)
    client.heard()
    words = "Expecting capabilities negotiation with 'qmp_capabilities'"
    assert client.ask(run("echo", 1)) == [{**error(words, NOT_FOUND), "id": 1}]
    assert client.ask(run("nothing")) == [error(words, NOT_FOUND)]
    assert not client.protocol.negotiated
    assert client.ask(run("qmp_capabilities", 2)) == [{"return": {}, "id": 2}]
    assert client.protocol.negotiated
    assert client.ask(run("echo", value=3)) == [{"return": 3}]
    words = "Capabilities negotiation is already complete, command ignored"
    assert client.ask(run("qmp_capabilities")) == [error(words, NOT_FOUND)]


@pytest.mark.parametrize(
    ("enable", "words"),
    [
        (["nonsense"], "Parameter 'null' does not accept value 'nonsense'"),
        (["x-mine", "oob"], "Capability oob not available"),
        ("oob", "Invalid parameter type for 'enable', expected: array"),
    ],
    ids=str,
)
def test_capabilities_that_are_refused(clock: Clock, enable: Any, words: str) -> None:
    """S9, S12: nothing is enabled, and another attempt may follow."""
    factory = QMPServerFactory(clock, capabilities=("x-mine",))
    client = Client(factory, negotiate=False)
    client.heard()
    assert client.ask(run("qmp_capabilities", enable=enable)) == [error(words)]
    assert not client.protocol.oob_enabled
    client.capabilities = ("x-mine",)
    client.negotiate()
    assert not client.protocol.oob_enabled


def test_oob_is_enabled_for_one_client_alone(factory: QMPServerFactory) -> None:
    assert Client(factory, "oob").protocol.oob_enabled
    assert not Client(factory).protocol.oob_enabled


# Reading


def test_a_stream_and_not_lines(factory: QMPServerFactory) -> None:
    """G15: no line ends, two at once, one spread over lines, one byte at a time."""
    client = Client(factory)
    assert client.ask(b'{"execute":"echo","id":1}') == [{"return": {}, "id": 1}]
    assert client.ask(run("echo", 2), run("echo", 3)) == [
        {"return": {}, "id": 2},
        {"return": {}, "id": 3},
    ]
    text = json.dumps(run("echo", "x", value=[1, {"a": None}]), indent=4).encode()
    assert client.ask(text.replace(b"\n", b"\r\n")) == [{"return": [1, {"a": None}], "id": "x"}]
    replies = [client.ask(bytes([byte])) for byte in text]
    assert replies[-1] == [{"return": [1, {"a": None}], "id": "x"}]
    assert not any(replies[:-1])


def test_what_is_not_json(factory: QMPServerFactory) -> None:
    """S10, G18: errors without an id, and then all is well."""
    client = Client(factory)
    assert client.ask(b'{"execute": }') == [error("JSON parse error, expecting value")]
    assert client.ask(b'{"execute":"ech\xff') == [error("JSON parse error, stray '\"ech\ufffd'")]
    assert len(client.ask(b"[" * 1100 + b"]" * 1100)) > 1
    assert client.ask(run("echo")) == [{"return": {}}]


def test_too_long(clock: Clock) -> None:
    factory = QMPServerFactory(clock, max_message=100)
    client = Client(factory)
    assert client.ask({"execute": "x" * 200})[0] == error("JSON token size limit exceeded")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([], error("QMP input must be a JSON object")),
        ({"id": 1}, {**error("QMP input lacks member 'execute'"), "id": 1}),
        ({"execute": 1}, error("QMP input member 'execute' must be a string")),
        (
            {"execute": "echo", "arguments": 1},
            error("QMP input member 'arguments' must be an object"),
        ),
        ({"execute": "echo", "x": 1}, error("QMP input member 'x' is unexpected")),
        ({"exec-oob": "echo"}, error("QMP input member 'exec-oob' is unexpected")),
        ({"execute": "none"}, error("The command none has not been found", NOT_FOUND)),
        ({"execute": "echo", "arguments": {"x": 1}}, error("Parameter 'x' is unexpected")),
    ],
    ids=str,
)
def test_malformed_commands(factory: QMPServerFactory, said: Any, answer: dict[str, Any]) -> None:
    """S5, S8, S12."""
    client = Client(factory)
    assert client.ask(said) == [answer]
    assert client.ask(run("echo")) == [{"return": {}}]


def test_malformed_out_of_band(factory: QMPServerFactory, waiting: Waiting) -> None:
    client = Client(factory, "oob")
    assert client.ask(run_oob("echo")) == [error("The command echo does not support OOB")]
    words = "QMP input member 'execute' clashes with 'exec-oob'"
    assert client.ask({"exec-oob": "wait-oob", "execute": "echo"}) == [error(words)]
    assert client.ask({"exec-oob": None}) == [error("QMP input member 'exec-oob' must be a string")]


# Replies


@pytest.mark.parametrize(
    "ident",
    [None, 0, "", "é😀", 0.1, True, [], {"a": [None]}, 2**64 - 1, DEEP],
    ids=["null", "0", "empty", "text", "float", "true", "list", "object", "large", "deep"],
)
def test_ids_come_back(factory: QMPServerFactory, ident: Any) -> None:
    """G17."""
    client = Client(factory)
    assert client.ask(run("echo", ident)) == [{"return": {}, "id": ident}]
    assert client.ask(run("nothing", ident))[0]["id"] == ident


def test_an_id_that_has_no_text(factory: QMPServerFactory) -> None:
    """QEMU reads 1e999 as an infinity, and writes what is no JSON."""
    client = Client(factory)
    assert client.ask(b'{"execute":"echo","id":1e999,"arguments":{"value":5}}') == [{"return": 5}]
    answer = error("No such thing", "DeviceNotFound")
    assert client.ask(b'{"execute":"fail","id":1e999}') == [answer]


def test_values(factory: QMPServerFactory) -> None:
    client = Client(factory)
    for value in (0, "", [], {}, False, [1, "é"]):
        assert client.ask(run("echo", value=value)) == [{"return": value}]
    assert client.ask(run("echo")) == [{"return": {}}]


def test_errors(factory: QMPServerFactory) -> None:
    assert Client(factory).ask(run("fail", 1)) == [
        {**error("No such thing", "DeviceNotFound"), "id": 1}
    ]


def test_coroutines_and_deferreds(factory: QMPServerFactory) -> None:
    gate: Deferred[int] = Deferred()

    @factory.command("add")
    async def add(call: Call, a: int, b: int) -> int:
        return a + b + await gate

    @factory.command("refuse")
    async def refuse(call: Call) -> None:
        raise CommandError("Never")

    client = Client(factory)
    assert client.ask(run("add", a=1, b=2)) == []
    gate.callback(3)
    assert client.heard() == [{"return": 6}]
    assert client.ask(run("refuse")) == [error("Never")]


def test_mistakes_of_handlers(factory: QMPServerFactory, logged_errors: LoggedErrors) -> None:
    """They are logged, and tell the client nothing."""
    factory.register("broken", lambda call: 1 / 0)
    factory.register("later", lambda call: Deferred.fromCoroutine(broken()))
    factory.register("nan", lambda call: float("nan"))
    after: list[str] = []

    @factory.command("afterwards")
    def afterwards(call: Call) -> None:
        call.after_reply(lambda: 1 / 0)
        call.after_reply(lambda: after.append("reply"))

    async def broken() -> None:
        raise ZeroDivisionError("a secret")

    client = Client(factory)
    assert client.ask(run("broken", 1)) == [{**failed("broken"), "id": 1}]
    assert client.ask(run("later", 2)) == [{**failed("later"), "id": 2}]
    assert client.ask(run("nan", 3)) == [{**failed("nan"), "id": 3}]
    assert client.ask(b'{"execute":"nan","id":1e999}') == [failed("nan")]
    assert client.ask(run("afterwards", 4), run("echo", 5)) == [
        {"return": {}, "id": 4},
        {"return": {}, "id": 5},
    ]
    assert after == ["reply"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 3


def test_calls(factory: QMPServerFactory) -> None:
    calls: list[Call] = []

    @factory.command("look", oob=True)
    def look(call: Call, /, **others: Any) -> None:
        calls.append(call)

    client = Client(factory, "oob")
    client.say(run("look", a=1), run_oob("look", 7))
    assert [call.name for call in calls] == ["look", "look"]
    assert [call.client for call in calls] == [client.protocol] * 2
    assert [dict(call.arguments) for call in calls] == [{"a": 1}, {}]
    assert [call.id for call in calls] == [NO_ID, 7]
    assert [call.oob for call in calls] == [False, True]
    assert factory.commands_run == 3


def test_after_the_reply(factory: QMPServerFactory) -> None:
    """It happens before the next command is run."""
    client = Client(factory)

    @factory.command("leave")
    def leave(call: Call) -> None:
        call.after_reply(lambda: factory.send_event("LEFT"))
        call.after_reply(call.client.abort)

    heard = client.ask(run("leave", 1), run("echo", 2))
    assert heard == []  # the abortion takes all with it
    assert [b"LEFT" in client.transport.value(), b'"id":2' in client.transport.value()] == [
        True,
        False,
    ]


def test_fallback(factory: QMPServerFactory) -> None:
    factory.commands.fallback = lambda call: [call.name, dict(call.arguments), call.oob]
    factory.commands.fallback_oob = lambda name: name == "urgent"
    client = Client(factory, "oob")
    assert client.ask(run("any-thing", call=1)) == [{"return": ["any-thing", {"call": 1}, False]}]
    assert client.ask(run_oob("urgent")) == [{"return": ["urgent", {}, True]}]
    assert client.ask(run_oob("other")) == [error("The command other does not support OOB")]
    assert client.ask(run("echo", value=1)) == [{"return": 1}]


def test_the_servers_own_command(factory: QMPServerFactory) -> None:
    with pytest.raises(ValueError, match="qmp_capabilities"):
        factory.register("qmp_capabilities", lambda call: None)
    with pytest.raises(ValueError, match="qmp_capabilities"):
        factory.command("qmp_capabilities")(lambda call: None)


# Order and flow


def test_one_at_a_time(factory: QMPServerFactory, waiting: Waiting) -> None:
    """G23: nothing more is read while a command runs."""
    client = Client(factory)
    assert client.ask(run("wait", 1), run("wait", 2), run("echo", 3), b"nil ") == []
    assert (waiting.ids, client.paused) == ([1], True)
    waiting.go("a")
    assert client.heard() == [{"return": "a", "id": 1}]
    assert (waiting.ids, client.paused) == ([2], True)
    waiting.go("b")
    assert client.heard() == [
        {"return": "b", "id": 2},
        {"return": {}, "id": 3},
        error("JSON parse error, invalid keyword 'nil'"),
    ]
    assert not client.paused


def test_out_of_band(factory: QMPServerFactory, waiting: Waiting) -> None:
    """S6, G22: up to eight wait behind the one that runs, and those out of band overtake."""
    client = Client(factory, "oob")
    client.say(*[run("wait", number) for number in range(QUEUE_LIMIT)])
    assert client.ask(run_oob("wait-oob", "x")) == []
    assert (waiting.ids, client.paused) == ([0, "x"], False)
    waiting.go("overtaken", 1)
    assert client.heard() == [{"return": "overtaken", "id": "x"}]
    client.say(run("wait", QUEUE_LIMIT))
    assert client.paused
    assert client.ask(run_oob("wait-oob", "y")) == []
    assert waiting.ids == [0]
    waiting.go()
    assert client.heard() == [{"return": {}, "id": 0}]
    assert waiting.ids == [1, "y"]
    assert not client.paused
    while waiting.calls:
        waiting.go()
    assert [reply["id"] for reply in client.heard()] == [1, "y", *range(2, QUEUE_LIMIT + 1)]


def test_errors_keep_their_turn(factory: QMPServerFactory, waiting: Waiting) -> None:
    """S12: what is malformed is answered in band; what is out of band, and refused, at once."""
    client = Client(factory, "oob")
    both = {"exec-oob": "wait-oob", "execute": "echo"}
    heard = client.ask(
        run("wait", 1), b"nil ", [], run("nothing", 2), both, run_oob("nothing", 3), {"exec-oob": 1}
    )
    assert heard == [
        {**error("The command nothing has not been found", NOT_FOUND), "id": 3},
        error("QMP input member 'exec-oob' must be a string"),
    ]
    waiting.go()
    assert client.heard() == [
        {"return": {}, "id": 1},
        error("JSON parse error, invalid keyword 'nil'"),
        error("QMP input must be a JSON object"),
        {**error("The command nothing has not been found", NOT_FOUND), "id": 2},
        error("QMP input member 'execute' clashes with 'exec-oob'"),
    ]


def test_not_too_many_out_of_band(factory: QMPServerFactory, waiting: Waiting) -> None:
    client = Client(factory, "oob")
    client.say(*[run_oob("wait-oob", number) for number in range(OOB_LIMIT + 1)])
    assert (len(waiting.calls), client.paused) == (OOB_LIMIT, True)
    waiting.go(number=5)
    assert (len(waiting.calls), client.paused) == (OOB_LIMIT, True)
    while waiting.calls:
        waiting.go()
    assert not client.paused
    assert len(client.heard()) == OOB_LIMIT + 1


def test_clients_do_not_wait_for_each_other(factory: QMPServerFactory, waiting: Waiting) -> None:
    slow, quick = Client(factory), Client(factory)
    slow.say(run("wait"))
    assert quick.ask(run("echo")) == [{"return": {}}]
    waiting.go()


@given(
    st.lists(st.sampled_from(["echo", "wait", "nothing", "malformed"]), max_size=25),
    st.booleans(),
    st.data(),
)
def test_replies_come_in_order(kinds: list[str], oob: bool, data: st.DataObject) -> None:
    """Whatever the commands, the pieces in which they come, and the time at which they end."""
    factory = QMPServerFactory(Clock())
    factory.register("echo", lambda call: None)
    waiting = Waiting(factory)
    client = Client(factory, *(["oob"] if oob else []))
    text = b"".join(
        b"nil " if kind == "malformed" else json.dumps(run(kind, number)).encode()
        for number, kind in enumerate(kinds)
    )
    while text or waiting.calls:
        if waiting.calls and (client.paused or not text or data.draw(st.booleans())):
            waiting.go()
        elif text:
            size = data.draw(st.integers(1, len(text)))
            client.say(text[:size])
            text = text[size:]
    heard = client.heard()
    expected = [NO_ID if kind == "malformed" else number for number, kind in enumerate(kinds)]
    assert [reply.get("id", NO_ID) for reply in heard] == expected


# Events


def test_events(factory: QMPServerFactory, waiting: Waiting) -> None:
    """S3, S7: to those who have negotiated, whole, even while a command runs."""
    stranger, client = Client(factory, negotiate=False), Client(factory)
    stranger.heard()
    client.say(run("wait"))
    event = factory.send_event("STOP")
    assert event.name == "STOP"
    factory.send_event("LEVEL", {"level": 11})
    stamp = {"seconds": 1234, "microseconds": 500_000}
    assert client.heard() == [
        {"event": "STOP", "timestamp": stamp},
        {"event": "LEVEL", "data": {"level": 11}, "timestamp": stamp},
    ]
    assert stranger.heard() == []
    stranger.negotiate()
    factory.publish(Event.make("RESUME"))
    assert [stranger.heard(), client.heard()] == [
        [{"event": "RESUME", "timestamp": {"seconds": -1, "microseconds": -1}}]
    ] * 2
    waiting.go()


def test_events_of_a_command_come_before_its_reply(factory: QMPServerFactory) -> None:
    """G25."""
    factory.register("stop", lambda call: ignore(factory.send_event("STOP")))
    client = Client(factory)
    assert [next(iter(message)) for message in client.ask(run("stop"))] == ["event", "return"]


def ignore(_: object) -> None:
    pass


# Descriptors


@pytest.fixture
def pipe() -> Any:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def give(client: Client, *descriptors: int) -> list[int]:
    """Have duplicates arrive, as they do before the bytes that they come with."""
    given = [os.dup(descriptor) for descriptor in descriptors]
    for descriptor in given:
        client.protocol.fileDescriptorReceived(descriptor)
    return given


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def taken(factory: QMPServerFactory) -> list[int]:
    """What the command ``take`` has taken."""
    taken: list[int] = []
    factory.register("take", lambda call: taken.append(call.take_descriptor()))
    return taken


def test_descriptors(factory: QMPServerFactory, taken: list[int], pipe: tuple[int, int]) -> None:
    client = Client(factory)
    assert IFileDescriptorReceiver.providedBy(client.protocol)
    given = give(client, *pipe)
    assert client.ask(run("take")) == [{"return": {}}]
    assert taken == given[:1]
    assert not is_open(given[1])
    assert client.ask(run("take")) == [error("No file descriptor supplied via SCM_RIGHTS")]
    os.close(taken[0])


def test_descriptors_nobody_takes(
    factory: QMPServerFactory, taken: list[int], pipe: tuple[int, int]
) -> None:
    """G31, G34: older ones are closed, and all when the client leaves."""
    client = Client(factory)
    (first,) = give(client, pipe[0])
    client.ask(run("echo"))
    assert is_open(first)
    (second,) = give(client, pipe[1])
    assert not is_open(first)
    client.say(b" ")
    client.leave()
    assert not is_open(second)
    (third,) = give(client, pipe[1])
    assert not is_open(third)


# The end


def test_disconnect(factory: QMPServerFactory, waiting: Waiting, clock: Clock) -> None:
    client = Client(factory)
    client.say(run("wait"), run("echo"))
    closed, again = client.protocol.disconnect(), client.protocol.disconnect()
    pending(closed)
    assert client.transport.disconnecting
    client.say(run("echo"))
    waiting.go()
    assert client.heard() == []
    assert (factory.commands_dropped, factory.replies_dropped) == (0, 1)
    client.leave()
    success(closed)
    success(again)
    success(client.protocol.disconnect())
    assert factory.clients == ()


def test_disconnecting_a_client_that_does_not_read(factory: QMPServerFactory, clock: Clock) -> None:
    client = Client(factory)
    client.say(run("echo", value="x" * 100_000), run("echo"))
    closed = client.protocol.disconnect()
    closed.addErrback(lambda failure: None)
    assert not client.transport.disconnecting
    clock.advance(2.9)
    assert not client.transport.aborted
    clock.advance(0.2)
    assert client.transport.aborted
    client.leave()
    success(closed)


def test_giving_up_a_disconnect(factory: QMPServerFactory) -> None:
    client = Client(factory)
    closed = client.protocol.disconnect()
    closed.addErrback(lambda failure: None)
    closed.cancel()
    client.leave()


def test_abort(factory: QMPServerFactory, clock: Clock) -> None:
    client = Client(factory)
    client.protocol.disconnect()
    client.protocol.abort()
    assert client.transport.aborted
    assert not clock.getDelayedCalls()
    client.leave()
    client.protocol.abort()


def test_who_leaves_cancels_nothing(factory: QMPServerFactory, waiting: Waiting) -> None:
    client = Client(factory, "oob")
    client.say(run("wait"), run("wait"), run_oob("wait-oob"))
    client.leave()
    assert len(waiting.calls) == 2
    waiting.go()
    waiting.go()
    assert waiting.calls == []
    assert (factory.commands_dropped, factory.replies_dropped) == (1, 2)
    factory.send_event("STOP")


def test_who_does_not_read_is_cut_off(factory: QMPServerFactory) -> None:
    factory.max_output = 1000
    slow, quick = Client(factory), Client(factory)
    slow.say(run("echo", value="x" * 100_000))
    for _ in range(20):
        factory.send_event("EVENT", {"text": "y" * 100})
        assert len(quick.heard()) == 1
    assert slow.transport.aborted
    assert not quick.transport.aborted
    assert factory.cut_off == 1
    assert slow.protocol.output_held == 0
    slow.leave()
    assert factory.clients == (quick.protocol,)


@pytest.mark.parametrize("oob", [False, True], ids=["no oob", "oob"])
def test_who_reads_slowly_is_served_slowly(factory: QMPServerFactory, oob: bool) -> None:
    """Commands wait while much is held: what is asked for all at once does not cut a client off."""
    factory.max_output = 1 << 20
    client = Client(factory, *(["oob"] if oob else []))
    value = "x" * 100_000
    client.say(b"".join(json.dumps(run("echo", n, value=value)).encode() for n in range(50)))
    assert client.paused
    assert client.protocol.output_held < 1 << 20
    assert factory.commands_run < 10
    assert [reply["id"] for reply in client.heard()] == list(range(50))
    assert not client.paused
    assert factory.cut_off == 0


def test_output_held(factory: QMPServerFactory) -> None:
    client = Client(factory)
    assert client.protocol.output_held == 0
    client.say(run("echo", value="x" * 100_000))
    factory.send_event("STOP")
    assert client.protocol.output_held > 0
    client.transport.flush()
    assert client.protocol.output_held == 0
    assert list(client.heard()[0]) == ["event", "timestamp"]


def test_disconnect_all(clock: Clock) -> None:
    factory = QMPServerFactory(clock, exclusive=True)
    clients = [Client(factory, negotiate=False) for _ in range(3)]
    closed = factory.disconnect_all()
    clients[0].leave()
    assert [client.transport.value() != b"" for client in clients] == [True, False, False]
    pending(closed)
    clients[1].leave()
    clients[2].leave()
    success(closed)
    success(factory.disconnect_all())


# One client at a time


def test_exclusive(clock: Clock) -> None:
    """G1: the others are connected, and hear nothing."""
    factory = QMPServerFactory(clock, exclusive=True)
    factory.register("echo", lambda call: None)
    first, second, third = (Client(factory, negotiate=False) for _ in range(3))
    assert len(first.heard()) == 1
    assert (second.heard(), third.heard()) == ([], [])
    assert second.paused
    assert factory.clients == (first.protocol,)
    assert factory.waiting == (second.protocol, third.protocol)
    second.say(run("qmp_capabilities", 1))
    assert second.heard() == []
    first.leave()
    assert [next(iter(message)) for message in second.heard()] == ["QMP", "return"]
    assert not second.paused
    assert third.heard() == []
    third.leave()
    second.leave()
    assert (factory.clients, factory.waiting) == ((), ())


def test_not_too_many_wait(clock: Clock) -> None:
    factory = QMPServerFactory(clock, exclusive=True, max_waiting=2)
    clients = [Client(factory, negotiate=False) for _ in range(3)]
    assert factory.buildProtocol(None) is None
    assert factory.refused == 1
    clients[2].leave()
    assert factory.buildProtocol(None) is not None


def test_a_client_that_leaves_while_it_waits(clock: Clock) -> None:
    factory = QMPServerFactory(clock, exclusive=True)
    first, second = (Client(factory, negotiate=False) for _ in range(2))
    closed = second.protocol.disconnect()
    assert second.transport.disconnecting
    first.leave()
    assert second.heard() == []
    second.leave()
    success(closed)


# Odds and ends


def test_the_clock_is_the_reactor_by_default() -> None:
    assert QMPServerFactory().clock is global_reactor


def test_the_protocol_tells_who_it_is(factory: QMPServerFactory) -> None:
    client = Client(factory)
    assert "memory" in repr(client.protocol)
    assert "None" in repr(QMPServerProtocol(factory))
    assert not client.protocol.leaving


def test_a_transport_that_cannot_abort(factory: QMPServerFactory) -> None:
    class ChildTransport(MemoryTransport):
        """That of a child process has no such method."""

        def __getattribute__(self, name: str) -> Any:
            if name == "abortConnection":
                raise AttributeError(name)
            return super().__getattribute__(name)

    transport = ChildTransport()
    protocol = factory.buildProtocol(None)
    assert protocol is not None
    protocol.makeConnection(transport)
    protocol.abort()
    assert transport.disconnecting
