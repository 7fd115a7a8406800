"""A process that helps: it is told what to do line by line, and ends with its input.

So it ends with whoever started it, however that one ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver


HERE = Path(__file__).resolve().parent

#: How long a helper has to start and to end, in seconds: a busy machine is no failure.
LIMIT = 60.0


class Helper:
    """
    A helper's process, seen from the one that started it. Each order is answered with a line.

    :param module: what it runs: a module of this package with a ``main(parameters)``.
    :param parameters: JSON values.

    :ivar answer: what it said when it was ready.
    """

    def __init__(self, module: str, log: Path, **parameters: Any) -> None:
        self._name = module
        self._output = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--helper", module, json.dumps(parameters)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            # Ctrl-C is for whoever started it, who ends it in its turn.
            start_new_session=True,
        )
        self.answer = self._read()

    def tell(self, order: str) -> Any:
        """Have it do something; return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} has ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End it, and wait until it has written down what it knows."""
        try:
            self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Orders(LineOnlyReceiver):
    """
    The orders as they come to the helper's process.

    :param orders: what there is to do, by name; what they return is the answer.
    :param end: called when there will be no more.
    """

    delimiter = b"\n"

    def __init__(self, orders: dict[str, Callable[[], Any]], end: Callable[[], Any]) -> None:
        self._orders = orders
        self._end = end

    def lineReceived(self, line: bytes) -> None:
        answer(self._orders[line.decode()]())

    def connectionLost(self, reason: Any = None) -> None:
        self._end()


def listen(orders: dict[str, Callable[[], Any]], end: Callable[[], Any]) -> None:
    """Take orders from now on."""
    StandardIO(Orders(orders, end))


def answer(what: Any) -> None:
    """Say something to whoever started us."""
    os.write(1, json.dumps(what).encode() + b"\n")
