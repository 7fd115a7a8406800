"""A running daemon that is told otherwise: by SIGHUP, and by commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, command
from support.qemu import RealQEMU
from support.receiver import Receiver
from support.told import Told, assert_whole, ids, names


pytest_plugins = ["support.receiver", "support.sessions"]
pytestmark = pytest.mark.timeout(180)

LOADED = "the configuration was loaded"


class Setup:
    """A daemon and the file that says what it does."""

    def __init__(self, place: Path, qemu: RealQEMU) -> None:
        self.place = place
        self.loaded = 0
        self._file = place / "qmp-monitor.toml"
        self._common = (
            '[monitor]\nstate_dir = "state"\n'
            f'[[source]]\ndial = "{qemu.path()}"\nname = "a"\n'
            '[[sink]]\ntype = "stdout"\n'
        )
        self.where = ("--config", str(self._file))
        self.write("")
        self.daemon = Daemon(*self.where, runner=None)

    def write(self, text: str) -> None:
        self._file.write_text(self._common + text)

    def load(self, text: str) -> None:
        """Have the daemon do this too, beside what it always does."""
        self.write(text)
        self.hang_up()
        self.loaded += 1
        self.daemon.wait_for_log(LOADED, self.loaded)

    def hang_up(self) -> None:
        self.daemon.send(signal.SIGHUP)

    def file(self, name: str) -> list[Told]:
        """What is in a file."""
        return [Told.read(line) for line in (self.place / name).read_text().splitlines()]


@pytest.fixture
def setup(place: Path, qemu: RealQEMU) -> Iterator[Setup]:
    setup = Setup(place, qemu)
    setup.daemon.expect("a", "snapshot")
    yield setup
    setup.daemon.close()


def jsonl(path: str, **settings: str) -> str:
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    return f'[[sink]]\nname = "file"\ntype = "jsonl"\npath = "{path}"\n{more}'


def webhook(receiver: Receiver) -> str:
    return (
        f'[[sink]]\nname = "ops"\ntype = "webhook"\nurl = "{receiver.url}"\n'
        "allow_plaintext = true\n"
    )


def test_sinks_come_change_and_go(setup: Setup, qemu: RealQEMU, receiver: Receiver) -> None:
    daemon = setup.daemon
    setup.load(jsonl("first.jsonl"))
    qemu.execute("cont")
    daemon.expect("a", "RESUME")
    # It has another file, and is the same sink: it goes on where it was.
    setup.load(jsonl("second.jsonl") + webhook(receiver))
    qemu.execute("stop")
    daemon.expect("a", "STOP")
    setup.load(webhook(receiver))
    qemu.execute("cont")
    daemon.expect("a", "RESUME")
    # And what came meanwhile is kept for it.
    setup.load(jsonl("third.jsonl"))
    assert daemon.stop() == 0
    assert names(setup.file("first.jsonl")) == ["RESUME"]
    assert names(setup.file("second.jsonl")) == ["STOP"]
    assert names(setup.file("third.jsonl")) == ["RESUME", "disconnected"]
    assert names(receiver.taken) == ["STOP", "RESUME"]
    assert_whole(daemon.records)
    assert daemon.of("a") == [
        "connected",
        "snapshot",
        "RESUME",
        "STOP",
        "RESUME",
        "disconnected",
    ]
    assert "Traceback" not in daemon.log


def test_sources_come_and_go(setup: Setup, qemu_factory: Callable[..., RealQEMU]) -> None:
    daemon, other = setup.daemon, qemu_factory()
    setup.load(f'[[source]]\ndial = "{other.path()}"\nname = "b"\n')
    daemon.expect("b", "snapshot")
    other.execute("cont")
    daemon.expect("b", "RESUME")
    setup.load("")
    daemon.expect("b", "gone")
    # Its monitor is free again.
    assert other.execute("query-status")["running"] is True
    assert daemon.stop() == 0
    assert daemon.of("a") == ["connected", "snapshot", "disconnected"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[sink]]\ntype = "jsnol"\n', 'did you mean "jsonl"?'),
        ("[[sink", "it is no TOML"),
        ("[spool]\nmax_bytes = 1\n", "cannot be changed while the daemon runs"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(
    setup: Setup, qemu: RealQEMU, text: str, problem: str
) -> None:
    daemon = setup.daemon
    setup.load(jsonl("out.jsonl"))
    setup.write(text)
    setup.hang_up()
    daemon.wait_for_log("the configuration stays as it was")
    assert problem in daemon.log
    qemu.execute("cont")
    daemon.expect("a", "RESUME")
    setup.load(jsonl("out.jsonl"))
    assert daemon.stop() == 0
    assert names(setup.file("out.jsonl")) == ["RESUME", "disconnected"]


def test_commands(setup: Setup, qemu: RealQEMU, receiver: Receiver) -> None:
    daemon = setup.daemon
    receiver.answers = [422]
    setup.load(jsonl("out.jsonl", start="beginning") + webhook(receiver))
    qemu.execute("cont")
    daemon.expect("a", "RESUME")
    receiver.wait_for(1)
    daemon.wait_for_log("is put aside (rejected)")
    qemu.execute("stop")
    daemon.expect("a", "STOP")
    receiver.wait_for(2)

    out, _ = command("status", *setup.where)
    assert f" runs as process {daemon.pid}\n" in out
    status = json.loads(command("status", *setup.where, "--json")[0])
    sinks = {each["name"]: each for each in status["sinks"]}
    assert set(sinks) == {"stdout", "file", "ops"}
    assert sinks["ops"]["dead"] == 1

    (letter,) = map(json.loads, command("dead", "list", *setup.where, "--json")[0].splitlines())
    rejected = receiver.seen[0][1]
    assert (letter["sink"], letter["id"]) == ("ops", rejected.id)
    out, _ = command("dead", "retry", *setup.where, "--sink", "ops", "--all")
    assert out == "ops: 1 dead letter is tried again\n"
    receiver.wait_for(3)
    assert receiver.seen[2] == (200, rejected)
    assert command("dead", "list", *setup.where)[0] == "there are no dead letters\n"

    printed, _ = command("events", *setup.where, "--event", "RESUME")
    assert [Told.read(line) for line in printed.splitlines()] == [rejected]
    out, _ = command("replay", *setup.where, "--sink", "file", "--all")
    assert out == "file: 4 events are delivered again\n"
    assert daemon.stop() == 0
    told = setup.file("out.jsonl")
    # All of it twice, the same, but for its last word.
    assert ids(told) == [*ids(daemon.records[:4]), *ids(daemon.records)]
    assert told[:4] == told[4:8]
    out, _ = command("status", *setup.where)
    assert out.startswith("no daemon runs\n")
