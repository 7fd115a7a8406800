"""What a spool remembers of each VM."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from support.deferreds import failure, success
from support.spool import NOW, SpoolWorld
from txqmp.monitor.spool import Item, LastHeard, Reader, SpoolFullError, SpoolLimits, WhenFull, vms


@pytest.fixture
def world(tmp_path: Path) -> SpoolWorld:
    return SpoolWorld(tmp_path / "spool").start()


def heard(vm: str, session: int, seq: int, time: float = NOW) -> Item:
    return Item(vm, "STOP", time, b"{}", session, seq)


def test_the_newest_numbers_of_each_vm(world: SpoolWorld) -> None:
    for item in (
        heard("a", 1, 1),
        heard("b", 3, 9),
        heard("a", 2, 2, NOW + 5),
        heard("none", 1, 0),
    ):
        success(world.spool.put(item))
    assert success(world.spool.last_heard()) == {
        "a": LastHeard(2, 2, NOW + 5),
        "b": LastHeard(3, 9, NOW),
    }
    world.close()


def test_who_each_was(world: SpoolWorld) -> None:
    success(world.spool.put(Item("a", "STOP", NOW, b"{}", 1, 1, "uuid 1")))
    success(world.spool.put(Item("b", "gone", NOW, b"{}", 2, 5, over=True)))
    assert success(world.spool.last_heard()) == {
        "a": LastHeard(1, 1, NOW, "uuid 1"),
        "b": LastHeard(2, 5, NOW, over=True),
    }
    world.close()


def test_they_outlive_the_records_and_the_daemon(tmp_path: Path) -> None:
    world = SpoolWorld(tmp_path / "spool").start()
    success(world.spool.put(heard("a", 1, 7)))
    assert world.texts() == []  # no sink needs it, and nothing is kept
    world.close()
    with Reader(world.directory) as reader:
        assert reader.last_heard() == {"a": LastHeard(1, 7, NOW)}


def test_what_was_not_taken_in_is_not_remembered(tmp_path: Path) -> None:
    limits = SpoolLimits(max_bytes=250, when_full=WhenFull.BLOCK, keep_bytes=0)
    world = SpoolWorld(tmp_path / "spool", limits).start()
    success(world.spool.add_sink("slow"))
    world.writer.hold()
    taken = world.spool.put(heard("a", 1, 1))
    for seq in (2, 3):
        world.spool.put(attrs.evolve(heard("a", 1, seq), data=b"x" * 100)).addErrback(
            lambda failure: failure.trap(SpoolFullError)
        )
    world.writer.release()
    success(taken)
    known = success(world.spool.last_heard())["a"].seq
    committed = world.spool.counters.committed
    assert known == committed < 3
    late = world.spool.put(heard("a", 1, 4))
    world.clock.advance(limits.max_wait)
    failure(late, SpoolFullError)
    assert success(world.spool.last_heard())["a"].seq == known
    world.close()


def test_a_bounded_number_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vms, "REMEMBERED", 2)
    world = SpoolWorld(tmp_path / "spool").start()
    for number in range(4):
        success(world.spool.put(heard(f"vm{number}", 1, 1, NOW + number)))
    world.close()
    again = SpoolWorld(tmp_path / "spool").start()
    assert sorted(success(again.spool.last_heard())) == ["vm2", "vm3"]
    again.close()
