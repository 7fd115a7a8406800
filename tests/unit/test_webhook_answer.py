"""What a receiver's answer means."""

from __future__ import annotations

import email.utils
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure

from support.deferreds import pending, success
from txqmp.monitor.sinks.webhook.answer import (
    MAX_BODY,
    MAX_QUOTE,
    MAX_RETRY_AFTER,
    Body,
    Verdict,
    printable,
    quoted,
    retry_after,
    verdict,
)


NOW = 1_795_224_000.0


def test_verdicts() -> None:
    found: dict[Verdict, list[int]] = {each: [] for each in Verdict}
    for status in range(100, 600):
        found[verdict(status)].append(status)
    assert found[Verdict.TAKEN] == list(range(200, 300))
    assert found[Verdict.REJECTED] == [400, 413, 415, 422]
    assert found[Verdict.GONE] == [410]


@pytest.mark.parametrize(
    ("values", "wait"),
    [
        ([], None),
        (["0"], 0.0),
        (["120"], 120.0),
        ([" 120 "], 120.0),
        (["3600"], 3600.0),
        (["3601"], MAX_RETRY_AFTER),
        (["9" * 10_000], MAX_RETRY_AFTER),
        (["-1"], None),
        (["+1"], None),
        (["1.5"], None),
        (["1e3"], None),
        (["nan"], None),
        (["inf"], None),
        (["\u0661"], None),
        (["1_0"], None),
        ([""], None),
        (["soon"], None),
        (["5", "7", "6"], 7.0),
        (["5, 7"], None),
        (["soon", "5", "nan"], 5.0),
        ([email.utils.formatdate(NOW + 90, usegmt=True)], 90.0),
        ([email.utils.formatdate(NOW - 90, usegmt=True)], 0.0),
        ([email.utils.formatdate(NOW + 1e6, usegmt=True)], MAX_RETRY_AFTER),
        (["Sat, 21 Nov 2026 01:21:30 -0000"], 90.0),
        (["Saturday, 21-Nov-26 01:21:30 GMT"], 90.0),
        (["Sat, 21 Nov 2026 03:21:30 +0200"], 90.0),
        (["Sat, 99 Nov 2026 01:21:30 GMT"], None),
        (["Sat, 21 Nov 0000 01:21:30 GMT"], 0.0),
        (["Mon, 01 Jan 0001 00:00:00 +2359"], 0.0),
        (["Fri, 31 Dec 9999 23:59:59 -2359"], MAX_RETRY_AFTER),
        (["Fri, 31 Dec 99999 23:59:59 GMT"], None),
        (["Sat, 21 Nov 2026 01:21:30 GMT" + " " * 99 + "x"], None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_retry_after(values: list[str], wait: float | None) -> None:
    assert retry_after(values, NOW) == wait


@given(st.lists(st.text() | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ [A-Z0-9+-]+")))
def test_whatever_comes_the_wait_is_bounded(values: list[str]) -> None:
    wait = retry_after(values, NOW)
    assert wait is None or (0 <= wait <= MAX_RETRY_AFTER and not math.isnan(wait))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b" \r\n\t ", ""),
        (b"over\r\n\r\n  quota", "over quota"),
        (b"\x1b[31mred\x07\x00\x7f", "?[31mred???"),
        (
            "r\u00e9sum\u00e9 \u202e\u200b\u2066 \U0001f600".encode(),
            "r\u00e9sum\u00e9 ??? \U0001f600",
        ),
        (b"\xff\xfe{", "\ufffd\ufffd{"),
        ("\x9b2J\u0085\u2028x".encode(), "?2J x"),
        (b"x" * MAX_QUOTE, "x" * MAX_QUOTE),
        (b"x" * (MAX_QUOTE + 1), "x" * MAX_QUOTE + "\u2026"),
    ],
)
def test_quoted(body: bytes, text: str) -> None:
    assert quoted(body, ()) == text


@given(st.text())
def test_printable(text: str) -> None:
    shown = printable(text)
    assert all(each.isprintable() for each in shown)
    assert "\n" not in shown
    assert printable(shown) == shown


def test_secrets_are_not_quoted() -> None:
    secrets = ["swordfish", "Bearer swordfish", ""]
    assert quoted(b"Bearer swordfish / swordfish", secrets) == "[redacted] / [redacted]"


def test_a_secret_that_is_cut_in_two_is_not_quoted() -> None:
    body = b" " * (MAX_BODY - 20) + b"see: swordfish"[:12]
    body += b" " * (MAX_BODY - len(body) - 8) + b"swordfis"
    assert len(body) == MAX_BODY
    assert "swordfis" not in quoted(body, ["swordfish"])


@given(st.binary(max_size=MAX_BODY))
def test_a_quotation_is_short(body: bytes) -> None:
    assert len(quoted(body, ["swordfish"])) <= MAX_QUOTE + 1


def test_a_body() -> None:
    body = Body(lambda: pytest.fail("cut"))
    pending(body.ended)
    body.dataReceived(b"x" * (MAX_BODY - 1))
    body.dataReceived(b"y")
    pending(body.ended)
    body.connectionLost(Failure(ValueError("however")))
    success(body.ended)
    assert body.data == b"x" * (MAX_BODY - 1) + b"y"


def test_a_body_that_is_too_long() -> None:
    cuts: list[bool] = []
    body = Body(lambda: cuts.append(body.ended.called))
    body.dataReceived(b"x" * MAX_BODY)
    assert cuts == []
    body.dataReceived(b"yz")
    # It is cut off first: at its end another post may begin.
    assert cuts == [False]
    success(body.ended)
    body.dataReceived(b"more")
    body.connectionLost()
    assert (body.data, len(cuts)) == (b"x" * MAX_BODY, 1)
