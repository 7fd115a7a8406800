"""The verbs for commands: what a session offers to those who want something done."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail

from txqmp.dispatch import PendingCommands
from txqmp.errors import (
    DescriptorError,
    DisconnectedError,
    InvalidCommandError,
    ObjectTypeError,
    ProtocolError,
    StateError,
)
from txqmp.jsontext import Message, UnwritableError, id_key, read_object, write
from txqmp.lifecycle import Lifecycle, RunState
from txqmp.messages import Command
from txqmp.output import Output
from txqmp.settings import SessionSettings
from txqmp.timeouts import FROM_TABLE, Limit


class HasFileno(Protocol):
    """A file-like object."""

    def fileno(self) -> int: ...


Descriptor = int | HasFileno
"""A file descriptor, or an object that has one."""

_RUNNING = RunState.RUNNING


class CommandVerbs:
    """
    The verbs for commands, on an object that is a session.

    :ivar settings: what was chosen for the session.
    :ivar oob_enabled: whether out-of-band commands can be executed.
    """

    settings: SessionSettings
    oob_enabled = False

    _lifecycle: Lifecycle
    _pending: PendingCommands
    _end: DisconnectedError | None = None

    @property
    def state(self) -> RunState:
        """What the session is doing."""
        raise NotImplementedError

    @property
    def output(self) -> Output:
        """The connection's way out."""
        raise NotImplementedError

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        raise NotImplementedError

    def execute(
        self,
        cmd: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        oob: bool = False,
        timeout: Limit = FROM_TABLE,
        fds: Sequence[Descriptor] = (),
    ) -> Deferred[Any]:
        """
        Execute a command.

        :param cmd: its name.
        :param arguments: its arguments, by name.
        :param oob: execute it out of band, past the commands that wait or run.
        :param timeout: in seconds, until the reply, the wait for its turn included; ``None`` for
            no limit. Without it the session's table decides (:mod:`txqmp.timeouts`).
        :param fds: at most one file descriptor to travel with the command (``getfd``,
            ``add-fd``). It is duplicated here: close yours when you like.
        :returns: a Deferred of what the command returned. Cancelling it frees the caller; a
            command that was sent may run all the same. ``quit`` succeeds when its reply or the
            end of the session comes.
        :raises ExecuteError: (by the Deferred, as all of these) the peer answered with an error.
        :raises ExecuteTimeoutError: the limit passed.
        :raises DisconnectedError: the session ended first.
        :raises StateError: the session is not running, or ``oob`` was not enabled.
        :raises InvalidCommandError: the command has no JSON text that QEMU reads, or a tap held
            it back.
        :raises DescriptorError: the descriptor cannot travel.
        :raises TooManyCommandsError: too many commands wait for their turn.
        :raises ServerParseError: the peer could not read what it was sent.
        """
        members: dict[str, Any] = {
            "exec-oob" if oob else "execute": cmd,
            "id": self._pending.next_id(),
        }
        if arguments is not None:
            if type(arguments) is not dict and not isinstance(arguments, Mapping):
                problem = f"{cmd}: the arguments of a command are a mapping, not {arguments!r}"
                return fail(InvalidCommandError(problem, cmd))
            members["arguments"] = arguments
        return self._issue(cmd, members, oob, timeout, fds)

    def execute_msg(
        self,
        msg: Message | Mapping[str, Any],
        *,
        timeout: Limit = FROM_TABLE,
        fds: Sequence[Descriptor] = (),
    ) -> Deferred[Any]:
        """
        Execute a command that is a message already. It gets an id if it has none.

        :param msg: such as :meth:`make_execute_msg` makes; it is not changed.
        :returns: as :meth:`execute`, and so the other parameters and errors.
        """
        try:
            command = Command(dict(msg))
        except ObjectTypeError as error:
            return fail(InvalidCommandError(str(error), None))
        members = dict(msg)
        if "id" not in members:
            members["id"] = self._pending.next_id()
        return self._issue(command.name, members, command.oob, timeout, fds)

    @staticmethod
    def make_execute_msg(
        cmd: str, arguments: Mapping[str, Any] | None = None, *, oob: bool = False
    ) -> Message:
        """A command as a message, without an id, for :meth:`execute_msg`."""
        return Message(Command.make(cmd, arguments, oob=oob).raw)

    def execute_raw(
        self,
        msg: Message | Mapping[str, Any] | bytes,
        *,
        assign_id: bool = True,
        timeout: Limit = FROM_TABLE,
    ) -> Deferred[Message]:
        """
        Send any object, and take whatever answers it: nothing is checked but that it is JSON.

        :param msg: the object, or its text.
        :param assign_id: give it an id if it has none. Otherwise the first reply without an id
            is taken for its reply.
        :param timeout: as for :meth:`execute`.
        :returns: a Deferred of the whole reply, be it success or error.
        :raises InvalidCommandError: (by the Deferred) it is no JSON object.
        """
        try:
            members = dict(msg if isinstance(msg, Mapping) else Message(msg))
        except ProtocolError as error:
            return fail(InvalidCommandError(str(error), None))
        if assign_id and "id" not in members:
            members["id"] = self._pending.next_id()
        oob = "exec-oob" in members
        name = members.get("exec-oob" if oob else "execute")
        return self._issue(
            name if isinstance(name, str) else "command",
            members,
            oob=oob,
            timeout=timeout,
            whole=True,
            checked=False,
        )

    def write_raw(self, data: bytes) -> None:
        """
        Write bytes as they are, such as half a command or no JSON at all.

        :raises StateError: the session is not running.
        """
        if self.state is not RunState.RUNNING:
            raise self._wrong_state("write_raw")
        self._pending.blur()
        self.write_bytes(data)

    def _issue(
        self,
        name: str,
        members: dict[str, Any],
        oob: bool,
        timeout: Limit,
        fds: Sequence[Descriptor] = (),
        whole: bool = False,
        checked: bool = True,
    ) -> Deferred[Any]:
        if self._lifecycle.state is not _RUNNING:
            return fail(self._wrong_state(name))
        if checked:
            if not isinstance(name, str):
                return fail(InvalidCommandError(f"a command's name is a string: {name!r}", None))
            if oob and not self.oob_enabled:
                return fail(StateError(f"{name}: out-of-band commands are not enabled", self.state))
        try:
            text = write(members)
            descriptor = self._duplicate(name, fds, oob) if fds else None
        except UnwritableError as error:
            return fail(InvalidCommandError(f"{name}: {error}", name))
        except DescriptorError as error:
            return fail(error)
        key: Hashable | None = None
        if "id" in members:
            key = members["id"]
            if type(key) is not str:
                # What the peer will see of it, such as a list of a tuple.
                key = id_key(read_object(text)["id"])
        limit = self.settings.timeouts.of(name, timeout)
        return self._pending.issue(name, text, key, oob, limit, descriptor, whole)

    def _duplicate(self, name: str, fds: Sequence[Descriptor], oob: bool) -> int:
        if len(fds) > 1:
            raise DescriptorError(f"{name}: QEMU takes one descriptor a command", name)
        if oob:
            raise DescriptorError(f"{name}: no descriptor goes out of band", name)
        if not self.output.carries_descriptors:
            raise DescriptorError(f"{name}: descriptors travel over UNIX sockets only", name)
        try:
            source = fds[0] if isinstance(fds[0], int) else fds[0].fileno()
            return os.dup(source)
        except (OSError, ValueError, AttributeError) as error:
            raise DescriptorError(f"{name}: cannot duplicate {fds[0]!r}: {error}", name) from error

    def _wrong_state(self, name: str) -> StateError:
        why = f" ({self._end.reason})" if self._end is not None else ""
        return StateError(f"{name}: the session is {self.state.value}{why}", self.state)
