"""An event as a message: its routing key and its properties."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from support.outgoing import VM, event
from txqmp.monitor.cloudevents import clean
from txqmp.monitor.sinks.amqp.message import CONTENT_TYPE, MAX_KEY, properties, routing_key


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("org.qemu.qmp.BLOCK_IO_ERROR", "BLOCK_IO_ERROR"),
        ("txqmp.monitor.gap", "gap"),
        ("org.qemu.qmp.__com.redhat_DRIVE_FULL", "__com_redhat_DRIVE_FULL"),
        ("STOP", "STOP"),
        ("org.qemu.qmp.A*B#C D\n", "A_B_C_D_"),
        ("org.qemu.qmp.", "_"),
        ("", "_"),
    ],
)
def test_the_second_word_is_the_event(kind: str, word: str) -> None:
    assert routing_key(attrs.evolve(event(1), type=kind)) == f"qmp.{word}.{VM}"


@pytest.mark.parametrize(
    ("vm", "word"),
    [
        (VM, VM),
        ("web.example.org", "web_example_org"),
        ("a b\u3000c", "a_b_c"),
        ("vm*#", "vm__"),
        ("Überwachung-1", "Überwachung-1"),
        ("?", "?"),
    ],
)
def test_the_third_word_is_the_vm(vm: str, word: str) -> None:
    assert routing_key(event(1, vm=vm)) == f"qmp.STOP.{word}"


def test_a_key_that_would_be_too_long_is_cut() -> None:
    key = routing_key(event(1, "E" * 300, vm="ü" * 300))
    assert key == f"qmp.{'E' * 127}.{'ü' * 61}"
    assert len(key.encode()) in (MAX_KEY, MAX_KEY - 1)


@given(st.text(), st.text())
def test_a_key_is_always_three_words_that_fit(kind: str, vm: str) -> None:
    key = routing_key(attrs.evolve(event(1, vm=clean(vm)), type=kind))
    assert len(key.encode()) <= MAX_KEY
    words = key.split(".")
    assert len(words) == 3
    assert all(words)
    assert not set(key) & set("*# \n\x00")


def test_properties() -> None:
    assert properties(event(7)) == {
        "app_id": "qmp-monitor",
        "content_type": CONTENT_TYPE,
        "delivery_mode": 2,
        "message_id": "8f3c1d2a9b7e4c60-00000000000000000007",
        "timestamp": 1795224000,
        "type": "org.qemu.qmp.STOP",
    }
    assert BasicProperties(**properties(event(7))).encode()


def test_a_time_before_1970_is_left_out() -> None:
    before = event(1)
    text = before.text.replace(b'"time":"2026', b'"time":"1969')
    assert properties(attrs.evolve(before, text=text))["timestamp"] is None
