"""The server of the frame protocol: each check that it makes, and each answer that it gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from support.frames import frames_in
from txqmp.frames import (
    ENCODINGS,
    Action,
    Code,
    Failed,
    Frame,
    FrameLimitError,
    FrameUsageError,
    Limits,
    Nothing,
    OutputStream,
    ResponseWriter,
    RunCommand,
    Scheduler,
    SendFrames,
    ServerReactor,
    StreamEncoded,
    TextAtom,
    WantFrame,
    command_parts,
    decode_text,
    encode_frame,
    format_frame,
    parse_frame,
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


RECEIVING = [WantFrame("command-receiving")]

#: A request that is active, and one that is half received.
ACTIVE = "1 1 stream-begin command-name eos run"
HALF = "1 1 stream-begin command-name have-args|have-data run"
ARGUMENT = r"1 1 0 command-argument 0 \x01\x00\x02\x00aok"
LAST_ARGUMENT = r"1 1 0 command-argument eoa \x01\x00\x02\x00bok"


def take(server: ServerReactor, *frames: str | Frame) -> list[Action]:
    """Give frames to a server; return what it says to the last."""
    actions: list[Action] = []
    for frame in frames:
        assert server.error is None
        actions = server.receive_frame(parse_frame(frame) if isinstance(frame, str) else frame)
    return actions


def failure(actions: list[Action]) -> Any:
    """The error that is all there is."""
    (failed,) = actions
    assert isinstance(failed, Failed)
    return failed.error


def refused(*frames: str | Frame, server: ServerReactor | None = None) -> Code:
    """Why a server refuses the last of some frames."""
    server = server or ServerReactor()
    error = failure(take(server, *frames))
    assert server.error is error
    code: Code = error.code
    return code


def sent(action: SendFrames | Nothing) -> list[str]:
    """The frames of an action, as people write them."""
    assert isinstance(action, SendFrames)
    return [format_frame(frame) for frame in frames_in(b"".join(action))]


def begun(*request_ids: int, **options: Any) -> ServerReactor:
    """A server for which requests are active."""
    server = ServerReactor(**options)
    for request_id in request_ids:
        run = take(server, f"{request_id} 1 stream-begin command-name eos run")
        assert run == [RunCommand(request_id, b"run", {}, None)]
    return server


def whole(request_id: int, *parts: Any, begin: bool = True) -> bytes:
    """The frames of a request's parts."""
    return b"".join(
        encode_frame(request_id, 1, STREAM_BEGIN if begin and not number else 0, *part)
        for number, part in enumerate(parts)
    )


# Each check, in the order in which they are made


@pytest.mark.parametrize("stream", [0, 2, 254])
def test_an_even_stream_is_the_servers_own(stream: int) -> None:
    assert refused(f"1 {stream} stream-begin command-name eos c") is Code.WRONG_STREAM_PARITY


@pytest.mark.parametrize("stream", [1, 3, 255])
def test_a_stream_begins_with_its_flag(stream: int) -> None:
    assert refused(f"1 {stream} 0 command-name eos c") is Code.STREAM_NOT_BEGUN
    assert refused(ACTIVE, "3 5 0 command-name eos c") is Code.STREAM_NOT_BEGUN


def test_an_encoded_frame_needs_a_server_that_takes_encodings_and_a_stream_that_has_one() -> None:
    frame = "1 1 stream-begin|encoded command-name eos c"
    assert refused(frame) is Code.ENCODING_NOT_ENABLED
    server = ServerReactor(encodings=["zlib"])
    assert refused(frame, server=server) is Code.ENCODED_WITHOUT_SETTINGS


def test_a_stream_that_has_ended_must_begin_again() -> None:
    server = ServerReactor()
    first = "1 1 stream-begin|stream-end command-name eos c"
    assert take(server, first) == [RunCommand(1, b"c", {}, None)]
    again = "3 1 stream-begin command-name eos c"
    assert take(server, again) == [RunCommand(3, b"c", {}, None)]
    assert refused(first, "3 1 0 command-name eos c") is Code.STREAM_NOT_BEGUN


def test_the_last_frame_of_a_stream_is_taken_before_it_ends() -> None:
    actions = take(ServerReactor(), HALF, ARGUMENT, LAST_ARGUMENT, "1 1 stream-end 3 eos data")
    assert actions == [RunCommand(1, b"run", {b"a": b"ok", b"b": b"ok"}, b"data")]


@pytest.mark.parametrize(
    "later", [ACTIVE, "1 2 stream-begin command-name eos c", "1 9 0 command-data eos "]
)
def test_after_an_error_whatever_comes_has_the_same_answer(later: str) -> None:
    server = ServerReactor()
    first = failure(take(server, "1 1 stream-begin command-argument 0 "))
    for data in (
        server.receive_frame(parse_frame(later)),
        server.receive(b"x"),
        server.receive(b""),
    ):
        (failed,) = data
        assert isinstance(failed, Failed)
        assert failed.error.code is Code.ALREADY_ERRORED
        assert str(first) in str(failed.error)
        assert failed.farewell == b""
    assert server.error is first


