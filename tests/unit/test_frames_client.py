"""The client of the frame protocol: ids, requests, and what may come back."""

from __future__ import annotations

import io
from typing import Any

import pytest

from support.frames import Pair, frames_in
from txqmp.frames import (
    ENCODINGS,
    Action,
    ClientReactor,
    Code,
    Failed,
    Frame,
    FrameLimitError,
    FrameUsageError,
    Limits,
    OutputStream,
    RequestCancelled,
    RequestFailed,
    RequestIds,
    RequestLost,
    Response,
    ResponseData,
    RunCommand,
    Scheduler,
    SendFrames,
    ServerReactor,
    StreamEncoded,
    TextAtom,
    TextOutput,
    encode_frame,
    encode_text,
    format_frame,
    parse_frame,
)
from txqmp.frames.codec import (
    APPLICATION_ERROR,
    BYTES_RESPONSE,
    CONTINUATION,
    EOS,
    ERROR_RESPONSE,
    STREAM_BEGIN,
    STREAM_SETTINGS,
    TEXT_OUTPUT,
)


def asking(*, whole: bool = True, **options: Any) -> ClientReactor:
    """A client that waits for the answer to request 1."""
    client = ClientReactor(**options)
    request_id, request = client.request("c", whole=whole)
    assert request_id == 1
    assert len(list(request)) == 1
    return client


def take(client: ClientReactor, *frames: str | Frame) -> list[Action]:
    """Give frames to a client; return what it says to the last."""
    actions: list[Action] = []
    for frame in frames:
        assert client.error is None
        actions = client.receive_frame(parse_frame(frame) if isinstance(frame, str) else frame)
    return actions


def failure(actions: list[Action]) -> Any:
    """The error that is all there is."""
    (failed,) = actions
    assert isinstance(failed, Failed)
    assert failed.farewell == b""
    return failed.error


def refused(*frames: str | Frame, client: ClientReactor | None = None) -> Code:
    """Why a client refuses the last of some frames."""
    client = client or asking()
    error = failure(take(client, *frames))
    assert client.error is error
    code: Code = error.code
    return code


def limit_of(actions: list[Action]) -> tuple[str, float]:
    error = failure(actions)
    assert isinstance(error, FrameLimitError)
    return error.limit, error.allowed


def said(request: SendFrames) -> list[str]:
    """The frames of a request, as people write them."""
    return [format_frame(frame) for frame in frames_in(b"".join(request))]


OK = "1 2 stream-begin bytes-response eos ok"


# Ids


def test_ids_are_odd_and_begin_at_1() -> None:
    client = ClientReactor()
    assert [client.request("c")[0] for _ in range(4)] == [1, 3, 5, 7]
    assert client.active == {1, 3, 5, 7}


def test_ids_wrap_and_skip_those_that_are_in_use() -> None:
    client = ClientReactor()
    kept, _ = client.request("kept")
    for expected in range(3, 65_536, 2):
        request_id, _ = client.request("c")
        assert request_id == expected
        client.cancel(request_id)
    assert kept == 1
    assert [client.request("c")[0] for _ in range(2)] == [3, 5]


def test_when_all_ids_are_in_use_there_is_no_request() -> None:
    client = ClientReactor(limits=Limits(active=40_000))
    ids = {client.request("c")[0] for _ in range(32_768)}
    assert ids == set(range(1, 65_536, 2))
    for _ in range(2):
        with pytest.raises(FrameUsageError, match="all request ids"):
            client.request("c")
    client.cancel(4001)
    assert client.request("c")[0] == 4001


@pytest.mark.parametrize(
    ("first", "ids"),
    [
        (65_533, [65_533, 65_535, 1, 3]),
        (65_535, [65_535, 1, 3]),
        (65_534, [65_534, 0, 2]),
    ],
)
def test_ids_wrap_to_the_lowest_of_their_kind_wherever_they_began(
    first: int, ids: list[int]
) -> None:
    allocator = RequestIds(first)
    assert [allocator.allocate() for _ in ids] == ids
    everything = range(65_536)
    for _ in range(2):
        with pytest.raises(FrameUsageError, match="all request ids"):
            allocator.allocate(everything)


