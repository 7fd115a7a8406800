"""
Bytes to objects and back: :class:`JSONLineReceiver`, what it writes goes out by
:mod:`txqmp.output`.

What arrives is cut at line ends and read in linear time, whether it is one huge line in many
pieces or thousands of lines in one. A message may be spread over several lines
(``-mon pretty=on``, fact G13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
from twisted.internet.interfaces import ITransport
from twisted.protocols.basic import LineReceiver

from txqmp.errors import (
    DeserializationError,
    MessageTooLongError,
    ProtocolError,
    UnexpectedTypeError,
)
from txqmp.jsontext import Message, without_strings
from txqmp.output import Output
from txqmp.taps import Taps


DEFAULT_MAX_MESSAGE = 64 << 20
"""The largest message taken, in bytes: the same as QEMU's limit on what it reads (fact G18)."""

_loads = orjson.loads
_NOT_JSON = orjson.JSONDecodeError
_NO_LINES: Iterator[bytes] = iter(())
_SHOWN = 1024


class JSONLineReceiver(LineReceiver):
    """
    A protocol of JSON objects, one a line.

    Subclasses override :meth:`message_received` and :meth:`framing_failed`. Lines may end with
    CRLF or LF; blank lines and a leading 0xFF (fact G16) mean nothing.
    ``pauseProducing`` and ``resumeProducing`` work as in ``LineReceiver``, in the middle of a
    chunk too.

    :cvar max_message: the largest message taken, in bytes.
    """

    delimiter = b"\n"
    max_message = DEFAULT_MAX_MESSAGE

    def __init__(self) -> None:
        self.paused = False
        self._lines: Iterator[bytes] = _NO_LINES
        self._pieces: list[bytes] | None = None
        self._pieces_size = 0
        self._chunks: list[bytes] | None = None
        self._spread: _SpreadMessage | None = None
        self._reading = False
        self._stopped = False
        self._too_long: bytes | None = None
        self._taps: Taps | None = None
        self._output: Output | None = None

    def makeConnection(self, transport: ITransport) -> None:
        self._output = Output(transport)
        super().makeConnection(transport)

    def message_received(self, message: dict[str, Any]) -> None:
        """One object came. An exception from here closes the connection: catch your own."""
        raise NotImplementedError

    def framing_failed(self, error: ProtocolError) -> None:
        """
        What came is not a message; nothing after it is read. Called once. Close the connection.

        :param error: a :exc:`~txqmp.errors.DeserializationError`,
            :exc:`~txqmp.errors.UnexpectedTypeError` or :exc:`~txqmp.errors.MessageTooLongError`.
        """
        raise NotImplementedError

    @property
    def taps(self) -> Taps:
        """The taps on this connection's messages (:mod:`txqmp.taps`)."""
        if self._taps is None:
            self._taps = Taps()
        return self._taps

    @property
    def unfinished(self) -> int:
        """How many bytes of a message that is not whole are held."""
        return self._pieces_size + (self._spread.size + 1 if self._spread is not None else 0)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        if self._stopped:
            return
        if data and (self._reading or self.paused):
            if self._chunks is None:
                self._chunks = []
            self._chunks.append(data)
            return
        if self._reading:
            return
        self._reading = True
        if self._output is not None:
            self._output.hold()
        try:
            if data:
                self._cut(data)
            self._read_lines()
            while self._chunks and not self.paused:
                self._cut(self._chunks.pop(0))
                self._read_lines()
        finally:
            self._reading = False
            if self._output is not None:
                self._output.release()

    def resumeProducing(self) -> None:
        if not self._stopped:
            super().resumeProducing()

    def stop_reading(self) -> None:
        """Drop what is held, and all that still comes."""
        self._stopped = True
        self.paused = True
        self._lines = _NO_LINES
        self._pieces = self._chunks = self._spread = None
        self._pieces_size = 0

    def _cut(self, data: bytes) -> None:
        """Cut a chunk at its line ends: whole lines to read, and a piece to hold."""
        lines = data.split(b"\n")
        if self._pieces is not None:
            self._pieces.append(lines[0])
            if len(lines) == 1:
                self._pieces_size += len(data)
                # One more byte may be the CR of the line's end.
                if self._pieces_size > self.max_message + 1:
                    self._too_long = _start(self._pieces)
                return
            lines[0] = b"".join(self._pieces)
        last = lines.pop()
        if len(data) + self._pieces_size > self.max_message:
            self._limit(lines, last)
        self._pieces = [last] if last else None
        self._pieces_size = len(last)
        self._lines = iter(lines)

    def _limit(self, lines: list[bytes], last: bytes) -> None:
        """Find the first line that is too long: what stands before it is still read."""
        for number, line in enumerate(lines):
            if len(line) > self.max_message and len(line.rstrip(b"\r")) > self.max_message:
                self._too_long = line[:_SHOWN]
                del lines[number:]
                return
        if len(last) > self.max_message + 1:
            self._too_long = last[:_SHOWN]

    def _read_lines(self) -> None:
        received = self.message_received
        for line in self._lines:
            if self._spread is not None:
                self._continue_spread(line)
            else:
                try:
                    message = _loads(line)
                except _NOT_JSON:
                    self._read_irregular(line)
                else:
                    if type(message) is dict and self._taps is None:
                        received(message)
                    else:
                        self._received(message)
            if self.paused:
                break
        else:
            if self._too_long is not None:
                self._fail(MessageTooLongError(self.max_message, self._too_long))

    def _received(self, value: Any) -> None:
        if type(value) is not dict:
            self._fail(UnexpectedTypeError(value))
            return
        passed = self.taps.inbound(Message.adopt(value))
        if passed is not None:
            self.message_received(passed.members)

    def _read_irregular(self, line: bytes) -> None:
        """A line that is not JSON as it stands: blank, after a 0xFF, a beginning, or bad."""
        text = line.strip().lstrip(b"\xff").strip()
        if not text:
            return
        try:
            message = _loads(text)
        except _NOT_JSON as error:
            spread = _SpreadMessage()
            if "unexpected end" in error.msg and text[0] == 0x7B and spread.add(text) is None:
                self._spread = spread
            else:
                self._fail(DeserializationError(f"not a JSON object ({error.msg})", line))
            return
        self._received(message)

    def _continue_spread(self, line: bytes) -> None:
        spread = self._spread
        assert spread is not None
        if line[:1] == b"\xff":
            self._spread = None
            self._read_irregular(line)
            return
        whole = spread.add(line)
        if spread.size > self.max_message:
            self._fail(MessageTooLongError(self.max_message, spread.start()))
        elif whole is not None:
            self._spread = None
            try:
                message = _loads(whole)
            except _NOT_JSON as error:
                self._fail(DeserializationError(f"not a JSON object ({error.msg})", whole))
            else:
                self._received(message)

    def _fail(self, error: ProtocolError) -> None:
        self.stop_reading()
        self.framing_failed(error)

    # Writing

    def send(self, text: bytes, descriptor: int | None = None) -> bool:
        """
        Write one message.

        :param text: the message's text, without a line end in it.
        :param descriptor: a file descriptor to travel with the text's first byte; the transport's
            buffer must be empty (:meth:`call_when_drained`). It stays open until the peer has
            answered: closing it is the caller's part.
        :returns: ``False`` where a tap held the message back.
        """
        if self._taps is not None:
            message = self._taps.outbound(Message(text))
            if message is None:
                return False
            text = bytes(message)
        if self._output is not None:
            self._output.write(text + b"\n", descriptor)
        return True

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, past the taps."""
        if self._output is not None:
            self._output.write(data)

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """:meth:`Output.call_when_drained() <txqmp.output.Output.call_when_drained>`."""
        self.output.call_when_drained(callback)

    @property
    def output(self) -> Output:
        """The connection's way out; there is one as soon as the connection is made."""
        assert self._output is not None, "not connected"
        return self._output


