"""``qmp-monitor`` as an operator runs it, with real QEMUs."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import LIMIT, RUNNERS, Daemon, Output, run
from support.qemu import RealQEMU
from support.told import Told, assert_whole, names


pytest_plugins = ["support.sessions"]
pytestmark = pytest.mark.timeout(180)

MakeQEMU = Callable[..., RealQEMU]
Watch = Callable[..., Daemon]

UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Start daemons, which end with the test."""
    started: list[Daemon] = []

    def start(*words: str, **options: Any) -> Daemon:
        daemon = Daemon(*words, **options)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.close()


@pytest.mark.parametrize("runner", RUNNERS)
def test_two_vms(runner: str, watch: Watch, qemu_factory: MakeQEMU) -> None:
    first, second = qemu_factory("-name", "one"), qemu_factory("-name", "two", paused=False)
    daemon = watch(f"one={first.path()}", f"two=unix:{second.path()}", runner=runner)
    daemon.expect("one", "snapshot")
    daemon.expect("two", "snapshot")
    first.execute("cont")
    daemon.expect("one", "RESUME")
    second.execute("stop")
    daemon.expect("two", "STOP")
    second.kill()
    lost = daemon.expect("two", "disconnected")
    assert lost.data["expected"] is False
    first.execute("quit")
    lost = daemon.expect("one", "disconnected")
    assert lost.data["shutdown"] == {"guest": False, "reason": "host-qmp-quit"}
    # The runners end by the signal that they were sent, when all is done.
    assert daemon.stop() == -signal.SIGTERM
    assert daemon.of("one") == ["connected", "snapshot", "RESUME", "SHUTDOWN", "disconnected"]
    assert daemon.of("two") == ["connected", "snapshot", "STOP", "disconnected"]
    assert_whole(daemon.records)
    assert "Traceback" not in daemon.log
    assert "Unhandled" not in daemon.log


def test_the_shape_of_an_event(watch: Watch, qemu: RealQEMU) -> None:
    daemon = watch(qemu.path(), "--node", "node7.example")
    connected = daemon.wait_for(lambda _: True)
    name = connected.vm
    assert connected.cloud["source"] == f"qmp://node7.example/{name}"
    assert connected.type == "txqmp.monitor.connected"
    own = connected.cloud["data"]
    assert (own["vm"], own["seq"], own["session"], own["kind"]) == (name, 1, 1, "connected")
    assert connected.data["where"] == f"unix:{qemu.path()}"
    assert connected.data["qemu"].count(".") == 2
    daemon.expect(name, "snapshot")
    qemu.execute("cont")
    event = daemon.expect(name, "RESUME")
    assert list(event.cloud) == [
        "specversion",
        "id",
        "sequence",
        "source",
        "type",
        "subject",
        "time",
        "recordedtime",
        "partitionkey",
        "vmsession",
        "vmsequence",
        "datacontenttype",
        "data",
    ]
    assert event.type == "org.qemu.qmp.RESUME"
    assert event.data["event"] == "RESUME"
    stamp = event.data["timestamp"]
    assert event.cloud["time"].endswith(f".{stamp['microseconds']:06d}Z")
    assert [event.number for event in daemon.records] == [1, 2, 3]
    assert len({event.id.partition("-")[0] for event in daemon.records}) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(watch: Watch, qemu: RealQEMU, number: int) -> None:
    daemon = watch(f"a={qemu.path()}")
    daemon.expect("a", "snapshot")
    assert daemon.stop(number) == -number
    assert daemon.of("a")[-1] == "disconnected"
    assert daemon.records[-1].data == {"reason": "we disconnected", "expected": True}


def test_a_vm_returns(watch: Watch, qemu_factory: MakeQEMU, place: Path) -> None:
    path = place / "vm1.sock"
    monitor = ("-chardev", f"socket,id=m,path={path},server=on,wait=off", "-mon", "m,mode=control")
    first = qemu_factory(*monitor)
    daemon = watch(str(path))
    daemon.expect("vm1", "snapshot")
    first.kill()
    daemon.expect("vm1", "disconnected")
    second = qemu_factory(*monitor)
    gap = daemon.expect("vm1", "gap")
    assert gap.session == 2
    assert gap.data["since"] < gap.data["until"]
    assert gap.data["seconds"] > 0
    assert daemon.expect("vm1", "snapshot").data["query-status"]["status"] == "prelaunch"
    second.execute("cont")
    assert daemon.expect("vm1", "RESUME").seq == 7


