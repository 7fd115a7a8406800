"""What there is to compare: what was raised, what was committed, and what each sink received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from chaos.vms import EVENT
from txqmp.monitor.envelope import OWN_TYPES, QEMU_TYPES
from txqmp.monitor.spool import Reader, Stored


_VERSION = b'{"specversion":"1.0",'


@dataclass(frozen=True, slots=True)
class Told:
    """
    What is told of a VM by one event.

    :ivar type: without what all of ours and all of QEMU's begin with.
    :ivar session: the number of the session.
    :ivar sequence: the number among the VM's.
    :ivar counter: what the VM has counted; 0 in words of ours.
    :ivar since: where it tells of a hole, when that began, in seconds since the epoch, …
    :ivar until: … and when it ended.
    """

    type: str
    session: int
    sequence: int
    counter: int = 0
    since: float | None = None
    until: float | None = None


@dataclass
class Committed:
    """
    What is in the spool.

    :ivar texts: what is sent of each event, by its id, in the order of their positions.
    :ivar vms: what is told of each VM, in that order.
    :ivar vm_of: the VM that an event is about, by its id.
    :ivar problems: what is wrong with it.
    """

    texts: dict[str, bytes] = field(default_factory=dict)
    vms: dict[str, list[Told]] = field(default_factory=dict)
    vm_of: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def committed(directory: str) -> Committed:
    """
    Read a spool from which nothing was deleted.

    :param directory: of the spool.
    """
    found = Committed()
    with Reader(directory) as reader:
        state = reader.state()
        if state.first != 1:
            found.problems.append(f"the spool begins with position {state.first}")
        after = state.first - 1
        while after < state.last:
            batch = reader.read(after)
            for stored in batch.records:
                if stored.position != after + 1:
                    found.problems.append(f"position {after + 1} is not in the spool")
                after = stored.position
                if stored.id in found.texts:
                    found.problems.append(f"the id {stored.id} is there twice")
                found.texts[stored.id] = text = _text(stored)
                found.vm_of[stored.id] = stored.vm
                found.vms.setdefault(stored.vm, []).append(_told(orjson.loads(text)))
            after = batch.through
    return found


def _text(stored: Stored) -> bytes:
    """What is to be sent of a record: itself, with its number after the version."""
    version, rest = stored.data[: len(_VERSION)], stored.data[len(_VERSION) :]
    if version != _VERSION:
        raise ValueError(f"position {stored.position} is no event: {stored.data[:60]!r}")
    number = f'"id":"{stored.id}","sequence":"{stored.position:020d}",'
    return version + number.encode() + rest


def _told(members: dict[str, Any]) -> Told:
    type, data = members["type"], members["data"]
    session, sequence = int(members["vmsession"]), int(members["vmsequence"])
    if type == f"{QEMU_TYPES}.{EVENT}":
        return Told(EVENT, session, sequence, counter=data["data"]["actual"])
    details = data.get("data", {})
    return Told(
        type.removeprefix(f"{OWN_TYPES}."),
        session,
        sequence,
        since=_seconds(details.get("since")),
        until=_seconds(details.get("until")),
    )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@dataclass(frozen=True, slots=True)
class Raised:
    """
    What a VM has raised.

    :ivar at: when each of its events was raised, in the order of their counters from 1.
    :ivar heard: beside it, whether somebody listened.
    """

    at: list[float]
    heard: list[bool]


def raised(path: Path) -> dict[str, Raised]:
    """What the VMs have written down, by their names."""
    return {name: Raised(*each) for name, each in json.loads(path.read_bytes()).items()}


Arrival = tuple[str, bytes]
"""What a sink has received: the id of an event, and its text."""


def lines(path: Path, problems: list[str]) -> Iterator[Arrival]:
    """What is in a file with an event on each line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it has no end")
                yield orjson.loads(line)["id"], line[:-1]
            except (ValueError, TypeError, KeyError) as problem:
                problems.append(f"line {number} is torn: {problem}: {line[:60]!r}")


def posts(path: Path, texts: dict[str, bytes], problems: list[str]) -> Iterator[Arrival]:
    """What was posted: one event, or an array of them."""
    bodies: dict[str, int] = {}
    with path.open("rb") as file:
        while about := file.readline():
            post = orjson.loads(about)
            body = file.read(post["size"])
            file.read(1)
            id = post["id"]
            if not post["signed"]:
                problems.append(f"the post {id} has no signature that fits")
            if bodies.setdefault(id, hash(body)) != hash(body):
                problems.append(f"the post {id} came with different bodies")
            if not body.startswith(b"["):
                yield id, body
                continue
            ids = [each["id"] for each in orjson.loads(body)]
            if id != f"{ids[0]}_{ids[-1]}":
                problems.append(f"the post {id} is from {ids[0]} to {ids[-1]}")
            # The bytes between the brackets are those of the events, or they are not.
            whole = b"[%b]" % b",".join([texts.get(each, b"") for each in ids])
            for each in ids:
                yield each, texts.get(each, b"") if body == whole else b""
