"""Streams that are closed: their last frame, their ids, what they still have to say."""

from __future__ import annotations

import io
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.frames import End, Pair, frames_in, linked
from txqmp.frames import (
    ENCODINGS,
    IDENTITY,
    Action,
    ClientReactor,
    Frame,
    FrameUsageError,
    Limits,
    Nothing,
    OutputStream,
    RequestCancelled,
    RequestFailed,
    Response,
    ResponseData,
    ResponseWriter,
    RunCommand,
    SendFrames,
    ServerReactor,
    StreamEncoded,
    TextAtom,
    TextOutput,
    format_frame,
    parse_frame,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_NAME,
    EOS,
    NAME_EOS,
    STREAM_BEGIN,
    STREAM_END,
)
from txqmp.frames.link.words import MOST


ALL = [IDENTITY, *ENCODINGS]


def encoding_pair(*, link: bool = True, **limits: int) -> Pair:
    """Both sides take all encodings."""
    client = ClientReactor(limits=Limits(**limits))
    server = ServerReactor(limits=Limits(**limits), encodings=tuple(ENCODINGS), link=link)
    return linked(client, server) if link else Pair(client, server)


def said(action: Action | list[Action]) -> list[str]:
    """The frames of what is to be sent, as they are asked for."""
    actions = action if isinstance(action, list) else [action]
    data = b"".join(b"".join(each) for each in actions if isinstance(each, SendFrames))
    return [format_frame(frame) for frame in frames_in(data, settings=True)]


def flags_of(frames: Iterable[Frame]) -> list[int]:
    return [frame.stream_flags & (STREAM_BEGIN | STREAM_END) for frame in frames]


def serving(*request_ids: int, **options: Any) -> ServerReactor:
    """A server that has these requests to answer."""
    server = ServerReactor(**options)
    for number, request_id in enumerate(request_ids):
        flags = "0" if number else "stream-begin"
        server.receive_frame(parse_frame(f"{request_id} 1 {flags} command-name eos c"))
    return server


def inputs(end: End[Any]) -> set[int]:
    """The streams that a side takes for open."""
    return set(end.reactor._inputs._decoders)


# The last frame of a message


def test_a_request_that_ends_its_stream() -> None:
    client = ClientReactor()
    stream = client.open_stream(), client.open_stream()
    request = client.request("c", data=b"d", stream=stream[1])[1]
    assert client.close_stream(stream[1]) == []
    assert said(request) == [
        "1 3 stream-begin command-name have-data c",
        "1 3 stream-end command-data eos d",
    ]
    assert stream[1].ended


def test_a_response_that_ends_its_stream() -> None:
    server = serving(1)
    answer = server.respond(1, b"r", 4)
    assert server.close_stream(4) == []
    assert said(answer) == ["1 4 stream-begin|stream-end bytes-response eos r"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_with_an_encoding_ends_with_a_frame_of_its_message(encoding: str) -> None:
    pair = encoding_pair(link=False)
    client, server = pair.client.reactor, pair.server.reactor
    up = client.stream(1), client.open_stream(encoding)
    request_id = pair.request(data=b"d" * 100, stream=up[1])
    client.close_stream(up[1])
    pair.run()
    assert flags_of(frames_in(bytes(pair.client.sent), settings=True)) == [1, 0, 2]
    assert inputs(pair.server) == set()
    server.stream(2)
    down = server.open_stream(encoding)
    answer = server.respond(request_id, b"r" * 100, down)
    pair.server.do([answer, *server.close_stream(down.id)])
    pair.run()
    assert flags_of(frames_in(bytes(pair.server.sent), settings=True)) == [1, 2]
    assert inputs(pair.client) == set()
    assert pair.client.take() == [StreamEncoded(4, encoding), Response(1, b"r" * 100)]
    assert not client._closing and not server._closing


def test_the_last_frame_of_the_last_message_ends_the_stream() -> None:
    server = serving(1, 3, 5, limits=Limits(send_frame=2))
    text = server.write_text(5, [], 4)
    first = server.respond(1, b"abcd", 4)
    writer, second = server.open_response(3, 4)
    server.close_stream(4)
    assert said(first) == [
        "1 4 stream-begin bytes-response continuation ab",
        "1 4 0 bytes-response eos cd",
    ]
    writer.write(b"ef")
    assert said(second) == ["3 4 0 bytes-response continuation ef"]
    assert server.write_text(3, []) == second  # it belongs to the response
    writer.finish()
    assert said(second) == ["3 4 0 text-output 0 ", "3 4 0 bytes-response eos "]
    assert said(text) == ["5 4 stream-end text-output 0 "]
    assert said(server.respond(5, b"")) == ["5 2 stream-begin bytes-response eos "]


def test_a_cancelled_answer_ends_its_stream_with_the_error() -> None:
    pair = encoding_pair()
    server = pair.server.reactor
    request_id = pair.request()
    pair.run()
    writer, answer = server.open_response(request_id, 4)
    pair.server.do([answer, *server.close_stream(4)])
    writer.write(b"x")
    pair.run()
    assert inputs(pair.client) == {2, 4}
    pair.cancel(request_id)
    pair.run()
    assert inputs(pair.client) == {2}
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]
    assert writer.finished


