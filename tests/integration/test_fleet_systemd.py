"""Sockets that systemd listens on for us, with a real inherited descriptor (sd_listen_fds(3))."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.qemu import RealQEMU


pytest_plugins = ["support.sessions"]
pytestmark = pytest.mark.timeout(60)

PROGRAM = """
import os, sys
number = int(sys.argv[1])
if number != 3:
    os.dup2(number, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="dialin")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], *sys.argv[3:]])
"""
"""What systemd does: the numbers begin with 3, and the process that is to listen is named."""

WATCH = """
import json, os, sys
from twisted.internet import reactor
from txqmp.fleet import Fleet, ListenSource, Peers

def tell(record):
    name = record.event.name if record.event is not None else record.kind.value
    print(json.dumps([record.vm, name]), flush=True)

fleet = Fleet(reactor, tell)
uid = os.getuid() + int(sys.argv[1])
source = ListenSource(fleet, "systemd:domain=UNIX:name=dialin", Peers(uids={uid}))
source.setServiceParent(fleet)

def start():
    fleet.startService()
    print(json.dumps(["", "listening"]), flush=True)

def report(_):
    print(json.dumps(["", f"denied {source.denied > 0}"]), flush=True)

reactor.callWhenRunning(start)
reactor.addSystemEventTrigger("before", "shutdown", lambda: fleet.stopService().addCallback(report))
reactor.run()
"""

Watch = Callable[[int], "subprocess.Popen[str]"]


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    """The socket that systemd has made: it is group's only."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(place / "in.sock")
        listener.bind(path)
        os.chmod(path, 0o620)
        listener.listen()
        yield listener


@pytest.fixture
def watch(listener: socket.socket) -> Iterator[Watch]:
    """Start processes that watch, which end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(other: int) -> subprocess.Popen[str]:
        number = listener.fileno()
        words = [sys.executable, "-c", PROGRAM, str(number), WATCH, str(other)]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[number],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    told: list[str] = json.loads(process.stdout.readline())
    return told


def end(process: subprocess.Popen[str]) -> list[list[str]]:
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    told = [json.loads(each) for each in process.stdout]
    process.wait()
    return told


def test_it_listens_and_leaves_the_socket_as_it_is(
    listener: socket.socket, watch: Watch, qemu_factory: Callable[..., RealQEMU]
) -> None:
    path = listener.getsockname()
    before = os.stat(path)
    qemu_factory(
        "-name", "web", "-chardev", f"socket,id=m,path={path},reconnect=1", "-mon", "m,mode=control"
    )
    # One after the other, as when the daemon is restarted.
    for _ in range(2):
        process = watch(0)
        assert line(process) == ["", "listening"]
        assert line(process) == ["web", "connected"]
        assert line(process) == ["web", "snapshot"]
        assert end(process) == [["web", "disconnected"], ["", "denied False"]]
        after = os.stat(path)
        assert after.st_ino == before.st_ino
        assert stat.S_IMODE(after.st_mode) == 0o620


def test_who_may_connect(listener: socket.socket, watch: Watch) -> None:
    process = watch(1)
    assert line(process) == ["", "listening"]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(listener.getsockname())
        client.sendall(b'{"QMP": {}}')
        assert client.recv(100) == b""
    assert end(process) == [["", "denied True"]]
