"""
The messages of QMP, as frozen classes over the object that came.

Each keeps the whole object as ``raw`` and derives its members from it, so nothing that a newer
QEMU adds is lost: unknown members are in ``extra``. Treat ``raw``, ``data`` and ``arguments`` as
read-only: every receiver of a message shares them.

An object of the wrong shape is an :exc:`~txqmp.errors.ObjectTypeError` that shows it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, TypeVar

import attrs

from txqmp.errors import ObjectTypeError
from txqmp.jsontext import Message
from txqmp.redaction import redact


_EMPTY: Mapping[str, Any] = {}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class NoId(enum.Enum):
    """The type of :data:`NO_ID`."""

    NO_ID = "no id"


NO_ID = NoId.NO_ID
"""The ``id`` of a message that carries none; ``None`` is an id, JSON's ``null``."""


_Kind = TypeVar("_Kind", bound="_Model")


@attrs.frozen(slots=True, repr=False, hash=False)
class _Model:
    """What the messages share: the object that came, checked when the message is made."""

    raw: Mapping[str, Any]

    known: ClassVar[frozenset[str]] = frozenset()

    def __attrs_post_init__(self) -> None:
        self._check(self.raw)

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @classmethod
    def parse(cls: type[_Kind], raw: Mapping[str, Any], *, strict: bool = False) -> _Kind:
        """
        The message that an object is.

        :param raw: the object.
        :param strict: refuse members that this class does not know.
        :raises ObjectTypeError: the object has not this message's shape.
        """
        message = cls(raw)
        if strict and message.extra:
            names = ", ".join(sorted(message.extra))
            raise ObjectTypeError(f"unknown member of {cls.__name__}: {names}", raw)
        return message

    @property
    def extra(self) -> dict[str, Any]:
        """The members that this class does not know."""
        return {name: value for name, value in self.raw.items() if name not in self.known}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({redact(self.raw)!r})"


@attrs.frozen(slots=True, repr=False, hash=False)
class Greeting(_Model):
    """
    What QEMU says first: ``{"QMP": {"version": …, "capabilities": […]}}``
    (QMP spec, *Server Greeting*).
    """

    known: ClassVar[frozenset[str]] = frozenset({"QMP"})

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        hello = raw.get("QMP")
        version = hello.get("version") if isinstance(hello, dict) else None
        triple = version.get("qemu") if isinstance(version, dict) else None
        capabilities = hello.get("capabilities") if isinstance(hello, dict) else None
        if not (
            isinstance(version, dict)
            and isinstance(version.get("package", ""), str)
            and isinstance(triple, dict)
            and all(type(triple.get(part)) is int for part in ("major", "minor", "micro"))
            and isinstance(capabilities, list)
        ):
            raise ObjectTypeError("not a QMP greeting", raw)

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version: major, minor, micro."""
        triple = self.raw["QMP"]["version"]["qemu"]
        return (triple["major"], triple["minor"], triple["micro"])

    @property
    def package(self) -> str:
        """The packager's version text, often empty."""
        package: str = self.raw["QMP"]["version"].get("package", "")
        return package

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The names of the capabilities offered, such as ``"oob"``; what is no name is left out."""
        return tuple(name for name in self.raw["QMP"]["capabilities"] if isinstance(name, str))

    @property
    def extra(self) -> dict[str, Any]:
        """The unknown members, those beside ``version`` and ``capabilities`` included."""
        inner = {
            name: value
            for name, value in self.raw["QMP"].items()
            if name not in ("version", "capabilities")
        }
        return {**inner, **super().extra}


@attrs.frozen(slots=True, repr=False, hash=False)
class Command(_Model):
    """A command: ``{"execute": name, "arguments": {…}, "id": …}`` (spec, *Issuing Commands*)."""

    known: ClassVar[frozenset[str]] = frozenset({"execute", "exec-oob", "arguments", "id"})

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        verbs = [verb for verb in ("execute", "exec-oob") if verb in raw]
        if len(verbs) != 1 or not isinstance(raw[verbs[0]], str):
            raise ObjectTypeError("a command names one of execute, exec-oob", raw)
        if not isinstance(raw.get("arguments", _EMPTY), Mapping):
            raise ObjectTypeError("the arguments of a command are an object", raw)

    @classmethod
    def make(
        cls,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        oob: bool = False,
        id: object = NO_ID,
    ) -> Command:
        """
        A command from its parts.

        :param name: the command's name.
        :param arguments: its arguments, by name.
        :param oob: to be run out of band (``exec-oob``).
        :param id: any JSON value; left out by default.
        :raises ObjectTypeError: the name is no string or the arguments are no mapping.
        """
        raw: dict[str, Any] = {"exec-oob" if oob else "execute": name}
        if arguments is not None:
            raw["arguments"] = arguments
        if id is not NO_ID:
            raw["id"] = id
        return cls(raw)

    @property
    def name(self) -> str:
        """The command's name."""
        name: str = self.raw["exec-oob"] if self.oob else self.raw["execute"]
        return name

    @property
    def oob(self) -> bool:
        """Whether it is to be run out of band."""
        return "exec-oob" in self.raw

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name; empty where the command has none."""
        arguments: Mapping[str, Any] = self.raw.get("arguments", _EMPTY)
        return arguments

    @property
    def id(self) -> Any:
        """The id, any JSON value, or :data:`NO_ID`."""
        return self.raw.get("id", NO_ID)


@attrs.frozen(slots=True, repr=False, hash=False)
class SuccessReply(_Model):
    """A command's success: ``{"return": value, "id": …}`` (QMP spec, *Success*)."""

    known: ClassVar[frozenset[str]] = frozenset({"return", "id"})

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        if "return" not in raw or "error" in raw:
            raise ObjectTypeError("not a success reply", raw)

    @property
    def value(self) -> Any:
        """What the command returned: any JSON value."""
        return self.raw["return"]

    @property
    def id(self) -> Any:
        """The command's id, or :data:`NO_ID`."""
        return self.raw.get("id", NO_ID)


