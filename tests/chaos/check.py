"""Was the promise kept? Everything that was raised, committed and received is compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.evidence import Arrival, Committed, Raised, Told
from chaos.vms import EVENT


SHOWN = 5
"""How many problems of a kind are shown."""

TOLERANCE = 2.0
"""By how much an event may have been raised before the hole that it fell into is said to begin, in
seconds: a hole begins when the last event before it was *read*, and on a busy machine that is some
time after it was raised."""

_HOLES = ("gap", "dropped")


@dataclass
class Received:
    """
    What came of a sink's events.

    :ivar wanted: how many it was to get.
    :ivar events: how many different ones arrived, …
    :ivar duplicates: … and how often one arrived again.
    :ivar lost: how many did not arrive.
    """

    sink: str
    wanted: int = 0
    events: int = 0
    duplicates: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


def received(
    sink: str, arrivals: Iterable[Arrival], spool: Committed, vms: frozenset[str] | None = None
) -> Received:
    """
    Whether a sink got everything: once at least, in order, and always the same bytes.

    :param arrivals: what it got, in the order in which that came.
    :param vms: the VMs whose events it wants; ``None`` for all.
    """
    report = Received(sink)
    wanted = [id for id in spool.texts if vms is None or spool.vm_of[id] in vms]
    places = {id: place for place, id in enumerate(wanted)}
    report.wanted = len(wanted)
    seen: set[str] = set()
    due = 0
    for id, text in arrivals:
        if spool.texts.get(id) != text:
            known = "with other bytes" if id in spool.texts else "and was never committed"
            report.problems.append(f"{id} arrived {known}")
        elif id not in places:
            report.problems.append(f"{id} arrived, which the sink does not want")
        elif id in seen:
            report.duplicates += 1
        else:
            seen.add(id)
            if places[id] != due:
                report.problems.append(f"{id} arrived where {wanted[due : due + 1]} was due")
            due = max(due, places[id] + 1)
    report.events = len(seen)
    report.lost = len(wanted) - len(seen)
    return report


@dataclass
class Numbers:
    """
    What the numbers of the VMs tell.

    :ivar raised: how many events the VMs raised, …
    :ivar heard: … how many of them while somebody listened, …
    :ivar committed: … and how many are in the spool.
    :ivar holes: how many events fell into holes that are told of, …
    :ivar told: … and how many such holes there are.
    :ivar early: by how much an event was raised before the hole that it fell into is said to begin,
        at most, in seconds.
    """

    raised: int = 0
    heard: int = 0
    committed: int = 0
    holes: int = 0
    told: int = 0
    early: float = 0.0
    problems: list[str] = field(default_factory=list)


def numbers(spool: Committed, raised: dict[str, Raised]) -> Numbers:
    """Whether the numbers of each VM are whole, or what is missing is told of."""
    report = Numbers()
    for vm in spool.vms:
        if vm not in raised:
            report.problems.append(f"there is no VM {vm}")
    for vm, source in raised.items():
        told = spool.vms.get(vm, [])
        report.raised += len(source.at)
        report.heard += sum(source.heard)
        report.committed += sum(each.type == EVENT for each in told)
        report.told += sum(each.type in _HOLES for each in told)
        _sequence(vm, told, report)
        _counters(vm, told, source, report)
    return report


def _sequence(vm: str, told: list[Told], report: Numbers) -> None:
    """The numbers that the daemon gave."""
    session, sequence = 0, 0
    for each in told:
        if each.session < session:
            report.problems.append(f"{vm}: session {each.session} after {session}")
        if each.sequence <= sequence:
            report.problems.append(f"{vm}: number {each.sequence} after {sequence}")
        elif each.sequence > sequence + 1 and each.type not in _HOLES:
            missing = f"{sequence + 1} … {each.sequence - 1}"
            report.problems.append(f"{vm}: the numbers {missing} are missing, and nothing tells")
        session, sequence = each.session, each.sequence


def _counters(vm: str, told: list[Told], source: Raised, report: Numbers) -> None:
    """The numbers that the VM itself gave."""
    last = 0
    holes: list[Told] = []
    for each in told:
        if each.type in _HOLES:
            holes.append(each)
        if each.type != EVENT:
            continue
        counter = each.counter
        if not 0 < counter <= len(source.at) or not source.heard[counter - 1]:
            report.problems.append(f"{vm}: event {counter} was never sent")
            continue
        if counter <= last:
            report.problems.append(f"{vm}: event {counter} after {last}")
            continue
        if counter > last + 1:
            _hole(vm, range(last + 1, counter), holes, source, report)
        last, holes = counter, []
    if last < len(source.at):
        _hole(vm, range(last + 1, len(source.at) + 1), holes, source, report)


def _hole(vm: str, missing: range, holes: list[Told], source: Raised, report: Numbers) -> None:
    """Events of a VM that are not there: it is to be told of between those that are."""
    report.holes += len(missing)
    since = min((each.since for each in holes if each.since is not None), default=None)
    until = max((each.until for each in holes if each.until is not None), default=None)
    if since is None or until is None:
        what = f"{missing.start} … {missing.stop - 1}"
        report.problems.append(f"{vm}: the events {what} are missing, and nothing tells")
        return
    early = max(since - source.at[counter - 1] for counter in missing)
    late = max(source.at[counter - 1] - until for counter in missing)
    report.early = max(report.early, early)
    if early > TOLERANCE or late > 0:
        report.problems.append(
            f"{vm}: the events {missing.start} … {missing.stop - 1} are missing: raised up to"
            f" {early:.3f} s before and {late:.3f} s after the hole that is told of"
        )