@pytest.mark.parametrize("kind", [0, *range(2, 16)])
def test_when_nothing_is_half_received_a_frame_begins_a_request(kind: int) -> None:
    frame = Frame(1, 1, STREAM_BEGIN, kind, 1, b"")
    assert refused(frame) is Code.EXPECTED_COMMAND
    assert refused(ACTIVE, frame) is Code.EXPECTED_COMMAND


def test_an_id_is_used_once_at_a_time() -> None:
    again = "1 1 0 command-name eos c"
    assert refused(HALF, again) is Code.ALREADY_RECEIVING
    assert refused(ACTIVE, again) is Code.ALREADY_ACTIVE


@pytest.mark.parametrize("name", ["eos", "have-args", "have-data"])
def test_a_clients_requests_have_odd_ids(name: str) -> None:
    for request_id in (0, 2, 65_534):
        frame = f"{request_id} 1 stream-begin command-name {name} c"
        assert refused(frame) is Code.WRONG_REQUEST_PARITY


def test_a_request_that_is_only_a_name_is_run() -> None:
    actions = take(ServerReactor(), "65535 1 stream-begin command-name eos run")
    assert actions == [RunCommand(65_535, b"run", {}, None)]


@pytest.mark.parametrize("flags", ["have-args", "have-data", "have-args|have-data"])
def test_a_request_that_is_more_than_a_name_is_waited_for(flags: str) -> None:
    server = ServerReactor()
    assert take(server, f"1 1 stream-begin command-name {flags} run") == RECEIVING
    assert (server.half_received, server.active) == ({1}, set())


def test_a_name_says_what_follows_and_only_what_can() -> None:
    assert refused("1 1 stream-begin command-name 0 c") is Code.MISSING_FLAGS
    assert refused("1 1 stream-begin command-name 8 c") is Code.MISSING_FLAGS
    for flags in ("eos|have-args", "eos|have-data", "eos|have-args|have-data"):
        assert refused(f"1 1 stream-begin command-name {flags} c") is Code.EXCLUSIVE_FLAGS


def test_a_request_has_a_name() -> None:
    for flags in ("eos", "have-args", "0"):
        assert refused(f"1 1 stream-begin command-name {flags} ") is Code.EMPTY_COMMAND


@pytest.mark.parametrize("kind", ["command-argument", "command-data", "bytes-response"])
def test_a_frame_that_is_no_name_belongs_to_a_half_received_request(kind: str) -> None:
    half = "3 1 0 command-name have-data c"
    assert refused(ACTIVE, half, f"1 1 0 {kind} 1 x") is Code.STILL_ACTIVE
    assert refused(ACTIVE, half, f"5 1 0 {kind} 1 x") is Code.NOT_RECEIVING


def test_arguments_come_where_they_were_announced() -> None:
    data_only = "1 1 stream-begin command-name have-data c"
    assert refused(data_only, ARGUMENT) is Code.ARGUMENTS_NOT_EXPECTED
    assert refused(HALF, LAST_ARGUMENT, ARGUMENT) is Code.ARGUMENT_AFTER_END


@pytest.mark.parametrize(
    "payload",
    [
        "",
        r"\x01",
        r"\x01\x00\x02",
        r"\x02\x00\x02\x00a",  # the name runs past the frame
        r"\x01\x00\x02\x00ao",  # the value is short
        r"\x01\x00\x02\x00aoks",  # … and long
        r"\xff\xff\xff\xffa",
    ],
)
def test_a_malformed_argument_is_an_error(payload: str) -> None:
    assert refused(HALF, f"1 1 0 command-argument 0 {payload}") is Code.MALFORMED_ARGUMENT
    assert refused(HALF, f"1 1 0 command-argument eoa {payload}") is Code.MALFORMED_ARGUMENT


def test_a_value_may_continue() -> None:
    actions = take(
        ServerReactor(),
        "1 1 stream-begin command-name have-args run",
        r"1 1 0 command-argument continuation \x01\x00\x06\x00aon",
        "1 1 0 command-argument continuation etw",
        "1 1 0 command-argument 0 o",
        LAST_ARGUMENT,
    )
    assert actions == [RunCommand(1, b"run", {b"a": b"onetwo", b"b": b"ok"}, None)]


