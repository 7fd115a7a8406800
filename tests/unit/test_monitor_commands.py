"""The operator's commands, on the state of a daemon that does not run, or that is asked."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from txqmp.fleet.records import Kind, Record
from txqmp.messages import Event
from txqmp.monitor.commands import moments, place, show
from txqmp.monitor.commands.errors import CommandFailedError, NoDaemonError
from txqmp.monitor.commands.main import COMMANDS, main
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.spool import Item, Reader, SpoolLimits, Start, cursors, dead
from txqmp.monitor.spool.store import Store


#: When all of it is, in seconds since the epoch.
NOW = 1_800_000_000.0

ESCAPE = "\x1b[2J"


class World:
    """A state directory with a spool, and what a daemon would answer.

    :ivar answers: what the daemon answers, by command; None while there is no daemon.
    :ivar asked: what it was asked.
    """

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = str(directory)
        self.spool = str(directory / "spool")
        self.answers: dict[str, Any] | None = None
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self._capsys = capsys
        self._seq = 0

    def ask(self, state: str, command: str, arguments: Mapping[str, Any]) -> Any:
        assert state == self.state
        if self.answers is None:
            raise NoDaemonError
        self.asked.append((command, arguments))
        answer = self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return the exit code, and what was written to the standard output and error."""
        name = 2 if words[0] == "dead" else 1
        where = ["--state-dir", self.state]
        code = main([*words[:name], *where, *words[name:]], self.ask)
        output = self._capsys.readouterr()
        return code, output.out, output.err

    def good(self, *words: str) -> str:
        code, out, err = self.run(*words)
        assert (code, err) == (0, "")
        return out

    def bad(self, *words: str, code: int = 1) -> str:
        """Return the one line that tells what is wrong."""
        found, out, err = self.run(*words)
        assert (found, out) == (code, "")
        assert err.startswith("qmp-monitor: ") and err.count("\n") == 1
        return err.removeprefix("qmp-monitor: ").rstrip()

    def item(self, name: str, vm: str, time: float) -> Item:
        self._seq += 1
        event = Event.make(name, {"text": f"{ESCAPE} €"}, at=time)
        record = Record(
            vm=vm, seq=self._seq, session=1, received=time, kind=Kind.EVENT, event=event
        )
        envelope = Envelope(node="node7")
        return Item(vm, envelope.type_of(record), time, envelope.draft(record))

    def fill(self) -> None:
        """Five events in a spool; a sink has had four of them, and given up on two."""
        store = Store(self.spool, SpoolLimits())
        names = ["STOP", "RESUME", "STOP", "BLOCK_IO_ERROR", "SHUTDOWN"]
        items = [
            self.item(name, "web" if number % 2 else "db", NOW - 100 + 10 * number)
            for number, name in enumerate(names)
        ]
        store.commit([partial(cursors.add, sink="ops", start=Start.BEGINNING)], items, NOW)
        records = self.reader.read().records
        bury = partial(dead.bury, limits=SpoolLimits(), sink="ops", now=NOW - 5)
        changes = [
            partial(cursors.acknowledge, sink="ops", position=4),
            partial(bury, record=records[0], reason=f"400 {ESCAPE}", attempts=1),
            partial(bury, record=records[3], reason="413 too large", attempts=3),
        ]
        store.commit(changes, (), NOW)
        store.close()

    def clear(self) -> None:
        """The sink delivers all, whoever holds the spool."""
        with sqlite3.connect(f"{self.spool}/spool.db") as db:
            db.execute("UPDATE cursor SET acked = 5, dead = 0")
        db.close()

    @property
    def reader(self) -> Reader:
        return Reader(self.spool)

    def state_of(self, sink: str = "ops") -> Any:
        with self.reader as reader:
            return {each.name: each for each in reader.state().sinks}.get(sink)


@pytest.fixture
def world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> World:
    for name in ("status", "events", "replay"):
        monkeypatch.setattr(COMMANDS[name].time, "time", lambda: NOW)
    world = World(tmp_path, capsys)
    world.fill()
    return world


@pytest.fixture
def held(world: World) -> Iterator[World]:
    """This process is the daemon."""
    store = Store(world.spool, SpoolLimits())
    world.answers = {
        "status": {
            "version": f"1.2.3{ESCAPE}",
            "pid": os.getpid(),
            "sinks": [
                {
                    "name": "ops",
                    "kind": "webhook",
                    "state": "failing",
                    "sent": 3,
                    "last-error": f"503 {ESCAPE}",
                    "next-attempt": None,
                }
            ],
        }
    }
    yield world
    store.close()


