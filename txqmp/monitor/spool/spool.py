"""The spool as the rest of the daemon sees it: :class:`Spool`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.monitor.spool import cursors, dead
from txqmp.monitor.spool.commits import GroupCommit
from txqmp.monitor.spool.cursors import Start
from txqmp.monitor.spool.errors import SpoolClosedError, SpoolError, SpoolStorageError
from txqmp.monitor.spool.filter import EVERYTHING, Filter
from txqmp.monitor.spool.intake import SpoolCounters
from txqmp.monitor.spool.limits import DEFAULT_LIMITS, SpoolLimits
from txqmp.monitor.spool.reader import BATCH, BATCH_BYTES, Reader
from txqmp.monitor.spool.records import Batch, DeadLetter, Item, Stored
from txqmp.monitor.spool.rewinds import Rewinds
from txqmp.monitor.spool.state import SpoolState
from txqmp.monitor.spool.store import Change, Store
from txqmp.monitor.spool.vms import LastHeard, tidy
from txqmp.monitor.worker import Runner, Worker


_T = TypeVar("_T")

GRACE = 5.0
"""How long the disk is waited for when a spool is closed, in seconds."""


class _Phase(enum.Enum):
    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    FAILED = "failed"
    CLOSING = "closing"
    CLOSED = "closed"


class Spool:
    """
    Takes records in, and gives them to sinks. What is to be written while a commit runs is
    committed together after it.

    It must be started; what is put into it before it is open waits. Nothing here raises or blocks.
    Every Deferred ends, at the latest when the spool is closed. To cancel one is only not to wait
    for it: the record is taken in all the same.

    Where the disk fails or is full, the database is damaged, or a thread fails in another way, the
    spool ends: nothing more is taken in, and whoever waits gets the error. Only a new one can tell
    what was committed, so the daemon is to end too.

    :param clock: tells the time.
    :param directory: of the spool; made where it is missing, but not its parents.
    :param writer: runs what writes.
    :param reader: runs what reads, in another thread.
    :param failed: called once, with the reason, if the spool ends in that way after it was opened.
    :param observe: told how long each commit took, in seconds.
    :param grace: how long :meth:`close` waits for the disk, in seconds.

    :ivar problem: why it ended, ``None`` where it has not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        directory: str,
        writer: Runner,
        reader: Runner,
        limits: SpoolLimits = DEFAULT_LIMITS,
        *,
        failed: Callable[[SpoolError], object] = lambda problem: None,
        observe: Callable[[float], object] = lambda seconds: None,
        grace: float = GRACE,
    ) -> None:
        self.problem: SpoolError | None = None
        self._clock = clock
        self._directory = directory
        self._limits = limits
        self._writer = writer
        self._reader = reader
        self._tell_failed = failed
        self._grace = grace
        self._phase = _Phase.NEW
        self._closing = False
        self._rewinds = Rewinds()
        self._commits = GroupCommit(clock, writer, limits, failed=self._fail, observe=observe)
        # These two are used in their threads only.
        self._store: Store | None = None
        self._reading: Reader | None = None
        self._reads: set[Deferred[Any]] = set()
        self._closers: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Spool {self._directory} {self._phase.value}>"

    @property
    def counters(self) -> SpoolCounters:
        """What became of the records."""
        return self._commits.intake.counters

    @property
    def state(self) -> SpoolState:
        """How the spool stands, as of the last commit."""
        return self._commits.state

    @property
    def waiting(self) -> int:
        """How many records wait for their commit."""
        return len(self._commits.intake)

    @property
    def blocked(self) -> bool:
        """Whether records wait because the spool is full (:attr:`WhenFull.BLOCK`)."""
        return self._commits.intake.blocked

    # Its life

    def start(self) -> Deferred[None]:
        """
        Open the spool, once.

        :returns: a Deferred that fails with a
            :class:`~txqmp.monitor.spool.errors.SpoolLockedError`,
            :class:`~txqmp.monitor.spool.errors.SpoolVersionError` or
            :class:`~txqmp.monitor.spool.errors.SpoolStorageError` where it cannot be opened.
        """
        if self._phase is not _Phase.NEW:
            return fail(SpoolClosedError("a spool is started once"))
        self._phase = _Phase.OPENING
        opened: Deferred[None] = Deferred()
        # One of its own: the opening itself is not to be cancelled half-way.
        Deferred.fromCoroutine(self._open()).addCallbacks(opened.callback, opened.errback)
        return opened

    async def _open(self) -> None:
        try:
            store = await self._writer.run(Store, self._directory, self._limits)
            self._store = store
            change = [cursors.detach_all, tidy]
            outcome = await self._writer.run(store.commit, change, (), self._clock.seconds())
            self._reading = await self._reader.run(Reader, self._directory)
            if self._phase is not _Phase.OPENING:
                raise SpoolClosedError("the spool was closed before it was open")
        except BaseException:
            if self._phase is _Phase.CLOSED:  # it took so long that nobody waits any more
                await self._let_go()
            else:
                self._fail(Failure())
            raise
        self._phase = _Phase.OPEN
        self._commits.begin(store, outcome.state)

    def close(self) -> Deferred[None]:
        """
        Commit what waits, tidy up and let others own the spool. It may be called at any time, and
        again. The Deferred does not fail, and fires within the ``grace``.
        """
        if self._phase is _Phase.CLOSED:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closers.append(closed)
        if not self._closing:
            self._closing = True
            self._deadline = self._clock.callLater(self._grace, self._abandon)
            if self._phase in (_Phase.NEW, _Phase.FAILED):
                self._shut()
            else:
                self._commits.finish(self._shut)
        return closed

    def _shut(self) -> None:
        """Close what is open."""
        self._phase = _Phase.CLOSING
        self._commits.end(SpoolClosedError("the spool was closed"))
        Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        """Have the threads close what they use, after what they are at, and end."""
        for runner, part in ((self._reader, self._reading), (self._writer, self._store)):
            try:
                if part is not None:
                    await runner.run(part.close)
            except SpoolError as problem:
                self._log.warn("{spool}: {problem}", spool=self, problem=problem)
            except Exception:
                self._log.failure("{spool} cannot be closed", spool=self)
            runner.stop()
        if self._phase is _Phase.CLOSING:
            self._reader.join()
            self._writer.join()
            self._closed()

    def _abandon(self) -> None:
        """A thread hangs."""
        self._log.error("{spool}: the disk does not answer, and is not waited for", spool=self)
        before, self._phase = self._phase, _Phase.CLOSED
        self._commits.end(SpoolClosedError("the spool was closed while the disk did not answer"))
        for read in tuple(self._reads):
            read.cancel()
        if before is _Phase.OPEN:
            Deferred.fromCoroutine(self._let_go())
        self._closed()

    def _closed(self) -> None:
        self._phase = _Phase.CLOSED
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        closers, self._closers = self._closers, []
        for closed in closers:
            closed.callback(None)

    def _fail(self, failure: Failure) -> None:
        """The end: what failed once is not to be trusted again."""
        if self._phase not in (_Phase.OPENING, _Phase.OPEN):
            return
        opening = self._phase is _Phase.OPENING
        self._phase = _Phase.FAILED
        problem = failure.value
        if not isinstance(problem, SpoolError):
            problem = SpoolError(f"the spool has failed: {failure!r}")
            self._log.failure("{spool}", failure, spool=self)
        elif not opening:
            self._log.error("{spool}: {problem}", spool=self, problem=problem)
        self.problem = problem
        self._commits.end(problem)
        if opening or self._closing:
            self._shut()
        if opening:
            return  # whoever started it is told
        try:
            self._tell_failed(problem)
        except Exception:
            self._log.failure("nobody could be told that the spool has failed")

    def _unusable(self) -> SpoolError | None:
        """Why nothing is done any more; ``None`` where it is."""
        if self.problem is not None:
            return self.problem.twin()
        if self._closing:
            return SpoolClosedError("the spool is closed")
        return None

    # Writing

    def put(self, item: Item) -> Deferred[int]:
        """
        Take a record in.

        :returns: a Deferred of its position, which fires when it is on the disk. It fails with a
            :class:`~txqmp.monitor.spool.errors.SpoolFullError` where the record was not taken in,
            because it is too large, too many wait already, or there was no room for too long.
        """
        unusable = self._unusable()
        if unusable is not None:
            self.counters.put += 1
            self.counters.failed += 1
            return fail(unusable)
        return self._commits.put(item)

    def add_sink(self, sink: str, start: Start = Start.END) -> Deferred[int]:
        """
        Have a sink's place remembered, and what it has not had kept. One that is known goes on
        where it was. It is told each time the spool is opened: of the others
        :attr:`SpoolState.abandoned` tells.

        :returns: a Deferred of the position that it goes on after.
        """
        return self._change(partial(cursors.add, sink=sink, start=start))

    def detach_sink(self, sink: str) -> Deferred[None]:
        """A sink is not used any more, until it is added again. What it has not had is kept."""
        return self._change(partial(cursors.detach, sink=sink))

    def forget_sink(self, sink: str) -> Deferred[None]:
        """Keep nothing for a sink any more; its dead letters are gone too."""
        return self._change(partial(cursors.forget, sink=sink))

    def ack(self, sink: str, position: int) -> Deferred[None]:
        """
        A sink has delivered everything up to a position, and told of every gap before it. Less than
        before changes nothing; so does what comes while the sink is being rewound.
        """
        if self._rewinds.is_running(sink):
            return succeed(None)
        return self._change(partial(cursors.acknowledge, sink=sink, position=position))

    def rewind(self, sink: str, position: int) -> Deferred[int]:
        """
        Have a sink deliver again what comes after a position, as far as it is there.

        :returns: a Deferred of how many records it gets again. It fires when those who
            :meth:`watch_rewinds` have been told.
        """
        self._rewinds.begin(sink)
        # One of its own: who cancels it does not change what is being done.
        rewound: Deferred[int] = Deferred()
        change = self._change(partial(cursors.rewind, sink=sink, position=position))
        change.addBoth(self._rewinds.end, sink)
        change.addCallbacks(rewound.callback, rewound.errback)
        return rewound

    def watch_rewinds(self, sink: str, call: Callable[[], object]) -> Callable[[], None]:
        """
        Have something called after each :meth:`rewind` of a sink. Whoever delivers is to begin anew
        with :meth:`read_for` then, without an ``after``, and not to acknowledge any more what was
        read before.

        :returns: what ends that.
        """
        return self._rewinds.watch(sink, call)

    def bury(self, sink: str, record: Stored, reason: str, attempts: int) -> Deferred[int]:
        """
        Make a dead letter of a record. It is acknowledged like others, after that.

        :param reason: why it cannot be delivered, in words, without secrets.
        :param attempts: how often it was tried.
        :returns: a Deferred of the dead letter's number.
        """
        return self._change(
            partial(
                dead.bury,
                limits=self._limits,
                sink=sink,
                record=record,
                reason=reason,
                attempts=attempts,
                now=self._clock.seconds(),
            )
        )

    def retry_dead(self, sink: str, numbers: Sequence[int] | None = None) -> Deferred[int]:
        """
        Have dead letters tried again: the sink finds them with :meth:`dead`, and either drops or
        buries them anew.

        :param numbers: which; ``None`` for all.
        :returns: a Deferred of how many there were.
        """
        return self._change(partial(dead.retry, sink=sink, numbers=numbers))

    def drop_dead(self, sink: str, numbers: Sequence[int] | None = None) -> Deferred[int]:
        """
        Forget dead letters.

        :param numbers: which; ``None`` for all.
        :returns: a Deferred of how many there were.
        """
        return self._change(partial(dead.drop, sink=sink, numbers=numbers))

    def _change(self, change: Change) -> Deferred[Any]:
        unusable = self._unusable()
        return self._commits.change(change) if unusable is None else fail(unusable)

    # Reading

    def when_beyond(self, position: int) -> Deferred[None]:
        """A Deferred that fires when there is a record after a position."""
        unusable = self._unusable()
        return self._commits.when_beyond(position) if unusable is None else fail(unusable)

    def read(
        self,
        after: int | None = None,
        *,
        wanted: Filter = EVERYTHING,
        count: int = BATCH,
        size: int = BATCH_BYTES,
    ) -> Deferred[Batch]:
        """The records after a position: see :meth:`.Reader.read`."""
        return self._read(Reader.read, after, wanted=wanted, count=count, size=size)

    def read_for(
        self,
        sink: str,
        after: int | None = None,
        *,
        wanted: Filter = EVERYTHING,
        count: int = BATCH,
        size: int = BATCH_BYTES,
    ) -> Deferred[Batch]:
        """The records that a sink has not acknowledged: see :meth:`.Reader.read_for`."""
        return self._read(Reader.read_for, sink, after, wanted=wanted, count=count, size=size)

    def dead(
        self,
        sink: str | None = None,
        *,
        retrying: bool = False,
        after: int = 0,
        count: int = BATCH,
    ) -> Deferred[list[DeadLetter]]:
        """Dead letters: see :meth:`.Reader.dead`."""
        return self._read(Reader.dead, sink, retrying=retrying, after=after, count=count)

    def last_heard(self) -> Deferred[dict[str, LastHeard]]:
        """What came last of each VM, by its name."""
        return self._read(Reader.last_heard)

    def _read(self, method: Callable[..., _T], *args: Any, **options: Any) -> Deferred[_T]:
        unusable = self._unusable()
        if unusable is None and self._reading is None:
            unusable = SpoolClosedError("the spool is not open yet")
        if unusable is not None:
            return fail(unusable)
        reading = self._reader.run(partial(method, self._reading, *args, **options))
        self._reads.add(reading)
        return reading.addBoth(self._has_read, reading)

    def _has_read(self, result: Any, reading: Deferred[Any]) -> Any:
        self._reads.discard(reading)
        if isinstance(result, Failure) and result.check(SpoolStorageError):
            self._fail(result)
        return result


def make_spool(
    reactor: Any,
    directory: str,
    limits: SpoolLimits = DEFAULT_LIMITS,
    *,
    failed: Callable[[SpoolError], object] = lambda problem: None,
    observe: Callable[[float], object] = lambda seconds: None,
) -> Spool:
    """A spool with threads of its own; the parameters are those of :class:`Spool`."""
    writer, reader = Worker(reactor, "spool writer"), Worker(reactor, "spool reader")
    return Spool(reactor, directory, writer, reader, limits, failed=failed, observe=observe)