def test_deferred_answers_end_their_stream_when_they_are_sent() -> None:
    server = serving(1, 3, defer_output=True)
    assert server.respond(1, b"a", 4) == server.respond(3, b"b", 4) == Nothing()
    assert server.close_stream(4) == []
    assert said(server.end_of_input()) == [
        "1 4 stream-begin bytes-response eos a",
        "3 4 stream-end bytes-response eos b",
    ]


def test_a_frame_that_is_refused_ends_nothing() -> None:
    ended: list[OutputStream] = []
    stream = OutputStream(2, on_end=ended.append)
    with pytest.raises(FrameUsageError):
        stream.frame(1, BYTES_RESPONSE, 16, b"", last=True)
    assert not stream.ended and ended == []
    stream.frame(1, BYTES_RESPONSE, EOS, b"", last=True)
    assert stream.ended and ended == [stream]


# What a stream that is closed does not take


def test_a_stream_that_is_closed_takes_no_requests() -> None:
    client = ClientReactor()
    stream = client.stream(3)
    request = client.request("c", stream=stream)[1]
    client.close_stream(3)
    for _ in range(2):
        for way in (stream, 3):
            if stream.ended and way == 3:
                continue
            with pytest.raises(FrameUsageError, match="closed"):
                client.request("c", stream=way)
        assert client.active == {1}
        said(request)
    assert said(client.request("d", stream=3)[1]) == ["3 3 stream-begin command-name eos d"]


def test_a_stream_that_is_closed_takes_no_answers() -> None:
    server = serving(1, 3)
    stream = server.stream(4)
    answer = server.respond(1, b"", stream)
    server.close_stream(stream)
    for way in (stream, 4):
        for respond in (
            lambda: server.respond(3, b"", way),  # noqa: B023
            lambda: server.respond_error(3, "no", way),  # noqa: B023
            lambda: server.open_response(3, way),  # noqa: B023
            lambda: server.write_text(3, [TextAtom("t")], way),  # noqa: B023
        ):
            with pytest.raises(FrameUsageError, match="closed"):
                respond()
    assert said(answer) == ["1 4 stream-begin|stream-end bytes-response eos "]
    assert said(server.respond(3, b"")) == ["3 2 stream-begin bytes-response eos "]


def test_a_stream_whose_id_is_anothers_is_refused() -> None:
    pair = encoding_pair()
    client, server = pair.client.reactor, pair.server.reactor
    first, last = server.open_stream("zlib"), client.open_stream("zlib")
    asked = pair.request(stream=last), pair.request()
    client.close_stream(last)
    pair.run()
    pair.server.do([server.respond(asked[0], b"", first)])
    server.close_stream(first)
    pair.run()
    new = server.stream(first.id), client.stream(last.id)
    assert (new[0].encoding, new[1].encoding) == (IDENTITY, IDENTITY)
    for stream in (first, OutputStream(first.id), OutputStream(88)):
        with pytest.raises(FrameUsageError, match="not open"):
            server.respond(asked[1], b"", stream)
        with pytest.raises(FrameUsageError, match="not open"):
            server.close_stream(stream)
    with pytest.raises(FrameUsageError, match="not open"):
        client.request("c", stream=last)
    with pytest.raises(FrameUsageError, match="has ended"):
        first.frame(1, BYTES_RESPONSE, EOS, b"")
    with pytest.raises(FrameUsageError, match="has ended"):
        first.frame(1, BYTES_RESPONSE, EOS, b"", last=True)
    assert server.stream(first.id) is new[0]
    assert server.active == {asked[1]}


