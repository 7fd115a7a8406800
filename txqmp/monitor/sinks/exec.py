"""
A program for each event: :func:`exec_delivery`.

The program finds the CloudEvent in JSON, and a line end, on its standard input, which is a file in
memory: it need not be read. Its environment is what :data:`KEPT` names, and ``TXQMP_EVENT_ID``,
``TXQMP_EVENT_TYPE`` and ``TXQMP_VM``. It leads a session, and so a process group, of its own
(by ``setsid(1)``). It says how it went by how it ends:

========================  ============================================================
0                         the event is delivered
65 (``EX_DATAERR``)       the event is at fault, and is not offered again
all else                  the event is offered again, after a wait
========================  ============================================================

What it has started and leaves behind lives on, unless the program had to be ended: then its whole
group is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.cloudevents import clean
from txqmp.monitor.sinks.delivery import (
    EventRejectedError,
    OutgoingEvent,
    UnavailableError,
)
from txqmp.monitor.sinks.settings import ExecSettings


REJECTED = os.EX_DATAERR
"""What a program exits with that will never take the event."""

KEPT = frozenset(["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"])
"""What a program gets of the daemon's environment, beside all that begins with ``LC_``."""

OUTPUT = 4096
"""How much is kept of what a program prints, in bytes: the last of it."""

LINGER = 0.25
"""How long to listen on to what a program has left in its pipes when it has exited, in seconds."""

