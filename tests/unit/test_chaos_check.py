"""What compares after a chaos run finds everything that can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import evidence
from chaos.check import TOLERANCE, numbers, received
from chaos.evidence import Committed, Raised, Told
from chaos.plan import Plan
from chaos.vms import EVENT


def spool(*ids: str, vms: dict[str, list[Told]] | None = None) -> Committed:
    """A spool with these events, each of the VM that its first letter names."""
    return Committed(
        texts={id: id.encode() for id in ids}, vms=vms or {}, vm_of={id: id[0] for id in ids}
    )


def arrivals(text: str) -> list[tuple[str, bytes]]:
    return [(id, id.encode()) for id in text.split()]


def test_all_arrived() -> None:
    report = received("sink", arrivals("a1 b1 a2"), spool("a1", "b1", "a2"))
    assert (report.wanted, report.events, report.duplicates, report.lost) == (3, 3, 0, 0)
    assert not report.problems


def test_arrived_again() -> None:
    """What comes again may come where it likes: what matters is when it came first."""
    report = received("sink", arrivals("a1 b1 a1 b1 a2 a2"), spool("a1", "b1", "a2"))
    assert (report.events, report.duplicates, report.lost) == (3, 3, 0)
    assert not report.problems


def test_only_some_wanted() -> None:
    report = received("sink", arrivals("a1 a2"), spool("a1", "b1", "a2"), frozenset("a"))
    assert (report.wanted, report.events, report.lost) == (2, 2, 0)
    assert not report.problems


@pytest.mark.parametrize(
    ("came", "lost", "problem"),
    [
        ("a1 a2", 1, "a2 arrived where ['b1'] was due"),
        ("a1 b1", 1, None),
        ("", 3, None),
        ("a1 a2 b1", 0, "a2 arrived where ['b1'] was due"),
        ("a1 b1 a2 a3", 0, "a3 arrived and was never committed"),
    ],
)
def test_not_as_promised(came: str, lost: int, problem: str | None) -> None:
    report = received("sink", arrivals(came), spool("a1", "b1", "a2"))
    assert report.lost == lost
    assert report.problems[:1] == ([problem] if problem else [])


def test_not_wanted() -> None:
    report = received("sink", arrivals("b1 a1"), spool("a1", "b1"), frozenset("a"))
    assert report.problems == ["b1 arrived, which the sink does not want"]


def test_other_bytes() -> None:
    report = received("sink", [("a1", b"a1"), ("a1", b"A1")], spool("a1"))
    assert report.problems == ["a1 arrived with other bytes"]
    assert not report.duplicates


def event(sequence: int, counter: int, session: int = 1) -> Told:
    return Told(EVENT, session, sequence, counter)


def gap(sequence: int, since: float, until: float) -> Told:
    return Told("gap", 2, sequence, since=since, until=until)


#: A VM raised six events, a second after the other; nobody listened to the third.
SOURCE = Raised([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [True, True, False, True, True, True])
#: What is told of it if the fourth was lost too.
TOLD = [
    event(1, 1),
    event(2, 2),
    Told("connected", 2, 3),
    gap(4, 2.5, 4.5),
    event(5, 5, 2),
    event(6, 6, 2),
]


def test_hole_that_is_told_of() -> None:
    report = numbers(spool(vms={"a": TOLD}), {"a": SOURCE})
    assert (report.raised, report.heard, report.committed) == (6, 5, 4)
    assert (report.holes, report.told) == (2, 1)
    assert not report.problems


def test_hole_at_the_end() -> None:
    """The daemon is started again when nothing happens any more."""
    told = [event(1, 1), event(2, 2), Told("connected", 2, 3), gap(4, 2.5, 7.0)]
    report = numbers(spool(vms={"a": told}), {"a": SOURCE})
    assert report.holes == 4
    assert not report.problems


Change = Callable[[list[Told]], None]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda told: told.pop(1), "a: the numbers 2 … 2 are missing, and nothing tells"),
        (lambda told: told.pop(), "a: the events 6 … 6 are missing, and nothing tells"),
        (lambda told: told.insert(1, event(1, 1)), "a: number 1 after 1"),
        (
            lambda told: told.__setitem__(3, Told("snapshot", 2, 4)),
            "a: the events 3 … 4 are missing, and nothing tells",
        ),
        (
            lambda told: told.__setitem__(slice(3, 5), [event(4, 5, 2), gap(5, 2.5, 4.5)]),
            "a: the events 3 … 4 are missing, and nothing tells",
        ),
        (
            lambda told: told.__setitem__(3, gap(4, 2.5, 3.5)),
            "a: the events 3 … 4 are missing: raised up to -0.500 s before and 0.500 s after",
        ),
        (
            lambda told: told.__setitem__(3, gap(4, 4.0 + TOLERANCE, 9.0)),
            "a: the events 3 … 4 are missing: raised up to 3.000 s before",
        ),
        (lambda told: told.__setitem__(4, event(5, 3, 2)), "a: event 3 was never sent"),
        (lambda told: told.__setitem__(4, event(5, 7, 2)), "a: event 7 was never sent"),
        (lambda told: told.__setitem__(1, event(2, 1)), "a: event 1 after 1"),
        (lambda told: told.__setitem__(5, event(6, 6, 1)), "a: session 1 after 2"),
    ],
)
def test_numbers_not_as_promised(change: Change, problem: str) -> None:
    told = list(TOLD)
    change(told)
    report = numbers(spool(vms={"a": told}), {"a": SOURCE})
    assert any(each.startswith(problem) for each in report.problems), report.problems


def test_vm_that_is_not_there() -> None:
    report = numbers(spool(vms={"b": [event(1, 1)]}), {})
    assert report.problems == ["there is no VM b"]


def test_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id":"a1"}\n{"id":"a\n{"id":"a2"}\n{"id":"a3"}')
    problems: list[str] = []
    assert list(evidence.lines(path, problems)) == [
        ("a1", b'{"id":"a1"}'),
        ("a2", b'{"id":"a2"}'),
    ]
    assert [each.split(":")[0] for each in problems] == ["line 2 is torn", "line 4 is torn"]


def written(path: Path, *posts: tuple[str, bool, bytes]) -> Path:
    """What the receiver writes of posts: their ids, whether they were signed, and their bodies."""
    with path.open("wb") as file:
        for id, signed, body in posts:
            about = f'{{"size": {len(body)}, "id": "{id}", "signed": {str(signed).lower()}}}'
            file.write(about.encode() + b"\n" + body + b"\n")
    return path


def test_posts(tmp_path: Path) -> None:
    texts = {id: b'{"id":"%b"}' % id.encode() for id in ("a1", "a2", "a3")}
    batch = b"[%b]" % b",".join(texts.values())
    other = batch.replace(b"{", b"{ ")
    problems: list[str] = []
    path = written(
        tmp_path / "posts",
        ("a1", True, texts["a1"]),
        ("a1_a3", True, batch),
        ("a2", False, texts["a2"]),
        ("a1_a3", True, other),
        ("a1_a2", True, batch),
    )
    found = list(evidence.posts(path, texts, problems))
    assert found[:5] == [("a1", texts["a1"]), *texts.items(), ("a2", texts["a2"])]
    assert found[5:] == [("a1", b""), ("a2", b""), ("a3", b""), *texts.items()]
    assert problems == [
        "the post a2 has no signature that fits",
        "the post a1_a3 came with different bodies",
        "the post a1_a2 is from a1 to a3",
    ]


def test_moments_are_those_of_the_seed() -> None:
    plan = Plan(seed=5)
    assert plan.kill_moments() == Plan(seed=5).kill_moments() != Plan(seed=6).kill_moments()
    assert len(plan.kill_moments()) == 10
    first, second = plan.broker_moments()
    assert 0 < first < 60 < second < 120
