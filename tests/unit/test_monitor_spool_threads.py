"""The spool with its threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from support.deferreds import failure, success
from support.spool import SIZE, item, text_of
from support.threads import ReactorThread
from txqmp.monitor.spool import (
    Reader,
    Spool,
    SpoolError,
    SpoolLimits,
    SpoolStorageError,
    make_spool,
    store,
)


def run(reactor: ReactorThread, waiting: Deferred[Any]) -> None:
    """Let the threads have their say until a Deferred has fired."""
    while not waiting.called:
        reactor.turn()


def opened(reactor: ReactorThread, directory: Path, **options: Any) -> Spool:
    spool = make_spool(reactor, str(directory), SpoolLimits(keep_bytes=0), **options)
    starting = spool.start()
    run(reactor, starting)
    success(starting)
    return spool


def closed(reactor: ReactorThread, spool: Spool) -> None:
    closing = spool.close()
    run(reactor, closing)
    success(closing)
    assert not reactor.getDelayedCalls()


def test_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    reactor = ReactorThread()
    spool = opened(reactor, tmp_path / "spool")
    names = {each.name for each in set(threading.enumerate()) - before}
    assert names == {"spool writer", "spool reader"}
    added = spool.add_sink("sink")
    puts = [spool.put(item(str(number))) for number in range(500)]
    run(reactor, puts[-1])
    assert [success(each) for each in puts] == list(range(1, 501))
    success(added)
    # While one commit ran, all others came together.
    assert spool.counters.commits == 2
    delivered: list[str] = []
    while spool.state.sinks[0].lag:
        reading = spool.read_for("sink")
        run(reactor, reading)
        batch = success(reading)
        delivered += [text_of(each.data) for each in batch.records]
        acked = spool.ack("sink", batch.through)
        run(reactor, acked)
        success(acked)
    assert delivered == [str(number) for number in range(500)]
    last = spool.put(item())
    closed(reactor, spool)
    assert success(last) == 501
    assert spool.counters.size == 501 * SIZE
    assert set(threading.enumerate()) == before


def test_everything_is_told_in_the_reactor(tmp_path: Path) -> None:
    """And SQLite is not used there."""
    reactor = ReactorThread()
    here = threading.current_thread()
    told: list[threading.Thread] = []

    def note(result: Any) -> Any:
        told.append(threading.current_thread())
        return result

    spool = opened(reactor, tmp_path / "spool", observe=note)
    waiting = [
        spool.put(item()).addCallback(note),
        spool.when_beyond(0).addCallback(note),
        spool.ack("nobody", 0).addErrback(note).addErrback(lambda _: None),
        spool.read(0).addBoth(note),
    ]
    for each in waiting:
        run(reactor, each)
    assert len(told) >= 5
    assert set(told) == {here}
    closed(reactor, spool)


def test_what_a_thread_raises_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[SpoolError] = []
    threads: list[str] = []
    reactor = ReactorThread()
    real: Callable[..., Any] = store.read_extent

    def fail(db: Any) -> Any:
        threads.append(threading.current_thread().name)
        raise OSError(28, "No space left on device")

    spool = opened(reactor, tmp_path / "spool", failed=failures.append)
    monkeypatch.setattr(store, "read_extent", fail)
    waiting = [spool.put(item()) for _ in range(3)]
    run(reactor, waiting[-1])
    for each in waiting:
        failure(each, SpoolStorageError)
    assert len(failures) == 1
    assert threads == ["spool writer"]
    monkeypatch.setattr(store, "read_extent", real)
    closed(reactor, spool)
    with Reader(str(tmp_path / "spool")) as reader:
        assert reader.state().last == 0


def test_threads_of_one_that_cannot_be_opened(tmp_path: Path) -> None:
    before = threading.active_count()
    reactor = ReactorThread()
    spool = make_spool(reactor, os.path.join(tmp_path, "missing", "spool"))
    starting = spool.start()
    run(reactor, starting)
    failure(starting, SpoolStorageError)
    closed(reactor, spool)
    assert threading.active_count() == before