@pytest.mark.parametrize("stream", [4, 6, 7, 256, -2])
def test_what_is_not_open_is_not_closed(stream: int) -> None:
    server = serving(1)
    answer = server.respond(1, b"", 4)
    server.close_stream(4)
    with pytest.raises(FrameUsageError, match="not open"):
        server.close_stream(stream)
    said(answer)
    with pytest.raises(FrameUsageError, match="not open"):
        server.close_stream(stream)


def test_the_stream_that_is_used_by_default_stays_open() -> None:
    client, server = ClientReactor(), ServerReactor()
    for stream in (client.stream(1), server.stream(2)):
        reactor: Any = client if stream.id == 1 else server
        for way in (stream, stream.id):
            with pytest.raises(FrameUsageError, match="stays open"):
                reactor.close_stream(way)
        assert reactor.stream(stream.id) is stream


# Nothing to say


@pytest.mark.parametrize("encoding", ALL)
def test_a_stream_that_was_never_begun_is_over_at_once(encoding: str) -> None:
    client = ClientReactor()
    client.stream(1)
    stream = client.open_stream(encoding)
    assert client.close_stream(stream) == []
    assert stream.ended and not stream.begun
    assert client.open_stream().id == 5
    assert client.stream(3) is not stream
    with pytest.raises(FrameUsageError, match="has ended"):
        stream.frame(1, COMMAND_NAME, NAME_EOS, b"c")


def test_a_text_that_nobody_sends_keeps_no_stream_open() -> None:
    server = serving(1)
    text = server.write_text(1, [TextAtom("t")], 4)
    del text
    stream = server.stream(4)
    server.close_stream(4)
    assert stream.ended


def test_a_stream_that_has_begun_ends_with_a_frame() -> None:
    stream = OutputStream(1)
    stream.frame(1, COMMAND_NAME, NAME_EOS, b"c")
    with pytest.raises(FrameUsageError, match="has begun"):
        stream.end_unbegun()
    assert not stream.ended


def test_without_a_link_an_idle_stream_cannot_end() -> None:
    client, server = ClientReactor(), serving(1)
    said(client.request("c", stream=3)[1])
    said(server.respond(1, b"", 4))
    for reactor, stream in ((client, 3), (server, 4)):
        with pytest.raises(FrameUsageError, match="no message that could end it"):
            reactor.close_stream(stream)  # type: ignore[attr-defined]
    # Nothing has changed: a message on it can end it.
    request = client.request("d", stream=3)[1]
    client.close_stream(3)
    assert said(request) == ["3 3 stream-end command-name eos d"]


@pytest.mark.parametrize("encoding", ALL)
def test_over_a_link_an_idle_stream_ends_with_a_frame_of_the_link(encoding: str) -> None:
    pair = encoding_pair()
    client, server = pair.client.reactor, pair.server.reactor
    up, down = client.open_stream(encoding), server.open_stream(encoding)
    request_id = pair.request(data=b"d", stream=up)
    pair.run()
    pair.server.do([server.respond(request_id, b"r", down)])
    pair.run()
    assert (inputs(pair.server), inputs(pair.client)) == ({1, 3}, {2, 4})
    pair.client.take(), pair.server.take()
    pair.client.sent.clear(), pair.server.sent.clear()
    pair.client.do(client.close_stream(up))
    pair.server.do(server.close_stream(down))
    assert not up.ended and not down.ended
    pair.run()
    assert up.ended and down.ended
    assert (inputs(pair.server), inputs(pair.client)) == ({1}, {2})
    assert format_frame(frames_in(bytes(pair.client.sent))[0]) == (
        "5 3 stream-end command-name eos link-credit"
    )
    assert [format_frame(frame) for frame in frames_in(bytes(pair.server.sent))] == [
        "1 4 stream-end bytes-response continuation credit\\n",
        "5 2 0 bytes-response eos ",
    ]
    pair.unbroken()
    assert pair.client.take() == pair.server.take() == []
    assert len(client._link.requests) == 1


