"""
The JSON that a QEMU monitor reads: a stream of values, without regard to lines.

Clients send objects without a newline, several joined, or one over many lines (fact G15). What is
not JSON is answered with errors that carry no id (fact G18), and the reading recovers (QMP spec,
*Forcing the JSON parser into known-good state*). :class:`JSONStream` finds the values and errors
that QEMU 7.2 finds in the same bytes, in the same order, however the bytes are cut.

QEMU's dialect is JSON with a few differences. Strings may stand in single quotes and hold ``\\'``.
A key must not occur twice. Unicode's noncharacters are refused, as UTF-8 and as ``\\u`` escapes;
U+0000 may be written ``C0 80``. ``0`` takes no exponent, and a number beyond a float is infinite.
Nesting, the number of tokens and the size of a message are limited.

Three readers share the work. An object that has come whole is found by its end and read by
``orjson``. What has come of an unfinished message is skimmed a window at a time, because its
errors must not wait for its end. What neither can vouch for is read token by token. A quick reader
that fails does not return to the bytes on which it failed, so time is linear in the input.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import attrs
import orjson


@attrs.frozen
class ParsedValue:
    """
    A JSON value that came.

    :ivar value: as ``json.loads`` makes it, but an integer of more than 64 bits is a float (fact
        G19), possibly infinite. It need not be an object: to demand that is the caller's part.
    """

    value: Any


@attrs.frozen
class InputError:
    """
    Input that is not JSON.

    :ivar desc: QEMU's words for it, for the ``desc`` of a ``GenericError``. It can be as long as
        the input that it quotes.
    """

    desc: str


_loads, _dumps = orjson.loads, orjson.dumps
_BadJSON = orjson.JSONDecodeError
_EXPECTING_VALUE: Final = InputError("JSON parse error, expecting value")
_SIZE_EXCEEDED: Final = InputError("JSON token size limit exceeded")
_COUNT_EXCEEDED: Final = InputError("JSON token count limit exceeded")
_DEPTH_EXCEEDED: Final = InputError("JSON nesting depth limit exceeded")

# The lexer. Each state: what it takes without change, where another byte leads, and the kind of
# token that ends in front of a byte that leads nowhere. Without such a kind that byte is an error.

_START, _RECOVERY, _ERROR = "start", "recovery", "error"
_STRING, _INTEGER, _FLOAT, _WORD = "string", "integer", "float", "word"
_STRUCTURAL = frozenset("{}[],:")
_WITH_LAST_BYTE = _STRUCTURAL | {_STRING, _ERROR}

_State = tuple["re.Pattern[bytes]", "dict[int, str]", "str | None"]


def _state(run: bytes, moves: dict[str, str], ends: str | None = None) -> _State:
    leads = {ord(character): state for group, state in moves.items() for character in group}
    return re.compile(run), leads, ends


def _string_states(quote: str) -> dict[str, _State]:
    plain = rb"[^\\\x00-\x1f\xfe\xff" + quote.encode() + rb"]*"
    # Repetitions of a group cost memory: hence the bound.
    run = plain + rb"(?:\\[\x20-\xfd]" + plain + rb"){0,500}"
    escaped = "".join(map(chr, range(0x20, 0xFE)))
    return {
        quote: _state(run, {quote: _STRING, "\\": quote + "\\"}),
        quote + "\\": _state(rb"", {escaped: quote}),
    }


_DIGITS, _LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"
_VALUES = {'"': '"', "'": "'", "-": "minus", "0": "zero", "123456789": "int", _LETTERS: "letters"}
_LEXER: dict[str, _State] = {
    _START: _state(rb"", _VALUES | {character: character for character in "{}[],:"}),
    **_string_states('"'),
    **_string_states("'"),
    "minus": _state(rb"", {"0": "zero", "123456789": "int"}),
    "zero": _state(rb"", {".": "point", _DIGITS: _ERROR}, _INTEGER),
    "int": _state(rb"[0-9]*", {".": "point", "eE": "exponent"}, _INTEGER),
    "point": _state(rb"", {_DIGITS: "fraction"}),
    "fraction": _state(rb"[0-9]*", {"eE": "exponent"}, _FLOAT),
    "exponent": _state(rb"", {"+-": "exponent sign", _DIGITS: "exponent digits"}),
    "exponent sign": _state(rb"", {_DIGITS: "exponent digits"}),
    "exponent digits": _state(rb"[0-9]*", {}, _FLOAT),
    "letters": _state(rb"[a-z]*", {}, _WORD),
}
_SPACE = re.compile(rb"[ \t\r\n]*")
# After an error the lexer passes over all but structural characters, control characters other than
# a tabulator, and the bytes that UTF-8 never has.
_UNRECOVERED = re.compile(rb"[^{}\[\],:\x00-\x08\x0a-\x1f\xfe\xff]*")


def _lex(data: bytes | bytearray, position: int, state: str) -> tuple[int, str]:
    """
    Read to the end of a token.

    :param position: where to go on; not at white space.
    :param state: the state there, :data:`_START` in front of a token.
    :returns: the token's end and its kind; or the end of the data and the state there.
    """
    size = len(data)
    while True:
        run, moves, ends = _LEXER[state]
        position = run.match(data, position).end()  # type: ignore[union-attr]
        if position == size:
            return position, state
        led = moves.get(data[position])
        if led is None:
            return (position + 1, _ERROR) if ends is None else (position, ends)
        position += 1
        if led not in _LEXER:
            return position, led
        state = led


def _after_space(data: bytes | bytearray, position: int) -> int:
    return _SPACE.match(data, position).end()  # type: ignore[union-attr]


def _tokens(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and text of each token of a text that has no lexical error."""
    begin = _after_space(text, 0)
    while begin < len(text):
        end, kind = _lex(text, begin, _START)
        yield (_LEXER[kind][2] or kind) if kind in _LEXER else kind, text[begin:end]
        begin = _after_space(text, end)


