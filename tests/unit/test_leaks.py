"""The suite's own checks: each kind of leak fails its test, and what is no leak does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest


#: The samples' tests wait for their time limits, and pytest starts anew for them.
pytestmark = pytest.mark.timeout(180)

TESTS = Path(__file__).resolve().parents[1]

INI = f"""\
[pytest]
addopts = --import-mode=importlib --reactor=default -p no:cacheprovider
pythonpath = {TESTS}
timeout = 20
faulthandler_timeout = 60
faulthandler_exit_on_timeout = true
"""

CONFTEST = 'pytest_plugins = ["support.leaks", "support.limits"]\n'

SAMPLE = '''
import gc
import os
import socket

import pytest
import pytest_twisted
from hypothesis import given, strategies
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial import unittest

log = Logger()
kept = []


class Broken(Exception):
    pass


def reactor():
    from twisted.internet import reactor

    return reactor


class Gone(Protocol):
    def __init__(self):
        self.gone = Deferred()

    def connectionLost(self, reason):
        self.gone.callback(None)


# Leaks

def test_unhandled_error():
    fail(Broken("nobody looked"))


def test_unhandled_error_in_a_cycle():
    deferred = fail(Broken("nobody looked"))
    deferred.itself = deferred


class Holder:
    pass


@pytest.fixture
def holder():
    return Holder()


def test_unhandled_error_held_by_a_fixture(holder):
    holder.deferred = fail(Broken("nobody looked"))


@pytest_twisted.ensureDeferred
async def test_unhandled_error_after_an_await():
    fail(Broken("nobody looked"))
    await deferLater(reactor(), 0)


def test_logged_failure():
    try:
        raise Broken("logged")
    except Broken:
        log.failure("it broke")


def test_logged_critical():
    log.critical("it is critical")


def test_log_format():
    log.info("{nothing.there}", nothing=None)


def test_delayed_call():
    reactor().callLater(3600, print)


@pytest_twisted.ensureDeferred
async def test_delayed_call_after_an_await():
    reactor().callLater(3600, print)
    await deferLater(reactor(), 0)


@pytest_twisted.ensureDeferred
async def test_open_port(tmp_path):
    await UNIXServerEndpoint(reactor(), str(tmp_path / "s")).listen(Factory.forProtocol(Gone))


@pytest_twisted.ensureDeferred
async def test_open_connection(tmp_path):
    factory = Factory.forProtocol(Gone)
    port = await UNIXServerEndpoint(reactor(), str(tmp_path / "s")).listen(factory)
    await UNIXClientEndpoint(reactor(), str(tmp_path / "s")).connect(factory)
    await deferLater(reactor(), 0)
    await port.stopListening()


def test_open_descriptor():
    kept.append(os.open("/dev/null", os.O_RDONLY))


def test_open_socket():
    kept.append(socket.socketpair())


@pytest_twisted.ensureDeferred
async def test_hidden_paused_connection(tmp_path):
    factory = Factory.forProtocol(Gone)
    port = await UNIXServerEndpoint(reactor(), str(tmp_path / "s")).listen(factory)
    client = await UNIXClientEndpoint(reactor(), str(tmp_path / "s")).connect(factory)
    await port.stopListening()
    client.transport.pauseProducing()
    kept.append(client)


class TestUnit:
    def test_in_a_class(self):
        reactor().callLater(3600, print)


# No leaks

def test_clean():
    pass


def test_clean_cycle():
    cycle = []
    cycle.append(cycle)


def test_handled_error():
    fail(Broken()).addErrback(lambda failure: None)


def test_closed_descriptor():
    os.close(os.open("/dev/null", os.O_RDONLY))


def test_due_delayed_call():
    reactor().callLater(0, lambda: reactor().callLater(0, int))


@pytest_twisted.ensureDeferred
async def test_closing_connection(tmp_path):
    factory = Factory.forProtocol(Gone)
    port = await UNIXServerEndpoint(reactor(), str(tmp_path / "s")).listen(factory)
    client = await UNIXClientEndpoint(reactor(), str(tmp_path / "s")).connect(factory)
    client.transport.loseConnection()
    port.stopListening()


@pytest_twisted.async_yield_fixture
async def connection(tmp_path):
    factory = Factory.forProtocol(Gone)
    port = await UNIXServerEndpoint(reactor(), str(tmp_path / "s")).listen(factory)
    client = await UNIXClientEndpoint(reactor(), str(tmp_path / "s")).connect(factory)
    yield client
    client.transport.loseConnection()
    await client.gone
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_async_fixture(connection):
    assert connection.connected


def test_flushed(logged_errors):
    fail(Broken("expected"))
    log.critical("expected too")
    (event,) = logged_errors.flush(Broken)
    assert event["log_failure"].check(Broken)
    (event,) = logged_errors.flush()
    assert event["log_format"] == "expected too"
    assert logged_errors.flush() == []


class TestTrial(unittest.TestCase):
    def test_trial_flushes_its_own(self):
        log.failure("expected", Failure(Broken()))
        assert len(self.flushLoggedErrors(Broken)) == 1


@pytest.fixture(scope="module")
def module_timer():
    call = reactor().callLater(3600, print)
    kept.append(os.open("/dev/null", os.O_RDONLY))
    yield
    call.cancel()


def test_module_fixture(module_timer):
    pass


# Leaks beside other things

def test_flushed_too_little(logged_errors):
    log.critical("not this one")
    assert logged_errors.flush(Broken) == []


def test_failing():
    kept_by_the_traceback = fail(Broken("nobody looked"))
    log.info("what the log said")
    raise AssertionError("failing")


def test_after_a_failing_one():
    gc.collect()


# The time limit

async def inner_part():
    await Deferred()  # here it waits


@pytest.mark.timeout(0.5)
@pytest_twisted.ensureDeferred
async def test_never_fires():
    await inner_part()


@pytest.mark.timeout(0.5)
@pytest_twisted.inlineCallbacks
def test_never_fires_inline():
    yield Deferred()


@pytest.mark.timeout(0.5)
def test_never_fires_returned():
    return Deferred()


@pytest.mark.timeout(0.5)
@pytest_twisted.ensureDeferred
async def test_never_fires_stubborn():
    while True:
        try:
            await Deferred()
        except Exception:
            pass


@pytest_twisted.async_fixture
async def stuck():
    await Deferred()


@pytest.mark.timeout(0.5)
def test_stuck_fixture(stuck):
    pass


@pytest_twisted.async_yield_fixture
async def stuck_at_the_end():
    yield
    await Deferred()


@pytest.mark.timeout(0.5)
def test_stuck_fixture_at_the_end(stuck_at_the_end):
    pass


@pytest.mark.timeout(0.5)
def test_loops():
    while True:
        pass


@pytest.mark.parametrize("parameter", [1, 2])
@given(number=strategies.integers())
def test_property(parameter, number):
    assert parameter in (1, 2)


@pytest_twisted.ensureDeferred
async def test_after_all_that():
    await deferLater(reactor(), 0)
'''


class Outcomes:
    """What a pytest run said of each test."""

    def __init__(self, report: Path, output: str, status: int) -> None:
        self.output = output
        self.status = status
        self._cases: dict[str, list[ET.Element]] = {}
        for case in ET.parse(report).iter("testcase"):
            self._cases.setdefault(case.attrib["name"], []).append(case)

    def of(self, name: str) -> tuple[str, str]:
        """Return "passed", "failed" or "error" for the test, and the text that goes with it."""
        words = set()
        text = ""
        assert name in self._cases, f"{name} has not run:\n{self.output}"
        for case in self._cases[name]:
            for child in case:
                if child.tag in ("failure", "error"):
                    words.add({"failure": "failed"}.get(child.tag, child.tag))
                    text += child.attrib.get("message", "") + (child.text or "")
        return (" ".join(sorted(words)) or "passed"), text


def run(directory: Path, sample: str) -> Outcomes:
    (directory / "pytest.ini").write_text(INI)
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_sample.py").write_text(textwrap.dedent(sample))
    report = directory / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junitxml={report}", "--rootdir=."],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    assert report.exists(), done.stdout
    return Outcomes(report, done.stdout, done.returncode)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run(tmp_path_factory.mktemp("sample"), SAMPLE)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_unhandled_error", "nobody looked"),
        ("test_unhandled_error_in_a_cycle", "nobody looked"),
        ("test_unhandled_error_held_by_a_fixture", "nobody looked"),
        ("test_unhandled_error_after_an_await", "nobody looked"),
        ("test_logged_failure", "it broke"),
        ("test_logged_critical", "it is critical"),
        ("test_log_format", "Unable to format event"),
        ("test_delayed_call", "a delayed call was left in the reactor"),
        ("test_delayed_call_after_an_await", "a delayed call was left in the reactor"),
        ("test_open_port", "an open port was left in the reactor"),
        ("test_open_connection", "an open connection was left in the reactor"),
        ("test_open_descriptor", "/dev/null"),
        ("test_open_socket", "-> socket:"),
        ("test_hidden_paused_connection", "-> socket:"),
        ("test_in_a_class", "a delayed call was left in the reactor"),
        ("test_flushed_too_little", "not this one"),
    ],
)
def test_leak_is_an_error(outcomes: Outcomes, name: str, said: str) -> None:
    outcome, text = outcomes.of(name)
    assert outcome == "error"
    assert said in text


@pytest.mark.parametrize(
    "name",
    [
        "test_clean",
        "test_clean_cycle",
        "test_handled_error",
        "test_closed_descriptor",
        "test_due_delayed_call",
        "test_closing_connection",
        "test_module_fixture",
        "test_async_fixture",
        "test_flushed",
        "test_trial_flushes_its_own",
    ],
)
def test_clean_test_passes(outcomes: Outcomes, name: str) -> None:
    assert outcomes.of(name) == ("passed", "")


def test_failing_test_shows_the_log(outcomes: Outcomes) -> None:
    outcome, _ = outcomes.of("test_failing")
    assert "failed" in outcome
    assert "what the log said" in outcomes.output


def test_failing_test_does_not_spoil_the_next(outcomes: Outcomes) -> None:
    assert outcomes.of("test_after_a_failing_one") == ("passed", "")


@pytest.mark.parametrize(
    ("name", "outcome", "said"),
    [
        ("test_never_fires", "failed", "here it waits"),
        ("test_never_fires_inline", "failed", "the test was still waiting"),
        ("test_never_fires_returned", "failed", "the test was still waiting"),
        ("test_never_fires_stubborn", "failed", "the test was still waiting"),
        ("test_stuck_fixture", "error", "the fixture stuck was"),
        ("test_stuck_fixture_at_the_end", "error", "the fixture stuck_at_the_end"),
        ("test_loops", "failed", "Timeout"),
    ],
)
def test_time_limit(outcomes: Outcomes, name: str, outcome: str, said: str) -> None:
    assert outcome in outcomes.of(name)[0]
    assert said in outcomes.of(name)[1]


@pytest.mark.parametrize("name", ["test_property[1]", "test_property[2]", "test_after_all_that"])
def test_run_goes_on_after_the_time_limit(outcomes: Outcomes, name: str) -> None:
    assert outcomes.of(name) == ("passed", "")


def test_error_after_the_last_test_fails_the_run(tmp_path: Path) -> None:
    outcomes = run(
        tmp_path,
        """
        import pytest
        from twisted.logger import Logger

        @pytest.fixture(scope="session")
        def late():
            yield
            Logger().critical("too late")

        def test_it(late):
            pass
        """,
    )
    assert outcomes.of("test_it") == ("passed", "")
    assert "after the end of test_sample.py::test_it" in outcomes.output
    assert outcomes.status == 1
