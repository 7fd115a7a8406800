"""
What can be wrong with a server: faults for a :class:`~txqmp.testing.SimulatedVM`.

::

    vm = SimulatedVM(clock, faults=[
        Before("greeting", stop_event),                # fact G8
        Before("qmp_capabilities", STALE_ERROR),       # fact G9
        Pretty(),                                      # fact G13
        SplitWrites(1),                                # fact G15
    ])
    vm.faults.append(silent("query-status"))           # faults can come later, and go

A fault looks at each message on its way out and says what is sent in its place. Where it takes
the name of a message, that is ``"greeting"``, a command's name for its reply, or an event's name;
globs such as ``"query-*"`` or ``"*"`` do too. Faults work in the order of their list.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import orjson

from txqmp.messages import Event
from txqmp.server.protocol import Sent
from txqmp.testing.steps import (
    IDLESS_ERROR,
    Close,
    Joined,
    Pause,
    Pieces,
    Reset,
    Silence,
    Step,
    line,
)


@attrs.frozen
class Outgoing:
    """
    A message on its way to the client.

    :ivar name: ``"greeting"``, the name of the command whose reply it is (empty where no command
        was recognised), or the event's name.
    :ivar kind: ``"greeting"``, ``"reply"`` or ``"event"``.
    :ivar data: the bytes to send, its line end included.
    """

    name: str
    kind: Sent
    data: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The message as an object."""
        message: dict[str, Any] = orjson.loads(self.data)
        return message


Change = Iterable[Outgoing | Step]
"""What is sent in the place of a message."""


class Fault:
    """Something that is wrong with a server. Override :meth:`change` or :meth:`cut`, or both."""

    @property
    def resets(self) -> bool:
        """Whether it may reset the connection (:class:`~txqmp.testing.Reset`)."""
        return False

    def change(self, message: Outgoing) -> Change:
        """What is sent instead of a message."""
        return [message]

    def cut(self, data: bytes) -> Iterable[Step]:
        """How bytes are written."""
        return [data]


class NamedFault(Fault):
    """
    A fault that befalls the messages of a name. Override :meth:`befall`.

    :param name: the messages' name, or a glob.
    :param times: how many of them; ``None`` for all.
    """

    def __init__(self, name: str, *, times: int | None = None) -> None:
        self.name = name
        self.times = times

    def change(self, message: Outgoing) -> Change:
        if self.times == 0 or not fnmatch.fnmatchcase(message.name, self.name):
            return [message]
        if self.times is not None:
            self.times -= 1
        return self.befall(message)

    def befall(self, message: Outgoing) -> Change:
        """What is sent instead of one of these messages."""
        raise NotImplementedError


class Before(NamedFault):
    """
    Other things are sent before a message: events before the greeting or before the reply to
    ``qmp_capabilities`` (fact G8), replies to the connection's previous client (fact G9), errors
    without an id (fact G18), garbage (fact G20), replies that nobody waits for.

    :param name: the message's name.
    :param what: the steps, such as an object, bytes, or a :class:`~txqmp.testing.Pause`.
    :param times: before how many messages; ``None`` for all.
    """

    def __init__(self, name: str, *what: Step, times: int | None = None) -> None:
        super().__init__(name, times=times)
        self.what = what

    @property
    def resets(self) -> bool:
        return Reset() in self.what

    def befall(self, message: Outgoing) -> Change:
        return [*self.what, message]


class After(Before):
    """
    Other things are sent after a message, such as a second greeting, or the connection ends
    after it (:class:`~txqmp.testing.Close`); else as :class:`Before`.
    """

    def befall(self, message: Outgoing) -> Change:
        return [message, *self.what]


class Instead(Before):
    """Other things are sent in the place of a message; else as :class:`Before`."""

    def befall(self, message: Outgoing) -> Change:
        return self.what


def silent(name: str) -> Instead:
    """
    A message is not sent, nor any later one: the peer is connected, and silent (fact G5). With
    ``"greeting"`` it never greets, with ``"qmp_capabilities"`` it never negotiates.
    """
    return Instead(name, Silence())


def idless_errors(name: str, count: int = 1027) -> Before:
    """Many errors without an id before a message, as nesting that is too deep brings (fact G18)."""
    return Before(name, *[IDLESS_ERROR] * count, times=1)


