"""JSONStream and a real QEMU make the same of the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from txqmp.server.jsonstream import InputError, JSONStream, ParsedValue


NOT_AN_OBJECT = "QMP input must be a JSON object"


class Monitor:
    """
    A QEMU and a session with its monitor.

    :param program: QEMU's path.
    """

    def __init__(self, program: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(30)
        arguments = ["-machine", "none", "-display", "none", "-nodefaults"]
        arguments += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
        arguments += ["-mon", "chardev=qmp,mode=control"]
        with theirs:
            self._process = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._lines = self._socket.makefile("rb")
        self._count = 0
        try:
            assert b"QMP" in self._lines.readline()
            self._socket.sendall(b'{"execute":"qmp_capabilities"}')
            assert b"return" in self._lines.readline()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def ask(self, data: bytes) -> tuple[bytes, list[dict[str, Any]]]:
        """
        Send bytes, and a command that is read whatever precedes it.

        :returns: all that was sent, and the replies, of which the last is the command's.
        """
        self._count += 1
        last = f"last-{self._count}"
        data += b'\xff\n{"execute":"query-name","id":"%s"}\n' % last.encode()
        self._socket.sendall(data)
        replies: list[dict[str, Any]] = []
        while not replies or replies[-1].get("id") != last:
            line = self._lines.readline()
            assert line, "QEMU hung up"
            try:
                replies.append(orjson.loads(line))
            except orjson.JSONDecodeError:  # QEMU writes an infinite number as C does
                replies.append(json.loads(re.sub(rb"\binf\b(?=[],}])", b"Infinity", line)))
        return data, replies


@pytest.fixture(scope="module")
def qemu() -> Iterator[Monitor]:
    machines = ("x86_64", "aarch64", "i386", "arm", "riscv64", "ppc64", "s390x")
    found = (shutil.which(f"qemu-system-{machine}") for machine in machines)
    program = next(filter(None, found), None)
    if program is None:
        if os.environ.get("TXQMP_REQUIRE_REAL") == "1":
            pytest.fail("no qemu-system-* is installed, and TXQMP_REQUIRE_REAL=1 is set")
        pytest.skip("no qemu-system-* is installed")
    monitor = Monitor(program)
    yield monitor
    monitor.close()


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values, nested however deep, are equal; QEMU writes 1.0 as 1."""
    pairs = [(one, other)]
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            pairs += [(one[key], other[key]) for key in one]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            pairs += zip(one, other, strict=True)
        elif isinstance(one, bool) != isinstance(other, bool) or one != other:
            return False
    return True


def fits(item: ParsedValue | InputError, reply: dict[str, Any]) -> bool:
    """Whether QEMU may have read this item, going by its reply."""
    error = reply.get("error", {})
    if isinstance(item, InputError):
        return reply == {"error": {"class": "GenericError", "desc": item.desc}}
    if not isinstance(item.value, dict):
        return reply == {"error": {"class": "GenericError", "desc": NOT_AN_OBJECT}}
    if error.get("desc") == NOT_AN_OBJECT or error.get("desc", "").startswith("JSON"):
        return False
    if ("id" in item.value) != ("id" in reply):
        return False
    return alike(item.value.get("id"), reply.get("id"))


def content(item: ParsedValue | InputError) -> Any:
    return item.desc if isinstance(item, InputError) else item.value


def read(data: bytes, size: int) -> list[ParsedValue | InputError]:
    stream = JSONStream()
    found: list[ParsedValue | InputError] = []
    for begin in range(0, len(data), size):
        stream.feed(data[begin : begin + size])
        found.extend(stream)
    assert stream.buffered == 0
    return found


def compare(monitor: Monitor, data: bytes) -> list[ParsedValue | InputError]:
    sent, replies = monitor.ask(data)
    found = read(sent, len(sent))
    assert len(found) == len(replies), (data, found, replies)
    for item, reply in zip(found, replies, strict=True):
        assert fits(item, reply), (data, item, reply)
    for size in (1, 7):
        again = read(sent, size)
        assert [type(item) for item in again] == [type(item) for item in found], data
        assert alike(list(map(content, again)), list(map(content, found))), data
    return found


