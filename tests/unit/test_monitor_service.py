"""The daemon as a service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger
from twisted.python.usage import Options as UsageOptions

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from txqmp.fleet import GlobSource, Kind, ListenSource, Record
from txqmp.messages import Event
from txqmp.monitor.config import Config, Dial, Glob, Listen, Sink
from txqmp.monitor.demo import DemoService
from txqmp.monitor.options import Options
from txqmp.monitor.records import Entry
from txqmp.monitor.service import MonitorService, makeService
from txqmp.monitor.sinks import Counters
from txqmp.monitor.sinks.settings import JSONLSettings, StdoutSettings, WebhookSettings


class Reactor(Clock):
    """A clock that can be stopped and that is called from other threads."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


class FakeSink:
    """A sink that notes what it is told to do."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.counters = Counters()
        self.entries: list[Entry] = []
        self.problem: Exception | None = None
        self.stopping: Deferred[None] = succeed(None)
        self._diary = diary

    def start(self) -> None:
        self._diary.append(f"{self.name} starts")

    def put(self, entry: Entry) -> None:
        if self.problem is not None:
            raise self.problem
        self.entries.append(entry)

    def reopen(self) -> None:
        self._diary.append(f"{self.name} reopens")

    def stop(self) -> Deferred[None]:
        self._diary.append(f"{self.name} stops")
        return self.stopping


class Child(Service):
    """A part that notes what it is told to do."""

    def __init__(self, diary: list[str]) -> None:
        self._diary = diary
        self.stopping: Deferred[None] = succeed(None)

    def startService(self) -> None:
        self._diary.append("child starts")

    def stopService(self) -> Deferred[None]:
        self._diary.append("child stops")
        return self.stopping


CONFIG = Config(sources=(Dial(where="/nowhere/a.sock", name="a"),))
EVENT = Record(
    vm="a", seq=1, session=1, received=0.0, kind=Kind.EVENT, event=Event.make("STOP", at=1)
)


class World:
    """A service with sinks and a child that are watched."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.diary: list[str] = []
        self.service = MonitorService(self.reactor, CONFIG)
        self.sinks = [FakeSink(name, self.diary) for name in ("first", "second")]
        self.service.sinks = tuple(self.sinks)
        self.child = Child(self.diary)
        self.child.setServiceParent(self.service)
        self.started = False

    def start(self) -> None:
        self.started = True
        self.service.startService()

    def stop(self) -> Deferred[None]:
        self.started = False
        return self.service.stopService()


@pytest.fixture
def world() -> Iterator[World]:
    before = signal.getsignal(signal.SIGHUP)
    world = World()
    yield world
    if world.started:
        success(world.stop())
    assert world.reactor.getDelayedCalls() == []
    assert signal.getsignal(signal.SIGHUP) is before


def test_sinks_start_first_and_stop_last(world: World) -> None:
    world.start()
    success(world.stop())
    assert world.diary == [
        "first starts",
        "second starts",
        "child starts",
        "child stops",
        "first stops",
        "second stops",
    ]


def test_sinks_wait_for_the_last_words(world: World) -> None:
    world.start()
    world.child.stopping = Deferred()
    world.sinks[0].stopping = Deferred()
    stopped = world.stop()
    assert "first stops" not in world.diary
    world.child.stopping.callback(None)
    assert world.diary[-2:] == ["first stops", "second stops"]
    pending(stopped)
    world.sinks[0].stopping.callback(None)
    success(stopped)


def test_what_fails_to_stop_holds_up_nobody(world: World, logged_errors: LoggedErrors) -> None:
    world.start()
    world.child.stopping = fail(ValueError("child"))
    world.sinks[0].stopping = fail(ValueError("sink"))
    success(world.stop())
    assert world.diary[-1] == "second stops"
    assert len(logged_errors.flush(ValueError)) == 2


def test_every_sink_gets_every_record(world: World) -> None:
    world.service._tell(EVENT)
    for sink in world.sinks:
        (entry,) = sink.entries
        assert json.loads(entry.text)["event"] == "STOP"


def test_a_sink_that_raises_hurts_no_other(world: World, logged_errors: LoggedErrors) -> None:
    world.sinks[0].problem = RuntimeError("I cannot")
    world.service._tell(EVENT)
    assert len(world.sinks[1].entries) == 1
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_hangup_reopens(world: World) -> None:
    world.start()
    world.diary.clear()
    os.kill(os.getpid(), signal.SIGHUP)
    assert world.diary == ["first reopens", "second reopens"]


