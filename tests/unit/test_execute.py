"""The verbs for commands: what is written, what comes of it, and what is refused before that."""

from __future__ import annotations

import enum
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock

from support.deferreds import failure, pending, success
from support.transports import SHUTDOWN, DescriptorTransport, Peer, identity
from txqmp.errors import (
    DescriptorError,
    DisconnectedError,
    ExecuteError,
    ExecuteTimeoutError,
    InvalidCommandError,
    ServerParseError,
    StateError,
    TooManyCommandsError,
)
from txqmp.execute import CommandVerbs
from txqmp.lifecycle import RunState
from txqmp.messages import Message
from txqmp.settings import SessionSettings
from txqmp.timeouts import Timeouts


MakePeer = Callable[..., Peer]
NAMELESS_ERROR = {"error": {"class": "GenericError", "desc": "JSON parse error"}}


@pytest.fixture
def make_peer(clock: Clock) -> Iterator[MakePeer]:
    """Make far ends of sessions, whose connections end with the test."""
    made: list[Peer] = []

    def make(*, transport: Any = None, **settings: Any) -> Peer:
        peer = Peer(clock, SessionSettings(**settings), transport=transport)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    """The far end of a session that runs, without out-of-band commands."""
    return make_peer().run()


@pytest.fixture
def oob_peer(make_peer: MakePeer) -> Peer:
    """The far end of a session that runs, with out-of-band commands."""
    return make_peer().run("oob")


@pytest.fixture
def unix_peer(make_peer: MakePeer) -> Peer:
    """The far end of a session over a transport that carries descriptors."""
    return make_peer(transport=DescriptorTransport()).run("oob")


# execute()


def test_a_command_is_written_with_an_id_and_its_reply_is_the_result(peer: Peer) -> None:
    deferred = peer.session.execute("query-status")
    command = peer.command()
    assert command == {"execute": "query-status", "id": command["id"]}
    pending(deferred)
    peer.reply(command, {"status": "running"})
    assert success(deferred) == {"status": "running"}


@pytest.mark.parametrize("value", [{}, [], 1, "x", None, False])
def test_whatever_a_command_returns_is_the_result(peer: Peer, value: Any) -> None:
    deferred = peer.session.execute("x")
    peer.say({"return": value, "id": peer.command()["id"]})
    assert success(deferred) == value


@pytest.mark.parametrize(
    "arguments", [{}, {"device": "d0", "size": 1 << 40}, MappingProxyType({"a": [1, {"b": None}]})]
)
def test_arguments_are_written_as_they_are(peer: Peer, arguments: Any) -> None:
    deferred = peer.session.execute("x", arguments)
    command = peer.command()
    assert command["arguments"] == dict(arguments)
    peer.reply(command)
    success(deferred)


def test_arguments_may_be_changed_by_the_caller_afterwards(make_peer: MakePeer) -> None:
    peer = make_peer(window=1).run()
    first = peer.session.execute("a")
    arguments = {"size": [1]}
    second = peer.session.execute("b", arguments)
    arguments["size"].append(2)
    peer.reply(peer.command())
    command = peer.command()
    assert command["arguments"] == {"size": [1]}
    peer.reply(command)
    success(first)
    success(second)


def test_each_command_has_an_id_of_its_own(peer: Peer) -> None:
    deferreds = [peer.session.execute("x") for _ in range(5)]
    commands = peer.heard()
    assert len({command["id"] for command in commands}) == 5
    for command in reversed(commands):
        peer.reply(command, command["id"])
    assert [success(each) for each in deferreds] == [command["id"] for command in commands]


def test_an_error_is_the_failure_with_all_that_is_known(peer: Peer) -> None:
    deferred = peer.session.execute("x", {"a": 1})
    command = peer.command()
    peer.refuse(command, "no such device", "DeviceNotFound")
    error = failure(deferred, ExecuteError).value
    assert isinstance(error, ExecuteError)
    assert (error.command, error.error_class, error.desc) == (
        "x",
        "DeviceNotFound",
        "no such device",
    )
    assert error.sent == command
    assert error.received.error.desc == "no such device"


