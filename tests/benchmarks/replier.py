"""The other end of the wire: compiled where there is a compiler, else in plain Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


HERE = Path(__file__).resolve().parent


class Replier:
    """
    A process that speaks just enough QMP; ``replier.c`` tells what.

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