def test_a_monitor_that_is_held(watch: Watch, qemu: RealQEMU) -> None:
    with socket.socket(socket.AF_UNIX) as holder:
        holder.settimeout(20)
        holder.connect(qemu.path())
        assert holder.recv(65536)
        daemon = watch(f"a={qemu.path()}")
        busy = daemon.expect("a", "busy")
        assert busy.session == 0
        assert "another client" in busy.data["reason"]
    daemon.expect("a", "snapshot")


def test_only_some_events(watch: Watch, qemu: RealQEMU) -> None:
    daemon = watch(f"a={qemu.path()}", "--events", "RES*")
    daemon.expect("a", "snapshot")
    for command in ("cont", "stop", "system_reset"):
        qemu.execute(command)
    daemon.expect("a", "RESET")
    assert daemon.of("a") == ["connected", "snapshot", "RESUME", "RESET"]
    assert [event.seq for event in daemon.records] == [1, 2, 3, 4]


def test_globs(watch: Watch, qemu_factory: MakeQEMU, place: Path) -> None:
    def start(name: str) -> RealQEMU:
        path = place / f"{name}.sock"
        chardev = f"socket,id=m,path={path},server=on,wait=off"
        return qemu_factory("-chardev", chardev, "-mon", "m,mode=control")

    first = start("a")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "dead.sock"))
    (place / "file.sock").touch()
    daemon = watch("--glob", f"{place}/*.sock", "--listen", f"unix:{place}/in.sock")
    daemon.expect("a", "snapshot")
    start("b")
    daemon.expect("b", "snapshot")
    first.execute("quit")
    daemon.expect("a", "gone")
    start("a")
    daemon.expect("a", "gap")
    daemon.stop()
    assert {event.vm for event in daemon.records} == {"a", "b"}
    assert not (place / "in.sock").exists()


