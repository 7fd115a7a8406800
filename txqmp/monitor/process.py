"""The process that the daemon is: its log, its signal, its end."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.python.usage import Options as UsageOptions


def end_process_with(code: int) -> None:
    """
    Have the process end with a code, when it ends: what runs it (``twistd``, ``twist``) would have
    it end with 0.
    """
    # What was registered last is called first; the others have nothing to do here.
    atexit.register(_end, code)


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue  # it is closed, or nobody reads it
    os._exit(code)


def keep_log_off_stdout(runner: UsageOptions | None) -> ILogObserver | None:
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


def on_hangup(reactor: Any, call: Callable[[], object]) -> Callable[[], object] | None:
    """
    Call something when SIGHUP comes, which would end the process otherwise.

    :returns: what undoes that; ``None`` where it cannot be done.
    """
    try:
        before = signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(call))
    except ValueError:  # not in the main thread
        return None
    return lambda: signal.signal(signal.SIGHUP, before)