def test_what_the_client_does_not_know_of_yet_ends_nothing() -> None:
    client, server = ClientReactor(), ServerReactor(link=True)
    stream = server.stream(4)
    (opened, _) = server.receive(b"".join(client.open_link()))
    stream.frame(1, BYTES_RESPONSE, EOS, b"")
    with pytest.raises(FrameUsageError, match="there is no link"):
        server.close_stream(4)
    said(opened)
    assert said(server.close_stream(4)) == ["1 4 stream-end bytes-response continuation credit\\n"]


@pytest.mark.parametrize("how", ["failed", "ended"])
def test_a_connection_that_is_over_ends_no_streams(how: str) -> None:
    pair = encoding_pair()
    client, server = pair.client.reactor, pair.server.reactor
    request_id = pair.request(stream=3)
    pair.run()
    pair.server.do([server.respond(request_id, b"", 4)])
    pair.run()
    if how == "failed":
        for end in (pair.client, pair.server):
            end.receive(bytes(8))
    else:
        client.end_of_input()
    with pytest.raises(FrameUsageError, match="there is no link"):
        client.close_stream(3)
    if how == "failed":
        with pytest.raises(FrameUsageError, match="there is no link"):
            server.close_stream(4)


# Messages that are not sent to their end


@pytest.mark.parametrize("link", [True, False])
def test_a_stream_whose_only_message_is_cancelled_was_never_begun(link: bool) -> None:
    pair = encoding_pair(link=link)
    client = pair.client.reactor
    stream = client.stream(3)
    request_id = pair.request(stream=stream)
    client.close_stream(stream)
    pair.cancel(request_id)
    assert stream.ended
    assert client.stream(3) is not stream


def test_a_stream_whose_last_message_is_cancelled_ends_with_a_frame_of_the_link() -> None:
    pair = encoding_pair()
    client = pair.client.reactor
    first = pair.request(stream=3)
    pair.run()
    second = pair.request(stream=3)
    client.close_stream(3)
    pair.cancel(second)
    assert 3 in client._closing
    pair.run()
    assert client._closing == {}
    assert inputs(pair.server) == {1}
    assert pair.client.take() == [RequestCancelled(second, may_have_run=False)]
    pair.server.do([pair.server.reactor.respond(first, b"")])
    pair.run()
    pair.unbroken()


def test_without_a_link_it_stays_open() -> None:
    client = ClientReactor()
    said(client.request("a", stream=3)[1])
    second, _ = client.request("b", stream=3)
    client.close_stream(3)
    client.cancel(second)
    client.receive_frame(parse_frame("1 2 stream-begin bytes-response eos "))
    assert set(client._closing) == {3}
    assert [client.open_stream().id for _ in range(127)] == [*range(5, 256, 2), 1]
    with pytest.raises(FrameUsageError, match="all streams are used"):
        client.open_stream()


@pytest.mark.parametrize("broken", [False, True])
def test_a_request_that_is_cut_ends_its_stream_with_a_frame_of_the_link(broken: bool) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if broken and self.tell():
                raise OSError("no more")
            return super().read(size)

    pair = encoding_pair()
    client, server = pair.client.reactor, pair.server.reactor
    stream = client.open_stream("zlib")
    request_id = pair.request(data=Broken(bytes(100_000)), stream=stream)
    client.close_stream(stream)
    pair.carry(pair.client, pair.client.send(1))
    if broken:
        with pytest.raises(OSError, match="no more"):
            pair.run()
    assert inputs(pair.server) == {1, 3}
    pair.cancel(request_id)
    pair.run()
    assert stream.ended
    assert inputs(pair.server) == {1}
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]
    assert server.half_received == client.active == set()
    pair.unbroken()