# The parser, for what orjson refuses or reads otherwise than QEMU.

_ESCAPES = dict(zip(b"bfnrt\"'\\/", "\b\f\n\r\t\"'\\/"))
_UNICODE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}"
)
_LAST_TWO = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NONCHARACTER = re.compile(f"[\ufdd0-\ufdef{_LAST_TWO}]")
# What QEMU takes for one character, whole or not: it writes U+FFFD for each that is not.
_CHARACTERS = re.compile(
    rb"[\x00-\x7f]+|[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xbf\xfe\xff]"
)
_REASON_LIMIT = 1023


class _RefusedError(Exception):
    """A message is refused; the argument is QEMU's reason."""


def _parse(text: bytes) -> Any:
    """
    The value of a message.

    :param text: free of lexical errors, ending where its brackets are balanced or overdrawn.
    :raises _RefusedError: with the first error in the message.
    """
    opened: list[tuple[Any, str]] = []  # each container with what closes it
    keys: list[str | None] = []  # for each, the key whose value is to come
    expected = "value"
    for kind, token in _tokens(text):
        value: Any
        if expected == ":":
            if kind != ":":
                raise _RefusedError("missing : in object pair")
            expected = "value"
            continue
        if expected != "value" and kind == opened[-1][1]:
            value = opened.pop()[0]
            keys.pop()
        elif expected == "separator":
            if kind != ",":
                where = "dict" if opened[-1][1] == "}" else "list"
                raise _RefusedError(f"expected separator in {where}")
            expected = "value"
            continue
        elif kind in ("{", "["):
            opened.append(({}, "}") if kind == "{" else ([], "]"))
            keys.append(None)
            expected = "value or end"
            continue
        else:
            value = _scalar(kind, token)
        # A value is complete: the whole, an element, a key (where any value is read) or a member.
        if not opened:
            return value
        container, closing = opened[-1]
        key = keys[-1]
        expected = "separator"
        if closing == "]":
            container.append(value)
        elif key is None:
            if not isinstance(value, str):
                raise _RefusedError("key is not a string in object")
            keys[-1] = value
            expected = ":"
        elif key in container:
            raise _RefusedError("duplicate key")
        else:
            container[key] = value
            keys[-1] = None
    raise AssertionError("a message ends where its brackets do")


