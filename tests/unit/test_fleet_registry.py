"""The fleet: names, places, and its consumer."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from support.leaks import LoggedErrors
from txqmp.errors import ConnectError, StateError
from txqmp.fleet import Fleet, Kind, NameTakenError, Past, Record, TooManyVMsError, registry
from txqmp.fleet.registry import MISSING_AFTER


@pytest.fixture
def records() -> list[Record]:
    return []


@pytest.fixture
def fleet(clock: Clock, records: list[Record]) -> Fleet:
    return Fleet(clock, records.append, max_vms=3)


def test_a_name_is_one_vms(fleet: Fleet) -> None:
    vm = fleet.claim("a")
    assert fleet.vms == (vm,)
    assert fleet.find("a") is vm
    assert fleet.find("b") is None
    with pytest.raises(NameTakenError, match="'a'"):
        fleet.claim("a")


def test_a_vm_that_returns_keeps_its_numbers(fleet: Fleet, records: list[Record]) -> None:
    vm = fleet.claim("a")
    vm.dropped(1, "why")
    fleet.release(vm)
    assert fleet.find("a") is None
    assert fleet.vms == (vm,)
    again = fleet.claim("a")
    again.dropped(1, "why")
    assert [record.seq for record in records] == [1, 2]
    assert fleet.vms == (again,)


def test_a_vm_is_released_once(fleet: Fleet) -> None:
    vm = fleet.claim("a")
    fleet.release(vm)
    again = fleet.claim("a")
    other = Fleet(Clock(), print).claim("a")
    fleet.release(other)
    assert fleet.find("a") is again


def test_what_is_remembered_is_bounded(fleet: Fleet) -> None:
    for number in range(10):
        fleet.release(fleet.claim(f"vm{number}"))
    assert [vm.name for vm in fleet.vms] == ["vm7", "vm8", "vm9"]


def test_too_many(fleet: Fleet) -> None:
    for name in "abc":
        fleet.claim(name)
    with pytest.raises(TooManyVMsError, match="3 VMs"):
        fleet.claim("d")


def test_a_place_is_one_sources(fleet: Fleet) -> None:
    fleet.occupy("/run/a.sock")
    assert fleet.is_occupied("/run/a.sock")
    with pytest.raises(NameTakenError, match=r"/run/a\.sock"):
        fleet.occupy("/run/a.sock")
    fleet.vacate("/run/a.sock")
    fleet.vacate("/run/a.sock")
    fleet.occupy("/run/a.sock")


def test_a_consumer_that_raises(clock: Clock, logged_errors: LoggedErrors) -> None:
    records: list[Record] = []

    def consume(record: Record) -> None:
        records.append(record)
        raise RuntimeError("I cannot")

    fleet = Fleet(clock, consume)
    vm = fleet.claim("a")
    vm.failed(ConnectError("nobody"))
    vm.dropped(1, "why")
    vm.dropped(2, "why")
    assert [record.seq for record in records] == [1, 2]
    assert fleet.consumer_failures == 2
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_factories_only_watch(fleet: Fleet) -> None:
    factory = fleet.make_factory("a")
    assert factory.settings.oob is False
    assert factory.settings.timeouts.greeting == 5.0


# What is remembered from before


def test_numbers_go_on(fleet: Fleet, records: list[Record]) -> None:
    early = fleet.claim("early")
    fleet.restore({"early": Past(3, 30, 5.0), "late": Past(4, 40, 6.0), "never": Past(5, 50, 7.0)})
    late, other = fleet.claim("late"), fleet.claim("other")
    for vm in (early, late, other):
        vm.dropped(1, "why")
    assert [(each.vm, each.session, each.seq) for each in records] == [
        ("early", 3, 31),
        ("late", 4, 41),
        ("other", 0, 1),
    ]
    assert [vm.name for vm in fleet.vms] == ["early", "late", "other"]
    # It is remembered once.
    fleet.release(late)
    fleet.claim("late").dropped(1, "why")
    assert records[-1].seq == 42


def test_the_newest_are_remembered(fleet: Fleet) -> None:
    fleet.restore({name: Past(1, 10, float(time)) for time, name in enumerate("abcde")})
    assert [fleet.claim(name).seq for name in "ecb"] == [10, 10, 0]


def test_one_that_does_not_come_back_is_told_to_be_gone(
    fleet: Fleet, clock: Clock, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_AT_ONCE", 1)
    fleet.restore(
        {
            "back": Past(1, 10, 5.0),
            "missing": Past(3, 30, 7.0, "uuid 1"),
            "told": Past(4, 40, 8.0, over=True),
        }
    )
    fleet.startService()
    fleet.claim("back")
    clock.advance(MISSING_AFTER - 1)
    assert records == []
    clock.advance(1)
    (told,) = records
    assert (told.vm, told.identity, told.session, told.seq) == ("missing", "uuid 1", 3, 31)
    assert told.kind is Kind.GONE
    assert told.details["reason"] == (
        "the daemon did not run, and it did not come back: last heard 1970-01-01T00:00:07.000000Z"
    )
    assert clock.getDelayedCalls() == []
    # Their numbers go on all the same.
    assert [fleet.claim(name).seq for name in ("missing", "told")] == [31, 40]
    fleet.stopService()


def test_many_that_do_not_come_back(
    fleet: Fleet, clock: Clock, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_AT_ONCE", 1)
    fleet.restore({name: Past(1, 1, 1.0) for name in "abc"})
    fleet.startService()
    clock.advance(MISSING_AFTER)
    assert sorted(record.vm for record in records) == ["a", "b", "c"]
    assert clock.getDelayedCalls() == []
    fleet.stopService()


def test_the_end_before_that(fleet: Fleet, clock: Clock, records: list[Record]) -> None:
    fleet.restore({"a": Past(1, 1, 1.0)})
    fleet.startService()
    fleet.stopService()
    assert clock.getDelayedCalls() == []
    assert records == []


def test_too_late_to_remember(fleet: Fleet) -> None:
    fleet.startService()
    with pytest.raises(StateError, match="the fleet runs"):
        fleet.restore({"a": Past(1, 1, 1.0)})
    fleet.stopService()


@pytest.mark.parametrize(
    ("session", "seq", "last_time"),
    [(-1, 0, 0.0), (0, -1, 0.0), (0, 0, -1.0), (0, 0, 1e18), (0, 0, float("nan"))],
)
def test_no_past(session: int, seq: int, last_time: float) -> None:
    with pytest.raises(ValueError, match=r"must be [<>]= \d"):
        Past(session, seq, last_time)
