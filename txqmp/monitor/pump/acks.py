"""What was delivered, written down: :class:`Acknowledger`."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.spool import Spool, SpoolError


class Acknowledger:
    """
    Has it written up to where a sink has delivered: the newest position whenever the disk is free,
    so that who delivers does not wait for the disk. What is not written is delivered again.

    :param sink: the sink's name.
    """

    _log = Logger()

    def __init__(self, spool: Spool, sink: str) -> None:
        self._spool = spool
        self._sink = sink
        self._wanted = 0
        self._written = 0
        self._writing = False
        self._idle: list[Deferred[None]] = []

    def acknowledge(self, position: int) -> None:
        """Everything up to a position is delivered."""
        self._wanted = max(position, self._wanted)
        self._write()

    def reset(self) -> None:
        """The sink's place was set back."""
        self._wanted = self._written = 0

    def when_idle(self) -> Deferred[None]:
        """A Deferred that fires when nothing is to be written any more."""
        if not self._writing:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _write(self) -> None:
        if self._writing:
            return
        if self._wanted > self._written:
            self._writing = True
            self._written = self._wanted
            writing = self._spool.ack(self._sink, self._wanted)
            writing.addErrback(self._cannot).addCallback(self._wrote)
            return
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    def _wrote(self, _: None) -> None:
        self._writing = False
        self._write()

    def _cannot(self, failure: Failure) -> None:
        # The spool says itself what is wrong with it.
        if not failure.check(SpoolError):
            self._log.failure("{sink}: cannot acknowledge", failure, sink=self._sink)