def test_a_value_that_continues_is_not_the_last_and_ends_where_it_said() -> None:
    first = r"1 1 0 command-argument continuation \x01\x00\x03\x00aon"
    both = r"1 1 0 command-argument continuation|eoa \x01\x00\x03\x00aon"
    assert refused(HALF, both) is Code.EXCLUSIVE_FLAGS
    assert refused(HALF, first, "1 1 0 command-argument 0 eo") is Code.MALFORMED_ARGUMENT
    assert refused(HALF, first, "1 1 0 command-argument eoa ") is Code.MALFORMED_ARGUMENT
    too_long = r"1 1 0 command-argument continuation \x01\x00\x01\x00aon"
    assert refused(HALF, too_long) is Code.MALFORMED_ARGUMENT


def test_the_last_argument_ends_a_request_without_data() -> None:
    half = "1 1 stream-begin command-name have-args run"
    server = ServerReactor()
    assert take(server, half, ARGUMENT) == RECEIVING
    run = [RunCommand(1, b"run", {b"a": b"ok", b"b": b"ok"}, None)]
    assert take(server, LAST_ARGUMENT) == run
    assert (server.half_received, server.active) == (set(), {1})


def test_data_follow_the_last_argument_where_both_were_announced() -> None:
    server = ServerReactor()
    assert take(server, HALF, LAST_ARGUMENT) == RECEIVING
    assert take(server, "1 1 0 command-data continuation on") == RECEIVING
    run = [RunCommand(1, b"run", {b"b": b"ok"}, b"one")]
    assert take(server, "1 1 0 command-data eos e") == run
    assert refused(HALF, "1 1 0 command-data eos x") is Code.DATA_BEFORE_END_OF_ARGUMENTS


def test_data_come_where_they_were_announced() -> None:
    half = "1 1 stream-begin command-name have-args c"
    assert refused(half, "1 1 0 command-data eos x") is Code.DATA_NOT_EXPECTED


def test_no_data_are_not_the_same_as_none() -> None:
    half = "1 1 stream-begin command-name have-data run"
    assert take(ServerReactor(), half, "1 1 0 3 eos ") == [RunCommand(1, b"run", {}, b"")]
    assert take(ServerReactor(), ACTIVE) == [RunCommand(1, b"run", {}, None)]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("0", Code.MISSING_FLAGS),
        ("4", Code.MISSING_FLAGS),
        ("continuation|eos", Code.EXCLUSIVE_FLAGS),
    ],
)
def test_data_either_continue_or_end(flags: str, code: Code) -> None:
    half = "1 1 stream-begin command-name have-data c"
    assert refused(half, f"1 1 0 command-data {flags} x") is code


@pytest.mark.parametrize("kind", [0, *range(4, 16)])
def test_a_request_consists_of_what_a_client_sends(kind: int) -> None:
    assert refused(HALF, Frame(1, 1, 0, kind, 1, b"x")) is Code.UNEXPECTED_FRAME_TYPE


def test_an_argument_comes_once() -> None:
    again = r"1 1 0 command-argument eoa \x01\x00\x05\x00aother"
    assert refused(HALF, ARGUMENT, again) is Code.DUPLICATE_ARGUMENT


def test_the_error_for_an_argument_that_comes_twice_is_short() -> None:
    large = r"1 1 0 command-argument 0 \x00\x40\x00\x00" + 0x4000 * "n"
    assert len(str(failure(take(ServerReactor(), HALF, large, large)))) < 200


def test_requests_may_take_turns_and_streams_too() -> None:
    server = ServerReactor()
    take(
        server,
        "1 1 stream-begin command-name have-data one",
        "3 3 stream-begin command-name have-data two",
        "1 3 0 command-data continuation 1",
        "3 1 0 command-data continuation 2",
    )
    assert server.half_received == {1, 3}
    assert take(server, "3 1 0 command-data eos 2") == [RunCommand(3, b"two", {}, b"22")]
    assert take(server, "1 1 0 command-data eos 1") == [RunCommand(1, b"one", {}, b"11")]


def test_ids_may_come_in_any_order_and_again_when_they_are_answered() -> None:
    server = begun(7, 3, 5)
    sent(server.respond(3, b""))
    assert take(server, "3 1 0 command-name eos run") == [RunCommand(3, b"run", {}, None)]


def test_an_unknown_frame_flag_and_stream_flag_mean_nothing() -> None:
    frame = Frame(1, 1, STREAM_BEGIN | 0xF8, COMMAND_NAME, NAME_EOS | 8, b"run")
    assert take(ServerReactor(), frame) == [RunCommand(1, b"run", {}, None)]


def test_a_value_of_any_size_arrives() -> None:
    """At r37304 one above some 32 KiB made a frame that the reader took for another length."""
    for size in (0, 1, 32_763, 32_764, 65_535):
        parts = command_parts("run", {"a": b"x" * size})
        actions = ServerReactor().receive(whole(1, *parts))
        assert actions == [RunCommand(1, b"run", {b"a": b"x" * size}, None)]


