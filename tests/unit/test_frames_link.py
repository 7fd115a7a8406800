"""The link: to open it, cancel, ping, go away, and what a peer must not say."""

from __future__ import annotations

import io
from typing import Any

import attrs
import pytest

from support.frames import Pair, frames_in, linked
from txqmp.frames import (
    Action,
    CancelCommand,
    ClientReactor,
    Code,
    Failed,
    FrameLimitError,
    FrameProtocolError,
    FrameUsageError,
    GoingAway,
    Limits,
    LinkOpened,
    Pong,
    RequestCancelled,
    RequestFailed,
    RequestLost,
    Response,
    ResponseData,
    ResponseWriter,
    RunCommand,
    SendFrames,
    ServerReactor,
    Terms,
    TextAtom,
    TextOutput,
    encode_frame,
    encode_text,
    format_frame,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_DATA,
    COMMAND_NAME,
    CONTINUATION,
    EOS,
    ERROR_RESPONSE,
    HAVE_ARGS,
    HAVE_DATA,
    NAME_EOS,
    STREAM_BEGIN,
    TEXT_OUTPUT,
)
from txqmp.frames.link.words import (
    MAX_LINE,
    MIN_FRAME,
    MOST,
    check_token,
    decode_grants,
    decode_number,
    encode_grants,
    one_line,
)


TERMS = Terms.of(Limits(), ["identity", "zlib"])


def failure(actions: list[Action]) -> Any:
    """The error that all ends with."""
    failed = actions[-1]
    assert isinstance(failed, Failed)
    return failed.error


def served(pair: Pair) -> list[int]:
    """The requests that the server was to run, since this was called."""
    return [each.request_id for each in pair.server.take() if isinstance(each, RunCommand)]


def respond(pair: Pair, request_id: int, data: bytes = b"ok") -> None:
    pair.server.do([pair.server.reactor.respond(request_id, data)])


def open_response(pair: Pair, request_id: int) -> ResponseWriter:
    writer, frames = pair.server.reactor.open_response(request_id)
    pair.server.do([frames])
    return writer


def command(request_id: int, line: bytes, flags: int = NAME_EOS) -> bytes:
    """A command of a client, on a stream that is open."""
    return encode_frame(request_id, 1, 0, COMMAND_NAME, flags, line)


def line(text: bytes, request_id: int = 1, flags: int = CONTINUATION) -> bytes:
    """What a server has to say, on a stream that is open."""
    return encode_frame(request_id, 2, 0, BYTES_RESPONSE, flags, text)


# Terms


def test_terms_are_told_as_words() -> None:
    assert TERMS.encode() == (
        b"window=262144 connection-window=1048576 max-frame=65535 message=16777216"
        b" request-arguments=1048576 active=256 half-received=64 half-received-bytes=16777216"
        b" streams=128 encoded-streams=8 encodings=zlib"
    )
    assert Terms.decode(TERMS.encode()) == TERMS
    bare = attrs.evolve(TERMS, encodings=())
    assert Terms.decode(bare.encode()) == bare


def test_the_longest_terms_fit_into_the_smallest_frame() -> None:
    most = {
        field.name: 1 << 53
        for field in attrs.fields(Limits)
        if field.name in attrs.asdict(TERMS) and field.name not in ("streams", "encoded_streams")
    }
    names = [f"encoding-{number}" for number in range(20)]
    terms = Terms.of(Limits(**most, receive_frame=(1 << 24) - 1), names)  # type: ignore[arg-type]
    assert len(b"link 1 %s\n" % terms.encode()) <= MIN_FRAME


def test_words_that_are_not_known_mean_nothing() -> None:
    assert Terms.decode(b"new  " + TERMS.encode() + b" newer=\xff, newest=1=2") == TERMS


@pytest.mark.parametrize(
    "text",
    [
        b"",
        TERMS.encode().replace(b"window", b"widow"),
        TERMS.encode().replace(b" encodings=zlib", b""),
        TERMS.encode().replace(b"=262144", b"="),
        TERMS.encode().replace(b"=262144", b"=-1"),
        TERMS.encode().replace(b"=262144", b"=0"),
        TERMS.encode().replace(b"=262144", b"=+1"),
        TERMS.encode().replace(b"=262144", b"=1_0"),
        TERMS.encode().replace(b"=262144", b"=" + b"1" * 5000),
        TERMS.encode().replace(b"=65535", b"=1023"),
        TERMS.encode().replace(b"=65535", b"=16777216"),
        TERMS.encode().replace(b"zlib", b"zl\xc3\xafb"),
    ],
)
def test_terms_that_make_no_sense_are_an_error(text: bytes) -> None:
    with pytest.raises(FrameProtocolError) as caught:
        Terms.decode(text)
    assert caught.value.code is Code.MALFORMED_CONTROL


def test_the_best_encoding_is_the_first_of_ours_that_the_peer_takes() -> None:
    terms = attrs.evolve(TERMS, encodings=("new", "zlib", "zstd"))
    assert terms.best(["zstd-8mb", "zlib"]) == "zlib"
    assert terms.best(["new"]) is None
    assert terms.best([]) is None


def test_grants_are_told_as_pairs() -> None:
    assert encode_grants([(1, 20), (0, 3)]) == b"1:20 0:3"
    assert decode_grants(b"1:20 0:3") == [(1, 20), (0, 3)]
    assert decode_grants(b"") == []


