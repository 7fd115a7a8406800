"""The sink that posts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from support.deferreds import pending, success
from support.leaks import LoggedErrors
from txqmp.monitor.records import Entry
from txqmp.monitor.sinks.base import Counters
from txqmp.monitor.sinks.queue import OVERHEAD
from txqmp.monitor.sinks.webhook import WebhookSink, shown, webhook_sink
from txqmp.reconnect import Backoff


URL = "http://receiver.example/qmp?token=secret"
EVERY_SECOND = Backoff(initial=1.0, maximum=8.0, factor=2.0, jitter=0.0)


class Receiver(Resource):
    """Answers as it is told; 200 where it is told nothing.

    :ivar answers: status codes, or functions of the request.
    :ivar seen: the sequence numbers that came.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []
        self.seen: list[int] = []
        self.requests: list[Any] = []

    def render_POST(self, request: Any) -> Any:
        self.requests.append(request)
        self.seen.append(json.loads(request.content.read())["seq"])
        answer = self.answers.pop(0) if self.answers else 200
        if callable(answer):
            return answer(request)
        request.setResponseCode(answer)
        return b"thank you"

    def render_GET(self, request: Any) -> bytes:
        raise AssertionError("a redirect was followed")


class World:
    """A sink, and a receiver in memory."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.clock = clock
        self.receiver = Receiver()
        self.treq = StubTreq(self.receiver)
        self.aborted = 0
        self.closed = 0
        options = {"client": self.treq, "backoff": EVERY_SECOND, **options}
        self.sink = WebhookSink(
            clock,
            URL,
            abort=self._abort,
            close=self._close,
            max_size=10 * (11 + OVERHEAD),
            **options,
        )
        self.sink.start()
        self.seq = 0

    def _abort(self) -> None:
        self.aborted += 1

    def _close(self) -> None:
        self.closed += 1

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.seq += 1
            self.sink.put(Entry("a", self.seq, 1, b'{"seq":%3d}' % self.seq))

    @property
    def counters(self) -> Counters:
        return self.sink.counters


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    yield world
    success(world.sink.stop())
    assert world.closed == 1


def test_posts(world: World) -> None:
    world.put(3)
    assert world.receiver.seen == [1, 2, 3]
    assert world.counters == Counters(taken=3, delivered=3)
    request = world.receiver.requests[0]
    assert request.uri == b"/qmp?token=secret"
    assert request.requestHeaders.getRawHeaders("content-type") == ["application/json"]
    assert request.requestHeaders.getRawHeaders("content-length") == ["11"]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_delivered(world: World, status: int) -> None:
    world.receiver.answers = [status]
    world.put(2)
    assert world.receiver.seen == [1, 2]
    assert world.counters.delivered == 2


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_the_records_own_fault(world: World, status: int) -> None:
    world.receiver.answers = [status, status, 200, status]
    world.put(4)
    assert world.receiver.seen == [1, 2, 3, 4]
    assert world.counters == Counters(taken=4, delivered=1, rejected=3)


@pytest.mark.parametrize(
    "status", [301, 302, 303, 307, 308, 401, 403, 404, 405, 408, 409, 410, 421, 425, 429, 500, 503]
)
def test_tried_again_in_order(world: World, status: int) -> None:
    def answer(request: Any) -> bytes:
        request.setResponseCode(status)
        request.setHeader("Location", "http://receiver.example/elsewhere")
        return b"no"

    world.receiver.answers = [answer, answer]
    world.put(2)
    assert world.receiver.seen == [1]
    world.clock.advance(1)
    assert world.receiver.seen == [1, 1]
    world.clock.advance(1.9)
    assert world.receiver.seen == [1, 1]
    world.clock.advance(0.1)
    assert world.receiver.seen == [1, 1, 1, 2]
    assert world.counters == Counters(taken=2, delivered=2, failures=2)


def test_waits_grow_and_begin_anew(world: World) -> None:
    world.receiver.answers = [500] * 6
    world.put()
    for wait in (1, 2, 4, 8, 8):
        before = len(world.receiver.seen)
        world.clock.advance(wait - 0.1)
        assert len(world.receiver.seen) == before
        world.clock.advance(0.1)
        assert len(world.receiver.seen) == before + 1
    world.clock.advance(8)
    assert world.counters.delivered == 1
    world.receiver.answers = [500]
    world.put()
    world.clock.advance(1)
    assert world.counters.delivered == 2


def retry_after(value: str) -> Any:
    def answer(request: Any) -> bytes:
        request.setResponseCode(429)
        request.setHeader("Retry-After", value)
        return b"later"

    return answer


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        ("0", 1),
        ("100000", 3600),
        ("Thu, 01 Jan 1970 00:00:50 GMT", 50),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
        ("soon", 1),
        ("-5", 1),
        ("\u0663".encode().decode("latin-1"), 1),
        ("", 1),
    ],
)
def test_retry_after(world: World, value: str, seconds: float) -> None:
    world.receiver.answers = [retry_after(value)]
    world.put()
    world.clock.advance(seconds - 0.5)
    assert world.receiver.seen == [1]
    world.clock.advance(0.5)
    assert world.receiver.seen == [1, 1]


def test_one_at_a_time(world: World) -> None:
    held: list[Any] = []

    def answer(request: Any) -> int:
        held.append(request)
        return NOT_DONE_YET

    world.receiver.answers = [answer]
    world.put(3)
    assert world.receiver.seen == [1]
    held[0].finish()
    world.treq.flush()
    assert world.receiver.seen == [1, 2, 3]


def test_no_answer_in_time(world: World) -> None:
    def answer(request: Any) -> int:
        return NOT_DONE_YET

    world.receiver.answers = [answer]
    world.put()
    world.clock.advance(14.9)
    assert world.aborted == 0
    world.clock.advance(0.1)
    assert world.aborted == 1
    assert world.counters.failures == 1
    world.clock.advance(1)
    assert world.receiver.seen == [1, 1]
    assert world.counters.delivered == 1


def test_no_whole_answer_in_time(world: World) -> None:
    """The deadline is over headers and body."""

    def answer(request: Any) -> int:
        request.write(b"the beginning")
        return NOT_DONE_YET

    world.receiver.answers = [answer]
    world.put()
    world.clock.advance(15)
    assert world.aborted == 1
    assert world.counters == Counters(taken=1, failures=1)
    world.clock.advance(1)
    assert world.counters.delivered == 1


def test_the_queue_is_bounded_and_says_what_it_lacks(world: World) -> None:
    def answer(request: Any) -> int:
        return NOT_DONE_YET

    world.receiver.answers = [answer]
    world.put(100)
    assert world.counters == Counters(taken=100, dropped=89)
    world.clock.advance(15)
    world.clock.advance(1)
    assert world.receiver.seen == [1, 1, 90, *range(91, 101)]
    assert world.counters.delivered == 12


class Response:
    """An answer whose body the test writes."""

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.headers = Headers()
        self.body: Any = None
        self.left = 0

    def deliverBody(self, body: Any) -> None:
        self.body = body
        body.makeConnection(self)

    def loseConnection(self) -> None:
        self.left += 1
        self.body.connectionLost(Failure(ResponseFailed([])))


class Client:
    """Posts nothing; the test decides what becomes of it."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.posts = 0
        self.options: dict[str, Any] = {}

    def post(self, url: str, **options: Any) -> Any:
        self.posts += 1
        self.options = options
        return self.outcomes.pop(0) if self.outcomes else Response(204)


