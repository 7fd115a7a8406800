"""The same events in the same order everywhere, whatever happens to the VMs and the daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from support.daemon import LIMIT, Daemon, command
from support.qemu import RealQEMU
from support.rabbitmq import PASSWORD, USER, MakeQueue, Queue, RabbitMQ
from support.receiver import Receiver
from support.told import Told, assert_whole, ids, names


pytest_plugins = ["support.rabbitmq", "support.receiver", "support.sessions"]
pytestmark = pytest.mark.timeout(240)

MakeQEMU = Callable[..., RealQEMU]

UUID = "4c4c4544-0042-3510-8051-b4c04f4d4e31"

CONFIG = """
[monitor]
node = "node7.example"
state_dir = "state"

[[source]]
listen = "{here}/in.sock"

[[source]]
dial = "{out}"
name = "out"

[[source]]
dial = "{held}"
name = "held"

[[sink]]
type = "stdout"
start = "beginning"

[[sink]]
name = "file"
type = "jsonl"
path = "events.jsonl"
start = "beginning"

[[sink]]
name = "ops"
type = "webhook"
url = "{url}"
allow_plaintext = true
start = "beginning"

[[sink]]
name = "bus"
type = "amqp"
host = "127.0.0.1"
port = {port}
user = "{user}"
password = {{ file = "password" }}
allow_plaintext = true
start = "beginning"
"""


def once(events: Iterable[Told]) -> list[Told]:
    """Without those that came again, after a crash: those must be the same."""
    found: dict[str, Told] = {}
    for event in events:
        assert found.setdefault(event.id, event) == event
    return list(found.values())


def spooled(state: Path) -> list[Told]:
    """What the daemon keeps."""
    printed, _ = command("events", "--state-dir", str(state))
    return [Told.read(line) for line in printed.splitlines()]


def drained(queue: Queue, last: str) -> list[Told]:
    """What is in a queue, up to an event, which must come."""
    found: list[Told] = []
    deadline = time.monotonic() + LIMIT
    while last not in ids(found):
        assert time.monotonic() < deadline, ids(found)
        for method, properties, body in queue.take(1000):
            told = Told.read(body)
            assert properties.message_id == told.id
            assert method.routing_key.startswith(f"qmp.{told.name}.")
            found.append(told)
    return found


def test_the_same_events_at_a_file_a_webhook_and_a_queue(
    place: Path,
    qemu_factory: MakeQEMU,
    receiver: Receiver,
    rabbitmq: RabbitMQ,
    make_queue: MakeQueue,
) -> None:
    queue = make_queue("quorum")
    dial = ("-chardev", f"socket,id=m,path={place}/in.sock,reconnect=1", "-mon", "m,mode=control")
    out, held = qemu_factory(), qemu_factory()
    (place / "password").write_text(PASSWORD)
    (place / "password").chmod(0o600)
    config = place / "qmp-monitor.toml"
    config.write_text(
        CONFIG.format(
            here=place,
            out=out.path(),
            held=held.path(),
            url=receiver.url,
            port=rabbitmq.port,
            user=USER,
        )
    )
    printed: list[Told] = []
    with socket.socket(socket.AF_UNIX) as holder:
        holder.settimeout(LIMIT)
        holder.connect(held.path())
        assert holder.recv(65536)
        with Daemon("--config", str(config), runner=None) as daemon:
            daemon.wait_for_log(f"listening on {place}/in.sock")
            inside = qemu_factory("-name", "in", "-uuid", UUID, *dial)
            daemon.expect("in", "snapshot")
            daemon.expect("out", "snapshot")
            busy = daemon.expect("held", "busy")
            assert "another client" in busy.data["reason"]
            for vm, name in ((inside, "in"), (out, "out")):
                for order in ("cont", "stop", "system_reset", "cont"):
                    vm.execute(order)
                daemon.expect(name, "RESET")
                daemon.expect(name, "RESUME")
            # It had no time for anything.
            daemon.send(signal.SIGKILL)
            assert daemon.wait() == -signal.SIGKILL
            printed += daemon.records
            assert "Traceback" not in daemon.log
        # Nobody hears this.
        inside.execute("stop")
        out.execute("stop")
    with Daemon("--config", str(config), runner=None) as daemon:
        for name in ("in", "out"):
            gap = daemon.expect(name, "gap")
            assert gap.data["reason"] == "the daemon did not run"
            assert gap.data["since"] < gap.data["until"]
            assert daemon.expect(name, "snapshot").data["query-status"]["status"] == "paused"
        gap = daemon.expect("held", "gap")
        daemon.expect("held", "snapshot")
        inside.execute("quit")
        ended = daemon.expect("in", "disconnected")
        assert ended.data["ended"] == {
            "by": "host",
            "graceful": True,
            "reason": "host-qmp-quit",
        }
        out.kill()
        ended = daemon.expect("out", "disconnected")
        assert ended.data["ended"] == {
            "by": "unknown",
            "graceful": False,
            "reason": "without a word",
        }
        status, _ = command("status", "--config", str(config), "--json")
        assert json.loads(status)["daemon"]["pid"] == daemon.pid
        assert daemon.stop() == 0
        printed += daemon.records
        assert "Traceback" not in daemon.log
        assert "not delivered" not in daemon.log

    kept = spooled(place / "state")
    lines = (place / "events.jsonl").read_text().splitlines()
    everywhere = {
        "stdout": once(printed),
        "jsonl": once(map(Told.read, lines)),
        "webhook": once(receiver.taken),
        "queue": once(drained(queue, kept[-1].id)),
    }
    for where, told in everywhere.items():
        assert ids(told) == ids(kept), where
        assert told == kept, where
    assert [told.number for told in kept] == list(range(1, len(kept) + 1))
    assert_whole(kept)
    # Each run of the daemon has an id of its own: after a crash a number may come again.
    assert len({told.id.partition("-")[0] for told in kept}) == 2
    assert {told.cloud["partitionkey"] for told in kept if told.vm == "in"} == {UUID}
    before = ["connected", "snapshot", "RESUME", "STOP", "RESET", "RESUME"]
    again = ["connected", "gap", "snapshot"]
    of = {vm: names(told for told in kept if told.vm == vm) for vm in ("in", "out", "held")}
    assert of["in"] == [*before, *again, "SHUTDOWN", "disconnected"]
    assert of["out"] == [*before, *again, "disconnected"]
    assert of["held"][:1] == ["busy"]
    assert of["held"][-4:] == ["connected", "gap", "snapshot", "disconnected"]
    assert not os.path.exists(place / "state" / "control.sock")
