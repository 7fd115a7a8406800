"""The exceptions: one tree, two worlds, and texts that a person can read."""

from __future__ import annotations

import pytest

from txqmp import errors
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    DescriptorError,
    DeserializationError,
    DisconnectedError,
    EventTimeoutError,
    ExecuteError,
    ExecuteTimeoutError,
    GreetingError,
    InvalidCommandError,
    ListenerError,
    ListenerOverflowError,
    MessageTooLongError,
    NegotiationError,
    ObjectTypeError,
    ProtocolError,
    QMPError,
    ServerParseError,
    StateError,
    TooManyCommandsError,
    UnexpectedTypeError,
)


EVERY = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, QMPError) and not each.__name__.startswith("_")
]

THE_PEERS = [
    DeserializationError,
    UnexpectedTypeError,
    ObjectTypeError,
    ServerParseError,
    MessageTooLongError,
    GreetingError,
    NegotiationError,
]


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    assert errors.__doc__ is not None
    drawn = [
        text.strip(" │├└─").split()[0] for text in errors.__doc__.splitlines() if "Error" in text
    ]
    assert set(drawn) >= {each.__name__ for each in EVERY}


@pytest.mark.parametrize("kind", THE_PEERS)
def test_what_the_peer_broke_is_a_protocol_error(kind: type[QMPError]) -> None:
    assert issubclass(kind, ProtocolError)


@pytest.mark.parametrize("kind", [each for each in EVERY if each not in THE_PEERS])
def test_what_the_caller_or_the_environment_broke_is_none(kind: type[QMPError]) -> None:
    assert kind is ProtocolError or not issubclass(kind, ProtocolError)


@pytest.mark.parametrize("kind", [ConnectTimeoutError, ExecuteTimeoutError, EventTimeoutError])
def test_each_deadline_is_a_builtin_timeout_error(kind: type[QMPError]) -> None:
    assert issubclass(kind, TimeoutError)


def test_a_command_that_cannot_be_written_is_a_value_error() -> None:
    assert issubclass(InvalidCommandError, ValueError)


def test_a_connect_error_says_why_and_how_far_it_came() -> None:
    error = ConnectError("no", ConnectFailure.BUSY, "greeting")
    assert (str(error), error.kind, error.phase) == ("no", ConnectFailure.BUSY, "greeting")


def test_a_connect_error_of_unknown_kind_is_of_the_kind_other() -> None:
    assert (ConnectError("no").kind, ConnectError("no").phase) == (ConnectFailure.OTHER, "connect")


def test_a_state_error_has_the_state() -> None:
    error = StateError("no", "idle")
    assert (str(error), error.state) == ("no", "idle")
    assert StateError("no").state is None


@pytest.mark.parametrize("kind", [InvalidCommandError, DescriptorError, TooManyCommandsError])
def test_a_command_that_was_not_written_is_named(kind: type[QMPError]) -> None:
    error = kind("it broke", "stop")
    assert (str(error), error.command) == ("it broke", "stop")  # type: ignore[attr-defined]


def test_an_execute_error_shows_command_text_and_class() -> None:
    error = ExecuteError("stop", "GenericError", "no such thing", "sent", "received")
    assert str(error) == "stop: no such thing (GenericError)"
    assert (error.command, error.error_class, error.desc) == (
        "stop",
        "GenericError",
        "no such thing",
    )
    assert (error.sent, error.received) == ("sent", "received")


@pytest.mark.parametrize(("sent", "fate"), [(True, "it may still run"), (False, "was not sent")])
def test_a_command_timeout_says_whether_it_may_still_run(sent: bool, fate: str) -> None:
    error = ExecuteTimeoutError("stop", 2.5, sent)
    assert str(error).startswith("stop: no reply within 2.5 s")
    assert str(error).endswith(fate)
    assert (error.command, error.timeout, error.sent) == ("stop", 2.5, sent)
    assert error.may_have_run is sent


@pytest.mark.parametrize(
    ("sent", "text"),
    [(True, "gone; stop was sent and may have run"), (False, "gone; stop was not sent")],
)
def test_a_disconnected_command_says_whether_it_may_have_run(sent: bool, text: str) -> None:
    error = DisconnectedError("gone", command="stop", sent=sent, expected=True, shutdown="event")
    assert str(error) == text
    assert error.may_have_run is sent
    assert (error.reason, error.sent, error.command) == ("gone", sent, "stop")
    assert (error.expected, error.shutdown) == (True, "event")


def test_a_disconnected_waiter_has_no_command() -> None:
    error = DisconnectedError("gone")
    assert str(error) == "gone"
    assert error.command is None
    assert not error.may_have_run
    assert not error.expected
    assert error.shutdown is None


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("STOP",), "no STOP within 3 s"),
        (("STOP", "RESUME"), "no STOP or RESUME within 3 s"),
        ((), "no event within 3 s"),
    ],
)
def test_an_event_timeout_names_what_was_waited_for(names: tuple[str, ...], text: str) -> None:
    error = EventTimeoutError(names, 3)
    assert (str(error), error.names, error.timeout) == (text, names, 3)
    assert isinstance(error, ListenerError)


def test_a_listener_overflow_is_a_listener_error() -> None:
    assert issubclass(ListenerOverflowError, ListenerError)


def test_what_is_not_json_is_shown_and_kept() -> None:
    error = DeserializationError("not JSON", b"hello")
    assert str(error) == "not JSON: b'hello'"
    assert error.raw == b"hello"


def test_what_is_shown_of_a_long_text_is_short() -> None:
    error = DeserializationError("not JSON", b"x" * 1_000_000)
    assert len(str(error)) < 300
    assert "more bytes" in str(error)
    assert len(error.raw) == 1_000_000


def test_what_is_no_object_is_shown_with_its_type() -> None:
    error = UnexpectedTypeError([1, 2])
    assert str(error) == "expected a JSON object, not list: [1, 2]"
    assert error.value == [1, 2]


def test_an_object_of_the_wrong_shape_is_shown_and_kept() -> None:
    error = ObjectTypeError("no event", {"event": 1})
    assert str(error) == "no event: {'event': 1}"
    assert error.raw == {"event": 1}


def test_a_server_parse_error_shows_what_the_server_said() -> None:
    error = ServerParseError("GenericError", "JSON parse error", "received")
    assert str(error) == "the server could not read its input: JSON parse error (GenericError)"
    assert (error.error_class, error.desc) == ("GenericError", "JSON parse error")
    assert error.received == "received"


def test_a_message_too_long_shows_its_beginning_and_the_limit() -> None:
    error = MessageTooLongError(10, b"x" * 11)
    assert str(error).startswith("a message of more than 10 bytes: b'xxx")
    assert (error.limit, error.raw) == (10, b"x" * 11)


def test_a_refused_negotiation_has_the_reply() -> None:
    error = NegotiationError("refused", "reply")
    assert (str(error), error.received) == ("refused", "reply")


def test_a_twin_is_like_the_first_but_not_the_same() -> None:
    first = DisconnectedError("gone", command="stop", sent=True, expected=True, shutdown="event")
    first.__cause__ = OSError("the wire was cut")
    twin = first.twin()
    assert twin is not first
    assert type(twin) is DisconnectedError
    assert str(twin) == str(first)
    assert vars(twin) == vars(first)
    assert twin.__cause__ is first.__cause__


def test_a_twin_does_not_collect_the_firsts_traceback() -> None:
    first = ConnectError("no", ConnectFailure.BUSY)
    with pytest.raises(ConnectError):
        raise first
    assert first.__traceback__ is not None
    assert first.twin().__traceback__ is None
