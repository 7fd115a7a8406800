"""
What systemd is told by the daemon that it runs (``Type=notify``): :class:`Notifier`, and
:class:`WatchdogService` for ``WatchdogSec=``.

The protocol is that of ``sd_notify(3)``: datagrams to a UNIX socket, one ``NAME=value`` a line. To
tell systemd something never blocks and never raises: a daemon does not end because nobody listens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger


MAX_STATUS = 500
"""How much of a status is told, in characters."""


class Notifier:
    """
    Tells systemd how the daemon is. It takes its variables out of the environment, so that no child
    speaks for the daemon.

    :param environment: which has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.

    :ivar watchdog: how often systemd wants to hear from us, in seconds; ``None`` where it does not
        watch us.
    """

    _log = Logger()

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        limit = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        # An abstract name is written with an "@" in the place of its first byte, a zero.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._told = False
        ours = limit.isdecimal() and int(limit) > 0 and watched == str(os.getpid())
        self.watchdog: float | None = int(limit) / 1e6 if ours and self.listened else None

    @property
    def listened(self) -> bool:
        """Whether systemd wants to hear anything."""
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """The daemon is ready, or is so again."""
        return self.notify(READY="1", STATUS=status or None)

    def reloading(self) -> bool:
        """The configuration is being loaded anew; :meth:`ready` is to follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self.notify(RELOADING="1", MONOTONIC_USEC=str(microseconds))

    def stopping(self) -> bool:
        """The daemon is about to end."""
        return self.notify(STOPPING="1")

    def status(self, text: str) -> bool:
        """What ``systemctl status`` is to show."""
        return self.notify(STATUS=text)

    def alive(self) -> bool:
        """The daemon turns: for the watchdog."""
        return self.notify(WATCHDOG="1")

    def notify(self, **values: str | None) -> bool:
        """
        Tell something.

        :param values: by name, as ``sd_notify(3)`` has them; ``None`` is left out.
        :returns: whether it was handed over.
        """
        if not self._address:
            return False
        lines = [f"{name}={_line(value)}" for name, value in values.items() if value is not None]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.send("\n".join(lines).encode(errors="replace"))
        except (OSError, ValueError) as problem:
            if not self._told:
                self._told = True
                self._log.warn("systemd cannot be told anything: {problem}", problem=problem)
            return False
        return True


def _line(text: str) -> str:
    """A text as a value may have it: on one line, and not too long."""
    return " ".join(text[:MAX_STATUS].split())


class WatchdogService(Service):
    """
    Lets systemd's watchdog know that the daemon turns, twice in its time, as long as all is well.

    :param reactor: tells the time.
    :param healthy: asked each time; if it says no, or raises, nothing is told, and systemd ends the
        daemon and starts it anew.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, notifier: Notifier, healthy: Callable[[], bool] = lambda: True
    ) -> None:
        self._notifier = notifier
        self._healthy = healthy
        self._loop = LoopingCall(self._turn)
        self._loop.clock = reactor
        self._well = True

    def startService(self) -> None:
        super().startService()
        limit = self._notifier.watchdog
        if limit is not None:
            self._loop.start(limit / 2)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return None

    def _turn(self) -> None:
        try:
            well = self._healthy()
        except Exception:
            well = False
            self._log.failure("whether all is well cannot be told")
        if well:
            self._notifier.alive()
        elif self._well:
            self._log.error("all is not well: the watchdog is not told otherwise any more")
        self._well = well