@pytest.mark.parametrize("text", [b"1", b"1:", b":1", b"1:2:3", b"a:1", b"1:-1", b"1:" + b"1" * 19])
def test_grants_that_make_no_sense_are_an_error(text: bytes) -> None:
    with pytest.raises(FrameProtocolError):
        decode_grants(b"3:4 " + text)


def test_a_number_has_up_to_18_digits() -> None:
    assert decode_number(b"9" * 18) == 10**18 - 1
    for text in (b"", b"-1", b" 1", b"\xd9\xa1", b"9" * 19):
        with pytest.raises(FrameProtocolError):
            decode_number(text)


def test_a_reason_is_one_short_line() -> None:
    assert one_line(" a\n b\r\nc\t\x85d ") == b"a b c d"
    assert one_line("ö" * 1000) == "ö".encode() * 256
    assert one_line("xö" * 1000).decode() == "xö" * 170 + "x"
    assert one_line("\ud800") == b"?"


# To open it


def test_a_link_is_opened_before_anything_else() -> None:
    pair = Pair(server=ServerReactor(link=True, encodings=["zlib"]))
    client, server = pair.client.reactor, pair.server.reactor
    assert client.link_request is None
    pair.client.do([client.open_link()])
    assert client.link_request == 1
    with pytest.raises(FrameUsageError, match="being opened"):
        client.request("c")
    pair.run()
    assert pair.client.take() == [LinkOpened(TERMS)]
    assert client.peer == TERMS
    (opened,) = pair.server.take()
    assert isinstance(opened, LinkOpened)
    assert server.peer == opened.terms
    assert opened.terms.best(["zlib"]) == "zlib"
    assert (client.active, server.active) == (set(), set())
    pair.request()
    pair.run()
    assert served(pair) == [3]


def test_a_server_that_does_not_know_it_can_be_used_without() -> None:
    pair = Pair()
    pair.client.do([pair.client.reactor.open_link()])
    pair.run()
    (run,) = pair.server.take()
    assert isinstance(run, RunCommand)
    assert run.name.startswith(b"link 1 ")
    pair.server.do([pair.server.reactor.respond_error(1, "no such command")])
    pair.run()
    client = pair.client.reactor
    assert pair.client.take() == [RequestFailed(1, "no such command", may_have_run=False)]
    assert (client.link_request, client.peer) == (1, None)
    for use in (lambda: client.ping(b"p"), client.goaway, client.open_link):
        with pytest.raises(FrameUsageError):
            use()
    request_id = pair.request(data=bytes(1 << 20))
    pair.run()
    assert served(pair) == [request_id]
    respond(pair, request_id, bytes(1 << 20))
    pair.run()
    assert pair.client.take() == [Response(request_id, bytes(1 << 20))]


def test_a_server_that_does_not_know_it_may_say_so_to_people_first() -> None:
    pair = Pair()
    pair.client.do([pair.client.reactor.open_link()])
    pair.run()
    pair.server.take()
    server = pair.server.reactor
    pair.server.do([server.write_text(1, [TextAtom("no %s", (), ("link",))])])
    pair.server.do([server.respond_error(1, "no such command")])
    pair.run()
    assert pair.client.take() == [
        TextOutput(1, (TextAtom("no %s", (), ("link",)),)),
        RequestFailed(1, "no such command", may_have_run=False),
    ]


def test_there_is_no_text_for_people_that_is_empty_or_on_a_link() -> None:
    client = ClientReactor()
    client.open_link()
    (failed,) = client.receive(encode_frame(1, 2, STREAM_BEGIN, TEXT_OUTPUT, 0, b""))
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.MALFORMED_CONTROL
    (failed,) = linked().client.reactor.receive(
        encode_frame(1, 2, 0, TEXT_OUTPUT, 0, encode_text([TextAtom("x")]))
    )
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.MALFORMED_CONTROL


def test_a_link_is_the_clients_first_request() -> None:
    client = ClientReactor()
    client.request("c")
    with pytest.raises(FrameUsageError, match="before any request"):
        client.open_link()


def test_a_client_asks_once() -> None:
    client = ClientReactor()
    client.open_link()
    with pytest.raises(FrameUsageError, match="once"):
        client.open_link()
    with pytest.raises(FrameUsageError, match="once"):
        linked().client.reactor.open_link()


@pytest.mark.parametrize("begun", [NAME_EOS, HAVE_ARGS])
def test_a_server_opens_no_link_when_it_has_begun_with_something_else(begun: int) -> None:
    server = ServerReactor(link=True)
    server.receive(encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, begun, b"c"))
    (answer,) = server.receive(command(3, b"link 1 " + TERMS.encode()))
    assert isinstance(answer, SendFrames)
    (frame,) = frames_in(b"".join(answer))
    assert frame.type == ERROR_RESPONSE
    assert (server.peer, server.error) == (None, None)


def test_a_server_opens_one_link() -> None:
    server = linked().server.reactor
    (answer,) = server.receive(command(3, b"link 1 " + TERMS.encode()))
    assert isinstance(answer, SendFrames)
    assert frames_in(b"".join(answer))[0].type == ERROR_RESPONSE


def test_a_later_version_is_welcome_and_an_earlier_one_is_not() -> None:
    first = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"link 0 whatever")
    server = ServerReactor(link=True)
    (answer,) = server.receive(first)
    assert isinstance(answer, SendFrames)
    assert frames_in(b"".join(answer))[0].type == ERROR_RESPONSE
    actions = server.receive(command(1, b"link 2 more=1 " + TERMS.encode()))
    assert LinkOpened(TERMS) in actions


