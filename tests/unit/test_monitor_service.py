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

import attrs
import pytest
from twisted.application.service import Application, Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, formatEvent, globalLogPublisher
from twisted.python.usage import Options as UsageOptions

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from support.pump import Receiver
from support.spool import Turns
from txqmp.errors import ConnectError
from txqmp.fleet import Fleet, GlobSource, Kind, ListenSource, Record
from txqmp.messages import Event
from txqmp.monitor import outlets, service
from txqmp.monitor.config import Config, Dial, Glob, Listen, Sink
from txqmp.monitor.demo import DemoService
from txqmp.monitor.options import Options
from txqmp.monitor.pump import GRACE
from txqmp.monitor.service import LOADING, MonitorService, makeService
from txqmp.monitor.sinks.delivery import GoneError, UnavailableError
from txqmp.monitor.sinks.settings import JSONLSettings, StdoutSettings
from txqmp.monitor.spool import Spool, SpoolStorageError, StorageFailure


class Reactor(Clock):
    """A clock that can be stopped and that is called from other threads."""

    def __init__(self) -> None:
        super().__init__()
        self.advance(1_800_000_000)
        self.stopped = 0
        self.stopping = False

    def stop(self) -> None:
        if self.stopping:
            raise ReactorNotRunning("it is stopping")
        self.stopped += 1

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


class Port:
    """Something that is listened on."""

    def getHost(self) -> UNIXAddress:
        return UNIXAddress("/http.sock")

    def stopListening(self) -> None:
        """Nothing."""


class Child(Service):
    """A part that notes what it is told to do."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.stopping: Deferred[None] = succeed(None)

    def startService(self) -> None:
        self.diary.append("starts")

    def stopService(self) -> Deferred[None]:
        self.diary.append("stops")
        return self.stopping


def event(name: str = "STOP", seq: int = 1) -> Record:
    return Record(
        vm="a", seq=seq, session=1, received=1.8e9, kind=Kind.EVENT, event=Event.make(name, at=1)
    )


class World:
    """Services, their spools without threads, and receivers that do what a test says.

    :ivar receivers: of the sinks, by what they were made of.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.reactor = Reactor()
        self.writer = Turns()
        self.receivers: dict[Any, Receiver] = {}
        self.services: list[MonitorService] = []
        monkeypatch.setattr(service, "make_spool", self._make_spool)
        self.loader = Turns()
        monkeypatch.setattr(service, "Worker", lambda *_: self.loader)
        monkeypatch.setattr(outlets, "make_delivery", self._make_delivery)

    def _make_spool(self, reactor: Any, directory: str, limits: Any, **options: Any) -> Spool:
        return Spool(reactor, directory, self.writer, Turns(), limits, **options)

    def _make_delivery(self, reactor: Any, settings: Any) -> Receiver:
        self.receivers[settings] = receiver = Receiver()
        return receiver

    def sink(self, name: str, path: str = "") -> Sink:
        return Sink(settings=JSONLSettings(path=str(self.directory / (path or name))), name=name)

    def make(self, *sinks: Sink, **members: Any) -> MonitorService:
        config = Config(
            **{
                "state_dir": str(self.directory),
                "sources": (Dial(where="/nowhere/a.sock", name="a"),),
                "sinks": sinks or (self.sink("first"), self.sink("second")),
                **members,
            }
        )
        made = MonitorService(self.reactor, config)
        self.services.append(made)
        return made

    def begin(self, *sinks: Sink, **members: Any) -> MonitorService:
        made = self.make(*sinks, **members)
        made.privilegedStartService()
        made.startService()
        return made

    def stop(self, made: MonitorService) -> Deferred[None]:
        self.services.remove(made)
        return made.stopService()

    def told(self, number: int = 0) -> list[str]:
        """What a receiver has got, by the events' types."""
        return [event.type for event in list(self.receivers.values())[number].taken]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    before = signal.getsignal(signal.SIGHUP)
    world = World(tmp_path, monkeypatch)
    yield world
    for made in list(world.services):
        success(world.stop(made))
    assert world.reactor.getDelayedCalls() == []
    assert signal.getsignal(signal.SIGHUP) is before


# The way of the data