# Status


def test_status_of_one_that_does_not_run(world: World) -> None:
    lines = world.good("status").splitlines()
    assert lines[:2] == ["no daemon runs", f"state directory: {world.state}"]
    assert lines[2].startswith("spool: 5 events, ")
    assert lines[2].endswith(" positions 1 to 5, the oldest 1 min 40 s old")
    assert " ".join(lines[4].split()) == "SINK STATE LAG AGE ACKED DROPPED DEAD RETRYING"
    assert " ".join(lines[5].split()) == "ops - 1 1 min 4 0 2 0"
    assert world.asked == []


def test_status_of_one_that_runs(held: World) -> None:
    out = held.good("status")
    assert out.startswith(f"qmp-monitor 1.2.3\\x1b[2J runs as process {os.getpid()}\n")
    assert "failing" in out
    assert out.endswith("ops: 503 \\x1b[2J\n")
    assert held.asked == [("status", {})]


@pytest.mark.parametrize(
    ("silence", "told"),
    [(None, "it takes no commands"), (CommandFailedError("no reply"), "no reply")],
)
def test_status_of_one_that_does_not_answer(
    held: World, silence: Exception | None, told: str
) -> None:
    held.answers = None if silence is None else {"status": silence}
    out = held.good("status")
    assert out.startswith(f"process {os.getpid()} runs, but does not answer: {told}\n")
    code, _, err = held.run("status", "--check")
    assert code == 1
    assert f"process {os.getpid()}, does not answer: {told}\n" in err
    daemon = json.loads(held.good("status", "--json"))["daemon"]
    assert daemon == {"running": True, "pid": os.getpid(), "answers": False, "version": None}


def test_status_for_programs(held: World) -> None:
    out = held.good("status", "--json")
    assert out.isascii() and out.count("\n") == 1 and "\x1b" not in out
    status = json.loads(out)
    assert status["time"] == "2027-01-15T08:00:00.000000Z"
    assert status["daemon"]["version"] == f"1.2.3{ESCAPE}"
    with held.reader as reader:
        state = reader.state()
    assert status["spool"] == {
        "identity": state.identity,
        "first": 1,
        "last": 5,
        "events": 5,
        "bytes": state.size,
        "oldest_age_seconds": 100.0,
    }
    (sink,) = status["sinks"]
    assert sink == {
        "name": "ops",
        "attached": True,
        "kind": "webhook",
        "state": "failing",
        "acked": 4,
        "lag_events": 1,
        "lag_bytes": sink["lag_bytes"],
        "lag_seconds": 60.0,
        "dropped": 0,
        "dead": 2,
        "retrying": 0,
        "dead_dropped": 0,
        "last_error": f"503 {ESCAPE}",
        "next_attempt": None,
    }


def test_status_of_a_new_one(world: World) -> None:
    store = Store(world.spool, SpoolLimits())
    store.commit([partial(cursors.forget, sink="ops")], (), NOW)
    store.close()
    assert world.good("status").endswith("no sink has been added yet\n")
    assert json.loads(world.good("status", "--json"))["sinks"] == []


def test_check(held: World) -> None:
    code, out, err = held.run("status", "--check")
    assert code == 1
    assert out != ""
    assert err == "qmp-monitor: sink ops has 2 dead letters\n"
    code, _, err = held.run("status", "--max-lag", "59s")
    assert code == 1
    assert err.splitlines()[0] == "qmp-monitor: sink ops lags by 1 min"
    assert held.run("status", "--max-lag", "60s")[2].count("\n") == 1


def test_check_of_one_that_does_not_run(world: World) -> None:
    code, _, err = world.run("status", "--check")
    assert code == 1
    assert err.splitlines()[0] == "qmp-monitor: no daemon runs"


def test_check_of_all_that_is_well(held: World) -> None:
    held.clear()
    code, _, err = held.run("status", "--check")
    assert (code, err) == (0, "")


def test_check_of_a_sink_that_is_not_configured_any_more(world: World) -> None:
    store = Store(world.spool, SpoolLimits())
    store.commit([cursors.detach_all], (), NOW)
    err = world.run("status", "--check")[2]
    assert "sink ops is not configured any more, and keeps 1 event" in err
    store.close()
    assert "not configured" in world.good("status")


