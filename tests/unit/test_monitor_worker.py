"""The thread for what blocks."""

from __future__ import annotations

import threading

from support.deferreds import failure, pending, success
from support.threads import ReactorThread
from txqmp.monitor.worker import Worker


def test_runs_one_after_another_elsewhere() -> None:
    reactor = ReactorThread()
    worker = Worker(reactor, "name")
    first = worker.run(threading.current_thread)
    second = worker.run(threading.current_thread)
    pending(first)
    reactor.turn()
    pending(second)
    reactor.turn()
    thread = success(first)
    assert thread is success(second)
    assert thread is not threading.current_thread()
    assert (thread.name, thread.daemon) == ("name", True)
    worker.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_what_is_raised() -> None:
    reactor = ReactorThread()
    worker = Worker(reactor, "name")
    failed = worker.run(int, "seven")
    after = worker.run(int, "8")
    reactor.turn()
    reactor.turn()
    failure(failed, ValueError)
    assert success(after) == 8
    worker.stop()


def test_stops_after_what_was_asked_for() -> None:
    reactor = ReactorThread()
    worker = Worker(reactor, "name")
    gate = threading.Event()
    waiting = worker.run(gate.wait)
    last = worker.run(threading.current_thread)
    worker.stop()
    gate.set()
    reactor.turn()
    reactor.turn()
    success(waiting)
    success(last).join(20)


def test_is_waited_for() -> None:
    reactor = ReactorThread()
    worker = Worker(reactor, "name")
    running = worker.run(threading.current_thread)
    reactor.turn()
    thread = success(running)
    worker.stop()
    worker.join()
    assert not thread.is_alive()


def test_no_thread_before_there_is_work() -> None:
    before = threading.active_count()
    worker = Worker(ReactorThread(), "name")
    worker.stop()
    worker.join()
    assert threading.active_count() == before
