"""The chaos run (``python tests/chaos``), for some seconds: everything that it counts is right."""

from __future__ import annotations

import pytest
from chaos import report
from chaos.command import quick
from chaos.run import run


pytestmark = pytest.mark.timeout(240)


def test_daemon_that_is_killed() -> None:
    said: list[str] = []
    outcome = run(quick(seed=4), said.append)
    assert not report.problems(outcome), "\n".join([*said, *report.lines(outcome)])
    assert outcome.lost == 0
    assert outcome.kills == 1
    # It was no idle run: something was lost on the way in, and told of.
    assert outcome.numbers.committed > 1000
    assert outcome.numbers.holes > 0
    assert sum(outcome.faults.values()) > 0
    assert all(each.events == each.wanted > 0 for each in outcome.received)
