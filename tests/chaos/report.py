"""What is printed at the end."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.check import SHOWN
from chaos.run import Outcome


def problems(outcome: Outcome) -> list[str]:
    """All that is not as it was promised; of many of a kind the first ones."""
    lists = [("", outcome.problems), ("numbers: ", outcome.numbers.problems)]
    lists += [(f"{each.sink}: ", each.problems) for each in outcome.received]
    found = [f"{where}{each}" for where, all_ in lists for each in _first(all_)]
    if outcome.lost:
        found.append(f"{outcome.lost} events were lost")
    return found


def _first(problems: list[str]) -> Iterable[str]:
    yield from problems[:SHOWN]
    if len(problems) > SHOWN:
        yield f"… and {len(problems) - SHOWN} more"


def lines(outcome: Outcome) -> Iterable[str]:
    """The counts, for people."""
    counted = outcome.numbers
    yield _row("events raised", counted.raised)
    yield _row("… while the daemon listened", counted.heard)
    yield _row("… and committed", counted.committed)
    yield _row("… in holes that are told of", counted.holes)
    yield _row("holes told of", counted.told)
    yield f"{'a hole begins late by at most':<32}{counted.early:>10.3f} s"
    yield _row("kills of the daemon", outcome.kills)
    yield _row("kills of the broker", outcome.broker_kills)
    yield _row("posts", outcome.posts)
    for kind, count in sorted(outcome.faults.items()):
        yield _row(f"… answered with: {kind}", count)
    yield f"{'time to deliver what was left':<32}{outcome.drained:>10.1f} s"
    yield ""
    yield f"{'sink':<12}{'committed':>12}{'arrived':>12}{'again':>12}{'lost':>12}"
    for each in outcome.received:
        yield (
            f"{each.sink:<12}{each.wanted:>12,}{each.events:>12,}"
            f"{each.duplicates:>12,}{each.lost:>12,}"
        )
    yield ""
    yield f"lost: {outcome.lost}"


def _row(what: str, count: int) -> str:
    return f"{what:<32}{count:>10,}"
