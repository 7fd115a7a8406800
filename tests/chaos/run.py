"""A run: everything begins, fails, calms down, ends, and is compared."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos import evidence
from chaos.check import Numbers, Received, numbers, received
from chaos.helper import Helper
from chaos.place import BATCHES, BUS, FILE, LIMIT, SINGLE, Daemon, Place, declare, messages
from chaos.plan import SINGLES, Plan, name_of
from support.broker import RabbitMQ


EVERY = 10.0
"""How often it is told how it stands, in seconds."""

LOOK = 0.05
"""How often it is looked whether something has become so, in seconds."""

Say = Callable[[str], object]


@dataclass
class Outcome:
    """
    What came of a run.

    :ivar faults: what went wrong with posts, and how often.
    :ivar drained: how long it took until everything was delivered, in seconds.
    """

    numbers: Numbers
    received: list[Received]
    lives: int
    kills: int
    broker_kills: int
    posts: int
    faults: Counter[str]
    drained: float
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """How many events did not arrive that were committed, of all sinks together."""
        return sum(each.lost for each in self.received)


def run(plan: Plan, say: Say, directory: str | None = None) -> Outcome:
    """
    Have it happen.

    :param say: called with a line for people, as it goes on.
    :param directory: where to leave all files; by default they are removed.
    """
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="txqmp-chaos-"))
        place = Place(Path(directory))
        broker = None
        if plan.broker_kills is not None:
            broker = stack.enter_context(_running(say))
        return _Run(plan, say, place, broker).go()


@contextlib.contextmanager
def _running(say: Say) -> Iterator[RabbitMQ]:
    broker = RabbitMQ()
    try:
        broker.start()
        declare(broker)
        # A quorum queue that was made just now does not survive a crash.
        _until(lambda: broker.would_remember("chaos"), LIMIT, "the queue is written down")
        say("the broker runs")
        yield broker
    finally:
        broker.stop()


class _Run:
    def __init__(self, plan: Plan, say: Say, place: Place, broker: RabbitMQ | None) -> None:
        self._plan = plan
        self._say = say
        self._place = place
        self._broker = broker
        self._daemon = Daemon(place)
        self._kills = 0
        self._broker_kills = 0
        self._problems: list[str] = []
        self._restart: threading.Thread | None = None

    def go(self) -> Outcome:
        plan, place = self._plan, self._place
        receiver = Helper(
            "receiver",
            place.here / "receiver.log",
            seed=plan.seed,
            directory=str(place.here),
            key=place.key,
            paths=[BATCHES, SINGLE],
        )
        with receiver:
            place.configure(receiver.answer, self._broker)
            vms = Helper(
                "vms",
                place.here / "vms.log",
                seed=plan.seed,
                vms=plan.vms,
                dialling=plan.dialling,
                rate=plan.rate,
                directory=str(place.here / "vms"),
                dial=place.dial_in,
                record=str(place.record),
            )
            with vms, self._daemon:
                self._daemon.start()
                # Each VM is told of twice at least: that it came, and how it is.
                _until(self._all_connected, LIMIT, "the daemon watches all VMs")
                self._say(f"{plan.vms} VMs are watched")
                vms.tell("begin")
                self._happen(vms, receiver)
                vms.tell("quiet")
                receiver.tell("calm")
                drained = self._drain(vms, receiver)
                counts = receiver.tell("count")
                self._end()
            # What it has told at its end was to be delivered too.
            self._check_delivered()
        faults: Counter[str] = Counter()
        for path in counts.values():
            faults.update(path)
        posts = faults.pop("posts", 0)
        if faults.pop("not signed", 0):
            self._problems.append("posts were not signed")
        self._say("comparing")
        return self._compare(faults, posts, drained)

    # What happens

    def _happen(self, vms: Helper, receiver: Helper) -> None:
        """Everything fails, at its time."""
        plan = self._plan
        what: list[tuple[float, Callable[[], object]]] = [
            *((moment, self._kill) for moment in plan.kill_moments()),
            *((moment, self._kill_broker) for moment in plan.broker_moments()),
            *((EVERY * (n + 1), lambda: self._tell(vms, receiver)) for n in range(1000)),
            (plan.seconds, lambda: None),
        ]
        what.sort(key=lambda each: each[0])
        self._began = time.monotonic()
        for moment, happen in what:
            if moment > plan.seconds:
                break
            time.sleep(max(0.0, self._began + moment - time.monotonic()))
            happen()

    def _kill(self) -> None:
        if not self._daemon.is_running:
            self._problems.append("the daemon had ended by itself")
        self._daemon.kill()
        self._kills += 1
        self._daemon.start()

    def _kill_broker(self) -> None:
        assert self._broker is not None
        if self._restart is not None:
            self._restart.join()
        self._broker.kill()
        self._broker_kills += 1
        self._restart = threading.Thread(target=self._broker.start)
        self._restart.start()

    def _drain(self, vms: Helper, receiver: Helper) -> float:
        """Wait until everything is delivered; return how long that took, in seconds."""
        if self._restart is not None:
            self._restart.join()
        begun = told = time.monotonic()
        while not self._is_delivered():
            now = time.monotonic()
            if now - begun > self._plan.drain:
                self._problems.append(f"not all was delivered within {self._plan.drain:g} s")
                break
            if now - told > EVERY:
                told = now
                self._tell(vms, receiver)
            time.sleep(LOOK)
        self._tell(vms, receiver)
        return time.monotonic() - begun

    def _end(self) -> None:
        if not self._daemon.is_running:
            self._problems.append("the daemon had ended by itself")
            return
        code = self._daemon.stop()
        if code not in (0, -signal.SIGTERM):  # twistd ends as it was told to, by the signal
            self._problems.append(f"the daemon ended with {code}")

    # How it stands

    def _all_connected(self) -> bool:
        if not self._daemon.is_running:
            log = (self._place.here / "daemon.log").read_text(errors="replace")
            raise RuntimeError(f"the daemon does not start:\n{log}")
        state = self._place.state()
        return state is not None and state.last >= 2 * self._plan.vms

    def _is_delivered(self) -> bool:
        state = self._place.state()
        return state is not None and all(sink.acked == state.last for sink in state.sinks)

    def _check_delivered(self) -> None:
        state = self._place.state()
        if state is None:
            self._problems.append("the spool cannot be read")
            return
        for sink in state.sinks:
            if sink.acked != state.last:
                left = state.last - sink.acked
                self._problems.append(f"{sink.name}: {left} events were left at the daemon's end")
            if sink.dropped or sink.dead:
                what = f"{sink.dropped} events were dropped, {sink.dead} put aside"
                self._problems.append(f"{sink.name}: {what}")

    def _tell(self, vms: Helper, receiver: Helper) -> None:
        state = self._place.state()
        if state is None:
            return
        sinks = "  ".join(f"{sink.name} {sink.acked:,}" for sink in state.sinks)
        counts = receiver.tell("count")
        faults = sum(sum(path.values()) - path.get("posts", 0) for path in counts.values())
        self._say(
            f"{time.monotonic() - self._began:4.0f} s: raised {vms.tell('count'):,} "
            f" committed {state.last:,}  delivered {sinks} "
            f" kills {self._kills}+{self._broker_kills}  faults {faults}"
        )

    # What came of it

    def _compare(self, faults: Counter[str], posts: int, drained: float) -> Outcome:
        place = self._place
        spool = evidence.committed(place.spool)
        self._problems += spool.problems
        found = []
        singles = frozenset(name_of(number) for number in range(SINGLES))
        torn: list[str] = []
        found.append(received(FILE, evidence.lines(place.lines, torn), spool))
        for sink, vms in ((BATCHES, None), (SINGLE, singles)):
            arrivals = evidence.posts(place.posts(sink), spool.texts, torn)
            found.append(received(sink, arrivals, spool, vms))
        if self._broker is not None:
            found.append(received(BUS, messages(self._broker), spool))
        self._problems += torn
        return Outcome(
            numbers=numbers(spool, evidence.raised(place.record)),
            received=found,
            lives=self._daemon.lives,
            kills=self._kills,
            broker_kills=self._broker_kills,
            posts=posts,
            faults=faults,
            drained=drained,
            problems=self._problems,
        )


def _until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(LOOK)
