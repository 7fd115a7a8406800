"""Show how the daemon, its spool and its sinks stand."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from txqmp.monitor.commands import place, show
from txqmp.monitor.commands.asking import Ask
from txqmp.monitor.commands.errors import CommandFailedError, NoDaemonError
from txqmp.monitor.commands.moments import duration
from txqmp.monitor.spool import Reader, SinkState, SpoolState, holder
from txqmp.monitor.statedir import spool_directory


MAX_LAG = 600.0
"""How old the first event that a sink has not had may be where nothing is said, in seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be given."""
    place.add_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument(
        "--check",
        action="store_true",
        help="end with 1 if no daemon runs or answers, or a sink lags for more than ten minutes or"
        " has dead letters; say so on the standard error",
    )
    parser.add_argument(
        "--max-lag", type=duration, metavar="DURATION", help="--check, with another limit: 15m, 2h"
    )


@attrs.frozen(kw_only=True)
class Report:
    """
    What is known.

    :ivar state: the state directory.
    :ivar pid: the process that holds the spool; ``None`` where none does.
    :ivar answer: what that says of itself; ``None`` where it says nothing.
    :ivar silence: why it says nothing.
    :ivar now: when this was, in seconds since the epoch.
    """

    state: str
    spool: SpoolState
    pid: int | None
    answer: Mapping[str, Any] | None
    silence: str | None
    now: float

    def since(self, moment: float | None) -> float | None:
        """How long ago something was, in seconds."""
        return None if moment is None else max(0.0, self.now - moment)

    def live(self, sink: SinkState) -> Mapping[str, Any]:
        """What the daemon says of a sink."""
        for each in (self.answer or {}).get("sinks", ()):
            if each["name"] == sink.name:
                found: Mapping[str, Any] = each
                return found
        return {}


def run(arguments: argparse.Namespace, ask: Ask) -> int:
    """
    Show it.

    :raises CommandFailedError: the state directory cannot be found.
    :raises SpoolError: the spool cannot be read.
    """
    report = collect(place.state_directory(arguments), ask)
    if arguments.json:
        show.say_json(members(report))
    else:
        _print(report)
    if not arguments.check and arguments.max_lag is None:
        return 0
    max_lag = MAX_LAG if arguments.max_lag is None else arguments.max_lag
    problems = list(find_problems(report, max_lag))
    for problem in problems:
        show.complain(problem)
    return 1 if problems else 0


def collect(state: str, ask: Ask) -> Report:
    """Look at everything."""
    directory = spool_directory(state)
    with Reader(directory) as reader:
        spool = reader.state()
    pid = holder(directory)
    answer = silence = None
    if pid is not None:
        try:
            answer = ask(state, "status", {})
        except NoDaemonError:
            silence = "it takes no commands"
        except CommandFailedError as problem:
            silence = str(problem)
    return Report(
        state=state, spool=spool, pid=pid, answer=answer, silence=silence, now=time.time()
    )


def find_problems(report: Report, max_lag: float) -> Iterator[str]:
    """
    What somebody should look at, in words.

    :param max_lag: how old the first event that a sink has not had may be, in seconds.
    """
    if report.pid is None:
        yield "no daemon runs"
    elif report.answer is None:
        yield f"the daemon, process {report.pid}, does not answer: {report.silence}"
    for sink in report.spool.sinks:
        age = report.since(sink.since)
        if not sink.attached:
            if sink.lag:
                events = show.counted(sink.lag, "event")
                yield f"sink {sink.name} is not configured any more, and keeps {events}"
        elif age is not None and age > max_lag:
            yield f"sink {sink.name} lags by {show.duration(age)}"
        if sink.dead:
            yield f"sink {sink.name} has {show.counted(sink.dead, 'dead letter')}"


def members(report: Report) -> dict[str, Any]:
    """
    The same for programs. What there is nothing to say of is null; times are as
    ``"2026-11-21T01:20:00.123456Z"``.
    """
    spool = report.spool
    return {
        "state_dir": report.state,
        "time": show.moment(report.now),
        "daemon": {
            "running": report.pid is not None,
            "pid": report.pid,
            "answers": report.answer is not None,
            "version": (report.answer or {}).get("version"),
        },
        "spool": {
            "identity": spool.identity,
            "first": spool.first,
            "last": spool.last,
            "events": spool.depth,
            "bytes": spool.size,
            "oldest_age_seconds": report.since(spool.since),
        },
        "sinks": [_sink_members(report, each) for each in spool.sinks],
    }


def _sink_members(report: Report, sink: SinkState) -> dict[str, Any]:
    live = report.live(sink)
    return {
        "name": sink.name,
        "attached": sink.attached,
        "kind": live.get("kind"),
        "state": live.get("state"),
        "acked": sink.acked,
        "lag_events": sink.lag,
        "lag_bytes": sink.lag_bytes,
        "lag_seconds": report.since(sink.since),
        "dropped": sink.dropped,
        "dead": sink.dead,
        "retrying": sink.retrying,
        "dead_dropped": sink.dead_dropped,
        "last_error": live.get("last-error"),
        "next_attempt": live.get("next-attempt"),
    }


def _print(report: Report) -> None:
    spool = report.spool
    if report.pid is None:
        show.say("no daemon runs")
    elif report.answer is None:
        show.say(f"process {report.pid} runs, but does not answer: {report.silence}")
    else:
        version = show.harmless(str(report.answer.get("version")))
        show.say(f"qmp-monitor {version} runs as process {report.pid}")
    show.say(f"state directory: {report.state}")
    line = f"spool: {show.counted(spool.depth, 'event')}, {show.size(spool.size)}"
    if spool.depth:
        line += f", positions {spool.first} to {spool.last}"
        line += f", the oldest {show.duration(report.since(spool.since))} old"
    show.say(line)
    if not spool.sinks:
        show.say("no sink has been added yet")
        return
    show.say("")
    head = ("SINK", "STATE", "LAG", "AGE", "ACKED", "DROPPED", "DEAD", "RETRYING")
    show.table(head, [_row(report, each) for each in spool.sinks])
    for sink in spool.sinks:
        error = report.live(sink).get("last-error")
        if error:
            show.say(f"{show.harmless(sink.name)}: {show.harmless(str(error))}")


def _row(report: Report, sink: SinkState) -> tuple[str, ...]:
    state = str(report.live(sink).get("state") or "-")
    return (
        show.harmless(sink.name),
        show.harmless(state) if sink.attached else "not configured",
        str(sink.lag),
        show.duration(report.since(sink.since)),
        str(sink.acked),
        str(sink.dropped),
        str(sink.dead),
        str(sink.retrying),
    )
