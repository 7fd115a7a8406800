"""The suite's leak check: what a test leaves behind fails that test.

pytest-twisted has none of trial's checks. This pytest plugin fails a test, when everything of the
test has been torn down, for

* an unhandled error in a Deferred;
* a logged failure, a logged event of level critical, or one whose format does not fit its fields;
* a delayed call left in the reactor;
* a port, connection, process or other reader or writer left in the reactor;
* a file descriptor left open (where there is a ``/proc``).

A test that expects logged errors takes them with the fixture ``logged_errors``. What ends within a
few turns of the reactor, as the far end of a closed connection does, is not a leak.

The garbage collector runs after every test, because an unhandled error shows when its Deferred is
collected. It costs little: what was there before the first test is frozen, and not looked at again.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, eventAsText, formatEvent, globalLogBeginner
from twisted.trial.unittest import SynchronousTestCase


#: Turns of the reactor for closed things to go away in.
TURNS = 10

#: Further waits for the kernel, and how long each is, in seconds; not for delayed calls.
WAITS, WAIT = 5, 0.01

#: After so many tests, what has become long-lived is frozen too.
FREEZE_EVERY = 100

_DESCRIPTORS = "/proc/self/fd"

#: Twisted logs an unhandled error as two events: this, and one with the failure.
_HEADING = "Unhandled error in Deferred:"


class LogCollector:
    """A log observer which keeps the errors, and the last events' text for a failed test."""

    def __init__(self) -> None:
        self.errors: list[LogEvent] = []
        self.text: deque[str] = deque(maxlen=200)

    def __call__(self, event: LogEvent) -> None:
        self.text.append(eventAsText(event, includeTimestamp=False))
        if _is_error(event):
            self.errors.append(event)

    def take(self) -> list[LogEvent]:
        """Return the errors and forget them."""
        errors, self.errors = self.errors, []
        return errors


class LoggedErrors:
    """Takes the errors that a test expects to be logged."""

    def __init__(self, collector: LogCollector) -> None:
        self._collector = collector

    def flush(self, *types: type[BaseException]) -> list[LogEvent]:
        """Return the error events logged so far, and forget them.

        Unhandled errors in Deferreds are among them, if nothing holds the Deferred any more.

        :param types: take only events with a failure of one of these types; none given means all.
        """
        gc.collect()
        errors = self._collector.take()
        if not types:
            return errors
        taken = [event for event in errors if _is_of(event, types)]
        self._collector.errors = [event for event in errors if not _is_of(event, types)]
        return taken


def _is_error(event: LogEvent) -> bool:
    if "log_failure" in event:
        return True
    if event.get("log_level") is LogLevel.critical:
        return event.get("log_format") != _HEADING
    return formatEvent(event).startswith("Unable to format event")


def _describe(event: LogEvent) -> str:
    heading = _HEADING if event.get("log_namespace") == "twisted.internet.defer" else "logged:"
    return f"{heading}\n{eventAsText(event, includeTimestamp=False)}"


def _is_of(event: LogEvent, types: tuple[type[BaseException], ...]) -> bool:
    failure = event.get("log_failure")
    return failure is not None and failure.check(*types) is not None


@dataclass
class State:
    """What the process has open at one moment."""

    calls: list[Any]
    selectables: list[Any]
    descriptors: set[tuple[int, int, int]]

    @classmethod
    def now(cls, reactor: Any) -> State:
        selectables = {id(each): each for each in [*reactor.getReaders(), *reactor.getWriters()]}
        return cls(
            calls=list(reactor.getDelayedCalls()),
            selectables=list(selectables.values()),
            descriptors=open_descriptors(),
        )

    def since(self, before: State) -> State:
        """Return what is here and was not there before."""
        calls = set(map(id, before.calls))
        selectables = set(map(id, before.selectables))
        return State(
            calls=[each for each in self.calls if id(each) not in calls],
            selectables=[each for each in self.selectables if id(each) not in selectables],
            descriptors=self.descriptors - before.descriptors,
        )

    def __bool__(self) -> bool:
        return bool(self.calls or self.selectables or self.descriptors)

    def describe(self) -> Iterator[str]:
        for call in self.calls:
            yield f"a delayed call was left in the reactor: {call}"
        named = set()
        for each in self.selectables:
            named.add(each.fileno())
            yield f"{_kind(each)} was left in the reactor: {each!r}"
        for number, _, _ in sorted(self.descriptors):
            if number not in named:
                yield f"a file descriptor was left open: {number} -> {_target(number)}"


def open_descriptors() -> set[tuple[int, int, int]]:
    """Return number, device and inode of every open file descriptor; none without a ``/proc``."""
    found = set()
    try:
        names = os.listdir(_DESCRIPTORS)
    except OSError:
        return found
    for name in names:
        number = int(name)
        try:
            status = os.fstat(number)
        except OSError:  # the listing's own
            continue
        found.add((number, status.st_dev, status.st_ino))
    return found


