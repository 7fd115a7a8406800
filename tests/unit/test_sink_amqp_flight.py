"""What became of each event of a batch: the account that is kept of a channel in confirm mode."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from txqmp.monitor.sinks.amqp.flight import Flight


def flight(count: int, window: int = 200, *, careful: bool = False, tag: int = 1) -> Flight:
    """A flight with all published that may be, under tags from this one on."""
    made = Flight([f"id{number}" for number in range(count)], window, careful=careful)
    publish(made, tag)
    return made


def publish(flight: Flight, tag: int) -> list[int]:
    """Publish what may be; return which."""
    places = []
    while (place := flight.to_publish()) is not None:
        flight.published(tag)
        tag += 1
        places.append(place)
    return places


def test_all_are_taken_one_by_one_in_any_order() -> None:
    way = flight(3, tag=11)
    for tag, taken in [(13, 0), (11, 1), (12, 3)]:
        assert not way.over
        way.settled(tag, multiple=False)
        assert way.taken == taken
    assert way.over
    assert way.problem is None


def test_many_are_settled_at_once() -> None:
    way = flight(5)
    way.settled(2, multiple=False)
    way.settled(4, multiple=True)
    assert way.taken == 4
    way.settled(4, multiple=True)
    way.settled(5, multiple=True)
    assert way.over


def test_a_tag_that_nobody_knows_is_nobodys() -> None:
    way = flight(1)
    way.settled(7, multiple=False)
    way.settled(0, multiple=True)
    assert way.taken == 0
    assert not way.over


def test_what_is_refused_ends_the_front() -> None:
    way = flight(4)
    way.settled(2, multiple=False, problem="refused")
    assert way.problem is None, "the first may yet be refused too"
    way.settled(4, multiple=True)
    assert way.over
    assert (way.taken, way.problem) == (1, "refused")


def test_what_comes_back_is_blamed_and_not_its_neighbours() -> None:
    """One confirmation covers them all, as brokers do it."""
    way = flight(4)
    way.returned("id2", "no queue takes it")
    way.settled(4, multiple=True)
    assert way.over
    assert (way.taken, way.problem) == (2, "no queue takes it")


def test_an_event_that_nobody_sent_comes_back() -> None:
    way = flight(1)
    way.returned("another", "no queue takes it")
    way.settled(1, multiple=False)
    assert way.over
    assert way.problem is None


def test_no_more_than_a_window_are_on_their_way() -> None:
    way = flight(5, window=2)
    assert way.to_publish() is None
    way.settled(2, multiple=False)
    assert publish(way, 3) == [2]
    way.settled(3, multiple=True)
    assert way.taken == 3
    assert publish(way, 4) == [3, 4]
    way.settled(5, multiple=True)
    assert way.over


def test_after_a_refusal_nothing_more_is_sent() -> None:
    way = flight(5, window=2)
    way.settled(1, multiple=False, problem="refused")
    assert way.to_publish() is None
    assert not way.over
    way.settled(2, multiple=False)
    assert way.over
    assert way.taken == 0


def test_the_first_goes_alone_where_care_is_asked_for() -> None:
    way = flight(4, careful=True)
    assert way.to_publish() is None
    way.settled(1, multiple=False)
    assert publish(way, 2) == [1, 2, 3]


def test_the_first_went_alone_and_was_refused() -> None:
    way = flight(4, careful=True)
    way.settled(1, multiple=False, problem="refused")
    assert way.over
    assert way.taken == 0


def test_the_end_before_the_end() -> None:
    way = Flight(["id0", "id1", "id2"], 200)
    way.published(1)
    way.end_here()
    assert way.to_publish() is None
    assert not way.over
    way.settled(1, multiple=False)
    assert way.over
    assert (way.taken, way.problem) == (1, None)


def test_the_channel_is_lost() -> None:
    way = flight(4)
    way.settled(1, multiple=False)
    way.settled(3, multiple=False, problem="refused")
    way.lost("the channel is gone")
    assert way.over
    assert (way.taken, way.problem) == (1, "the channel is gone")


def test_the_channel_is_lost_when_nothing_was_on_its_way() -> None:
    way = flight(1)
    way.settled(1, multiple=False)
    way.lost("the channel is gone")
    assert way.problem is None


def test_nothing_to_send() -> None:
    way = flight(0)
    assert way.over
    assert (way.taken, way.problem) == (0, None)


fates = st.sampled_from(["taken", "taken", "taken", "refused", "returned"])


@given(st.lists(fates, max_size=40), st.integers(1, 50), st.booleans(), st.data())
def test_however_the_broker_settles_the_account_is_right(
    fate: list[str], window: int, careful: bool, data: st.DataObject
) -> None:
    """The broker settles what is on its way in any order, in groups or not. What is counted as
    taken was taken, it stops before the first that was not, and it ends."""
    way = Flight([str(place) for place in range(len(fate))], window, careful=careful)
    unsettled: dict[int, int] = {}
    tag = 0
    settled: set[int] = set()
    while not way.over:
        while (place := way.to_publish()) is not None:
            tag += 1
            way.published(tag)
            unsettled[tag] = place
            assert len(unsettled) <= window
        # A group is of one kind: RabbitMQ acknowledges what it returned.
        chosen = data.draw(st.sampled_from(sorted(unsettled)))
        kind = fate[unsettled[chosen]] == "refused"
        group = [each for each in sorted(unsettled) if each <= chosen]
        multiple = all((fate[unsettled[each]] == "refused") == kind for each in group)
        places = [unsettled.pop(each) for each in (group if multiple else [chosen])]
        for place in places:
            if fate[place] == "returned":
                way.returned(str(place), f"returned {place}")
        way.settled(chosen, multiple, "refused" if kind else None)
        settled.update(places)
    bad = [place for place in sorted(settled) if fate[place] != "taken"]
    assert way.taken == (bad[0] if bad else len(fate))
    if bad:
        kinds = {"refused": "refused", "returned": f"returned {bad[0]}"}
        assert way.problem == kinds[fate[bad[0]]]
    else:
        assert way.problem is None