def with_id(value: bytes) -> bytes:
    """A command whose id, which QEMU echoes, is a piece of JSON."""
    return b'{"execute":"no-such-command","id":' + value + b"}"


VALUES = [
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"0.5", b"1e5", b"1E+5", b"1.25e-3", b"-0.0",
    b"9223372036854775807", b"-9223372036854775808", b"18446744073709551615",
    b"18446744073709551616", b"-9223372036854775809", b"123456789012345678901234567890", b"1e400",
    b"-1e400", b"1e-400", b"5e-324", b"0.1", b"9007199254740993", b"9007199254740993.0", b"1" * 400,
    b'""', b"''", b'"it\'s"', b"'it\\'s'", b'"it\\\'s"', b"'\"'", b'"\\""',
    b'"\\\\\\/\\b\\f\\n\\r\\t"', b'"\\u0041\\u00e9\\u20AC\\ud83d\\ude00"', b'"\\u0000"',
    b'"\xc0\x80"', b'"\x7f"', "'\u00e9\u20ac\U0001f600\ufffd\u0080\U0010fffd'".encode(),
    b'"\\ufdcf\\ufdf0\\ufffd\\ud83f\\udffd"', b"{}", b"[]", b"{'a':{'b':[{},[],[[]]]}}",
    b"[1 , 2\t,\r\n 3 ]", b'{"a:b":"c:d","\\u003a":"0e1"}', b'"}{"', b'["}\\n{", "]["]',
    b"[" * 1022 + b"]" * 1022, b'{"a":' * 1023 + b"1" + b"}" * 1023, b'{"a\\u0000":1,"a":2}',
    b'[' + b'{"k":[1,"v"]},' * 3000 + b"0]", b'"' + b"x" * 70_000 + b'"',
]  # fmt: skip

