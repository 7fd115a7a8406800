"""
Have a sink deliver again what the spool still holds from a moment on.

The sink's cursor is moved back. So everything after the moment comes again, in order, with the same
ids, and what the sink does not want is left out as always. To choose among the events without
touching a sink there is ``qmp-monitor events``.
"""

from __future__ import annotations

import argparse
import time

from txqmp.monitor.commands import place, show
from txqmp.monitor.commands.asking import Ask, change
from txqmp.monitor.commands.events import records, time_of
from txqmp.monitor.spool import Filter, PositionError, Reader, SinkState, UnknownSinkError
from txqmp.monitor.statedir import spool_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be given."""
    place.add_options(parser)
    parser.add_argument("--sink", required=True, metavar="NAME", help="which sink")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--since", metavar="TIME", help="from then on: 15m (ago), 2026-11-21T01:20:00Z"
    )
    what.add_argument("--after", type=int, metavar="POSITION", help="what comes after it")
    what.add_argument("--all", action="store_true", help="all that is there")
    what.add_argument(
        "--dead", action="store_true", help="its dead letters, as qmp-monitor dead retry --all"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say how many there are")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(arguments: argparse.Namespace, ask: Ask) -> int:
    """
    Do it.

    :raises WrongUsageError: a time is none.
    :raises CommandFailedError: the state directory cannot be found, or the daemon refuses.
    :raises SpoolError: the spool cannot be read or changed.
    """
    state, sink = place.state_directory(arguments), arguments.sink
    since = time_of(arguments.since, "--since", time.time())
    with Reader(spool_directory(state)) as reader:
        stands = state_of(reader, sink)
        if arguments.dead:
            count, position = stands.dead, None
        else:
            position = _position(reader, since, arguments.after)
            first = reader.state().first
            count = max(0, stands.acked - max(position, first - 1))
    if not arguments.dry_run:
        if position is None:
            count = change(
                ask, state, "retry-dead", {"sink": sink}, lambda control: control.retry_dead(sink)
            )
        else:
            back = position
            count = change(
                ask,
                state,
                "rewind",
                {"sink": sink, "position": back},
                lambda control: control.rewind(sink, back),
            )
    if arguments.json:
        show.say_json({"sink": sink, "count": count, "done": not arguments.dry_run})
        return 0
    what = show.counted(count, "dead letter" if arguments.dead else "event")
    verb = "would be" if arguments.dry_run else "is" if count == 1 else "are"
    show.say(f"{show.harmless(sink)}: {what} {verb} delivered again")
    return 0


def state_of(reader: Reader, sink: str) -> SinkState:
    """
    How a sink stands.

    :raises UnknownSinkError: there is no such sink.
    """
    for each in reader.state().sinks:
        if each.name == sink:
            return each
    raise UnknownSinkError(sink)


def _position(reader: Reader, since: float | None, after: int | None) -> int:
    """
    The position after which everything is to come again.

    :raises PositionError: there never was such a position.
    """
    state = reader.state()
    if after is not None:
        if not 0 <= after <= state.last:
            raise PositionError(after)
        return after
    if since is None:
        return state.first - 1
    first = next(records(reader, Filter(since=since), None), None)
    return state.last if first is None else first.position - 1