def test_vms_that_dial_us(watch: Watch, qemu_factory: MakeQEMU, place: Path) -> None:
    path = place / "in.sock"

    def start(*args: str) -> RealQEMU:
        chardev = f"socket,id=m,path={path},reconnect=1"
        return qemu_factory("-chardev", chardev, "-mon", "m,mode=control", *args)

    daemon = watch("--listen", f"unix:{path}:mode=660")
    daemon.wait_for_log(f"listening on unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o660
    web = start("-name", "web")
    nobody = start()
    database = start("-name", "database", "-uuid", UUID)
    for name in ("web", f"pid {nobody.pid}", "database"):
        daemon.expect(name, "snapshot")
    database.execute("cont")
    assert daemon.expect("database", "RESUME").session == 1
    start("-name", "web")
    refused = daemon.expect("web", "refused")
    assert refused.data["reason"] == "name web is connected already"
    # The daemon goes and comes again: so do the VMs, by themselves.
    daemon.stop()
    again = watch("--listen", f"unix:{path}:mode=660")
    again.expect("database", "snapshot")
    web.execute("cont")
    assert web.execute("query-status")["running"] is True


def test_jsonl_and_hangup(watch: Watch, qemu: RealQEMU, tmp_path: Path) -> None:
    path, old = tmp_path / "out.jsonl", tmp_path / "out.1"
    path.write_text('{"from":"yesterday"}\n')
    daemon = watch(f"a={qemu.path()}", "--jsonl", str(path))
    daemon.expect("a", "snapshot")
    path.rename(old)
    daemon.send(signal.SIGHUP)
    number = 0
    while not path.exists():
        # What was on its way goes to the old file.
        qemu.execute(("cont", "stop")[number % 2])
        daemon.expect("a", ("RESUME", "STOP")[number % 2])
        number += 1
    daemon.stop()
    lines = [*old.read_text().splitlines(), *path.read_text().splitlines()]
    assert json.loads(lines.pop(0)) == {"from": "yesterday"}
    assert [Told.read(line) for line in lines] == daemon.records
    assert path.stat().st_mode & 0o007 == 0


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, Output]]:
    """A named pipe, to follow what is appended to a file."""
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    output = Output(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    keep = os.open(path, os.O_WRONLY)  # or its end would be told before its beginning
    yield str(path), output
    output.close()
    os.close(keep)


def test_nothing_is_printed_by_wish(watch: Watch, qemu: RealQEMU, pipe: tuple[str, Output]) -> None:
    path, output = pipe
    reader, writer = os.pipe()
    daemon = watch("-q", f"a={qemu.path()}", "--jsonl", path, stdout=writer)
    os.close(writer)
    for kind in ("connected", "snapshot"):
        line = output.line(time.monotonic() + LIMIT)
        assert line is not None, daemon.log
        assert Told.read(line).name == kind
    daemon.stop()
    with open(reader, "rb") as printed:
        # The log is left where the runner has it.
        assert b'"specversion"' not in printed.read()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_reader_that_goes_ends_it(runner: str, watch: Watch, qemu: RealQEMU) -> None:
    """``qmp-monitor … | head -1``"""
    daemon = watch(f"a={qemu.path()}", runner=runner)
    daemon.expect("a", "snapshot")
    daemon.close_output()
    qemu.execute("cont")
    assert daemon.wait() == 0
    assert "nobody reads any more" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_reader_that_goes_is_nothing_where_there_is_another_sink(
    watch: Watch, qemu: RealQEMU, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    daemon = watch(f"a={qemu.path()}", "--jsonl", str(path))
    daemon.expect("a", "snapshot")
    daemon.close_output()
    qemu.execute("cont")
    daemon.wait_for_log("nobody reads any more")
    qemu.execute("stop")
    daemon.stop()
    told = map(Told.read, path.read_text().splitlines())
    assert names(told) == ["connected", "snapshot", "RESUME", "STOP", "disconnected"]


def test_a_reader_that_hangs_holds_up_nobody(
    watch: Watch, qemu: RealQEMU, pipe: tuple[str, Output]
) -> None:
    path, output = pipe
    reader, writer = os.pipe()
    daemon = watch(f"a={qemu.path()}", "--jsonl", path, stdout=writer)
    os.close(writer)
    size = 0
    # More than a pipe holds, and all of it comes here.
    while size < 200_000:
        line = output.line(time.monotonic() + LIMIT)
        assert line is not None, daemon.log
        size += len(line)
        if Told.read(line).name in ("snapshot", "STOP"):
            qemu.execute("cont")
            qemu.execute("stop")
    began = time.monotonic()
    assert daemon.stop() == -signal.SIGTERM
    assert time.monotonic() - began < 20
    assert "stdout" in daemon.log
    assert "events were not delivered and are lost" in daemon.log
    os.close(reader)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "nothing to watch: give an ENDPOINT, --listen, --glob or --demo"),
        (["nothing:here"], "'nothing:here' is no endpoint: Unknown endpoint type: 'nothing'"),
        (["--nonsense"], "option --nonsense not recognized"),
        (["/etc/passwd"], "/etc/passwd is no socket"),
    ],
)
def test_usage_errors(runner: str, words: list[str], problem: str) -> None:
    done = run(runner, *words)
    if runner == "twistd":
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].endswith(f": {problem}")
    else:
        assert done.returncode == 64
        assert done.stderr.splitlines()[0] == f"Error: {problem}"
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_cannot_be_listened_on_ends_it(runner: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(runner, "--listen", f"tcp:{port}:interface=127.0.0.1")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use" in last


def test_help() -> None:
    done = run("twistd", "--help")
    assert done.returncode == 0
    assert "twistd -n qmp-monitor --demo" in done.stdout


def test_the_log_is_printed_too_by_wish(watch: Watch, qemu: RealQEMU) -> None:
    """Its lines and the records' do not mix."""
    reader, writer = os.pipe()
    printed = Output(reader)
    daemon = watch(f"a={qemu.path()}", options=("--logfile=-",), stdout=writer)
    os.close(writer)
    line = b""
    while b'"txqmp.monitor.snapshot"' not in line:
        found = printed.line(time.monotonic() + LIMIT)
        assert found is not None
        line = found
    assert daemon.stop() == -signal.SIGTERM
    lines = printed.rest().splitlines()
    printed.close()
    assert any(b"Server Shut Down." in each for each in lines)
    told = [Told.read(each) for each in lines if each.startswith(b"{")]
    assert told[-1].name == "disconnected"
    assert daemon.log == ""


def test_the_log_on_a_terminal_or_a_pipe(watch: Watch, qemu: RealQEMU) -> None:
    """Twisted itself cannot open either for its log."""
    daemon = watch(f"a={qemu.path()}", options=("--logfile=/dev/stderr",))
    daemon.expect("a", "snapshot")
    assert daemon.stop() == -signal.SIGTERM
    assert "Server Shut Down." in daemon.log
