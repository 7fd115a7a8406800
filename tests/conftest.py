"""Fixtures for the whole suite; its checks are in support/leaks.py and support/limits.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from twisted.internet.task import Clock


pytest_plugins = ["support.leaks", "support.limits"]

pytest.register_assert_rewrite("support.deferreds", "support.qemu")

from support.qemu import RealQEMU  # noqa: E402


if "CI" not in os.environ:  # there hypothesis has a profile of its own
    # A slow machine is not a failed property.
    hypothesis.settings.register_profile("txqmp", hypothesis.settings(), deadline=None)
    hypothesis.settings.load_profile("txqmp")


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock which must have no delayed calls left at the end of the test."""
    clock = Clock()
    yield clock
    left = [str(call) for call in clock.getDelayedCalls()]
    assert not left, "delayed calls were left on the clock"


@pytest.fixture
def qemu_factory() -> Iterator[Callable[..., RealQEMU]]:
    """Start real QEMUs, which end with the test; takes the arguments of :class:`RealQEMU`."""
    started: list[RealQEMU] = []

    def start(*args: str, **options: object) -> RealQEMU:
        qemu = RealQEMU(*args, **options)  # type: ignore[arg-type]
        started.append(qemu)
        return qemu.start()

    yield start
    for qemu in reversed(started):
        qemu.stop()


@pytest.fixture
def qemu(qemu_factory: Callable[..., RealQEMU]) -> RealQEMU:
    """A real QEMU without a machine, paused, with one monitor at ``qemu.path()``."""
    return qemu_factory()
