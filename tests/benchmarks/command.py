"""What the command line does."""

from __future__ import annotations

import argparse
import tempfile
import time

from benchmarks.peers import Replier
from benchmarks.rows import FULL, QUICK, ROWS
from benchmarks.sides import SideError
from benchmarks.table import head, row, setting
from benchmarks.worker import work


def main() -> int:
    """
    Measure, and print the table.

    :returns: the exit code: 0 unless something failed to run. A goal that is missed is no failure.
    """
    names = list(ROWS)
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks",
        description="Measure txqmp against qemu.qmp and against a blocking socket.",
    )
    parser.add_argument("--quick", action="store_true", help="see in seconds whether it runs")
    parser.add_argument(
        "--only",
        action="append",
        metavar="ROW",
        choices=[*names, *(str(number + 1) for number in range(len(names)))],
        help=f"measure this row only; may be repeated: {', '.join(names)}, or a number from 1",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="measure against the replier in Python, as where there is no compiler",
    )
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)  # for our own processes
    options = parser.parse_args()
    if options.side:
        work(*options.side)
        return 0
    chosen = [names[int(one) - 1] if one.isdigit() else one for one in options.only or names]
    scale = QUICK if options.quick else FULL
    began = time.monotonic()
    failures = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        Replier(directory, plain=options.plain) as replier,
    ):
        print(setting(replier.kind), head(), sep="\n\n", flush=True)
        for name in chosen:
            try:
                for line in ROWS[name](scale, replier.path):
                    print(row(line), flush=True)
            except SideError as error:
                failures += 1
                print(f"{name}: FAILED: {error}", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")
    return 1 if failures else 0
