"""Start a :mod:`soak.plain_peer`."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soak import plain_peer


@contextmanager
def plain_peer_process() -> Iterator[str]:
    """Give where to connect to, once; the process ends with the block."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(Path(plain_peer.__file__)), str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield f"fd:{ours.detach()}"
        finally:
            process.kill()