def test_a_stream_may_have_an_encoding_that_the_server_takes() -> None:
    stream = OutputStream(1, "zlib")
    data = b"".join(stream.frame(1, *part) for part in command_parts("run", {"a": b"b"}, b"data"))
    server = ServerReactor(encodings=["zlib"])
    assert server.receive(data) == [
        StreamEncoded(1, "zlib"),
        RunCommand(1, b"run", {b"a": b"b"}, b"data"),
    ]
    assert failure(ServerReactor().receive(data)).code is Code.EXPECTED_COMMAND


# The end of the input


def test_each_request_that_came_in_part_is_reported() -> None:
    server = begun(5)
    take(server, "1 1 0 command-name have-args c", "3 1 0 command-name have-data c")
    errors = [action.error for action in server.end_of_input() if isinstance(action, Failed)]
    assert [(error.code, error.request_id) for error in errors] == [
        (Code.PARTIAL_REQUEST, 1),
        (Code.PARTIAL_REQUEST, 3),
    ]
    assert server.error is errors[0]
    assert server.half_received == set()
    assert server.end_of_input() == []


@pytest.mark.parametrize(
    ("left", "code"),
    [
        (b"\2", Code.INCOMPLETE_HEADER),
        (b"\2" + bytes(6), Code.INCOMPLETE_HEADER),
        (b"\2" + bytes(7), Code.INCOMPLETE_PAYLOAD),
        (b"\2" + bytes(8), Code.INCOMPLETE_PAYLOAD),
    ],
)
def test_a_frame_that_is_cut_short_is_reported(left: bytes, code: Code) -> None:
    server = ServerReactor()
    assert server.receive(left) == []
    assert failure(server.end_of_input()).code is code


def test_what_is_active_can_be_answered_after_the_input_has_ended() -> None:
    server = begun(1, 3)
    take(server, "5 1 0 command-name have-args c")
    server.receive(b"\0")
    codes = [action.error.code for action in server.end_of_input() if isinstance(action, Failed)]
    assert codes == [Code.INCOMPLETE_HEADER, Code.PARTIAL_REQUEST]
    assert sent(server.respond(1, b"one")) == ["1 2 stream-begin bytes-response eos one"]
    assert sent(server.respond_error(3, "no")) == ["3 2 0 error-response application no"]
    assert server.active == set()
    assert server.end_of_input() == []


def test_bytes_after_the_end_are_an_error_of_their_own() -> None:
    server = begun(1)
    assert server.end_of_input() == []
    assert server.receive(b"") == []
    assert failure(server.receive(b"x")).code is Code.AFTER_END_OF_INPUT
    assert failure(server.receive(b"x")).code is Code.ALREADY_ERRORED
    assert sent(server.respond(1, b"")) == ["1 2 stream-begin bytes-response eos "]


def test_the_end_after_an_error_adds_none() -> None:
    server = begun(1)
    take(server, "3 1 0 command-name have-args c")
    refused("1 1 0 command-data eos x", server=server)
    assert server.end_of_input() == []


# Answers


def test_a_small_response_is_one_frame() -> None:
    server = begun(1)
    assert sent(server.respond(1, b"ok")) == ["1 2 stream-begin bytes-response eos ok"]
    assert server.active == set()


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, [0]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])],
)
def test_a_response_is_cut_and_its_last_frame_may_be_full(size: int, sizes: list[int]) -> None:
    server = begun(1, limits=Limits(send_frame=4))
    data = bytes(range(size))
    action = server.respond(1, data)
    assert isinstance(action, SendFrames)
    frames = frames_in(b"".join(action))
    assert [len(frame.payload) for frame in frames] == sizes
    assert [frame.flags for frame in frames] == [CONTINUATION] * (len(sizes) - 1) + [EOS]
    assert b"".join(frame.payload for frame in frames) == data


def test_a_request_is_active_until_the_last_frame_of_its_answer_is_taken() -> None:
    server = begun(1, limits=Limits(send_frame=4))
    action = server.respond(1, b"12345678")
    assert isinstance(action, SendFrames)
    frames = iter(action)
    next(frames)
    assert server.active == {1}
    next(frames)
    assert server.active == set()


def test_a_stream_begins_when_its_first_frame_is_taken() -> None:
    server = begun(1, 3)
    first, second = server.respond(1, b"1"), server.respond(3, b"3")
    assert sent(second) == ["3 2 stream-begin bytes-response eos 3"]
    assert sent(first) == ["1 2 0 bytes-response eos 1"]


def test_an_error_frees_its_id() -> None:
    server = begun(1)
    assert sent(server.respond_error(1, "nö")) == [
        r"1 2 stream-begin error-response application n\xc3\xb6"
    ]
    assert server.active == set()


@pytest.mark.parametrize("stream", [1, 255, -2, 256])
def test_a_server_writes_to_its_own_streams(stream: int) -> None:
    server = begun(1)
    with pytest.raises(FrameUsageError, match="even"):
        server.respond(1, b"", stream)
    assert sent(server.respond(1, b"", 254)) == ["1 254 stream-begin bytes-response eos "]


