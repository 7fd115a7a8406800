"""The HTTP face as a process of its own, with a daemon behind it that is not there.

``python tests/support/webface.py --story`` is a page to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


if __name__ == "__main__":  # then its own directory is on the path, and this is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from twisted.internet import stdio
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver

from support.daemon import LIMIT, Output
from txqmp.fleet.records import timestamp, utc
from txqmp.fleet.vm import VMState
from txqmp.monitor.metrics import Metrics
from txqmp.monitor.pump import PumpState
from txqmp.monitor.web.rates import INTERVAL, SPAN, RateMeter
from txqmp.monitor.web.service import WebService
from txqmp.monitor.web.source import (
    ConfigStatus,
    FeedBatch,
    FeedEvent,
    FeedGap,
    Rates,
    Readiness,
    SinkStatus,
    SpoolStatus,
    Status,
    VMStatus,
)


class MadeUpFeed:
    """A feed that holds nothing: an event is made from its position, the same each time.

    :param make: makes it.
    :param keep: how many of the newest there are.
    """

    def __init__(
        self, make: Callable[[int], bytes], *, identity: str = "feed-1", last: int = 0, keep: int
    ) -> None:
        self.identity = identity
        self.last = last
        self._make = make
        self._keep = keep
        self._watchers: dict[Deferred[None], int] = {}

    @property
    def first(self) -> int:
        return max(1, self.last - self._keep + 1)

    def grow(self, count: int) -> None:
        """Let things happen."""
        self.last += count
        for watcher, position in list(self._watchers.items()):
            if self.last > position:
                del self._watchers[watcher]
                watcher.callback(None)

    def read(self, after: int, count: int) -> Deferred[FeedBatch]:
        begin = max(after + 1, self.first)
        gap = FeedGap(after + 1, begin - 1) if after + 1 < begin else None
        end = min(begin + count - 1, self.last)
        events = tuple(FeedEvent(each, self._make(each)) for each in range(begin, end + 1))
        return succeed(FeedBatch(gap, events, end))

    def when_beyond(self, position: int) -> Deferred[None]:
        if self.last > position:
            return succeed(None)
        watcher: Deferred[None] = Deferred(self._watchers.pop)
        self._watchers[watcher] = position
        return watcher


class MadeUpDaemon:
    """VMs that are not there, and what happens to them.

    :param names: of the VMs.
    :param size: how much there is in each event, in bytes.
    """

    def __init__(
        self, reactor: Any, names: list[str], *, size: int = 0, last: int = 0, identity: str
    ) -> None:
        self._reactor = reactor
        self._names = names
        self._filling = "x" * size
        self._started = reactor.seconds()
        self._meter = RateMeter(reactor)
        self.feed = MadeUpFeed(self._make, identity=identity, last=last, keep=5000)

    def _make(self, position: int) -> bytes:
        members = {
            "vm": self._names[position % len(self._names)],
            "seq": position,
            "session": 1,
            "time": timestamp(utc(1_795_224_000 + position)),
            "kind": "event",
            "event": "STOP" if position % 2 else "RESUME",
            "qmp": {"event": "STOP", "data": {"position": position, "text": self._filling}},
        }
        return json.dumps(members).encode()

    def happen(self, count: int) -> None:
        """Let things happen."""
        self._meter.count(count)
        self.feed.grow(count)

    def status(self) -> Status:
        count = len(self._names)
        vms = [
            VMStatus(
                name=name,
                where=f"unix:/run/vms/{number}.sock",
                state=VMState.UP,
                session=1,
                sequence=self.feed.last,
                last_event=self._reactor.seconds() - 1,
                events=self.feed.last // count,
                problem=name if "<" in name else None,
            )
            for number, name in enumerate(self._names)
        ]
        sink = SinkStatus(name="file", kind="jsonl", state=PumpState.UP, sent=self.feed.last)
        return Status(
            version="0.1.0",
            node="node7.example",
            started=self._started,
            vms=tuple(vms),
            sinks=(sink,),
            spool=SpoolStatus(events=self.feed.last, size=1 << 20, max_size=1 << 28, oldest_age=5),
            rates=self._meter.rates(),
        )

    def readiness(self) -> Readiness:
        return Readiness(config=True, spool=True, listeners=True)


# A host as there might be one

_JOB = "backup-0"
_HAPPENINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("web-01", "NIC_RX_FILTER_CHANGED", {"name": "net0", "path": "/machine/peripheral/net0"}),
    ("db-primary", "JOB_STATUS_CHANGE", {"status": "running", "id": _JOB}),
    ("win2022-ad", "RTC_CHANGE", {"offset": 3600, "qom-path": "/machine/unattached/device[9]"}),
    ("build-7", "RESET", {"guest": True, "reason": "guest-reset"}),
    ("mail", "VSERPORT_CHANGE", {"open": True, "id": "channel0"}),
    ("mail", "BALLOON_CHANGE", {"actual": 17_179_869_184}),
    ("db-primary", "BLOCK_JOB_READY", {"device": _JOB, "len": 42_949_672_960, "type": "mirror"}),
    ("files", "BLOCK_IO_ERROR", {"device": "virtio0", "operation": "write", "action": "stop",
                                 "nospace": True, "reason": "No space left on device"}),
    ("files", "STOP", {}),
    ("win2022-ad", "VNC_CONNECTED", {"client": {"host": "192.0.2.40", "service": "51034"}}),
    ("files", "RESUME", {}),
    ("vpn", "gap", {"seconds": 41.2, "reason": "the peer closed the connection"}),
    ("db-primary", "JOB_STATUS_CHANGE", {"status": "concluded", "id": _JOB}),
    ("build-7", "SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}),
]  # fmt: skip


class Story:
    """The daemon of a host that has had a lively night."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._now = now = reactor.seconds()
        self._rate = _night(now)
        self.feed = MadeUpFeed(self._make, identity="5f0c3a9b7e4c6021", last=184_211, keep=5000)

    def _make(self, position: int) -> bytes:
        vm, name, data = _HAPPENINGS[position % len(_HAPPENINGS)]
        when = timestamp(utc(self._now + (position - 184_211) * 0.37))
        own = name.islower()
        qmp = {"kind": name, "vm": vm, "data": data} if own else {"event": name, "data": data}
        members = {
            "specversion": "1.0",
            "id": f"5f0c3a9b7e4c6021-{position:020d}",
            "source": f"qmp://node7.example/{vm}",
            "type": f"txqmp.monitor.{name}" if own else f"org.qemu.qmp.{name}",
            "subject": vm,
            "time": when,
            "data": qmp,
        }
        return json.dumps(members).encode()

    def happen(self, count: int) -> None:
        self.feed.grow(count)

    def status(self) -> Status:
        return Status(
            version="0.1.0",
            node="node7.example",
            started=self._now - 9 * 86400,
            vms=tuple(_vms(self._now)),
            sinks=tuple(_sinks(self._now)),
            spool=SpoolStatus(
                events=31_907, size=96_300_000, max_size=1 << 28, oldest_age=2710.0, dropped=0
            ),
            config=ConfigStatus(successful=True, loaded=self._now - 3 * 86400),
            rates=self._rate,
        )

    def readiness(self) -> Readiness:
        return Readiness(config=True, spool=True, listeners=True)


