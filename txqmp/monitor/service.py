"""The daemon as a service: its parts, and the order in which they begin and end."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredLock, TimeoutError, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from txqmp.errors import QMPError
from txqmp.fleet import Fleet, Past, Record
from txqmp.monitor.config import Config, ConfigError, reload
from txqmp.monitor.control import ControlService, version
from txqmp.monitor.demo import DemoService
from txqmp.monitor.observation import Observation, ReactorLag
from txqmp.monitor.options import Options
from txqmp.monitor.outlets import Outlet, Outlets
from txqmp.monitor.process import end_process_with, keep_log_off_stdout, on_hangup
from txqmp.monitor.pump import GRACE
from txqmp.monitor.recorder import Recorder
from txqmp.monitor.sources import Sources
from txqmp.monitor.spool import Reader, SpoolClosedError, SpoolError, make_spool
from txqmp.monitor.statedir import spool_directory
from txqmp.monitor.status import MonitorStatus
from txqmp.monitor.systemd import Notifier, WatchdogService
from txqmp.monitor.web.source import ConfigStatus, SinkStatus
from txqmp.monitor.worker import Worker


def makeService(options: Options, reactor: Any = None) -> MonitorService:
    """
    The daemon, as its options ask for it.

    :param options: parsed.
    :param reactor: the reactor; the installed one by default.
    """
    if reactor is None:
        from twisted.internet import reactor
    service = MonitorService(reactor, options.config, config_file=options.config_file)
    if options.config.stdout:
        service.log_observer = keep_log_off_stdout(options.parent)
    if options.parent is not None:
        # twistd and twist end with 0 whatever happens.
        service.failed = end_process_with
    return service


LOADING = 4 * GRACE
"""How long the end waits for a configuration that is being loaded, in seconds."""


class MonitorService(MultiService):
    """
    Watches VMs, keeps what happens to them in a spool, and delivers it from there.

    It begins with what is last in the way of the data and ends with what is first, so that its last
    words are delivered too; it stops within a limited time, whoever hangs. When the spool fails, it
    stops the reactor.

    :param config: what to do.
    :param config_file: where that is from, to be loaded anew (SIGHUP); ``None`` where there is
        nothing to load.

    :ivar config: what is done.
    :ivar fleet: what it watches.
    :ivar spool: what it keeps.
    :ivar outlets: where it delivers.
    :ivar status: how it stands.
    :ivar exit_code: what the process is to end with.
    :ivar failed: called with that, when it is not 0.
    :ivar log_observer: where an application that this service becomes a part of is to log to;
        ``None`` to leave that as it is.
    """

    _log = Logger()
    log_observer: ILogObserver | None = None

    def __init__(self, reactor: Any, config: Config, *, config_file: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.exit_code = 0
        self.failed: Callable[[int], object] = lambda code: None
        self._reactor = reactor
        self._config_file = config_file
        self._hangup: Callable[[], object] | None = None
        self._reloading = DeferredLock()
        # It reads files, and asks for users and groups, which may be far away.
        self._loader = Worker(reactor, "configuration")
        self._notifier = Notifier()
        self._web: Service | None = None
        self._is_temporary = config.state_dir is None
        self._directory = config.state_dir or os.path.join(
            tempfile.gettempdir(), f"qmp-monitor-{secrets.token_hex(8)}"
        )
        self.observation = Observation(reactor)
        self.spool = make_spool(
            reactor,
            spool_directory(self._directory),
            config.spool,
            failed=self._spool_failed,
            observe=self.observation.spool_committed,
        )
        envelope = config.envelope()
        self.fleet = Fleet(reactor, self._take, events=config.events)
        self.recorder = Recorder(
            self.spool, envelope, tell_lost=self._tell_lost, observer=self.observation
        )
        self.outlets = Outlets(
            reactor, self.spool, envelope, observer=self.observation, gone=self._receiver_gone
        )
        self.sources = Sources(self.fleet)
        self.status = MonitorStatus(
            reactor,
            version=version(),
            node=config.node,
            fleet=self.fleet,
            spool=self.spool,
            limits=config.spool,
            rates=self.observation.rates,
            pumps=lambda: [(outlet.kind, outlet.pump) for outlet in self.outlets],
            listening=lambda: self.sources.listening,
        )
        self.status.config = ConfigStatus(loaded=reactor.seconds())
        self.sources.add(config.sources)
        self.fleet.setServiceParent(self)
        if config.demo:
            DemoService(self.fleet).setServiceParent(self)
        self._serve(config)
        ReactorLag(reactor, self.observation).setServiceParent(self)
        self._watchdog = WatchdogService(reactor, self._notifier, self._is_well)

    def setServiceParent(self, parent: Any) -> None:
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)

    # Records

    def _take(self, record: Record) -> None:
        self.recorder.take(record)

    def _tell_lost(self, name: str, count: int, first: int, last: int, reason: str) -> None:
        which = f"records {first} to {last}"
        if count <= last - first:
            which = f"{count} of the {which}"
        for vm in self.fleet.vms:
            if vm.name == name:
                vm.dropped(count, f"{which} were lost: {reason}")

    def _receiver_gone(self, outlet: Outlet) -> None:
        """Nobody reads what is printed (``qmp-monitor … | head``)."""
        alone = len(self.outlets) == 1 and self._web is None
        if outlet.kind == "stdout" and alone and self.running:
            self._log.info("nobody is told any more: the end")
            self._stop_reactor()

    # Beginning

    def _remembered(self) -> dict[str, Past]:
        """
        What a daemon before this one has left. If it cannot be read, the spool says so when it is
        opened.
        """
        try:
            with Reader(spool_directory(self._directory)) as reader:
                heard = reader.last_heard()
        except (SpoolError, OSError):
            return {}
        return {
            vm: Past(
                session=last.session,
                seq=last.seq,
                last_time=last.time,
                identity=last.identity or None,
                over=last.over,
            )
            for vm, last in heard.items()
        }

    def startService(self) -> None:
        """
        Begin.

        :raises ConnectError: a place cannot be listened on.
        """
        self._hangup = on_hangup(self._reactor, self.reload)
        # If this cannot be done, the spool says why.
        with suppress(OSError):
            os.mkdir(self._directory, 0o700)
        self.fleet.restore(self._remembered())
        opening = self.spool.start()
        # Before the fleet: the sinks are to have all that it tells.
        self.outlets.open(self.config.sinks)
        names = ", ".join(outlet.sink.name for outlet in self.outlets)
        self._log.info("delivering to {sinks}", sinks=names)
        super().startService()
        opening.addCallback(self._opened).addErrback(self._not_opened)

    def _opened(self, _: None) -> None:
        if not self._is_temporary:
            self._log.info("events are kept in {directory}", directory=self._directory)
        else:
            self._log.info("events are kept until the daemon ends: no state directory was given")
        for sink in self.spool.state.abandoned:
            self._log.warn(
                "{count} events are kept for the sink {sink!r}, which is not configured:"
                " qmp-monitor forget drops them",
                count=sink.lag,
                sink=sink.name,
            )
        if not self.running:
            return
        self._take_commands()
        self._watchdog.setServiceParent(self)
        self._notifier.ready(self._summary())

    def _take_commands(self) -> None:
        """Let the operator's commands in; the daemon does its work without them too."""
        control: ControlService | None = None
        try:
            control = ControlService(
                self._reactor,
                self._directory,
                self.spool,
                wake=self.outlets.wake,
                sinks=self._sinks,
            )
            control.setServiceParent(self)
        except (QMPError, ValueError) as problem:
            self._log.error("commands cannot be taken: {problem}", problem=problem)
            if control is not None:
                control.disownServiceParent()

    def _not_opened(self, failure: Failure) -> None:
        if failure.check(SpoolClosedError):
            return  # it was stopped at once
        if not failure.check(SpoolError):
            self._log.failure("a mistake of ours", failure)
        self._spool_failed(failure.value or RuntimeError("the spool was not opened"))

    def _spool_failed(self, problem: BaseException) -> None:
        """Nothing can be kept any more: whoever started us is to see that, and start us anew."""
        self._log.critical("the daemon ends: {problem}", problem=problem)
        self.exit_code = 1
        self.failed(self.exit_code)
        if self.running:
            self._stop_reactor()

    def _stop_reactor(self) -> None:
        with suppress(ReactorNotRunning):  # it is about to stop
            self._reactor.stop()

    def _is_well(self) -> bool:
        return self.spool.problem is None

    def _sinks(self) -> tuple[SinkStatus, ...]:
        return self.status.status().sinks

    def _summary(self) -> str:
        return f"watching {len(self.fleet.vms)} VMs, delivering to {len(self.outlets)} sinks"

    # The HTTP face

    def _serve(self, config: Config) -> None:
        """Show how the daemon stands, where that is wanted."""
        if config.http is None:
            return
        # Not above: it takes its time to import, and is for those who want it.
        from txqmp.monitor.web.service import WebService

        self._web = WebService(
            self._reactor,
            config.http.listen,
            self.status,
            metrics=self.observation.want_metrics(self.status.status),
            names=config.http.names,
            remote=config.http.remote,
            log_requests=config.http.log_requests,
        )
        try:
            self._web.setServiceParent(self)
        except QMPError:
            web, self._web = self._web, None
            web.disownServiceParent()
            raise

    # Loading anew

    def reload(self) -> Deferred[None]:
        """
        Open files anew, and do what the configuration says now (SIGHUP). One that cannot be used
        changes nothing.
        """
        if not self.running:
            return succeed(None)
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> None:
        if not self.running:
            return
        self._notifier.reloading()
        try:
            config = self.config
            if self._config_file is not None:
                config = await self._loader.run(reload, self._config_file, config)
            if self.running:
                await self._change_to(config)
        except ConfigError as error:
            self._not_loaded(f"{error.where}: {problem}" for problem in error.problems)
        except ImportError as problem:
            self._not_loaded([str(problem)])
        except Exception:
            self._log.failure("the configuration was not loaded")
            self.status.config = attrs.evolve(self.status.config, successful=False)
        if self.running:
            self._notifier.ready(self._summary())

    def _not_loaded(self, problems: Iterable[str]) -> None:
        """A configuration cannot be used; what was asked for besides is done."""
        for problem in problems:
            self._log.error("{problem}", problem=problem)
        self._log.error("the configuration stays as it was")
        self.status.config = attrs.evolve(self.status.config, successful=False)
        self.outlets.reopen()

    async def _change_to(self, config: Config) -> None:
        """
        Do what a configuration says.

        :raises ImportError: a sink needs what is not installed; then nothing was changed.
        """
        envelope = config.envelope()
        await self.outlets.exchange(config.sinks, envelope)
        self.recorder.envelope = envelope
        await self.sources.exchange(config.sources)
        if config.http != self.config.http or (self._web is None and config.http is not None):
            web, self._web = self._web, None
            if web is not None:
                await maybeDeferred(web.disownServiceParent)
            try:
                self._serve(config)
            except (QMPError, ImportError, ValueError) as problem:
                self._log.error("there is no status page: {problem}", problem=problem)
        self.config = config
        self.status.config = ConfigStatus(loaded=self._reactor.seconds())
        from_file = self._config_file is not None
        what = "the configuration was loaded" if from_file else "files were opened anew"
        self._log.info("{what}", what=what)

    # Ending

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.running = 0
        self._notifier.stopping()
        # Who is exchanging the parts is not to do that while they end.
        await self._within(self._reloading.acquire(), LOADING, "the configuration is still loaded")
        # The fleet comes before its VM, which is the demonstration's.
        for service in tuple(self):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self._log.failure("{service} failed to stop", service=service)
        told = Deferred.fromCoroutine(self.recorder.finish())
        await self._within(told, GRACE, "not all that was told could be kept")
        await self.outlets.close()
        self._tell_left()
        await self.spool.close()
        self._loader.stop()
        if self._is_temporary:
            shutil.rmtree(self._directory, ignore_errors=True)
        restore, self._hangup = self._hangup, None
        if restore is not None:
            restore()

    def _tell_left(self) -> None:
        """Say what is not delivered, and what becomes of it."""
        fate = "and are lost: no state directory was given" if self._is_temporary else "yet"
        for sink in self.spool.state.sinks:
            if sink.attached and sink.lag:
                self._log.warn(
                    "{sink}: {count} events were not delivered {fate}",
                    sink=sink.name,
                    count=sink.lag,
                    fate=fate,
                )

    async def _within(self, waiting: Deferred[Any], limit: float, problem: str) -> None:
        """Wait, but not for ever: the disk may hang."""
        try:
            await waiting.addTimeout(limit, self._reactor)
        except TimeoutError:
            self._log.error("{problem}", problem=problem)