def test_a_command_can_be_cancelled_and_its_late_reply_disturbs_nothing(peer: Peer) -> None:
    gone, kept = peer.session.execute("gone"), peer.session.execute("kept")
    first, second = peer.heard()
    gone.cancel()
    failure(gone, CancelledError)
    peer.reply(first)
    peer.reply(second, 1)
    assert success(kept) == 1
    assert peer.session.pending.late_replies == 1
    assert peer.session.pending.unknown_replies == 0


def test_at_most_a_window_of_commands_is_in_flight(make_peer: MakePeer) -> None:
    peer = make_peer(window=2).run()
    deferreds = [peer.session.execute(name) for name in "abc"]
    commands = peer.heard()
    assert [command["execute"] for command in commands] == ["a", "b"]
    peer.reply(commands[0])
    commands.append(peer.command())
    for command in commands[1:]:
        peer.reply(command)
    for each in deferreds:
        success(each)


def test_the_number_of_commands_that_wait_is_bounded(make_peer: MakePeer) -> None:
    peer = make_peer(window=1, max_waiting=1).run()
    deferreds = [peer.session.execute("x") for _ in range(3)]
    failure(deferreds.pop(), TooManyCommandsError)
    peer.close()
    for each in deferreds:
        failure(each, DisconnectedError)


# What cannot be sent


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": math.nan},
        {"a": [math.inf]},
        {"a": "\ud800"},
        {"a": 2**64},
        {"a": b"x"},
        {"a": object()},
        {1: "x"},
        {"a": {1: "x"}},
    ],
    ids=repr,
)
def test_an_argument_that_is_no_json_fails_its_own_command_only(peer: Peer, arguments: Any) -> None:
    before = peer.session.execute("before")
    error = failure(peer.session.execute("bad", arguments), InvalidCommandError).value
    after = peer.session.execute("after")
    assert isinstance(error, InvalidCommandError)
    assert error.command == "bad"
    assert str(error).startswith("bad: ")
    commands = peer.heard()
    assert [command["execute"] for command in commands] == ["before", "after"]
    for command in commands:
        peer.reply(command)
    success(before)
    success(after)


