"""The sink that prints."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest
from twisted.internet.task import Clock

from support.deferreds import success
from txqmp.monitor.records import Entry
from txqmp.monitor.sinks import stdout
from txqmp.monitor.sinks.stdout import Descriptor, stdout_sink


class Reactor(Clock):
    """Calls what comes from threads when the test asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._calls.put((function, args))

    def turn(self) -> None:
        function, args = self._calls.get(timeout=20)
        function(*args)


def test_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(Descriptor.__init__, "__defaults__", (writer,))
    reactor = Reactor()
    sink = stdout_sink(reactor, lambda: None)
    assert sink.name == "stdout"
    sink.put(Entry("a", 1, 1, b'{"vm":"a"}'))
    reactor.turn()
    assert os.read(reader, 100) == b'{"vm":"a"}\n'
    success(sink.stop())
    reactor.turn()
    os.close(reader)
    os.close(writer)


def test_the_descriptor_is_not_ours() -> None:
    reader, writer = os.pipe()
    target = Descriptor(writer)
    target.write([b"one"])
    target.reopen()
    target.write([b"two"])
    target.close()
    os.write(writer, b"three\n")
    assert os.read(reader, 100) == b"one\ntwo\nthree\n"
    os.close(reader)
    os.close(writer)


def test_it_is_the_real_one() -> None:
    """Twisted replaces ``sys.stdout`` by the log."""
    assert stdout.STANDARD_OUTPUT == 1
