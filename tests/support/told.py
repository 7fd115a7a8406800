"""What the daemon has told: a CloudEvent of its, as somebody reads it who gets one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import attrs


QEMU = "org.qemu.qmp."


@attrs.frozen
class Told:
    """An event.

    :ivar cloud: all of it, as it came.
    """

    cloud: dict[str, Any]

    @classmethod
    def read(cls, text: bytes | str) -> Told:
        return cls(json.loads(text))

    @property
    def id(self) -> str:
        return str(self.cloud["id"])

    @property
    def number(self) -> int:
        """The number in the spool."""
        return int(self.cloud["sequence"])

    @property
    def type(self) -> str:
        return str(self.cloud["type"])

    @property
    def vm(self) -> str:
        return str(self.cloud["subject"])

    @property
    def seq(self) -> int:
        """The number among the VM's own."""
        return int(self.cloud["vmsequence"])

    @property
    def session(self) -> int:
        return int(self.cloud["vmsession"])

    @property
    def name(self) -> str:
        """The name of QEMU's event, or the kind of a word of the daemon's."""
        return self.type.removeprefix(QEMU).removeprefix("txqmp.monitor.")

    @property
    def data(self) -> Any:
        """QEMU's object, or the details of what the daemon says."""
        data = self.cloud["data"]
        return data if self.type.startswith(QEMU) else data["data"]


def names(events: Iterable[Told]) -> list[str]:
    """What happened, in short."""
    return [event.name for event in events]


def ids(events: Iterable[Told]) -> list[str]:
    return [event.id for event in events]


def assert_whole(events: Iterable[Told]) -> None:
    """The numbers of each VM are 1, 2, 3 … in this order, with none missing and none twice."""
    numbers: dict[str, list[int]] = {}
    for event in events:
        numbers.setdefault(event.vm, []).append(event.seq)
    for vm, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), (vm, found)