@pytest.mark.parametrize("depth", [1100, 100_000])
def test_an_argument_that_is_too_deep_fails_its_command(peer: Peer, depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    failure(peer.session.execute("x", {"a": deep}), InvalidCommandError)
    assert peer.heard() == []


@pytest.mark.parametrize("arguments", [5, "ab", [1, 2]])
def test_arguments_that_are_no_mapping_fail_the_command(peer: Peer, arguments: Any) -> None:
    failure(peer.session.execute("x", arguments), InvalidCommandError)
    assert peer.heard() == []


@pytest.mark.parametrize("name", [None, 5, ["x"], b"stop"])
def test_a_name_that_is_no_string_fails_the_command(peer: Peer, name: Any) -> None:
    error = failure(peer.session.execute(name), InvalidCommandError).value
    assert "a command's name is a string" in str(error)


def test_a_name_may_be_a_member_of_an_enum_of_strings(peer: Peer) -> None:
    class Name(str, enum.Enum):
        STOP = "stop"

    deferred = peer.session.execute(Name.STOP)
    command = peer.command()
    assert command["execute"] == "stop"
    peer.reply(command)
    success(deferred)


def test_a_tap_that_holds_a_command_back_fails_it(peer: Peer) -> None:
    peer.session.taps.add_outbound(lambda message: None)
    error = failure(peer.session.execute("stop"), InvalidCommandError).value
    assert str(error) == "stop: a tap held it back"


def test_a_tap_that_raises_fails_the_command_and_not_the_session(peer: Peer) -> None:
    handle = peer.session.taps.add_outbound(lambda message: message["missing"])
    error = failure(peer.session.execute("stop"), InvalidCommandError).value
    assert isinstance(error.__cause__, KeyError)
    handle.cancel()
    deferred = peer.session.execute("stop")
    peer.reply(peer.command())
    success(deferred)


# States


def run_verbs(peer: Peer) -> list[Any]:
    return [
        peer.session.execute("x"),
        peer.session.execute("x", oob=True),
        peer.session.execute_msg({"execute": "x"}),
        peer.session.execute_raw({"execute": "x"}),
    ]


def assert_refused(peer: Peer, state: RunState) -> None:
    for deferred in run_verbs(peer):
        error = failure(deferred, StateError).value
        assert isinstance(error, StateError)
        assert error.state is state
        assert str(error).startswith(f"x: the session is {state.value}")
    with pytest.raises(StateError) as caught:
        peer.session.write_raw(b"x")
    assert caught.value.state is state


def test_before_the_connection_commands_are_refused(make_peer: MakePeer) -> None:
    assert_refused(make_peer(), RunState.IDLE)


def test_during_the_handshake_commands_are_refused(make_peer: MakePeer) -> None:
    peer = make_peer().connect()
    assert_refused(peer, RunState.CONNECTING)
    assert peer.heard() == []


def test_while_disconnecting_commands_are_refused(peer: Peer) -> None:
    closed = peer.session.disconnect()
    assert_refused(peer, RunState.DISCONNECTING)
    assert peer.heard() == []
    peer.close()
    success(closed)


def test_after_the_end_commands_are_refused_and_told_how_it_ended(peer: Peer) -> None:
    peer.close()
    assert_refused(peer, RunState.IDLE)
    error = failure(peer.session.execute("x"), StateError).value
    assert str(error) == "x: the session is idle (the peer closed the connection)"


def test_commands_are_refused_before_their_arguments_are_looked_at(make_peer: MakePeer) -> None:
    failure(make_peer().session.execute("x", {"a": math.nan}), StateError)


# Out of band


def test_an_out_of_band_command_overtakes(make_peer: MakePeer) -> None:
    peer = make_peer(window=1).run("oob")
    deferreds = [peer.session.execute("a"), peer.session.execute("b")]
    urgent = peer.session.execute("migrate-pause", oob=True)
    first, second = peer.heard()
    assert second == {"exec-oob": "migrate-pause", "id": second["id"]}
    peer.reply(second, 1)
    assert success(urgent) == 1
    peer.reply(first)
    peer.reply(peer.command())
    for each in deferreds:
        success(each)


@pytest.mark.parametrize("verb", ["execute", "execute_msg"])
def test_out_of_band_is_refused_where_it_was_not_enabled(peer: Peer, verb: str) -> None:
    if verb == "execute":
        deferred = peer.session.execute("yank", oob=True)
    else:
        deferred = peer.session.execute_msg({"exec-oob": "yank"})
    error = failure(deferred, StateError).value
    assert str(error) == "yank: out-of-band commands are not enabled"
    assert error.state is RunState.RUNNING  # type: ignore[attr-defined]
    assert peer.heard() == []


# Time limits


def test_a_command_fails_at_exactly_the_limit_of_its_call(peer: Peer, clock: Clock) -> None:
    deferred = peer.session.execute("x", timeout=5)
    clock.advance(4.999)
    pending(deferred)
    clock.advance(0.001)
    error = failure(deferred, ExecuteTimeoutError).value
    assert str(error) == "x: no reply within 5 s; it may still run"


@pytest.mark.parametrize(("command", "limit"), [("x", 7), ("slow", 70)])
@pytest.mark.parametrize("verb", ["execute", "execute_msg", "execute_raw"])
def test_without_one_the_table_of_the_session_decides(
    make_peer: MakePeer, clock: Clock, command: str, limit: float, verb: str
) -> None:
    peer = make_peer(timeouts=Timeouts(command=7, commands={"slow": 70}, slow=None)).run()
    if verb == "execute":
        deferred = peer.session.execute(command)
    else:
        deferred = getattr(peer.session, verb)({"execute": command})
    clock.advance(limit - 0.25)
    pending(deferred)
    clock.advance(0.25)
    failure(deferred, ExecuteTimeoutError)


@pytest.mark.parametrize("verb", ["execute", "execute_msg", "execute_raw"])
def test_without_any_limit_a_command_waits_for_ever(peer: Peer, clock: Clock, verb: str) -> None:
    what: Any = "x" if verb == "execute" else {"execute": "x"}
    deferred = getattr(peer.session, verb)(what, timeout=None)
    clock.advance(10_000_000)
    pending(deferred)
    peer.reply(peer.command())
    success(deferred)


# execute_msg()


def test_a_message_is_executed(peer: Peer) -> None:
    deferred = peer.session.execute_msg(peer.session.make_execute_msg("x", {"a": 1}))
    command = peer.command()
    assert command == {"execute": "x", "arguments": {"a": 1}, "id": command["id"]}
    peer.reply(command, 5)
    assert success(deferred) == 5


def test_an_executed_message_is_not_changed(peer: Peer) -> None:
    message, mapping = Message({"execute": "x"}), {"execute": "x"}
    deferreds = [peer.session.execute_msg(message), peer.session.execute_msg(mapping)]
    assert (message, mapping) == ({"execute": "x"}, {"execute": "x"})
    for command in peer.heard():
        peer.reply(command)
    for each in deferreds:
        success(each)


def test_a_made_message_has_no_id() -> None:
    assert CommandVerbs.make_execute_msg("x") == {"execute": "x"}
    assert CommandVerbs.make_execute_msg("x", {"a": 1}, oob=True) == {
        "exec-oob": "x",
        "arguments": {"a": 1},
    }


def test_an_out_of_band_message_is_executed(oob_peer: Peer) -> None:
    deferred = oob_peer.session.execute_msg(Message({"exec-oob": "yank"}))
    command = oob_peer.command()
    assert command["exec-oob"] == "yank"
    oob_peer.reply(command)
    success(deferred)


@pytest.mark.parametrize("ident", ["mine", 5, 1.0, None, {"b": [1, None], "a": True}, [], ""])
def test_the_callers_id_is_kept_and_found_again_by_value(peer: Peer, ident: Any) -> None:
    deferred = peer.session.execute_msg({"execute": "x", "id": ident})
    command = peer.command()
    assert command["id"] == ident
    peer.reply(command, 1)
    assert success(deferred) == 1


def test_an_id_that_json_writes_otherwise_is_found_again(peer: Peer) -> None:
    class Ident(str, enum.Enum):
        ONE = "one"

    class Number(enum.Enum):
        TWO = 2

    for ident in (Ident.ONE, Number.TWO, uuid.UUID(int=3), (1, 2)):
        deferred = peer.session.execute_msg({"execute": "x", "id": ident})
        peer.reply(peer.command(), 1)
        assert success(deferred) == 1


def test_an_id_in_use_is_refused(peer: Peer) -> None:
    first = peer.session.execute_msg({"execute": "a", "id": 1})
    error = failure(
        peer.session.execute_msg({"execute": "b", "id": 1.0}), InvalidCommandError
    ).value
    assert str(error) == "b: its id is in use"
    peer.reply(peer.command())
    success(first)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"execute": 5},
        {"execute": "a", "exec-oob": "b"},
        {"execute": "a", "arguments": [1]},
        {"event": "STOP"},
    ],
    ids=json.dumps,
)
def test_a_message_that_is_no_command_is_refused(peer: Peer, message: Any) -> None:
    failure(peer.session.execute_msg(message), InvalidCommandError)
    assert peer.heard() == []


