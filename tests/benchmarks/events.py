"""Events as a fleet tells them, to be put into a spool."""

from __future__ import annotations

import time

from txqmp import Event
from txqmp.fleet.records import Kind, Record
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.spool import Item


ENVELOPE = Envelope(node="node7.example")
_UUID = "4c4c4544-0042-4c10-8042-{:012x}"


def record(number: int) -> Record:
    """The record of a disk error of one of a hundred VMs; as an event it is about 700 bytes."""
    now = time.time()
    seconds = int(now)
    raw = {
        "timestamp": {"seconds": seconds, "microseconds": int((now - seconds) * 1e6)},
        "event": "BLOCK_IO_ERROR",
        "data": {
            "device": "drive-virtio-disk0",
            "node-name": "libvirt-1-format",
            "qom-path": "/machine/peripheral/virtio-disk0/virtio-backend",
            "operation": "write",
            "action": "stop",
            "nospace": True,
            "reason": "No space left on device",
        },
    }
    vm = number % 100
    return Record(
        vm=f"vm-{vm:04d}",
        identity=_UUID.format(vm),
        seq=number // 100 + 1,
        session=1,
        received=now,
        kind=Kind.EVENT,
        event=Event(raw),
    )


def item(number: int) -> Item:
    """The same as the spool keeps it."""
    one = record(number)
    draft = ENVELOPE.draft(one)
    return Item(one.vm, ENVELOPE.type_of(one), one.received, draft, one.session, one.seq)
