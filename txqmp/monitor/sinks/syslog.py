"""
Events in the system's log: :func:`syslog_delivery`.

A message of RFC 5424 looks like this, on one line; what comes last is the CloudEvent::

    <30>1 2026-11-21T01:20:00.123456Z node7 qmp-monitor 4711 STOP
        [txqmp@32473 id="8f3c…-…4711" type="org.qemu.qmp.STOP" vm="web"] {"specversion":"1.0",…}

and one of RFC 3164, as ``syslog(3)`` writes it, like this::

    <30>Nov 21 01:20:00 qmp-monitor[4711]: {"specversion":"1.0",…}

The CloudEvent is UTF-8. It has no byte order mark before it, as RFC 5424 wants it for UTF-8,
because many who read JSON do not.
"""

from __future__ import annotations

import errno
import os
import re
import socket as sockets
import time
from datetime import datetime
from typing import Any

from txqmp.monitor.cloudevents import clean
from txqmp.monitor.sinks.delivery import OutgoingEvent
from txqmp.monitor.sinks.logsocket import LogReceiver, LogSocket, MessageSizeError
from txqmp.monitor.sinks.settings import FACILITIES, SyslogFormat, SyslogSettings
from txqmp.monitor.sinks.severity import severity, short_name
from txqmp.monitor.sinks.threaded import ThreadedDelivery
from txqmp.monitor.worker import Worker


BATCH = 100
"""How many events are sent at a time, at most."""

CUT = 8192
"""
What is left of a CloudEvent that the kernel finds too large for a datagram, in bytes. It is what
rsyslog would leave of it.
"""

STRUCTURED_DATA = "txqmp@32473"
"""
What the structured data are called. The number is that of an enterprise; this one is nobody's, for
examples (RFC 5612).
"""

# strftime would write them in the language of the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NIL = "-"
_UNPRINTABLE = re.compile(r"[^!-~]")
_SPECIAL = re.compile(r'["\\\]]')


class SyslogWriter:
    """
    Writes events to a log.

    :param settings: how.
    :param hostname: ours.
    """

    def __init__(self, settings: SyslogSettings, hostname: str) -> None:
        self._facility = FACILITIES[settings.facility] * 8
        self._identifier = settings.identifier
        self._format = settings.format
        self._hostname = _word(hostname, 255)

    def write(self, socket: LogSocket, event: OutgoingEvent) -> None:
        """
        Send an event. One that is too large for a datagram is cut off, and its structured data say
        how large it was (``size``); it can be looked up elsewhere by its id.

        :raises OSError: it was not sent.
        :raises MessageSizeError: … because not even what is left of it could be.
        """
        if socket.connect():
            # Streams are read line by line.
            socket.send(self.message(event) + b"\n")
            return
        try:
            socket.send(self.message(event))
        except OSError as problem:
            if problem.errno != errno.EMSGSIZE:
                raise
            self._write_cut(socket, event)

    def _write_cut(self, socket: LogSocket, event: OutgoingEvent) -> None:
        try:
            socket.send(self.message(event, CUT))
        except OSError as problem:
            if problem.errno != errno.EMSGSIZE:
                raise
            raise MessageSizeError(f"{socket.path} takes no message of its size") from problem

    def message(self, event: OutgoingEvent, limit: int | None = None) -> bytes:
        """
        An event as a message.

        :param limit: how much of the CloudEvent to send, in bytes; ``None`` for all.
        """
        text = event.text
        size = None
        if limit is not None and len(text) > limit:
            size = len(text)
            # Not in the middle of a character.
            text = text[:limit].decode("utf-8", "ignore").encode()
        if self._format is SyslogFormat.RFC3164:
            head = self._old_head(event)
        else:
            head = self._head(event, size)
        return b"%b %b" % (head.encode("utf-8", "backslashreplace"), text)

    def _priority(self, event: OutgoingEvent) -> int:
        return self._facility + severity(event.type)

    def _head(self, event: OutgoingEvent, size: int | None) -> str:
        parameters = {"id": event.id, "type": event.type, "vm": event.vm}
        if size is not None:
            parameters["size"] = str(size)
        data = "".join(f' {name}="{_escaped(value)}"' for name, value in parameters.items())
        return (
            f"<{self._priority(event)}>1 {_happened(event) or _NIL} {self._hostname}"
            f" {self._identifier} {os.getpid()} {_word(short_name(event.type), 32)}"
            f" [{STRUCTURED_DATA}{data}]"
        )

    def _old_head(self, event: OutgoingEvent) -> str:
        happened = _happened(event)
        local = time.localtime(None if happened is None else _seconds(happened))
        stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {time.strftime('%H:%M:%S', local)}"
        return f"<{self._priority(event)}>{stamp} {self._identifier}[{os.getpid()}]:"


def _happened(event: OutgoingEvent) -> str | None:
    """When it happened, as CloudEvents and RFC 5424 both write it."""
    try:
        return event.cloudevent.time
    except ValueError:
        return None


def _seconds(happened: str) -> float:
    return datetime.fromisoformat(f"{happened[:-1]}+00:00").timestamp()


def _word(text: str, limit: int) -> str:
    """A text as a member of a message's head."""
    return _UNPRINTABLE.sub("?", text)[:limit] or _NIL


def _escaped(value: str) -> str:
    """A text as the value of a parameter (RFC 5424, section 6.3.3)."""
    return _SPECIAL.sub(r"\\\g<0>", clean(value))


def syslog_delivery(reactor: Any, settings: SyslogSettings) -> ThreadedDelivery:
    """
    Writes events to the system's log, over a UNIX socket for datagrams, or one for streams. They
    are delivered when they are handed to the kernel: nobody acknowledges them, and what the log has
    not read when it crashes is lost. While it does not read, and the kernel takes no more, events
    wait here.

    :param reactor: the running one.
    :param settings: where the log is, and how it wants its messages.
    """
    writer = SyslogWriter(settings, sockets.gethostname())
    receiver = LogReceiver(LogSocket(settings.path, stream=True), writer)
    name = f"syslog {settings.path}"
    return ThreadedDelivery(name, BATCH, receiver, Worker(reactor, "syslog"), reactor)
