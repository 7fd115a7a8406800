"""What holds for both sides of the frame protocol, whatever comes and in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from zlib import compress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.frames import End, Pair, frames_in, linked
from txqmp.frames import (
    ENCODINGS,
    IDENTITY,
    Action,
    CancelCommand,
    ClientReactor,
    Code,
    Failed,
    Frame,
    FrameUsageError,
    Limits,
    RequestCancelled,
    RequestFailed,
    Response,
    ResponseData,
    ResponseWriter,
    RunCommand,
    Scheduler,
    SendFrames,
    ServerReactor,
    StreamEncoded,
    Terms,
    TextAtom,
    TextOutput,
    encode_frame,
    encode_settings,
)
from txqmp.frames.codec import COMMAND_NAME, HEADER_SIZE, NAME_EOS, STREAM_BEGIN


SEEDS = st.integers(0, (1 << 32) - 1)

#: Small enough for all of them to be reached.
SMALL = Limits(
    receive_frame=2000,
    message=300,
    decoded_frame=200,
    half_received=3,
    request_arguments=100,
    half_received_bytes=500,
    response_bytes=700,
    active=4,
    streams=3,
    encoded_streams=2,
    message_frames=20,
    empty_frames=2,
    control=32,
    window=100,
    connection_window=150,
)

#: Large enough for both sides to get along, if nobody interferes.
ROOMY = Limits(window=3000, connection_window=5000, active=8, control=32, half_received=3)

WORDS = [
    b"link 1 " + Terms.of(SMALL, ["zlib"]).encode(),
    b"link-ping p",
    b"link-pong p",
    b"link-credit 0:99 3:50",
    b"link-cancel 3 5 7",
    b"link-goaway why",
    b"ping p\n",
    b"credit 0:99 3:50\n",
    b"goaway 3 why\n",
    b"goaway 3 wh",
]

#: Payloads that mean something here or there.
PAYLOADS = st.one_of(
    st.just(b""),
    st.binary(max_size=150),
    st.sampled_from(WORDS),
    st.sampled_from([encode_settings(name) for name in (*ENCODINGS, IDENTITY, "gzip")]),
    st.binary(max_size=400).map(compress),
    # An argument, a text.
    st.binary(max_size=20).map(lambda value: b"\1\0" + bytes([len(value), 0]) + b"a" + value),
    st.binary(max_size=20).map(lambda text: bytes([len(text), 0, 0, 0]) + text),
)

FRAMES = st.builds(
    Frame,
    st.sampled_from([1, 3, 3, 5, 5, 7, 9, 11, 0, 2, 65_535]),
    st.sampled_from([1, 2, 3, 4, 5, 6, 0, 255]),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 7, 0xF8]),
    st.sampled_from([1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 0, 7, 15]),
    st.sampled_from([1, 1, 2, 2, 0, 3, 4, 6, 7, 8, 15]),
    PAYLOADS,
)


def mostly(stream: int) -> st.SearchStrategy[bytes]:
    """Bytes that are frames, most of them on a stream that may be, or just bytes."""
    on_stream = FRAMES.map(lambda frame: frame._replace(stream_id=stream))
    begun = on_stream.map(lambda frame: frame._replace(stream_flags=0))
    frames = st.one_of(begun, begun, begun, on_stream, FRAMES).map(Frame.encode)
    return st.one_of(st.lists(frames, min_size=1).map(b"".join), st.binary())


def cut(data: bytes, rng: Random) -> list[bytes]:
    pieces = []
    while data:
        size = rng.randint(1, 1 + len(data))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def tried(call: Callable[[], Any]) -> Any:
    """What a call of ours returns, if it may be made."""
    try:
        return call()
    except FrameUsageError:
        return []


def server_of(link: bool, encoded: bool) -> ServerReactor:
    server = ServerReactor(limits=SMALL, encodings=["zlib"] if encoded else [], link=link)
    if link:
        data = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, WORDS[0])
        list(server.receive(data)[0])  # type: ignore[call-overload]
        assert server.peer is not None
    return server


def check_server(server: ServerReactor, limits: Limits = SMALL) -> None:
    """What it holds is bounded."""
    assert server._decoder.held < limits.receive_frame + HEADER_SIZE
    assert len(server._inputs) <= limits.streams
    assert len(server._half) <= limits.half_received
    if server.error is None:
        assert server._half.held == sum(half.held for half in server._half._requests.values())
        assert server._half.held <= limits.half_received_bytes
    assert len(server._active) <= limits.active
    assert server._cancelled <= set(server._active)
    if server._link is not None:
        assert len(server._link.requests) <= limits.control
        assert len(server._link._grants) <= 1 + limits.half_received
    if server._receive_credit is not None:
        assert len(server._receive_credit) <= limits.half_received
        assert server._receive_credit.held == 0 or server.error is not None
    if server._send_credit is not None:
        assert len(server._send_credit) <= limits.active
        assert server._send_credit.stalled <= limits.active


@given(st.booleans(), st.booleans(), mostly(1), SEEDS)
def test_whatever_comes_to_a_server_it_answers_with_actions(
    link: bool, encoded: bool, data: bytes, seed: int
) -> None:
    rng = Random(seed)
    server, scheduler = server_of(link, encoded), Scheduler()
    writers: list[ResponseWriter] = []

    def own(actions: Any) -> None:
        for action in actions:
            if isinstance(action, SendFrames):
                scheduler.add(*action.sources, urgent=action.urgent)

    def act(request_id: int) -> None:
        what = rng.randrange(9)
        if what == 0:
            own([tried(lambda: server.respond(request_id, rng.randbytes(rng.choice([0, 99]))))])
        elif what == 1:
            own([tried(lambda: server.respond_error(request_id, "no"))])
        elif what == 2:
            opened = tried(lambda: server.open_response(request_id))
            if opened:
                writers.append(opened[0])
                own([opened[1]])
        elif what == 3 and writers:
            writer = rng.choice(writers)
            tried(lambda: writer.write(bytes(20)))
            tried(writer.finish if rng.random() < 0.3 else lambda: writer.write(b"x"))
        elif what == 4:
            own([tried(lambda: server.write_text(request_id, [TextAtom("t")]))])
        elif what == 5:
            tried(lambda: server.ping(b"p"))
        elif what == 6:
            own(server.check_time())
        elif what == 7 and rng.random() < 0.1:
            server.goaway("why")
        else:
            scheduler.data_to_send(rng.choice([0, 1, 1000]))

    broken: Failed | None = None
    for piece in cut(data, rng):
        actions = server.receive(piece)
        own(actions)
        check_server(server)
        failures = [action for action in actions if isinstance(action, Failed)]
        if broken is not None:
            assert actions == failures
            assert failures[0].error.code is Code.ALREADY_ERRORED
        elif failures:
            (broken,) = failures
            assert actions[-1] is broken
            assert server.error is broken.error
            (farewell,) = frames_in(broken.farewell)
            assert farewell.type == 5
        for request_id in server.active:
            act(request_id)
        act(rng.choice([0, 1, 3, 5]))
    own(server.end_of_input())
    assert server.half_received == set() or broken is not None
    for request_id in server.active:
        act(request_id)
    while scheduler:
        scheduler.data_to_send()


@given(st.booleans(), mostly(2), SEEDS)
def test_whatever_comes_to_a_client_it_answers_with_actions(
    link: bool, data: bytes, seed: int
) -> None:
    rng = Random(seed)
    client, scheduler = ClientReactor(limits=SMALL), Scheduler()
    if link:
        list(client.open_link())
        line = encode_frame(1, 2, STREAM_BEGIN, 4, 1, WORDS[0] + b"\n")
        assert len(client.receive(line)) == 1
    for _ in range(3):
        _, frames = client.request("c", data=rng.choice([None, b"", b"x" * 8]))
        scheduler.add(*frames.sources)
        if rng.random() < 0.8:
            scheduler.data_to_send()

    def own(actions: Any) -> None:
        for action in actions:
            if isinstance(action, SendFrames):
                scheduler.add(*action.sources, urgent=action.urgent)

    def act() -> None:
        what, request_id = rng.randrange(6), rng.choice([1, 3, 5, 7])
        if what == 0:
            made = tried(lambda: client.request("c", whole=rng.random() < 0.5))
            own(made[1:] if made else [])
        elif what == 1:
            own(tried(lambda: client.cancel(request_id)))
        elif what == 2:
            own(client.consumed(request_id, rng.randint(-1, 200)))
        elif what == 3:
            own([tried(lambda: client.ping(b"p"))])
        elif what == 4 and rng.random() < 0.1:
            own([tried(client.goaway)])
        else:
            scheduler.data_to_send(rng.choice([0, 1, 1000]))

    broken: Failed | None = None
    for piece in cut(data, rng):
        actions = client.receive(piece)
        own(actions)
        failures = [action for action in actions if isinstance(action, Failed)]
        if broken is not None:
            assert actions == failures
            assert failures[0].error.code is Code.ALREADY_ERRORED
        elif failures:
            (broken,) = failures
            assert actions[-1] is broken
            assert client.error is broken.error
        assert client._decoder.held < SMALL.receive_frame + HEADER_SIZE
        assert len(client._inputs) <= SMALL.streams
        assert len(client._requests) <= SMALL.active
        for request in client._requests.values():
            size = len(request.assembler.message()) if request.assembler else 0
            assert size <= SMALL.message
        if client.error is None:
            assert client._held == sum(request.held for request in client._requests.values())
            assert client._held <= SMALL.response_bytes
        assert len(client._link.requests) <= 1 + 4 * 4 + SMALL.control
        assert len(client._link._grants.items) <= 1 + SMALL.active
        assert len(client._link._cancels.items) <= SMALL.active
        for _ in range(2):
            act()
    active = client.active
    over = [action for action in client.end_of_input() if not isinstance(action, Failed)]
    assert {action.request_id for action in over} == active  # type: ignore[union-attr]
    assert client.active == set()
    assert scheduler.data_to_send(1 << 20) is not None


class Spoilt(Pair):
    """A pair on a wire that changes what it carries, now and then."""

    def __init__(self, client: ClientReactor, server: ServerReactor, rng: Random) -> None:
        super().__init__(client, server, rng=rng)
        self.chance = rng.choice([0.02, 0.1, 0.5])
        self.random = rng

    def carry(self, sender: End[Any], data: bytes) -> None:
        if data and self.random.random() < self.chance:
            data = self.spoil(frames_in(data, settings=True))
        super().carry(sender, data)

    def spoil(self, frames: list[Frame]) -> bytes:
        rng = self.random
        at = rng.randrange(len(frames))
        what = rng.randrange(10)
        one = frames[at]
        if what == 0:
            del frames[at]
        elif what == 1:
            frames.insert(rng.randrange(len(frames)), one)
        elif what == 2:
            rng.shuffle(frames)
        elif what == 3:
            frames[at] = one._replace(request_id=one.request_id ^ rng.choice([1, 2, 4, 6]))
        elif what == 4:
            frames[at] = one._replace(stream_id=one.stream_id ^ rng.choice([1, 2, 4]))
        elif what == 5:
            frames[at] = one._replace(stream_flags=rng.randrange(8))
        elif what == 6:
            frames[at] = one._replace(flags=rng.randrange(16))
        elif what == 7:
            frames[at] = one._replace(type=rng.randrange(16))
        elif what == 8:
            frames[at] = one._replace(payload=rng.choice([b"", *WORDS, one.payload[:-1]]))
        data = bytearray(b"".join(frame.encode() for frame in frames))
        if what == 9:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)


@given(st.booleans(), SEEDS)
def test_a_conversation_that_goes_wrong_does_so_with_actions(link: bool, seed: int) -> None:
    rng = Random(seed)
    client, server = (
        ClientReactor(limits=ROOMY),
        ServerReactor(limits=ROOMY, encodings=["zlib"], link=link),
    )
    pair = Spoilt(client, server, rng)
    if link:
        pair.chance, chance = 0, pair.chance
        pair.open_link()
        pair.chance = chance
    writers: list[ResponseWriter] = []
    streams = [client.open_stream("zlib"), client.open_stream()]
    own = [server.open_stream("zlib"), server.open_stream()]

    def request() -> None:
        data = rng.choice([None, b"", b"x" * 30, bytes(5000)])
        options = {"data": data, "whole": rng.random() < 0.7, "stream": rng.choice(streams)}
        pair.request(arguments={"a": b"b"} if rng.random() < 0.5 else {}, **options)

    def cancel() -> None:
        pair.cancel(rng.choice(sorted(client.active) or [1]))

    def respond() -> None:
        request_id = rng.choice(sorted(server.active) or [1])
        kind = rng.randrange(4)
        if kind == 0:
            data = bytes(rng.choice([0, 10, 10_000]))
            pair.server.do([server.respond(request_id, data, rng.choice(own))])
        elif kind == 1:
            pair.server.do([server.respond_error(request_id, "no")])
        elif kind == 2:
            pair.server.do([server.write_text(request_id, [TextAtom("t")])])
        else:
            writer, frames = server.open_response(request_id, rng.choice(own))
            writers.append(writer)
            pair.server.do([frames])

    def write() -> None:
        for writer in writers:
            if not writer.finished:
                writer.write(bytes(rng.choice([1, 1000])))
                if rng.random() < 0.3:
                    writer.finish()

    def consumed() -> None:
        for request_id in client.active:
            pair.client.do(client.consumed(request_id, rng.randint(0, 5000)))

    def close() -> None:
        for reactor, mine in ((client, streams), (server, own)):
            if rng.random() < 0.3:
                at = rng.randrange(len(mine))
                (pair.client if mine is streams else pair.server).do(
                    reactor.close_stream(mine[at])  # type: ignore[attr-defined]
                )
                mine[at] = reactor.open_stream(rng.choice(["zlib", IDENTITY]))  # type: ignore[attr-defined]

    def go_away() -> None:
        if rng.random() < 0.05:
            pair.client.do([client.goaway()])
            server.goaway()

    steps: list[Callable[[], Any]] = [
        request,
        request,
        cancel,
        respond,
        respond,
        write,
        consumed,
        close,
        go_away,
        lambda: pair.client.do([client.ping(b"p")]),
        lambda: server.ping(b"p"),
        *[lambda: pair.carry(pair.client, pair.client.send(rng.choice([1, 5000])))] * 5,
        *[lambda: pair.carry(pair.server, pair.server.send(rng.choice([1, 5000])))] * 5,
    ]
    for _ in range(rng.randint(10, 150)):
        tried(rng.choice(steps))
        check_server(server, ROOMY)
        assert len(client._requests) <= ROOMY.active
        assert len(client._link.requests) <= 1 + 4 * 4 + ROOMY.control
    for end in (pair.server, pair.client):
        end.do(end.reactor.end_of_input())
        failures = [action for action in end.take() if isinstance(action, Failed)]
        codes = [failed.error.code for failed in failures]
        assert Code.ALREADY_ERRORED not in codes[:1]
    assert client.active == set()


# Messages arrive as they were sent


TEXTS = st.binary(max_size=200)
REQUESTS = st.lists(
    st.tuples(
        st.text("abc", min_size=1, max_size=20),
        st.dictionaries(st.text("xyz", max_size=5), TEXTS, max_size=4),
        st.none() | TEXTS,
        TEXTS,
        st.sampled_from(["whole", "pieces", "error"]),
        st.booleans(),
    ),
    max_size=12,
)


@given(
    REQUESTS,
    st.sampled_from(["plain", "link", "deferred"]),
    st.sampled_from([1024, 30_000]) | st.integers(100, 300),
    SEEDS,
)
def test_any_requests_and_answers_cut_anywhere_come_out_the_same(
    requests: list[Any], how: str, frame: int, seed: int
) -> None:
    rng = Random(seed)
    limits = Limits(send_frame=max(frame, 1024) if how == "link" else frame)
    server = ServerReactor(limits=limits, link=how == "link", defer_output=how == "deferred")
    client = ClientReactor(limits=limits)
    pair = linked(client, server) if how == "link" else Pair(client, server)
    pair.rng = rng
    wanted: dict[int, Any] = {}
    asked: dict[int, RunCommand] = {}

    def answer(action: Action) -> None:
        assert isinstance(action, RunCommand)
        asked[action.request_id] = action
        *_, text, kind, _ = wanted[action.request_id]
        if kind == "error":
            pair.server.do([server.respond_error(action.request_id, text[:100])])
        elif kind == "whole":
            pair.server.do([server.respond(action.request_id, text)])
        else:
            writer, frames = server.open_response(action.request_id)
            pair.server.do([frames])
            for piece in cut(text, rng):
                writer.write(piece)
            pair.server.do([tried(lambda: server.write_text(action.request_id, [TextAtom("t")]))])
            writer.finish()

    pair.server.then = answer
    for request in requests:
        name, arguments, data, _, _, whole = request
        request_id = pair.request(name, arguments=arguments, data=data, whole=whole)
        wanted[request_id] = request
        if rng.random() < 0.3:
            pair.carry(pair.client, pair.client.send(rng.choice([1, 1000])))
    pair.run(rng.choice([1, 500, 65_536]))
    if how == "deferred":
        assert len(pair.server.sent) == 0
        pair.server.do(server.end_of_input())
        pair.run()
    pair.unbroken()
    got: dict[int, bytes] = {}
    for action in pair.client.take():
        if isinstance(action, ResponseData):
            got[action.request_id] = got.get(action.request_id, b"") + action.data
        elif isinstance(action, Response):
            got[action.request_id] = action.data
        elif isinstance(action, RequestFailed):
            got[action.request_id] = action.message.encode()
        else:
            assert isinstance(action, TextOutput)
    for request_id, (name, arguments, data, text, kind, _) in wanted.items():
        values = {key.encode(): value for key, value in arguments.items()}
        assert asked[request_id] == RunCommand(request_id, name.encode(), values, data)
        error = text[:100].decode("utf-8", "replace").encode()
        assert got[request_id] == (error if kind == "error" else text)
    assert client.active == server.active == set()


@pytest.mark.parametrize("encoding", [*ENCODINGS, IDENTITY])
@settings(max_examples=25)
@given(seed=SEEDS)
def test_fifty_requests_that_take_turns_on_one_stream_arrive_intact(
    encoding: str, seed: int
) -> None:
    """Data one way and responses the other, on one stream each, encoded where they take turns."""
    rng = Random(seed)
    pair = linked(ClientReactor(), ServerReactor(encodings=tuple(ENCODINGS), link=True))
    pair.rng = rng
    client, server = pair.client.reactor, pair.server.reactor
    up, down = client.open_stream(encoding), server.open_stream(encoding)
    pages = [rng.randbytes(50), b"the same in all of them " * 20, bytes(1000)]

    def page() -> bytes:
        return b"".join(rng.choice(pages) for _ in range(rng.choice([0, 1, 5, 100])))

    answers: dict[int, bytes] = {}
    todo: list[RunCommand] = []
    encoded: list[int] = []

    def at_server(action: Action) -> None:
        if isinstance(action, RunCommand):
            todo.append(action)
        else:
            assert isinstance(action, StreamEncoded)
            encoded.append(action.stream_id)

    pair.server.then = at_server
    asked: dict[int, bytes] = {}
    while len(asked) < 50 or todo or pair.client.scheduler or pair.server.scheduler:
        if len(asked) < 50 and rng.random() < 0.6:
            data = page()
            asked[pair.request(data=data, stream=up, plain=rng.random() < 0.1)] = data
        if todo and rng.random() < 0.6:
            run = todo.pop(rng.randrange(len(todo)))
            assert run.data == asked[run.request_id]
            answers[run.request_id] = page()
            plain = rng.random() < 0.1
            action = server.respond(run.request_id, answers[run.request_id], down, plain=plain)
            pair.server.do([action])
        pair.carry(pair.client, pair.client.send(rng.choice([1, 1000, 100_000])))
        pair.carry(pair.server, pair.server.send(rng.choice([1, 1000, 100_000])))
    pair.unbroken()
    came = [action for action in pair.client.take() if not isinstance(action, StreamEncoded)]
    assert {action.request_id: action.data for action in came} == answers  # type: ignore[union-attr]
    assert len(answers) == 50
    assert encoded == ([] if encoding == IDENTITY else [up.id])


# Ids


@given(SEEDS)
def test_ids_are_used_again_while_others_are_cancelled_and_answered(seed: int) -> None:
    """With few ids both sides must always agree on which of them are free."""
    rng = Random(seed)
    pair = linked(ClientReactor(limits=Limits(window=50, connection_window=80)))
    pair.rng = rng
    client, server = pair.client.reactor, pair.server.reactor
    todo: set[int] = set()
    said: dict[int, int] = {}

    def at_server(action: Action) -> None:
        if isinstance(action, RunCommand):
            assert action.request_id not in todo
            assert action.data is not None
            said[action.request_id] = int(action.data.lstrip(b"x"))
            todo.add(action.request_id)
        else:
            assert isinstance(action, CancelCommand)

    ages: dict[int, int] = {}

    def at_client(action: Action) -> None:
        assert isinstance(action, (Response, RequestCancelled))
        age = ages.pop(action.request_id)
        if isinstance(action, Response):
            assert action.data.strip(b"x") == b"%d" % age

    pair.server.then, pair.client.then = at_server, at_client
    for age in range(rng.randint(5, 60)):
        if client._ids._next > 40:
            client._ids._next = 3
        data = b"x" * rng.choice([0, 100, 40_000]) + b"%d" % age
        ages[pair.request(data=data)] = age
        for _ in range(rng.randrange(6)):
            what = rng.randrange(4)
            if what == 0 and ages:
                tried(lambda: pair.cancel(rng.choice(sorted(ages))))
            elif what == 1 and todo:
                request_id = rng.choice(sorted(todo))
                todo.remove(request_id)
                text = b"x" * rng.choice([0, 30, 300]) + b"%d" % said[request_id]
                pair.server.do([server.respond(request_id, text)])
            elif what == 2:
                pair.carry(pair.client, pair.client.send(rng.choice([1, 100, 5000])))
            else:
                pair.carry(pair.server, pair.server.send(rng.choice([1, 100, 5000])))
            pair.unbroken()
    pair.run()
    while todo:
        request_id = todo.pop()
        pair.server.do([server.respond(request_id, b"%d" % said[request_id])])
        pair.run()
    pair.unbroken()
    assert ages == {}
    assert client.active == server.active == server.half_received == set()
    assert len(client._link.requests) == 1