def test_a_message_that_has_no_text_is_refused(peer: Peer) -> None:
    failure(
        peer.session.execute_msg({"execute": "x", "arguments": {"a": math.nan}}),
        InvalidCommandError,
    )


def test_a_very_deep_id_fails_its_own_command_or_is_found_again(peer: Peer) -> None:
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    deferred = peer.session.execute_msg({"execute": "x", "id": deep})
    peer.reply(peer.command(), 5)
    assert success(deferred) == 5


# execute_raw()


@pytest.mark.parametrize("make", [dict, Message, lambda members: json.dumps(members).encode()])
def test_any_object_can_be_sent_raw_and_the_whole_reply_is_given(peer: Peer, make: Any) -> None:
    deferred = peer.session.execute_raw(make({"execute": "x", "extra": 1}))
    command = peer.command()
    assert command == {"execute": "x", "extra": 1, "id": command["id"]}
    peer.reply(command, 5)
    reply = success(deferred)
    assert isinstance(reply, Message)
    assert reply == {"return": 5, "id": command["id"]}


def test_an_error_is_a_reply_too(peer: Peer) -> None:
    deferred = peer.session.execute_raw({"no": "command"})
    command = peer.command()
    peer.refuse(command, "no")
    assert success(deferred) == {
        "error": {"class": "GenericError", "desc": "no"},
        "id": command["id"],
    }