Answer = Callable[[ServerReactor, int], object]
ANSWERS: dict[str, Answer] = {
    "respond": lambda server, request_id: server.respond(request_id, b"again"),
    "error": lambda server, request_id: server.respond_error(request_id, "again"),
    "cancelled": lambda server, request_id: server.respond_cancelled(request_id, may_have_run=True),
    "open": lambda server, request_id: server.open_response(request_id),
}
TEXT: Answer = lambda server, request_id: server.write_text(request_id, [TextAtom("t")])  # noqa: E731


@pytest.mark.parametrize("answer", [*ANSWERS.values(), TEXT], ids=[*ANSWERS, "text"])
def test_what_is_not_active_is_not_answered(answer: Answer) -> None:
    server = begun(1)
    take(server, "5 1 0 command-name have-args c")
    for request_id in (3, 5, 0, -1, 70_000):
        with pytest.raises(FrameUsageError, match="not active"):
            answer(server, request_id)
    sent(server.respond(1, b""))
    with pytest.raises(FrameUsageError, match="not active"):
        answer(server, 1)
    assert server.error is None
    assert server.active == set()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("first", ANSWERS.values(), ids=ANSWERS)
def test_a_request_is_answered_once(first: Answer, answer: Answer) -> None:
    server = begun(1)
    first(server, 1)
    with pytest.raises(FrameUsageError, match="answered already"):
        answer(server, 1)
    assert server.active == {1}


@pytest.mark.parametrize("answer", [*ANSWERS.values(), TEXT], ids=[*ANSWERS, "text"])
def test_a_connection_that_has_failed_carries_no_answers(answer: Answer) -> None:
    server = begun(1)
    refused("1 1 0 command-data eos x", server=server)
    with pytest.raises(FrameUsageError, match="failed"):
        answer(server, 1)
    assert server.active == {1}


def test_an_error_that_is_too_long_is_not_sent() -> None:
    server = begun(1)
    with pytest.raises(FrameUsageError):
        server.respond_error(1, "x" * 32_769)
    assert sent(server.respond_error(1, "x" * 32_768))[0].endswith("x")


def test_a_response_in_pieces() -> None:
    server = begun(1)
    writer, action = server.open_response(1)
    assert isinstance(action, SendFrames)
    assert sent(action) == []
    writer.write(b"one")
    writer.write(b"")
    assert sent(action) == ["1 2 stream-begin bytes-response continuation one"]
    writer.write(b"two")
    writer.finish()
    assert writer.finished
    assert server.active == {1}
    assert sent(action) == [
        "1 2 0 bytes-response continuation two",
        "1 2 0 bytes-response eos ",
    ]
    assert server.active == set()
    for late in (lambda: writer.write(b"x"), writer.finish):
        with pytest.raises(FrameUsageError, match="nothing follows"):
            late()


# Deferred output


def deferred(*request_ids: int) -> ServerReactor:
    return begun(*request_ids, defer_output=True)


def test_deferred_answers_come_in_the_order_in_which_they_were_ready_errors_too() -> None:
    server = deferred(1, 3, 5, 7)
    assert server.respond(5, b"five") == Nothing()
    assert server.respond_error(1, "one") == Nothing()
    assert server.write_text(3, [TextAtom("t")]) == Nothing()
    assert server.respond(3, b"three") == Nothing()
    assert server.active == {1, 3, 5, 7}
    (action,) = server.end_of_input()
    assert isinstance(action, SendFrames)
    assert sent(action) == [
        "5 2 stream-begin bytes-response eos five",
        "1 2 0 error-response application one",
        r"3 2 0 text-output 0 \x01\x00\x00\x00t",
        "3 2 0 bytes-response eos three",
    ]
    assert server.active == {7}
    assert server.end_of_input() == []
    assert sent(server.respond(7, b"seven")) == ["7 2 0 bytes-response eos seven"]


def test_deferred_answers_do_not_interleave() -> None:
    server = begun(1, 3, limits=Limits(send_frame=2), defer_output=True)
    server.respond(3, b"1234", 2)
    server.respond(1, b"5678", 4)
    (action,) = server.end_of_input()
    assert isinstance(action, SendFrames)
    frames = frames_in(b"".join(action))
    assert [frame.payload for frame in frames] == [b"12", b"34", b"56", b"78"]


def test_a_response_in_pieces_is_deferred_whole() -> None:
    server = deferred(1)
    writer, action = server.open_response(1)
    assert action == Nothing()
    writer.write(b"one")
    assert server.write_text(1, [TextAtom("t")]) == Nothing()
    writer.finish()
    (action,) = server.end_of_input()
    assert isinstance(action, SendFrames)
    assert sent(action) == [
        "1 2 stream-begin bytes-response continuation one",
        r"1 2 0 text-output 0 \x01\x00\x00\x00t",
        "1 2 0 bytes-response eos ",
    ]


