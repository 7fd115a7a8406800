"""What goes wrong around the daemon: it says so, ends as it should, loses nothing in silence."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemon import RUNNERS, Daemon
from support.disks import failing_disk, read_only, require_mounts, small
from support.qemu import RealQEMU
from support.receiver import Receiver
from support.told import Told, assert_whole, names


pytest_plugins = ["support.receiver", "support.sessions"]
pytestmark = pytest.mark.timeout(180)

EVERY_RUNNER = pytest.mark.parametrize("runner", [None, *RUNNERS])


def watch(qemu: RealQEMU, state: Path, **options: object) -> Daemon:
    """Start a daemon that keeps its state, and prints."""
    words = (f"a={qemu.path()}", "--state-dir", str(state))
    return Daemon(*words, **options)  # type: ignore[arg-type]


def assert_told(daemon: Daemon, problem: str) -> None:
    """The log says in a line why the daemon ends, and shows no insides."""
    (line,) = [line for line in daemon.log.splitlines() if "the daemon ends: " in line]
    assert re.search(problem, line), line
    assert "Traceback" not in daemon.log
    assert "Unhandled" not in daemon.log


@EVERY_RUNNER
def test_a_second_daemon_on_the_same_state(
    runner: str | None, tmp_path: Path, qemu: RealQEMU
) -> None:
    with watch(qemu, tmp_path, runner=None) as first:
        first.expect("a", "snapshot")
        with watch(qemu, tmp_path, runner=runner) as second:
            assert second.wait() == 1
            assert_told(second, rf"process {first.pid} holds the spool in {tmp_path}/spool$")
        # The first one has not noticed.
        qemu.execute("cont")
        first.expect("a", "RESUME")
        assert first.stop() == 0
        assert_whole(first.records)


def test_a_spool_that_is_none(tmp_path: Path, qemu: RealQEMU) -> None:
    """It is left as it is: it may be all that there is of somebody's data."""
    (tmp_path / "spool").mkdir()
    database = tmp_path / "spool" / "spool.db"
    database.write_bytes(b"This is no database. " * 1000)
    with watch(qemu, tmp_path, runner=None) as daemon:
        assert daemon.wait() == 1
        assert_told(daemon, rf"{database}: file is not a database")
    assert database.read_bytes() == b"This is no database. " * 1000


def test_a_spool_that_is_damaged(tmp_path: Path, qemu: RealQEMU) -> None:
    with watch(qemu, tmp_path, runner=None) as daemon:
        daemon.expect("a", "snapshot")
        for _ in range(20):
            qemu.execute("cont")
            qemu.execute("stop")
            daemon.expect("a", "STOP")
        assert daemon.stop() == 0
    database = tmp_path / "spool" / "spool.db"
    with database.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    damaged = database.read_bytes()
    with watch(qemu, tmp_path, runner=None) as daemon:
        assert daemon.wait() == 1
        assert_told(daemon, rf"{tmp_path}/spool.*(malformed|corrupt)")
    assert database.read_bytes() == damaged


def test_a_state_directory_that_is_read_only(tmp_path: Path, qemu: RealQEMU) -> None:
    require_mounts()
    state = tmp_path / "state"
    state.mkdir()
    with watch(qemu, state, runner=None, prefix=read_only(state)) as daemon:
        assert daemon.wait() == 2
        assert daemon.log == f"qmp-monitor: --state-dir: no permission to write in {state}\n"


def test_a_spool_that_is_read_only(tmp_path: Path, qemu: RealQEMU) -> None:
    """The directory is not, and so it is not found before the daemon runs."""
    require_mounts()
    with watch(qemu, tmp_path, runner=None) as daemon:
        daemon.expect("a", "snapshot")
        assert daemon.stop() == 0
    with watch(qemu, tmp_path, runner=None, prefix=read_only(tmp_path / "spool")) as daemon:
        assert daemon.wait() == 1
        assert_told(daemon, rf"{tmp_path}/spool/spool\.\w+: .*[Rr]ead-?only")


def test_a_disk_that_is_full(tmp_path: Path, qemu: RealQEMU) -> None:
    """What was told before is all that was committed, and the next daemon goes on there."""
    require_mounts()
    state = tmp_path / "state"
    state.mkdir()
    with watch(qemu, state, runner=None, prefix=small(state, free=700_000)) as daemon:
        daemon.expect("a", "snapshot")
        while "ended with" not in daemon.log:
            qemu.execute("cont")
            qemu.execute("stop")
        assert "ended with 1\n" in daemon.log
        assert_told(daemon, rf"{state}/spool/.*: database or disk is full")
        # Now there is room.
        gap = daemon.expect("a", "gap")
        assert gap.data["reason"] == "the daemon did not run"
        daemon.expect("a", "snapshot")
        assert daemon.stop() == 0
    told = list({event.id: event for event in daemon.records}.values())
    assert_whole(told)
    assert len(told) > 20


