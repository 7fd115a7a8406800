"""The sides, seen from the process that compares them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any


HERE = Path(__file__).resolve().parent


class SideError(Exception):
    """A side could not carry out a task; the message says why."""


class Side:
    """
    A side's process; a context manager.

    :param name: one of :data:`benchmarks.worker.SIDES`.
    :param path: the replier's socket.
    :param silent: do not show what it writes to its standard error.
    """

    def __init__(self, name: str, path: str, *, silent: bool = False) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--side", name, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if silent else None,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def measure(self, task: str, **parameters: Any) -> Any:
        """
        Carry out a task.

        :returns: what it measured.
        :raises SideError: it failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"task": task, **parameters}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SideError(f"{self.name} {task}: its process ended ({self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name} {task}: {answer['error']}")
        return answer["result"]


def take_turns(
    path: str,
    names: Sequence[str],
    rounds: int,
    task: str,
    *,
    fresh: bool = False,
    **parameters: Any,
) -> dict[str, list[Any]]:
    """
    Have sides do the same, one after another, several times (A B A B …).

    :param fresh: take a new process for each measurement. Otherwise each side keeps its own, and
        does a first round that does not count.
    :returns: what each side measured in each round.
    """
    measured: dict[str, list[Any]] = {name: [] for name in names}
    if fresh:
        for _ in range(rounds):
            for name in names:
                with Side(name, path) as side:
                    measured[name].append(side.measure(task, **parameters))
        return measured
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(name, path)) for name in names]
        for number in range(rounds + 1):
            for side in sides:
                result = side.measure(task, **parameters)
                if number:
                    measured[side.name].append(result)
    return measured
