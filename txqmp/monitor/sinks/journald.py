"""
Events in systemd's journal: :func:`journald_delivery`.

They are sent in its native protocol (systemd's documentation, *Native Journal Protocol*): a
datagram of fields for each, or, where that is too large, a sealed file in memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Any

from txqmp.monitor.cloudevents import clean
from txqmp.monitor.sinks.delivery import OutgoingEvent
from txqmp.monitor.sinks.logsocket import LogReceiver, LogSocket
from txqmp.monitor.sinks.settings import JournaldSettings
from txqmp.monitor.sinks.severity import severity, short_name
from txqmp.monitor.sinks.threaded import ThreadedDelivery
from txqmp.monitor.worker import Worker


BATCH = 100
"""How many events are sent at a time, at most."""

_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def fields(event: OutgoingEvent, identifier: str) -> Iterator[tuple[str, bytes]]:
    """
    What the journal gets of an event, by name: ``MESSAGE``, such as ``web: STOP``; ``PRIORITY``;
    ``SYSLOG_IDENTIFIER``; ``TXQMP_ID``, ``TXQMP_TYPE`` and ``TXQMP_VM``, to search for; and
    ``TXQMP_EVENT``, the CloudEvent in JSON.
    """
    yield "MESSAGE", _utf8(clean(f"{event.vm}: {short_name(event.type)}"))
    yield "PRIORITY", b"%d" % severity(event.type)
    yield "SYSLOG_IDENTIFIER", _utf8(identifier)
    yield "TXQMP_ID", _utf8(event.id)
    yield "TXQMP_TYPE", _utf8(event.type)
    yield "TXQMP_VM", _utf8(event.vm)
    yield "TXQMP_EVENT", event.text


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def entry(event: OutgoingEvent, identifier: str) -> bytes:
    """An event as the journal's protocol has it."""
    return b"".join(_field(name.encode(), value) for name, value in fields(event, identifier))


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name, struct.pack("<Q", len(value)), value)
    return b"%b=%b\n" % (name, value)


class JournalWriter:
    """
    Writes events to the journal.

    :param identifier: who says it.
    """

    def __init__(self, identifier: str) -> None:
        self._identifier = identifier

    def write(self, socket: LogSocket, event: OutgoingEvent) -> None:
        """:raises OSError: it was not sent."""
        message = entry(event, self._identifier)
        try:
            socket.send(message)
        except OSError as problem:
            if problem.errno not in _TOO_LARGE:
                raise
            _send_sealed(socket, message)


def _send_sealed(socket: LogSocket, message: bytes) -> None:
    """Send what is too large for a datagram."""
    descriptor = os.memfd_create("txqmp-event", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", buffering=0) as file:
        left = memoryview(message)
        while left:
            left = left[file.write(left) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        socket.send(b"", descriptor)


def journald_delivery(reactor: Any, settings: JournaldSettings) -> ThreadedDelivery:
    """
    Writes events to systemd's journal. They are delivered when they are handed to the kernel: the
    journal acknowledges nothing, and what it has not read when it crashes, or drops because there
    is too much, is lost. While it does not read, and the kernel takes no more, events wait here.

    :param reactor: the running one.
    :param settings: where the journal is.
    """
    receiver = LogReceiver(
        LogSocket(settings.path, stream=False), JournalWriter(settings.identifier)
    )
    name = f"journald {settings.path}"
    return ThreadedDelivery(name, BATCH, receiver, Worker(reactor, "journald"), reactor)
