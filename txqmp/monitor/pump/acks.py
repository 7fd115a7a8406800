"""What was delivered, written down: :class:`Acknowledger`."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.spool import Spool, SpoolError


ACK_EVERY = 0.1
"""
How often it is written up to where a sink has delivered, in seconds. Each time costs a commit; what
was delivered and not written when the daemon is killed is delivered again.
"""


class Acknowledger:
    """
    Has it written up to where a sink has delivered, now and then: who delivers does not wait for
    the disk. What is not written is delivered again.

    :param clock: tells the time.
    :param sink: the sink's name.
    :param every: how often to write, in seconds; 0 for whenever the disk is free.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, spool: Spool, sink: str, every: float = ACK_EVERY
    ) -> None:
        self._clock = clock
        self._spool = spool
        self._sink = sink
        self._every = every
        self._timer: IDelayedCall | None = None
        self._wanted = 0
        self._written = 0
        self._writing = False
        self._idle: list[Deferred[None]] = []

    def acknowledge(self, position: int) -> None:
        """Everything up to a position is delivered."""
        self._wanted = max(position, self._wanted)
        self._write_soon()

    def reset(self) -> None:
        """The sink's place was set back."""
        self._wanted = self._written = 0

    def finish(self) -> Deferred[None]:
        """Write what is to be written; a Deferred that fires when that is done."""
        self._every = 0
        self._write()
        if not self._writing:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _write_soon(self) -> None:
        if not self._every:
            self._write()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._every, self._write)

    def _write(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
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
        if self._timer is None:
            self._write()

    def _cannot(self, failure: Failure) -> None:
        # The spool says itself what is wrong with it.
        if not failure.check(SpoolError):
            self._log.failure("{sink}: cannot acknowledge", failure, sink=self._sink)
