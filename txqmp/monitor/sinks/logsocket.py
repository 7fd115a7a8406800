"""The UNIX sockets of the system's logs, and the receiver of events behind them."""

from __future__ import annotations

import array
import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Protocol

from txqmp.monitor.sinks.delivery import EventRejectedError, OutgoingEvent, UnavailableError


PATIENCE = 2.0
"""How long one event may wait for the log to read what it has, in seconds."""


class LogSocket:
    """
    A connection to a log's socket, made when it is needed.

    :param path: of the socket.
    :param stream: whether it may be a stream, too.
    :param patience: how long a message may wait, in seconds.
    """

    def __init__(self, path: str, *, stream: bool, patience: float = PATIENCE) -> None:
        self.path = path
        self._kinds = [socket.SOCK_DGRAM, *([socket.SOCK_STREAM] if stream else [])]
        self._patience = patience
        self._socket: socket.socket | None = None

    def connect(self) -> bool:
        """
        Connect, unless it is connected.

        :returns: whether it is a stream.
        :raises OSError: it cannot be connected.
        """
        if self._socket is None:
            self._socket = self._connected()
        return self._socket.type == socket.SOCK_STREAM

    def _connected(self) -> socket.socket:
        for kind in self._kinds:
            attempt = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
            try:
                attempt.settimeout(self._patience)
                attempt.connect(self.path)
            except OSError as problem:
                attempt.close()
                if problem.errno != errno.EPROTOTYPE or kind == self._kinds[-1]:
                    raise
            else:
                return attempt
        raise AssertionError("there is at least one kind")

    def send(self, message: bytes, descriptor: int | None = None) -> None:
        """
        Hand a message to the kernel.

        :param descriptor: an open file to go with it.
        :raises OSError: it was not sent; of a stream a part may have been.
        """
        self.connect()
        assert self._socket is not None
        if descriptor is not None:
            rights = array.array("i", [descriptor])
            self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            return
        left = memoryview(message)
        while left:
            left = left[self._socket.send(left) :]

    def close(self) -> None:
        """Close it; it is connected anew when it is needed."""
        closed, self._socket = self._socket, None
        if closed is not None:
            closed.close()


class LogWriter(Protocol):
    """How an event is written to a log."""

    def write(self, socket: LogSocket, event: OutgoingEvent) -> None:
        """
        Send an event.

        :raises OSError: it was not sent.
        :raises MessageSizeError: it never can be.
        """


class MessageSizeError(Exception):
    """An event is too long for a log, for good."""


class LogReceiver:
    """
    Writes events to a log: a :class:`~txqmp.monitor.sinks.threaded.BlockingReceiver`.

    :param socket: the log's.
    :param writer: how to write to it.
    """

    def __init__(self, socket: LogSocket, writer: LogWriter) -> None:
        self._socket = socket
        self._writer = writer

    def take(self, events: Sequence[OutgoingEvent]) -> None:
        """
        Write events.

        :raises DeliveryError: not all were handed to the kernel.
        """
        for count, event in enumerate(events):
            try:
                self._writer.write(self._socket, event)
            except MessageSizeError as problem:
                raise EventRejectedError(str(problem), count) from problem
            except OSError as problem:
                # Of a stream a part may be sent; and the log may have made a new socket.
                self._socket.close()
                raise UnavailableError(self._reason(problem), count) from problem

    def _reason(self, problem: OSError) -> str:
        if isinstance(problem, (TimeoutError, BlockingIOError)) or problem.errno == errno.ENOBUFS:
            return f"{self._socket.path} takes no more at present"
        return f"cannot write to {self._socket.path}: {problem.strerror or problem}"

    def reopen(self) -> None:
        """Connect anew before the next event."""
        self.close()

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()
