"""What a factory tells, and to whom; the telling itself is in test_factory.py."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.task import Clock

from support.deferreds import pending, success
from support.transports import Peer
from txqmp.errors import ConnectError, StateError
from txqmp.observer import Gap, Observer, Snapshot, ask


def test_an_observer_takes_what_it_does_not_care_for() -> None:
    observer = Observer()
    error = ConnectError("no")
    observer.ready(None)  # type: ignore[arg-type]
    observer.lost(None, error)  # type: ignore[arg-type]
    observer.gap(Gap(1.0, 2.0, "why"))
    observer.snapshot(Snapshot({}, {}))
    observer.failed(error)


def test_a_cancelled_observer_is_taken_out_of_the_list() -> None:
    observers: list[Observer] = []
    one, other = Observer(observers=observers), Observer(observers=observers)
    observers += [one, other]
    one.cancel()
    one.cancel()
    assert observers == [other]


def test_observers_with_the_same_callbacks_are_not_the_same() -> None:
    assert Observer() != Observer()


def test_several_queries_can_be_asked_at_once(clock: Clock) -> None:
    peer = Peer(clock).run()
    asking = ask(peer.session, "query-status", "query-name", "query-uuid")
    status, name, uuid = peer.heard()
    assert [each["execute"] for each in (status, name, uuid)] == [
        "query-status",
        "query-name",
        "query-uuid",
    ]
    peer.reply(name, {"name": "vm1"})
    peer.refuse(status, "no")
    pending(asking)
    peer.reply(uuid, {})
    taken = success(asking)
    assert taken.results == {"query-name": {"name": "vm1"}, "query-uuid": {}}
    assert [str(error) for error in taken.errors.values()] == ["query-status: no (GenericError)"]
    peer.close()


def test_nothing_asked_is_nothing_taken(clock: Clock) -> None:
    assert success(ask(Peer(clock).session)) == Snapshot({}, {})


def test_what_cannot_be_asked_is_an_error(clock: Clock) -> None:
    taken = success(ask(Peer(clock).session, "query-status"))
    assert isinstance(taken.errors["query-status"], StateError)


def test_a_gap_and_a_snapshot_are_frozen_records() -> None:
    gap = Gap(since=1.0, until=2.0, reason="why")
    assert (gap.since, gap.until, gap.reason) == (1.0, 2.0, "why")
    assert gap == Gap(1.0, 2.0, "why")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        gap.since = 3.0  # type: ignore[misc]
    problem = ValueError()
    snapshot = Snapshot(results={"a": 1}, errors={"b": problem})
    assert (snapshot.results, snapshot.errors) == ({"a": 1}, {"b": problem})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        snapshot.results = {}  # type: ignore[misc]