def test_every_sink_gets_every_record(world: World) -> None:
    made = world.begin()
    made.recorder.take(event())
    assert len(world.receivers) == 2
    for receiver in world.receivers.values():
        (told,) = receiver.taken
        assert json.loads(told.text)["data"]["event"] == "STOP"
    assert made.status.status().sinks[0].sent == 1


def test_what_was_told_before_the_spool_was_open_is_not_missed(world: World) -> None:
    world.writer.hold()
    made = world.begin()
    made.recorder.take(event())
    assert world.told() == []
    assert made.status.readiness().missing == ("the spool cannot be written",)
    world.writer.release()
    assert world.told() == ["org.qemu.qmp.STOP"]
    assert not made.status.readiness().missing


def test_the_last_words_are_delivered(world: World) -> None:
    made = world.begin()
    child = Child()
    child.setServiceParent(made)
    child.stopping = Deferred()
    stopped = world.stop(made)
    pending(stopped)
    made.recorder.take(event("SHUTDOWN"))
    child.stopping.callback(None)
    success(stopped)
    assert world.told(0) == world.told(1) == ["org.qemu.qmp.SHUTDOWN"]
    assert child.diary == ["starts", "stops"]


def test_a_disk_that_hangs_holds_up_the_end_for_a_while_only(world: World) -> None:
    made = world.begin()
    world.writer.hold()
    made.recorder.take(event())
    stopped = world.stop(made)
    world.reactor.advance(GRACE)
    pending(stopped)
    world.reactor.advance(GRACE)
    success(stopped)
    world.writer.release()


def test_a_disk_that_hangs_while_it_is_acknowledged(world: World) -> None:
    made = world.begin()
    waiting: Deferred[None] = Deferred()
    receiver = next(iter(world.receivers.values()))
    receiver.outcomes = [waiting]
    made.recorder.take(event())
    world.writer.hold()
    waiting.callback(None)
    assert len(receiver.taken) == 1
    stopped = world.stop(made)
    for _ in range(4):
        world.reactor.advance(GRACE)
    success(stopped)
    world.writer.release()


def test_what_fails_to_stop_holds_up_nobody(world: World, logged_errors: LoggedErrors) -> None:
    made = world.begin()
    child = Child()
    child.setServiceParent(made)
    child.stopping = fail(ValueError("child"))
    success(world.stop(made))
    assert all(receiver.calls[-1] == "stop" for receiver in world.receivers.values())
    assert len(logged_errors.flush(ValueError)) == 1


def test_numbers_go_on_where_they_were(world: World) -> None:
    made = world.begin()
    made.recorder.take(event(seq=7))
    success(world.stop(made))
    again = world.begin()
    (vm,) = again.fleet.vms
    assert (vm.session, vm.seq) == (1, 7)


def test_a_sink_goes_on_where_it_was(world: World) -> None:
    made = world.begin(world.sink("ops", "before"))
    made.recorder.take(event())
    success(world.stop(made))
    again = world.begin(world.sink("ops", "after"))
    again.recorder.take(event("RESUME"))
    assert world.told(1) == ["org.qemu.qmp.RESUME"]


def test_without_a_state_directory_nothing_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(world.directory))
    made = world.begin(state_dir=None)
    assert [each.name[:12] for each in world.directory.iterdir()] == ["qmp-monitor-"]
    made.recorder.take(event())
    success(world.stop(made))
    assert world.told() == ["org.qemu.qmp.STOP"]
    assert list(world.directory.iterdir()) == []


def test_the_state_directory_is_made(world: World) -> None:
    directory = world.directory / "state"
    world.begin(state_dir=str(directory))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "spool" / "spool.db").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_not_delivered_at_the_end_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(world.directory))
    made = world.begin(**({} if kept else {"state_dir": None}))
    first, _ = world.receivers.values()
    first.outcomes = [UnavailableError("it is full")] * 2
    made.recorder.take(event())
    told: list[Any] = []
    globalLogPublisher.addObserver(told.append)
    try:
        success(world.stop(made))
    finally:
        globalLogPublisher.removeObserver(told.append)
    fate = "yet" if kept else "and are lost: no state directory was given"
    said = [formatEvent(each) for each in told if "were not delivered" in formatEvent(each)]
    assert said == [f"first: 1 events were not delivered {fate}"]


# What goes wrong