def _night(now: float) -> Rates:
    """Quiet, then the backups begin."""
    source = random.Random(7)
    values = []
    for slot in range(int(SPAN / INTERVAL)):
        level = 3 + 26 * (45 < slot < 88) + 9 * (slot >= 88) * (118 - slot) / 30
        values.append(max(0.0, round(source.gauss(level, 1 + level / 8) * INTERVAL) / INTERVAL))
    return Rates(INTERVAL, now, tuple(values))


def _vms(now: float) -> list[VMStatus]:
    """The VMs, each with its sessions, its events, and how long ago the last one came."""
    rows: list[tuple[str, VMState, int, int, float, str | None]] = [
        ("build-7", VMState.GONE, 31, 8_120, 340, "the guest has shut down"),
        ("db-primary", VMState.UP, 1, 61_240, 2, None),
        ("files", VMState.UP, 2, 9_411, 4, None),
        ("legacy-erp", VMState.BUSY, 0, 0, 0, "the monitor says nothing: another client holds it"),
        ("mail", VMState.UP, 1, 20_377, 11, None),
        ("vpn", VMState.GAP, 4, 702, 38, "the peer closed the connection"),
        ("web-01", VMState.UP, 1, 33_018, 1, None),
        ("win2022-ad", VMState.UP, 3, 5_668, 21, None),
    ]
    return [
        VMStatus(
            name=name,
            where=f"unix:/run/qemu-server/{100 + number}.qmp",
            state=state,
            session=session,
            sequence=events + 3 * session,
            last_event=now - ago if session else None,
            events=events,
            problem=problem,
        )
        for number, (name, state, session, events, ago, problem) in enumerate(rows)
    ]


