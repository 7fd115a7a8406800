"""
Commands on their way: from id to Deferred, at most a window of them in flight.

:class:`PendingCommands` knows no transport; its owner writes. What the peer must not see twice or
too early is decided here: the order of commands, the window (fact G22), one file descriptor at a
time (fact G32), and ids that stay reserved until their late reply has come (fact G29).
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txqmp.errors import (
    ExecuteError,
    ExecuteTimeoutError,
    InvalidCommandError,
    ObjectTypeError,
    ServerParseError,
    TooManyCommandsError,
)
from txqmp.jsontext import id_key
from txqmp.messages import ErrorReply, Message, SuccessReply, parse_message
from txqmp.pending import PendingCommand
from txqmp.timeouts import Alarm


DEFAULT_WINDOW = 8
"""How many in-band commands may be in flight (QMP spec, *Out-of-band execution*; fact G22)."""

DEFAULT_MAX_WAITING = 65_536
"""How many more may wait for their turn; one more fails at once."""


class CommandSender(Protocol):
    """What :class:`PendingCommands` needs of its owner."""

    def send(self, text: bytes, descriptor: int | None = None) -> bool:
        """Write a message, a descriptor with its first byte; ``False`` if it was held back."""

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """Call back when the transport's buffer is empty."""

    def still_waiting(self, command: PendingCommand, seconds: float) -> None:
        """A command has been pending for so long."""


