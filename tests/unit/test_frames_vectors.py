"""What the original implementation of the frame protocol did with the same bytes.

``tests/vectors/frames.json`` has cases of revision r37304: what was recorded from the original, or
is taken from its document. Where the original contradicts its document, or loses something, the
case says what to do instead.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from txqmp.frames import (
    FLAG_NAMES,
    STREAM_FLAG_NAMES,
    TYPE_NAMES,
    Action,
    ClientReactor,
    Code,
    Failed,
    Frame,
    FrameDecoder,
    FrameProtocolError,
    FrameUsageError,
    Nothing,
    OutputStream,
    RequestIds,
    RunCommand,
    SendFrames,
    ServerReactor,
    TextAtom,
    WantFrame,
    command_parts,
    decode_header,
    decode_settings,
    decode_text,
    encode_frame,
    encode_text,
    error_part,
    format_frame,
    parse_frame,
    render_text,
    response_parts,
)
from txqmp.frames.codec import HEADER_SIZE, TEXT_OUTPUT
from txqmp.frames.commands import Part
from txqmp.frames.limits import DEFAULT_PAYLOAD, MAX_PAYLOAD, MAX_UNNEGOTIATED, Limits


Case = dict[str, Any]
VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "frames.json").read_text(encoding="utf-8")
)

#: What the vectors' error texts are in our codes.
CODES = {
    "expected command frame": Code.EXPECTED_COMMAND,
    "malformed argument frame": Code.MALFORMED_ARGUMENT,
    "missing frame flags on command frame": Code.MISSING_FLAGS,
    "received frame on unknown inactive stream": Code.STREAM_NOT_BEGUN,
    "received frame with even numbered stream ID": Code.WRONG_STREAM_PARITY,
    "received frame with odd numbered stream ID": Code.WRONG_STREAM_PARITY,
    "server already errored": Code.ALREADY_ERRORED,
    "stream settings outside beginning of stream": Code.SETTINGS_OUTSIDE_BEGIN,
}


def joined(segments: list[Case] | None) -> Any:
    """Return the byte string of a list of segments; no list is no byte string."""
    if segments is None:
        return None
    return b"".join(
        segment["ascii"].encode("ascii")
        if "ascii" in segment
        else bytes.fromhex(segment.get("hex") or segment["repeat"]) * segment.get("count", 1)
        for segment in segments
    )


def cases(*kinds: str) -> Any:
    chosen = [case for case in VECTORS["cases"] if case["kind"] in kinds]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def frame_of(fields: Case) -> Frame:
    return Frame(
        fields["request_id"],
        fields["stream_id"],
        fields["stream_flags"],
        fields["type"],
        fields["flags"],
        joined(fields.get("payload", [])),
    )


def bytes_of(vector: Case) -> bytes:
    data: bytes = joined(vector["bytes"])
    assert len(data) == vector["length"]
    assert hashlib.sha256(data).hexdigest() == vector["sha256"]
    return data


def pairs(arguments: list[Any]) -> dict[Any, bytes]:
    return {joined(name): joined(value) for name, value in arguments}


def emitted(stream: OutputStream, request_id: int, parts: Any) -> list[bytes]:
    made: list[Part] = list(parts)
    return [stream.frame(request_id, *part) for part in made]


def test_every_case_is_run() -> None:
    run = set()
    for value in globals().values():
        for mark in getattr(value, "pytestmark", ()):
            run.update(mark.kwargs.get("ids", ()))
    assert run == {case["id"] for case in VECTORS["cases"]}
    assert len(run) == len(VECTORS["cases"]) == 81


def test_the_names_and_numbers_are_those_of_the_protocol() -> None:
    constants = VECTORS["constants"]
    types = {name: number for number, name in TYPE_NAMES.items()}
    assert types == constants["frame_types"]
    assert {n: f for f, n in STREAM_FLAG_NAMES.items()} == constants["stream_flags"]
    flags = {
        TYPE_NAMES[kind]: {name: flag for flag, name in names.items()}
        for kind, names in FLAG_NAMES.items()
    }
    assert flags == constants["frame_flags"]
    assert constants["header_size"] == HEADER_SIZE
    assert constants["default_max_frame_size"] == DEFAULT_PAYLOAD
    assert constants["max_length_without_negotiation"] == MAX_UNNEGOTIATED


# Codec


@cases("frame-codec")
def test_a_frame_there_and_back(case: Case) -> None:
    frame, data = frame_of(case["fields"]), bytes_of(case["frame"])
    assert frame.encode() == data
    assert FrameDecoder(MAX_PAYLOAD).feed(data) == [frame]


@cases("header-decode")
def test_a_header(case: Case) -> None:
    largest = case.get("max_length", MAX_PAYLOAD)
    length, frame = decode_header(bytes.fromhex(case["header"]), largest)
    assert {**frame._asdict(), "length": length, "payload": b""} == {
        **case["expect"],
        "payload": b"",
    }


@cases("header-decode-error")
def test_a_header_that_is_refused(case: Case) -> None:
    decoder = FrameDecoder(case["max_length"])
    assert decoder.feed(bytes.fromhex(case["header"])) == []
    assert decoder.error is not None
    assert decoder.error.code is Code.LIMIT


@cases("frame-encode-error")
def test_a_frame_that_cannot_be(case: Case) -> None:
    fields = case.get("fields", {})
    with pytest.raises(FrameUsageError):
        encode_frame(
            fields.get("request_id", 1),
            fields.get("stream_id", 1),
            fields.get("stream_flags", 0),
            fields.get("type", 1),
            fields.get("flags", 0),
            bytes(case.get("payload_length", 0)),
        )


@cases("human-string")
def test_a_frame_as_people_write_it(case: Case) -> None:
    frame = parse_frame(case["text"])
    assert frame.encode() == bytes_of(case["frame"])
    assert parse_frame(format_frame(frame)) == frame


@cases("human-string-error")
def test_a_text_that_is_no_frame(case: Case) -> None:
    with pytest.raises(FrameUsageError):
        parse_frame(case["text"])


@cases("reassemble")
def test_frames_out_of_a_stream_of_bytes(case: Case) -> None:
    decoder = FrameDecoder(MAX_PAYLOAD)
    data = joined(case["input"])
    frames = []
    for size in case.get("chunk_sizes", [len(data)]):
        frames += decoder.feed(data[:size])
        data = data[size:]
    frames += decoder.feed(data)
    assert frames == [frame_of(fields) for fields in case["expect"]["frames"]]
    if case.get("end_of_input"):
        wrong = decoder.finish()
        assert (wrong is None) == (case["expect"]["error"] is None)


# Messages


@cases("command-frames")
def test_a_command(case: Case) -> None:
    limits = Limits(send_frame=case["max_frame_size"])
    stream = OutputStream(case["stream_id"], limits=limits)
    parts = list(
        command_parts(
            joined(case["command"]), pairs(case["args"]), joined(case["data"]), limits.send_frame
        )
    )
    if case["conformance"] == "upstream-quirk":
        # What is one frame too large there are several here, and mean the same.
        assert max(len(payload) for _, _, payload in parts) <= limits.send_frame
        server = ServerReactor()
        actions = [action for part in parts for action in server.receive(stream.frame(1, *part))]
        assert actions == [RunCommand(1, joined(case["command"]), pairs(case["args"]), None)]
    else:
        frames = emitted(stream, case["request_id"], parts)
        assert frames == [bytes_of(frame) for frame in case["expect"]["frames"]]


@cases("command-frames-error")
def test_a_command_that_cannot_be(case: Case) -> None:
    with pytest.raises(FrameUsageError):
        command_parts(joined(case["command"]), pairs(case["args"]))


@cases("command-frames-seq")
def test_commands_on_one_stream(case: Case) -> None:
    stream = OutputStream(case["stream_id"])
    frames: list[bytes] = []
    for command in case["commands"]:
        parts = command_parts(joined(command["command"]), pairs(command["args"]))
        frames += emitted(stream, command["request_id"], parts)
    assert frames == [bytes_of(frame) for frame in case["expect"]["frames"]]


@cases("bytes-response-frames")
def test_a_response(case: Case) -> None:
    size = case["max_frame_size"]
    stream = OutputStream(case["stream_id"], limits=Limits(send_frame=size))
    frames = emitted(stream, case["request_id"], response_parts(joined(case["data"]), size))
    assert frames == [bytes_of(frame) for frame in case["expect"]["frames"]]


@cases("error-frame", "error-frame-error")
def test_an_error(case: Case) -> None:
    kinds = {kind: case.get(kind, False) for kind in ("protocol", "application")}
    if case["kind"] == "error-frame-error":
        kinds["application"] = True
    if case["kind"] == "error-frame-error" or case["conformance"] == "upstream-quirk":
        with pytest.raises(FrameUsageError):
            error_part(joined(case["message"]), **kinds)
        return
    part = error_part(joined(case["message"]), **kinds)
    frames = emitted(OutputStream(case["stream_id"]), case["request_id"], [part])
    assert frames == [bytes_of(frame) for frame in case["expect"]["frames"]]


# Text output


def atoms_of(case: Case) -> list[TextAtom]:
    return [
        TextAtom(joined(atom["format"]), map(joined, atom["labels"]), map(joined, atom["args"]))
        for atom in case["atoms"]
    ]


@cases("text-output")
def test_text_output(case: Case) -> None:
    payload = encode_text(atoms_of(case))
    (frame,) = emitted(
        OutputStream(case["stream_id"]), case["request_id"], [(TEXT_OUTPUT, 0, payload)]
    )
    assert frame == bytes_of(case["expect"]["frame"])
    assert list(decode_text(payload)) == atoms_of(case)


@cases("text-output-error")
def test_text_output_that_cannot_be(case: Case) -> None:
    with pytest.raises(FrameUsageError):
        encode_text(atoms_of(case))


@cases("text-decode-error")
def test_text_output_that_is_none(case: Case) -> None:
    with pytest.raises(FrameProtocolError) as caught:
        decode_text(joined(case["payload"]))
    assert caught.value.code is Code.MALFORMED_TEXT


@cases("text-render")
def test_text_that_is_rendered(case: Case) -> None:
    arguments = [joined(argument).decode() for argument in case["args"]]
    assert (
        render_text(joined(case["format"]).decode(), arguments) == joined(case["expect"]).decode()
    )


# Reactors


def check(actions: list[Action], expected: Case | None, outputs: list[SendFrames]) -> None:
    """See whether a step's actions are the expected one."""
    assert expected is not None
    kind = expected["action"]
    if not actions or actions == [Nothing()]:
        assert kind == "noop"
        return
    (action,) = actions
    if kind == "wantframe":
        assert action == WantFrame(expected["state"])
    elif kind == "runcommand":
        assert action == RunCommand(
            expected["request_id"],
            joined(expected["command"]),
            pairs(expected["args"]),
            joined(expected["data"]),
        )
    elif kind == "sendframes":
        assert isinstance(action, SendFrames)
        assert len(outputs) == expected["output"]
        outputs.append(action)
    else:
        assert kind == "error"
        assert isinstance(action, Failed)
        if "code" in expected:
            assert action.error.code.value == expected["code"]
        else:
            codes = {code for text, code in CODES.items() if expected["message"].startswith(text)}
            assert codes == {action.error.code}


