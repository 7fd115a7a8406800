"""The simulated VM: commands, events, jobs, descriptors, ends, and what tests do to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.task import Clock

from support.deferreds import failure, pending, success
from support.leaks import LoggedErrors
from txqmp import (
    ConnectError,
    DisconnectedError,
    ExecuteError,
    QMPProtocol,
    RunState,
    SessionSettings,
    Timeouts,
)
from txqmp.server import Call
from txqmp.testing import (
    InMemory,
    MemoryEndpoint,
    Pump,
    SimulatedVM,
    connect_in_memory,
    identity,
    silent,
)


class Session:
    """A session with a simulated VM in memory, and what it has heard."""

    def __init__(self, vm: SimulatedVM, **options: Any) -> None:
        self.vm = vm
        self.client: QMPProtocol
        self.pump: Pump
        connected: InMemory = connect_in_memory(vm, **options)
        self.client, self.server, self.pump = connected
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.client.subscribe(lambda event: self.events.append((event.name, dict(event.data))))

    def __call__(self, cmd: str, **arguments: Any) -> Any:
        reply = self.client.execute(cmd, {k.replace("_", "-"): v for k, v in arguments.items()})
        self.pump()
        return success(reply)

    def refused(self, cmd: str, **arguments: Any) -> str:
        reply = self.client.execute(cmd, {k.replace("_", "-"): v for k, v in arguments.items()})
        self.pump()
        error = failure(reply, ExecuteError).value
        assert isinstance(error, ExecuteError)
        return error.desc

    def give(self, cmd: str, descriptor: int, **arguments: Any) -> Any:
        given = {k.replace("_", "-"): v for k, v in arguments.items()}
        reply = self.client.execute(cmd, given, fds=[descriptor])
        self.pump()
        return success(reply)

    @property
    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """The events since."""
        events, self.events = self.events, []
        return events

    @property
    def told(self) -> list[str]:
        """Names and statuses of the events since."""
        return [data.get("status", name) for name, data in self.heard]


@pytest.fixture
def vm(clock: Clock) -> Iterator[SimulatedVM]:
    vm = SimulatedVM(clock)
    yield vm
    vm.descriptors.close()
    vm.stop_demo()


@pytest.fixture
def session(vm: SimulatedVM) -> Iterator[Session]:
    session = Session(vm)
    yield session
    session.client.abort()
    session.pump()


# The machine


def test_queries(clock: Clock) -> None:
    vm = SimulatedVM(clock, name="vm1", uuid="11111111-2222-3333-4444-555555555555")
    session = Session(vm)
    assert session("query-status") == {"status": "running", "singlestep": False, "running": True}
    assert session("query-name") == {"name": "vm1"}
    assert session("query-uuid") == {"UUID": "11111111-2222-3333-4444-555555555555"}
    assert session("query-version") == {
        "qemu": {"major": 7, "minor": 2, "micro": 22},
        "package": "",
    }
    assert {"name": "query-status"} in session("query-commands")
    assert session("query-yank") == []
    session.client.abort()
    session.pump()


def test_no_name(session: Session) -> None:
    assert session("query-name") == {}
    assert session("query-uuid") == {"UUID": "00000000-0000-0000-0000-000000000000"}


def test_schema(session: Session, vm: SimulatedVM) -> None:
    """G14: one line, as long as the real one."""
    schema = session("query-qmp-schema")
    assert len(json.dumps(schema, separators=(",", ":"))) == pytest.approx(206_999, rel=0.01)
    by_name = {entry["name"]: entry for entry in schema}
    assert len(by_name) == len(schema)
    assert by_name["migrate-pause"]["allow-oob"] is True
    add = by_name["blockdev-mirror"]
    assert add["meta-type"] == "command"
    members = by_name[add["arg-type"]]["members"]
    assert {"name": "device", "type": "str"} in members
    assert {"name": "job-id", "type": "str", "default": None} in members

    @vm.command("x-all")
    def x_all(
        call: Call, names: list[str], more: list[str], flags: dict[str, Any], any: Any = None
    ) -> None:
        pass

    by_name = {entry["name"]: entry for entry in session("query-qmp-schema")}
    members = by_name[by_name["x-all"]["arg-type"]]["members"]
    assert [member["type"] for member in members][:2] == ["[str]", "[str]"]
    assert by_name["[str]"] == {"name": "[str]", "meta-type": "array", "element-type": "str"}
    assert by_name[members[2]["type"]]["meta-type"] == "object"
    assert members[3] == {"name": "any", "type": "any", "default": None}


def test_schema_of_enumerations(session: Session, vm: SimulatedVM) -> None:
    from typing import Literal

    def x_mode(call: Call, mode: Any) -> None:
        pass

    x_mode.__annotations__["mode"] = Literal["on", "off"]
    vm.register("x-mode", x_mode)
    by_name = {entry["name"]: entry for entry in session("query-qmp-schema")}
    (member,) = by_name[by_name["x-mode"]["arg-type"]]["members"]
    assert by_name[member["type"]]["values"] == ["on", "off"]


def test_stop_and_cont(session: Session) -> None:
    session("stop")
    session("stop")
    assert session("query-status") == {"status": "paused", "singlestep": False, "running": False}
    session("cont")
    session("cont")
    assert session.heard == [("STOP", {}), ("RESUME", {})]


def test_it_can_wait_for_cont(clock: Clock) -> None:
    session = Session(SimulatedVM(clock, running=False))
    assert session("query-status")["status"] == "prelaunch"
    session("cont")
    assert session.vm.running
    session.client.abort()
    session.pump()


def test_reset(session: Session, vm: SimulatedVM) -> None:
    session("system_reset")
    vm.reset(guest=True, reason="guest-reset")
    session.pump()
    assert session.heard == [
        ("RESET", {"guest": False, "reason": "host-qmp-system-reset"}),
        ("RESET", {"guest": True, "reason": "guest-reset"}),
    ]


def test_powerdown(session: Session, vm: SimulatedVM) -> None:
    """The guest takes its time, and then the VM ends."""
    session("system_powerdown")
    session("system_powerdown")
    assert session.heard == [("POWERDOWN", {}), ("POWERDOWN", {})]
    session.pump.advance(vm.guest_delay)
    assert session.heard == [("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})]
    assert (vm.exited, vm.status, session.client.state) == (True, "shutdown", RunState.IDLE)


def test_powerdown_of_a_guest_that_is_stopped(session: Session, vm: SimulatedVM) -> None:
    session("stop")
    session("system_powerdown")
    session.pump.advance(10)
    assert not vm.exited


def test_hmp(session: Session, vm: SimulatedVM) -> None:
    def hmp(line: str, **more: Any) -> str:
        reply = session("human-monitor-command", command_line=line, **more)
        assert isinstance(reply, str)
        return reply

    assert hmp("info status") == "VM status: running\r\n"
    assert hmp("foo bar") == "unknown command: 'foo'\r\n"
    assert hmp("xp /10xb 0").splitlines() == [
        "0000000000000000:" + " 0x00" * 8,
        "0000000000000008:" + " 0x00" * 2,
    ]
    vm.hmp["info big"] = "x" * (1 << 20)
    vm.hmp["info echo"] = str.upper
    assert len(hmp("info big")) == 1 << 20
    assert hmp("info echo", cpu_index=0) == "INFO ECHO"
    words = session.refused("human-monitor-command", command_line="info status", cpu_index=4)
    assert words == "Parameter 'cpu-index' expects a CPU number"


def test_other_commands(session: Session, vm: SimulatedVM) -> None:
    @vm.command("query-balloon")
    def query_balloon(call: Call) -> dict[str, int]:
        return {"actual": 1}

    vm.register("query-name", lambda call: {"name": "another"})
    assert session("query-balloon") == {"actual": 1}
    assert session("query-name") == {"name": "another"}


# Ends


def test_quit(session: Session, vm: SimulatedVM) -> None:
    """G25, G26: SHUTDOWN before the reply, the end after it; what was sent behind is not run."""
    quitting = session.client.execute("quit")
    behind = session.client.execute("query-name")
    session.pump()
    assert success(quitting) == {}
    failure(behind, DisconnectedError)
    assert session.heard == [("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})]
    assert session.client.state is RunState.IDLE
    assert vm.buildProtocol(None) is None


@pytest.mark.parametrize("ends_by", ["eof", "reset"])
def test_quit_ends_both_ways(clock: Clock, ends_by: Any) -> None:
    session = Session(SimulatedVM(clock, ends_by=ends_by))
    assert session("quit") == {}
    assert session.client.state is RunState.IDLE
    error = failure(session.client.when_ready(), DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert error.expected
    assert ("closed" in error.reason) == (ends_by == "eof")


def test_sigterm_and_sigkill(clock: Clock) -> None:
    """G27."""
    terminated, killed = Session(SimulatedVM(clock)), Session(SimulatedVM(clock))
    terminated.vm.terminate()
    killed.vm.kill()
    for session in (terminated, killed):
        session.pump()
        assert session.client.state is RunState.IDLE
    assert terminated.heard == [("SHUTDOWN", {"guest": False, "reason": "host-signal"})]
    assert killed.heard == []


def test_those_who_wait_are_sent_away(clock: Clock) -> None:
    vm = SimulatedVM(clock)
    first, second = Session(vm), Session(vm)
    assert second.client.state is RunState.CONNECTING
    vm.kill()
    for session in (first, second):
        session.pump()
        assert session.client.state is RunState.IDLE
    failure(second.client.when_ready(), ConnectError)


def test_boot(session: Session, vm: SimulatedVM) -> None:
    session("quit")
    vm.boot(running=False)
    again = Session(vm)
    assert again("query-status")["status"] == "prelaunch"
    again.client.abort()
    again.pump()


# Frozen


def test_freeze(session: Session, vm: SimulatedVM) -> None:
    """G5: nothing comes, and after SIGCONT all does."""
    vm.freeze()
    reply = session.client.execute("query-name")
    vm.pause()
    session.pump()
    pending(reply)
    assert session.heard == []
    vm.thaw()
    session.pump()
    assert success(reply) == {}
    assert session.heard == [("STOP", {})]


@pytest.mark.parametrize("oob", [True, False], ids=["oob", "no oob"])
def test_freeze_while_a_command_runs(vm: SimulatedVM, oob: bool) -> None:
    session = Session(vm, settings=SessionSettings(oob=oob, window=20))
    held = vm.hold("query-name")
    replies = [session.client.execute("query-name") for _ in range(12)]
    session.pump()
    vm.freeze()
    held.release()
    vm.pause()
    session.client.execute("cont")
    session.pump()
    assert vm.status == "paused"
    for reply in replies:
        pending(reply)
    vm.thaw()
    session.pump()
    assert [success(reply) for reply in replies] == [{}] * 12
    assert vm.status == "running"
    session.client.abort()
    session.pump()


def test_frozen_it_does_not_greet(clock: Clock) -> None:
    vm = SimulatedVM(clock, exclusive=False)
    vm.freeze()
    timeouts = Timeouts(greeting=5, negotiation=5)
    late = Session(vm, settings=SessionSettings(timeouts=timeouts))
    late.pump.advance(4)
    assert late.client.state is RunState.CONNECTING
    assert vm.waiting == (late.server,)
    vm.thaw()
    late.pump()
    assert late.client.state is RunState.RUNNING
    vm.freeze()
    too_late = Session(vm, settings=SessionSettings(timeouts=timeouts))
    too_late.pump.advance(6)
    assert too_late.client.state is RunState.IDLE
    vm.kill()
    for session in (late, too_late):
        session.pump()
    assert late.client.state is RunState.IDLE


def test_killed_while_frozen(session: Session, vm: SimulatedVM) -> None:
    vm.freeze()
    vm.pause()
    vm.kill()
    session.pump()
    assert session.client.state is RunState.IDLE
    assert session.heard == []
    vm.thaw()


def test_the_end_of_a_silent_vm(session: Session, vm: SimulatedVM) -> None:
    vm.faults.append(silent("query-name"))
    reply = session.client.execute("query-name")
    session.pump()
    pending(reply)
    vm.terminate()
    session.pump()
    failure(reply, DisconnectedError)


# Holding commands


def test_ten_blocked_commands(session: Session, vm: SimulatedVM) -> None:
    """G22: with eight in flight the one out of band answers at once."""
    held = vm.hold("blockdev-add")
    assert vm.hold("blockdev-add") is held
    blocked = [
        session.client.execute("blockdev-add", {"driver": "null-co", "node-name": f"n{number}"})
        for number in range(10)
    ]
    session.pump()
    assert (len(held), held.calls[0].arguments["node-name"]) == (1, "n0")
    pause = session.client.execute("migrate-pause", oob=True)
    session.pump()
    failure(pause, ExecuteError)
    held.let_one_go()
    session.pump()
    assert success(blocked[0]) == {}
    pending(blocked[1])
    held.release()
    held.release()
    session.pump()
    assert [success(reply) for reply in blocked[1:]] == [{}] * 9
    assert sorted(vm.jobs.nodes) == [f"n{number}" for number in range(10)]
    assert session("query-name") == {}


def test_holding_what_is_unknown(session: Session, vm: SimulatedVM) -> None:
    vm.hold("nothing")
    assert session.refused("nothing") == "The command nothing has not been found"


# Descriptors


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_getfd(session: Session, vm: SimulatedVM, pipe: tuple[int, int]) -> None:
    assert session.give("getfd", pipe[0], fdname="a") == {}
    assert identity(vm.descriptors.named["a"]) == identity(pipe[0])
    session.give("getfd", pipe[1], fdname="a")
    assert identity(vm.descriptors.named["a"]) == identity(pipe[1])
    session("closefd", fdname="a")
    assert vm.descriptors.named == {}
    assert session.refused("closefd", fdname="a") == "File descriptor named 'a' not found"
    refused = session.client.execute("getfd", {"fdname": "1"}, fds=[pipe[0]])
    session.pump()
    error = failure(refused, ExecuteError).value
    assert "expects a name not starting with a digit" in str(error)
    session.give("getfd", pipe[0], fdname="b")


def test_sets(session: Session, vm: SimulatedVM, pipe: tuple[int, int]) -> None:
    first = session.give("add-fd", pipe[0])
    third = session.give("add-fd", pipe[1], fdset_id=2)
    second = session.give("add-fd", pipe[0], opaque="text")
    again = session.give("add-fd", pipe[0], fdset_id=0)
    assert [each["fdset-id"] for each in (first, second, third, again)] == [0, 1, 2, 0]
    assert identity(first["fd"]) == identity(pipe[0])
    assert session("query-fdsets") == [
        {"fdset-id": 2, "fds": [{"fd": third["fd"]}]},
        {"fdset-id": 1, "fds": [{"fd": second["fd"], "opaque": "text"}]},
        {"fdset-id": 0, "fds": [{"fd": first["fd"]}, {"fd": again["fd"]}]},
    ]
    session("remove-fd", fdset_id=0, fd=first["fd"])
    session("remove-fd", fdset_id=2)
    assert sorted(vm.descriptors.sets) == [0, 1]
    assert session.refused("remove-fd", fdset_id=2) == (
        "File descriptor named 'fdset-id:2' not found"
    )
    assert session.refused("remove-fd", fdset_id=1, fd=0) == (
        "File descriptor named 'fdset-id:1, fd:0' not found"
    )
    refused = session.client.execute("add-fd", {"fdset-id": -1}, fds=[pipe[0]])
    session.pump()
    assert "expects a non-negative value" in str(failure(refused, ExecuteError).value)


def test_sets_go_with_the_last_monitor(clock: Clock, pipe: tuple[int, int]) -> None:
    """G34: names stay."""
    vm = SimulatedVM(clock, exclusive=False)
    first, second = Session(vm), Session(vm)
    first.give("add-fd", pipe[0])
    first.give("getfd", pipe[0], fdname="a")
    first.client.abort()
    first.pump()
    assert sorted(vm.descriptors.sets) == [0]
    second.client.abort()
    second.pump()
    assert (vm.descriptors.sets, list(vm.descriptors.named)) == ({}, ["a"])
    vm.kill()
    assert vm.descriptors.named == {}


def test_descriptors_in_a_hundred_commands(session: Session, vm: SimulatedVM) -> None:
    """G32, G33: each command gets its own."""
    sources = [os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/zero") * 50]
    replies = [
        session.client.execute("getfd", {"fdname": f"n{number}"}, fds=[source])
        for number, source in enumerate(sources)
    ]
    session.pump()
    for number, reply in enumerate(replies):
        assert success(reply) == {}
        assert identity(vm.descriptors.named[f"n{number}"]) == identity(sources[number])
    for source in sources:
        os.close(source)


# Jobs


@pytest.fixture
def blocks(session: Session) -> Session:
    """A session with a VM that has two block nodes."""
    for name in ("a", "b"):
        session("blockdev-add", driver="null-co", node_name=name, size=1 << 20, read_zeroes=True)
    return session


def mirror(session: Session, **options: Any) -> None:
    session("blockdev-mirror", device="a", target="b", sync="full", job_id="j", **options)


def test_mirror(blocks: Session, vm: SimulatedVM) -> None:
    """G25: ready before the command has returned."""
    mirror(blocks)
    data = {"device": "j", "len": 1 << 20, "offset": 1 << 20, "speed": 0, "type": "mirror"}
    assert blocks.events[-1] == ("BLOCK_JOB_READY", data)
    assert blocks.told == ["created", "running", "ready", "BLOCK_JOB_READY"]
    (job,) = blocks("query-block-jobs")
    assert (job["ready"], job["status"], job["busy"]) == (True, "ready", False)
    completed = blocks.client.execute("job-complete", {"id": "j"})
    completed.addCallback(lambda _: blocks.events.append(("returned", {})))
    blocks.pump()
    told = ["waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"]
    assert blocks.told == ["returned", *told]
    assert blocks("query-jobs") == []


def test_finalized_and_dismissed_by_hand(blocks: Session) -> None:
    mirror(blocks, auto_finalize=False, auto_dismiss=False)
    assert blocks.refused("job-finalize", id="j") == (
        "Job 'j' in state 'ready' cannot accept command verb 'finalize'"
    )
    blocks("block-job-complete", device="j")
    assert blocks.heard[-1] == ("BLOCK_JOB_PENDING", {"type": "mirror", "id": "j"})
    blocks("block-job-finalize", device="j")
    assert blocks.told == ["BLOCK_JOB_COMPLETED", "concluded"]
    assert blocks("query-jobs")[0]["status"] == "concluded"
    blocks("job-dismiss", id="j")
    assert blocks.told == ["null"]


@pytest.mark.parametrize("kind", ["blockdev-backup", "block-stream", "block-commit"])
def test_other_jobs(blocks: Session, kind: str) -> None:
    more = {"target": "b", "sync": "full"} if kind == "blockdev-backup" else {}
    blocks(kind, device="a", job_id="j", **more)
    told = blocks.told
    assert told[:2] == ["created", "running"]
    assert told[-5:] == ["waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"]


def test_a_job_that_takes_time(blocks: Session, vm: SimulatedVM) -> None:
    vm.jobs.duration = 10
    mirror(blocks)
    assert blocks.told == ["created", "running"]
    assert blocks("query-block-jobs")[0]["busy"]
    vm.jobs.by_id["j"].progress(5)
    assert blocks("query-jobs")[0]["current-progress"] == 5
    blocks.pump.advance(9)
    blocks("job-pause", id="j")
    assert blocks.refused("job-pause", id="j") == "Job is already paused"
    blocks.pump.advance(100)
    assert blocks.told == ["paused"]
    blocks("job-resume", id="j")
    assert blocks.refused("job-resume", id="j") == "Can't resume a job that was not paused"
    blocks.pump.advance(0.9)
    assert blocks.told == ["running"]
    blocks.pump.advance(0.2)
    assert blocks.told == ["ready", "BLOCK_JOB_READY"]
    blocks("job-pause", id="j")
    blocks("job-resume", id="j")
    assert blocks.told == ["standby", "ready"]


def test_cancelling(blocks: Session, vm: SimulatedVM) -> None:
    mirror(blocks)
    blocks.told  # noqa: B018
    cancelled = blocks.client.execute("block-job-cancel", {"device": "j"})
    cancelled.addCallback(lambda _: blocks.events.append(("returned", {})))
    blocks.pump()
    assert blocks.told[::3] == ["returned", "BLOCK_JOB_COMPLETED"]
    for command, arguments in (
        ("job-cancel", {"id": "j"}),
        ("block-job-cancel", {"device": "j", "force": True}),
    ):
        mirror(blocks)
        blocks.told  # noqa: B018
        blocks(command, **arguments)
        assert blocks.told == ["aborting", "BLOCK_JOB_CANCELLED", "concluded", "null"]
    vm.jobs.duration = 10
    mirror(blocks)
    blocks("job-cancel", id="j")
    assert vm.jobs.by_id == {}


def test_failing(blocks: Session, vm: SimulatedVM) -> None:
    vm.jobs.duration = 10
    mirror(blocks, auto_dismiss=False)
    vm.jobs.by_id["j"].fail("Input/output error")
    blocks.pump()
    assert [name for name, data in blocks.heard if data.get("error") == "Input/output error"] == [
        "BLOCK_JOB_COMPLETED"
    ]
    for query in ("query-jobs", "query-block-jobs"):
        (job,) = blocks(query)
        assert (job["status"], job["error"]) == ("concluded", "Input/output error")


def test_refusals(blocks: Session) -> None:
    mirror(blocks)
    assert "Duplicate nodes" in blocks.refused("blockdev-add", driver="x", node_name="a")
    assert "in use by block job: mirror" in blocks.refused("blockdev-del", node_name="a")
    assert "Failed to find node" in blocks.refused("blockdev-del", node_name="c")
    assert "Cannot find device='c'" in blocks.refused("block-stream", device="c", job_id="k")
    assert blocks.refused("block-stream", device="a") == "Invalid job ID ''"
    assert blocks.refused("block-stream", device="a", job_id="j") == "Job ID 'j' already in use"
    assert blocks.refused("job-cancel", id="k") == "Job not found"
    assert blocks.refused("block-job-pause", device="k") == "Block job 'k' not found"
    blocks("block-job-set-speed", device="j", speed=5)
    assert blocks("query-block-jobs")[0]["speed"] == 5
    blocks("job-complete", id="j")
    blocks("blockdev-del", node_name="a")


def test_jobs_end_with_the_vm(blocks: Session, vm: SimulatedVM, clock: Clock) -> None:
    vm.jobs.duration = 10
    mirror(blocks)
    blocks("quit")
    assert vm.jobs.by_id == {}
    assert clock.getDelayedCalls() == []


# The demonstration


def test_demo(session: Session, vm: SimulatedVM, clock: Clock) -> None:
    demo = vm.run_demo(clock)
    session.pump.advance(60)
    assert demo.happened == 60
    names = {name for name, _ in session.heard}
    assert names >= {"STOP", "RESUME", "RESET", "RTC_CHANGE", "BLOCK_JOB_READY"}
    assert len(names) > 10
    other = vm.run_demo(interval=0.5)
    session.pump.advance(2)
    assert (demo.happened, other.happened) == (60, 4)
    vm.stop_demo()
    vm.stop_demo()
    session.pump.advance(10)
    assert other.happened == 4
    vm.run_demo()
    session("quit")
    assert not any("LoopingCall" in str(call) for call in clock.getDelayedCalls())


def test_a_demo_that_fails(session: Session, vm: SimulatedVM, logged_errors: LoggedErrors) -> None:
    vm.run_demo()
    vm.pause = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    session.pump.advance(50)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


# On a reactor


def test_the_clock_is_the_reactor_by_default() -> None:
    assert SimulatedVM().clock is global_reactor


def test_endpoints(clock: Clock) -> None:
    vm = SimulatedVM(clock)
    pump = Pump(clock)
    endpoint = MemoryEndpoint(pump, vm)
    client = QMPProtocol(clock)

    class Once:
        def buildProtocol(self, addr: object) -> QMPProtocol:
            return client

    assert success(endpoint.connect(Once())) is client  # type: ignore[arg-type]
    pump()
    assert client.state is RunState.RUNNING
    client.abort()
    pump()
