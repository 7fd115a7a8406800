"""The simulated VM answers as a real QEMU does: to the same inputs, the same, in the same order."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from support.holdup import HoldUp, held_up
from support.qemu import RealQEMU
from support.waiting import until
from txqmp.testing import SimulatedVM


pytest_plugins = ["support.sessions"]

reactor: Any = _reactor

CAPABILITIES = b'{"execute":"qmp_capabilities","id":"BEGIN"}'
WITH_OOB = b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":"BEGIN"}'


class RawClient(Protocol):
    """Collects the objects that come."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.messages: list[dict[str, Any]] = []
        self.closed: Deferred[None] = Deferred()
        self._rest = b""
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.lines.append(line)
            self.messages.append(json.loads(line))
            done = [waiter for waiter in self._waiters if waiter[0]()]
            self._waiters = [waiter for waiter in self._waiters if waiter not in done]
            for _, waiting in done:
                waiting.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.closed.callback(None)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def until(self, condition: Callable[[dict[str, Any]], bool], times: int = 1) -> Deferred[None]:
        """Wait until so many such messages have come."""
        waiting: Deferred[None] = Deferred()
        self._waiters.append((lambda: sum(map(condition, self.messages)) >= times, waiting))
        return waiting

    async def reply(self, ident: str) -> list[dict[str, Any]]:
        """The messages up to the reply with this id, which is left out."""
        await self.until(lambda message: message.get("id") == ident)
        messages, self.messages = self.messages[:-1], []
        return messages

    async def ask(self, data: bytes) -> list[dict[str, Any]]:
        """What is answered to an input: all that comes before the reply to a command after it."""
        self.write(data + b'\n{"execute":"query-name","id":"END"}\n')
        return await self.reply("END")

    async def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        await self.closed


@pytest.fixture(scope="module")
def real() -> Iterator[RealQEMU]:
    with RealQEMU() as qemu:
        yield qemu


class Listening:
    """A simulated VM on a real socket."""

    def __init__(self, vm: SimulatedVM, path: str) -> None:
        self.vm = vm
        self.path = path
        self._port: IListeningPort | None = None

    async def start(self) -> Listening:
        self._port = await UNIXServerEndpoint(reactor, self.path, mode=0o600).listen(self.vm)
        return self

    async def stop(self) -> None:
        assert self._port is not None
        await self._port.stopListening()
        await self.vm.disconnect_all()


@pytest_twisted.async_yield_fixture
async def simulated(place: Path) -> Any:
    listening = await Listening(SimulatedVM(reactor, running=False), f"{place}/vm").start()
    yield listening
    await listening.stop()


async def dial(path: str, *, negotiate: bytes | None = CAPABILITIES) -> RawClient:
    client = await connectProtocol(UNIXClientEndpoint(reactor, path), RawClient())
    await client.until(lambda message: "QMP" in message)
    if negotiate is not None:
        client.write(negotiate)
        await client.reply("BEGIN")
    client.messages.clear()
    return client


