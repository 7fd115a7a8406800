"""The other end of the wire: a replier that costs next to nothing, and a real QEMU."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


HERE = Path(__file__).resolve().parent
QEMU = "qemu-system-x86_64"


class Replier:
    """
    A process that speaks just enough QMP; ``replier.c`` tells what. It is compiled where there is
    a compiler, else it runs in Python.

    :param directory: an empty one, for the socket and the program.
    :param plain: use the one in Python even where there is a compiler.

    :ivar path: the UNIX socket on which it listens.
    :ivar kind: what it is, in words.
    """

    def __init__(self, directory: str, *, plain: bool = False) -> None:
        self.path = os.path.join(directory, "qmp.sock")
        program = os.path.join(directory, "replier")
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        command = [sys.executable, str(HERE / "plain_replier.py")]
        self.kind = "plain Python"
        if compiler is not None and not plain:
            built = subprocess.run(
                [compiler, "-O2", "-o", program, str(HERE / "replier.c")],
                capture_output=True,
                check=False,
            )
            if built.returncode == 0:
                command = [program]
                self.kind = f"compiled C ({os.path.basename(compiler)})"
        self._process = subprocess.Popen(
            [*command, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"the replier ({self.kind}) did not start")

    def __enter__(self) -> Replier:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with its input, and so with us, however we end.
        self._process.communicate()


class PostTaker:
    """
    A process that takes webhooks' posts; ``post_taker.py`` tells how.

    :ivar port: on which it listens.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "post_taker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> PostTaker:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with its input.
        self._process.communicate()


@contextmanager
def real_qemu(directory: str) -> Iterator[str | None]:
    """
    A QEMU without a machine.

    :param directory: for its socket.
    :returns: the socket, or ``None`` where QEMU is not installed.
    """
    program = shutil.which(QEMU)
    if program is None:
        yield None
        return
    path = os.path.join(directory, "qemu.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        number = listening.fileno()
        options = ["-machine", "none", "-nodefaults", "-display", "none"]
        options += ["-chardev", f"socket,id=qmp,fd={number},server=on,wait=off"]
        options += ["-mon", "chardev=qmp,mode=control"]
        process = subprocess.Popen([program, *options], pass_fds=[number])
    try:
        yield path
    finally:
        process.kill()
        process.wait()
