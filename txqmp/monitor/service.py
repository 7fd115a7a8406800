"""The daemon as a service: the fleet, its sinks, and the order in which they begin and end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python.components import Componentized
from twisted.python.usage import Options as UsageOptions

from txqmp.fleet import DialSource, Fleet, GlobSource, ListenSource, Record
from txqmp.monitor.config import Config, Dial, Glob, Listen, SinkSettings, Source
from txqmp.monitor.demo import DemoService
from txqmp.monitor.options import Options
from txqmp.monitor.records import encode
from txqmp.monitor.sinks import Sink
from txqmp.monitor.sinks.jsonl import jsonl_sink
from txqmp.monitor.sinks.settings import JSONLSettings, StdoutSettings, WebhookSettings
from txqmp.monitor.sinks.stdout import stdout_sink
from txqmp.monitor.sinks.webhook import webhook_sink


def makeService(options: Options, reactor: Any = None) -> MonitorService:
    """
    The daemon, as its options ask for it.

    :param options: parsed.
    :param reactor: the reactor; the installed one by default.
    """
    if reactor is None:
        from twisted.internet import reactor
    service = MonitorService(reactor, options.config)
    if options.config.stdout:
        service.log_observer = _keep_log_off_stdout(options.parent)
    return service


class MonitorService(MultiService):
    """
    Watches VMs and tells what happens to them. It starts its sinks before its fleet and stops them
    after it, so that its last words are told too; it stops within a limited time, whoever hangs.

    :param config: what to do.

    :ivar fleet: what it watches.
    :ivar sinks: where it tells.
    :ivar log_observer: where an application that this service becomes a part of is to log to;
        ``None`` to leave that as it is.
    """

    _log = Logger()
    log_observer: ILogObserver | None = None

    def __init__(self, reactor: Any, config: Config) -> None:
        super().__init__()
        self._reactor = reactor
        self._hangup: Any = None
        self.fleet = Fleet(reactor, self._tell, events=config.events)
        self.sinks: tuple[Sink, ...] = tuple(
            self._make_sink(each.settings) for each in config.sinks
        )
        # What we listen on comes first: a glob may match it, and must not dial it.
        for kind in (Listen, Dial, Glob):
            for each in [source for source in config.sources if isinstance(source, kind)]:
                for source in self._make_sources(each):
                    source.setServiceParent(self.fleet)
        self.fleet.setServiceParent(self)
        if config.demo:
            DemoService(self.fleet).setServiceParent(self)

    def _make_sources(self, source: Source) -> list[Service]:
        if isinstance(source, Listen):
            return [ListenSource(self.fleet, source.where)]
        if isinstance(source, Dial):
            return [DialSource(self.fleet, source.where, source.name)]
        return [GlobSource(self.fleet, each, source.rescan) for each in source.patterns]

    def _make_sink(self, settings: SinkSettings) -> Sink:
        if isinstance(settings, StdoutSettings):
            return stdout_sink(self._reactor, self._stdout_closed)
        if isinstance(settings, JSONLSettings):
            return jsonl_sink(self._reactor, settings.path)
        if isinstance(settings, WebhookSettings):
            return webhook_sink(self._reactor, settings.url)
        raise NotImplementedError(f"there is no sink for {type(settings).__name__}")

    def setServiceParent(self, parent: Any) -> None:
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)

    # Records

    def _tell(self, record: Record) -> None:
        entry = encode(record)
        for sink in self.sinks:
            try:
                sink.put(entry)
            except Exception:
                # Its interface says that it does not, but the others are not to suffer.
                self._log.failure("{sink} failed to take a record", sink=sink.name)

    def _stdout_closed(self) -> None:
        """Nobody reads what is printed (``qmp-monitor … | head``)."""
        if len(self.sinks) == 1 and self.running:
            self._log.info("nobody is told any more: the end")
            self._reactor.stop()

    # Its life

    def startService(self) -> None:
        self._hangup = _on_hangup(self._reactor, self.reopen)
        for sink in self.sinks:
            sink.start()
        self._log.info("telling {sinks}", sinks=", ".join(sink.name for sink in self.sinks))
        super().startService()

    def reopen(self) -> None:
        """Open the files anew that are written to (SIGHUP)."""
        self._log.info("opening files anew")
        for sink in self.sinks:
            sink.reopen()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.running = 0
        # The fleet before its VM: the demonstration is the last child.
        for service in tuple(self):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self._log.failure("{service} failed to stop", service=service)
        stopping = [maybeDeferred(sink.stop) for sink in self.sinks]
        for sink, stopped in zip(self.sinks, stopping, strict=True):
            try:
                await stopped
            except Exception:
                self._log.failure("{sink} failed to stop", sink=sink.name)
            self._log.info(
                "{sink}: {delivered} of {taken} records were delivered, {dropped} dropped,"
                " {rejected} rejected",
                sink=sink.name,
                **attrs.asdict(sink.counters),
            )
        restore, self._hangup = self._hangup, None
        if restore is not None:
            restore()


def _keep_log_off_stdout(runner: UsageOptions | None) -> ILogObserver | None:
    """
    Have the log go to the standard error where it would go to the standard output, which is for
    records: ``qmp-monitor … | jq`` is to read nothing else. Where the runner was told a place for
    its log it stays there.

    :param runner: the options of ``twistd`` or ``twist``.
    :returns: the observer to use, ``None`` for the runner's own.
    """
    if runner is None:
        return None
    if runner.get("logFile") is sys.stdout:  # twist
        runner["logFile"] = sys.stderr
        return None
    if "logfile" not in runner or runner.get("syslog") or runner.get("logger"):
        return None
    # Twisted opens a log file to read it too, and goes to its end: no terminal or pipe lets it.
    if not runner["logfile"] or runner["logfile"] in ("/dev/stderr", "/dev/fd/2"):
        return textFileLogObserver(sys.stderr)
    return None


def _on_hangup(reactor: Any, call: Callable[[], object]) -> Callable[[], object] | None:
    """
    Call something when SIGHUP comes, which would end the process otherwise.

    :returns: what undoes that; ``None`` where it cannot be done.
    """
    try:
        before = signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(call))
    except ValueError:  # not in the main thread
        return None
    return lambda: signal.signal(signal.SIGHUP, before)
