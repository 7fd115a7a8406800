"""Secrets are not shown, nor is more than a person can read."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txqmp.redaction import EXCERPT_LENGTH, REDACTED, excerpt, redact


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "vnc-password",
        "PASSWORD",
        "passwd",
        "passphrase",
        "secret",
        "key-secret",
        "credential",
        "credentials",
        "token",
        "x-token",
        "key",
        "api-key",
        "private_key",
    ],
)
def test_a_member_named_as_a_secret_is_hidden(name: str) -> None:
    assert redact({name: "hunter2"}) == {name: REDACTED}
    assert excerpt({name: "hunter2"}) == f"{{'{name}': {REDACTED}}}"


@pytest.mark.parametrize("name", ["keys", "keyboard", "monkey", "device", "id", "key-offset"])
def test_a_member_that_only_looks_like_one_is_shown(name: str) -> None:
    assert redact({name: "hunter2"}) == {name: "hunter2"}
    assert "hunter2" in excerpt({name: "hunter2"})


@pytest.mark.parametrize("value", ["hunter2", 5, ["hunter2"], {"a": "hunter2"}])
def test_a_secret_of_any_kind_is_hidden_whole(value: object) -> None:
    assert redact({"password": value}) == {"password": REDACTED}


@pytest.mark.parametrize("value", [True, False, None])
def test_whether_there_is_a_secret_is_no_secret(value: object) -> None:
    assert redact({"password": value}) == {"password": value}


def test_a_secret_is_found_at_any_depth() -> None:
    message = {"execute": "x", "arguments": {"list": [{"inner": {"password": "hunter2"}}]}}
    assert redact(message) == {
        "execute": "x",
        "arguments": {"list": [{"inner": {"password": REDACTED}}]},
    }
    assert "hunter2" not in excerpt(message)


def test_what_is_given_is_not_changed() -> None:
    message = {"arguments": {"password": "hunter2"}}
    redact(message)
    assert message == {"arguments": {"password": "hunter2"}}


@pytest.mark.parametrize("kind", ["secret", "secret_keyring"])
@pytest.mark.parametrize("name", ["data", "props"])
def test_the_data_of_a_secret_object_are_hidden(kind: str, name: str) -> None:
    arguments = {"qom-type": kind, "id": "sec0", name: "letmein"}
    assert redact(arguments) == {"qom-type": kind, "id": "sec0", name: REDACTED}
    assert "letmein" not in excerpt(arguments)


def test_the_data_of_another_object_are_shown() -> None:
    arguments = {"qom-type": "rng-random", "data": "x"}
    assert redact(arguments) == arguments


@pytest.mark.parametrize(
    "text", ["set_password vnc hunter2", "object_add secret,id=s,data=hunter2", "CHANGE PASSWORD"]
)
def test_a_monitor_command_that_names_a_secret_is_hidden(text: str) -> None:
    assert redact({"command-line": text}) == {"command-line": REDACTED}


def test_another_monitor_command_is_shown() -> None:
    assert redact({"command-line": "info status"}) == {"command-line": "info status"}
    assert redact({"command-line": 5}) == {"command-line": 5}


def test_what_is_no_string_names_no_secret() -> None:
    assert redact({1: "x"}) == {1: "x"}


def test_mappings_and_tuples_become_plain() -> None:
    assert redact(MappingProxyType({"a": (1, MappingProxyType({"key": "x"}))})) == {
        "a": [1, {"key": REDACTED}]
    }


def test_what_is_nested_too_deep_to_walk_is_hidden_whole() -> None:
    assert redact({"a": nested(100_000)}) == REDACTED


def test_an_excerpt_of_what_is_nested_too_deep_is_its_beginning() -> None:
    assert excerpt(nested(100_000)) == "[" * EXCERPT_LENGTH + "…"


@given(JSON)
def test_a_whole_excerpt_is_the_redacted_value(value: object) -> None:
    assert excerpt(value, 10**9) == repr(redact(value)).replace(repr(REDACTED), REDACTED)


@given(JSON, st.integers(1, 50))
def test_an_excerpt_is_the_beginning_and_never_long(value: object, limit: int) -> None:
    shown = excerpt(value, limit)
    whole = excerpt(value, 10**9)
    if len(whole) <= limit:
        assert shown == whole
    elif "'" in json.dumps(value):
        # repr() chooses its quotation marks by the string, of which only a part is there.
        assert shown[-1] == "…"
        assert len(shown) == limit + 1
    else:
        assert shown == whole[:limit] + "…"


def test_an_excerpt_of_bytes_says_how_much_is_left_out() -> None:
    assert excerpt(b"hello", 5) == "b'hello'"
    assert excerpt(b"hello!!", 5) == "b'hello'… (2 more bytes)"
    assert excerpt(bytearray(b"hello!!"), 5) == "b'hello'… (2 more bytes)"
    assert excerpt(memoryview(b"hello!!"), 5) == "b'hello'… (2 more bytes)"


def test_an_excerpt_of_a_huge_value_looks_at_its_beginning_only() -> None:
    class Endless(list[int]):
        looked = 0

        def __iter__(self) -> Any:
            while True:
                self.looked += 1
                assert self.looked < 2 * EXCERPT_LENGTH
                yield 7

    assert excerpt(Endless()).startswith("[7, 7, 7")
    assert len(excerpt("x" * 10_000_000)) == EXCERPT_LENGTH + 1
    assert len(excerpt({"x" * 10_000_000: 1})) == EXCERPT_LENGTH + 1