def test_a_raw_message_keeps_its_own_id(peer: Peer) -> None:
    deferred = peer.session.execute_raw({"execute": "x", "id": [1]}, assign_id=False)
    command = peer.command()
    assert command["id"] == [1]
    peer.reply(command)
    success(deferred)


def test_a_raw_message_may_have_no_id(peer: Peer) -> None:
    deferred = peer.session.execute_raw({"execute": "x"}, assign_id=False)
    other = peer.session.execute("other")
    first, second = peer.heard()
    assert first == {"execute": "x"}
    peer.reply(second, "other")
    pending(deferred)
    peer.say({"return": 5})
    assert success(deferred) == {"return": 5}
    assert success(other) == "other"


def test_a_raw_message_may_be_out_of_band_without_leave(make_peer: MakePeer) -> None:
    peer = make_peer(window=1).run()
    first = peer.session.execute("a")
    deferred = peer.session.execute_raw({"exec-oob": "yank"})
    commands = peer.heard()
    assert commands[1]["exec-oob"] == "yank"
    for command in commands:
        peer.reply(command)
    success(first)
    success(deferred)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"", "{}", 5, None, [1]])
def test_what_is_no_object_cannot_be_sent_raw(peer: Peer, text: Any) -> None:
    failure(peer.session.execute_raw(text), InvalidCommandError)
    assert peer.heard() == []


def test_a_raw_message_without_a_text_is_refused(peer: Peer) -> None:
    failure(peer.session.execute_raw({"a": math.nan}), InvalidCommandError)


@pytest.mark.parametrize("message", [{"execute": 5}, {"execute": "x"}, {}])
def test_a_raw_message_has_a_name_for_its_errors(peer: Peer, message: Any) -> None:
    deferred = peer.session.execute_raw(message)
    peer.close()
    error = failure(deferred, DisconnectedError).value
    assert error.command == ("x" if message == {"execute": "x"} else "command")  # type: ignore[attr-defined]


# write_raw()


def test_raw_bytes_are_written_as_they_are(peer: Peer) -> None:
    peer.session.taps.add_outbound(lambda message: None)
    peer.transport.clear()
    peer.session.write_raw(b"\x01{half")
    assert peer.transport.value() == b"\x01{half"