def comparable(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages without what is not the same twice, not even with QEMU."""
    return [{key: message[key] for key in message if key != "timestamp"} for message in messages]


async def same_answers(
    real: RealQEMU, simulated: Listening, data: bytes, *, negotiate: bytes | None
) -> list[dict[str, Any]]:
    answers = []
    for path in (real.path(), simulated.path):
        client = await dial(path, negotiate=negotiate)
        answers.append(comparable(await client.ask(data)))
        assert all(line.isascii() and line.endswith(b"\r") for line in client.lines)
        await client.close()
    theirs, ours = answers
    assert ours == theirs
    return theirs


# What every command mode answers. The ids of the tests name the obligations of the specification.
IN_COMMAND_MODE = {
    "S5 an empty object": b'{"execute":"query-name"}',
    "S5 id": b'{"execute":"query-name","id":7}',
    "S5 id null": b'{"execute":"query-name","id":null}',
    "S5 id of any type": b'{"execute":"query-name","id":[1,{"a":[true,null]},"x"]}',
    "S5 a number as id": b'{"execute":"query-name","id":0.1}',
    "S5 a whole float as id": b'{"execute":"query-name","id":1e2}',
    "S5 a large id": b'{"execute":"query-name","id":18446744073709551615}',
    "S5 a too large id": b'{"execute":"query-name","id":18446744073709551616}',
    "S1 an id that is not ASCII": '{"execute":"query-name","id":"é😀\u007f/"}'.encode(),
    "S1 an id with escapes": rb'{"execute":"query-name","id":"\u00e9\ud83d\ude00\n\u0000\/"}',
    "S5 id of an error": b'{"execute":"nothing","id":{"b":1,"a":2}}',
    "S5 unknown": b'{"execute":"nothing"}',
    "S5 unknown, empty": b'{"execute":""}',
    "S5 unknown, other case": b'{"execute":"Query-Name"}',
    "S5 unknown, not ASCII": '{"execute":"qüery"}'.encode(),
    "S5 unknown, with arguments": b'{"execute":"nothing","arguments":{"a":1}}',
    "S6 order": b'{"execute":"query-name","id":1}{"execute":"x","id":2}[]{"execute":"stop","id":3}',
    "S6 errors in order": b'{"execute":"query-name","id":1}}{"execute":"query-name","id":2}',
    "S6 blank lines and none": b'\r\n\n{"execute":\n"query-name"}\t \n{"execute":"query-name"}',
    "S8 missing": b'{"execute":"getfd"}',
    "S8 of the wrong type": b'{"execute":"getfd","arguments":{"fdname":5}}',
    "S8 null": b'{"execute":"getfd","arguments":{"fdname":null}}',
    "S8 unexpected": b'{"execute":"getfd","arguments":{"fdname":"a","x":1}}',
    "S8 unexpected, no other": b'{"execute":"query-name","arguments":{"x":1}}',
    "S8 missing and unexpected": b'{"execute":"getfd","arguments":{"x":1}}',
    "S8 a float": b'{"execute":"remove-fd","arguments":{"fdset-id":1.0}}',
    "S8 a large integer": b'{"execute":"remove-fd","arguments":{"fdset-id":9223372036854775808}}',
    "S8 a boolean": b'{"execute":"remove-fd","arguments":{"fdset-id":true}}',
    "S8 an underscore": b'{"execute":"remove-fd","arguments":{"fdset_id":1}}',
    "S8 no descriptor": b'{"execute":"getfd","arguments":{"fdname":"a"}}',
    "S8 no descriptor, add-fd": b'{"execute":"add-fd","arguments":{"fdset-id":-1}}',
    "S8 no such descriptor": b'{"execute":"closefd","arguments":{"fdname":"a"}}',
    "S8 no such set": b'{"execute":"remove-fd","arguments":{"fdset-id":1,"fd":2}}',
    "S8 no such job": b'{"execute":"job-cancel","arguments":{"id":"a"}}',
    "S8 no such block job": b'{"execute":"block-job-cancel","arguments":{"device":"a"}}',
    "S8 no such node": b'{"execute":"blockdev-del","arguments":{"node-name":"a"}}',
    "HMP, unknown": b'{"execute":"human-monitor-command","arguments":{"command-line":"foo"}}',
    "S9 oob is off": b'{"exec-oob":"query-yank","id":1}',
    "S9 oob is off, in both ways": b'{"execute":"query-name","exec-oob":"query-name"}',
    "S10 a control character": b'{"execute":\x01"query-name"}',
    "S10 0xFF": b'{"execute":"query-n\xff',
    "S10 after half a command": b'{"execute":"query-name","arguments":{"a":"\x00',
    "S11 single quotes": b"{'execute':'query-name','id':'it\\'s'}",
    "S12 a number": b"5 ",
    "S12 null": b"null ",
    "S12 a string": b'"query-name" ',
    "S12 an array": b'[{"execute":"query-name"}]',
    "S12 no execute": b"{}",
    "S12 no execute, an id": b'{"id":"x"}',
    "S12 arguments alone": b'{"arguments":{}}',
    "S12 execute of the wrong type": b'{"execute":1,"id":1}',
    "S12 execute is null": b'{"execute":null}',
    "S12 arguments are an array": b'{"execute":"query-name","arguments":[]}',
    "S12 arguments are null": b'{"execute":"query-name","arguments":null,"id":1}',
    "S12 an extra member": b'{"execute":"query-name","extra":1,"id":1}',
    "S12 a member of other case": b'{"EXECUTE":"query-name"}',
    "S12 another handshake": CAPABILITIES.replace(b"BEGIN", b"x"),
    "S12 another handshake, a fake": b'{"execute":"qmp_capabilities","arguments":{"enable":["x"]}}',
    "S12 a handshake out of band": b'{"exec-oob":"qmp_capabilities","id":1}',
    "G18 no value": b'{"execute": }',
    "G18 not a number": b'{"execute":NaN}',
    "G18 too deep": b"[" * 1100 + b"]" * 1100,
    "G18 a control character in a string": b'{"execute":"query\x1fname"}',
    "G20 bad UTF-8": b'{"execute":"\xc3\x28"}',
    "G20 a lone surrogate": rb'{"execute":"query-name","id":"\ud800"}',
    "a key twice": b'{"execute":"query-name","id":1,"id":2}',
    "a bad escape": rb'{"execute":"query-name","id":"\x41"}',
    "a keyword": b'{"execute":nil}',
    "a comma too much": b'{"execute":"query-name",}',
    "a colon too few": b'{"execute" "query-name"}',
    "a key that is no string": b'{1:"query-name"}',
    "brackets crossed": b'{"execute":["query-name"}]',
}

IN_NEGOTIATION_MODE = {
    "S3 a command": b'{"execute":"query-name","id":1}',
    "S3 an unknown command": b'{"execute":"nothing"}',
    "S3 out of band": b'{"exec-oob":"query-yank","id":1}',
    "S3 not an object": b"[]",
    "S3 not JSON": b"nil ",
    "S3 an extra member": b'{"execute":"query-name","x":2}',
    "S3 of the wrong type": b'{"execute":5,"id":5}',
    "S4 negotiation, a command": b'{"execute":"qmp_capabilities"}{"execute":"query-name","id":1}',
    "S4 twice": b'{"execute":"qmp_capabilities"}{"execute":"qmp_capabilities","id":1}',
    "S4 a bad start": b'{"execute":"qmp_capabilities","arguments":{"x":1}}' + CAPABILITIES,
    "S12 a fake capability": b'{"execute":"qmp_capabilities","arguments":{"enable":["x"]},"id":1}',
    "S12 a fake among others": b'{"execute":"qmp_capabilities","arguments":{"enable":["oob","x"]}}',
    "S12 not a list": b'{"execute":"qmp_capabilities","arguments":{"enable":"oob"}}',
    "S12 null": b'{"execute":"qmp_capabilities","arguments":{"enable":null}}',
    "S12 not names": b'{"execute":"qmp_capabilities","arguments":{"enable":[1]}}',
    "S12 the same twice": b'{"execute":"qmp_capabilities","arguments":{"enable":["oob","oob"]}}',
    "S9 oob from now on": WITH_OOB.replace(b"BEGIN", b"x") + b'{"exec-oob":"nothing","id":1}',
}

WITH_OOB_ENABLED = {
    "S6 not out of band": b'{"exec-oob":"query-name","id":1}',
    "S6 out of band": b'{"exec-oob":"migrate-pause","id":1}',
    "S6 without an id": b'{"exec-oob":"migrate-pause"}',
    "S6 in band all the same": b'{"execute":"migrate-pause","id":1}',
    "S5 unknown": b'{"exec-oob":"nothing"}',
    "S8 unexpected": b'{"exec-oob":"query-yank","arguments":{"a":1},"id":1}',
    "S12 of the wrong type": b'{"exec-oob":5,"id":3}',
    "S12 arguments": b'{"exec-oob":"query-yank","arguments":1,"id":1}',
    "S12 an extra member": b'{"exec-oob":"query-yank","x":1,"id":1}',
    "S12 in both ways": b'{"exec-oob":"query-yank","execute":"query-name","id":1}',
    "S12 another handshake": b'{"exec-oob":"qmp_capabilities","id":1}',
    "G18 an error in order": b'{"execute":"query-name","id":1}nil {"execute":"query-name","id":2}',
}


@pytest.mark.parametrize("data", IN_COMMAND_MODE.values(), ids=IN_COMMAND_MODE)
@pytest_twisted.ensureDeferred
async def test_command_mode(real: RealQEMU, simulated: Listening, data: bytes) -> None:
    await same_answers(real, simulated, data, negotiate=CAPABILITIES)


@pytest.mark.parametrize("data", IN_NEGOTIATION_MODE.values(), ids=IN_NEGOTIATION_MODE)
@pytest_twisted.ensureDeferred
async def test_negotiation_mode(real: RealQEMU, simulated: Listening, data: bytes) -> None:
    await same_answers(real, simulated, data, negotiate=None)


@pytest.mark.parametrize("data", WITH_OOB_ENABLED.values(), ids=WITH_OOB_ENABLED)
@pytest_twisted.ensureDeferred
async def test_with_oob(real: RealQEMU, simulated: Listening, data: bytes) -> None:
    await same_answers(real, simulated, data, negotiate=WITH_OOB)


@pytest_twisted.ensureDeferred
async def test_greeting(real: RealQEMU, simulated: Listening) -> None:
    """S2: the same shape; version and package are each one's own."""
    greetings = []
    for path in (real.path(), simulated.path):
        client = await connectProtocol(UNIXClientEndpoint(reactor, path), RawClient())
        await client.until(lambda message: "QMP" in message)
        greetings.append(client.messages[0])
        await client.close()
    theirs, ours = greetings
    assert set(ours) == set(theirs)
    assert set(ours["QMP"]["version"]["qemu"]) == set(theirs["QMP"]["version"]["qemu"])
    assert ours["QMP"]["capabilities"] == theirs["QMP"]["capabilities"]


def command(name: str, **arguments: Any) -> bytes:
    arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
    return json.dumps({"execute": name, "arguments": arguments, "id": name}).encode()


NODES = [
    command("blockdev-add", driver="null-co", node_name=name, size=1 << 20, read_zeroes=True)
    for name in ("a", "b")
]
MIRROR = command("blockdev-mirror", device="a", target="b", sync="full", job_id="j")
BACKUP = command("blockdev-backup", device="a", target="b", sync="full", job_id="j")
BY_HAND = {"auto_finalize": False, "auto_dismiss": False}

SCENARIOS = {
    "G25 a mirror": [*NODES, MIRROR, command("query-jobs"), command("job-complete", id="j")],
    "a mirror, cancelled": [*NODES, MIRROR, command("job-cancel", id="j")],
    "a mirror, cancelled softly": [*NODES, MIRROR, command("block-job-cancel", device="j")],
    "a mirror, paused": [
        *[*NODES, MIRROR, command("job-pause", id="j"), command("job-pause", id="j")],
        *[command("query-block-jobs"), command("job-resume", id="j")],
        *[command("job-resume", id="j"), command("job-complete", id="j")],
    ],
    "a mirror that is busy": [
        *[*NODES, MIRROR, command("blockdev-del", node_name="a"), command("job-dismiss", id="j")],
        command("job-complete", id="j"),
    ],
    "a backup": [*NODES, BACKUP],
    "a backup, finalized and dismissed by hand": [
        *NODES,
        command("blockdev-backup", device="a", target="b", sync="full", job_id="j", **BY_HAND),
        *[command("query-jobs"), command("query-block-jobs"), command("job-dismiss", id="j")],
        *[command("job-finalize", id="j"), command("query-jobs"), command("job-dismiss", id="j")],
    ],
    "a backup, cancelled while it is pending": [
        *NODES,
        command("blockdev-backup", device="a", target="b", sync="full", job_id="j", **BY_HAND),
        *[command("job-cancel", id="j"), command("job-dismiss", id="j")],
    ],
    "no such node, no such id": [
        *[*NODES, command("blockdev-mirror", device="x", target="b", sync="full", job_id="j")],
        command("blockdev-mirror", device="a", target="b", sync="full"),
        command("blockdev-mirror", device="a", target="b", sync="full", job_id="1"),
        *[NODES[0], BACKUP],
    ],
}


@pytest.mark.parametrize("commands", SCENARIOS.values(), ids=SCENARIOS)
@pytest_twisted.ensureDeferred
async def test_jobs(
    qemu_factory: Callable[..., RealQEMU], simulated: Listening, commands: list[bytes]
) -> None:
    """Each command alone, and at last the job's end: replies and events in the same order."""
    outcomes = []
    for path in (qemu_factory().path(), simulated.path):
        client = await dial(path)
        ended = client.until(
            lambda message: message.get("data") == {"status": "null", "id": "j"}
        )
        asked: Counter[str] = Counter()
        for text in commands:
            name = json.loads(text)["id"]
            asked[name] += 1
            answered = client.until(lambda m, name=name: m.get("id") == name, asked[name])
            client.write(text)
            await answered
        await ended
        outcomes.append(comparable(client.messages))
        await client.close()
    theirs, ours = outcomes
    assert ours == theirs


MACHINE = [
    *[command("query-status"), command("stop"), command("cont"), command("query-status")],
    *[command("stop"), command("query-status"), command("system_reset")],
    *[command("system_powerdown"), command("query-uuid"), command("query-name"), command("quit")],
]


@pytest_twisted.ensureDeferred
async def test_machine(qemu_factory: Callable[..., RealQEMU], simulated: Listening) -> None:
    """Events before the replies, and the end after that of ``quit`` (facts G25, G26)."""
    outcomes = []
    for path in (qemu_factory().path(), simulated.path):
        client = await dial(path)
        for number, text in enumerate(MACHINE, 1):
            answered = client.until(lambda message: "id" in message, times=number)
            client.write(text)
            await answered
        await client.closed
        outcomes.append(comparable(client.messages))
    theirs, ours = outcomes
    assert ours == theirs


GIVEN = [
    (command("getfd", fdname="a"), True),
    (command("getfd", fdname="a"), True),
    (command("getfd", fdname="1a"), True),
    (command("getfd", fdname="b"), False),
    (command("closefd", fdname="a"), False),
    (command("closefd", fdname="a"), False),
    (command("add-fd", fdset_id=-1), True),
    (command("add-fd"), True),
    (command("add-fd", fdset_id=2, opaque="text"), True),
    (command("add-fd"), True),
    (command("add-fd", fdset_id=0), True),
    (command("query-fdsets"), False),
    (command("remove-fd", fdset_id=2, fd=1000), False),
    (command("remove-fd", fdset_id=3), False),
    (command("cont"), False),
    (command("remove-fd", fdset_id=2), False),
    (command("query-fdsets"), False),
]


@pytest_twisted.ensureDeferred
async def test_descriptors(qemu_factory: Callable[..., RealQEMU], simulated: Listening) -> None:
    """What is returned is the same, but for the descriptors' numbers."""
    outcomes = []
    for path in (qemu_factory().path(), simulated.path):
        client = await dial(path)
        transport: Any = client.transport
        with open("/dev/null") as null:
            for number, (text, with_descriptor) in enumerate(GIVEN, 1):
                answered = client.until(lambda message: "id" in message, times=number)
                if with_descriptor:
                    transport.sendFileDescriptor(null.fileno())
                client.write(text)
                await answered
        whole = json.dumps(comparable(client.messages))
        outcomes.append(json.loads(re.sub(r'"fd": \d+', '"fd": 0', whole)))
        await client.close()
    theirs, ours = outcomes
    assert ours == theirs
    simulated.vm.descriptors.close()


@pytest.mark.parametrize(("count", "first"), [(8, "urgent"), (9, "c0"), (10, "c0")])
@pytest_twisted.ensureDeferred
async def test_out_of_band(
    qemu_factory: Callable[..., RealQEMU], simulated: Listening, count: int, first: str
) -> None:
    """G22: with eight in flight the one out of band is answered at once; with more it waits."""

    async def outcome(path: str, hold: Any, running: Callable[[], Deferred[None]]) -> list[Any]:
        client = await dial(path, negotiate=WITH_OOB)
        commands = [
            {"execute": hold.NAME, "arguments": hold.arguments(f"c{number}"), "id": f"c{number}"}
            for number in range(count)
        ]
        client.write(json.dumps(commands[0]).encode())
        await running()
        client.write(b"".join(json.dumps(command).encode() for command in commands[1:]))
        client.write(b'{"exec-oob":"migrate-pause","id":"urgent"}')
        if first == "urgent":
            await client.until(lambda message: message["id"] == "urgent")
        hold.release()
        await client.until(lambda message: "id" in message, times=count + 1)
        await client.close()
        ids = [message["id"] for message in client.messages]
        assert [ident for ident in ids if ident != "urgent"] == [each["id"] for each in commands]
        return ids

    qemu = qemu_factory()
    with held_up(qemu) as hold:
        theirs = await outcome(qemu.path(), hold, lambda: hold.running("c0"))
    simulated.vm.register(HoldUp.NAME, lambda call, id, backend: {})
    held: Any = simulated.vm.hold(HoldUp.NAME)
    held.NAME, held.arguments = HoldUp.NAME, hold.arguments
    ours = await outcome(simulated.path, held, lambda: until(lambda: held.calls))
    assert (theirs[0], ours[0]) == (first, first)