@EVERY_RUNNER
def test_a_disk_that_fails(runner: str | None, tmp_path: Path, qemu: RealQEMU) -> None:
    """fsync(2) returns EIO: what was not committed before is in no spool, and is not told."""
    state = tmp_path / "state"
    told: list[Told] = []
    with watch(qemu, state, runner=runner, env=failing_disk(tmp_path)) as daemon:
        daemon.expect("a", "snapshot")
        qemu.execute("cont")
        daemon.expect("a", "RESUME")
        daemon.send(signal.SIGUSR1)
        qemu.execute("stop")
        assert daemon.wait() == 1
        assert_told(daemon, rf"{state}/spool.*disk I/O error")
        told += daemon.records
    assert names(told) == ["connected", "snapshot", "RESUME"]
    with watch(qemu, state, runner=runner) as daemon:
        gap = daemon.expect("a", "gap")
        assert gap.data["reason"] == "the daemon did not run"
        assert daemon.expect("a", "snapshot").data["query-status"]["status"] == "paused"
        daemon.stop()
        told += daemon.records
    assert_whole({event.id: event for event in told}.values())


# Full spools

LIMITED = """
[monitor]
state_dir = "state"
[[source]]
dial = "{qemu}"
name = "a"
[spool]
max_bytes = "40 kB"
keep_bytes = 0
max_wait = 0.2
when_full = "{when_full}"
[[sink]]
type = "stdout"
[[sink]]
name = "slow"
type = "webhook"
url = "{url}"
allow_plaintext = true
"""


@contextmanager
def limited(place: Path, qemu: RealQEMU, receiver: Receiver, when_full: str) -> Iterator[Daemon]:
    """A daemon with a small spool, which prints, and whose webhook is down."""
    receiver.answers = [500] * 10_000
    config = place / "qmp-monitor.toml"
    config.write_text(LIMITED.format(qemu=qemu.path(), url=receiver.url, when_full=when_full))
    with Daemon("--config", str(config), runner=None) as daemon:
        daemon.expect("a", "snapshot")
        yield daemon
        assert "Traceback" not in daemon.log


def recover(daemon: Daemon, receiver: Receiver) -> None:
    """The webhook takes what it gets, and gets it now."""
    receiver.answers.clear()
    daemon.send(signal.SIGHUP)


def test_a_full_spool_drops_what_is_oldest_for_the_slow_sink_alone(
    place: Path, qemu: RealQEMU, receiver: Receiver
) -> None:
    with limited(place, qemu, receiver, "drop_oldest") as daemon:
        for _ in range(100):
            qemu.execute("cont")
            qemu.execute("stop")
            daemon.expect("a", "STOP")
        recover(daemon, receiver)
        daemon.wait_for_log("slow: delivers again")
        qemu.execute("cont")
        daemon.expect("a", "RESUME")
        assert daemon.stop() == 0
        printed = daemon.records
        assert re.search(r"slow: \d+ events are lost: the spool was full", daemon.log)
    # Whoever was in time has missed nothing, and is told of nothing.
    assert_whole(printed)
    assert len(printed) == 204
    gaps = [told for told in receiver.taken if told.vm == "qmp-monitor"]
    assert gaps
    missing: set[int] = set()
    for gap in gaps:
        assert gap.name == "gap"
        assert (gap.data["sink"], gap.data["reason"]) == ("slow", "the spool was full")
        lost = range(int(gap.data["first"]), int(gap.data["last"]) + 1)
        assert gap.data["count"] == len(lost)
        missing.update(lost)
    came = [told for told in receiver.taken if told.vm == "a"]
    assert {told.number for told in came} | missing == {told.number for told in printed}
    assert not {told.number for told in came} & missing
    numbers = [told.number for told in receiver.taken]
    assert numbers == sorted(numbers)


def test_a_full_spool_that_blocks_says_what_it_does_not_take(
    place: Path, qemu: RealQEMU, receiver: Receiver
) -> None:
    with limited(place, qemu, receiver, "block") as daemon:
        while "records are lost: " not in daemon.log:
            qemu.execute("cont")
            qemu.execute("stop")
        recover(daemon, receiver)
        daemon.wait_for_log("slow: delivers again")
        while "dropped" not in names(daemon.catch_up()):
            # No faster than they are taken: else there is never room.
            count = len(receiver.seen)
            qemu.execute("cont")
            qemu.execute("stop")
            receiver.wait_for(count + 2)
        assert daemon.stop() == 0
        printed = daemon.records
    # Every number is there, or in the range of a word that says how many are not.
    numbers = {told.seq for told in printed}
    missing = set(range(1, max(numbers) + 1)) - numbers
    dropped = [told.data for told in printed if told.name == "dropped"]
    assert sum(data["count"] for data in dropped) == len(missing) > 0
    for data in dropped:
        found = re.search(r"records (\d+) to (\d+) were lost: there was no room", data["reason"])
        assert found is not None
        missing -= set(range(int(found[1]), int(found[2]) + 1))
    assert not missing
    # Both sinks have the same: the slow one held up all.
    assert receiver.taken == printed


def test_a_spool_of_a_later_version(tmp_path: Path, qemu: RealQEMU) -> None:
    with watch(qemu, tmp_path, runner=None) as daemon:
        daemon.expect("a", "snapshot")
        assert daemon.stop() == 0
    db = sqlite3.connect(tmp_path / "spool" / "spool.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with watch(qemu, tmp_path, runner=None) as daemon:
        assert daemon.wait() == 1
        assert_told(daemon, "is of version 99, .* made by a later one")