def test_hangup_elsewhere_than_in_the_main_thread(world: World) -> None:
    thread = threading.Thread(target=world.start)
    thread.start()
    thread.join()
    assert world.diary[0] == "first starts"


def test_the_last_reader_gone_is_the_end(world: World) -> None:
    world.start()
    world.service._stdout_closed()
    assert world.reactor.stopped == 0
    world.service.sinks = (world.sinks[0],)
    world.service._stdout_closed()
    assert world.reactor.stopped == 1
    success(world.stop())
    world.service._stdout_closed()
    assert world.reactor.stopped == 1


def test_what_is_watched(tmp_path: Path) -> None:
    config = Config(
        sources=(
            Glob(patterns=("/nowhere/*.sock",)),
            Dial(where="/nowhere/a.sock", name="a"),
            Dial(where="/nowhere/b.sock", name="b"),
            Listen(where="/nowhere/in.sock"),
        ),
        events=("STOP",),
        sinks=(
            Sink(settings=StdoutSettings()),
            Sink(settings=JSONLSettings(path=str(tmp_path / "x"))),
            Sink(settings=WebhookSettings(url="http://host.example/", allow_plaintext=True)),
        ),
        demo=True,
    )
    service = MonitorService(Clock(), config)
    assert [vm.name for vm in service.fleet.vms] == ["a", "b"]
    assert service.fleet.events == ("STOP",)
    assert [sink.name for sink in service.sinks] == [
        "stdout",
        f"jsonl {tmp_path}/x",
        "webhook http://host.example/",
    ]
    # What is listened on comes before what may find it, the VM of the demonstration ends last.
    sources = [type(each) for each in service.fleet]
    assert sources.index(ListenSource) < sources.index(GlobSource)
    assert [type(each) for each in service][-1] is DemoService


class Runner(UsageOptions):
    """The options of ``twistd`` or ``twist``, as far as they matter."""

    def __init__(self, **members: object) -> None:
        super().__init__()
        self.update(members)


def make(runner: UsageOptions | None, *words: str) -> MonitorService:
    options = Options()
    options.parent = runner
    options.parseOptions(["/nowhere/a.sock", *words])
    return makeService(options, Clock())


def twistd(**members: object) -> Runner:
    return Runner(**{"nodaemon": 1, "debug": False, "logfile": None, "logger": None, **members})


def observer_of(service: MonitorService) -> Any:
    application = Application("qmp-monitor")
    service.setServiceParent(application)
    return application.getComponent(ILogObserver, None)


@pytest.mark.parametrize("place", [None, "", "/dev/stderr", "/dev/fd/2"])
def test_log_goes_to_the_standard_error(
    capsys: pytest.CaptureFixture[str], place: str | None
) -> None:
    observer = observer_of(make(twistd(logfile=place)))
    assert observer is not None
    Logger(observer=observer).info("one thing")
    captured = capsys.readouterr()
    assert "one thing" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "runner",
    [
        None,
        Runner(),
        twistd(logfile="-"),
        twistd(logfile="/var/log/qmp.log"),
        twistd(syslog=True),
        twistd(logger=print),
    ],
)
def test_log_goes_where_it_was_sent(runner: UsageOptions | None) -> None:
    assert observer_of(make(runner)) is None


def test_log_stays_where_nothing_is_printed(tmp_path: Path) -> None:
    assert observer_of(make(twistd(), "-q", "--jsonl", str(tmp_path / "x"))) is None


def test_log_of_twist() -> None:
    runner = Runner(logFile=sys.stdout)
    assert observer_of(make(runner)) is None
    assert runner["logFile"] is sys.stderr
    file = object()
    runner = Runner(logFile=file)
    make(runner)
    assert runner["logFile"] is file


def test_the_reactor_is_imported_where_none_is_given() -> None:
    options = Options()
    options.parseOptions(["/nowhere/a.sock"])
    service = makeService(options)
    assert isinstance(service, MonitorService)


CODE = """
import sys
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
names = [plugin.tapname for plugin in getPlugins(IServiceMaker)]
assert "qmp-monitor" in names, names
for module in ("twisted.internet.reactor", "treq", "txqmp"):
    assert module not in sys.modules, module
(plugin,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "qmp-monitor"]
plugin.options()
plugin.makeService
for module in ("twisted.internet.reactor", "treq", "twisted.web.client"):
    assert module not in sys.modules, module
"""


def test_listing_plugins_imports_next_to_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
