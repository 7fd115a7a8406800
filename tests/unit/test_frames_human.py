"""Frames as people write them: both ways, by name and by number, and what is no frame."""

from __future__ import annotations

import codecs
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from txqmp.frames import (
    FLAG_NAMES,
    STREAM_FLAG_NAMES,
    TYPE_NAMES,
    Frame,
    FrameUsageError,
    format_frame,
    parse_frame,
)


BYTE = st.integers(0, 255)
NIBBLE = st.integers(0, 15)
FRAMES = st.builds(
    Frame,
    st.integers(0, 65_535),
    BYTE,
    BYTE,
    st.sampled_from(sorted(TYPE_NAMES)),
    NIBBLE,
    st.binary(max_size=40),
)


def payload_of(text: str) -> bytes:
    return parse_frame(f"1 1 0 command-data eos {text}").payload


# There and back


@given(FRAMES)
def test_a_frame_there_and_back(given: Frame) -> None:
    text = format_frame(given)
    assert parse_frame(text) == given
    assert text.isascii()
    assert text.isprintable()


def test_a_frame_by_names() -> None:
    text = "1 1 stream-begin command-name have-args|have-data command"
    frame = Frame(1, 1, 1, 1, 6, b"command")
    assert parse_frame(text) == frame
    assert format_frame(frame) == text


def test_a_frame_by_numbers() -> None:
    assert parse_frame("65535 255 7 3 2 x") == Frame(65_535, 255, 7, 3, 2, b"x")
    assert parse_frame("00001 01 00 06 0 x") == Frame(1, 1, 0, 6, 0, b"x")


def test_names_and_numbers_can_be_joined() -> None:
    assert parse_frame("1 1 encoded|1|stream-end|128 4 eos|eos|8|2 x") == Frame(
        1, 1, 0x87, 4, 10, b"x"
    )


@pytest.mark.parametrize("type", sorted(TYPE_NAMES))
def test_every_flag_has_its_name_both_ways(type: int) -> None:
    for flag, name in FLAG_NAMES[type].items():
        frame = Frame(1, 1, 0, type, flag, b"")
        assert format_frame(frame) == f"1 1 0 {TYPE_NAMES[type]} {name} "
        assert parse_frame(f"1 1 0 {TYPE_NAMES[type]} {name} ") == frame
    for flag, name in STREAM_FLAG_NAMES.items():
        assert parse_frame(f"1 1 {name} {type} 0 ").stream_flags == flag


def test_flags_without_a_name_are_a_number() -> None:
    assert format_frame(Frame(1, 1, 0xF9, 4, 14, b"")) == (
        "1 1 stream-begin|248 bytes-response eos|12 "
    )
    assert format_frame(Frame(1, 1, 0, 6, 3, b"")) == "1 1 0 text-output 3 "


def test_a_type_without_a_name_can_be_shown_only() -> None:
    text = format_frame(Frame(1, 1, 0, 7, 2, b"x"))
    assert text == "1 1 0 7 2 x"
    with pytest.raises(FrameUsageError, match="no frame type has the number 7"):
        parse_frame(text)


def test_an_empty_payload_needs_its_space() -> None:
    assert parse_frame("1 1 0 command-data eos ") == Frame(1, 1, 0, 3, 2, b"")
    with pytest.raises(FrameUsageError, match="six fields, not 5"):
        parse_frame("1 1 0 command-data eos")


def test_only_the_first_five_spaces_cut() -> None:
    assert payload_of(" a  b ") == b" a  b "