def test_ids_may_be_in_use_in_more_than_one_place() -> None:
    ids = RequestIds(0)
    assert [ids.allocate({0, 4}, {2}) for _ in range(2)] == [6, 8]
    assert ids.allocate() == 10


# Requests


def test_a_request_without_more_is_one_frame() -> None:
    _, request = ClientReactor().request("customreadonly")
    assert b"".join(request) == bytes.fromhex("0e00000100010111") + b"customreadonly"


def test_arguments_are_sorted_and_data_follow() -> None:
    client = ClientReactor()
    _, request = client.request(b"run", {"foo": b"1", b"bar": b"22"}, b"data")
    assert said(request) == [
        "1 1 stream-begin command-name have-args|have-data run",
        r"1 1 0 command-argument 0 \x03\x00\x02\x00bar22",
        r"1 1 0 command-argument eoa \x03\x00\x01\x00foo1",
        "1 1 0 command-data eos data",
    ]
    assert said(client.request("run", {})[1]) == ["3 1 0 command-name eos run"]


def test_no_data_are_announced_only_where_they_are_given() -> None:
    client = ClientReactor()
    assert said(client.request("run", data=b"")[1]) == [
        "1 1 stream-begin command-name have-data run",
        "1 1 0 command-data eos ",
    ]


@pytest.mark.parametrize("size", [0, 1, 32_767, 32_768, 32_769, 65_536])
def test_data_may_be_in_a_file(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    frames = [
        frames_in(b"".join(ClientReactor().request("run", data=each)[1]))
        for each in (data, io.BytesIO(data))
    ]
    assert frames[0] == frames[1]
    assert b"".join(frame.payload for frame in frames[0][1:]) == data
    assert len(frames[0][-1].payload) < 32_768


def test_a_request_may_have_a_stream_of_its_own_by_id_or_itself() -> None:
    client = ClientReactor()
    stream = client.open_stream("zlib")
    assert stream.id == 1
    assert said(client.request("c", stream=5)[1]) == ["1 5 stream-begin command-name eos c"]
    again = client.request("c", stream=client.open_stream())[1]
    assert said(again) == ["3 7 stream-begin command-name eos c"]
    secret = client.request("c", data=b"secret", stream=stream, plain=True)[1]
    assert b"secret" in b"".join(secret)
    with pytest.raises(FrameUsageError, match="odd"):
        client.request("c", stream=2)


@pytest.mark.parametrize(
    "wrong",
    [("",), ("ö",), ("c", {"ö": b""}), ("c", {"a": bytes(65_536)}), ("x" * 32_769,)],
)
def test_what_cannot_be_sent_is_refused_and_takes_no_id(wrong: Any) -> None:
    client = ClientReactor()
    with pytest.raises(FrameUsageError):
        client.request(*wrong)
    assert client.active == set()
    assert client.request("c")[0] == 1


def test_the_number_of_active_requests_is_limited() -> None:
    client = ClientReactor(limits=Limits(active=2))
    client.request("c")
    client.request("c")
    with pytest.raises(FrameUsageError, match="2 requests"):
        client.request("c")
    client.cancel(1)
    client.request("c")


@pytest.mark.parametrize("what", ["arguments", "data", "files"])
def test_so_many_requests_are_sent_in_part_that_the_server_takes_them(what: str) -> None:
    """With all of 200 sent by turns, a server that takes 64 would end the connection."""
    pair = Pair()
    options: dict[str, Any] = {"data": bytes(100_000)}
    if what == "arguments":
        options = {"arguments": {"a": b"b"}}
    for _ in range(200):
        if what == "files":
            options = {"data": io.BytesIO(bytes(50_000))}
        pair.request(**options)
    most = 0
    while pair.client.scheduler:
        pair.carry(pair.client, pair.client.send(1))
        most = max(most, len(pair.server.reactor.half_received))
    pair.unbroken()
    assert len(pair.server.take()) == 200
    # Nobody knows the size of a file before it is read: each is taken for the largest.
    assert most == (1 if what == "files" else 64)


def test_requests_that_are_sent_in_part_do_not_hold_up_others() -> None:
    client, scheduler = ClientReactor(limits=Limits(half_received=1)), Scheduler()
    for _ in range(3):
        scheduler.add(*client.request("large", data=bytes(40_000))[1].sources)
    scheduler.add(*client.request("small")[1].sources)
    order = [frame.request_id for frame in frames_in(scheduler.data_to_send(1 << 20))]
    assert order == [1, 7, 1, 1, 3, 3, 3, 5, 5, 5]


def test_a_request_that_waits_to_be_sent_can_be_cancelled() -> None:
    client, scheduler = ClientReactor(limits=Limits(half_received=1)), Scheduler()
    for _ in range(3):
        scheduler.add(*client.request("c", data=bytes(40_000))[1].sources)
    scheduler.data_to_send(1)
    scheduler.data_to_send(1)
    assert client.cancel(3) == [RequestCancelled(3, may_have_run=False)]
    order = [frame.request_id for frame in frames_in(scheduler.data_to_send(1 << 20))]
    assert order == [1, 5, 5, 5]


# Responses


def test_a_response_is_given_whole() -> None:
    client = asking()
    assert take(client, "1 2 stream-begin bytes-response continuation o") == []
    assert take(client, "1 2 0 bytes-response eos k") == [Response(1, b"ok")]
    assert client.active == set()


def test_a_response_is_given_as_it_comes() -> None:
    client = asking(whole=False)
    first = take(client, "1 2 stream-begin bytes-response continuation o")
    assert first == [ResponseData(1, b"o", last=False)]
    assert take(client, "1 2 0 bytes-response eos k") == [ResponseData(1, b"k", last=True)]
    assert client.active == set()
    assert client.consumed(1, 2) == []


def test_responses_come_in_any_order_and_by_turns() -> None:
    client = asking()
    list(client.request("c")[1])
    came = [
        take(client, "3 2 stream-begin bytes-response continuation th"),
        take(client, "1 2 0 bytes-response continuation o"),
        take(client, "3 2 0 bytes-response eos ree"),
        take(client, "1 2 0 bytes-response eos ne"),
    ]
    assert came == [[], [], [Response(3, b"three")], [Response(1, b"one")]]


def test_a_server_may_begin_its_stream_with_each_response() -> None:
    """That of r37304 does."""
    client = asking()
    list(client.request("c")[1])
    assert take(client, OK) == [Response(1, b"ok")]
    assert take(client, OK.replace("1 2", "3 2", 1)) == [Response(3, b"ok")]


def test_an_error_is_its_requests() -> None:
    client = asking()
    list(client.request("c")[1])
    error = r"1 2 stream-begin error-response application n\xc3\xb6\xff"
    assert take(client, error) == [RequestFailed(1, "nö\ufffd", may_have_run=True)]
    assert client.error is None
    assert client.active == {3}


def test_a_request_that_was_refused_has_not_run() -> None:
    error = "1 2 stream-begin error-response application refused: not run"
    assert take(asking(), error) == [RequestFailed(1, "refused: not run", may_have_run=False)]


def test_an_error_in_the_middle_of_a_response_ends_it() -> None:
    client = asking()
    take(client, "1 2 stream-begin bytes-response continuation o")
    error = "1 2 0 error-response application no"
    assert take(client, error) == [RequestFailed(1, "no", may_have_run=True)]


def test_text_comes_before_the_response_and_while_it_comes() -> None:
    client = asking()
    atoms = (TextAtom("a %s", ["l"], ["b"]),)
    text = Frame(1, 2, STREAM_BEGIN, 6, 0, encode_text(atoms))
    assert take(client, text) == [TextOutput(1, atoms)]
    take(client, "1 2 0 bytes-response continuation o")
    assert take(client, text) == [TextOutput(1, atoms)]
    assert take(client, "1 2 0 bytes-response eos k") == [Response(1, b"ok")]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_response_may_come_on_an_encoded_stream(encoding: str) -> None:
    client, stream = asking(), OutputStream(2, encoding)
    actions = client.receive(stream.frame(1, BYTES_RESPONSE, EOS, b"ok" * 100))
    assert actions == [StreamEncoded(2, encoding), Response(1, b"ok" * 100)]


# What a server must not do


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("1 1 stream-begin bytes-response eos x", Code.WRONG_STREAM_PARITY),
        ("1 2 0 bytes-response eos x", Code.STREAM_NOT_BEGUN),
        ("1 2 stream-begin|encoded bytes-response eos x", Code.ENCODED_WITHOUT_SETTINGS),
        ("3 2 stream-begin bytes-response eos x", Code.INACTIVE_REQUEST),
        ("0 2 stream-begin bytes-response eos x", Code.INACTIVE_REQUEST),
        ("3 2 stream-begin error-response application x", Code.INACTIVE_REQUEST),
        ("3 2 stream-begin text-output 0 ", Code.INACTIVE_REQUEST),
        ("3 2 stream-begin command-name eos x", Code.INACTIVE_REQUEST),
        ("1 2 stream-begin bytes-response 0 x", Code.MISSING_FLAGS),
        ("1 2 stream-begin bytes-response continuation|eos x", Code.EXCLUSIVE_FLAGS),
        ("1 2 stream-begin error-response 0 x", Code.MISSING_FLAGS),
        ("1 2 stream-begin error-response protocol|application x", Code.EXCLUSIVE_FLAGS),
        ("1 2 stream-begin error-response protocol x", Code.REPORTED_BY_PEER),
        ("0 2 stream-begin error-response protocol x", Code.REPORTED_BY_PEER),
        (r"1 2 stream-begin text-output 0 \xff", Code.MALFORMED_TEXT),
        ("1 2 stream-begin command-name eos x", Code.UNEXPECTED_FRAME_TYPE),
        ("1 2 stream-begin command-argument eoa x", Code.UNEXPECTED_FRAME_TYPE),
        ("1 2 stream-begin command-data eos x", Code.UNEXPECTED_FRAME_TYPE),
        (Frame(1, 2, STREAM_BEGIN, 0, 1, b"x"), Code.UNEXPECTED_FRAME_TYPE),
        (Frame(1, 2, STREAM_BEGIN, 7, 1, b"x"), Code.UNEXPECTED_FRAME_TYPE),
        (Frame(1, 2, STREAM_BEGIN, 15, 1, b"x"), Code.UNEXPECTED_FRAME_TYPE),
        (Frame(1, 2, STREAM_BEGIN, STREAM_SETTINGS, 0, b""), Code.MALFORMED_SETTINGS),
        (Frame(1, 2, STREAM_BEGIN, STREAM_SETTINGS, 0, b"\4gzip"), Code.UNKNOWN_ENCODING),
    ],
)
def test_a_frame_that_a_server_must_not_send(frame: str | Frame, code: Code) -> None:
    client = asking()
    assert refused(frame, client=client) is code
    assert client.active == {1}


