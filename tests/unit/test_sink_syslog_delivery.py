"""Events in the system's log, over real sockets."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor

from support.logs import LogEnd
from support.outgoing import event, events, refusal
from support.waiting import within
from txqmp.fleet import Kind
from txqmp.monitor.qmpevents import KNOWN
from txqmp.monitor.sinks import severity as severities
from txqmp.monitor.sinks import syslog
from txqmp.monitor.sinks.delivery import EventRejectedError, OutgoingEvent, UnavailableError
from txqmp.monitor.sinks.logsocket import LogReceiver, LogSocket
from txqmp.monitor.sinks.settings import SyslogFormat, SyslogSettings
from txqmp.monitor.sinks.severity import Severity, severity
from txqmp.monitor.sinks.syslog import CUT, SyslogWriter, syslog_delivery


#: RFC 5424, section 6: the grammar, as far as we write it.
MESSAGE = re.compile(
    rb"<(?P<priority>0|[1-9][0-9]{0,2})>1 (?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"
    rb" (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<pid>[!-~]{1,128}) (?P<msgid>[!-~]{1,32})"
    rb" \[txqmp@32473(?P<data>( [a-z]+=\"([^\"\\\]]|\\[\"\\\]])*\")*)\] (?P<text>.*)",
    re.DOTALL,
)
PARAMETER = re.compile(rb' ([a-z]+)="((?:[^"\\\]]|\\["\\\]])*)"')


def parsed(message: bytes) -> dict[str, Any]:
    """A message of RFC 5424."""
    found = MESSAGE.fullmatch(message)
    assert found is not None, message
    data = {
        name.decode(): re.sub(rb"\\(.)", rb"\1", value).decode()
        for name, value in PARAMETER.findall(found["data"])
    }
    return {**found.groupdict(), "data": data}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(path: Path) -> Iterator[LogEnd]:
    log = LogEnd(path)
    yield log
    log.close()


@pytest.fixture
def streams(path: Path) -> Iterator[LogEnd]:
    log = LogEnd(path, socket.SOCK_STREAM)
    yield log
    log.close()


def writer(**changes: Any) -> SyslogWriter:
    return SyslogWriter(SyslogSettings(**changes), "node7")


@pytest.fixture
def receiver(path: Path) -> Iterator[LogReceiver]:
    receiver = LogReceiver(LogSocket(str(path), stream=True, patience=0.05), writer())
    yield receiver
    receiver.close()


# Settings


def test_settings() -> None:
    assert syslog_delivery(reactor, SyslogSettings()).name == "syslog /dev/log"
    for facility in ("kern", "local8", "DAEMON", ""):
        with pytest.raises(ValueError):
            SyslogSettings(facility=facility)
    for identifier in ("", "a b", "a]", "x" * 33):
        with pytest.raises(ValueError, match="is not made of"):
            SyslogSettings(identifier=identifier)


@pytest.mark.parametrize(
    ("facility", "number"),
    [("user", 1), ("daemon", 3), ("ftp", 11), ("local0", 16), ("local7", 23)],
)
def test_facilities(facility: str, number: int) -> None:
    assert parsed(writer(facility=facility).message(event(1)))["priority"] == b"%d" % (
        number * 8 + 5
    )


# How bad it is


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        ("org.qemu.qmp.GUEST_PANICKED", Severity.CRITICAL),
        ("org.qemu.qmp.MEMORY_FAILURE", Severity.CRITICAL),
        ("org.qemu.qmp.BLOCK_IO_ERROR", Severity.ERROR),
        ("org.qemu.qmp.WATCHDOG", Severity.ERROR),
        ("txqmp.monitor.gap", Severity.WARNING),
        ("org.qemu.qmp.SHUTDOWN", Severity.NOTICE),
        ("org.qemu.qmp.RTC_CHANGE", Severity.INFO),
        ("org.qemu.qmp.__com.example.WATCHDOG", Severity.INFO),
        ("WATCHDOG", Severity.ERROR),
        ("", Severity.INFO),
    ],
)
def test_severity(type: str, expected: Severity) -> None:
    assert severity(type) is expected


def test_severities_of_what_there_is() -> None:
    assert set(severities._BY_NAME) <= KNOWN | {kind.value for kind in Kind}


# Messages


@pytest_twisted.ensureDeferred
async def test_delivers(path: Path, log: LogEnd) -> None:
    delivery = syslog_delivery(reactor, SyslogSettings(path=str(path)))
    delivery.start()
    await within(delivery.deliver([event(1, called="web")]))
    message = parsed(log.read())
    assert message["data"] == {
        "id": "8f3c1d2a9b7e4c60-00000000000000000001",
        "type": "org.qemu.qmp.STOP",
        "vm": "web",
    }
    assert message["time"] == b"2026-11-21T01:20:00.124456Z"
    assert message["host"] == socket.gethostname().encode()
    assert (message["app"], message["msgid"]) == (b"qmp-monitor", b"STOP")
    assert message["pid"] == b"%d" % os.getpid()
    assert message["priority"] == b"%d" % (3 * 8 + 5)
    assert message["text"] == event(1).text
    await within(delivery.stop())


@given(id=st.text(), type=st.text(), vm=st.text(st.characters()))
def test_any_text(id: str, type: str, vm: str) -> None:
    """No value becomes another parameter, or ends the data."""
    message = parsed(writer().message(OutgoingEvent(id=id, type=type, vm=vm, text=b"{}")))
    assert list(message["data"]) == ["id", "type", "vm"]
    if vm.isascii() and vm.isprintable() and vm:
        assert message["data"]["vm"] == vm
    # It is no event of ours, and has no time.
    assert (message["time"], message["text"]) == (b"-", b"{}")


def test_escapes() -> None:
    message = writer().message(event(1, called='a"b\\c]d'))
    assert rb'vm="a\"b\\c\]d"' in message


def test_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    message = writer(format=SyslogFormat.RFC3164, identifier="vms").message(event(1))
    assert message == b"<29>Nov 21 01:20:00 vms[%d]: %b" % (os.getpid(), event(1).text)
    early = OutgoingEvent(
        id="x", type="y", vm="z", text=event(1).text.replace(b"2026-11-21T01", b"2026-02-03T04", 1)
    )
    message = writer(format=SyslogFormat.RFC3164).message(early)
    assert message.startswith(b"<30>Feb  3 04:20:00 qmp-monitor[")
    monkeypatch.setattr(syslog.time, "localtime", lambda _: time.gmtime(0))
    broken = OutgoingEvent(id="x", type="y", vm="z", text=b"{}")
    message = writer(format=SyslogFormat.RFC3164).message(broken)
    assert message.startswith(b"<30>Jan  1 00:00:00 qmp-monitor[")
    monkeypatch.undo()
    time.tzset()


# Sockets


def test_a_log_that_does_not_read(log: LogEnd, receiver: LogReceiver) -> None:
    batch = events(10_000)
    with pytest.raises(UnavailableError, match="takes no more at present") as raised:
        receiver.take(batch)
    taken = raised.value.delivered
    assert 0 < taken < len(batch)
    assert [parsed(each)["text"] for each in log.waiting()] == [e.text for e in batch[:taken]]
    receiver.take(batch[taken : taken + 1])


def test_too_large_for_a_datagram(log: LogEnd, receiver: LogReceiver) -> None:
    large = event(1, data=b'{"text":"%b"}' % ("\N{SNOWMAN}".encode() * 1_000_000))
    receiver.take([event(0), large, event(2)])
    first, second, third = map(parsed, log.waiting())
    assert (first["text"], third["text"]) == (event(0).text, event(2).text)
    assert second["data"]["size"] == str(len(large.text))
    assert CUT - 3 < len(second["text"]) <= CUT
    assert large.text.startswith(second["text"])
    second["text"].decode()
    assert "size" not in first["data"]


def test_too_large_at_all(log: LogEnd, receiver: LogReceiver) -> None:
    huge = event(1, called="x" * 1_000_000)
    with pytest.raises(EventRejectedError, match="takes no message of its size") as raised:
        receiver.take([event(0), huge, event(2)])
    assert raised.value.delivered == 1
    receiver.take([event(2)])
    assert len(log.waiting()) == 2


def test_a_stream(streams: LogEnd, receiver: LogReceiver) -> None:
    receiver.take(events(2))
    large = event(2, data=b'{"text":"%b"}' % (b"x" * 50_000))
    receiver.take([large])
    receiver.close()
    with streams.accept() as connection, connection.makefile("rb") as file:
        texts = [parsed(line)["text"] for line in file.read().splitlines()]
    assert texts == [each.text for each in [*events(2), large]]


def test_a_stream_that_is_not_read(streams: LogEnd, receiver: LogReceiver) -> None:
    """What was torn by it is sent anew, on another connection."""
    batch = [event(n, data=b'{"text":"%b"}' % (b"x" * 50_000)) for n in range(100)]
    with pytest.raises(UnavailableError, match="takes no more at present") as raised:
        receiver.take(batch)
    taken = raised.value.delivered
    assert 0 < taken < len(batch)
    with streams.accept() as connection, connection.makefile("rb") as file:
        whole = file.read().split(b"\n")[:-1]
    assert [parsed(line)["text"] for line in whole] == [e.text for e in batch[:taken]]
    receiver.take(batch[taken : taken + 1])
    receiver.close()
    with streams.accept() as connection, connection.makefile("rb") as file:
        assert parsed(file.read().rstrip(b"\n"))["text"] == batch[taken].text


def test_a_stream_that_ends(path: Path, receiver: LogReceiver) -> None:
    log = LogEnd(path, socket.SOCK_STREAM)
    receiver.take([event(0)])
    log.accept().close()
    log.close()
    with pytest.raises(UnavailableError, match="Broken pipe") as raised:
        receiver.take(events(2))
    assert raised.value.delivered == 0
    # It has become one for datagrams.
    log = LogEnd(path)
    receiver.take(events(2))
    assert len(log.waiting()) == 2
    log.close()


@pytest_twisted.ensureDeferred
async def test_no_log(path: Path) -> None:
    delivery = syslog_delivery(reactor, SyslogSettings(path=str(path)))
    problem = await refusal(delivery.deliver(events(2)))
    assert type(problem) is UnavailableError
    assert str(problem) == f"cannot write to {path}: No such file or directory"
    await within(delivery.stop())
