"""Durations and sizes."""

from __future__ import annotations

import datetime as dt

import pytest

from txqmp.monitor.config import units


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("72h", 259200.0),
        ("7d", 604800.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("1d2h3m4s5ms", 93784.005),
        ("0s", 0.0),
        (5, 5.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert units.seconds(value) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "value",
    [
        *("", "5", "s", "5 s", "-5s", "+5s", "5S", "1s1m", "1h1h", "5s ", "\u0665s", "5.s", "1e3s"),
        *("9" * 40 + "s", -1, -0.1, float("inf"), float("nan"), True, None, [], 10**400),
        dt.time(1, 2),
    ],
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="duration") as raised:
        units.seconds(value)
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("256MiB", 256 << 20),
        ("1GB", 10**9),
        ("1.5KiB", 1536),
        ("7 kB", 7000),
        ("7B", 7),
        ("7", 7),
        (7, 7),
        (0, 0),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes(value: object, size: int) -> None:
    assert units.size(value) == size


@pytest.mark.parametrize(
    "value",
    ["", "MiB", "1 MB ", "1mb", "1MIB", "1K", "-1B", "\u0665B", "9" * 40, -1, 1.0, True, None, []],
)
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        units.size(value)
