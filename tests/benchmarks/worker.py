"""
A side's process: ``python tests/benchmarks --side SIDE SOCKET``.

It reads tasks, one JSON object a line, ``{"task": name, ...parameters}``, and answers each with a
line: ``{"result": …}`` or ``{"error": text}``. While it waits for a task, its loop stands still.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any


SIDES = {
    "txqmp": "benchmarks.side_txqmp",
    "qemu.qmp": "benchmarks.side_qemu_qmp",
    "limit": "benchmarks.side_limit",
    "bare": "benchmarks.side_bare",
    "frames": "benchmarks.side_frames",
    "frames-plain": "benchmarks.side_frames_plain",
    "frames-mercurial": "benchmarks.side_frames_mercurial",
    "spool": "benchmarks.side_spool",
    "sinks": "benchmarks.side_sinks",
}


async def serve(tasks: Any) -> None:
    """Carry out tasks until there are no more."""
    for line in sys.stdin:
        parameters = json.loads(line)
        task: Callable[..., Any] = getattr(tasks, parameters.pop("task"))
        try:
            result = task(**parameters)
            if inspect.isawaitable(result):
                result = await result
            answer = {"result": result}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def work(side: str, path: str) -> None:
    """
    Be a side.

    :param path: the other end's socket.
    """
    importlib.import_module(SIDES[side]).run(serve, path)
