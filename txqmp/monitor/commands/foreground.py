"""
The daemon in the foreground, for systemd and for a shell.

It does what ``twist qmp-monitor`` does, and differs where a supervisor looks: a mistake in the
command line is told in one line and ends with 2, a daemon that has failed ends with 1, and one that
was asked to end, by SIGTERM or SIGINT, with 0. There is no pid file. The log goes to the standard
error; where that is the journal, its lines have the journal's priorities, and not the time that the
journal adds itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    PredicateResult,
    eventAsText,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.usage import UsageError
from zope.interface import provider

from txqmp.errors import QMPError
from txqmp.monitor.commands.show import complain


_log = Logger()

# sd-daemon(3)
_PRIORITIES = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}


def run_daemon(words: Sequence[str]) -> int:
    """
    Run the daemon, until it ends.

    :param words: its command line.
    :returns: the exit code.
    """
    from twisted.internet import reactor

    from txqmp.monitor.tap import Options, makeService

    options = Options()
    options.synopsis = f"Usage: qmp-monitor {options.synopsis}"
    try:
        options.parseOptions(list(words))
    except UsageError as problem:
        complain(str(problem))
        return 2
    except SystemExit as end:  # --help, --version
        return int(end.code or 0)
    globalLogBeginner.beginLoggingTo([observer(sys.stderr, os.environ)], redirectStandardIO=False)
    try:
        service = makeService(options, reactor)
    except Exception as problem:
        _tell(problem)
        return 1
    return run_service(reactor, service)


def run_service(reactor: Any, service: Any) -> int:
    """
    Run a service until the reactor stops.

    :param service: a service of Twisted's. Where it has an ``exit_code``, that is the exit code if
        all else went well.
    :returns: the exit code.
    """
    failed = False

    def begin() -> None:
        nonlocal failed
        try:
            service.privilegedStartService()
            service.startService()
        except Exception as problem:
            failed = True
            _tell(problem)
            reactor.stop()

    def end() -> Deferred[Any]:
        return maybeDeferred(service.stopService).addErrback(
            lambda failure: _log.failure("the daemon did not stop in good order", failure)
        )

    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.callWhenRunning(begin)
    reactor.run()
    return 1 if failed else int(getattr(service, "exit_code", 0))


def _tell(problem: Exception) -> None:
    """Why the daemon does not start: in one line, unless it is a mistake of ours."""
    if not isinstance(problem, QMPError | ImportError | OSError | ValueError):
        _log.failure("the daemon cannot be started")
    complain(str(problem))


def observer(stream: TextIO, environment: Mapping[str, str]) -> ILogObserver:
    """
    Where the log goes; what is only for who looks for a defect is left out.

    :param stream: a file.
    :param environment: whose ``JOURNAL_STREAM`` tells the journal's socket (systemd.exec(5)).
    """
    return FilteringLogObserver(
        _journal_observer(stream)
        if _is_journal(stream, environment)
        else textFileLogObserver(stream),
        [_no_debugging],
    )


@provider(ILogFilterPredicate)
def _no_debugging(event: LogEvent) -> Any:
    debugging = event.get("log_level") is LogLevel.debug
    return PredicateResult.no if debugging else PredicateResult.maybe


def _journal_observer(stream: TextIO) -> ILogObserver:
    def write(event: LogEvent) -> None:
        text = eventAsText(event, includeTimestamp=False).rstrip("\n")
        priority = _PRIORITIES.get(event.get("log_level", LogLevel.info), 6)
        stream.write("".join(f"<{priority}>{line}\n" for line in text.splitlines() or [""]))
        stream.flush()

    return write  # type: ignore[return-value]


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