def test_what_the_server_reports_is_in_the_error() -> None:
    frame = "0 2 stream-begin error-response protocol you did it"
    assert "you did it" in str(failure(take(asking(), frame)))
    assert len(str(failure(take(asking(), frame * 1000)))) < 1100


@pytest.mark.parametrize("kind", ["bytes-response continuation", "error-response application"])
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_request_is_answered_when_it_was_sent(frames: int, kind: str) -> None:
    client = ClientReactor()
    _, request = client.request("c", data=bytes(50_000))
    for _, _ in zip(range(frames), request, strict=False):
        pass
    assert refused(f"1 2 stream-begin {kind} x", client=client) is Code.ANSWERED_EARLY


def test_after_an_error_whatever_comes_has_the_same_answer() -> None:
    client = asking()
    error = failure(take(client, "3 2 stream-begin bytes-response eos x"))
    for actions in (client.receive_frame(parse_frame(OK)), client.receive(b"x")):
        assert failure(actions).code is Code.ALREADY_ERRORED
    assert client.error is error
    for use in (lambda: client.request("c"), client.open_link):
        with pytest.raises(FrameUsageError, match="failed"):
            use()
    assert client.cancel(1) == []
    assert client.end_of_input() == [RequestCancelled(1, may_have_run=True)]


