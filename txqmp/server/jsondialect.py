"""
The dialect of JSON that a QEMU monitor reads: its tokens, its values and its words for errors.

It is JSON with a few differences. Strings may stand in single quotes and hold ``\\'``. A key must
not occur twice. Unicode's noncharacters are refused, as UTF-8 and as ``\\u`` escapes; U+0000 may be
written ``C0 80``. ``0`` takes no exponent, and a number beyond a float is infinite.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from typing import Any

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
BadJSON = orjson.JSONDecodeError

# The lexer. Each state: what it takes without change, where another byte leads, and the kind of
# token that ends in front of a byte that leads nowhere. Without such a kind that byte is an error.

START, RECOVERY, ERROR = "start", "recovery", "error"
_STRING, _INTEGER, _FLOAT, _WORD = "string", "integer", "float", "word"
STRUCTURAL = frozenset("{}[],:")
WITH_LAST_BYTE = STRUCTURAL | {_STRING, ERROR}

_State = tuple["re.Pattern[bytes] | None", "dict[int, str]", "str | None"]


def _state(run: bytes, moves: dict[str, str], ends: str | None = None) -> _State:
    leads = {ord(character): state for group, state in moves.items() for character in group}
    return re.compile(run) if run else None, leads, ends


def _string_states(quote: str) -> dict[str, _State]:
    plain = rb"[^\\\x00-\x1f\xfe\xff" + quote.encode() + rb"]*"
    # Repetitions of a group cost memory: hence the bound.
    run = plain + rb"(?:\\[\x20-\xfd]" + plain + rb"){0,500}"
    escaped = "".join(map(chr, range(0x20, 0xFE)))
    return {
        quote: _state(run, {quote: _STRING, "\\": quote + "\\"}),
        quote + "\\": _state(rb"", {escaped: quote}),
    }


DIGITS, LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"
_VALUES = {'"': '"', "'": "'", "-": "minus", "0": "zero", "123456789": "int", LETTERS: "letters"}
LEXER: dict[str, _State] = {
    START: _state(rb"", _VALUES | {character: character for character in "{}[],:"}),
    **_string_states('"'),
    **_string_states("'"),
    "minus": _state(rb"", {"0": "zero", "123456789": "int"}),
    "zero": _state(rb"", {".": "point", DIGITS: ERROR}, _INTEGER),
    "int": _state(rb"[0-9]*", {".": "point", "eE": "exponent"}, _INTEGER),
    "point": _state(rb"", {DIGITS: "fraction"}),
    "fraction": _state(rb"[0-9]*", {"eE": "exponent"}, _FLOAT),
    "exponent": _state(rb"", {"+-": "exponent sign", DIGITS: "exponent digits"}),
    "exponent sign": _state(rb"", {DIGITS: "exponent digits"}),
    "exponent digits": _state(rb"[0-9]*", {}, _FLOAT),
    "letters": _state(rb"[a-z]*", {}, _WORD),
}
_SPACE = re.compile(rb"[ \t\r\n]*")
# After an error the lexer passes over all but structural characters, control characters other than
# a tabulator, and the bytes that UTF-8 never has.
UNRECOVERED = re.compile(rb"[^{}\[\],:\x00-\x08\x0a-\x1f\xfe\xff]*")


def lex(data: bytes | bytearray, position: int, state: str) -> tuple[int, str]:
    """
    Read to the end of a token.

    :param position: where to go on; not at white space.
    :param state: the state there, :data:`START` in front of a token.
    :returns: the token's end and its kind; or the end of the data and the state there.
    """
    size = len(data)
    while True:
        run, moves, ends = LEXER[state]
        if run is not None:
            position = run.match(data, position).end()  # type: ignore[union-attr]
        if position == size:
            return position, state
        led = moves.get(data[position])
        if led is None:
            return (position + 1, ERROR) if ends is None else (position, ends)
        position += 1
        if led not in LEXER:
            return position, led
        state = led


def after_space(data: bytes | bytearray, position: int) -> int:
    return _SPACE.match(data, position).end()  # type: ignore[union-attr]


def tokens(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and text of each token of a text that has no lexical error."""
    begin = after_space(text, 0)
    while begin < len(text):
        end, kind = lex(text, begin, START)
        yield (LEXER[kind][2] or kind) if kind in LEXER else kind, text[begin:end]
        begin = after_space(text, end)