STUCK = 1.0
"""How long a program may take to be gone when it was killed, in seconds."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(ours: Mapping[str, str], event: OutgoingEvent) -> dict[bytes, bytes]:
    """
    What a program gets as its environment.

    :param ours: the daemon's.
    """
    kept = {name: ours[name] for name in ours if name in KEPT or name.startswith("LC_")}
    own = {
        "TXQMP_EVENT_ID": clean(event.id),
        "TXQMP_EVENT_TYPE": clean(event.type),
        "TXQMP_VM": clean(event.vm),
    }
    every = {"PATH": _PATH, **kept, **own}
    return {os.fsencode(name): os.fsencode(value) for name, value in every.items()}


class Run(ProcessProtocol):
    """
    One program, from its start to its end.

    :param clock: where the waits come from.
    :param settings: how long it may take.
    :param told: called before ``over`` fires, and when the program is gone after that.

    :ivar over: fires when it is gone, or cannot be made to go.
    :ivar gone: whether it is gone, and has left nothing here.
    :ivar problem: why it did not end well; ``None`` if it did.
    :ivar rejected: whether it said that the event is at fault.
    """

    def __init__(self, clock: Any, settings: ExecSettings, told: Callable[[], object]) -> None:
        self.over: Deferred[None] = Deferred()
        self.gone = False
        self.problem: str | None = None
        self.rejected = False
        self._clock = clock
        self._settings = settings
        self._told = told
        self._ending = False
        self._exited = False
        self._timer: IDelayedCall | None = None
        self._output = bytearray()
        self._pid = 0

    @property
    def output(self) -> str:
        """The last of what it printed."""
        return self._output.decode("utf-8", "replace")

    def end(self, reason: str) -> None:
        """
        Make it end.

        :param reason: why it is to end.
        """
        if self._ending or self._exited:
            return
        self._ending = True
        self.problem = reason
        self._signal(signal.SIGTERM)
        self._wait(self._settings.grace, self._kill)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._wait(STUCK, self._give_up)

    def _give_up(self) -> None:
        """It hangs in the kernel."""
        self.problem = f"{self.problem}, and cannot be killed"
        assert self.transport is not None
        self.transport.loseConnection()
        self._tell()

    def _signal(self, number: int) -> None:
        """Send a signal to the whole group; to the program alone, while it has none."""
        assert self.transport is not None
        with contextlib.suppress(OSError, ProcessExitedAlready):
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                self.transport.signalProcess(number)

    def _wait(self, seconds: float, then: Callable[..., object], *args: object) -> None:
        """Call something later, instead of what was to be called."""
        self._wait_no_more()
        self._timer = self._clock.callLater(seconds, then, *args)

    def _wait_no_more(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _tell(self) -> None:
        self._told()
        if not self.over.called:
            self.over.callback(None)

    # From the reactor

    def connectionMade(self) -> None:
        """It runs."""
        assert self.transport is not None
        self._pid = self.transport.pid
        limit = self._settings.timeout
        self._wait(limit, self.end, f"the program has not ended within {limit:g} s")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It prints."""
        self._output += data
        del self._output[:-OUTPUT]

    def processExited(self, reason: Failure) -> None:
        """It has ended. What it has started may still hold its pipes."""
        self._exited = True
        if self._ending:
            # Its group is there as long as there is anybody in it.
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)
        elif isinstance(reason.value, ProcessTerminated):
            self.rejected = reason.value.exitCode == REJECTED
            self.problem = _ended(reason.value)
        assert self.transport is not None
        self._wait(LINGER, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and so have its pipes."""
        self._wait_no_more()
        self.gone = True
        self._tell()


def _ended(how: ProcessTerminated) -> str:
    if how.signal is not None:
        return f"the program was ended by signal {how.signal}"
    return f"the program exited with {how.exitCode}"


class ExecDelivery:
    """
    Runs a program for each event: a :class:`~txqmp.monitor.sinks.delivery.Delivery`.

    :param reactor: the running one.
    :param settings: the program, and how long it may take.
    """

    _log = Logger()
    batch = 1

    def __init__(self, reactor: Any, settings: ExecSettings) -> None:
        # Arguments may be secrets.
        self.name = f"exec {settings.command[0]}"
        self._reactor = reactor
        self._settings = settings
        self._run: Run | None = None
        self._delivering: Deferred[None] | None = None
        self._stopped = False
        self._stopping: Deferred[None] | None = None

    def start(self) -> None:
        """Nothing runs before there is an event."""

    def reopen(self) -> None:
        """A program is looked up each time."""

    def stop(self) -> Deferred[None]:
        """End the program that runs, if there is one."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        run = self._run
        if run is None:
            return succeed(None)
        self._stopping = stopping = Deferred[None]()
        run.end("stopped")
        if self._delivering is not None:
            self._delivering.cancel()
        return stopping

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        """
        Run the program for each of the events, one after another.

        :raises RuntimeError: the delivery before has not ended.
        :raises EventRejectedError: through the Deferred: the program said so.
        :raises UnavailableError: through the Deferred: it could not be started, or did not end
            well, or in time.
        """
        if self._delivering is not None:
            raise RuntimeError("the delivery before this one has not ended")
        if self._stopped:
            return fail(UnavailableError("stopped"))
        if self._run is not None:
            return fail(UnavailableError("the program that was given up has not ended"))
        self._delivering = delivering = Deferred.fromCoroutine(self._deliver(tuple(events)))
        return delivering.addBoth(self._delivered)

    def _delivered(self, result: Any) -> Any:
        self._delivering = None
        return result

    async def _deliver(self, events: Sequence[OutgoingEvent]) -> None:
        for count, event in enumerate(events):
            try:
                run = self._start(event)
            except OSError as problem:
                reason = problem.strerror or str(problem)
                raise UnavailableError(f"cannot start the program: {reason}", count) from problem
            try:
                await run.over
            except CancelledError:
                run.end("given up")
                raise UnavailableError(run.problem or "given up", count) from None
            if run.problem is None:
                continue
            self._log.warn(
                "{sink}: {problem}; it printed {output!r}",
                sink=self.name,
                problem=run.problem,
                output=run.output,
            )
            kind = EventRejectedError if run.rejected else UnavailableError
            raise kind(run.problem, count)

    def _start(self, event: OutgoingEvent) -> Run:
        """
        Start the program.

        :raises OSError: it cannot be started.
        """
        command = self._settings.command
        _check(command[0])
        variables = environment(os.environ, event)
        leader = shutil.which("setsid", path=os.fsdecode(variables[b"PATH"]))
        if leader is None:
            raise FileNotFoundError("there is no setsid on the PATH")
        self._run = run = Run(self._reactor, self._settings, self._told)
        text = os.memfd_create("txqmp-event", os.MFD_CLOEXEC)
        try:
            with open(text, "wb", closefd=False) as file:
                file.write(event.text + b"\n")
            os.lseek(text, 0, os.SEEK_SET)
            self._reactor.spawnProcess(
                run,
                leader,
                [leader, *command],
                env=variables,
                childFDs={0: text, 1: "r", 2: "r"},
            )
        except BaseException:
            self._run = None
            raise
        finally:
            os.close(text)
        return run

    def _told(self) -> None:
        if self._run is not None and self._run.gone:
            self._run = None
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(None)


def _check(program: str) -> None:
    """:raises OSError: a program cannot be started, and this is why."""
    if not stat.S_ISREG(os.stat(program).st_mode):
        raise PermissionError(f"{program} is no program")
    if not os.access(program, os.X_OK):
        raise PermissionError(f"{program} may not be run")


def exec_delivery(reactor: Any, settings: ExecSettings) -> ExecDelivery:
    """
    Runs a program for each event. It is delivered when the program has ended well.

    :param reactor: the running one.
    :param settings: the program, and how long it may take.
    """
    return ExecDelivery(reactor, settings)
