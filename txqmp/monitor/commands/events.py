"""Print events that the spool holds, one line of JSON each, as sinks send them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator

from txqmp.monitor.commands import place, show
from txqmp.monitor.commands.asking import Ask
from txqmp.monitor.commands.errors import CommandFailedError, WrongUsageError
from txqmp.monitor.commands.moments import when
from txqmp.monitor.outgoing import outgoing
from txqmp.monitor.spool import Filter, PositionError, Reader, Stored
from txqmp.monitor.statedir import spool_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be given."""
    place.add_options(parser)
    parser.add_argument("--since", metavar="TIME", help="nothing older: 15m, 2026-11-21T01:20:00Z")
    parser.add_argument("--until", metavar="TIME", help="nothing newer")
    parser.add_argument(
        "--vm",
        action="append",
        default=[],
        metavar="GLOB",
        help="only of these VMs; may be repeated",
    )
    parser.add_argument(
        "--event",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these, such as BLOCK_* or disconnected; may be repeated",
    )
    parser.add_argument("--after", type=int, metavar="POSITION", help="only what comes after it")


def run(arguments: argparse.Namespace, ask: Ask) -> int:
    """
    Print them, the oldest first.

    :raises WrongUsageError: a time is none.
    :raises CommandFailedError: the state directory cannot be found, or a record is no event.
    :raises SpoolError: the spool cannot be read.
    """
    now = time.time()
    since = time_of(arguments.since, "--since", now)
    until = time_of(arguments.until, "--until", now)
    wanted = Filter(vms=tuple(arguments.vm), types=_types(arguments.event), since=since)
    broken = 0
    with Reader(spool_directory(place.state_directory(arguments))) as reader:
        for record in records(reader, wanted, arguments.after):
            if until is not None and record.time > until:
                continue  # clocks can be set back: there may be more
            try:
                show.write(outgoing(record).text)
            except ValueError:
                broken += 1
    if broken:
        raise CommandFailedError(f"{show.counted(broken, 'record')} of the spool cannot be read")
    return 0


def _types(patterns: Iterable[str]) -> tuple[str, ...]:
    """The types that names and globs of events stand for, whatever prefixes the daemon gives."""
    return tuple(each for pattern in patterns for each in (pattern, f"*.{pattern}"))


def records(reader: Reader, wanted: Filter, after: int | None) -> Iterator[Stored]:
    """
    The records of a spool, up to the one that is the newest now.

    :param after: only those after this position; ``None`` for all that are there.
    :raises SpoolError: the spool cannot be read, or there never was such a position.
    """
    last = reader.state().last
    if after is not None and not 0 <= after <= last:
        raise PositionError(after)
    while after is None or after < last:
        batch = reader.read(after, wanted=wanted)
        yield from (each for each in batch.records if each.position <= last)
        after = batch.through


def time_of(text: str | None, option: str, now: float) -> float | None:
    """
    A time that an option gives, in seconds since the epoch; ``None`` where it is not given.

    :raises WrongUsageError: it is no time.
    """
    if text is None:
        return None
    try:
        return when(text, now)
    except argparse.ArgumentTypeError as problem:
        raise WrongUsageError(f"{option}: {problem}") from None