def test_without_a_link_its_words_are_answered_with_an_error() -> None:
    server = ServerReactor(link=True)
    data = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"link-ping p")
    (answer,) = server.receive(data)
    assert isinstance(answer, SendFrames)
    assert format_frame(frames_in(b"".join(answer))[0]).endswith("application there is no link")
    assert server.active == set()
    with pytest.raises(FrameUsageError, match="no link"):
        server.ping(b"p")


def test_words_that_only_begin_like_those_of_the_link_are_commands() -> None:
    server = ServerReactor(link=True)
    data = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"links")
    assert server.receive(data) == [RunCommand(1, b"links", {}, None)]
    (run,) = server.receive(command(3, b"link-pings p"))
    assert isinstance(run, RunCommand)


def test_a_server_without_a_link_runs_what_it_is_told() -> None:
    server = ServerReactor()
    data = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, b"link-ping p")
    assert server.receive(data) == [RunCommand(1, b"link-ping p", {}, None)]
    with pytest.raises(FrameUsageError, match="no link"):
        server.ping(b"p")


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    client = ClientReactor(limits=Limits(receive_frame=2000))
    server = ServerReactor(limits=Limits(receive_frame=1500), link=True)
    early = client.open_stream(), server.open_stream(), server.open_stream("zlib")
    pair = linked(client, server)
    assert [stream.max_payload for stream in early] == [1500, 2000, 2000 - 64]
    assert (client.open_stream().max_payload, server.open_stream().max_payload) == (1500, 2000)
    pair.request(data=bytes(10_000))
    pair.run()
    (request_id,) = served(pair)
    respond(pair, request_id, bytes(10_000))
    pair.run()
    assert pair.client.take() == [Response(request_id, bytes(10_000))]


def test_larger_frames_are_sent_to_who_takes_them() -> None:
    limits = Limits(send_frame=1 << 20, receive_frame=1 << 20, window=4 << 20)
    pair = linked(ClientReactor(limits=limits), ServerReactor(limits=limits, link=True))
    stream = pair.client.reactor.open_stream()
    pair.request(data=bytes(500_000), stream=stream)
    frames = frames_in(pair.client.send(1 << 20))
    assert max(len(frame.payload) for frame in frames) == 500_000
    plain = ClientReactor(limits=limits)
    assert plain.stream(1).max_payload == 65_535


# The peer's limits


def test_no_more_requests_than_the_server_takes() -> None:
    pair = linked(server=ServerReactor(limits=Limits(active=2), link=True))
    pair.request()
    pair.request()
    with pytest.raises(FrameUsageError, match="2 requests"):
        pair.request()
    pair.run()
    pair.unbroken()
    with_ids_to_spare = linked(
        ClientReactor(limits=Limits(active=40_000)),
        ServerReactor(limits=Limits(active=40_000), link=True),
    )
    for _ in range(30_000):
        with_ids_to_spare.client.reactor.request("c")
    with pytest.raises(FrameUsageError, match="30000 requests"):
        with_ids_to_spare.client.reactor.request("c")
    assert list(with_ids_to_spare.client.reactor.ping(b"p"))


def test_no_more_requests_in_part_than_the_server_takes() -> None:
    pair = linked(server=ServerReactor(limits=Limits(half_received=1), link=True))
    for _ in range(5):
        pair.request(data=bytes(100_000))
    while pair.client.scheduler or pair.server.scheduler:
        pair.carry(pair.client, pair.client.send(1))
        pair.carry(pair.server, pair.server.send(1))
    pair.unbroken()
    assert len(served(pair)) == 5


def test_an_upload_that_is_cancelled_makes_room_when_the_server_knows() -> None:
    pair = linked()
    half = [pair.request(data=bytes(100_000)) for _ in range(64)]
    for _ in half:
        pair.carry(pair.client, pair.client.send(1))
    assert pair.server.reactor.half_received == set(half)
    for request_id in half:
        pair.cancel(request_id)
    rest = [pair.request(data=bytes(100_000)) for _ in range(100)]
    while pair.client.scheduler:
        pair.carry(pair.client, pair.client.send())
    pair.run()
    pair.unbroken()
    assert served(pair) == rest
    assert pair.client.take() == [RequestCancelled(each, may_have_run=False) for each in half]


def test_no_larger_requests_than_the_server_takes() -> None:
    limits = Limits(message=100, request_arguments=50)
    pair = linked(server=ServerReactor(limits=limits, link=True))
    with pytest.raises(FrameUsageError, match="101 bytes, more than 100"):
        pair.request(data=bytes(101))
    with pytest.raises(FrameUsageError, match="51 bytes, more than 50"):
        pair.request(arguments={"a": bytes(41), "b": b""})
    fits = pair.request(arguments={"a": bytes(40), "b": b""}, data=bytes(100))
    pair.run()
    assert served(pair) == [fits]
    pair.unbroken()


def test_no_larger_requests_than_the_server_holds_in_part() -> None:
    pair = linked(server=ServerReactor(limits=Limits(half_received_bytes=50_000), link=True))
    with pytest.raises(FrameUsageError, match="49989 bytes, more than 49988"):
        pair.request("name", arguments={"a": b"123"}, data=bytes(49_989))
    fits = pair.request("name", arguments={"a": b"123"}, data=bytes(49_988))
    pair.run()
    assert served(pair) == [fits]
    pair.unbroken()


def test_no_more_data_in_part_than_the_server_holds() -> None:
    server = ServerReactor(limits=Limits(half_received_bytes=100_000), link=True)
    pair = linked(server=server)
    for size in (99_000, 50_000, 40_000, 30_000, 99_999):
        pair.request(data=bytes(size))
    while pair.client.scheduler or pair.server.scheduler:
        pair.carry(pair.client, pair.client.send(1))
        pair.carry(pair.server, pair.server.send(1))
    pair.unbroken()
    assert len(served(pair)) == 5


