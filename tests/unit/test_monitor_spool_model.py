"""The spool against a plain model: a list of records, a number for each sink.

Whatever is put in, read, acknowledged, dropped, forgotten, closed and cut off, in any order: each
sink gets every record in order, or is told that it does not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.internet.defer import Deferred

from support.deferreds import failure, pending, success
from support.spool import SpoolWorld, copy_spool, text_of
from txqmp.monitor.spool import SpoolClosedError, SpoolLimits, Start, WhenFull


SINKS = ("a", "b", "c")

sinks = st.sampled_from(SINKS)


@attrs.define
class Sink:
    """What the model knows of a sink."""

    acked: int
    dropped: int = 0
    dead: list[int] = attrs.Factory(list)


@attrs.define
class Waiting:
    text: str
    size: int
    time: float
    deferred: Deferred[int]


class SpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="txqmp-spool-")
        self.homes = 0
        self.texts = 0
        #: Every record that was ever committed; its position is its place, from 1 on.
        self.records: list[tuple[str, int, float]] = []
        self.first = 1
        self.sinks: dict[str, Sink] = {}
        self.waiting: list[Waiting] = []
        self.world: SpoolWorld

    @initialize(
        when_full=st.sampled_from(WhenFull),
        max_bytes=st.integers(500, 2000),
        keep_bytes=st.sampled_from([0, 300, 5000]),
        keep_seconds=st.sampled_from([0.0, 10.0]),
    )
    def begin(self, **limits: Any) -> None:
        self.limits = SpoolLimits(**limits, max_wait=1e9, max_dead=3)
        self.open(self.home())

    def home(self) -> str:
        return os.path.join(self.directory, str(self.homes))

    def open(self, home: str) -> None:
        now = self.world.clock.seconds() if hasattr(self, "world") else None
        self.world = SpoolWorld(home, self.limits)
        if now is not None:
            self.world.clock.rightNow = now
        self.world.start()
        self.settle()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            for each in self.waiting:
                failure(each.deferred, SpoolClosedError)
        shutil.rmtree(self.directory)

    # The model

    @property
    def last(self) -> int:
        return len(self.records)

    def size(self, after: int) -> int:
        """How large the records after a position are."""
        return sum(size for _, size, _ in self.records[after:])

    def needed(self) -> int:
        """Up to where nobody needs the records."""
        return max(
            self.first - 1, min((each.acked for each in self.sinks.values()), default=1 << 40)
        )

    def take(self, waiting: list[Waiting]) -> int:
        """Commit the first of those that wait."""
        limit = self.limits.max_bytes - self.size(min(self.needed(), self.last))
        taken = 0
        for each in waiting:
            limit -= each.size
            if limit < 0 and self.sinks and self.limits.when_full is WhenFull.BLOCK:
                break
            taken += 1
        self.records += [(each.text, each.size, each.time) for each in waiting[:taken]]
        return taken

    def trim(self) -> None:
        needed = min(self.needed(), self.last)
        now = self.world.clock.seconds()
        through = self.first - 1
        while through < needed:
            _, _, time = self.records[through]
            if self.limits.keep_seconds and time > now - self.limits.keep_seconds:
                break
            if self.size(through + 1) < self.limits.keep_bytes:
                break
            through += 1
        while self.size(through) > self.limits.max_bytes:
            through += 1
        for each in self.sinks.values():
            each.dropped += max(0, through - max(each.acked, self.first - 1))
        self.first = through + 1

    def settle(self) -> None:
        """What a commit does, with whatever waits."""
        before = self.last
        taken = self.take(self.waiting)
        done, self.waiting = self.waiting[:taken], self.waiting[taken:]
        self.trim()
        for position, each in enumerate(done, before + 1):
            assert success(each.deferred) == position

    # What is done to both

    @rule(sizes=st.lists(st.integers(100, 600), min_size=1, max_size=6), together=st.booleans())
    def put(self, sizes: list[int], together: bool) -> None:
        """One after the other, or while a commit runs."""
        blocked = bool(self.waiting)
        items = []
        for size in sizes:
            self.texts += 1
            items.append(self.world.item(str(self.texts), size=min(size, self.limits.max_bytes)))
        if together:
            self.world.writer.hold()
        deferreds = [self.world.spool.put(each) for each in items]
        new = [
            Waiting(text_of(each.data), each.size, each.time, deferred)
            for each, deferred in zip(items, deferreds, strict=True)
        ]
        if together:
            self.world.writer.release()
            groups = [new[:1], new[1:]]
        else:
            groups = [[each] for each in new]
        for group in groups:
            blocked = blocked or bool(self.waiting)
            self.waiting += group
            if group and not blocked:
                self.settle()

    @rule(sink=sinks, start=st.sampled_from(Start))
    def add(self, sink: str, start: Start) -> None:
        acked = self.last if start is Start.END else self.first - 1
        model = self.sinks.setdefault(sink, Sink(acked))
        assert success(self.world.spool.add_sink(sink, start)) == model.acked
        self.settle()

    @precondition(lambda self: self.sinks)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        sink = data.draw(st.sampled_from(sorted(self.sinks)))
        del self.sinks[sink]
        assert success(self.world.spool.forget_sink(sink)) is None
        self.settle()

    @precondition(lambda self: self.sinks)
    @rule(
        data=st.data(),
        count=st.integers(1, 8),
        size=st.integers(1, 3000),
        part=st.booleans(),
        bury=st.booleans(),
    )
    def deliver(self, data: st.DataObject, count: int, size: int, part: bool, bury: bool) -> None:
        sink = data.draw(st.sampled_from(sorted(self.sinks)))
        model = self.sinks[sink]
        batch = success(self.world.spool.read_for(sink, count=count, size=size))
        before = model.acked
        if model.acked < self.first - 1:
            assert batch.gap is not None
            assert (batch.gap.first, batch.gap.last) == (model.acked + 1, self.first - 1)
            assert batch.gap.since is not None
            assert batch.gap.until is not None
            before = self.first - 1
        else:
            assert batch.gap is None
        positions = [each.position for each in batch.records]
        assert positions == list(range(before + 1, batch.through + 1))
        assert len(positions) <= count
        assert positions or before == self.last
        for each in batch.records:
            assert (text_of(each.data), each.time) == self.records[each.position - 1][::2]
        if bury and batch.records:
            record = batch.records[0]
            success(self.world.spool.bury(sink, record, "no", 1))
            if record.position not in model.dead:
                model.dead = [*model.dead, record.position][-3:]
            self.settle()
        through = batch.through
        if part and through > model.acked:
            through = data.draw(st.integers(model.acked, through))
        success(self.world.spool.ack(sink, through))
        model.acked = max(model.acked, through)
        self.settle()

    @precondition(lambda self: self.sinks)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        sink = data.draw(st.sampled_from(sorted(self.sinks)))
        model = self.sinks[sink]
        position = data.draw(st.integers(0, self.last))
        again = max(0, model.acked - max(position, self.first - 1))
        assert success(self.world.spool.rewind(sink, position)) == again
        model.acked -= again
        self.settle()

    @rule(seconds=st.integers(-20, 20))
    def wait(self, seconds: int) -> None:
        """Or the clock is set back."""
        if seconds > 0:
            self.world.clock.advance(seconds)
        else:
            self.world.clock.rightNow += seconds

    @rule()
    def reopen(self) -> None:
        self.world.close()
        for each in self.waiting:
            failure(each.deferred, SpoolClosedError)
        self.waiting = []
        self.open(self.home())

    @rule(puts=st.integers(0, 3))
    def crash(self, puts: int) -> None:
        """What is not committed is gone, all else is there."""
        self.world.writer.hold()
        lost = [self.world.spool.put(self.world.item("lost")) for _ in range(puts)]
        before = self.home()
        self.homes += 1
        copy_spool(before, self.home())
        for each in lost:
            pending(each)
        # The one that is cut off goes away with its files; what becomes of it is of no interest.
        self.world.writer.release()
        self.world.spool.close()
        shutil.rmtree(before)
        for deferred in [*lost, *(each.deferred for each in self.waiting)]:
            deferred.addErrback(lambda _: None)
        self.waiting = []
        self.open(self.home())

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "world"):
            return  # it has not begun
        state = self.world.spool.state
        assert (state.first, state.last) == (self.first, self.last)
        assert state.size == self.size(self.first - 1)
        if self.limits.when_full is WhenFull.DROP_OLDEST:
            assert state.size <= self.limits.max_bytes
        assert {each.name: (each.acked, each.dropped, each.dead) for each in state.sinks} == {
            name: (each.acked, each.dropped, len(each.dead)) for name, each in self.sinks.items()
        }
        for each in state.sinks:
            behind = max(each.acked, self.first - 1)
            assert each.lag == self.last - behind
            assert each.lag_bytes == self.size(behind)
        assert self.world.spool.waiting == len(self.waiting)
        assert self.world.spool.blocked == bool(self.waiting)
        records = success(self.world.spool.read(count=1 << 20)).records
        assert [(text_of(each.data), each.time) for each in records] == [
            record[::2] for record in self.records[self.first - 1 :]
        ]
        assert self.world.failures == []


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=50, stateful_step_count=40)
# It takes seconds, unless it fails: then a shorter example is looked for.
pytest.mark.timeout(300)(TestSpool)
