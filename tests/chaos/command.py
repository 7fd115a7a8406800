"""What the command line does."""

from __future__ import annotations

import argparse
import importlib
import json
import random
import signal
import sys
import time
from collections.abc import Sequence

from chaos import report
from chaos.plan import Plan
from chaos.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Have everything fail, compare, and print what was counted.

    :returns: the exit code: 0 if the promise was kept.
    """
    options = _parse(arguments)
    if options.helper:
        module, parameters = options.helper
        importlib.import_module(f"chaos.{module}").main(json.loads(parameters))
        return 0
    plan = plan_of(options)
    say(
        f"chaos: seed {plan.seed}: {plan.vms} VMs, {plan.rate:,.0f} events/s for"
        f" {plan.seconds:.0f} s, {plan.kills} kills, {plan.broker_kills or 0} of the broker"
    )
    began = time.monotonic()
    # What was started is to be ended, whoever wants us to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = run(plan, say, options.directory)
    except KeyboardInterrupt:
        say("chaos: interrupted")
        return 130
    say("")
    for line in report.lines(outcome):
        say(line)
    problems = report.problems(outcome)
    for problem in problems:
        say(f"WRONG: {problem}")
    say(f"chaos: {'FAILED' if problems else 'passed'}, {time.monotonic() - began:.0f} s")
    return 1 if problems else 0


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that is asked for."""
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    if options.quick:
        return quick(seed)
    kills = round(options.minutes * 5) if options.kills is None else options.kills
    return Plan(
        seed=seed,
        seconds=options.minutes * 60,
        vms=options.vms,
        rate=options.rate,
        kills=kills,
        broker_kills=None if options.no_broker else 2,
    )


def quick(seed: int) -> Plan:
    """A run of seconds: few VMs, one kill, no broker."""
    return Plan(seed=seed, seconds=8.0, vms=20, rate=300.0, kills=1, broker_kills=None, drain=60.0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/chaos",
        description="Kill qmp-monitor and all around it, and count what is lost.",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draw what is random from this")
    parser.add_argument("--minutes", type=_positive, default=2.0, help="how long events are raised")
    parser.add_argument("--vms", type=int, default=200, metavar="N", help="how many VMs")
    parser.add_argument("--rate", type=_positive, default=2000.0, help="events/s, of all VMs")
    parser.add_argument("--kills", type=int, metavar="N", help="of the daemon; 5 a minute")
    parser.add_argument("--no-broker", action="store_true", help="do without RabbitMQ")
    parser.add_argument("--quick", action="store_true", help="see in seconds whether it runs")
    parser.add_argument("--directory", metavar="DIR", help="leave all files in this directory")
    parser.add_argument("--helper", nargs=2, help=argparse.SUPPRESS)  # for our own processes
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