MESSAGES = [
    b"", b" \r\n\t ", b"{}", b"[]", b"1 ", b"true\n", b'"a"', b"'a'", b"1", b"tru", b'"a', b"-",
    b"1.", b"{", b'{"execute":', with_id(b"1") + with_id(b"2"),
    with_id(b"1") + b"\r\n\n" + with_id(b"2"),
    b'{\n "execute":\n "no-such-command",\n "id": [\n 1\n ]\n}\n', b'{"execute":1}',
    b'{"exec":"x"}', b'{"execute": }', b'{"execute"}', b'{"execute":"x",}', b'{,}', b"[1,]", b"[,]",
    b"[1 2]", b"[1:2]", b'{"a":1 "b":2}', b'{"a" 1}', b"{1:2}", b"{[]:2}", b"{{}:2}", b"{null:1}",
    b"{[}]", b"[}", b"{]", b"[}]", b"[[}1 ", b"}", b"]", b",", b":", b"}}}", b"nope ", b"nul ",
    b"[truefalse]", b"1a ", b"a1 ", b"a" * 1004 + b" ", b"a" * 1005 + b" ", b"a" * 1006 + b" ",
    b"a" * 3000 + b" ", b"NaN ", b'{"a":NaN}', b"Infinity ", b"-Infinity ", b"[-Infinity, 1]",
    b"TRUE ", b"tRUE ", b"[01]", b"[-01]", b"[00]", b"[1.]", b"[.5]", b"[1.5.3]", b"[1e]", b"[1e+]",
    b"[1.5e]", b"[0e5]", b"[-0E5]", b"[0.0e5]", b"[+1]", b"[-]", b"[--1]", b"[1-2]", b"[1e5e5]",
    b"[1E5E5]", b"[0x10]", b"%d ", b"[%d]", b'"%d"', b"/* */ {}", b"// \n{}", b"\xef\xbb\xbf{}",
    b"{}\x00", b"\x00{}", b'"a\x01b"', b'{"execute":"a\x1fb"}', b'"a\nb"', b'"a\tb" 1 \n2 ',
    b'"a\rb"', b'"a\x00b"\n', b'"a\\\x01b"', b"'a\x00", b"\x01\x02\x03", b"ABC{}", b'ABC "x" 1\n2 ',
    b"ABC\t{}", b"A\x7f[]", b"\xff" + with_id(b"1"), b'{"a\xff' + with_id(b"1"), b"\xfe\xff{}",
    b'[1,{"a":\xff\n' + with_id(b"1"), b"\x80{}", b'"\x80"', b'"\xc3"', b'"\xc3\\n"', b'"\xc0\x81"',
    b'"\xe0\x80\x80"', b'"\xed\xa0\x80"', b'"\xef\xbf\xbe"', b'"\xef\xb7\x90"',
    b'"\xf0\x9f\xbf\xbf"', b'"\xf4\x90\x80\x80"', b'"\xfd\x80"', b'"\xf8\x88\x80\x80\x80"',
    b'"\xe2\x82\x01', b'"\x80\xbf\xc0\x80\xfd\xbf.\xed\xa0\x80\xf8\x80\n', b'"\\x"', b'"\\U0041"',
    b'"\\\xc3\xa9"', b'"\\\x7f"', b'"\\u"', b'"\\u1"', b'"\\u12"', b"'\\u123'", b'"\\u00zz"',
    b'"\\u+123"', b'"\\u\xc3\xa9aa"', b'"\\u1aa\xe2\x82\xac"', b'"\\ud800"', b'"\\ud800x"',
    b'"\\uD800\\u0041"', b'"\\ud800\\ud800"', b'"\\ud800\\u12"', b'"\\udc00"', b'"\\uFFFE"',
    b'"\\uffff"', b'"\\ufdd0"', b'"\\ufdef"', b'"\\ud83f\\udffe"', b'"\\udbff\\udfff"',
    b'"\x80\\x"', b'"\\x\x80"', b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"a:":1,"a\\u003a":2}',
    b'{"a":"\\u003a","a":2}', b'{"\\u0000":1,"\xc0\x80":2}', b'{"x":[{"a":{},"a":1}]}',
    b'{"a":1,"a":nope}', b'"' + b"x" * 3000 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values(qemu: Monitor, value: bytes) -> None:
    [item, *_] = compare(qemu, with_id(value))
    assert isinstance(item, ParsedValue)


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_messages(qemu: Monitor, message: bytes) -> None:
    compare(qemu, message)


@pytest.mark.parametrize(
    ("opened", "errors"), [(1024, 1), (1025, 1026), (1100, 1027), (2050, 2052)]
)
def test_nesting(qemu: Monitor, opened: int, errors: int) -> None:
    """1,100 brackets bring 1,027 errors without an id (fact G18)."""
    found = compare(qemu, b"[" * opened + b"]" * opened)
    assert len(found) == errors + 2  # what ends the question is an error and a reply
    compare(qemu, b'[{"a":' * (opened // 2) + b"[]" + b"}]" * (opened // 2))


@pytest.mark.parametrize("seed", range(5))
def test_damaged_messages(qemu: Monitor, seed: int) -> None:
    randomness = random.Random(seed)
    sources = [*map(with_id, VALUES[:-4]), *MESSAGES]
    pieces = [bytes([byte]) for byte in b"{}[],:\"'\\ \n\t\0\x01\x80\xc3\xfe\xff01-+.eEaZ%u/"]
    for _ in range(60):
        data = bytearray(b"".join(randomness.choices(sources, k=3))[:2000])
        for _ in range(randomness.randrange(1, 6)):
            place = randomness.randrange(len(data) + 1)
            data[place : place + randomness.randrange(3)] = randomness.choice(pieces)
        compare(qemu, bytes(data))