# The parser, for what orjson refuses or reads otherwise than QEMU.

_ESCAPES = dict(zip(b"bfnrt\"'\\/", "\b\f\n\r\t\"'\\/", strict=True))
_UNICODE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}"
)
_LAST_TWO = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NONCHARACTER = re.compile(f"[\ufdd0-\ufdef{_LAST_TWO}]")
# Quick to find; there is no noncharacter without a match.
_SUSPECT_BYTES = re.compile(rb"[\xef-\xf4](?:\xb7[\x90-\xaf]|[\x8f\x9f\xaf\xbf]?\xbf[\xbe\xbf])")
# What QEMU takes for one character, whole or not: it writes U+FFFD for each that is not.
_CHARACTERS = re.compile(
    rb"[\x00-\x7f]+|[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xbf\xfe\xff]"
)
_REASON_LIMIT = 1023


class RefusedError(Exception):
    """A message is refused; the argument is QEMU's reason."""


def parse(text: bytes) -> Any:
    """
    The value of a message.

    :param text: free of lexical errors, ending where its brackets are balanced or overdrawn.
    :raises RefusedError: with the first error in the message.
    """
    opened: list[tuple[Any, str]] = []  # each container with what closes it
    keys: list[str | None] = []  # for each, the key whose value is to come
    expected = "value"
    for kind, token in tokens(text):
        value: Any
        if expected == ":":
            if kind != ":":
                raise RefusedError("missing : in object pair")
            expected = "value"
            continue
        if expected != "value" and kind == opened[-1][1]:
            value = opened.pop()[0]
            keys.pop()
        elif expected == "separator":
            if kind != ",":
                where = "dict" if opened[-1][1] == "}" else "list"
                raise RefusedError(f"expected separator in {where}")
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
                raise RefusedError("key is not a string in object")
            keys[-1] = value
            expected = ":"
        elif key in container:
            raise RefusedError("duplicate key")
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
        raise RefusedError("expecting value")
    if token not in (b"true", b"false", b"null"):
        raise RefusedError(f"invalid keyword '{token.decode()}'"[:_REASON_LIMIT])
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
                raise RefusedError("invalid UTF-8 sequence in string")
        elif token[position + 1] == 0x75:
            whole = _UNICODE.match(token, position)
            stop = whole.end() if whole else position + 6
            try:
                piece = _loads(b'"' + whole[0] + b'"') if whole else None
            except BadJSON:  # half of a surrogate pair
                piece = None
            if piece is None or _NONCHARACTER.match(piece):
                written = printable(token[position:stop])
                raise RefusedError(f"{written} is not a valid Unicode character")
        else:
            stop = position + 2
            piece = _ESCAPES.get(token[position + 1])
            if piece is None:
                raise RefusedError("invalid escape sequence in string")
        pieces.append(piece)
        position = stop
    return "".join(pieces)


def _decode(data: bytes) -> str | None:
    """Text from QEMU's UTF-8, which writes U+0000 in two bytes; ``None`` if it is not valid."""
    try:
        text = data.replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        return None
    return None if _SUSPECT_BYTES.search(data) and _NONCHARACTER.search(text) else text


@functools.lru_cache(maxsize=1024)
def _character(data: bytes) -> str:
    return _decode(data) or "\ufffd"


def printable(data: bytes) -> str:
    """Input as QEMU quotes it: it ends at a NUL, and what is not UTF-8 is U+FFFD."""
    data = data.partition(b"\0")[0]
    text = _decode(data)
    if text is None:
        written = io.StringIO()
        for found in _CHARACTERS.finditer(data):
            written.write(found[0].decode() if found[0][0] < 0x80 else _character(found[0]))
        text = written.getvalue()
    return text


# Where orjson is more liberal than QEMU. A match is a suspicion, no proof.

_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[fF][dDfF]|[dD].[fF][eEfF]|003[aA])")
_BACKSLASH, _COLON, _POINT = b"\\:."
_ZERO_EXPONENT = re.compile(rb"[\s:,\[-]0[eE]")


def read(text: bytes | bytearray) -> ParsedValue | None:
    """A message that ``orjson`` reads as QEMU does; ``None`` if it does not, or might not."""
    try:
        value = _loads(text)
    except BadJSON:
        return None
    if _BACKSLASH in text and _SUSPECT_ESCAPE.search(text):
        return None
    if not text.isascii() and _SUSPECT_BYTES.search(text):
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