# Events


def test_events(world: World) -> None:
    lines = world.good("events").splitlines()
    with world.reader as reader:
        records = reader.read().records
    assert [json.loads(line)["id"] for line in lines] == [each.id for each in records]
    assert all("\x1b" not in line for line in lines)
    first = json.loads(lines[0])
    assert (first["type"], first["subject"]) == ("org.qemu.qmp.STOP", "db")
    assert first["data"]["data"] == {"text": f"{ESCAPE} €"}


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ((), [1, 2, 3, 4, 5]),
        (("--vm", "web"), [2, 4]),
        (("--vm", "w*", "--vm", "d?"), [1, 2, 3, 4, 5]),
        (("--event", "STOP", "--event", "BLOCK_*"), [1, 3, 4]),
        (("--event", "TOP"), []),
        (("--event", "org.qemu.qmp.S*"), [1, 3, 5]),
        (("--since", "80s"), [3, 4, 5]),
        (("--until", "80s"), [1, 2, 3]),
        (("--since", "90s", "--until", "2027-01-15T07:58:50Z"), [2, 3, 4]),
        (("--since", "90s", "--vm", "db"), [3, 5]),
        (("--after", "3"), [4, 5]),
        (("--after", "0"), [1, 2, 3, 4, 5]),
        (("--after", "5"), []),
        (("--vm", "nobody"), []),
    ],
)
def test_events_that_are_wanted(
    world: World, options: tuple[str, ...], positions: list[int]
) -> None:
    lines = world.good("events", *options).splitlines()
    assert [int(json.loads(line)["sequence"]) for line in lines] == positions


def test_events_of_more_than_one_batch(world: World) -> None:
    store = Store(world.spool, SpoolLimits())
    store.commit((), [world.item("STOP", "many", NOW)] * 500, NOW)
    store.close()
    assert world.good("events", "--vm", "many").count("\n") == 500


def test_events_that_cannot_be(world: World) -> None:
    assert world.bad("events", "--after", "6") == "the spool has never had a record 6"
    assert world.bad("events", "--after", "-1") == "the spool has never had a record -1"
    assert "'soon' is no time" in world.bad("events", "--since", "soon", code=2)
    assert world.bad("events", "--until", "", code=2).startswith("--until: '' is no time")


def test_a_record_that_is_no_event(world: World) -> None:
    store = Store(world.spool, SpoolLimits())
    items = [Item("vm", "X", NOW, b"no event"), world.item("STOP", "vm", NOW)]
    store.commit([partial(cursors.add, sink="new", start=Start.BEGINNING)], items, NOW)
    store.close()
    code, out, err = world.run("events", "--vm", "vm")
    assert (code, out.count("\n")) == (1, 1)
    assert err == "qmp-monitor: 1 record of the spool cannot be read\n"


# Replay