def test_what_is_asked_of_treq(clock: Clock) -> None:
    response = Response()
    client = Client(succeed(response))
    world = World(clock, client=client)
    world.put()
    assert client.options["allow_redirects"] is False
    assert client.options["unbuffered"] is True
    # Otherwise treq imports the reactor.
    assert client.options["reactor"] is clock
    assert client.options["data"] == b'{"seq":  1}'
    response.body.connectionLost(Failure(ResponseDone()))
    success(world.sink.stop())


def test_a_long_body_is_not_read(clock: Clock) -> None:
    response = Response(500)
    client = Client(succeed(response))
    world = World(clock, client=client)
    world.put()
    response.body.dataReceived(b"x" * 4096)
    assert response.left == 0
    response.body.dataReceived(b"x")
    assert response.left == 1
    assert world.counters.failures == 1
    success(world.sink.stop())


def test_a_long_body_may_have_ended(clock: Clock) -> None:
    response = Response(200)
    world = World(clock, client=Client(succeed(response)))
    world.put()
    body = response.body
    body.transport = None
    body.dataReceived(b"x" * 5000)
    body.connectionLost(Failure(ResponseDone()))
    body.connectionLost(Failure(ResponseDone()))
    assert world.counters.delivered == 1
    success(world.sink.stop())