def _sinks(now: float) -> list[SinkStatus]:
    return [
        SinkStatus(name="archive", kind="jsonl", state=PumpState.UP, sent=184_211, attempts=9_872),
        SinkStatus(
            name="bus", kind="amqp", state=PumpState.UP, sent=184_209, attempts=184_209,
            lag_events=2, lag_seconds=0.4,
        ),
        SinkStatus(
            name="ops", kind="webhook", state=PumpState.FAILING, sent=152_304, attempts=152_391,
            lag_events=31_907, lag_seconds=2710.0, dead=3, next_attempt=now + 74,
            last_error="https://ops.example/qmp answered 503 Service Unavailable",
        ),
        SinkStatus(
            name="old-pager", kind="webhook", state=PumpState.DISABLED, sent=41_006,
            attempts=41_007, last_error="https://pager.example/in answered 410 Gone",
        ),
    ]  # fmt: skip


# The process


class Orders(LineReceiver):
    """Does what it is told on its standard input: how many things are to happen, on a line."""

    delimiter = b"\n"

    def __init__(self, happen: Callable[[int], object]) -> None:
        self._happen = happen

    def lineReceived(self, line: bytes) -> None:
        self._happen(int(line))


def main(words: list[str]) -> None:
    from twisted.internet import reactor

    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="tcp:9177")
    parser.add_argument("--vm", action="append", default=[])
    parser.add_argument("--identity", default="feed-1")
    parser.add_argument("--last", type=int, default=0)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--story", action="store_true")
    options = parser.parse_args(words)
    daemon: Any
    if options.story:
        daemon = Story(reactor)
    else:
        daemon = MadeUpDaemon(
            reactor,
            options.vm or ["vm1"],
            size=options.size,
            last=options.last,
            identity=options.identity,
        )
    metrics = Metrics(reactor, daemon.status)
    service = WebService(reactor, options.listen, daemon, metrics=metrics)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    if options.rate:
        LoopingCall(lambda: daemon.happen(max(1, options.rate // 50))).start(0.02)
    stdio.StandardIO(Orders(daemon.happen))
    address: Any = service.address
    sys.stdout.write(f"{getattr(address, 'port', 0)}\n")
    sys.stdout.flush()
    reactor.run()


class WebFace:
    """The process, for a test. Use it in a ``with`` statement.

    :param where: what to listen on, where it is not a port of this host's.

    :ivar port: where it listens.
    """

    def __init__(self, *words: str, port: int = 0, where: str | None = None) -> None:
        output, theirs = os.pipe()
        self._output = Output(output)
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"--listen={where or f'tcp:{port}'}", *words],
            stdin=subprocess.PIPE,
            stdout=theirs,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        os.close(theirs)
        line = self._output.line(time.monotonic() + LIMIT)
        assert line is not None, "it does not listen"
        self.port = int(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def rss(self) -> int:
        """How much memory it has, in bytes."""
        with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def happen(self, count: int) -> None:
        """Let things happen."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % count)
        self._process.stdin.flush()

    def stop(self) -> float:
        """Ask it to end; return how long that took, in seconds."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(LIMIT) in (0, -signal.SIGTERM)
        return time.monotonic() - began

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._output.close()

    def __enter__(self) -> WebFace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    main(sys.argv[1:])