# Limits


def test_the_size_of_a_response_that_is_given_whole_is_limited() -> None:
    client = asking(limits=Limits(message=4))
    take(client, "1 2 stream-begin bytes-response continuation 1234")
    assert limit_of(take(client, "1 2 0 bytes-response continuation 5")) == ("message", 4)
    fine = asking(limits=Limits(message=4))
    assert take(fine, "1 2 stream-begin bytes-response eos 1234") == [Response(1, b"1234")]


def test_a_response_in_pieces_may_go_on_for_ever() -> None:
    client = asking(whole=False, limits=Limits(message=10, message_frames=2, empty_frames=1))
    take(client, "1 2 stream-begin bytes-response continuation 0123456789")
    for _ in range(100):
        (data,) = take(client, "1 2 0 bytes-response continuation 0123456789")
        assert data == ResponseData(1, b"0123456789", last=False)
        assert len(take(client, "1 2 0 text-output 0 ")) == 1
    take(client, "1 2 0 bytes-response continuation x")
    take(client, "1 2 0 bytes-response continuation ")
    assert limit_of(take(client, "1 2 0 text-output 0 ")) == ("empty_frames", 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("whole", [True, False])
def test_what_a_response_decodes_to_is_limited(encoding: str, whole: bool) -> None:
    limits = Limits(message=1000, decoded_frame=2000)
    client, stream = asking(whole=whole, limits=limits), OutputStream(2, encoding)
    client.receive(stream.frame(1, BYTES_RESPONSE, CONTINUATION, bytes(999)))
    actions = client.receive(stream.frame(1, BYTES_RESPONSE, CONTINUATION, bytes(2)))
    if whole:
        assert limit_of(actions)[0] == "message"
        return
    assert actions == [ResponseData(1, bytes(2), last=False)]
    assert client.receive(stream.frame(1, BYTES_RESPONSE, CONTINUATION, bytes(1000))) == [
        ResponseData(1, bytes(1000), last=False)
    ]
    big = client.receive(stream.frame(1, BYTES_RESPONSE, EOS, bytes(1001)))
    assert limit_of(big)[0] == "message"


def test_a_decoded_frame_is_limited() -> None:
    client, stream = asking(limits=Limits(decoded_frame=100)), OutputStream(2, "zlib")
    client.receive(stream.frame(1, BYTES_RESPONSE, CONTINUATION, bytes(100)))
    assert client.error is None
    actions = client.receive(stream.frame(1, BYTES_RESPONSE, EOS, bytes(101)))
    assert limit_of(actions)[0] == "decoded_frame"


def test_the_number_of_frames_of_a_response_is_limited() -> None:
    client = asking(limits=Limits(message_frames=2))
    take(client, "1 2 stream-begin bytes-response continuation 1")
    take(client, "1 2 0 text-output 0 ", "1 2 0 bytes-response continuation 1")
    assert limit_of(take(client, "1 2 0 bytes-response eos 1")) == ("message_frames", 2)


@pytest.mark.parametrize("whole", [True, False])
def test_texts_are_no_frames_of_the_response(whole: bool) -> None:
    """A job may tell of its progress as often as it likes."""
    client = asking(whole=whole, limits=Limits(message_frames=2, message=3, empty_frames=1))
    text = parse_frame("1 2 0 text-output 0 ")._replace(payload=encode_text([TextAtom("half")]))
    take(client, text._replace(stream_flags=STREAM_BEGIN))
    for _ in range(20):
        assert take(client, text) == [TextOutput(1, (TextAtom("half"),))]
    take(client, "1 2 0 bytes-response continuation ab")
    for _ in range(20):
        assert take(client, text) == [TextOutput(1, (TextAtom("half"),))]
    last = Response(1, b"abc") if whole else ResponseData(1, b"c", last=True)
    assert take(client, "1 2 0 bytes-response eos c") == [last]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("error", [True, False])
def test_a_text_or_an_error_has_the_room_of_a_message_of_its_own(
    encoding: str, error: bool
) -> None:
    client, stream = asking(limits=Limits(message=100)), OutputStream(2, encoding)
    client.receive(stream.frame(1, BYTES_RESPONSE, CONTINUATION, bytes(99)))
    if error:
        actions = client.receive(stream.frame(1, ERROR_RESPONSE, APPLICATION_ERROR, b"x" * 100))
        assert actions == [RequestFailed(1, "x" * 100)]
        return
    atoms = (TextAtom("x" * 96),)
    (text,) = client.receive(stream.frame(1, TEXT_OUTPUT, 0, encode_text(atoms)))
    assert text == TextOutput(1, atoms)
    atoms = (TextAtom("x" * 97),)
    actions = client.receive(stream.frame(1, TEXT_OUTPUT, 0, encode_text(atoms)))
    assert limit_of(actions) == ("message", 100)


# All responses together


def half_answered(*request_ids: int, most: int, **options: Any) -> ClientReactor:
    """A client that has 4 bytes of each answer."""
    client = ClientReactor(limits=Limits(response_bytes=most))
    client.stream(1)
    for request_id in request_ids:
        assert client.request("c", **options)[0] == request_id
    for request in client._requests.values():
        list(request.source)
    for request_id in request_ids:
        frame = f"{request_id} 2 stream-begin bytes-response continuation 1234"
        assert client.error is None
        client.receive_frame(parse_frame(frame))
    return client


def test_the_size_of_all_responses_that_are_given_whole_is_limited() -> None:
    client = half_answered(1, 3, most=8)
    assert client.error is None
    assert client._held == 8
    assert take(client, "3 2 0 bytes-response continuation ") == []
    error = failure(take(client, "3 2 0 bytes-response continuation 5"))
    assert isinstance(error, FrameLimitError)
    assert (error.limit, error.allowed, error.request_id) == ("response_bytes", 8, 3)
    assert str(error) == "9 bytes of responses that are not whole (response_bytes: 8)"


def test_the_last_piece_of_a_response_counts_too() -> None:
    client = half_answered(1, 3, most=9)
    assert take(client, "1 2 0 bytes-response eos 5") == [Response(1, b"12345")]
    assert client._held == 4
    actions = take(client, "3 2 0 bytes-response eos 567890")
    assert limit_of(actions) == ("response_bytes", 9)


def test_a_response_of_one_frame_is_not_held() -> None:
    client = half_answered(1, most=4)
    request_id, request = client.request("c")
    list(request)
    answer = f"{request_id} 2 0 bytes-response eos 123456789"
    assert take(client, answer) == [Response(request_id, b"123456789")]
    assert client._held == 4


@pytest.mark.parametrize("how", ["answered", "failed", "cancelled", "ended"])
def test_responses_that_are_over_are_not_held(how: str) -> None:
    client = half_answered(1, 3, most=9)
    if how == "answered":
        take(client, "1 2 0 bytes-response eos 5")
    elif how == "failed":
        take(client, "1 2 0 error-response application no")
    elif how == "cancelled":
        client.cancel(1)
        assert client._held == 4
        take(client, "1 2 0 bytes-response continuation 123456789")
        assert client._held == 4
        take(client, "1 2 0 bytes-response eos ")
    else:
        client.end_of_input()
        assert client._held == 0
        return
    assert client._held == 4
    assert take(client, "3 2 0 bytes-response eos 56789") == [Response(3, b"123456789")]
    assert client._held == 0


def test_responses_in_pieces_are_not_held() -> None:
    client = half_answered(1, 3, most=4, whole=False)
    assert client.error is None
    assert client._held == 0
    take(client, "1 2 0 bytes-response eos 123456789")
    assert client._held == 0


def test_empty_frames_in_a_row_are_limited() -> None:
    client = asking(limits=Limits(empty_frames=2))
    empty = "1 2 stream-begin bytes-response continuation "
    take(client, empty, empty)
    assert limit_of(take(client, empty)) == ("empty_frames", 2)


def test_the_size_of_a_frame_is_limited_by_its_header() -> None:
    client = asking(limits=Limits(receive_frame=2))
    header = encode_frame(1, 2, STREAM_BEGIN, BYTES_RESPONSE, EOS, b"123")[:8]
    assert limit_of(client.receive(header)) == ("receive_frame", 2)


# Cancel, without a link


def test_a_request_that_was_not_begun_is_over_at_once() -> None:
    client = ClientReactor()
    request_id, request = client.request("c", data=b"x")
    assert client.cancel(request_id) == [RequestCancelled(1, may_have_run=False)]
    assert list(request) == []
    assert client.active == set()
    with pytest.raises(FrameUsageError, match="not active"):
        client.cancel(request_id)


@pytest.mark.parametrize(
    "answer",
    [
        "1 2 stream-begin bytes-response eos ok",
        "1 2 stream-begin error-response application no",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_the_answer_to_a_cancelled_request_is_swallowed(answer: str, whole: bool) -> None:
    client = asking(whole=whole)
    take(client, "1 2 stream-begin bytes-response continuation x")
    assert client.cancel(1) == []
    with pytest.raises(FrameUsageError, match="not active"):
        client.cancel(1)
    assert client.active == {1}
    assert take(client, "1 2 0 bytes-response continuation x") == []
    assert take(client, "1 2 0 text-output 0 ") == []
    assert take(client, answer) == [RequestCancelled(1, may_have_run=True)]
    assert client.active == set()


def test_a_cancelled_response_is_not_held() -> None:
    client = asking()
    take(client, "1 2 stream-begin bytes-response continuation 123")
    (request,) = client._requests.values()
    assert request.assembler is not None
    assert request.assembler.message() == b"123"
    client.cancel(1)
    take(client, "1 2 0 bytes-response continuation 456")
    assert request.assembler is not None
    assert request.assembler.message() == b""


def test_a_cancelled_response_has_no_limits_but_those_of_frames() -> None:
    client = asking(limits=Limits(message=4, message_frames=2, empty_frames=1))
    take(client, "1 2 stream-begin bytes-response continuation 123")
    client.cancel(1)
    for _ in range(10):
        assert take(client, "1 2 0 bytes-response continuation 123456789") == []
    empty = "1 2 0 bytes-response continuation "
    take(client, empty)
    assert limit_of(take(client, empty)) == ("empty_frames", 1)


def test_a_request_that_is_half_sent_is_sent_all_the_same() -> None:
    """A server without a link would wait for the rest, and take its id for one in use."""
    pair = Pair()
    pair.request(data=bytes(100_000))
    pair.carry(pair.client, pair.client.send(1))
    pair.cancel(1)
    pair.run()
    assert pair.server.take() == [RunCommand(1, b"c", {}, bytes(100_000))]
    pair.server.do([pair.server.reactor.respond(1, b"ok")])
    pair.run()
    assert pair.client.take() == [RequestCancelled(1, may_have_run=True)]


@pytest.mark.parametrize("request_id", [0, 2, 3, -1])
def test_what_is_not_active_is_not_cancelled(request_id: int) -> None:
    with pytest.raises(FrameUsageError, match="not active"):
        asking().cancel(request_id)


# The end of the input


def test_what_has_no_answer_at_the_end_is_lost() -> None:
    client = asking()
    requests = [client.request("c", data=bytes(40_000))[1] for _ in range(4)]
    list(requests[0])
    next(iter(requests[1]))
    next(iter(requests[2]))
    client.cancel(1)
    client.cancel(7)
    assert client.end_of_input() == [
        RequestCancelled(1, may_have_run=True),
        RequestLost(3, may_have_run=True),
        RequestLost(5, may_have_run=False),  # nobody runs the half of a request
        RequestCancelled(7, may_have_run=False),
        RequestLost(9, may_have_run=False),
    ]
    assert client.active == set()
    assert [list(request) for request in requests] == [[], [], [], []]
    assert client.end_of_input() == []


def test_a_response_that_came_in_part_is_lost() -> None:
    client = asking()
    take(client, "1 2 stream-begin bytes-response continuation x")
    assert client.end_of_input() == [RequestLost(1, may_have_run=True)]


def test_a_frame_that_is_cut_short_is_reported_before() -> None:
    client = asking()
    client.receive(b"\2" + bytes(8))
    failed, lost = client.end_of_input()
    assert failure([failed]).code is Code.INCOMPLETE_PAYLOAD
    assert lost == RequestLost(1)


def test_the_end_after_an_error_is_only_the_end() -> None:
    client = asking()
    client.receive(b"\2" + bytes(8))
    client.receive(b"x" * 100)
    assert client.error is not None
    assert client.end_of_input() == [RequestLost(1)]


def test_nothing_follows_the_end() -> None:
    client = asking()
    client.end_of_input()
    assert client.receive(b"") == []
    with pytest.raises(FrameUsageError, match="ended"):
        client.request("c")
    assert client.consumed(1, 10) == []
    assert failure(client.receive(b"x")).code is Code.AFTER_END_OF_INPUT
    assert failure(client.receive_frame(parse_frame(OK))).code is Code.ALREADY_ERRORED
    with pytest.raises(FrameUsageError, match="failed"):
        client.request("c")


# A file that cannot be read


class Broken(io.BytesIO):
    """A file that fails after some reads."""

    def __init__(self, reads: int) -> None:
        super().__init__(bytes(1 << 20))
        self.reads = reads

    def read(self, size: int | None = -1) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise OSError("no such luck")
        return super().read(size)


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_file_that_cannot_be_read_costs_its_request_only(reads: int) -> None:
    pair = Pair()
    pair.request("before")
    pair.request("broken", data=Broken(reads))
    pair.request("after")
    with pytest.raises(OSError, match="no such luck"):
        pair.client.send()
    pair.run()
    assert [action.name for action in pair.server.take() if isinstance(action, RunCommand)] == [
        b"before",
        b"after",
    ]
    pair.unbroken()
    # Without a link the server waits for the rest, if something was sent.
    assert pair.server.reactor.half_received == (set() if reads == 0 else {3})
    assert pair.client.reactor.active == {1, 3, 5}
    if not reads:
        assert pair.client.reactor.cancel(3) == [RequestCancelled(3, may_have_run=False)]
        return
    assert RequestLost(3, may_have_run=False) in pair.client.reactor.end_of_input()


# Peers at r37304


def test_a_client_without_a_link_is_one_of_r37304() -> None:
    client, server = ClientReactor(), ServerReactor()
    _, first = client.request("command1", {"foo": b"bar"})
    _, second = client.request("command2", data=b"x" * 32_768)
    wire = b"".join(first) + b"".join(second)
    assert wire == b"".join(
        (
            bytes.fromhex("0800000100010112") + b"command1",
            bytes.fromhex("0a00000100010022 0300 0300") + b"foobar",
            bytes.fromhex("0800000300010014") + b"command2",
            bytes.fromhex("0080000300010031") + b"x" * 32_768,
            bytes.fromhex("0000000300010032"),
        )
    )
    runs = server.receive(wire)
    assert [type(run) for run in runs] == [RunCommand, RunCommand]
    answers = [server.respond(1, b"one"), server.respond_error(3, "two")]
    wire = b"".join(b"".join(answer) for answer in answers if isinstance(answer, SendFrames))
    assert wire == b"".join(
        (
            bytes.fromhex("0300000100020142") + b"one",
            bytes.fromhex("0300000300020052") + b"two",
        )
    )
    assert client.receive(wire) == [Response(1, b"one"), RequestFailed(3, "two")]