class PendingCommands:
    """
    The commands of one session.

    :param sender: what writes for it.
    :param clock: where the time limits come from.
    :param window: how many in-band commands may be in flight, at least one. More wait, in order.
    :param max_waiting: how many may wait.
    :param strict: take replies with unknown members for malformed ones.
    :param slow: after how many seconds to tell the sender that a command still waits, and again
        after each doubling; ``None`` for never.

    :ivar late_replies: replies to commands whose caller had gone; swallowed.
    :ivar unknown_replies: replies whose id is nobody's; dropped (QMP spec, *Out-of-band
        execution*).
    """

    __slots__ = (
        "_alarm",
        "_blurred",
        "_clock",
        "_descriptor_command",
        "_draining",
        "_in_flight",
        "_last_id",
        "_max_waiting",
        "_nameless",
        "_number",
        "_prefix",
        "_quit_done",
        "_sender",
        "_slow",
        "_strict",
        "_table",
        "_waiting",
        "late_replies",
        "unknown_replies",
        "window",
    )

    def __init__(
        self,
        sender: CommandSender,
        clock: IReactorTime,
        *,
        window: int = DEFAULT_WINDOW,
        max_waiting: int = DEFAULT_MAX_WAITING,
        strict: bool = False,
        slow: float | None = None,
    ) -> None:
        if window < 1:
            raise ValueError(f"a window of {window} lets no command through")
        self.window = window
        self.late_replies = 0
        self.unknown_replies = 0
        self._sender = sender
        self._clock = clock
        self._max_waiting = max_waiting
        self._slow = math.inf if slow is None else slow
        self._strict = strict
        self._quit_done = False
        self._prefix = secrets.token_hex(4)
        self._last_id = 0
        self._number = 0
        self._in_flight = 0
        self._table: dict[Hashable, PendingCommand] = {}
        self._waiting: OrderedDict[int, PendingCommand] = OrderedDict()
        # Commands without an id, in the order in which they were sent.
        self._nameless: list[PendingCommand] = []
        self._descriptor_command: PendingCommand | None = None
        self._draining = False
        # The last command before bytes of unknown meaning were sent; see blur().
        self._blurred = -1
        self._alarm = Alarm(clock, self._check_limits)

    def __len__(self) -> int:
        """How many commands have no reply yet, those that wait and the abandoned ones included."""
        return len(self._all())

    @property
    def in_flight(self) -> int:
        """How many in-band commands were sent and have no reply yet."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many commands wait for their turn."""
        return len(self._waiting)

    @property
    def quitting(self) -> bool:
        """Whether the peer was sent a ``quit`` that it has not refused: its end is foreseen."""
        return self._quit_done or any(c.sent and c.name == "quit" for c in self._all())

    @property
    def awaits_nameless(self) -> bool:
        """Whether a command without an id is in flight."""
        return bool(self._nameless)

    def next_id(self) -> str:
        """A fresh id: a prefix that is random for each session, and a number (fact G9)."""
        self._last_id += 1
        return f"{self._prefix}-{self._last_id}"

    def issue(
        self,
        name: str,
        text: bytes,
        key: Hashable | None,
        oob: bool = False,
        timeout: float | None = None,
        descriptor: int | None = None,
        whole: bool = False,
    ) -> Deferred[Any]:
        """
        Send a command, now or when its turn comes.

        :param name: its name, for errors.
        :param text: its whole text, with the id in it.
        :param key: the id's key; ``None`` if it has no id: then it is taken to be answered in the
            order of those that have none.
        :param oob: send it at once, whatever is in flight.
        :param timeout: in seconds, from now.
        :param descriptor: one that is ours to close.
        :param whole: give the caller the reply as a :class:`~txqmp.messages.Message`, whether it
            tells of success or failure.
        :returns: a Deferred of what the command returned. Cancelling it frees the caller; a
            command that was sent may run all the same.
        :raises ExecuteError: (by the Deferred, as all of these) the peer answered with an error.
        :raises ExecuteTimeoutError: the limit passed.
        :raises InvalidCommandError: the id is in use, or a tap held the command back.
        :raises TooManyCommandsError: too many commands wait.
        """
        command = PendingCommand(self.abandon, name, text, key, oob, timeout, descriptor, whole)
        deferred = command._deferred
        assert deferred is not None
        if key is not None and key in self._table:
            self._refuse(command, InvalidCommandError(f"{name}: its id is in use", name))
            return deferred
        self._number += 1
        command.number = self._number
        must_wait = not oob and (bool(self._waiting) or self._in_flight >= self.window)
        if must_wait and len(self._waiting) >= self._max_waiting:
            error = TooManyCommandsError(f"{name}: {len(self._waiting)} commands wait", name)
            self._refuse(command, error)
            return deferred
        if key is not None:
            self._table[key] = command
        self._set_limits(command)
        if not must_wait and descriptor is None:
            self._send(command)
        else:
            self._waiting[command.number] = command
            self._pump()
        return deferred

    @staticmethod
    def _refuse(command: PendingCommand, error: Exception) -> None:
        command.close_descriptor()
        command.fail(error)

    def blur(self) -> None:
        """
        The peer was sent what it may not be able to read: an error without an id may be the
        answer to that, until a command that was issued later is answered.
        """
        self._blurred = self._number

    # Sending

    def _send(self, command: PendingCommand) -> None:
        command.sent = True
        if not command.oob:
            self._in_flight += 1
        if command.descriptor is not None:
            self._descriptor_command = command
        if command.key is None:
            self._nameless.append(command)
        problem: Exception | None = None
        try:
            if not self._sender.send(command.text, command.descriptor):
                problem = InvalidCommandError(f"{command.name}: a tap held it back", command.name)
        except Exception as error:
            problem = InvalidCommandError(f"{command.name}: {error}", command.name)
            problem.__cause__ = error
        if problem is not None:
            command.sent = False
            self._forget(command)
            command.fail(problem)

    def _pump(self) -> None:
        while self._waiting and self._in_flight < self.window:
            number, command = next(iter(self._waiting.items()))
            if command.descriptor is not None:
                if self._descriptor_command is None and not self._draining:
                    self._draining = True
                    self._sender.call_when_drained(self._drained)
                return
            del self._waiting[number]
            self._send(command)

    def _drained(self) -> None:
        self._draining = False
        if self._waiting and self._in_flight < self.window and self._descriptor_command is None:
            number, command = next(iter(self._waiting.items()))
            if command.descriptor is not None:
                del self._waiting[number]
                self._send(command)
        self._pump()

    def _forget(self, command: PendingCommand) -> None:
        """A sent command is over: its place in the window is free."""
        if command.key is not None:
            self._table.pop(command.key, None)
        else:
            self._nameless.remove(command)
        if not command.oob:
            self._in_flight -= 1
        if command.descriptor is not None:
            self._descriptor_command = None
            command.close_descriptor()

    # Replies

    def expects(self, ident: Any) -> bool:
        """Whether a reply with this id would answer a command."""
        command = self._table.get(id_key(ident))
        return command is not None and command.sent

    def settle(self, reply: dict[str, Any]) -> bool:
        """
        Give a reply that has an id to the command that it answers.

        :returns: whether there is such a command. A reply of the wrong shape is its command's
            failure, an :exc:`~txqmp.errors.ObjectTypeError`.
        """
        key = reply["id"]
        if type(key) is not str:
            key = id_key(key)
        command = self._table.get(key)
        if command is None or not command.sent:
            self.unknown_replies += 1
            return False
        self._answer(command, reply)
        return True

    def settle_nameless(self, reply: dict[str, Any]) -> bool:
        """
        Give a reply without an id to the command that it must mean: the first that was sent
        without one, or, if it tells that the peer could not read its input, the only one that
        is in flight.

        :returns: whether there is such a command.
        """
        if self._nameless:
            self._answer(self._nameless[0], reply)
            return True
        if "error" not in reply or self._blurred >= 0:
            return False
        suspects = [command for command in self._table.values() if command.sent]
        if len(suspects) != 1:
            return False
        self._forget(suspects[0])
        # One bad text can bring many errors: the others are not the next command's.
        self.blur()
        self._pump()
        try:
            parsed = ErrorReply(reply)
            error: Exception = ServerParseError(parsed.error.error_class, parsed.error.desc, parsed)
        except ObjectTypeError as problem:
            error = problem
        suspects[0].fail(error)
        return True

    def _answer(self, command: PendingCommand, reply: dict[str, Any]) -> None:
        if command.number > self._blurred and not command.oob:
            self._blurred = -1
        self._forget(command)
        if command.name == "quit" and "return" in reply:
            self._quit_done = True
        if self._waiting:
            self._pump()
        if command._deferred is None:
            self.late_replies += 1
        elif command.whole:
            command.succeed(Message.adopt(reply))
        elif "return" in reply and "error" not in reply and not self._strict:
            command.succeed(reply["return"])
        else:
            self._read_reply(command, reply)

    def _read_reply(self, command: PendingCommand, reply: dict[str, Any]) -> None:
        try:
            parsed = parse_message(reply, strict=self._strict)
        except ObjectTypeError as error:
            command.fail(error)
            return
        if isinstance(parsed, SuccessReply):
            command.succeed(parsed.value)
        elif isinstance(parsed, ErrorReply):
            info = parsed.error
            sent = Message(command.text)
            command.fail(ExecuteError(command.name, info.error_class, info.desc, sent, parsed))
        else:
            command.fail(ObjectTypeError("not a reply", reply))

    # Ends

    def abandon(self, command: PendingCommand) -> None:
        """
        The caller has gone. A command that still waits is never sent; one that was sent keeps its
        id and its place until the late reply comes.
        """
        if not command.sent and self._waiting.pop(command.number, None) is not None:
            if command.key is not None:
                del self._table[command.key]
            command.close_descriptor()
            self._pump()

    def end(self, fail: Callable[[PendingCommand], None]) -> None:
        """
        The session is over: each command, in the order of the calls, is given to ``fail``, which
        ends it. The table is empty by then.
        """
        self._alarm.cancel()
        pending = self._all()
        self._table.clear()
        self._nameless.clear()
        self._waiting.clear()
        self._in_flight = 0
        self._descriptor_command = None
        for command in pending:
            command.close_descriptor()
        for command in sorted(pending, key=lambda command: command.number):
            fail(command)

    def _all(self) -> list[PendingCommand]:
        """Every command that has no reply yet, in no order."""
        waiting = (command for command in self._waiting.values() if command.key is None)
        return [*self._table.values(), *self._nameless, *waiting]

    # Time limits

    def _set_limits(self, command: PendingCommand) -> None:
        now = self._clock.seconds()
        command.since = now
        command.notice_at = first = now + self._slow
        command.deadline = now + command.timeout if command.timeout is not None else math.inf
        if command.deadline < first:
            first = command.deadline
        if first < self._alarm.at:  # seldom: most deadlines are later than an older command's
            self._alarm.set(first)

    def _check_limits(self) -> None:
        now = self._clock.seconds()
        reached = now + Alarm.GRAIN
        expired: list[PendingCommand] = []
        slow: list[PendingCommand] = []
        for command in self._all():
            if command._deferred is None:
                continue
            if command.deadline <= reached:
                expired.append(command)
                continue
            if command.notice_at <= reached:
                command.notice_at = now + (now - command.since)
                slow.append(command)
            self._alarm.set(min(command.deadline, command.notice_at))
        for command in slow:
            self._sender.still_waiting(command, now - command.since)
        for command in expired:
            deferred, command._deferred = command._deferred, None
            self.abandon(command)
            if deferred is not None:
                assert command.timeout is not None
                deferred.errback(ExecuteTimeoutError(command.name, command.timeout, command.sent))