def test_no_more_streams_than_the_peer_takes() -> None:
    limits = Limits(streams=2)
    pair = linked(ClientReactor(limits=limits), ServerReactor(limits=limits, link=True))
    for reactor in (pair.client.reactor, pair.server.reactor):
        reactor.open_stream()
        with pytest.raises(FrameUsageError, match="takes 2 streams"):
            reactor.open_stream()
        own = 9 if reactor is pair.client.reactor else 8
        with pytest.raises(FrameUsageError, match="takes 2 streams"):
            reactor.stream(own)


def test_the_links_own_stream_is_always_there() -> None:
    server = ServerReactor(link=True)
    server.stream(4)
    pair = linked(ClientReactor(limits=Limits(streams=1)), server)
    assert {frame.stream_id for frame in frames_in(bytes(pair.server.sent))} == {2}


def test_no_encodings_but_those_that_the_peer_takes() -> None:
    pair = linked(
        ClientReactor(encodings=["zlib"], limits=Limits(encoded_streams=1)),
        ServerReactor(link=True),
    )
    server = pair.server.reactor
    with pytest.raises(FrameUsageError, match="does not take zstd"):
        server.open_stream("zstd")
    with pytest.raises(FrameUsageError, match="does not take zlib"):
        pair.client.reactor.open_stream("zlib")
    server.open_stream("zlib")
    with pytest.raises(FrameUsageError, match="1 streams with an encoding"):
        server.open_stream("zlib")
    server.open_stream()


# Cancel


def test_cancel_before_anything_was_sent() -> None:
    pair = linked()
    request_id = pair.request(data=b"x")
    pair.cancel(request_id)
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]
    pair.run()
    assert pair.server.take() == []


def test_cancel_when_half_was_sent() -> None:
    pair = linked()
    request_id = pair.request(data=bytes(100_000))
    pair.carry(pair.client, pair.client.send(1000))
    assert pair.server.reactor.half_received == {request_id}
    pair.cancel(request_id)
    pair.run()
    assert pair.server.take() == []
    assert pair.server.reactor.half_received == pair.server.reactor.active == set()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]
    pair.unbroken()


@pytest.mark.parametrize("ran", [True, False])
def test_cancel_when_it_is_being_served(ran: bool) -> None:
    pair = linked()
    request_id = pair.request()
    pair.run()
    pair.server.take()
    pair.cancel(request_id)
    pair.run()
    assert pair.server.take() == [CancelCommand(request_id, answered=False)]
    assert pair.client.take() == []
    assert pair.client.reactor.active == pair.server.reactor.active == {request_id}
    answer = pair.server.reactor.respond_cancelled(request_id, may_have_run=ran)
    pair.server.do([answer])
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=ran)]
    assert pair.client.reactor.active == pair.server.reactor.active == set()


@pytest.mark.parametrize("answer", ["response", "error", "pieces"])
def test_cancel_and_be_answered_all_the_same(answer: str) -> None:
    pair = linked()
    request_id = pair.request(whole=answer != "pieces")
    pair.run()
    pair.cancel(request_id)
    pair.run()
    server = pair.server.reactor
    if answer == "error":
        pair.server.do([server.respond_error(request_id, "no")])
    elif answer == "pieces":
        writer = open_response(pair, request_id)
        pair.server.do([server.write_text(request_id, [TextAtom("t")])])
        writer.write(bytes(1 << 20))
        writer.finish()
    else:
        respond(pair, request_id, bytes(1 << 20))
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]
    pair.unbroken()


def test_cancel_when_the_answer_is_half_sent() -> None:
    pair = linked(ClientReactor(limits=Limits(window=50_000)))
    request_id = pair.request(whole=False)
    pair.run()
    respond(pair, request_id, bytes(1 << 20))
    pair.run()
    assert all(isinstance(action, ResponseData) for action in pair.client.take())
    pair.server.take()
    pair.cancel(request_id)
    pair.run()
    assert pair.server.take() == [CancelCommand(request_id, answered=True)]
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]
    assert pair.server.reactor.active == set()
    assert len(pair.server.sent) < 100_000


def test_cancel_a_response_in_pieces() -> None:
    pair = linked()
    request_id = pair.request(whole=False)
    pair.run()
    writer = open_response(pair, request_id)
    writer.write(b"one")
    pair.run()
    pair.server.take()
    assert pair.client.take() == [ResponseData(request_id, b"one", last=False)]
    writer.write(b"two")
    assert (writer.finished, writer.waiting) == (False, 3)
    pair.cancel(request_id)
    pair.carry(pair.client, pair.client.send())
    assert pair.server.take() == [CancelCommand(request_id, answered=True)]
    assert (writer.finished, writer.waiting) == (True, 0)
    with pytest.raises(FrameUsageError):
        writer.write(b"three")
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]


def test_cancel_when_the_answer_is_under_way() -> None:
    pair = linked()
    request_id = pair.request()
    pair.run()
    respond(pair, request_id)
    answer = pair.server.send()
    pair.cancel(request_id)
    pair.carry(pair.client, pair.client.send())
    assert served(pair) == [request_id]
    pair.carry(pair.server, answer)
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]
    pair.run()
    pair.unbroken()