def test_a_spool_that_cannot_be_opened_is_the_end(
    world: World, logged_errors: LoggedErrors
) -> None:
    first = world.begin()
    codes: list[int] = []
    second = world.make()
    second.failed = codes.append
    second.startService()
    assert world.reactor.stopped == 1
    assert second.exit_code == 1
    assert codes == [1]
    (told,) = logged_errors.flush()
    assert "holds the spool" in str(told["problem"])
    success(world.stop(second))
    assert first.exit_code == 0


def test_a_spool_that_fails_is_the_end(world: World, logged_errors: LoggedErrors) -> None:
    made = world.begin()
    assert made.spool.problem is None
    made._spool_failed(SpoolStorageError("no disk", StorageFailure.IO))
    assert world.reactor.stopped == 1
    assert made.exit_code == 1
    assert len(logged_errors.flush()) == 1


def test_it_ends_once(world: World, logged_errors: LoggedErrors) -> None:
    made = world.begin(Sink(settings=StdoutSettings()))
    world.reactor.stopping = True
    (receiver,) = world.receivers.values()
    receiver.outcomes = [GoneError("nobody reads any more")]
    made.recorder.take(event())
    made._spool_failed(SpoolStorageError("no disk", StorageFailure.IO))
    (told,) = logged_errors.flush()
    assert str(told["problem"]) == "no disk"


def test_a_state_directory_with_too_long_a_name(world: World) -> None:
    directory = world.directory / ("d" * 150)
    told: list[str] = []
    made = world.make(state_dir=str(directory))
    made._notifier.ready = told.append  # type: ignore[assignment,method-assign]
    made.startService()
    assert told == ["watching 1 VMs, delivering to 2 sinks"]
    assert made.exit_code == 0


def test_records_that_the_spool_refuses_are_told_of(world: World) -> None:
    made = world.begin()
    made._tell_lost("a", 3, 5, 7, "there was no room")
    (told,) = next(iter(world.receivers.values())).taken
    assert told.type == "txqmp.monitor.dropped"
    details = json.loads(told.text)["data"]["data"]
    assert details["count"] == 3
    assert "5 to 7" in details["reason"]
    made._tell_lost("nobody", 3, 5, 7, "there was no room")
    assert len(world.told()) == 1
    made._tell_lost("a", 3, 5, 9, "there was no room")
    *_, told = next(iter(world.receivers.values())).taken
    reason = json.loads(told.text)["data"]["data"]["reason"]
    assert reason == "3 of the records 5 to 9 were lost: there was no room"


def test_the_last_reader_gone_is_the_end(world: World) -> None:
    made = world.begin(Sink(settings=StdoutSettings()))
    (receiver,) = world.receivers.values()
    receiver.outcomes = [GoneError("nobody reads any more")]
    made.recorder.take(event())
    assert world.reactor.stopped == 1
    assert made.exit_code == 0


def test_a_clock_that_is_set_back_changes_no_order(world: World) -> None:
    made = world.begin(world.sink("ops"))
    (receiver,) = world.receivers.values()
    receiver.outcomes = [UnavailableError("busy")]
    made.recorder.take(event())
    world.reactor.rightNow -= 7200
    made.recorder.take(attrs.evolve(event("RESUME", seq=2), received=1.8e9 - 7200))
    (stands,) = made.status.status().sinks
    assert (stands.lag_events, stands.lag_seconds) == (2, 0.0)
    assert made.status.status().spool.oldest_age == 0.0
    made.outlets.reopen()
    assert world.told() == ["org.qemu.qmp.STOP", "org.qemu.qmp.RESUME"]
    success(world.stop(made))
    (vm,) = world.begin().fleet.vms
    assert (vm.session, vm.seq) == (1, 2)


def test_other_receivers_are_not(world: World) -> None:
    made = world.begin(Sink(settings=StdoutSettings()), world.sink("first"))
    for receiver in world.receivers.values():
        receiver.outcomes = [GoneError("nobody reads any more")]
    made.recorder.take(event())
    assert world.reactor.stopped == 0


# Loading anew


def write(world: World, text: str) -> str:
    path = world.directory / "config.toml"
    path.write_text(
        f"[monitor]\nnode = 'n'\nstate_dir = '{world.directory}'\n"
        f"[[source]]\ndial = '/nowhere/a.sock'\nname = 'a'\n{text}"
    )
    return str(path)