class _SpreadMessage:
    """A message spread over several lines, whole when its braces are closed."""

    __slots__ = ("_depth", "_ended", "_lines")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._depth = 0
        self._ended = 0

    @property
    def size(self) -> int:
        """The size of what came so far, without the last line's end."""
        return self._ended + len(self._lines[-1].rstrip(b"\r"))

    def start(self) -> bytes:
        """How the message begins."""
        return _start([line + b"\n" for line in self._lines[:_SHOWN]])

    def add(self, line: bytes) -> bytes | None:
        """
        Take one more line.

        :returns: the whole text when this line ends it, or shows that it never can end well.
        """
        if self._lines:
            self._ended += len(self._lines[-1]) + 1
        self._lines.append(line)
        outside, quotes = without_strings(line)
        self._depth += outside.count(b"{") + outside.count(b"[")
        self._depth -= outside.count(b"}") + outside.count(b"]")
        # A string cannot go over a line's end: one that does not close is the end of the reading.
        if self._depth <= 0 or quotes % 2:
            return b"\n".join(self._lines)
        return None


def _start(pieces: list[bytes]) -> bytes:
    """The first bytes of what came in pieces."""
    start = b""
    for piece in pieces:
        start += piece[:_SHOWN]
        if len(start) >= _SHOWN:
            break
    return start[:_SHOWN]
