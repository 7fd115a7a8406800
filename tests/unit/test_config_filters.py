"""Which events are wanted."""

from __future__ import annotations

import pytest

from txqmp.fleet.records import Kind
from txqmp.monitor.config.filters import pattern_of, type_pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("STOP", "org.qemu.qmp.STOP"),
        ("BLOCK_*", "org.qemu.qmp.BLOCK_*"),
        ("*", "org.qemu.qmp.*"),
        ("[!A-F]*", "org.qemu.qmp.[!A-F]*"),
        ("__com.redhat_SPICE", "org.qemu.qmp.__com.redhat_SPICE"),
        ("*redhat.*", "org.qemu.qmp.*redhat.*"),
        ("org.qemu.qmp.STOP", "org.qemu.qmp.STOP"),
        ("org.qemu.qmp.*", "org.qemu.qmp.*"),
        ("txqmp.monitor.*", "txqmp.monitor.*"),
        ("txqmp.monitor.gap", "txqmp.monitor.gap"),
        ("txqmp.*", "txqmp.*"),
        ("txqmp.monitor*", "txqmp.monitor*"),
        ("org.qemu.*", "org.qemu.*"),
    ],
)
def test_types(text: str, pattern: str) -> None:
    assert type_pattern(text) == pattern


def test_other_prefixes() -> None:
    assert type_pattern("a.STOP", "a", "b") == "a.STOP"
    assert type_pattern("b.gap", "a", "b") == "b.gap"
    assert type_pattern("STOP", "a", "b") == "a.STOP"
    with pytest.raises(ValueError, match="begins neither with 'a' nor with 'b'"):
        type_pattern("txqmp.monitor.gap", "a", "b")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.EVENT])
def test_words_of_ours_have_a_prefix(kind: Kind) -> None:
    with pytest.raises(ValueError, match=f"what the daemon says is txqmp.monitor.{kind.value}"):
        type_pattern(kind.value)


@pytest.mark.parametrize("text", ["org.qemu", "txqmp.monitor", "org.example.X", "txqmp.gap", "."])
def test_types_of_others(text: str) -> None:
    with pytest.raises(ValueError, match="begins neither with"):
        type_pattern(text)


@pytest.mark.parametrize("text", ["", "A\n", "x" * 301, "A[", "A[]", "[!]", "[a-z]["])
def test_no_patterns(text: str) -> None:
    for read in (pattern_of, type_pattern):
        with pytest.raises(ValueError, match=r"no glob of names|without its \]"):
            read(text)


@pytest.mark.parametrize("text", ["A", "[]]", "[!]]", "[a][b]", "a]", "Gerät 1"])
def test_patterns(text: str) -> None:
    assert pattern_of(text) == text
