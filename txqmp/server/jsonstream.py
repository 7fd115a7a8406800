"""
The JSON that a QEMU monitor reads: a stream of values, without regard to lines.

Clients send objects without a newline, several joined, or one over many lines (fact G15). What is
not JSON is answered with errors that carry no id (fact G18), and the reading recovers (QMP spec,
*Forcing the JSON parser into known-good state*). :class:`JSONStream` finds the values and errors
that QEMU 7.2 finds in the same bytes, in the same order, however the bytes are cut.

Three readers share the work. An object that has come whole is found by its end and read by
``orjson``. What has come of an unfinished message is skimmed a window at a time, because its
errors must not wait for its end. What neither can vouch for is read token by token. A quick reader
that fails does not return to the bytes on which it failed, so time is linear in the input.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Final

import orjson

from txqmp.server.jsondialect import (
    DIGITS,
    ERROR,
    LETTERS,
    LEXER,
    RECOVERY,
    START,
    STRUCTURAL,
    UNRECOVERED,
    WITH_LAST_BYTE,
    BadJSON,
    InputError,
    ParsedValue,
    RefusedError,
    after_space,
    lex,
    parse,
    printable,
    read,
    tokens,
)


__all__ = ["InputError", "JSONStream", "ParsedValue"]

_loads = orjson.loads
_EXPECTING_VALUE: Final = InputError("JSON parse error, expecting value")
_SIZE_EXCEEDED: Final = InputError("JSON token size limit exceeded")
_COUNT_EXCEEDED: Final = InputError("JSON token count limit exceeded")
_DEPTH_EXCEEDED: Final = InputError("JSON nesting depth limit exceeded")

_OBJECT_END = re.compile(rb"\}[ \t\r\n]*(?=\{|\Z)")
_WHOLE_LIMIT = 1 << 20
_WINDOW = 1 << 14
_NEVER: Final = sys.maxsize

_UNSTRUCTURED = bytes(set(range(256)) - set(b"{}[],:"))
_NEVER_IN_STRING = bytes(range(0x20)) + b"\xfe\xff"
_IN_SCALAR = (DIGITS + LETTERS + "+-.E").encode()
# Leaves the scalars between blanks; makes what only Python takes for white space an error.
_SCALARS_APART = bytes.maketrans(b'{}[],:"\x0b\x0c', b" " * 7 + b"!!")


class JSONStream:
    """
    Bytes to JSON values and errors, as QEMU's monitor reads them.

    :meth:`feed` takes bytes in and :meth:`next_item` takes one item out. A consumer may stop at any
    item and go on later, before or after more bytes were fed: nothing is lost, and nothing is
    parsed ahead. ``for item in stream`` ends when more bytes are needed and may be begun again.

    A number or a keyword outside of an object or array is complete with the byte after it. An error
    comes as soon as QEMU would report it, which may be in the middle of a message. What is left
    when the peer hangs up is no item; use a new stream for a new session.

    :param max_message: the limit on the tokens of one message, in bytes.
    :param max_depth: the limit on nesting.
    :param max_tokens: the limit on the number of tokens of one message. The defaults are QEMU's.
    """

    __slots__ = (
        "_begin", "_braces", "_brackets", "_buffer", "_count", "_looked", "_max_depth",
        "_max_message", "_max_tokens", "_position", "_retry", "_size", "_skim_from", "_state",
        "_token", "_whole_limit",
    )  # fmt: skip

    def __init__(
        self, *, max_message: int = 64 << 20, max_depth: int = 1024, max_tokens: int = 2 << 20
    ) -> None:
        self._max_message = max_message
        self._max_depth = max_depth
        self._max_tokens = max_tokens
        self._buffer = bytearray()
        self._begin = 0  # of the message
        self._token = 0  # begins here
        self._position = 0  # of the lexer
        self._state = START
        self._braces = self._brackets = self._count = self._size = 0  # of the message's tokens
        # An object of this size is within all limits but that on nesting.
        self._whole_limit = min(_WHOLE_LIMIT, max_tokens, max_message - 1)
        self._looked = 0  # by _read_whole, up to here
        self._retry = _NEVER  # _read_whole when the message has this size
        self._skim_from = 0

    @property
    def buffered(self) -> int:
        """How many bytes are held: of an unfinished message, and not yet read."""
        return len(self._buffer) - self._begin

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """
        Take bytes in; cheap, as they are read by :meth:`next_item`.

        :param data: any piece of the stream.
        """
        done = self._begin
        if done:
            del self._buffer[:done]
            self._begin = 0
            self._token -= done
            self._position -= done
            self._looked -= done
            self._skim_from -= done
        self._buffer += data

    def __iter__(self) -> Iterator[ParsedValue | InputError]:
        while (item := self.next_item()) is not None:
            yield item

    def next_item(self) -> ParsedValue | InputError | None:
        """
        Take the next item out.

        :returns: a value or an error, or ``None`` if more bytes are needed.
        """
        buffer = self._buffer
        if len(buffer) - self._begin >= self._retry and (whole := self._read_whole()) is not None:
            return whole
        while True:
            if self._state == RECOVERY:
                passed = UNRECOVERED.match(buffer, self._position).end()  # type: ignore[union-attr]
                self._begin = self._position = passed
                if passed == len(buffer):
                    return None
                self._state = START
            if self._state == START:
                begin = self._position
                if self._count:
                    begin = self._skim()
                elif begin < len(buffer) and buffer[begin] != 0x7B:
                    begin = after_space(buffer, begin)
                self._position = self._token = begin
                if not self._count:
                    self._begin = begin
                if begin == len(buffer):
                    return None
                fresh = not self._count and buffer[begin] == 0x7B and begin >= self._looked
                if fresh and (whole := self._read_whole()) is not None:
                    return whole
            end, kind = lex(buffer, self._position, self._state)
            if end - self._token - (kind in WITH_LAST_BYTE) > self._max_message:
                self._position = self._token + self._max_message + 1
                return self._finish(_SIZE_EXCEEDED)
            self._position = end
            if kind in LEXER:
                self._state = kind
                return None
            self._state = START
            if (item := self._take(kind)) is not None:
                return item

    def _held(self, begin: int) -> bytes:
        """What is held from an offset to the lexer's position."""
        return bytes(memoryview(self._buffer)[begin : self._position])

    def _finish(self, item: ParsedValue | InputError) -> ParsedValue | InputError:
        """The message ends here, with an item."""
        self._begin = self._position
        self._state = START
        self._braces = self._brackets = self._count = self._size = 0
        self._retry = _NEVER
        return item

    def _take(self, kind: str) -> ParsedValue | InputError | None:
        """Add a token to the message; an item if it ends the message."""
        if kind == ERROR:
            quoted = printable(self._held(self._token))
            item = self._finish(InputError(f"JSON parse error, stray '{quoted}'"))
            self._state = RECOVERY
            return item
        length = self._position - self._token
        if kind in ("{", "}"):
            self._braces += 1 if kind == "{" else -1
        elif kind in ("[", "]"):
            self._brackets += 1 if kind == "[" else -1
        depth = self._braces + self._brackets
        if self._size + length >= self._max_message:
            return self._finish(_SIZE_EXCEEDED)
        if self._count >= self._max_tokens:
            return self._finish(_COUNT_EXCEEDED)
        if depth > self._max_depth:
            return self._finish(_DEPTH_EXCEEDED)
        self._size += length
        self._count += 1
        if depth and self._braces >= 0 and self._brackets >= 0:
            return None
        if self._count == 1 and kind in STRUCTURAL:
            return self._finish(_EXPECTING_VALUE)
        text = self._held(self._begin)
        if (whole := read(text)) is not None:
            return self._finish(whole)
        try:
            return self._finish(ParsedValue(parse(text)))
        except RefusedError as refused:
            return self._finish(InputError(f"JSON parse error, {refused}"))

    def _read_whole(self) -> ParsedValue | None:
        """Read the message at once, if it is an object that has come whole and is not large."""
        buffer, begin = self._buffer, self._begin
        end = min(begin + self._whole_limit, len(buffer))
        if found := _OBJECT_END.search(buffer, begin, end):
            end = found.end()
            text = buffer[begin:end]
            shallow = len(text) <= self._max_depth
            shallow = shallow or text.count(b"{") + text.count(b"[") <= self._max_depth
            if shallow and (whole := read(text)) is not None:
                self._position = self._begin = end
                if self._count:
                    self._finish(whole)
                return whole
        self._looked = max(self._looked, end)
        self._retry = 2 * (len(buffer) - begin)
        return None

    def _skim(self) -> int:
        """
        Pass over tokens of the message, and over white space, while no item can be among them.

        :returns: where the next token begins, or will.
        """
        buffer = self._buffer
        if self._position - self._begin > 2 * (self._size + self._count) + _WHOLE_LIMIT:
            # Keep no more white space than a blank a token: QEMU limits the tokens alone.
            held = self._held(self._begin)
            text = b"".join(token + b" " for _, token in tokens(held))
            buffer[self._begin : self._position] = text
            self._position = self._looked = self._skim_from = self._begin + len(text)
        while self._position >= self._skim_from and len(buffer) - self._position > _WINDOW // 16:
            window = bytes(buffer[self._position : self._position + _WINDOW])
            passed = self._skim_window(window)
            self._position += passed
            if not passed:
                self._skim_from = self._position + len(window)
        return after_space(buffer, self._position)

    def _skim_window(self, window: bytes) -> int:
        """
        Add a window's tokens to the message if none of them can end it.

        :returns: the size of what was added: nothing, or all but a last token that may go on.
        """
        if b"\\" in window:
            window = window.replace(rb"\\", b"__").replace(rb"\"", b"__")
        if window.count(b'"') % 2:
            window = window[: window.rfind(b'"')]
        else:
            window = window.rstrip(_IN_SCALAR)
        parts = window.split(b'"')
        strings, rest = b"".join(parts[1::2]), b'"'.join(parts[::2])
        scalars = rest.translate(_SCALARS_APART).split()
        together = b",".join(scalars)
        if len(strings.translate(None, _NEVER_IN_STRING)) < len(strings):
            return 0
        if b"0e" in together or b"0E" in together:
            return 0
        try:
            _loads(b"[" + together + b"]")
        except BadJSON:
            return 0
        structure = rest.translate(None, _UNSTRUCTURED)
        count = self._count + len(structure) + len(scalars) + len(parts) // 2
        blanks = len(rest) - len(rest.translate(None, b" \t\r\n"))
        size = self._size + len(window) - blanks
        if count > self._max_tokens or size >= self._max_message:
            return 0
        # What is opened and closed in the window adds to the depth for a while, no more.
        left, height = structure.translate(None, b",:"), 0
        while height < 64 and (open_ := left.replace(b"{}", b"").replace(b"[]", b"")) != left:
            left, height = open_, height + 2
        braces, brackets, most = self._braces, self._brackets, self._max_depth - height
        if braces + brackets > most:
            return 0
        for bracket in left:
            braces += (bracket == 0x7B) - (bracket == 0x7D)
            brackets += (bracket == 0x5B) - (bracket == 0x5D)
            if braces < 0 or brackets < 0 or not 0 < braces + brackets <= most:
                return 0
        self._braces, self._brackets, self._count, self._size = braces, brackets, count, size
        return len(window)
