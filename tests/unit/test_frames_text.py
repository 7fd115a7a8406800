"""Text output: atoms there and back, their limits at the edge, and what is shown of them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.frames import (
    Code,
    FrameProtocolError,
    FrameUsageError,
    TextAtom,
    decode_text,
    encode_text,
    render_text,
)
from txqmp.frames.limits import DEFAULT_PAYLOAD


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ATOMS = st.builds(
    TextAtom,
    TEXT | st.sampled_from(["%s", "%%s", "100 %", ""]),
    st.lists(st.text(st.characters(max_codepoint=127), max_size=10), max_size=3),
    st.lists(TEXT, max_size=3),
)


# There and back


@given(st.lists(ATOMS, max_size=4))
def test_atoms_there_and_back(atoms: list[TextAtom]) -> None:
    payload = encode_text(atoms)
    assert decode_text(payload) == tuple(atoms)
    assert decode_text(memoryview(payload)) == tuple(atoms)  # type: ignore[arg-type]


def test_an_atom_is_laid_out_as_the_protocol_says() -> None:
    atom = TextAtom("é %s %s", ["error", "x"], ["ü", "12345"])
    assert (
        encode_text([atom, TextAtom("")])
        == (
            b"\x08\x00\x02\x02"  # the format's length, how many labels, how many arguments
            b"\x05\x01"  # the labels' lengths
            b"\x02\x00\x05\x00"  # the arguments' lengths
            b"\xc3\xa9 %s %s" + b"error" + b"x" + b"\xc3\xbc" + b"12345"
            b"\x00\x00\x00\x00"
        )
    )


def test_no_atoms_are_no_bytes() -> None:
    assert encode_text([]) == b""
    assert decode_text(b"") == ()


def test_text_and_its_bytes_make_the_same_atom() -> None:
    one = TextAtom("é %s", ["l"], ["ü"])
    for kind in (bytes, bytearray, memoryview):
        many = [kind(each.encode()) for each in ("é %s", "l", "ü")]
        assert TextAtom(many[0], many[1:2], many[2:]) == one
    assert one == TextAtom("é %s", ("l",), ("ü",))
    assert hash(one) == hash(TextAtom("é %s", iter(["l"]), iter(["ü"])))


# What is not UTF-8, or not text


def test_what_is_not_utf8_is_replaced_before_its_length_is_taken() -> None:
    atom = TextAtom(b"a\xffb", (), [b"\xc3", b"\xed\xa0\x80"])
    assert atom == TextAtom("a\ufffdb", (), ["\ufffd", "\ufffd\ufffd\ufffd"])
    payload = encode_text([atom])
    assert payload[:8] == struct.pack("<HBBHH", 5, 0, 2, 3, 9)
    assert decode_text(payload) == (atom,)


def test_the_length_limit_is_on_what_is_sent() -> None:
    largest = 65_535 // 3
    assert len(encode_text([TextAtom(b"\xff" * largest)], 70_000)) == 65_535 + 4
    assert len(encode_text([TextAtom("", (), [b"\xff" * largest])], 70_000)) == 65_535 + 6
    with pytest.raises(FrameUsageError, match="a format"):
        encode_text([TextAtom(b"\xff" * (largest + 1))], 70_000)
    with pytest.raises(FrameUsageError, match="an argument"):
        encode_text([TextAtom("", (), [b"\xff" * (largest + 1)])], 70_000)


def test_what_came_and_is_not_utf8_is_replaced() -> None:
    payload = struct.pack("<HBBH", 1, 0, 1, 2) + b"\xff" + b"\xc3a"
    assert decode_text(payload) == (TextAtom("\ufffd", (), ["\ufffda"]),)


def test_half_a_surrogate_pair_is_replaced_at_once() -> None:
    atom = TextAtom("a\ud800", (), ["\udfff"])
    assert (atom.format, atom.arguments) == ("a?", ("?",))
    assert decode_text(encode_text([atom])) == (atom,)


@pytest.mark.parametrize("label", ["é", "\ud800", b"\xff", "é".encode(), "\x80"])
def test_a_label_is_ascii(label: Any) -> None:
    with pytest.raises(FrameUsageError, match="a label is ASCII"):
        TextAtom("", [label])


def test_a_label_that_came_is_ascii() -> None:
    with pytest.raises(FrameProtocolError, match="a label is ASCII") as caught:
        decode_text(struct.pack("<HBBB", 0, 1, 0, 1) + b"\xff", 7)
    assert caught.value.code is Code.MALFORMED_TEXT
    assert caught.value.request_id == 7


@pytest.mark.parametrize(
    "fields",
    [(5,), (None,), ("", [5]), ("", [None]), ("", (), [5]), ("", "error"), ("", (), "text")],
    ids=repr,
)
def test_what_is_no_text_is_refused(fields: Any) -> None:
    with pytest.raises(TypeError):
        TextAtom(*fields)


# Limits


@pytest.mark.parametrize(
    ("most", "atom", "complaint"),
    [
        (65_535, lambda n: TextAtom("x" * n), "a format cannot be longer than 65,535 bytes"),
        (255, lambda n: TextAtom("", ["x"] * n), "an atom cannot have more than 255 labels"),
        (255, lambda n: TextAtom("", (), ["x"] * n), "cannot have more than 255 arguments"),
        (255, lambda n: TextAtom("", ["x" * n]), "a label cannot be longer than 255 bytes"),
        (65_535, lambda n: TextAtom("", (), ["x" * n]), "an argument cannot be longer than 65,535"),
    ],
    ids=["format", "labels", "arguments", "label", "argument"],
)
def test_an_atom_goes_to_its_limits_and_no_further(most: int, atom: Any, complaint: str) -> None:
    assert decode_text(encode_text([atom(most)], 1 << 20)) == (atom(most),)
    with pytest.raises(FrameUsageError, match=complaint):
        encode_text([atom(most + 1)], 1 << 20)


def test_all_atoms_go_into_one_frame_or_none() -> None:
    half = TextAtom("x" * (DEFAULT_PAYLOAD // 2 - 4))
    assert len(encode_text([half, half])) == DEFAULT_PAYLOAD
    with pytest.raises(FrameUsageError, match="does not fit into a frame of 32768"):
        encode_text([half, half, TextAtom("")])
    assert encode_text([TextAtom("x")], 5) == b"\1\0\0\0x"
    with pytest.raises(FrameUsageError, match="5 bytes does not fit into a frame of 4"):
        encode_text([TextAtom("x")], 4)


# What came and makes no sense


def test_text_that_is_cut_short_anywhere_is_refused() -> None:
    atoms = [TextAtom("%s %s", ["one", "two"], ["first", "second"]), TextAtom("x")]
    payload = encode_text(atoms)
    first = len(encode_text(atoms[:1]))
    for end in range(len(payload)):
        if end in (0, first):
            assert len(decode_text(payload[:end])) == (end > 0)
            continue
        with pytest.raises(FrameProtocolError) as caught:
            decode_text(payload[:end], 5)
        assert caught.value.code is Code.MALFORMED_TEXT
        assert caught.value.request_id == 5


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_refused(payload: bytes) -> None:
    try:
        atoms = decode_text(payload)
    except FrameProtocolError:
        return
    assert decode_text(encode_text(atoms, 1 << 20)) == atoms


# What is shown


@pytest.mark.parametrize(
    ("format", "arguments", "text"),
    [
        ("", [], ""),
        ("plain", [], "plain"),
        ("%s", ["x"], "x"),
        ("%s and %s", ["x", "y"], "x and y"),
        ("100 %%", [], "100 %"),
        ("%%s", ["x"], "%s"),
        ("%%%s", ["x"], "%x"),
        ("%%%%s", ["x"], "%%s"),
        ("%d %(name)s %5s %", ["x"], "%d %(name)s %5s %"),
        ("% s", ["x"], "% s"),
        ("%s %s", ["x"], "x %s"),
        ("%s", ["x", "y"], "x"),
        ("%s%s", ["%s", "%%"], "%s%%"),
        ("{} {0}\\1", ["x"], "{} {0}\\1"),
    ],
)
def test_only_two_percent_signs_mean_something(
    format: str, arguments: list[str], text: str
) -> None:
    assert render_text(format, arguments) == text
    assert TextAtom(format, (), arguments).render() == text


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), TEXT)
def test_what_is_escaped_is_shown_as_it_was(pairs: list[tuple[str, str]], end: str) -> None:
    format = "".join(literal.replace("%", "%%") + "%s" for literal, _ in pairs)
    text = render_text(format + end.replace("%", "%%"), [argument for _, argument in pairs])
    assert text == "".join(map("".join, pairs)) + end
