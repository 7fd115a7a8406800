"""Events in the journal, over a real socket."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor

from support.logs import LogEnd, fields
from support.outgoing import event, events, refusal
from support.waiting import within
from txqmp.monitor.sinks import journald
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError
from txqmp.monitor.sinks.journald import JournalWriter, entry, journald_delivery
from txqmp.monitor.sinks.logsocket import LogReceiver, LogSocket
from txqmp.monitor.sinks.settings import JournaldSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def log(path: Path) -> Iterator[LogEnd]:
    log = LogEnd(path)
    yield log
    log.close()


@pytest.fixture
def receiver(path: Path) -> Iterator[LogReceiver]:
    socket = LogSocket(str(path), stream=False, patience=0.05)
    receiver = LogReceiver(socket, JournalWriter("qmp-monitor"))
    yield receiver
    receiver.close()


def test_settings() -> None:
    settings = JournaldSettings()
    assert settings.path == "/run/systemd/journal/socket"
    delivery = journald_delivery(reactor, settings)
    assert delivery.name == "journald /run/systemd/journal/socket"
    with pytest.raises(ValueError, match="is not made of"):
        JournaldSettings(identifier="two words")


@pytest_twisted.ensureDeferred
async def test_delivers(path: Path, log: LogEnd) -> None:
    delivery = journald_delivery(reactor, JournaldSettings(path=str(path)))
    delivery.start()
    await within(delivery.deliver([event(1, "BLOCK_IO_ERROR", called="web")]))
    text = event(1, "BLOCK_IO_ERROR").text
    assert fields(log.read()) == {
        "MESSAGE": b"web: BLOCK_IO_ERROR",
        "PRIORITY": b"3",
        "SYSLOG_IDENTIFIER": b"qmp-monitor",
        "TXQMP_ID": b"8f3c1d2a9b7e4c60-00000000000000000001",
        "TXQMP_TYPE": b"org.qemu.qmp.BLOCK_IO_ERROR",
        "TXQMP_VM": b"web",
        "TXQMP_EVENT": text,
    }
    await within(delivery.stop())


@pytest_twisted.ensureDeferred
async def test_what_it_fails_with(path: Path) -> None:
    delivery = journald_delivery(reactor, JournaldSettings(path=str(path)))
    problem = await refusal(delivery.deliver(events(2)))
    assert type(problem) is UnavailableError
    assert str(problem) == f"cannot write to {path}: No such file or directory"
    log = LogEnd(path)
    await within(delivery.deliver(events(2)))
    assert len(log.waiting()) == 2
    log.close()
    await within(delivery.stop())


@given(id=st.text(), type=st.text(), vm=st.text(st.characters()), text=st.binary())
def test_any_text(id: str, type: str, vm: str, text: bytes) -> None:
    """No value becomes another field."""
    found = fields(entry(OutgoingEvent(id=id, type=type, vm=vm, text=text), "me"))
    assert list(found)[-4:] == ["TXQMP_ID", "TXQMP_TYPE", "TXQMP_VM", "TXQMP_EVENT"]
    assert found["TXQMP_EVENT"] == text
    assert found["TXQMP_VM"] == vm.encode("utf-8", "backslashreplace")
    assert min(found["MESSAGE"]) >= ord(" ")


def test_the_long_form() -> None:
    message = entry(event(1, called="a\nPRIORITY=0"), "me")
    assert b"\nTXQMP_VM\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n" in message


def test_a_log_that_does_not_read(log: LogEnd, receiver: LogReceiver) -> None:
    """As many as the kernel takes are delivered, and the rest later."""
    batch = events(10_000)
    with pytest.raises(UnavailableError, match=f"{log.path} takes no more at present") as raised:
        receiver.take(batch)
    taken = raised.value.delivered
    assert 0 < taken < len(batch)
    assert len(log.waiting()) == taken
    receiver.take(batch[taken : taken + 1])
    assert fields(log.read())["TXQMP_ID"] == batch[taken].id.encode()


def test_too_large_for_a_datagram(log: LogEnd, receiver: LogReceiver) -> None:
    large = event(1, data=b'{"text":"%b"}' % (b"x" * 3_000_000))
    receiver.take([event(0), large, event(2)])
    log.read()
    found = fields(log.read())
    assert found["TXQMP_EVENT"] == large.text
    assert orjson.loads(found["TXQMP_EVENT"])["data"]["text"] == "x" * 3_000_000
    seals = fcntl.fcntl(log.file, fcntl.F_GET_SEALS)
    assert seals == (
        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    os.close(log.file)
    assert fields(log.read())["TXQMP_ID"] == event(2).id.encode()


def test_no_files_in_memory(
    monkeypatch: pytest.MonkeyPatch, log: LogEnd, receiver: LogReceiver
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(journald.os, "memfd_create", refuse)
    large = event(1, data=b'{"text":"%b"}' % (b"x" * 3_000_000))
    with pytest.raises(UnavailableError, match="Operation not permitted") as raised:
        receiver.take([event(0), large])
    assert raised.value.delivered == 1


def test_a_log_that_restarts(path: Path, receiver: LogReceiver) -> None:
    log = LogEnd(path)
    receiver.take(events(2))
    log.close()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="cannot write to") as raised:
            receiver.take(events(2))
        assert raised.value.delivered == 0
    log = LogEnd(path)
    receiver.take(events(2))
    assert len(log.waiting()) == 2
    log.close()


def test_a_log_at_another_place(path: Path, log: LogEnd, receiver: LogReceiver) -> None:
    receiver.take([event(0)])
    os.rename(path, path.with_suffix(".old"))
    other = LogEnd(path)
    receiver.take([event(1)])
    receiver.reopen()
    receiver.take([event(2)])
    assert len(log.waiting()) == 2
    assert len(other.waiting()) == 1
    other.close()
    os.rename(path.with_suffix(".old"), path)


def test_no_socket(path: Path, receiver: LogReceiver) -> None:
    path.touch()
    with pytest.raises(UnavailableError, match="Connection refused"):
        receiver.take([event(0)])
