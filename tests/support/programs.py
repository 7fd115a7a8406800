"""Find the real programs that integration tests need."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn


def require(program: str, *, package: str | None = None) -> str:
    """Return the path of ``program``.

    Where it is not installed the test is skipped, or fails if ``TXQMP_REQUIRE_REAL=1`` is set.

    :param package: the Debian package that has it, for the message.
    """
    found = find(program)
    if found is None:
        hint = f" (Debian package {package})" if package else ""
        missing(f"{program} is not installed{hint}")
    return found


def find(program: str) -> str | None:
    """Return the path of ``program``, None where it is not installed."""
    # An ordinary user's PATH often lacks the sbin directories, where qemu-ga is.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=places)


def missing(what: str) -> NoReturn:
    """Skip the test because of ``what``, or fail it if ``TXQMP_REQUIRE_REAL=1`` is set."""
    __tracebackhide__ = True
    # Not above: benchmarks start programs too, and do without pytest.
    import pytest

    if real_required():
        pytest.fail(f"{what}, and TXQMP_REQUIRE_REAL=1 is set", pytrace=False)
    pytest.skip(what)


def real_required() -> bool:
    """Whether a missing program is a failure rather than a skip; CI sets this."""
    return os.environ.get("TXQMP_REQUIRE_REAL") == "1"