@pytest.mark.parametrize("refused", [True, False])
def test_an_error_that_waits_to_be_sent_is_not_made_another(refused: bool) -> None:
    """What it says of the request is known better than that it was cancelled."""
    pair = linked()
    request_id = pair.request()
    if refused:
        pair.server.reactor.goaway()
    pair.carry(pair.client, pair.client.send())
    if not refused:
        pair.server.do([pair.server.reactor.respond_error(request_id, "no")])
    pair.cancel(request_id)
    pair.carry(pair.client, pair.client.send())
    pair.run()
    cancelled = [each for each in pair.client.take() if isinstance(each, RequestCancelled)]
    assert cancelled == [RequestCancelled(request_id, may_have_run=not refused)]


def test_cancel_twice_or_what_is_over_or_never_was() -> None:
    pair = linked()
    request_id = pair.request()
    pair.run()
    pair.cancel(request_id)
    link = pair.client.reactor.link_request
    assert link is not None
    for wrong in (request_id, link, 0, 5, 99):
        with pytest.raises(FrameUsageError, match="not active"):
            pair.cancel(wrong)
    respond(pair, request_id)
    pair.run()
    with pytest.raises(FrameUsageError, match="not active"):
        pair.cancel(request_id)


@pytest.mark.parametrize("which", [b"99", b"1", b"3 3 3", b"", b"0 2 70000", b"999999999999999999"])
def test_a_server_cancels_what_it_serves_once(which: bytes) -> None:
    pair = linked()
    request_id = pair.request()
    pair.run()
    assert request_id == 3
    pair.server.take()
    answer, *cancelled = pair.server.reactor.receive(command(101, b"link-cancel " + which))
    assert isinstance(answer, SendFrames)
    assert cancelled == ([CancelCommand(3)] if b"3" in which else [])
    again = pair.server.reactor.receive(command(103, b"link-cancel " + which))
    assert len(again) == 1
    assert pair.server.reactor.active == {3}


def test_what_was_cancelled_is_active_until_it_is_answered() -> None:
    """Else to ask and cancel, again and again, would be a way to have more run than is allowed."""
    pair = linked(server=ServerReactor(limits=Limits(active=2), link=True))
    server = pair.server.reactor
    for request_id in (3, 5):
        server.receive(command(request_id, b"c"))
        server.receive(command(request_id + 100, b"link-cancel %d" % request_id))
    error = failure(server.receive(command(7, b"c")))
    assert isinstance(error, FrameLimitError)
    assert error.limit == "active"


def test_half_requests_that_are_cancelled_are_active_until_that_is_told() -> None:
    pair = linked(server=ServerReactor(limits=Limits(active=2), link=True))
    server = pair.server.reactor
    for request_id in (3, 5, 7):
        server.receive(command(request_id, b"c", HAVE_DATA))
    actions = server.receive(command(101, b"link-cancel 3 5 7"))
    error = failure(actions)
    assert isinstance(error, FrameLimitError)
    assert error.limit == "active"


def test_an_id_is_free_when_the_request_is_over() -> None:
    pair = linked()
    client = pair.client.reactor
    for ending in ("cancelled half", "cancelled", "answered") * 2:
        client._ids._next = 201
        request_id = pair.request(data=bytes(100_000))
        assert request_id == 201
        if ending == "cancelled half":
            pair.carry(pair.client, pair.client.send(1000))
        else:
            pair.run()
        if ending != "answered":
            pair.cancel(request_id)
            pair.run()
        if request_id in pair.server.reactor.active:
            client._ids._next = 201
            assert pair.request() > 201
            respond(pair, request_id)
        pair.run()
        for other in pair.server.reactor.active:
            respond(pair, other)
        pair.run()
        assert request_id not in client.active
        pair.unbroken()


def test_cancels_are_told_together() -> None:
    pair = linked()
    ids = [pair.request() for _ in range(256)]
    pair.run()
    for request_id in ids:
        pair.cancel(request_id)
    (said,) = frames_in(pair.client.send())
    assert said.payload == b"link-cancel " + b" ".join(b"%d" % each for each in ids[:32])


def test_all_of_many_cancels_arrive() -> None:
    pair = linked()
    ids = [pair.request() for _ in range(256)]
    pair.run()
    pair.server.take()
    for request_id in ids:
        pair.cancel(request_id)
    pair.run()
    assert pair.server.take() == [CancelCommand(request_id) for request_id in ids]
    for request_id in ids:
        pair.server.do([pair.server.reactor.respond_cancelled(request_id, may_have_run=True)])
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id) for request_id in ids]
    assert pair.client.reactor.active == set()
    assert len(pair.client.reactor._link.requests) == 1
    pair.unbroken()


def test_what_is_over_before_the_cancel_is_told_is_not_told() -> None:
    pair = linked()
    ids = [pair.request() for _ in range(3)]
    pair.run()
    for request_id in ids:
        pair.cancel(request_id)
        respond(pair, request_id)
    pair.carry(pair.server, pair.server.send())
    assert len(pair.client.take()) == 3
    (said,) = frames_in(pair.client.send())
    assert said.payload == b"link-cancel "
    pair.carry(pair.client, said.encode())
    pair.run()
    pair.unbroken()


def test_a_request_whose_file_failed_can_be_cancelled() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 50_000:
                raise OSError("no such luck")
            return super().read(size)

    pair = linked()
    request_id = pair.request(data=Broken(bytes(100_000)))
    with pytest.raises(OSError, match="no such luck"):
        pair.client.send()
    pair.run()
    assert pair.server.reactor.half_received == {request_id}
    pair.cancel(request_id)
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]
    assert pair.server.reactor.half_received == set()