FIRST = "[[sink]]\nname = 'first'\ntype = 'jsonl'\npath = '/tmp/first'\n"
SECOND = "[[sink]]\nname = 'second'\ntype = 'jsonl'\npath = '/tmp/second'\n"


def from_file(world: World, text: str) -> MonitorService:
    options = Options()
    options.parseOptions(["--config", write(world, text)])
    made = makeService(options, world.reactor)
    world.services.append(made)
    made.privilegedStartService()
    made.startService()
    return made


def names(made: MonitorService) -> list[str]:
    return sorted(outlet.sink.name for outlet in made.outlets)


def test_hangup_opens_files_anew(world: World) -> None:
    world.begin()
    os.kill(os.getpid(), signal.SIGHUP)
    assert [receiver.calls for receiver in world.receivers.values()] == [["start", "reopen"]] * 2


def test_hangup_loads_the_configuration(world: World) -> None:
    made = from_file(world, FIRST)
    write(world, FIRST + SECOND + "[[source]]\ndial = '/nowhere/b.sock'\nname = 'b'\n")
    world.reactor.advance(1)
    os.kill(os.getpid(), signal.SIGHUP)
    assert names(made) == ["first", "second"]
    assert [vm.name for vm in made.fleet.vms] == ["a", "b"]
    first = next(iter(world.receivers.values()))
    assert first.calls == ["start", "reopen"]
    assert made.status.config.loaded == world.reactor.seconds()
    # And back again.
    write(world, SECOND)
    os.kill(os.getpid(), signal.SIGHUP)
    assert names(made) == ["second"]
    assert first.calls == ["start", "reopen", "stop"]
    assert {each.name for each in made.spool.state.sinks} == {"first", "second"}
    gone = [event.type for event in list(world.receivers.values())[1].taken]
    assert gone == ["txqmp.monitor.gone"]


def test_what_cannot_be_used_changes_nothing(world: World) -> None:
    made = from_file(world, FIRST)
    loaded = made.status.config.loaded
    write(world, SECOND + "[[sink]]\ntype = 'jsnol'\n")
    world.reactor.advance(1)
    os.kill(os.getpid(), signal.SIGHUP)
    assert names(made) == ["first"]
    assert not made.status.config.successful
    assert made.status.config.loaded == loaded
    assert world.receivers[JSONLSettings(path="/tmp/first")].calls == ["start", "reopen"]
    write(world, FIRST)
    os.kill(os.getpid(), signal.SIGHUP)
    assert made.status.config.successful


def test_another_node_is_told_from_then_on(world: World) -> None:
    made = from_file(world, FIRST)
    made.recorder.take(event())
    path = Path(write(world, FIRST))
    path.write_text(path.read_text().replace("'n'", "'m'"))
    os.kill(os.getpid(), signal.SIGHUP)
    made.recorder.take(event("RESUME"))
    # Its receiver was made anew.
    (receiver,) = world.receivers.values()
    (told,) = receiver.taken
    assert json.loads(told.text)["source"] == "qmp://m/a"


def test_a_signal_at_the_end_does_nothing(world: World) -> None:
    made = world.begin()
    success(world.stop(made))
    success(made.reload())
    assert all(receiver.calls == ["start", "stop"] for receiver in world.receivers.values())


def test_hangup_elsewhere_than_in_the_main_thread(world: World) -> None:
    made = world.make()
    world.writer.hold()
    thread = threading.Thread(target=made.startService)
    thread.start()
    thread.join()
    world.writer.release()
    assert made.running


def test_the_end_while_the_configuration_is_loaded(world: World) -> None:
    made = from_file(world, FIRST)
    first = next(iter(world.receivers.values()))
    first.outcomes = [Deferred()]
    made.recorder.take(event())
    write(world, SECOND)
    os.kill(os.getpid(), signal.SIGHUP)
    stopped = world.stop(made)
    pending(stopped)
    world.reactor.advance(GRACE)
    success(stopped)
    assert not len(made.outlets)
    assert all(receiver.calls[-1] == "stop" for receiver in world.receivers.values())
    assert world.reactor.getDelayedCalls() == []


