"""The helper that the other integration tests rest on: :class:`support.qemu.RealQEMU`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable

import pytest

from support.qemu import RealQEMU


def greeting(path: str) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        text = client.recv(65536)
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_listens_at_once(qemu: RealQEMU) -> None:
    assert "QMP" in greeting(qemu.path())


def test_several_monitors(qemu_factory: Callable[..., RealQEMU]) -> None:
    qemu = qemu_factory(monitors=["a", "b"])
    assert "QMP" in greeting(qemu.path("a"))
    assert "QMP" in greeting(qemu.path("b"))


def test_execute_and_events(qemu: RealQEMU) -> None:
    assert qemu.execute("query-status")["running"] is False
    qemu.execute("cont")
    assert [event["event"] for event in qemu.events] == ["RESUME"]


def test_execute_error(qemu: RealQEMU) -> None:
    with pytest.raises(RuntimeError, match="CommandNotFound"):
        qemu.execute("no-such-command")


def test_kill(qemu: RealQEMU) -> None:
    qemu.kill()
    assert not qemu.running
    assert qemu.returncode == -9


def test_quit(qemu: RealQEMU) -> None:
    qemu.execute("quit")
    assert qemu.wait(10)
    assert qemu.returncode == 0


def test_stop_is_clean() -> None:
    qemu = RealQEMU().start()
    directory = qemu.directory
    qemu.stop()
    assert qemu.returncode == 0
    assert not directory.exists()
    qemu.stop()


def test_stop_after_pause() -> None:
    qemu = RealQEMU().start()
    qemu.pause()
    qemu.stop()
    assert not qemu.running


def test_bad_arguments() -> None:
    qemu = RealQEMU("-no-such-option")
    with pytest.raises(RuntimeError, match="no-such-option: invalid option"):
        qemu.start()


def test_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.qemu.PROGRAM", "qemu-system-nothing")
    monkeypatch.delenv("TXQMP_REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="qemu-system-nothing is not installed"):
        RealQEMU()
    monkeypatch.setitem(os.environ, "TXQMP_REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="TXQMP_REQUIRE_REAL"):
        RealQEMU()