@pytest.mark.parametrize("error", [True, False])
def test_a_server_that_ran_the_half_of_a_request_is_not_believed(error: bool) -> None:
    pair = linked()
    request_id = pair.request(data=bytes(100_000))
    pair.carry(pair.client, pair.client.send(1000))
    pair.cancel(request_id)
    answer = line(b"ok", request_id, EOS)
    if error:
        answer = encode_frame(request_id, 2, 0, ERROR_RESPONSE, 2, b"cancelled: may have run")
    pair.client.receive(answer)
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]


# Ping


def test_a_client_pings() -> None:
    pair = linked()
    pair.client.do([pair.client.reactor.ping(b"one"), pair.client.reactor.ping(b"two")])
    pair.run()
    assert pair.client.take() == [Pong(b"one"), Pong(b"two")]
    assert pair.server.take() == []
    assert pair.server.reactor.active == set()


def test_a_server_pings() -> None:
    pair = linked()
    pair.server.reactor.ping(b"one")
    pair.server.reactor.ping(b"one")
    pair.run()
    assert pair.server.take() == [Pong(b"one"), Pong(b"one")]
    assert pair.client.take() == []


@pytest.mark.parametrize("token", [b"", b" ", b"a b", b"a\n", b"\x7f", b"\xff", b"x" * 65])
def test_a_ping_carries_a_short_word(token: bytes) -> None:
    pair = linked()
    for reactor in (pair.client.reactor, pair.server.reactor):
        with pytest.raises(FrameUsageError, match="64 printable"):
            reactor.ping(token)
    assert check_token(b"!" * 63 + b"~") == b"!" * 63 + b"~"


def test_a_few_pings_at_a_time() -> None:
    pair = linked()
    for _ in range(3):
        for number in range(MOST):
            pair.client.do([pair.client.reactor.ping(b"%d" % number)])
            pair.server.reactor.ping(b"%d" % number)
        for reactor in (pair.client.reactor, pair.server.reactor):
            with pytest.raises(FrameUsageError, match="not answered"):
                reactor.ping(b"more")
        pair.run()
        assert len(pair.client.take()) == len(pair.server.take()) == MOST


def test_pings_that_were_answered_are_not_counted() -> None:
    pair = linked(ClientReactor(limits=Limits(control=32)))
    for _ in range(100):
        pair.server.reactor.ping(b"s")
        pair.client.do([pair.client.reactor.ping(b"c")])
        pair.run()
    assert (pair.server.take(), pair.client.take()) == ([Pong(b"s")] * 100, [Pong(b"c")] * 100)


def test_a_ping_goes_before_what_else_waits() -> None:
    pair = linked()
    pair.request(data=bytes(1 << 20))
    pair.client.do([pair.client.reactor.ping(b"p")])
    assert frames_in(pair.client.send(1))[0].payload == b"link-ping p"
    pair.server.do(pair.server.reactor.receive(command(901, b"c")))
    respond(pair, 901, bytes(1 << 20))
    pair.server.reactor.ping(b"p")
    assert frames_in(pair.server.send(1))[0].payload == b"ping p\n"


# Going away


def test_a_server_goes_away() -> None:
    pair = linked()
    before = pair.request()
    pair.run()
    half = pair.request(data=bytes(100_000))
    pair.carry(pair.client, pair.client.send(1000))
    crossing = pair.request()
    pair.server.reactor.goaway("a restart,\nsoon")
    pair.run()
    assert served(pair) == [before]
    assert pair.client.take() == [
        GoingAway(before, "a restart, soon"),
        RequestFailed(crossing, "refused: not run", may_have_run=False),
        RequestFailed(half, "refused: not run", may_have_run=False),
    ]
    with pytest.raises(FrameUsageError, match="a restart, soon"):
        pair.client.reactor.request("c")
    respond(pair, before)
    pair.run()
    assert pair.client.take() == [Response(before, b"ok")]
    assert pair.server.reactor.active == set()


def test_a_server_says_it_once() -> None:
    pair = linked()
    pair.server.reactor.goaway("one")
    pair.server.reactor.goaway("two")
    pair.run()
    assert pair.client.take() == [GoingAway(0, "one")]


def test_a_link_to_a_server_that_goes_away_is_told_so() -> None:
    server = ServerReactor(link=True)
    server.goaway("soon")
    pair = Pair(server=server)
    pair.client.do([pair.client.reactor.open_link()])
    pair.run()
    opened, going = pair.client.take()
    assert isinstance(opened, LinkOpened)
    assert going == GoingAway(0, "soon")


def test_a_client_goes_away() -> None:
    pair = linked()
    request_id = pair.request()
    pair.run()
    pair.server.take()
    pair.client.do([pair.client.reactor.goaway("done  here"), pair.client.reactor.goaway("again")])
    with pytest.raises(FrameUsageError, match="going away"):
        pair.client.reactor.request("c")
    pair.run()
    assert pair.server.take() == [GoingAway(0, "done here")]
    respond(pair, request_id)
    pair.client.do([pair.client.reactor.ping(b"p")])
    pair.run()
    assert pair.client.take() == [Pong(b"p"), Response(request_id, b"ok")]


def test_both_go_away() -> None:
    pair = linked()
    pair.server.reactor.goaway("s")
    pair.client.do([pair.client.reactor.goaway("c")])
    pair.run()
    assert pair.client.take() == [GoingAway(0, "s")]
    assert pair.server.take() == [GoingAway(0, "c")]
    with pytest.raises(FrameUsageError, match="server"):
        pair.client.reactor.request("c")