def test_deferred_answers_go_before_the_report_of_what_came_in_part() -> None:
    server = deferred(1)
    take(server, "3 1 0 command-name have-args c")
    server.respond(1, b"one")
    answers, failed = server.end_of_input()
    assert isinstance(answers, SendFrames)
    assert isinstance(failed, Failed)
    # The farewell was made first, but has a stream of its own: any order is right.
    assert sent(answers) == ["1 2 stream-begin bytes-response eos one"]
    (frame,) = frames_in(failed.farewell)
    assert (frame.request_id, frame.stream_id, frame.type) == (3, 0, ERROR_RESPONSE)


def test_a_link_cannot_be_deferred() -> None:
    with pytest.raises(FrameUsageError):
        ServerReactor(link=True, defer_output=True)


# Text for people


def test_text_comes_before_the_answer() -> None:
    server, scheduler = begun(1), Scheduler()
    for action in (
        server.write_text(1, [TextAtom("one %s", ["l"], ["a"]), TextAtom("two")]),
        server.respond(1, b"answer"),
    ):
        assert isinstance(action, SendFrames)
        scheduler.add(*action.sources)
    text, answer = frames_in(scheduler.data_to_send())
    assert text.type == TEXT_OUTPUT
    assert decode_text(text.payload) == (TextAtom("one %s", ["l"], ["a"]), TextAtom("two"))
    assert answer.type == BYTES_RESPONSE


def test_text_has_its_place_in_a_response_in_pieces() -> None:
    server = begun(1)
    writer, action = server.open_response(1, 4)
    writer.write(b"one")
    again = server.write_text(1, [TextAtom("t")])
    writer.finish()
    assert isinstance(again, SendFrames)
    assert isinstance(action, SendFrames)
    assert again.sources == action.sources
    assert sent(action) == [
        "1 4 stream-begin bytes-response continuation one",
        r"1 4 0 text-output 0 \x01\x00\x00\x00t",
        "1 4 0 bytes-response eos ",
    ]


@pytest.mark.parametrize("last", ["respond", "error", "finish"])
def test_there_is_no_text_after_the_answer(last: str) -> None:
    server = begun(1)
    if last == "finish":
        writer, _ = server.open_response(1)
        writer.finish()
    else:
        ANSWERS[last](server, 1)
    with pytest.raises(FrameUsageError, match="nothing follows"):
        server.write_text(1, [TextAtom("t")])


def test_text_must_fit_into_a_frame() -> None:
    server = begun(1, limits=Limits(send_frame=5))
    with pytest.raises(FrameUsageError):
        server.write_text(1, [TextAtom("tt")])
    assert len(sent(server.write_text(1, [TextAtom("t")]))) == 1


# What is told to a client that breaks the protocol


def test_the_farewell_says_what_was_wrong() -> None:
    server = begun(1)
    (failed,) = server.receive_frame(parse_frame("3 1 0 command-argument 0 "))
    assert isinstance(failed, Failed)
    (frame,) = frames_in(failed.farewell)
    text = "expected command frame; got 2"
    assert format_frame(frame) == f"3 0 stream-begin|stream-end error-response protocol {text}"


def test_the_farewell_fits_into_a_frame() -> None:
    server = ServerReactor(limits=Limits(send_frame=8))
    (failed,) = server.receive_frame(parse_frame("3 1 stream-begin command-argument 0 "))
    assert isinstance(failed, Failed)
    (frame,) = frames_in(failed.farewell)
    assert frame.payload == b"expected"


def test_an_error_without_a_request_is_told_about_request_0() -> None:
    server = ServerReactor()
    server.end_of_input()
    (failed,) = server.receive(b"x")
    assert isinstance(failed, Failed)
    assert frames_in(failed.farewell)[0].request_id == 0


# Going away


def test_a_server_that_goes_away_refuses_what_comes_and_serves_what_came() -> None:
    server = begun(1)
    take(server, "3 1 0 command-name have-data c")
    server.goaway("restart")
    server.goaway("again")
    for frame in ("5 1 0 command-name eos c", "3 1 0 command-data eos x"):
        (action,) = take(server, frame)
        assert isinstance(action, SendFrames)
        (told,) = sent(action)
        assert told.endswith("error-response application refused: not run")
    assert sent(server.respond(1, b"")) == ["1 2 0 bytes-response eos "]
    assert server.active == set()


def test_a_refusal_fits_into_any_frame() -> None:
    server = ServerReactor(limits=Limits(send_frame=4))
    server.goaway()
    (action,) = take(server, ACTIVE)
    assert isinstance(action, SendFrames)
    assert sent(action) == ["1 2 stream-begin error-response application refu"]