# Ids


@pytest.mark.parametrize("encoding", ALL)
def test_ids_are_used_again_when_all_have_been(encoding: str) -> None:
    """A thousand streams in a connection's life, on either side."""
    pair = encoding_pair()
    client, server = pair.client.reactor, pair.server.reactor
    ups, downs = [], []
    for number in range(500):
        up, down = client.open_stream(encoding), server.open_stream(encoding)
        ups.append(up.id)
        downs.append(down.id)
        text = b"%d" % number * 30
        pair.request(data=text, stream=up)
        if number % 2:
            pair.client.do(client.close_stream(up))
        pair.run()
        run = next(each for each in pair.server.take() if isinstance(each, RunCommand))
        assert run.data == text
        pair.server.do([server.respond(run.request_id, text, down)])
        if number % 2:
            pair.server.do(server.close_stream(down))
        pair.run()
        assert pair.client.take()[-1] == Response(run.request_id, text)
        if not number % 2:
            pair.client.do(client.close_stream(up))
            pair.server.do(server.close_stream(down))
            pair.run()
        assert (inputs(pair.server), inputs(pair.client)) == ({1}, {2})
    assert ups[:127] == ups[127:254] == list(range(3, 256, 2))
    assert downs[:126] == downs[126:252] == list(range(4, 256, 2))
    pair.unbroken()


def test_encoded_streams_count_until_they_have_ended() -> None:
    pair = encoding_pair(encoded_streams=2)
    client = pair.client.reactor
    one, two = client.open_stream("zlib"), client.open_stream("zlib")
    pair.request(stream=one)
    pair.request(stream=two)
    client.close_stream(one)
    with pytest.raises(FrameUsageError, match="takes 2 streams with an encoding"):
        client.open_stream("zlib")
    pair.client.send(1)
    assert one.ended
    assert client.open_stream("zlib").id == 7
    with pytest.raises(FrameUsageError, match="takes 2 streams with an encoding"):
        client.open_stream("zlib")


def test_streams_count_until_they_have_ended() -> None:
    pair = encoding_pair(streams=2)
    client, server = pair.client.reactor, pair.server.reactor
    asked = [pair.request(stream=3) for _ in range(2)]
    client.close_stream(3)
    with pytest.raises(FrameUsageError, match="takes 2 streams"):
        client.open_stream()
    pair.run()
    assert client.open_stream().id == 5
    answer = server.respond(asked[0], b"", 4)
    server.close_stream(4)
    with pytest.raises(FrameUsageError, match="takes 2 streams"):
        server.respond(asked[1], b"", 6)
    said(answer)
    assert said(server.respond(asked[1], b"", 6)) == ["5 6 stream-begin bytes-response eos "]


def test_a_stream_that_its_owner_ends_by_hand_is_not_open() -> None:
    client = ClientReactor()
    stream = client.stream(3)
    stream.frame(1, COMMAND_NAME, NAME_EOS, b"c", last=True)
    assert client.stream(3) is not stream


def test_a_refused_stream_leaves_its_id() -> None:
    server = ServerReactor()
    server.stream(2)
    with pytest.raises(FrameUsageError, match="gzip"):
        server.open_stream("gzip")
    assert server.open_stream().id == 4


# Many at once


def test_the_ends_of_many_streams_are_told_a_few_at_a_time() -> None:
    pair = encoding_pair(control=32)
    client = pair.client.reactor
    streams = [client.open_stream() for _ in range(100)]
    for stream in streams:
        pair.request(stream=stream)
    pair.run()
    for stream in streams:
        pair.client.do(client.close_stream(stream))
    assert len(client._link.requests) == 1 + MOST
    # An answer that comes while the end waits does not say it twice.
    for run in pair.server.take():
        assert isinstance(run, RunCommand)
        pair.server.do([pair.server.reactor.respond(run.request_id, b"")])
    pair.carry(pair.server, pair.server.send())
    assert len(client._link.requests) == 1 + MOST
    pair.run()
    assert all(stream.ended for stream in streams)
    assert inputs(pair.server) == {1}
    words = [frame.payload for frame in frames_in(bytes(pair.client.sent))]
    assert words.count(b"link-credit") == 100
    pair.unbroken()