@attrs.frozen(slots=True)
class ErrorInfo:
    """
    What went wrong.

    :ivar error_class: QMP's ``class``, nearly always ``GenericError``.
    :ivar desc: a text for people.
    """

    error_class: str
    desc: str


@attrs.frozen(slots=True, repr=False, hash=False)
class ErrorReply(_Model):
    """
    A command's failure: ``{"error": {"class": …, "desc": …}, "id": …}`` (QMP spec, *Error*).
    Without an id (:attr:`id` is :data:`NO_ID`) it tells that the server could not read its input.
    """

    known: ClassVar[frozenset[str]] = frozenset({"error", "id"})

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        error = raw.get("error")
        if (
            not isinstance(error, dict)
            or not isinstance(error.get("class"), str)
            or not isinstance(error.get("desc"), str)
            or "return" in raw
        ):
            raise ObjectTypeError("not an error reply", raw)

    @property
    def error(self) -> ErrorInfo:
        """Class and text of the error."""
        return ErrorInfo(self.raw["error"]["class"], self.raw["error"]["desc"])

    @property
    def id(self) -> Any:
        """The command's id, or :data:`NO_ID`."""
        return self.raw.get("id", NO_ID)

    @property
    def extra(self) -> dict[str, Any]:
        """The unknown members, those of the error included."""
        inner = {
            name: value
            for name, value in self.raw["error"].items()
            if name not in ("class", "desc")
        }
        return {**inner, **super().extra}


@attrs.frozen(slots=True)
class Timestamp:
    """
    When an event happened, by the host's clock.

    :ivar seconds: since the epoch; -1 when the clock failed (fact G40).
    :ivar microseconds: of the second, 0 to 999999; -1 when the clock failed.
    """

    seconds: int
    microseconds: int

    @property
    def known(self) -> bool:
        """Whether the host's clock gave a time."""
        return self.seconds >= 0 and self.microseconds >= 0

    def datetime(self) -> datetime | None:
        """The time in UTC; ``None`` when it is not known or no calendar holds it."""
        if not self.known:
            return None
        try:
            return _EPOCH + timedelta(seconds=self.seconds, microseconds=self.microseconds)
        except OverflowError:
            return None


