"""
What a peer that misbehaves does, step by step: the words of scripts and of faults.

A step is something to send (an object as a mapping, or bytes as they are), or one of the classes
here. :class:`Player` carries steps out, one after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from zope.interface import implementer

from txqmp.messages import Event
from txqmp.server.output import encode


@attrs.frozen
class Pause:
    """
    Send nothing for a while; what follows waits.

    :ivar seconds: by the clock of the server.
    """

    seconds: float


@attrs.frozen
class Silence:
    """Send nothing any more, and stay connected (fact G5)."""


@attrs.frozen
class Close:
    """Close the connection when all has been sent: the client sees its end."""


@attrs.frozen
class Reset:
    """
    Close the connection, when all has been sent, so that the client sees it reset.

    In memory and over TCP that is always so. Over a UNIX socket it is so if the client has sent
    more than was read: a server that is to reset reads byte by byte, and the line end behind the
    client's last command will do. Whether it is to reset is looked up when the connection is made.
    """


@attrs.frozen
class Pieces:
    """
    Send bytes in small pieces, each in a turn of its own.

    :ivar data: the bytes.
    :ivar size: of the pieces.
    :ivar delay: the time between them, in seconds.
    :ivar begun: how many bytes were sent already.
    """

    data: bytes
    size: int = 1
    delay: float = 0.0
    begun: int = 0


@attrs.frozen
class Joined:
    """
    Send bytes together with what else is to be sent within a time.

    :ivar data: the bytes.
    :ivar within: the time, in seconds.
    """

    data: bytes
    within: float


Step = Mapping[str, Any] | bytes | Event | Pause | Silence | Close | Reset | Pieces | Joined
"""A step: something to send, or one of the classes here."""

GARBAGE = b"qemu: could not open disk image\r\n"
"""A line that is not JSON (fact G20)."""

BAD_UTF8 = b'{"event": "\xc3\x28", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n'
"""An object whose text is not UTF-8 (fact G20)."""

BLANK_LINES = b"\r\n\n \t\r\n"
"""Lines without anything (fact G20)."""

TWO_OBJECTS = (
    b'{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}} '
    b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 1}}\r\n'
)
"""Two objects on a line (fact G20)."""

IDLESS_ERROR: Mapping[str, Any] = {
    "error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}
}
"""What QEMU says when it could not read its input (fact G18)."""

STALE_SUCCESS: Mapping[str, Any] = {"return": {}}
"""A reply to the connection's previous client, who gave no id (fact G9)."""

STALE_ERROR: Mapping[str, Any] = {
    "error": {"class": "GenericError", "desc": "the answer to somebody else"}
}
"""An error for the connection's previous client, who gave no id (fact G9)."""


def greeting(
    version: tuple[int, int, int] = (7, 2, 0), capabilities: tuple[str, ...] = ("oob",)
) -> Mapping[str, Any]:
    """The greeting of a server, to send (QMP spec, *Server Greeting*)."""
    major, minor, micro = version
    numbers = {"micro": micro, "minor": minor, "major": major}
    return {
        "QMP": {"version": {"qemu": numbers, "package": ""}, "capabilities": list(capabilities)}
    }


def line(message: Mapping[str, Any] | Event) -> bytes:
    """The text of a message as QEMU sends it, its line end included."""
    return encode(dict(message.raw if isinstance(message, Event) else message)) + b"\r\n"


class Player:
    """
    Carries out steps on a connection.

    :param write: writes bytes.
    :param end: called with the :class:`Close` or :class:`Reset` that ends it.
    :param clock: where pauses come from.
    :param limit: how many steps may wait; with one more the connection is reset.

    :ivar silent: whether nothing is sent any more.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        end: Callable[[Close | Reset], None],
        clock: Callable[[], IReactorTime],
        limit: int = 100_000,
    ) -> None:
        self.silent = False
        self._write = write
        self._end = end
        self._clock = clock
        self._limit = limit
        self._steps: deque[Step] = deque()
        self._timer: IDelayedCall | None = None
        self._joined: list[bytes] = []
        self._join_timer: IDelayedCall | None = None
        self._playing = False
        self._held = False

    def play(self, steps: Iterable[Step]) -> None:
        """Carry out steps, after those that wait."""
        if self.silent:
            return
        self._steps.extend(steps)
        if len(self._steps) > self._limit:
            self._steps.clear()
            self._steps.append(Reset())
        self._go_on()

    def stop(self) -> None:
        """Forget what waits; the connection is over."""
        self.silent = True
        self._steps.clear()
        self._joined.clear()
        timers = (self._timer, self._join_timer)
        self._timer = self._join_timer = None
        for timer in timers:
            if timer is not None:
                timer.cancel()

    def hold(self) -> None:
        """Do nothing until :meth:`release`."""
        self._held = True

    def release(self) -> None:
        """Go on after :meth:`hold`."""
        self._held = False
        self._go_on()

    def _go_on(self) -> None:
        if self._playing:
            return
        self._playing = True
        while self._steps and self._timer is None and not self._held:
            self._carry_out(self._steps.popleft())
        self._playing = False

    def _carry_out(self, step: Step) -> None:
        if isinstance(step, Pause):
            self._pause(step.seconds)
        elif isinstance(step, Silence):
            self._write_joined()
            self.stop()
        elif isinstance(step, (Close, Reset)):
            self._write_joined()
            self.stop()
            self._end(step)
        elif isinstance(step, Joined):
            self._joined.append(step.data)
            if self._join_timer is None:
                self._join_timer = self._clock().callLater(step.within, self._write_joined)
        elif isinstance(step, Pieces):
            begun = step.begun + step.size
            self._write(step.data[step.begun : begun])
            if begun < len(step.data) and not self.silent:
                self._steps.appendleft(attrs.evolve(step, begun=begun))
                self._pause(step.delay)
        else:
            self._write_joined()
            self._write(step if isinstance(step, bytes) else line(step))

    def _write_joined(self) -> None:
        timer, self._join_timer = self._join_timer, None
        if timer is not None and timer.active():
            timer.cancel()
        joined, self._joined = self._joined, []
        if joined:
            self._write(b"".join(joined))

    def _pause(self, seconds: float) -> None:
        self._timer = self._clock().callLater(seconds, self._paused)

    def _paused(self) -> None:
        self._timer = None
        self._go_on()


def reset_when_sent(transport: Any) -> None:
    """
    Reset a connection when all that was written has left the transport's buffer. Nothing is read
    any more: what the peer has sent stays unread.
    """
    transport.pauseProducing()
    producer = _WhenSent(transport)
    transport.registerProducer(producer, False)
    producer.armed = True
    transport.startWriting()  # where nothing is buffered it would not look


@implementer(IPullProducer)
class _WhenSent:
    """Told by the transport when its buffer is empty; then it resets the connection."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.armed = False

    def resumeProducing(self) -> None:
        if self.armed:
            self.armed = False
            self._transport.unregisterProducer()
            self._transport.abortConnection()

    def stopProducing(self) -> None:
        self.armed = False
