"""Choose a long run, do it, print what it counted, and exit with 1 if anything went wrong."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import eventAsText, globalLogBeginner

from soak.report import Run
from support.leaks import LogCollector, LoggedErrors


#: The runs: their names, how often each does what it does by default, and what that is.
RUNS = {
    "storm": (5000, "reconnects while the VM is stopped and continued all the time"),
    "stale": (2000, "clients that inherit a reply to their predecessor's command"),
    "sizes": (40, "replies of 5, 10, 20 … MB, up to this size"),
    "descriptors": (1000, "concurrent add-fd, with oob and without"),
    "ends": (25, "ends of each manner: SIGTERM, SIGKILL, quit, guest shutdown"),
    "flood": (1_000_000, "events to subscribers that never read"),
    "restarts": (50, "QEMUs that are killed and restarted under one factory"),
    "refusals": (150, "QEMUs that dial a factory which has a session already"),
    "hostile": (10_000, "frames and more of each attack on the frame protocol"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    default, what = RUNS[options.name]
    count = default if options.count is None else options.count
    module = importlib.import_module(f"soak.{options.name}")
    run: Run = module.run
    collector = LogCollector()
    globalLogBeginner.beginLoggingTo([collector], discardBuffer=True, redirectStandardIO=False)
    say(f"{options.name}: {count} {what}")
    problems: list[str] = []

    async def once(reactor: Any) -> None:
        begun = time.monotonic()
        report = await run(reactor, count)
        for line in report.lines():
            say(f"  {line}")
        say(f"  took {time.monotonic() - begun:.1f} s")
        problems.extend(report.problems())

    try:
        react(lambda reactor: Deferred.fromCoroutine(once(reactor)), [])
    except SystemExit as end:
        if end.code:
            problems.append("the run failed")
    logged = LoggedErrors(collector)
    if expected := getattr(module, "EXPECTED", ()):
        logged.flush(*expected)
    problems.extend(f"logged: {eventAsText(event)}" for event in logged.flush())
    for problem in problems:
        say(f"  WRONG: {problem}")
    say(f"{options.name}: {'FAILED' if problems else 'passed'}")
    return 1 if problems else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/soak",
        description="Long runs, most of them against a real QEMU.",
        epilog="\n".join(f"  {name:<12} {count:>8} {what}" for name, (count, what) in RUNS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=RUNS, metavar="NAME", help="the run")
    parser.add_argument("--count", type=positive, metavar="N", help="how often")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