@attrs.frozen(slots=True, repr=False, hash=False)
class Event(_Model):
    """
    Something that happened: ``{"event": name, "data": {…}, "timestamp": {…}}``
    (QMP spec, *Asynchronous events*).
    """

    known: ClassVar[frozenset[str]] = frozenset({"event", "data", "timestamp"})

    @staticmethod
    def _check(raw: Mapping[str, Any]) -> None:
        if type(raw.get("event")) is not str:
            raise ObjectTypeError("the name of an event is a string", raw)
        if "data" in raw and type(raw["data"]) is not dict:
            raise ObjectTypeError("the data of an event are an object", raw)
        stamp = raw.get("timestamp")
        if stamp is None:
            return
        if (
            type(stamp) is not dict
            or type(stamp.get("seconds")) is not int
            or type(stamp.get("microseconds")) is not int
        ):
            raise ObjectTypeError("the timestamp of an event is in seconds and microseconds", raw)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Event:
        """The event that an object is: the same as ``Event(raw)``, in a third of the time."""
        try:
            stamp = raw["timestamp"]
            sound = (
                type(raw["event"]) is str
                and type(stamp["seconds"]) is int
                and type(stamp["microseconds"]) is int
                and ("data" not in raw or type(raw["data"]) is dict)
            )
        except (KeyError, TypeError):
            sound = False
        if not sound:
            cls._check(raw)
        event = _new_event(Event)
        _set_raw(event, raw)
        return event

    @classmethod
    def make(
        cls, name: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        """
        An event from its parts.

        :param name: the event's name.
        :param data: its data; left out where ``None``.
        :param at: when it happened, in seconds since the epoch; -1 and -1 where ``None``.
        """
        raw: dict[str, Any] = {"event": name}
        if data is not None:
            raw["data"] = dict(data)
        seconds, microseconds = (-1, -1) if at is None else divmod(round(at * 1_000_000), 1_000_000)
        raw["timestamp"] = {"seconds": seconds, "microseconds": microseconds}
        return cls(raw)

    @property
    def name(self) -> str:
        """The event's name, such as ``"STOP"``."""
        name: str = self.raw["event"]
        return name

    @property
    def data(self) -> Mapping[str, Any]:
        """The event's data by name; empty where the event has none."""
        data: Mapping[str, Any] = self.raw.get("data", _EMPTY)
        return data

    @property
    def timestamp(self) -> Timestamp:
        """When it happened; not known (-1) where the server left it out."""
        stamp = self.raw.get("timestamp")
        if stamp is None:
            return Timestamp(-1, -1)
        return Timestamp(stamp["seconds"], stamp["microseconds"])


_new_event = Event.__new__
_set_raw = _Model.__dict__["raw"].__set__

AnyMessage = Greeting | SuccessReply | ErrorReply | Event
"""What a server sends."""


def parse_message(raw: Mapping[str, Any], *, strict: bool = False) -> AnyMessage:
    """
    The message that an object from a server is, told by its members.

    :param raw: the object.
    :param strict: refuse unknown members.
    :raises ObjectTypeError: it is none, or not of its shape.
    """
    kind: type[AnyMessage]
    if "event" in raw:
        kind = Event
    elif "return" in raw:
        kind = SuccessReply
    elif "error" in raw:
        kind = ErrorReply
    elif "QMP" in raw:
        kind = Greeting
    else:
        raise ObjectTypeError("neither a greeting nor a reply nor an event", raw)
    return kind.parse(raw, strict=strict)


__all__ = [
    "NO_ID",
    "AnyMessage",
    "Command",
    "ErrorInfo",
    "ErrorReply",
    "Event",
    "Greeting",
    "Message",
    "SuccessReply",
    "Timestamp",
    "parse_message",
]