def test_grants_and_ends_do_not_wait_for_all_of_each_other() -> None:
    pair = encoding_pair(window=100)
    client = pair.client.reactor
    streams = [client.open_stream() for _ in range(50)]
    for stream in streams:
        pair.request(stream=stream)
    download = pair.request(whole=True)
    pair.run()
    writer, answer = pair.server.reactor.open_response(download)
    pair.server.do([answer])
    writer.write(bytes(400))
    for stream in streams:
        pair.client.do(client.close_stream(stream))
    pair.run()
    words = [frame.payload for frame in frames_in(bytes(pair.client.sent))]
    ends = [at for at, word in enumerate(words) if word == b"link-credit"]
    grants = [at for at, word in enumerate(words) if word.startswith(b"link-credit ")]
    assert len(ends) == 50
    assert grants
    assert grants[-1] < ends[-1]
    assert writer.waiting == 0
    pair.unbroken()


def test_an_end_that_waits_for_grants_is_told_after_them() -> None:
    pair = encoding_pair(window=100)
    client = pair.client.reactor
    pair.request(stream=3)
    download = pair.request(whole=False)
    pair.run()
    commands: list[Frame] = []
    piece = Frame(download, 2, 0, BYTES_RESPONSE, 1, bytes(100))
    for _ in range(MOST):
        client.receive_frame(piece)
        pair.client.do(client.consumed(download, 100))
        commands += frames_in(pair.client.send())
    assert len(commands) == MOST
    pair.client.do(client.close_stream(3))
    assert pair.client.send() == b""
    for command in commands:
        answer = Frame(command.request_id, 2, 0, BYTES_RESPONSE, EOS, b"")
        pair.client.do(client.receive_frame(answer))
    (end,) = frames_in(pair.client.send())
    assert (end.stream_id, end.stream_flags, end.payload) == (3, STREAM_END, b"link-credit")
    assert client._closing == {}


# A plain peer


def test_a_plain_server_takes_streams_that_end_and_begin_again() -> None:
    client, server = ClientReactor(), ServerReactor()
    for number in range(300):
        stream = client.stream(3)
        request_id, request = client.request("c", data=b"%d" % number, stream=stream)
        client.close_stream(stream)
        (run,) = server.receive(b"".join(request))
        assert run == RunCommand(request_id, b"c", {}, b"%d" % number)
        assert len(server._inputs) == 0
        answer = server.respond(request_id, b"r", 4)
        server.close_stream(4)
        assert isinstance(answer, SendFrames)
        assert client.receive(b"".join(answer)) == [Response(request_id, b"r")]
        assert len(client._inputs) == 0


# Any order