@pytest.mark.parametrize(
    ("options", "count", "acked"),
    [
        (["--all"], 4, 0),
        (["--after", "2"], 2, 2),
        (["--after", "5"], 0, 4),
        (["--since", "85s"], 2, 2),
        (["--since", "80s"], 2, 2),
        (["--since", "79s"], 1, 3),
        (["--since", "2027-01-15"], 4, 0),
        (["--since", "1s"], 0, 4),
    ],
)
def test_replay(
    world: World,
    options: list[str],
    count: int,
    acked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    what = "1 event" if count == 1 else f"{count} events"
    dry = world.good("replay", "--sink", "ops", *options, "--dry-run")
    assert dry == f"ops: {what} would be delivered again\n"
    assert world.state_of().acked == 4
    done = world.good("replay", "--sink", "ops", *options, "--json")
    assert json.loads(done) == {"sink": "ops", "count": count, "done": True}
    assert world.state_of().acked == acked


def test_replay_in_the_running_daemon(held: World) -> None:
    assert held.answers is not None
    held.answers["rewind"] = {"count": 2}
    assert held.good("replay", "--sink", "ops", "--after", "2") == (
        "ops: 2 events are delivered again\n"
    )
    held.answers["rewind"] = {"count": 1}
    assert "1 event is " in held.good("replay", "--sink", "ops", "--since", "80s")
    held.answers["retry-dead"] = {"count": 2}
    assert "2 dead letters are " in held.good("replay", "--sink", "ops", "--dead")
    assert held.asked == [
        ("rewind", {"sink": "ops", "position": 2}),
        ("rewind", {"sink": "ops", "position": 2}),
        ("retry-dead", {"sink": "ops"}),
    ]
    held.answers["rewind"] = CommandFailedError("the spool is closed")
    assert held.bad("replay", "--sink", "ops", "--all") == "the spool is closed"


def test_replay_of_dead_letters(world: World) -> None:
    assert "2 dead letters would" in world.good("replay", "--sink", "ops", "--dead", "--dry-run")
    assert world.state_of().retrying == 0
    world.good("replay", "--sink", "ops", "--dead")
    assert world.state_of().retrying == 2


def test_replay_that_cannot_be(world: World) -> None:
    nobody = "the spool knows no sink 'nobody'"
    for what in ("--all", "--dead"):
        assert world.bad("replay", "--sink", "nobody", what) == nobody
    assert world.bad("replay", "--sink", "ops", "--after", "6").endswith("had a record 6")
    for options in ([], ["--all", "--dead"], ["--since", "1h", "--after", "1"]):
        assert world.run("replay", "--sink", "ops", *options)[0] == 2
    assert world.run("replay", "--all")[0] == 2


def test_a_daemon_that_takes_no_commands(held: World) -> None:
    held.answers = None
    told = held.bad("replay", "--sink", "ops", "--all")
    assert told == (f"process {os.getpid()} holds the spool in {held.spool}, but takes no commands")


# Dead letters


def test_dead_list(world: World) -> None:
    head, first, second = world.good("dead", "list").splitlines()
    assert " ".join(head.split()) == "NUMBER SINK GIVEN UP TRIED VM EVENT REASON"
    assert (
        " ".join(first.split()) == "1 ops 2027-01-15T07:59:55Z 1 db org.qemu.qmp.STOP 400 \\x1b[2J"
    )
    assert second.endswith("web  org.qemu.qmp.BLOCK_IO_ERROR  413 too large")
    world.good("dead", "retry", "--sink", "ops", "2")
    assert "2027-01-15T07:59:55Z, again" in world.good("dead", "list", "--sink", "ops")
    assert world.bad("dead", "list", "--sink", "nobody") == "the spool knows no sink 'nobody'"


def test_dead_list_for_programs(world: World) -> None:
    out = world.good("dead", "list", "--json")
    assert "\x1b" not in out
    first, second = map(json.loads, out.splitlines())
    with world.reader as reader:
        records = reader.read().records
    assert first == {
        "number": 1,
        "sink": "ops",
        "time": "2027-01-15T07:59:55.000000Z",
        "attempts": 1,
        "reason": f"400 {ESCAPE}",
        "retrying": False,
        "id": records[0].id,
        "position": 1,
        "vm": "db",
        "event": "org.qemu.qmp.STOP",
        "recorded": "2027-01-15T07:58:20.000000Z",
    }
    assert second["number"] == 2


def test_no_dead_letters(world: World) -> None:
    world.good("dead", "drop", "--sink", "ops", "--all")
    assert world.good("dead", "list") == "there are no dead letters\n"
    assert world.good("dead", "list", "--json") == ""


def test_more_than_a_page_of_them(world: World) -> None:
    with world.reader as reader:
        record = reader.read().records[0]
    store = Store(world.spool, SpoolLimits())
    bury = partial(dead.bury, limits=SpoolLimits(), sink="ops", reason="", attempts=1, now=NOW)
    for number in range(450):
        store.change(partial(bury, record=attrs.evolve(record, position=100 + number)))
    store.close()
    assert world.good("dead", "list").count("\n") == 453


def test_dead_show(world: World) -> None:
    out = world.good("dead", "show", "1")
    head, _, body = out.partition("\n\n")
    assert head.splitlines()[1] == "sink:     ops"
    assert head.splitlines()[4] == "reason:   400 \\x1b[2J"
    assert "\x1b" not in out
    event = json.loads(body)
    assert event["data"]["data"] == {"text": f"{ESCAPE} €"}
    (sent,) = world.good("events", "--after", "0", "--until", "95s").splitlines()
    assert event == json.loads(sent)
    members = json.loads(world.good("dead", "show", "2", "--json"))
    assert (members["number"], members["cloudevent"]["subject"]) == (2, "web")
    for missing in ("3", str((1 << 63) - 1)):
        assert world.bad("dead", "show", missing) == f"there is no dead letter {missing}"


def test_a_dead_letter_that_is_no_event(world: World) -> None:
    store = Store(world.spool, SpoolLimits())
    store.change(lambda db: db.execute("UPDATE dead SET data = X'7B' WHERE number = 1"))
    store.close()
    assert world.bad("dead", "show", "1") == "dead letter 1 cannot be read"
    assert "NUMBER" in world.good("dead", "list")


def test_dead_retry_and_drop(world: World) -> None:
    assert world.good("dead", "retry", "--sink", "ops", "1") == (
        "ops: 1 dead letter is tried again\n"
    )
    assert (world.state_of().dead, world.state_of().retrying) == (2, 1)
    assert "2 dead letters are tried" in world.good("dead", "retry", "--sink", "ops", "--all")
    assert world.state_of().retrying == 2
    assert world.good("dead", "drop", "--sink", "ops", "2") == "ops: 1 dead letter is dropped\n"
    dropped = world.good("dead", "drop", "--sink", "ops", "--all", "--json")
    assert json.loads(dropped) == {"sink": "ops", "count": 1}
    assert world.state_of().dead == 0


def test_dead_letters_that_are_not_there(world: World) -> None:
    code, out, err = world.run("dead", "retry", "--sink", "ops", "2", "2", "7", "8")
    assert (code, out) == (1, "ops: 1 dead letter is tried again\n")
    assert err == "qmp-monitor: 2 of the 3 named are not there\n"
    assert "no sink 'nobody'" in world.bad("dead", "drop", "--sink", "nobody", "--all")


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_dead_letters_of_the_running_daemon(held: World, action: str) -> None:
    assert held.answers is not None
    held.answers[f"{action}-dead"] = {"count": 2}
    assert "2 dead letters are" in held.good("dead", action, "--sink", "ops", "--all")
    assert "2 dead letters are" in held.good("dead", action, "--sink", "ops", "2", "1", "2")
    assert held.asked == [
        (f"{action}-dead", {"sink": "ops"}),
        (f"{action}-dead", {"sink": "ops", "numbers": [1, 2]}),
    ]


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_which_dead_letters(world: World, action: str) -> None:
    told = f"dead {action}: name either numbers or --all"
    assert world.bad("dead", action, "--sink", "ops", code=2) == told
    assert world.bad("dead", action, "--sink", "ops", "--all", "1", code=2) == told
    assert world.run("dead", action, "1")[0] == 2
    for wrong in ("0", "x", "-1", "1.5", str(1 << 63), "\u0661"):
        assert world.run("dead", action, "--sink", "ops", wrong)[0] == 2
    assert world.state_of().dead == 2


# Forget


def test_forget(world: World) -> None:
    assert world.good("forget", "--sink", "ops") == "ops: nothing is kept for it any more\n"
    assert world.state_of() is None
    assert world.bad("forget", "--sink", "ops") == "the spool knows no sink 'ops'"


def test_forget_in_the_running_daemon(held: World) -> None:
    assert held.answers is not None
    held.answers["forget-sink"] = {}
    held.good("forget", "--sink", "ops")
    assert held.asked == [("forget-sink", {"sink": "ops"})]


# Where


def test_no_such_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status", "--state-dir", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err == (
        f"qmp-monitor: {tmp_path}/no: there is no such directory; --state-dir names another\n"
    )
    assert main(["status", "--state-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"qmp-monitor: {tmp_path}/spool/spool.db: No such file or directory\n"
    )


def test_damaged_spool(world: World) -> None:
    (Path(world.spool) / "spool.db").write_bytes(b"\x1b" * 10_000)
    for words in (["status"], ["events"], ["dead", "list"], ["forget", "--sink", "ops"]):
        assert "not a database" in world.bad(*words)


def test_where(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{world.state}:/elsewhere")
    assert main(["events"]) == 0
    assert capsys.readouterr().out.count("\n") == 5
    monkeypatch.delenv("STATE_DIRECTORY")
    config = tmp_path / "monitor.toml"
    # A path that is not absolute begins where the file is, as for the daemon.
    for named in (world.state, os.path.relpath(world.state, tmp_path)):
        config.write_text(f'[monitor]\nstate_dir = "{named}"\n')
        assert main(["events", "--config", str(config)]) == 0
        assert capsys.readouterr().out.count("\n") == 5
    assert main(["events", "--config", str(config), "--state-dir", "/"]) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file"),
        (b"[monitor", "it is no TOML"),
        (b"\xff", "it is not UTF-8"),
        (b"[monitor]\nstate_dir = 5\n", "[monitor]: state_dir: it must be text"),
        (b"monitor = 5\n", "[monitor] must be a table"),
    ],
)
def test_a_configuration_that_is_none(
    text: bytes | None, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "monitor.toml"
    if text is not None:
        path.write_bytes(text)
    assert main(["status", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert error.startswith(f"qmp-monitor: {path}: ") and error.count("\n") == 1


@pytest.mark.parametrize("text", [b"", b"[spool]\n", b'[monitor]\nnode = "x"\n'])
def test_a_configuration_that_does_not_say(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "monitor.toml"
    path.write_bytes(text)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    arguments = argparse.Namespace(state_dir=None, config=str(path))
    assert place.state_directory(arguments) == str(tmp_path)


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    seen: list[str] = []
    monkeypatch.setattr(place.os.path, "isdir", lambda path: seen.append(path) or True)
    arguments = argparse.Namespace(state_dir=None, config=None)
    assert place.state_directory(arguments) == seen[0] == "/var/lib/qmp-monitor"


# Words


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: qmp-monitor {name} ")


def test_the_commands_of_the_documentation(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each runs as it is written."""
    monkeypatch.setenv("STATE_DIRECTORY", world.state)
    page = (Path(__file__).parents[2] / "docs" / "operating.rst").read_text(encoding="utf-8")
    lines = [shlex.split(line)[1:] for line in re.findall(r"^    \$ (qmp-monitor .*)", page, re.M)]
    commands = [words for words in lines if words[0] in COMMANDS]
    assert len(commands) >= 13
    assert {words[0] for words in commands} == set(COMMANDS)
    for words in commands:
        code = main(words, world.ask)
        error = capsys.readouterr().err
        expected = 1 if {"--check", "--max-lag"} & set(words) else 0
        assert code == expected, (words, error)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_is_told_of(name: str) -> None:
    package = importlib.import_module("txqmp.monitor.commands")
    assert f"qmp-monitor {name}" in (package.__doc__ or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm1", "vm1"),
        ("grün 虚拟", "grün 虚拟"),
        ("\x1b[31m\r\n\x07\x9b\x7f", "\\x1b[31m\\r\\n\\x07\\x9b\\x7f"),
        ("abc\u202edef\u2066\u200b", "abc\\u202edef\\u2066\\u200b"),
        ("\ud800", "\\ud800"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert show.harmless(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-5, "0 s"),
        (0.9, "0 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations_shown(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


def test_sizes_shown() -> None:
    sizes = [0, 1023, 1536, 5 << 20, 3 << 30, 5 << 40]
    texts = ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB", "5120.0 GiB"]
    assert [show.size(each) for each in sizes] == texts


def test_moments_shown() -> None:
    assert show.moment(None) is None
    assert show.moment(1e300) is None
    assert show.short_moment(1e300) == "-"
    assert show.short_moment(NOW) == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1.5h", 5400),
        ("250ms", 0.25),
        (" 1 h 5 min ", 3900),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert moments.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "5", "h", "5x", "-5s", "5s5", "1e5s", "nan", "9" * 400 + "w"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no duration"):
        moments.duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h", NOW - 3600),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00.5z", NOW + 0.5),
        ("2027-01-15T10:00:00+02:00", NOW),
        ("2027-01-15 08:00:00+00:00", NOW),
    ],
)
def test_times(text: str, seconds: float) -> None:
    if sys.version_info < (3, 11) and ".5" in text:
        pytest.skip("this Python wants three or six digits")
    assert moments.when(text, NOW) == seconds


def test_times_without_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert moments.when("2027-01-15T10:00:00", NOW) == NOW
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "soon", "2027-13-01", "0001-01-01", "99999-01-01", "5"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        moments.when(text, NOW)


def test_what_terminals_cannot_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        show.say("grün")
        monkeypatch.undo()
    assert (tmp_path / "out").read_bytes() == b"gr\\xfcn\n"