@cases("server-reactor")
def test_a_server(case: Case) -> None:
    server = ServerReactor(defer_output=case["options"]["deferoutput"])
    recommended = {step["step"]: step for step in case.get("recommended", {}).get("steps", [])}
    outputs: list[SendFrames] = []
    for number, step in enumerate(case["steps"]):
        expected = recommended.get(number, step.get("result"))
        if step["op"] == "drain":
            frames = [bytes_of(frame) for frame in step["frames"]]
            assert list(outputs[step["output"]]) == frames
            continue
        if step["op"] == "recv":
            (frame,) = FrameDecoder().feed(bytes_of(step["frame"]))
            if "text" in step:
                assert parse_frame(step["text"]) == frame
            actions = server.receive_frame(frame)
        elif step["op"] == "respond":
            actions = [server.respond(step["request_id"], joined(step["data"]), step["stream_id"])]
        elif step["op"] == "application-error":
            message = joined(step["message"])
            actions = [server.respond_error(step["request_id"], message, step["stream_id"])]
        else:
            assert step["op"] == "input-eof"
            actions = server.end_of_input()
        check(actions, expected, outputs)
        if recommended and number == max(recommended):
            return  # what follows was recorded after another result


@cases("receive-error")
def test_a_frame_that_a_client_refuses(case: Case) -> None:
    assert case["role"] == "client"
    client = ClientReactor()
    for _ in case.get("active_requests", []):
        client.request("c")
    for stream_id in case["open_streams"]:
        client.receive(encode_frame(0, stream_id, 1, 8, 0, b"\x08identity"))
    (failed,) = client.receive(bytes_of(case["frame"]))
    assert isinstance(failed, Failed)
    codes = {code for text, code in CODES.items() if case["expect"]["error"].startswith(text)}
    assert codes == {failed.error.code}