def test_raw_bytes_leave_no_command_under_suspicion(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    command = peer.command()
    peer.session.write_raw(b"\x01\n")
    peer.say(NAMELESS_ERROR)
    pending(deferred)
    peer.reply(command)
    success(deferred)


def test_an_error_without_an_id_fails_the_only_command(peer: Peer) -> None:
    deferred = peer.session.execute("x")
    peer.say(NAMELESS_ERROR)
    failure(deferred, ServerParseError)
    again = peer.session.execute("x")
    peer.reply(peer.heard()[-1])
    success(again)


# Descriptors


@pytest.fixture
def file() -> Iterator[int]:
    """An open file's descriptor."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_descriptor_travels_with_its_own_command(unix_peer: Peer, file: int) -> None:
    transport = unix_peer.transport
    assert isinstance(transport, DescriptorTransport)
    before = unix_peer.session.execute("before")
    deferred = unix_peer.session.execute("getfd", {"fdname": "a"}, fds=[file])
    after = unix_peer.session.execute("after")
    commands = unix_peer.heard()
    assert [command["execute"] for command in commands] == ["before", "getfd", "after"]
    assert transport.travelled == [(commands[1], identity(file))]
    for command in commands:
        unix_peer.reply(command)
    for each in (before, deferred, after):
        success(each)


def test_crossing_descriptors_is_impossible(unix_peer: Peer, tmp_path: Any) -> None:
    transport = unix_peer.transport
    assert isinstance(transport, DescriptorTransport)
    files = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(20)]
    wanted = {str(number): identity(each) for number, each in enumerate(files)}
    deferreds = [
        unix_peer.session.execute("getfd", {"fdname": str(number)}, fds=[each])
        for number, each in enumerate(files)
    ]
    for each in files:
        os.close(each)
    for _ in range(20):
        unix_peer.reply(unix_peer.command())
    for each in deferreds:
        success(each)
    assert {
        message["arguments"]["fdname"]: which for message, which in transport.travelled
    } == wanted


def test_the_callers_descriptor_stays_the_callers(unix_peer: Peer, file: int) -> None:
    deferred = unix_peer.session.execute("getfd", fds=[file])
    unix_peer.reply(unix_peer.command())
    success(deferred)
    os.fstat(file)


def test_a_file_like_object_will_do(unix_peer: Peer) -> None:
    transport = unix_peer.transport
    assert isinstance(transport, DescriptorTransport)
    with open(os.devnull) as file:
        which = identity(file.fileno())
        deferred = unix_peer.session.execute("getfd", fds=(file,))
    unix_peer.reply(unix_peer.command())
    success(deferred)
    assert transport.travelled[0][1] == which


def test_a_message_may_carry_a_descriptor(unix_peer: Peer, file: int) -> None:
    transport = unix_peer.transport
    assert isinstance(transport, DescriptorTransport)
    deferred = unix_peer.session.execute_msg({"execute": "getfd"}, fds=[file])
    unix_peer.reply(unix_peer.command())
    success(deferred)
    assert transport.travelled[0][1] == identity(file)


def closed_file() -> Any:
    with open(os.devnull) as file:
        pass
    return file


@pytest.mark.parametrize(
    "wrong", [-1, 99_999, object(), closed_file()], ids=["-1", "not open", "no file", "closed"]
)
def test_what_is_no_open_descriptor_fails_the_command(unix_peer: Peer, wrong: Any) -> None:
    error = failure(unix_peer.session.execute("getfd", fds=[wrong]), DescriptorError).value
    assert isinstance(error, DescriptorError)
    assert error.command == "getfd"
    assert "cannot duplicate" in str(error)
    assert error.__cause__ is not None
    assert unix_peer.heard() == []


def test_one_command_takes_one_descriptor(unix_peer: Peer, file: int) -> None:
    error = failure(unix_peer.session.execute("getfd", fds=[file, file]), DescriptorError).value
    assert "one descriptor a command" in str(error)


def test_no_descriptor_goes_out_of_band(unix_peer: Peer, file: int) -> None:
    error = failure(unix_peer.session.execute("getfd", oob=True, fds=[file]), DescriptorError).value
    assert "out of band" in str(error)


def test_no_descriptor_goes_over_another_transport(peer: Peer, file: int) -> None:
    error = failure(peer.session.execute("getfd", fds=[file]), DescriptorError).value
    assert str(error) == "getfd: descriptors travel over UNIX sockets only"
    assert peer.heard() == []


def test_without_descriptors_any_transport_will_do(peer: Peer) -> None:
    deferred = peer.session.execute("x", fds=())
    peer.reply(peer.command())
    success(deferred)


@pytest.mark.parametrize("sent", [False, True])
def test_at_the_end_of_the_session_the_descriptor_is_closed(
    unix_peer: Peer, file: int, sent: bool
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    deferred = unix_peer.session.execute("getfd", fds=[file])
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    if sent:
        unix_peer.command()
    unix_peer.close()
    assert failure(deferred, DisconnectedError).value.sent is sent  # type: ignore[attr-defined]
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_command_that_cannot_be_written_leaves_no_duplicate(unix_peer: Peer, file: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    failure(unix_peer.session.execute("getfd", {"a": math.nan}, fds=[file]), InvalidCommandError)
    assert set(os.listdir("/proc/self/fd")) == before


# quit


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_quit_succeeds_when_the_end_comes_instead_of_the_reply(
    peer: Peer, reason: Exception
) -> None:
    deferred = peer.session.execute("quit")
    peer.command()
    peer.close(reason)
    assert success(deferred) == {}
    assert success(peer.session.disconnect()) is None


def test_quit_succeeds_with_its_reply_and_the_end_is_expected(peer: Peer) -> None:
    deferred = peer.session.execute("quit")
    other = peer.session.execute("other")
    peer.say(SHUTDOWN)
    peer.reply(peer.heard()[0])
    assert success(deferred) == {}
    peer.close(ConnectionLost())
    error = failure(other, DisconnectedError).value
    assert error.expected  # type: ignore[attr-defined]


def test_a_raw_quit_has_a_whole_reply(peer: Peer) -> None:
    deferred = peer.session.execute_raw({"execute": "quit"})
    peer.close()
    reply = success(deferred)
    assert isinstance(reply, Message)
    assert reply == {"return": {}}


def test_a_quit_that_was_not_sent_fails_with_the_session(make_peer: MakePeer) -> None:
    peer = make_peer(window=1).run()
    first, deferred = peer.session.execute("x"), peer.session.execute("quit")
    peer.close()
    failure(first, DisconnectedError)
    error = failure(deferred, DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert not error.sent
    assert not error.expected


def end_unexpectedly(peer: Peer) -> None:
    """End the connection; fail the test if the session takes that for expected."""
    peer.close(ConnectionLost())
    error = failure(peer.session.disconnect(), DisconnectedError).value
    assert not error.expected  # type: ignore[attr-defined]


def test_after_a_refused_quit_the_end_is_not_expected(peer: Peer) -> None:
    deferred = peer.session.execute("quit")
    peer.refuse(peer.command(), "not now")
    failure(deferred, ExecuteError)
    end_unexpectedly(peer)


def test_after_an_unreadable_quit_the_end_is_not_expected(peer: Peer) -> None:
    deferred = peer.session.execute("quit")
    peer.say(NAMELESS_ERROR)
    failure(deferred, ServerParseError)
    end_unexpectedly(peer)


def test_a_quit_that_a_tap_held_back_makes_no_end_expected(peer: Peer) -> None:
    peer.session.taps.add_outbound(lambda message: None)
    failure(peer.session.execute("quit"), InvalidCommandError)
    end_unexpectedly(peer)


def test_a_quit_for_which_there_was_no_room_makes_no_end_expected(make_peer: MakePeer) -> None:
    peer = make_peer(window=1, max_waiting=0).run()
    first = peer.session.execute("x")
    failure(peer.session.execute("quit"), TooManyCommandsError)
    peer.reply(peer.command())
    success(first)
    end_unexpectedly(peer)


def test_a_quit_that_was_cancelled_before_it_was_sent_makes_no_end_expected(
    make_peer: MakePeer,
) -> None:
    peer = make_peer(window=1).run()
    first, deferred = peer.session.execute("x"), peer.session.execute("quit")
    deferred.cancel()
    failure(deferred, CancelledError)
    peer.reply(peer.command())
    success(first)
    end_unexpectedly(peer)


def test_a_quit_whose_time_passed_before_it_was_sent_makes_no_end_expected(
    make_peer: MakePeer, clock: Clock
) -> None:
    peer = make_peer(window=1).run()
    first, deferred = peer.session.execute("x"), peer.session.execute("quit", timeout=5)
    clock.advance(5)
    failure(deferred, ExecuteTimeoutError)
    peer.reply(peer.command())
    success(first)
    end_unexpectedly(peer)


@pytest.mark.parametrize("how", ["cancelled", "too late"])
def test_a_quit_that_was_sent_and_given_up_makes_the_end_expected(
    peer: Peer, clock: Clock, how: str
) -> None:
    deferred = peer.session.execute("quit", timeout=5)
    if how == "cancelled":
        deferred.cancel()
        failure(deferred, CancelledError)
    else:
        clock.advance(5)
        failure(deferred, ExecuteTimeoutError)
    peer.close()
    assert success(peer.session.disconnect()) is None


def test_quit_fails_when_the_session_was_broken(peer: Peer) -> None:
    deferred = peer.session.execute("quit")
    peer.say(b"garbage\n")
    peer.close()
    error = failure(deferred, DisconnectedError).value
    assert isinstance(error, DisconnectedError)
    assert error.sent
    assert not error.expected
    failure(peer.session.disconnect())


# The mixin alone


def test_the_verbs_need_a_session_below_them() -> None:
    verbs = CommandVerbs()
    with pytest.raises(NotImplementedError):
        verbs.state  # noqa: B018
    with pytest.raises(NotImplementedError):
        verbs.output  # noqa: B018
    with pytest.raises(NotImplementedError):
        verbs.write_bytes(b"")