def test_the_end_before_the_configuration_is_read(world: World) -> None:
    made = from_file(world, FIRST)
    write(world, SECOND)
    world.loader.hold()
    os.kill(os.getpid(), signal.SIGHUP)
    stopped = world.stop(made)
    pending(stopped)
    # A name service that does not answer is not waited for.
    world.reactor.advance(LOADING)
    success(stopped)
    world.loader.release()
    assert len(world.receivers) == 1


def test_a_second_hangup_while_the_end_comes(world: World) -> None:
    made = from_file(world, FIRST)
    next(iter(world.receivers.values())).outcomes = [Deferred()]
    made.recorder.take(event())
    write(world, SECOND)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    stopped = world.stop(made)
    world.reactor.advance(GRACE)
    success(stopped)
    assert len(world.receivers) <= 2


def test_a_sink_that_cannot_be_made_leaves_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = from_file(world, FIRST)
    first = next(iter(world.receivers.values()))
    make = outlets.make_delivery

    def fails(reactor: Any, settings: Any) -> Any:
        if settings.path == "/tmp/bad":
            raise ImportError("it needs what is not installed")
        return make(reactor, settings)

    monkeypatch.setattr(outlets, "make_delivery", fails)
    bad = "[[sink]]\nname = 'bad'\ntype = 'jsonl'\npath = '/tmp/bad'\n"
    write(world, bad + SECOND)
    success(made.reload())
    # Nothing was changed: not even what comes before or after it.
    assert names(made) == ["first"]
    assert first.calls[-1] != "stop"
    assert not made.status.config.successful


def test_a_sink_that_was_taken_out_can_be_forgotten(world: World) -> None:
    made = from_file(world, FIRST + SECOND)
    write(world, SECOND)
    success(made.reload())
    assert [(each.name, each.attached) for each in made.spool.state.sinks] == [
        ("first", False),
        ("second", True),
    ]
    # It goes on where it was.
    made.recorder.take(event())
    write(world, FIRST + SECOND)
    success(made.reload())
    assert [each.attached for each in made.spool.state.sinks] == [True, True]
    again = world.receivers[JSONLSettings(path="/tmp/first")]
    assert [each.type for each in again.taken] == ["org.qemu.qmp.STOP"]


def test_a_status_page_that_could_not_be_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = from_file(world, FIRST)
    serve = made._serve
    tried: list[Config] = []

    def fails(config: Config) -> None:
        tried.append(config)
        if len(tried) == 1:
            raise ConnectError("somebody is there already")
        serve(config)

    monkeypatch.setattr(made, "_serve", fails)
    write(world, FIRST + f"[http]\nlisten = 'unix:{world.directory}/http.sock'\n")
    success(made.reload())
    monkeypatch.setattr(world.reactor, "listenUNIX", lambda *_, **__: Port(), raising=False)
    success(made.reload())
    assert len(tried) == 2
    success(made.reload())
    assert len(tried) == 2


def test_what_happens_to_go_wrong_in_loading_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    made = from_file(world, FIRST)
    told: list[str] = []
    monkeypatch.setattr(made._notifier, "ready", lambda _: told.append("ready"))
    monkeypatch.setattr(made._notifier, "reloading", lambda: told.append("reloading"))
    monkeypatch.setattr(made.outlets, "exchange", lambda *_: fail(ValueError("a mistake of ours")))
    success(made.reload())
    assert told == ["reloading", "ready"]
    assert not made.status.config.successful
    assert len(logged_errors.flush(ValueError)) == 1


# What it is made of


def test_what_is_watched(tmp_path: Path) -> None:
    config = Config(
        state_dir=str(tmp_path),
        sources=(
            Glob(patterns=("/nowhere/*.sock",)),
            Dial(where="/nowhere/a.sock", name="a"),
            Dial(where="/nowhere/b.sock", name="b"),
            Listen(where="/nowhere/in.sock"),
        ),
        events=("STOP",),
        sinks=(Sink(settings=StdoutSettings()),),
        demo=True,
    )
    made = MonitorService(Clock(), config)
    assert [vm.name for vm in made.fleet.vms] == ["a", "b"]
    assert made.fleet.events == ("STOP",)
    # What is listened on comes before what may find it, the VM of the demonstration ends last.
    sources = [type(each) for each in made.fleet]
    assert sources.index(ListenSource) < sources.index(GlobSource)
    parts = [type(each) for each in made]
    assert parts.index(Fleet) < parts.index(DemoService)


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