# Escapes


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (r"\x00\xff\xFf", b"\x00\xff\xff"),
        (r"\x414", b"A4"),
        (r"\0\12\101\1012", b"\0\nAA2"),
        (r"\08\18", b"\x008\x018"),
        (r"\377\400\777", b"\xff\x00\xff"),
        (r"\a\b\f\n\r\t\v", b"\a\b\f\n\r\t\v"),
        (r"\\\'\"", b"\\'\""),
        (r"\\x4", rb"\x4"),
        (r"\\\x41", rb"\A"),
        (r"\q\8\N\u0041\X41", rb"\q\8\N\u0041\X41"),
        ("a\\\nb", b"ab"),
        ("a\nb", b"a\nb"),
        ("ä€😀", "ä€😀".encode()),
        ("\\ä", "\\ä".encode()),
    ],
)
def test_a_payload_is_read_like_a_literal(text: str, payload: bytes) -> None:
    assert payload_of(text) == payload


def test_a_payload_is_shown_so_that_people_can_read_it() -> None:
    payload = b"a b\\\n\r\t\x00\x1f\x7f\xc3'\"~"
    text = "1 1 0 command-data eos " + r"""a b\\\n\r\t\x00\x1f\x7f\xc3'"~"""
    assert format_frame(Frame(1, 1, 0, 3, 2, payload)) == text


@pytest.mark.parametrize("text", ["\\x", "\\x4", "a\\x4g", "\\xg4", "\\\\\\x", "\\x 41", "a\\"])
def test_an_escape_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(FrameUsageError, match="not whole"):
        payload_of(text)


@given(st.text(st.sampled_from('\\\\\\\\x01479afgnrt"ä\n ')))
@example("\\")
def test_a_payload_means_what_it_means_to_python(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            # What the original implementation reads payloads with.
            expected: bytes | None = codecs.escape_decode(text.encode())[0]  # type: ignore[attr-defined]
        except ValueError:
            expected = None
    if expected is None:
        with pytest.raises(FrameUsageError):
            payload_of(text)
    else:
        assert payload_of(text) == expected


# What is no frame


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1 1 0 command-data",
        "1  1 0 command-data eos x",
        " 1 1 0 command-data eos x",
        "one 1 0 command-data eos x",
        "-1 1 0 command-data eos x",
        "+1 1 0 command-data eos x",
        "1.0 1 0 command-data eos x",
        "0x1 1 0 command-data eos x",
        "1_0 1 0 command-data eos x",
        "² 1 0 command-data eos x",
        "\u0661 1 0 command-data eos x",
        "65536 1 0 command-data eos x",
        "1 256 0 command-data eos x",
        "1 1 256 command-data eos x",
        "1 1 begin command-data eos x",
        "1 1 stream-begin| command-data eos x",
        "1 1 stream-begin|eos command-data eos x",
        "1 1  command-data eos x",
        "1 1 0 command eos x",
        "1 1 0 COMMAND-DATA eos x",
        "1 1 0 0 0 x",
        "1 1 0 7 0 x",
        "1 1 0 15 0 x",
        "1 1 0 16 0 x",
        "1 1 0 command-data 16 x",
        "1 1 0 command-data eoa x",
        "1 1 0 command-data eos,continuation x",
        "1 1 0 text-output eos x",
        "1 1 0 command-data  x",
        pytest.param("9" * 10_000 + " 1 0 command-data eos x", id="more digits than int() reads"),
        pytest.param("1 1 0 command-data eos \ud800", id="half of a surrogate pair"),
        pytest.param("\ud800 1 0 command-data eos x", id="half of a pair as a number"),
    ],
)
def test_a_text_that_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(FrameUsageError) as caught:
        parse_frame(text)
    assert len(str(caught.value)) < 200


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(FrameUsageError, match="more than 16777215"):
        payload_of("x" * (1 << 24))


@given(st.text(st.sampled_from("0123 |\\xeos-commandat\ud800ä²"), max_size=60))
def test_any_text_is_a_frame_or_refused(text: str) -> None:
    for line in (text, f"1 1 0 3 {text}", f"1 1 {text} eos x"):
        try:
            frame = parse_frame(line)
        except FrameUsageError:
            continue
        assert parse_frame(format_frame(frame)) == frame