@pytest.mark.parametrize(
    "problem",
    [
        ConnectionRefusedError(),
        ResponseFailed([Failure(ConnectionRefusedError())]),
        ValueError("no such thing"),
        ValueError(),
    ],
)
def test_no_answer(clock: Clock, problem: Exception) -> None:
    world = World(clock, client=Client(fail(problem)))
    world.put()
    assert world.counters.failures == 1
    success(world.sink.stop())


def test_a_client_that_raises(clock: Clock) -> None:
    class Broken:
        def post(self, *_: object, **__: object) -> None:
            raise TypeError("a defect")

    world = World(clock, client=Broken())
    world.put()
    assert world.counters.failures == 1
    success(world.sink.stop())
    assert world.counters == Counters(taken=1, dropped=1, failures=2)


def test_stops_when_all_is_posted(clock: Clock) -> None:
    world = World(clock)
    held: list[Any] = []

    def answer(request: Any) -> int:
        held.append(request)
        return NOT_DONE_YET

    world.receiver.answers = [answer]
    world.put(3)
    stopped = world.sink.stop()
    pending(stopped)
    held[0].finish()
    world.treq.flush()
    success(stopped)
    assert world.receiver.seen == [1, 2, 3]
    world.put()
    assert world.counters == Counters(taken=4, delivered=3, dropped=1)
    success(world.sink.stop())
    assert world.closed == 1


def test_stopping_ends_a_wait(clock: Clock) -> None:
    world = World(clock)
    world.receiver.answers = [500]
    world.put(2)
    success(world.sink.stop())
    assert world.receiver.seen == [1, 1, 2]
    assert world.counters == Counters(taken=2, delivered=2, failures=1)


def test_stopping_gives_up_with_the_first_failure(clock: Clock) -> None:
    world = World(clock)
    world.receiver.answers = [500, 500]
    world.put(3)
    success(world.sink.stop())
    assert world.receiver.seen == [1, 1]
    assert world.counters == Counters(taken=3, dropped=3, failures=2)


def test_stops_in_time_when_the_receiver_hangs(clock: Clock) -> None:
    client = Client(Deferred())
    world = World(clock, client=client)
    world.put(2)
    stopped = world.sink.stop()
    clock.advance(4.9)
    pending(stopped)
    clock.advance(0.1)
    success(stopped)
    assert world.aborted == 1
    assert world.counters == Counters(taken=2, dropped=2)
    assert client.posts == 1


def test_closing_is_not_waited_for_long(clock: Clock) -> None:
    sink = WebhookSink(clock, URL, Client(), close=Deferred)
    stopped = sink.stop()
    pending(stopped)
    clock.advance(1)
    success(stopped)


def test_closing_may_fail(clock: Clock) -> None:
    sink = WebhookSink(clock, URL, Client(), close=lambda: fail(ValueError("no")))
    success(sink.stop())


def test_reopening_ends_a_wait(world: World) -> None:
    world.sink.reopen()
    world.receiver.answers = [500]
    world.put()
    world.sink.reopen()
    assert world.receiver.seen == [1, 1]


def test_the_name_has_no_secrets(world: World) -> None:
    assert world.sink.name == "webhook http://receiver.example/qmp"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:password@host:8443/a/b?c=d#e", "https://host:8443/a/b"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("http://host", "http://host"),
    ],
)
def test_shown(url: str, text: str) -> None:
    assert shown(url) == text


def test_sink(clock: Clock, logged_errors: LoggedErrors) -> None:
    sink = webhook_sink(clock, URL)
    success(sink.stop())
    assert logged_errors.flush() == []
