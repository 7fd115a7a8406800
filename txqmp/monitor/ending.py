"""How the process ends."""

from __future__ import annotations

import atexit
import os
import sys


def end_process_with(code: int) -> None:
    """
    Have the process end with a code, when it ends: what runs it (``twistd``, ``twist``) would have
    it end with 0.
    """
    # What was registered last is called first; the others have nothing to do here.
    atexit.register(_end, code)


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue  # it is closed, or nobody reads it
    os._exit(code)