# Streams of its own


def test_streams_are_even_and_there_are_127_of_them() -> None:
    server = begun(1)
    streams = [server.open_stream() for _ in range(127)]
    assert [stream.id for stream in streams] == list(range(2, 256, 2))
    with pytest.raises(FrameUsageError):
        server.open_stream()
    assert server.stream(2) is streams[0]
    assert sent(server.respond(1, b"", streams[3])) == ["1 8 stream-begin bytes-response eos "]


def test_a_stream_that_was_named_is_not_opened_again() -> None:
    server = ServerReactor()
    assert server.stream(6).id == 6
    assert server.open_stream().id == 8


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_first_stream_that_is_opened_is_used_by_default(encoding: str) -> None:
    server = begun(1)
    server.open_stream(encoding)
    action = server.respond(1, b"x" * 100)
    assert isinstance(action, SendFrames)
    settings, frame = frames_in(b"".join(action), settings=True)
    assert settings.payload[1:] == encoding.encode()
    assert frame.payload != b"x" * 100


def test_an_answer_may_leave_the_encoding_off() -> None:
    server = begun(1, 3, 5)
    server.open_stream("zlib")
    actions = [server.respond(1, b"plain", plain=True), server.open_response(3, plain=True)[1]]
    for action, text in zip(actions, ("plain", "pieces"), strict=True):
        assert isinstance(action, SendFrames)
        if text == "pieces":
            ResponseWriter(action.sources[0], 100).write(b"pieces")
        assert text.encode() in b"".join(action)
    said = [server.write_text(5, [TextAtom("text")], plain=True)]
    said += [server.respond_error(5, "error", plain=True)]
    for action, text in zip(said, ("text", "error"), strict=True):
        assert isinstance(action, SendFrames)
        assert text.encode() in b"".join(action)
    with pytest.raises(FrameUsageError):
        server.open_stream("gzip")


# Limits


def limited(**limits: Any) -> ServerReactor:
    return ServerReactor(limits=Limits(**limits))


def data_frames(
    server: ServerReactor, request_id: int, sizes: list[int], *, end: bool = False
) -> list[Action]:
    """Send data in frames of these sizes; return what the last made of it."""
    actions: list[Action] = []
    for number, size in enumerate(sizes):
        flags = EOS if end and number == len(sizes) - 1 else CONTINUATION
        actions = server.receive(encode_frame(request_id, 1, 0, COMMAND_DATA, flags, bytes(size)))
    return actions


def half(server: ServerReactor, request_id: int, flags: int = HAVE_DATA) -> list[Action]:
    return server.receive(encode_frame(request_id, 1, STREAM_BEGIN, COMMAND_NAME, flags, b"c"))


def limit_of(actions: list[Action]) -> tuple[str, float]:
    error = failure(actions)
    assert isinstance(error, FrameLimitError)
    assert error.code is Code.LIMIT
    return error.limit, error.allowed


def test_the_number_of_half_received_requests_is_limited() -> None:
    server = limited(half_received=3)
    assert [half(server, request_id) for request_id in (1, 3, 5)] == [[], [], []]
    assert limit_of(half(server, 7)) == ("half_received", 3)


def test_ten_thousand_half_received_requests_are_64() -> None:
    server = ServerReactor()
    taken = 0
    for request_id in range(1, 20_001, 2):
        if server.error is None:
            taken += not half(server, request_id)
        else:
            assert failure(half(server, request_id)).code is Code.ALREADY_ERRORED
    assert taken == len(server.half_received) == 64


def test_what_half_received_requests_hold_together_is_limited() -> None:
    server = limited(half_received_bytes=10)
    half(server, 1)
    half(server, 3)  # the names count
    assert data_frames(server, 1, [4, 1]) == []
    assert data_frames(server, 3, [3]) == []
    assert limit_of(data_frames(server, 1, [1])) == ("half_received_bytes", 10)


def test_the_names_of_half_received_requests_are_held_too() -> None:
    server = limited(half_received_bytes=100)
    name = encode_frame(1, 1, STREAM_BEGIN, COMMAND_NAME, HAVE_ARGS, b"c" * 101)
    assert limit_of(server.receive(name)) == ("half_received_bytes", 100)


def test_what_is_whole_is_not_held_any_more() -> None:
    server = limited(half_received_bytes=10, half_received=1)
    for request_id in (1, 3):
        half(server, request_id)
        data_frames(server, request_id, [9])
        (run,) = data_frames(server, request_id, [9], end=True)
        assert isinstance(run, RunCommand)
    assert (server.half_received, server.active) == (set(), {1, 3})


def test_the_largest_message_fits_into_the_default_limits() -> None:
    server = ServerReactor()
    half(server, 1)
    size = Limits().message // 512
    (run,) = data_frames(server, 1, [size] * 512, end=True)
    assert isinstance(run, RunCommand)
    assert run.data is not None
    assert len(run.data) == Limits().message