def test_a_cancelled_request_that_is_refused_has_not_run() -> None:
    pair = linked()
    pair.server.reactor.goaway()
    request_id = pair.request()
    data = pair.client.send()
    pair.cancel(request_id)
    pair.carry(pair.client, data)
    pair.run()
    assert RequestCancelled(request_id, may_have_run=False) in pair.client.take()


# The end


def test_a_server_whose_input_has_ended_answers_what_it_has() -> None:
    pair = linked()
    ids = [pair.request() for _ in range(3)]
    pair.run()
    pair.cancel(ids[1])
    pair.run()
    server = pair.server.reactor
    assert server.end_of_input() == []
    with pytest.raises(FrameUsageError, match="no link"):
        server.ping(b"p")
    server.goaway("too late, but well")
    respond(pair, ids[0])
    pair.server.do([server.respond_cancelled(ids[1], may_have_run=False)])
    pair.server.do([server.respond_error(ids[2], "no")])
    pair.carry(pair.server, pair.server.send())
    assert pair.client.take() == [
        GoingAway(ids[2], "too late, but well"),
        Response(ids[0], b"ok"),
        RequestCancelled(ids[1], may_have_run=False),
        RequestFailed(ids[2], "no"),
    ]
    assert server.active == set()


def test_a_client_whose_input_has_ended_has_no_requests_and_no_link() -> None:
    pair = linked()
    client = pair.client.reactor
    kept, dropped = pair.request(), pair.request()
    pair.run()
    pair.cancel(dropped)
    pair.client.do([client.ping(b"p")])
    assert client.end_of_input() == [RequestLost(kept), RequestCancelled(dropped)]
    for use in (lambda: client.ping(b"p"), client.goaway, client.open_link):
        with pytest.raises(FrameUsageError, match="ended"):
            use()
    assert client.consumed(kept, 1) == []


def test_a_client_that_lost_the_server_grants_nothing() -> None:
    pair = linked(ClientReactor(limits=Limits(window=10)))
    client = pair.client.reactor
    request_id = pair.request(whole=False)
    pair.run()
    assert client.receive(line(b"12345678", request_id))
    client.receive(line(b"x", 999))
    assert client.error is not None
    assert client.consumed(request_id, 8) == []
    assert client.cancel(request_id) == []
    with pytest.raises(FrameUsageError, match="failed"):
        client.ping(b"p")
    assert client.end_of_input() == [RequestCancelled(request_id)]


def test_a_failed_server_has_no_link() -> None:
    server = linked().server.reactor
    server.receive(command(2, b"c"))
    with pytest.raises(FrameUsageError, match="no link"):
        server.ping(b"p")


# What a client must not say


@pytest.mark.parametrize(
    "text",
    [
        b"link",
        b"link one",
        b"link 1",
        b"link 1 window=1",
        b"link-ping",
        b"link-ping ",
        b"link-ping a b",
        b"link-ping " + b"x" * 65,
        b"link-ping " + b"x" * 60_000,
        b"link-pong",
        b"link-pong never-asked",
        b"link-credit 1",
        b"link-credit 1:x",
        b"link-cancel x",
        b"link-cancel -1",
        b"link-cancel 1,2",
    ],
)
def test_what_a_client_must_not_say(text: bytes) -> None:
    server = linked().server.reactor if text[4:5] == b"-" else ServerReactor(link=True)
    data = encode_frame(101, 1, STREAM_BEGIN, COMMAND_NAME, NAME_EOS, text)
    error = failure(server.receive(data))
    assert error.code is Code.MALFORMED_CONTROL


@pytest.mark.parametrize("flags", [HAVE_ARGS, HAVE_DATA])
def test_a_command_of_the_link_is_one_frame(flags: int) -> None:
    server = linked().server.reactor
    error = failure(server.receive(command(3, b"link-ping p", flags)))
    assert error.code is Code.MALFORMED_CONTROL


def test_the_ids_of_the_links_commands_are_in_use_until_they_are_answered() -> None:
    for first in (b"link-ping p", b"link 1 x"):
        server = linked().server.reactor
        request_id = 1 if first[4:5] == b" " else 3
        if request_id == 3:
            server.receive(command(3, first))
        server.receive(command(5, b"c", HAVE_DATA))
        assert failure(server.receive(command(request_id, b"c"))).code is Code.ALREADY_ACTIVE
        server = linked().server.reactor
        server.receive(command(3, b"link-ping p"))
        server.receive(command(5, b"c", HAVE_DATA))
        data = encode_frame(request_id, 1, 0, COMMAND_DATA, EOS, b"")
        assert failure(server.receive(data)).code is Code.STILL_ACTIVE


def test_answers_that_wait_to_be_sent_are_limited() -> None:
    pair = linked(server=ServerReactor(limits=Limits(control=32), link=True))
    server = pair.server.reactor
    for number in range(32):
        pair.server.receive(command(2 * number + 3, b"link-ping p"))
    assert server.error is None
    error = failure(server.receive(command(101, b"link-ping p")))
    assert isinstance(error, FrameLimitError)
    assert (error.limit, error.allowed) == ("control", 32)


def test_answers_that_were_sent_are_not_counted() -> None:
    pair = linked(server=ServerReactor(limits=Limits(control=32), link=True))
    for _ in range(10):
        for number in range(32):
            pair.server.receive(command(2 * number + 3, b"link-ping p"))
        assert len(frames_in(pair.server.send())) == 32
    pair.unbroken()


