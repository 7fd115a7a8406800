"""What systemd is told, over real datagram sockets."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from support.leaks import LoggedErrors
from txqmp.monitor.systemd import Notifier, WatchdogService


class Manager:
    """The end of systemd."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.address = address

    def heard(self) -> list[str]:
        """What it was told since."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="txqmp-") as directory:
        address = f"{directory}/notify"
        if request.param == "abstract":
            address = f"@txqmp-{secrets.token_hex(8)}"
        manager = Manager(address)
        yield manager
        manager.socket.close()


def environment(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, "HOME": "/", **more}


def test_words(manager: Manager) -> None:
    notifier = Notifier(environment(manager))
    assert notifier.listened
    assert notifier.ready("12 VMs\nare  watched")
    assert notifier.ready()
    assert notifier.status("well " * 1000)
    assert notifier.alive()
    assert notifier.stopping()
    ready, bare, status, alive, stopping = manager.heard()
    assert ready == "READY=1\nSTATUS=12 VMs are watched"
    assert bare == "READY=1"
    assert status == f"STATUS={'well ' * 99}well"
    assert alive == "WATCHDOG=1"
    assert stopping == "STOPPING=1"


def test_reloading(manager: Manager) -> None:
    assert Notifier(environment(manager)).reloading()
    (text,) = manager.heard()
    first, second = text.split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(value) > 0


def test_children_do_not_speak_for_us(manager: Manager) -> None:
    variables = environment(manager, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid()))
    assert Notifier(variables).watchdog == 2.0
    assert variables == {"HOME": "/"}


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "me"}, None),
    ],
)
def test_watchdog_of(manager: Manager, variables: dict[str, str], watchdog: float | None) -> None:
    assert Notifier(environment(manager, **variables)).watchdog == watchdog


def test_nobody_listens() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "500000"})
    assert not notifier.listened
    assert notifier.watchdog is None
    assert not notifier.ready("well")
    assert not notifier.alive()


@pytest.mark.parametrize(
    "address", ["/nowhere/at/all", "@txqmp-nobody", "/" + "x" * 200, "\0", "x"]
)
def test_what_is_no_socket(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert not notifier.ready()
    assert not notifier.ready("\ud800")


def test_never_waits(manager: Manager) -> None:
    """One that reads nothing holds nobody up."""
    notifier = Notifier(environment(manager))
    told = 0
    while notifier.alive():
        told += 1
        assert told < 100_000
    assert not notifier.ready()
    assert len(manager.heard()) == told
    assert notifier.ready()


def test_no_descriptors_are_left(manager: Manager) -> None:
    notifier = Notifier(environment(manager))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        notifier.ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere"}).ready()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_of_the_process(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    assert Notifier().ready()
    assert "NOTIFY_SOCKET" not in os.environ


# The watchdog


def test_watchdog(manager: Manager, clock: Clock, logged_errors: LoggedErrors) -> None:
    well = True

    def healthy() -> bool:
        if well is None:
            raise ZeroDivisionError
        return bool(well)

    notifier = Notifier(environment(manager, WATCHDOG_USEC="10000000"))
    service = WatchdogService(clock, notifier, healthy)
    service.startService()
    assert manager.heard() == ["WATCHDOG=1"]
    clock.pump([2.5] * 4)
    assert manager.heard() == ["WATCHDOG=1"] * 2
    well = False
    clock.advance(5)
    well = None  # type: ignore[assignment]
    clock.advance(5)
    assert manager.heard() == []
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    well = True
    clock.advance(5)
    assert manager.heard() == ["WATCHDOG=1"]
    service.stopService()
    clock.advance(20)
    assert manager.heard() == []
    # It can be started again.
    service.startService()
    assert manager.heard() == ["WATCHDOG=1"]
    service.stopService()


def test_no_watchdog(manager: Manager, clock: Clock, tmp_path: Path) -> None:
    service = WatchdogService(clock, Notifier(environment(manager)))
    service.startService()
    assert not clock.getDelayedCalls()
    service.stopService()
    assert manager.heard() == []