def test_half_received_requests_are_limited_in_time() -> None:
    now = [100.0]
    server = ServerReactor(limits=Limits(half_received_seconds=30), clock=lambda: now[0])
    assert (server.deadline, server.check_time()) == (None, [])
    half(server, 1)
    now[0] = 110.0
    half(server, 3)
    data_frames(server, 1, [1])  # to send a little now and then does not help
    assert server.deadline == 130.0
    now[0] = 129.9
    assert server.check_time() == []
    data_frames(server, 1, [1], end=True)
    assert server.deadline == 140.0
    now[0] = 140.0
    actions = server.check_time()
    assert limit_of(actions) == ("half_received_seconds", 30)
    assert failure(actions).request_id == 3
    assert (server.deadline, server.check_time()) == (None, [])


def test_the_number_of_active_requests_is_limited() -> None:
    server = begun(1, 3, limits=Limits(active=2))
    take(server, "5 1 0 command-name have-data c")
    sent(server.respond(3, b""))
    assert take(server, "7 1 0 command-name eos run") == [RunCommand(7, b"run", {}, None)]
    assert limit_of(take(server, "5 1 0 command-data eos x")) == ("active", 2)


def test_a_refused_request_is_active_until_that_is_sent() -> None:
    server = begun(1, limits=Limits(active=2))
    server.goaway()
    take(server, "3 1 0 command-name eos c")
    assert limit_of(take(server, "5 1 0 command-name eos c")) == ("active", 2)


def test_the_size_of_data_is_limited() -> None:
    server = limited(message=10)
    half(server, 1)
    assert data_frames(server, 1, [4, 6]) == []
    assert limit_of(data_frames(server, 1, [1], end=True)) == ("message", 10)


def test_the_size_of_arguments_is_limited() -> None:
    server = limited(request_arguments=14)
    half(server, 1, HAVE_ARGS)
    (parts,) = itertools.islice(command_parts("c", {"a": b"12", "b": b"12"}), 1, 2)
    assert server.receive(encode_frame(1, 1, 0, *parts)) == []
    frame = r"1 1 0 command-argument 0 \x01\x00\x02\x00bok"
    assert take(server, frame) == RECEIVING
    assert limit_of(take(server, LAST_ARGUMENT)) == ("request_arguments", 14)


def test_the_number_of_frames_of_a_message_is_limited() -> None:
    server = limited(message_frames=3)
    half(server, 1)
    assert data_frames(server, 1, [1, 1, 1]) == []
    assert limit_of(data_frames(server, 1, [1], end=True)) == ("message_frames", 3)


def test_empty_frames_in_a_row_are_limited() -> None:
    server = limited(empty_frames=2)
    half(server, 1)
    assert data_frames(server, 1, [0, 0, 1, 0, 0]) == []
    assert limit_of(data_frames(server, 1, [0])) == ("empty_frames", 2)


def test_an_empty_last_frame_is_none_of_them() -> None:
    server = limited(empty_frames=0)
    half(server, 1)
    (run,) = data_frames(server, 1, [0], end=True)
    assert run == RunCommand(1, b"c", {}, b"")


def test_the_size_of_a_frame_is_limited_by_its_header() -> None:
    server = limited(receive_frame=10)
    server.receive(encode_frame(1, 1, 1, COMMAND_NAME, HAVE_DATA, b"c" * 10))
    assert server.error is None
    header = encode_frame(1, 1, 0, COMMAND_DATA, EOS, bytes(11))[:8]
    assert limit_of(server.receive(header)) == ("receive_frame", 10)


def test_the_number_of_streams_is_limited() -> None:
    server = limited(streams=2)
    take(server, ACTIVE, "3 3 stream-begin command-name eos c")
    assert limit_of(take(server, "5 5 stream-begin command-name eos c")) == ("streams", 2)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_data_decode_to_is_limited_by_what_may_still_come(encoding: str) -> None:
    server = ServerReactor(limits=Limits(message=1000), encodings=[encoding])
    stream = OutputStream(1, encoding)
    server.receive(stream.frame(1, COMMAND_NAME, HAVE_DATA, b"c"))
    server.receive(stream.frame(1, COMMAND_DATA, CONTINUATION, bytes(600)))
    assert server.error is None
    actions = server.receive(stream.frame(1, COMMAND_DATA, CONTINUATION, bytes(401)))
    assert limit_of(actions)[0] == "message"


def test_what_comes_before_an_error_is_acted_upon() -> None:
    server = ServerReactor()
    data = parse_frame(ACTIVE).encode() + parse_frame("1 1 0 command-data eos x").encode()
    run, failed = server.receive(data + parse_frame(ACTIVE).encode())
    assert run == RunCommand(1, b"run", {}, None)
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.EXPECTED_COMMAND
