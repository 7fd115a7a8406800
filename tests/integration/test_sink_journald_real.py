"""Events in a real journal: a systemd-journald of our own, which sees other directories."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from support.disks import require_mounts
from support.outgoing import event
from support.programs import require
from support.waiting import until, within
from txqmp.monitor.sinks.journald import journald_delivery
from txqmp.monitor.sinks.settings import JournaldSettings, SyslogFormat, SyslogSettings
from txqmp.monitor.sinks.syslog import syslog_delivery


NAMESPACE = "txqmp-test"

#: Hides the system's own directories, and becomes the journal.
SCRIPT = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mkdir -p /run/log/journal /run/systemd
exec "$0" "$1"
"""


class Journal:
    """The journal's process, and the paths in its world."""

    def __init__(self, daemon: str) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--mount", "/bin/sh", "-c", SCRIPT, daemon, NAMESPACE],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        root = Path(f"/proc/{self.process.pid}/root")
        self.directory = root / f"run/systemd/journal.{NAMESPACE}"

    @property
    def ready(self) -> bool:
        assert self.process.poll() is None
        return (self.directory / "socket").exists() and (self.directory / "dev-log").exists()

    def entries(self) -> list[dict[str, str]]:
        """What is in the journal of ours."""
        said = subprocess.run(
            [
                *("nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt"),
                *("journalctl", f"--namespace={NAMESPACE}", "--identifier=qmp-monitor"),
                *("--all", "--output=json"),
            ],
            capture_output=True,
            check=False,
        )
        return [json.loads(line) for line in said.stdout.splitlines()]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def journal() -> Iterator[Journal]:
    require_mounts()
    require("nsenter")
    require("journalctl", package="systemd")
    daemon = "/usr/lib/systemd/systemd-journald"
    if not os.path.exists(daemon):
        pytest.skip("there is no systemd-journald")
    journal = Journal(daemon)
    yield journal
    journal.close()


@pytest_twisted.ensureDeferred
async def test_the_journal_reads_us(journal: Journal) -> None:
    await until(lambda: journal.ready)
    path = str(journal.directory / "socket")
    delivery = journald_delivery(reactor, JournaldSettings(path=path))
    large = event(2, data=b'{"text":"%b"}' % (b"x" * 400_000))
    odd = event(3, "GUEST_PANICKED", called="a\nPRIORITY=7")
    many = [event(number) for number in range(4, 100)]
    await within(delivery.deliver([event(1, called="web"), large, odd, *many]))
    await within(delivery.stop())
    await until(lambda: len(journal.entries()) == 99)
    first, second, third, *_ = journal.entries()
    assert first["MESSAGE"] == "web: STOP"
    assert first["PRIORITY"] == "5"
    assert first["TXQMP_ID"] == event(1).id
    assert first["TXQMP_EVENT"] == event(1).text.decode()
    assert second["TXQMP_EVENT"] == large.text.decode()
    assert (third["TXQMP_VM"], third["PRIORITY"]) == ("a\nPRIORITY=7", "2")


@pytest_twisted.ensureDeferred
async def test_the_journal_as_a_system_log(journal: Journal) -> None:
    """What it reads is what ``syslog(3)`` writes."""
    await until(lambda: journal.ready)
    path = str(journal.directory / "dev-log")
    settings = SyslogSettings(path=path, format=SyslogFormat.RFC3164, facility="local3")
    delivery = syslog_delivery(reactor, settings)
    await within(delivery.deliver([event(1, "BLOCK_IO_ERROR")]))
    await within(delivery.stop())
    await until(lambda: len(journal.entries()) == 1)
    (entry,) = journal.entries()
    assert entry["MESSAGE"] == event(1, "BLOCK_IO_ERROR").text.decode()
    assert (entry["PRIORITY"], entry["SYSLOG_FACILITY"]) == ("3", "19")
    assert entry["SYSLOG_PID"] == str(os.getpid())