@cases("stream-settings-decode")
def test_stream_settings(case: Case) -> None:
    payload, expected = joined(case["payload"]), case["expect"]
    if "error" in expected:
        with pytest.raises(FrameProtocolError) as caught:
            decode_settings(payload)
        assert caught.value.code is Code.MALFORMED_SETTINGS
    else:
        assert decode_settings(payload) == (expected["profile"], expected["extra"].encode())


@cases("request-id-sequence")
def test_request_ids(case: Case) -> None:
    ids = RequestIds(case["first"], case["step"])
    used = set(case["active"])
    assert [ids.allocate(used) for _ in case["expect"]] == case["expect"]


@cases("transcript")
def test_a_conversation(case: Case) -> None:
    request = joined(case["request"])
    assert [parse_frame(text).encode() for text in case["request_text"]] == [request]
    response = joined(case["response"])
    server, client = ServerReactor(), ClientReactor()
    (run,) = server.receive(request)
    assert isinstance(run, RunCommand)
    request_id, sent = client.request(run.name)
    assert (request_id, b"".join(sent)) == (run.request_id, request)
    answer = server.respond(run.request_id, b"customreadonly bytes response")
    assert isinstance(answer, SendFrames)
    assert b"".join(answer) == response
    (came,) = client.receive(response)
    assert came == type(came)(request_id, b"customreadonly bytes response")