def _target(number: int) -> str:
    try:
        return os.readlink(f"{_DESCRIPTORS}/{number}")
    except OSError:
        return "closed since"


def _kind(selectable: Any) -> str:
    if hasattr(selectable, "stopListening"):
        return "an open port"
    if hasattr(selectable, "abortConnection"):
        return "an open connection"
    return "a reader or writer"


@dataclass
class LeakCheck:
    """The state of the check over one run."""

    collector: LogCollector = field(default_factory=LogCollector)
    last: str = "collection"
    failed: bool = False
    tests: int = 0

    def between_tests(self, reactor: Any) -> list[str]:
        """Return what was logged since the last test's own check.

        After a failed test it is forgotten: its traceback kept alive what is collected only now.
        """
        if self.failed:
            for name in ("last_exc", "last_type", "last_value", "last_traceback"):
                vars(sys).pop(name, None)
            _turn(reactor)
            gc.collect()
            self.collector.take()
        self.failed = False
        return [
            f"after the end of {self.last}: {_describe(event)}" for event in self.collector.take()
        ]

    def freeze(self) -> None:
        """Take everything that lives now out of the garbage collector's sight."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()


_CHECK = pytest.StashKey[LeakCheck]()


def pytest_configure(config: pytest.Config) -> None:
    check = config.stash[_CHECK] = LeakCheck()
    # Without this Twisted would keep every event, and with it whatever a failure's traceback holds.
    globalLogBeginner.beginLoggingTo(
        [check.collector], discardBuffer=True, redirectStandardIO=False
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_CHECK].freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        check = item.config.stash[_CHECK]
        check.failed = True
        if check.collector.text:
            report.sections.append((f"Twisted log, {call.when}", "\n".join(check.collector.text)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    from twisted.internet import reactor

    check = session.config.stash[_CHECK]
    gc.unfreeze()
    gc.collect()
    late = check.between_tests(reactor) if check.tests else []
    if late:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write("\n".join(["", *late, ""]))
    return (yield)


@pytest.fixture(scope="session")
def _started_reactor() -> Any:
    """The reactor, after its first turn: then its own readers are in place."""
    from twisted.internet import reactor

    _turn(reactor)
    return reactor


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, _started_reactor: Any) -> Iterator[LeakCheck]:
    """Fail the test that leaves something behind."""
    reactor = _started_reactor
    check = request.config.stash[_CHECK]
    late = check.between_tests(reactor)
    check.collector.text.clear()
    if late:
        pytest.fail("\n".join(late), pytrace=False)
    before = State.now(reactor)

    yield check

    check.last = request.node.nodeid
    check.tests += 1
    # pytest keeps the fixtures' values a little longer, and with them any Deferred that they hold.
    if request.node.funcargs:  # there are none any more if the run was interrupted
        request.node.funcargs.clear()
    # And so do the frames which pytest-twisted has left in the reactor's greenlet.
    _turn(reactor)
    if check.tests % FREEZE_EVERY:
        gc.collect()
    else:
        check.freeze()
    left = _settled(reactor, before)
    problems = list(left.describe())
    if left:
        _clean_up(reactor, left)
    errors = check.collector.take()
    if not _has_own_check(request.cls):
        problems[:0] = map(_describe, errors)
    if problems:
        pytest.fail("\n".join(["the test left something behind", *problems]), pytrace=False)


@pytest.fixture
def logged_errors(leak_check: LeakCheck) -> LoggedErrors:
    """Take the errors that the test expects to be logged; any that it leaves fail it."""
    return LoggedErrors(leak_check.collector)


def _turn(reactor: Any, seconds: float = 0) -> None:
    """Let the reactor take a turn."""
    pytest_twisted.blockon(deferLater(reactor, seconds))


def _has_own_check(cls: type | None) -> bool:
    """Whether the test is one of trial's, which looks for logged errors itself."""
    return cls is not None and issubclass(cls, SynchronousTestCase)


def _settled(reactor: Any, before: State) -> State:
    """Return what the test left, after things that are just closing had time to go."""

    def left() -> State:
        return State.now(reactor).since(before)

    state = left()
    for _ in range(TURNS):
        if not state:
            return state
        _turn(reactor)
        gc.collect()
        state = left()
    for _ in range(WAITS):
        if not state or state.calls:
            break
        _turn(reactor, WAIT)
        state = left()
    return state


def _clean_up(reactor: Any, left: State) -> None:
    """Put the reactor back in order for the next test."""
    for call in left.calls:
        if call.active():
            call.cancel()
    for each in left.selectables:
        close: Callable[[], Any] = getattr(each, "stopListening", None) or getattr(
            each, "abortConnection", lambda: None
        )
        close()
    for _ in range(TURNS):
        _turn(reactor)
    for each in left.selectables:
        reactor.removeReader(each)
        reactor.removeWriter(each)