class Altered(NamedFault):
    """
    A message is another than it should be.

    :param name: the message's name.
    :param alter: from the object that it should be, the object or the bytes that it is.
    :param times: how many messages; ``None`` for all.
    """

    def __init__(
        self,
        name: str,
        alter: Callable[[dict[str, Any]], Mapping[str, Any] | bytes],
        *,
        times: int | None = None,
    ) -> None:
        super().__init__(name, times=times)
        self.alter = alter

    def befall(self, message: Outgoing) -> Change:
        altered = self.alter(message.message)
        data = altered if isinstance(altered, bytes) else line(altered)
        return [attrs.evolve(message, data=data)]


def malformed(name: str, **members: Any) -> Altered:
    """
    A reply that has its id, and else only these members: an ``error`` that is no object, no
    member at all, ``return`` and ``error`` together.
    """
    return Altered(name, lambda reply: _with_id(reply, members))


def huge(name: str, size: int) -> Altered:
    """A reply that returns a string of ``size`` characters (fact G14)."""
    return Altered(name, lambda reply: _with_id(reply, {"return": "x" * size}))


def wrong_id(name: str, ident: Any) -> Altered:
    """A reply with an id that the client did not give."""
    return Altered(name, lambda reply: {**reply, "id": ident})


def without_id(name: str) -> Altered:
    """A reply whose id got lost."""
    return Altered(name, lambda reply: {key: reply[key] for key in reply if key != "id"})


def _with_id(reply: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    return {**members, "id": reply["id"]} if "id" in reply else members


class Duplicate(NamedFault):
    """A message is sent twice."""

    def befall(self, message: Outgoing) -> Change:
        return [message, message]


class Late(NamedFault):
    """
    A message comes late, and with it all that follow (fact G6).

    :param name: the message's name.
    :param seconds: how late.
    :param times: how many messages; ``None`` for all.
    """

    def __init__(self, name: str, seconds: float, *, times: int | None = None) -> None:
        super().__init__(name, times=times)
        self.seconds = seconds

    def befall(self, message: Outgoing) -> Change:
        return [Pause(self.seconds), message]


class Torn(NamedFault):
    """
    The connection ends within a message.

    :param name: the message's name.
    :param after: how many bytes of it are sent.
    :param then: how the connection ends.
    :param times: how many messages; ``None`` for all.
    """

    def __init__(
        self, name: str, after: int, then: Close | Reset, *, times: int | None = None
    ) -> None:
        super().__init__(name, times=times)
        self.after = after
        self.then = then

    @property
    def resets(self) -> bool:
        return isinstance(self.then, Reset)

    def befall(self, message: Outgoing) -> Change:
        return [attrs.evolve(message, data=message.data[: self.after]), self.then]


class Pretty(Fault):
    """Each object is spread over many lines, as with QEMU's ``pretty=on`` (fact G13)."""

    def change(self, message: Outgoing) -> Change:
        text = json.dumps(message.message, indent=4).replace("\n", "\r\n")
        return [attrs.evolve(message, data=text.encode() + b"\r\n")]


class SplitWrites(Fault):
    """
    What is written comes in small pieces, each in a turn of its own (fact G15).

    :param size: of the pieces, in bytes.
    :param delay: the time between them, in seconds.
    """

    def __init__(self, size: int = 1, delay: float = 0.0) -> None:
        self.size = size
        self.delay = delay

    def cut(self, data: bytes) -> Iterable[Step]:
        return [Pieces(data, self.size, self.delay)]


class JoinWrites(Fault):
    """
    What is written within a time comes in one piece (fact G15).

    :param within: the time, in seconds.
    """

    def __init__(self, within: float = 0.1) -> None:
        self.within = within

    def cut(self, data: bytes) -> Iterable[Step]:
        return [Joined(data, self.within)]


def apply(faults: Iterable[Fault], message: Outgoing) -> list[Step]:
    """What a server with these faults does to send a message."""
    faults = tuple(faults)
    change: list[Outgoing | Step] = [message]
    for fault in faults:
        changed: list[Outgoing | Step] = []
        for item in change:
            changed += fault.change(item) if isinstance(item, Outgoing) else [item]
        change = changed
    plan: list[Step] = [_plain(item) for item in change]
    for fault in faults:
        cut: list[Step] = []
        for step in plan:
            cut += fault.cut(step) if isinstance(step, bytes) else [step]
        plan = cut
    return plan


def _plain(item: Outgoing | Step) -> Step:
    if isinstance(item, Outgoing):
        return item.data
    return line(item) if isinstance(item, (Mapping, Event)) else item