@pytest.mark.parametrize("encoding", ALL)
@settings(max_examples=30)
@given(seed=st.integers(0, (1 << 32) - 1), link=st.booleans())
def test_whatever_is_opened_and_closed_messages_arrive_as_they_were(
    encoding: str, seed: int, link: bool
) -> None:
    rng = Random(seed)
    pair = encoding_pair(link=link, streams=8, encoded_streams=4, window=3000)
    pair.rng = rng
    client, server = pair.client.reactor, pair.server.reactor
    names = [encoding, encoding, IDENTITY, rng.choice(ALL)]
    streams: dict[End[Any], list[OutputStream]] = {pair.client: [], pair.server: []}
    old: list[OutputStream] = []
    asked: dict[int, bytes] = {}
    got: dict[int, bytes] = {}
    answers: dict[int, bytes] = {}
    cancelled: set[int] = set()
    todo: list[int] = []
    writers: list[ResponseWriter] = []
    client.stream(1), server.stream(2)

    def at_server(action: Action) -> None:
        if isinstance(action, RunCommand):
            assert action.data == asked[action.request_id]
            todo.append(action.request_id)

    def at_client(action: Action) -> None:
        if isinstance(action, (Response, ResponseData)):
            got[action.request_id] = got.get(action.request_id, b"") + action.data
            if isinstance(action, ResponseData):
                pair.client.do(client.consumed(action.request_id, len(action.data)))
        elif isinstance(action, RequestFailed):
            got[action.request_id] = action.message.encode()
        else:
            assert isinstance(action, (StreamEncoded, TextOutput, RequestCancelled))

    pair.server.then, pair.client.then = at_server, at_client

    def page() -> bytes:
        return rng.choice([b"a page " * 30, rng.randbytes(9)]) * rng.choice([0, 1, 30])

    def a_stream(end: End[Any]) -> OutputStream | int:
        return rng.choice([end.reactor._default_stream, *streams[end]])

    def open_one(end: End[Any]) -> None:
        open_streams = len(end.reactor._outputs) + len(end.reactor._closing)
        encoded = [*end.reactor._outputs.values(), *end.reactor._closing.values()]
        name = rng.choice(names)
        if name != IDENTITY and sum(each.encoding != IDENTITY for each in encoded) >= 4:
            name = IDENTITY
        if open_streams < 8:
            streams[end].append(end.reactor.open_stream(name))

    def close_one(end: End[Any]) -> None:
        if streams[end]:
            stream = rng.choice(streams[end])
            idle = all(source.stream is not stream for source in end.reactor._sources())
            if not link and stream.begun and idle:
                with pytest.raises(FrameUsageError):
                    end.reactor.close_stream(stream)
                return
            streams[end].remove(stream)
            end.do(end.reactor.close_stream(rng.choice([stream, stream.id])))
            old.append(stream)

    def ask() -> None:
        if len(client.active) < 30:
            data, whole = page(), rng.random() < 0.5
            options = {"stream": a_stream(pair.client), "plain": rng.random() < 0.1}
            asked[pair.request(data=data, whole=whole, **options)] = data

    def reply() -> None:
        if todo:
            request_id = todo.pop(rng.randrange(len(todo)))
            stream, kind = a_stream(pair.server), rng.randrange(4)
            if kind == 0:
                answers[request_id] = b"no"
                pair.server.do([server.respond_error(request_id, "no", stream)])
                return
            text = answers[request_id] = page()
            if kind == 1:
                pair.server.do([server.write_text(request_id, [], a_stream(pair.server))])
            if kind < 3:
                pair.server.do([server.respond(request_id, text, stream)])
                return
            writer, action = server.open_response(request_id, stream)
            pair.server.do([action])
            writer.write(text)
            writers.append(writer)

    def finish() -> None:
        for writer in writers:
            if not writer.finished:
                writer.finish()
        writers.clear()

    def cancel() -> None:
        request_id = rng.choice(sorted(client.active - cancelled) or [0])
        if link and request_id:
            cancelled.add(request_id)
            pair.cancel(request_id)

    ends: list[End[Any]] = [pair.client, pair.server]
    for _ in range(rng.randint(20, 150)):
        what = rng.randrange(10)
        if what == 0:
            open_one(rng.choice(ends))
        elif what == 1:
            close_one(rng.choice(ends))
        elif what < 4:
            ask()
        elif what < 6:
            reply()
        elif what == 6:
            rng.choice([finish, cancel])()
        else:
            end = rng.choice(ends)
            pair.carry(end, end.send(rng.choice([1, 1000, 30_000])))
        pair.unbroken()
    finish()
    pair.run()
    while todo:
        reply()
        finish()
        pair.run()
    pair.unbroken()
    assert client.active == server.active == set()
    for request_id, text in answers.items():
        if request_id not in cancelled:
            assert got[request_id] == text
    for end in ends:
        other = pair.server if end is pair.client else pair.client
        outputs = [*end.reactor._outputs.values(), *end.reactor._closing.values()]
        assert inputs(other) == {stream.id for stream in outputs if stream.begun}
        assert not any(stream.messages for stream in outputs)
        assert not list(end.reactor._sources())
        if link:
            assert not end.reactor._closing
    for stream in old:
        reactor: Any = client if stream.id & 1 else server
        with pytest.raises(FrameUsageError):
            reactor.close_stream(stream)
