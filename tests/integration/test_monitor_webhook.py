"""``--webhook``, with a receiver that is sometimes good."""

from __future__ import annotations

import signal
import time

import pytest

from support.daemon import Daemon
from support.qemu import RealQEMU
from support.receiver import Receiver


pytest_plugins = ["support.receiver"]
pytestmark = pytest.mark.timeout(180)


def test_posts(receiver: Receiver, qemu: RealQEMU) -> None:
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(2)
        for _ in range(5):
            qemu.execute("cont")
            qemu.execute("stop")
        receiver.wait_for(12)
        assert daemon.stop() == -signal.SIGTERM
        assert [told for _, told in receiver.seen] == daemon.records
        assert daemon.of("a")[-1] == "disconnected"
        # One connection, kept: every body was read.
        assert receiver.connections == 1
        assert "13 events were delivered, 0 put aside, 0 lost; 0 of 13 attempts" in daemon.log
        assert "were not delivered" not in daemon.log
        assert "secret" not in daemon.log


def test_a_receiver_that_is_sometimes_good(receiver: Receiver, qemu: RealQEMU) -> None:
    receiver.answers = [500, 200, 303, "cut", "flood", 422]
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(6)
        qemu.execute("cont")
        receiver.wait_for(7)
        daemon.stop()
        assert [(answer, told.seq) for answer, told in receiver.seen[:7]] == [
            (500, 1),
            (200, 1),
            (303, 2),
            ("cut", 2),
            ("flood", 2),
            (422, 2),
            (200, 3),
        ]
        # Whoever has it twice can tell.
        assert len({told.id for _, told in receiver.seen[2:6]}) == 1
        assert receiver.others == []
        assert f"event {daemon.records[1].id} of a is put aside (rejected): " in daemon.log
        assert "3 events were delivered, 1 put aside" in daemon.log


@pytest.mark.parametrize("how", ["hang", "hang in the body"])
def test_a_receiver_that_hangs_slows_nobody(receiver: Receiver, qemu: RealQEMU, how: str) -> None:
    receiver.answers = [how]
    with Daemon(f"a={qemu.path()}", "--webhook", receiver.url) as daemon:
        receiver.wait_for(1)
        daemon.expect("a", "snapshot")
        for _ in range(50):
            qemu.execute("cont")
            qemu.execute("stop")
            daemon.expect("a", "STOP")
        began = time.monotonic()
        assert daemon.stop() == -signal.SIGTERM
        assert time.monotonic() - began < 20
        assert "events were not delivered and are lost" in daemon.log
        assert "Traceback" not in daemon.log


def test_nobody_receives(qemu: RealQEMU) -> None:
    with Daemon(f"a={qemu.path()}", "--webhook", "http://127.0.0.1:9/") as daemon:
        daemon.expect("a", "snapshot")
        daemon.wait_for_log("no connection: Connection was refused")
        assert daemon.stop() == -signal.SIGTERM
        assert "3 events were not delivered and are lost: no state directory" in daemon.log
