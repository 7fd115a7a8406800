"""The stream of events: how it is framed, resumed and limited, and what a slow client costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from support.leaks import LoggedErrors
from support.web import BUFFER, Client, Face, record
from txqmp.monitor.web.events import BEHIND, MAX_CLIENTS
from txqmp.monitor.web.source import FeedBatch
from txqmp.monitor.web.stream import COUNT, KEEP_ALIVE, PIECE, STALLED, StreamCounters, message


@pytest.fixture
def face(clock: Clock) -> Iterator[Face]:
    face = Face(clock)
    yield face
    face.close()


def add(face: Face, count: int, size: int = 0) -> None:
    """Let things happen, each with its position in it."""
    for _ in range(count):
        position = face.feed.last + 1
        face.feed.add(record("vm1", position, text="x" * size))


def positions(client: Client) -> list[int]:
    """The events that have come since the last time; there must have been nothing else."""
    found = []
    for each in client.messages():
        assert set(each) == {"id", "data"}, each
        assert int(each["id"]) == each["data"]["seq"]
        found.append(int(each["id"]))
    return found


def greeting(client: Client) -> Any:
    """Take what a stream begins with."""
    hello = client.messages()[0]
    assert hello["event"] == "hello"
    return hello


# Framing


def test_what_a_stream_looks_like(face: Face) -> None:
    add(face, 2)
    client = face.stream("?after=1")
    answer_head, _, _ = client.wire.value().partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: text/event-stream\r\n" in answer_head
    assert b"\r\nX-Accel-Buffering: no" in answer_head
    assert b"\r\nCache-Control: no-store" in answer_head
    assert b"\r\nContent-Security-Policy: default-src 'none';" in answer_head
    face.turn()
    assert client.stream_text() == (
        "retry: 3000\n\n"
        "event: hello\n"
        "id: 1\n"
        'data: {"version":"0.1.0","node":"node7.example","feed":"feed-1","position":1}\n\n'
        "id: 2\n"
        f"data: {record('vm1', 2, text='').decode()}\n\n"
    )


def test_a_line_end_in_an_event_ends_no_line() -> None:
    text = message(b'{"a":\r\n1,\n\r"b": 2}', id=7)
    assert text == b'id: 7\ndata: {"a":  1,  "b": 2}\n\n'


@pytest.mark.parametrize("text", ["\u2028", "\x85", "é", "\\n\\nevent: gap", "data: {}"])
def test_what_is_no_line_end(face: Face, text: str) -> None:
    client = face.stream()
    greeting(client)
    face.feed.add(json.dumps({"seq": 1, "name": text}, ensure_ascii=False).encode())
    face.turn(0.2)
    (event,) = client.messages()
    assert event == {"id": "1", "data": {"seq": 1, "name": text}}


def test_head(face: Face) -> None:
    answer = face.get("/events", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Content-Type") == "text/event-stream"
    assert answer.header("Content-Length") is None
    assert face.root.events.counters == StreamCounters()


# Where it begins


def test_it_begins_with_what_comes_next(face: Face) -> None:
    add(face, 3)
    client = face.stream()
    face.turn(1)
    assert greeting(client)["data"]["position"] == 3
    add(face, 2)
    face.turn(0.2)
    assert positions(client) == [4, 5]
    add(face, 1)
    face.turn(0.2)
    assert positions(client) == [6]


@pytest.mark.parametrize("after", [0, 1, 4, 5])
@pytest.mark.parametrize("how", ["query", "header", "both"])
def test_it_goes_on_after_a_position(face: Face, after: int, how: str) -> None:
    add(face, 5)
    query = {"query": f"?after={after}", "header": "", "both": "?after=3"}[how]
    headers = {} if how == "query" else {"Last_Event_ID": str(after)}
    client = face.stream(query, **headers)
    hello, *events = client.messages()
    assert hello["id"] == str(after)
    assert [int(event["id"]) for event in events] == list(range(after + 1, 6))
    add(face, 1)
    face.turn(0.2)
    assert positions(client) == [6]


def test_much_is_read_in_parts(face: Face) -> None:
    add(face, 3 * COUNT + 7)
    client = face.stream("?after=0")
    greeting(client)
    face.turn()
    face.turn()
    face.turn()
    assert [after for after, _ in face.feed.reads] == [0, COUNT, 2 * COUNT, 3 * COUNT]
    assert {count for _, count in face.feed.reads} == {COUNT}


def test_what_comes_together_is_read_together(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    greeting(client)
    for _ in range(10):
        add(face, 1)
        face.clock.advance(0.005)
    assert face.feed.reads == []
    face.turn(0.1)
    assert face.feed.reads == [(0, COUNT)]
    assert positions(client) == list(range(1, 11))


@pytest.mark.parametrize(
    "query", ["?after=-1", "?after=x", "?after=1e3", "?after=9999999999999999999", "?behind=none"]
)
def test_wishes_that_make_no_sense(face: Face, query: str) -> None:
    answer = face.get(f"/events{query}")
    assert answer.status == 400
    assert answer.body.startswith(b"'")
    assert face.root.events.counters == StreamCounters()


def test_an_id_that_makes_no_sense(face: Face) -> None:
    assert face.get("/events", Last_Event_ID="4711; drop table").status == 400


# What is missing


def test_what_is_not_there_any_more(face: Face) -> None:
    add(face, 10)
    face.feed.drop(6)
    client = face.stream("?after=2")
    hello, gap, *events = client.messages()
    assert hello["id"] == "2"
    missing = {"reason": "dropped", "first": 3, "last": 6, "count": 4}
    assert gap == {"event": "gap", "id": "6", "data": missing}
    assert [int(event["id"]) for event in events] == [7, 8, 9, 10]


def test_all_is_gone(face: Face) -> None:
    add(face, 10)
    face.feed.drop(10)
    client = face.stream("?after=2")
    _, gap = client.messages()
    assert gap["data"] == {"reason": "dropped", "first": 3, "last": 10, "count": 8}
    add(face, 1)
    face.turn(0.2)
    assert positions(client) == [11]


def test_a_position_from_another_feed(face: Face) -> None:
    add(face, 5)
    face.feed.drop(2)
    client = face.stream(Last_Event_ID="4711")
    hello, gap, *events = client.messages()
    assert hello["data"]["feed"] == "feed-1"
    unknown = {"reason": "unknown position", "position": 4711}
    assert gap == {"event": "gap", "id": "2", "data": unknown}
    assert [int(event["id"]) for event in events] == [3, 4, 5]


def test_who_is_far_behind_is_moved_on(face: Face) -> None:
    add(face, 50)
    client = face.stream("?after=10&behind=20")
    _, gap, *events = client.messages()
    skipped = {"reason": "skipped", "first": 11, "last": 30, "count": 20}
    assert gap == {"event": "gap", "id": "30", "data": skipped}
    assert [int(event["id"]) for event in events] == list(range(31, 51))
    assert face.root.events.counters.skipped == 20


def test_how_far_is_too_far(face: Face) -> None:
    """Who asks for a position gets all of it; who only looks is not held up."""
    add(face, BEHIND + 10)
    resumed = face.stream(Last_Event_ID="5")
    assert resumed.messages()[1]["data"]["reason"] == "skipped"
    asked = face.stream("?after=5")
    assert asked.messages()[1]["id"] == "6"
    both = face.stream("?after=5&behind=all", Last_Event_ID="6")
    assert both.messages()[1]["id"] == "7"


# A client that does not read


def events_bytes(count: int, size: int) -> int:
    return len(message(record("vm1", 10**6, text="x" * size), id=10**6)) * count


def test_a_client_that_never_reads_costs_no_memory(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    for _ in range(200):
        add(face, 100, size=4000)  # 80 MB in all
        face.turn(0.2)
        face.feed.drop(100)
    # What the transport takes before it says stop, and what was written at once.
    assert client.wire.most <= BUFFER + PIECE + 8192
    assert len(face.feed.reads) < 10
    assert face.feed.watchers == {}


def test_a_slow_client_is_told_what_it_missed(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    greeting(client)
    add(face, 30, size=4000)
    face.turn(0.2)  # it reads no more
    before = client.wire.held
    assert before > BUFFER
    add(face, 20000)
    face.turn(30)
    assert client.wire.held == before
    seen = []
    for _ in range(100):
        seen += client.messages()
        face.turn(0.2)
    (gap,) = (each for each in seen if each.get("event") == "gap")
    ids = [int(each["id"]) for each in seen if "event" not in each]
    skipped = gap["data"]["count"]
    assert gap["data"]["reason"] == "skipped"
    assert gap["data"]["last"] == 20030 - BEHIND
    # Each event came once, in order, or was announced.
    first = gap["data"]["first"]
    assert ids == [*range(1, first), *range(first + skipped, 20031)]
    assert face.root.events.counters.skipped == skipped


def test_a_short_pause_loses_nothing(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    greeting(client)
    add(face, 30, size=4000)
    face.turn(0.2)
    add(face, 500)
    face.turn(5)
    seen: list[int] = []
    for _ in range(30):
        seen += positions(client)
        face.turn(0.2)
    assert seen == list(range(1, 531))


def test_nothing_is_held_when_the_client_pauses_during_a_read(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    greeting(client)
    face.feed.hold = True
    add(face, 10, size=4000)
    face.turn(0.2)
    channel = client.wire.producer
    channel.pauseProducing()
    face.feed.answer()
    assert client.wire.held == 0
    face.turn(1)
    assert len(face.feed.reads) == 1
    face.feed.hold = False
    channel.resumeProducing()
    face.turn(0.2)
    assert positions(client) == list(range(1, 11))


def test_who_does_not_read_at_all_is_cut_off(face: Face) -> None:
    client = face.stream("?after=0")
    add(face, 100, size=4000)
    face.turn(1)
    held = client.wire.held
    face.turn(STALLED - 5)
    assert not client.wire.disconnected
    assert client.wire.held == held  # not even a comment
    face.turn(10)
    assert client.wire.disconnected
    assert face.root.events.counters == StreamCounters(stalled=1)


def test_who_reads_now_and_then_is_not_cut_off(face: Face) -> None:
    client = face.stream("?after=0")
    add(face, 1000, size=4000)
    for _ in range(5):
        face.turn(STALLED * 0.9)
        assert not client.wire.disconnected
        client.stream_text()


def test_one_large_event(face: Face) -> None:
    client = face.stream("?after=0")
    add(face, 3, size=1 << 20)
    face.turn(0.2)
    client.wire.read()
    face.turn(0.2)
    assert client.wire.most < (1 << 20) + BUFFER


# Silence


def test_silence_is_broken(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    greeting(client)
    face.turn(KEEP_ALIVE)
    assert client.stream_text() == ":\n\n"
    face.turn(KEEP_ALIVE)
    assert client.stream_text() == ":\n\n"


# Many


def test_one_too_many(face: Face) -> None:
    streams = [face.stream() for _ in range(MAX_CLIENTS)]
    answer = face.get("/events")
    assert answer.status == 503
    assert answer.header("Retry-After") == "10"
    assert face.root.events.counters == StreamCounters(clients=MAX_CLIENTS, refused=1)
    assert face.get("/api/v1/status").json["streams"] == {
        "clients": MAX_CLIENTS,
        "refused": 1,
        "stalled": 0,
        "skipped": 0,
    }
    streams[0].lose()
    greeting(face.stream())
    assert face.get("/events").status == 503


def test_one_that_is_slow_hurts_no_other(face: Face) -> None:
    slow, quick = face.stream(), face.stream()
    face.turn(1)
    greeting(quick)
    seen: list[int] = []
    for _ in range(50):
        add(face, 20, size=4000)
        face.turn(0.3)
        seen += positions(quick)
    face.turn(0.3)
    seen += positions(quick)
    assert seen == list(range(1, 1001))
    assert slow.wire.held < 2 * BUFFER + 8192


# Its end


def test_the_client_goes(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    assert len(face.feed.watchers) == 1
    client.lose()
    assert face.feed.watchers == {}
    assert face.root.events.counters == StreamCounters()
    add(face, 1)
    face.turn(1)


def test_the_client_goes_during_a_read(face: Face) -> None:
    client = face.stream()
    face.turn(1)
    face.feed.hold = True
    add(face, 1)
    face.turn(0.2)
    client.lose()
    face.feed.held.clear()
    assert face.root.events.counters.clients == 0


def test_a_feed_that_fails(face: Face) -> None:
    """The client comes back; meanwhile others get an answer."""
    client = face.stream()
    face.turn(1)
    greeting(client)
    face.feed.problem = OSError("the spool is closed")
    add(face, 1)
    face.turn(0.2)
    assert client.wire.read() == b"0\r\n\r\n"
    assert face.root.events.counters == StreamCounters()
    assert client.get("/healthz").status == 200


def test_a_feed_that_gives_nothing(face: Face) -> None:
    """It says that there is more, and does not give it: it is asked again, but not all the time."""
    client = face.stream()
    face.turn(1)
    greeting(client)
    face.feed.hold = True
    add(face, 1)
    for _ in range(20):
        face.turn(0.05)
        for reading, after, _ in face.feed.held:
            reading.callback(FeedBatch(None, (), after))
        face.feed.held.clear()
    assert 5 <= len(face.feed.reads) <= 12
    face.feed.hold = False
    face.turn(0.2)
    assert positions(client) == [1]


def test_a_feed_that_is_wrong(face: Face, logged_errors: LoggedErrors) -> None:
    client = face.stream()
    face.turn(1)
    face.feed.hold = True
    add(face, 1)
    face.turn(0.2)
    ((reading, _, _),) = face.feed.held
    reading.callback("no batch")  # type: ignore[arg-type]
    assert client.wire.read().endswith(b"0\r\n\r\n")
    assert len(logged_errors.flush(AttributeError)) == 1
    assert face.root.events.counters.clients == 0


def test_closing_ends_all_streams(face: Face) -> None:
    streams = [face.stream() for _ in range(3)]
    face.turn(1)
    face.root.events.close()
    for client in streams:
        assert client.wire.read().endswith(b"0\r\n\r\n")
    assert face.root.events.counters.clients == 0
    assert face.get("/events").status == 503
    face.root.events.open()
    greeting(face.stream())
