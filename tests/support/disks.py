"""Disks that are full, cannot be written to, or fail: real ones, as a process sees them.

Mounts are made in a mount namespace of the process's own, which goes away with it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from support.programs import missing, require


#: What goes before a command line to run it where a directory is mounted read-only.
_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'

#: … where a directory is a small disk with a ballast on it; when the command has ended the ballast
#: is thrown off and the command is run anew.
_SMALL = (
    'mount -t tmpfs -o size=1m none "$0" && head -c {ballast} /dev/zero > "$0/ballast" || exit 99;'
    ' "$@"; echo "ended with $?" >&2; rm "$0/ballast"; exec "$@"'
)

#: Has fsync(2) and fdatasync(2) fail in all threads, from SIGUSR1 on. Python runs a module of this
#: name at its start.
SITECUSTOMIZE = """
import ctypes, platform, signal, struct

fsync, fdatasync = {"x86_64": (74, 75), "aarch64": (82, 83)}[platform.machine()]
seccomp = {"x86_64": 317, "aarch64": 277}[platform.machine()]
EIO, ERRNO, ALLOW = 5, 0x00050000, 0x7FFF0000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NO_NEW_PRIVS, SET_FILTER, ALL_THREADS = 38, 1, 1


def fail(*_):
    code = b"".join(
        struct.pack("HBBI", *each)
        for each in (
            (LOAD, 0, 0, 0),
            (EQUAL, 2, 0, fsync),
            (EQUAL, 1, 0, fdatasync),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, ERRNO | EIO),
        )
    )
    program = ctypes.create_string_buffer(code, len(code))
    filter = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(seccomp, SET_FILTER, ALL_THREADS, filter):
        raise OSError(ctypes.get_errno(), "seccomp")


signal.signal(signal.SIGUSR1, fail)
"""


def require_mounts() -> None:
    """Skip the test where nothing may be mounted, as in most containers."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    unshare = require("unshare", package="util-linux")
    done = subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.decode()}")


def read_only(directory: Path) -> tuple[str, ...]:
    """What goes before a command line to run it where this directory is read-only."""
    return ("unshare", "--mount", "/bin/sh", "-c", _READ_ONLY, str(directory))


def small(directory: Path, *, free: int) -> tuple[str, ...]:
    """What goes before a command line to run it where this directory has so many bytes free, and
    once more where it has enough.

    In between it says ``ended with …`` on its standard error.
    """
    script = _SMALL.format(ballast=(1 << 20) - free)
    return ("unshare", "--mount", "/bin/sh", "-c", script, str(directory))


def failing_disk(directory: Path) -> dict[str, str]:
    """Variables for the environment of a Python whose disks fail from SIGUSR1 on.

    :param directory: where to put what it takes.
    """
    if platform.machine() not in ("x86_64", "aarch64"):
        missing(f"the numbers of system calls of {platform.machine()} are not known here")
    (directory / "sitecustomize.py").write_text(SITECUSTOMIZE)
    paths = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