def _scalar(kind: str, token: bytes) -> Any:
    if kind == _STRING:
        return _string(token)
    if kind == _INTEGER and len(token) <= 20 and -(1 << 63) <= int(token) < 1 << 64:
        return int(token)
    if kind in (_INTEGER, _FLOAT):
        return float(token)
    if kind != _WORD:
        raise _RefusedError("expecting value")
    if token not in (b"true", b"false", b"null"):
        raise _RefusedError(f"invalid keyword '{token.decode()}'"[:_REASON_LIMIT])
    return _loads(token)


def _string(token: bytes) -> str:
    pieces: list[str] = []
    position, end = 1, len(token) - 1
    while position < end:
        piece: str | None
        if token[position] != 0x5C:
            stop = token.find(b"\\", position, end)
            stop = end if stop < 0 else stop
            piece = _decode(token[position:stop])
            if piece is None:
                raise _RefusedError("invalid UTF-8 sequence in string")
        elif token[position + 1] == 0x75:
            whole = _UNICODE.match(token, position)
            stop = whole.end() if whole else position + 6
            try:
                piece = _loads(b'"' + whole[0] + b'"') if whole else None
            except _BadJSON:  # half of a surrogate pair
                piece = None
            if piece is None or _NONCHARACTER.match(piece):
                written = _printable(token[position:stop])
                raise _RefusedError(f"{written} is not a valid Unicode character")
        else:
            stop = position + 2
            piece = _ESCAPES.get(token[position + 1])
            if piece is None:
                raise _RefusedError("invalid escape sequence in string")
        pieces.append(piece)
        position = stop
    return "".join(pieces)


def _decode(data: bytes) -> str | None:
    """Text from QEMU's UTF-8, which writes U+0000 in two bytes; ``None`` if it is not valid."""
    try:
        text = data.replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        return None
    return None if _NONCHARACTER.search(text) else text


def _printable(data: bytes) -> str:
    """Input as QEMU quotes it: it ends at a NUL, and what is not UTF-8 is U+FFFD."""
    data = data.partition(b"\0")[0]
    text = _decode(data)
    if text is None:
        written = io.StringIO()
        for character in _CHARACTERS.finditer(data):
            written.write(_decode(character[0]) or "\ufffd")
        text = written.getvalue()
    return text


# Where orjson is more liberal than QEMU. A match is a suspicion, no proof.

_SUSPECT = re.compile(
    rb"[\xef-\xf4](?:\xb7[\x90-\xaf]|[\x8f\x9f\xaf\xbf]?\xbf[\xbe\xbf])"
    rb"|\\u(?:[fF][dDfF]|[dD].[fF][eEfF]|003[aA])"
)
_ZERO_EXPONENT = re.compile(rb"[\s:,\[-]0[eE]")


def _read(text: bytes | bytearray) -> ParsedValue | None:
    """A message that ``orjson`` reads as QEMU does; ``None`` if it does not, or might not."""
    try:
        value = _loads(text)
    except _BadJSON:
        return None
    if (_BACKSLASH in text or not text.isascii()) and _SUSPECT.search(text):
        return None
    try:
        written = _dumps(value)
    except TypeError:  # nested too deep for it
        return None
    # A key that stands twice is written once, so there is a colon less. Colons in strings are the
    # same: none was an escape.
    if not text.startswith(written) and (
        text.count(_COLON) != written.count(_COLON)
        or (_POINT in written and _ZERO_EXPONENT.search(text))
    ):
        return None
    return ParsedValue(value)


_OBJECT_END = re.compile(rb"\}[ \t\r\n]*(?=\{|\Z)")
_WHOLE_LIMIT = 1 << 20
_WINDOW = 1 << 12
_NEVER: Final = sys.maxsize