def test_a_client_of_ours_stays_within_the_smallest_limit() -> None:
    """Whatever it does at once, while nothing comes back."""
    pair = linked(
        ClientReactor(limits=Limits(window=2)),
        ServerReactor(limits=Limits(control=32), link=True),
    )
    client, server = pair.client.reactor, pair.server.reactor
    ids = [pair.request() for _ in range(200)]
    pair.run()
    for number in range(MOST):
        server.ping(b"%d" % number)
    for request_id in ids[:100]:
        respond(pair, request_id, b"xx")
    pair.carry(pair.server, pair.server.send())
    for number, request_id in enumerate(ids[100:]):
        pair.cancel(request_id)
        if number < MOST:
            pair.client.do([client.ping(b"%d" % number)])
        # What it says arrives, and no answer does.
        for frame in frames_in(pair.client.send()):
            server.receive(frame.encode())
    pair.client.do([client.goaway()])
    server.receive(pair.client.send())
    pair.unbroken()
    assert server.error is None
    assert len(client._link.requests) <= 1 + 4 * MOST + 1


# What a server must not say


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"pong x\n",
        b"ping\n",
        b"ping \n",
        b"ping a b\n",
        b"ping " + b"x" * 65 + b"\n",
        b"credit 1\n",
        b"credit x:1\n",
        b"goaway\n",
        b"goaway x\n",
        b"link 1 " + TERMS.encode() + b"\n",
        b"x" * (MAX_LINE + 1),
        b"goaway 1 " + b"x" * MAX_LINE + b"\n",
    ],
)
def test_what_a_server_must_not_say(text: bytes) -> None:
    client = linked().client.reactor
    assert failure(client.receive(line(text))).code is Code.MALFORMED_CONTROL


@pytest.mark.parametrize(
    "text", [b"hello\n", b"link\n", b"link 0 " + TERMS.encode() + b"\n", b"link 1 window=1\n"]
)
def test_a_link_begins_with_its_terms(text: bytes) -> None:
    client = ClientReactor()
    list(client.open_link())
    data = encode_frame(1, 2, STREAM_BEGIN, BYTES_RESPONSE, CONTINUATION, text)
    assert failure(client.receive(data)).code is Code.MALFORMED_CONTROL


def test_lines_may_be_cut_anywhere() -> None:
    client = ClientReactor()
    list(client.open_link())
    text = b"link 1 " + TERMS.encode() + b"\nping p\ncredit 0:99999999\ngoaway 7 so long\n"
    actions = client.receive(encode_frame(1, 2, STREAM_BEGIN, BYTES_RESPONSE, 1, text[:1]))
    for at in range(1, len(text)):
        actions += client.receive(line(text[at : at + 1]))
    opened, pong, going = actions
    assert opened == LinkOpened(TERMS)
    assert isinstance(pong, SendFrames)
    assert frames_in(b"".join(pong))[0].payload == b"link-pong p"
    assert going == GoingAway(7, "so long")


def test_the_answer_to_a_link_does_not_end() -> None:
    for kind, flags in ((BYTES_RESPONSE, EOS), (ERROR_RESPONSE, 2), (TEXT_OUTPUT, 0)):
        client = linked().client.reactor
        data = encode_frame(1, 2, 0, kind, flags, b"goaway 1 x\n")
        assert failure(client.receive(data)).code is Code.MALFORMED_CONTROL


@pytest.mark.parametrize("flags", [0, 3])
def test_a_refusal_has_flags(flags: int) -> None:
    client = ClientReactor()
    list(client.open_link())
    data = encode_frame(1, 2, STREAM_BEGIN, ERROR_RESPONSE, flags, b"no")
    assert failure(client.receive(data)).code in (Code.MISSING_FLAGS, Code.EXCLUSIVE_FLAGS)


@pytest.mark.parametrize(
    ("kind", "flags", "payload"),
    [
        (BYTES_RESPONSE, EOS, b"other"),
        (BYTES_RESPONSE, EOS, b""),
        (BYTES_RESPONSE, CONTINUATION, b"p"),
        (ERROR_RESPONSE, 2, b"p"),
        (TEXT_OUTPUT, 0, b""),
    ],
)
def test_a_ping_is_answered_with_its_word(kind: int, flags: int, payload: bytes) -> None:
    client = linked().client.reactor
    list(client.ping(b"p"))
    data = encode_frame(3, 2, 0, kind, flags, payload)
    assert failure(client.receive(data)).code is Code.MALFORMED_CONTROL


def test_other_commands_are_answered_with_nothing() -> None:
    client = linked().client.reactor
    list(client.goaway())
    assert failure(client.receive(line(b"x", 3, EOS))).code is Code.MALFORMED_CONTROL


def test_pings_that_a_client_cannot_answer_are_limited() -> None:
    client = linked(ClientReactor(limits=Limits(control=32))).client.reactor
    answers = [client.receive(line(b"ping p\n")) for _ in range(32)]
    assert client.error is None
    error = failure(client.receive(line(b"ping p\nping p\n")))
    assert isinstance(error, FrameLimitError)
    assert (error.limit, error.allowed) == ("control", 32)
    assert len(answers) == 32
    assert len(client._link.requests) == 33


def test_lines_of_a_server_are_bounded_while_nothing_can_be_sent() -> None:
    pair = linked()
    server = pair.server.reactor
    for number in range(1000):
        if number < MOST:
            server.ping(b"p")
        else:
            with pytest.raises(FrameUsageError):
                server.ping(b"p")
        server.goaway(str(number))
    assert len(frames_in(pair.server.send())) == MOST + 1
