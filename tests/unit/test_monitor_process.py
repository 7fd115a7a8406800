"""How the process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest


CODE = """
import atexit, sys
from txqmp.monitor.process import end_process_with
atexit.register(print, "not this")
print("this", end="")
print("and this", end="", file=sys.stderr)
{}
end_process_with(3)
"""


@pytest.mark.parametrize("before", ["", "sys.stdout.close()", "sys.stdout = None"])
def test_the_process_ends_with_a_code(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(before)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == "and this"
    assert "not this" not in done.stdout
    if not before:
        assert done.stdout == "this"