_BACKSLASH, _COLON, _POINT = b"\\:."
_UNSTRUCTURED = bytes(set(range(256)) - set(b"{}[],:"))
_NEVER_IN_STRING = bytes(range(0x20)) + b"\xfe\xff"
_IN_SCALAR = (_DIGITS + _LETTERS + "+-.E").encode()
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
        self._state = _START
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
            if self._state == _RECOVERY:
                passed = _UNRECOVERED.match(buffer, self._position).end()  # type: ignore[union-attr]
                self._begin = self._position = passed
                if passed == len(buffer):
                    return None
                self._state = _START
            if self._state == _START:
                begin = self._position
                if self._count:
                    begin = self._skim()
                elif begin < len(buffer):
                    if buffer[begin] != 0x7B:
                        begin = _after_space(buffer, begin)
                    self._begin = begin
                    if begin >= self._looked and buffer[begin : begin + 1] == b"{":
                        if (whole := self._read_whole()) is not None:
                            return whole
                self._position = self._token = begin
                if begin == len(buffer):
                    return None
            end, kind = _lex(buffer, self._position, self._state)
            if end - self._token - (kind in _WITH_LAST_BYTE) > self._max_message:
                self._position = self._token + self._max_message + 1
                return self._finish(_SIZE_EXCEEDED)
            self._position = end
            if kind in _LEXER:
                self._state = kind
                return None
            self._state = _START
            if (item := self._take(kind)) is not None:
                return item

    def _held(self, begin: int) -> bytes:
        """What is held from an offset to the lexer's position."""
        return bytes(memoryview(self._buffer)[begin : self._position])

    def _finish(self, item: ParsedValue | InputError) -> ParsedValue | InputError:
        """The message ends here, with an item."""
        self._begin = self._position
        self._state = _START
        self._braces = self._brackets = self._count = self._size = 0
        self._retry = _NEVER
        return item

    def _take(self, kind: str) -> ParsedValue | InputError | None:
        """Add a token to the message; an item if it ends the message."""
        if kind == _ERROR:
            quoted = _printable(self._held(self._token))
            item = self._finish(InputError(f"JSON parse error, stray '{quoted}'"))
            self._state = _RECOVERY
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
        if self._count == 1 and kind in _STRUCTURAL:
            return self._finish(_EXPECTING_VALUE)
        text = self._held(self._begin)
        if (whole := _read(text)) is not None:
            return self._finish(whole)
        try:
            return self._finish(ParsedValue(_parse(text)))
        except _RefusedError as refused:
            return self._finish(InputError(f"JSON parse error, {refused}"))

    def _read_whole(self) -> ParsedValue | None:
        """Read the message at once, if it is an object that has come whole and is not large."""
        buffer, begin = self._buffer, self._begin
        found = _OBJECT_END.search(buffer, begin, begin + self._whole_limit)
        end = found.end() if found else min(len(buffer), begin + self._whole_limit)
        if found:
            text = buffer[begin:end]
            deep = end - begin > self._max_depth < text.count(b"{") + text.count(b"[")
            if not deep and (value := _read(text)) is not None:
                self._begin = self._position = end
                if self._count:
                    self._finish(value)
                return value
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
            tokens = _tokens(self._held(self._begin))
            text = b"".join(token + b" " for _, token in tokens)
            buffer[self._begin : self._position] = text
            self._position = self._looked = self._skim_from = self._begin + len(text)
        while self._position >= self._skim_from and len(buffer) - self._position > _WINDOW // 16:
            window = bytes(buffer[self._position : self._position + _WINDOW])
            passed = self._skim_window(window)
            self._position += passed
            if not passed:
                self._skim_from = self._position + len(window)
        return _after_space(buffer, self._position)

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
        except _BadJSON:
            return 0
        structure = rest.translate(None, _UNSTRUCTURED)
        count = self._count + len(structure) + len(scalars) + len(parts) // 2
        blanks = len(rest) - len(rest.translate(None, b" \t\r\n"))
        size = self._size + len(window) - blanks
        if count > self._max_tokens or size >= self._max_message:
            return 0
        # What is opened and closed in the window adds to the depth for a while, no more.
        left, height = structure.translate(None, b",:"), 0
        while height < 64 and (rest := left.replace(b"{}", b"").replace(b"[]", b"")) != left:
            left, height = rest, height + 2
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
