"""
One client of a QMP server: from the greeting to the end.

One in-band command runs at a time. While it runs nothing more is read, unless the client has
enabled out-of-band execution; then up to eight commands wait, and those out of band overtake them
(facts G22, G23). What cannot be read is answered in its turn, like a command. A client that hangs
up while nothing is read is missed when reading goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IFileDescriptorReceiver
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.jsontext import UnwritableError
from txqmp.messages import NO_ID
from txqmp.server.commands import NEGOTIATE, Call, CommandError, RegisteredCommand
from txqmp.server.jsonstream import InputError, JSONStream, ParsedValue
from txqmp.server.output import BoundedOutput, ReceivedDescriptors, encode


if TYPE_CHECKING:
    from txqmp.server.factory import QMPServerFactory


QUEUE_LIMIT = 8
"""How many commands wait behind the one that runs, where out-of-band execution is enabled; when
they are as many nothing more is read (QMP spec, *Out-of-band execution*; fact G22)."""

OOB_LIMIT = 64
"""How many out-of-band commands run at once; when they are as many nothing more is read."""

Sent = Literal["greeting", "reply", "event"]
"""What a message from a server is."""

NO_REASON = Failure(ConnectionDone())
_Request = ParsedValue | InputError


@implementer(IFileDescriptorReceiver)
class QMPServerProtocol(Protocol):
    """
    One client of a :class:`~txqmp.server.QMPServerFactory`.

    :param server: the factory, which knows the commands.

    :ivar negotiated: whether the client has negotiated: it may give commands, and gets events.
    :ivar oob_enabled: whether it has enabled out-of-band execution.
    """

    negotiated = False
    oob_enabled = False

    _output: BoundedOutput | None = None
    _running: Call | None = None
    _oob_running = 0
    _advancing = False
    _reading = True
    _leaving = False
    _over = False
    _deadline: IDelayedCall | None = None

    def __init__(self, server: QMPServerFactory) -> None:
        self.server = server
        self.factory = server
        self._stream = JSONStream(max_message=server.max_message)
        self._descriptors = ReceivedDescriptors()
        self._queue: deque[_Request] = deque()
        self._closers: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.transport and self.transport.getPeer()}>"

    @property
    def leaving(self) -> bool:
        """Whether the connection is over, or about to be."""
        return self._leaving

    @property
    def output_held(self) -> int:
        """How many bytes of output are held because the client does not read."""
        return self._output.held if self._output is not None else 0

    # The beginning and the end

    def connectionMade(self) -> None:
        self.server.client_connected(self)

    def serve(self) -> None:
        """Greet, and take commands; called by the factory."""
        self._output = BoundedOutput(
            self.transport, self.server.max_output, self._cut_off, self._advance
        )
        self.transmit(encode(self.server.greeting()), "greeting")
        self._advance()

    def wait(self) -> None:
        """Neither greet nor read before :meth:`serve`; called by the factory."""
        self._set_reading(False)

    def disconnect(self) -> Deferred[None]:
        """
        End the connection when what was written has been sent, or the factory's time for that is
        over. Commands that wait are not run any more, and what runs goes unanswered.

        :returns: a Deferred that fires when the connection is closed.
        """
        if self._over:
            return succeed(None)
        closed: Deferred[None] = Deferred(self._closers.remove)
        self._closers.append(closed)
        self._finish_writing(lambda transport: transport.loseConnection())
        return closed

    def _finish_writing(self, close: Callable[[Any], None]) -> None:
        """Take no more commands, and close the transport when all was handed to it."""
        if self._leaving:
            return
        self._leave()
        self._deadline = self.server.clock.callLater(self.server.close_timeout, self._abort)
        if self._output is not None:
            self._output.finish(close)
        else:
            close(self.transport)

    def abort(self) -> None:
        """End the connection at once; what was not sent yet is lost."""
        if not self._over:
            self._leave()
            self._abort()

    def _leave(self) -> None:
        self._leaving = True
        self.server.commands_dropped += len(self._queue)
        self._queue.clear()
        self._set_reading(False)

    def _abort(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        transport: Any = self.transport
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _cut_off(self) -> None:
        self.server.cut_off += 1
        self.server.log.warn(
            "{client} does not read: it is cut off with {size} bytes waiting",
            client=self,
            size=self.server.max_output,
        )
        self.abort()

    def connectionLost(self, reason: Failure = NO_REASON) -> None:
        self._over = self._leaving = True
        self.negotiated = False
        self.server.commands_dropped += len(self._queue)
        self._queue.clear()
        self._descriptors.close()
        if self._output is not None:
            self._output.stopProducing()
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        closers, self._closers = self._closers, []
        self.server.client_lost(self)
        for closed in closers:
            closed.callback(None)

    # Reading

    def fileDescriptorReceived(self, descriptor: int) -> None:
        if self._leaving:
            descriptors = ReceivedDescriptors()
            descriptors.add(descriptor)
            descriptors.close()
        else:
            self._descriptors.add(descriptor)

    def take_descriptor(self) -> int | None:
        """For :meth:`~txqmp.server.commands.Call.take_descriptor`."""
        return self._descriptors.take()

    def dataReceived(self, data: bytes) -> None:
        self._descriptors.received()
        if not self._leaving:
            self._stream.feed(data)
            if self._output is not None:
                self._advance()

    @property
    def _congested(self) -> bool:
        """Whether the client had better read before it is answered more."""
        return self._output is not None and self._output.congested

    def _may_read(self) -> bool:
        if self.oob_enabled:
            return len(self._queue) < QUEUE_LIMIT and self._oob_running < OOB_LIMIT
        return self._running is None and not self._queue

    def _advance(self) -> None:
        """Run what can be run, and read what may be read."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self._leaving and not self._congested:
                if self._running is None and self._queue:
                    self._run(self._queue.popleft())
                    continue
                request = self._stream.next_item() if self._may_read() else None
                if request is None:
                    break
                if _is_oob(request):
                    self._run(request)
                else:
                    self._queue.append(request)
        finally:
            self._advancing = False
        if not self._leaving:
            self._set_reading(self._may_read() and not self._congested)

    def _set_reading(self, reading: bool) -> None:
        if reading is self._reading or self.transport is None:
            return
        self._reading = reading
        transport: Any = self.transport
        if reading:
            transport.resumeProducing()
        else:
            transport.pauseProducing()

    # Running

    def _run(self, request: _Request) -> None:
        if isinstance(request, InputError):
            self._answer(None, NO_ID, _error("GenericError", request.desc))
            return
        members = request.value
        ident = members.get("id", NO_ID) if isinstance(members, dict) else NO_ID
        try:
            command, call = self._find(members, ident)
            bound = command.bind(call.arguments)
        except CommandError as error:
            self._answer(None, ident, _error(error.error_class, error.desc))
            return
        if call.oob:
            self._oob_running += 1
        else:
            self._running = call
        self.server.commands_run += 1
        try:
            result = command.handler(call, **bound)
        except CommandError as error:
            self._finish(call, _error(error.error_class, error.desc))
        except Exception:
            self._finish(call, self._failed(call, Failure()))
        else:
            if isinstance(result, Coroutine):
                result = Deferred.fromCoroutine(result)
            if isinstance(result, Deferred):
                result.addBoth(self._finish_later, call)
            else:
                self._finish(call, {"return": {} if result is None else result})

    def _find(self, members: Any, ident: Any) -> tuple[RegisteredCommand, Call]:
        """
        The command that a request is for.

        :raises CommandError: it is for none (QMP spec, *Issuing Commands*).
        """
        if not isinstance(members, dict):
            raise CommandError("QMP input must be a JSON object")
        verb = None
        for name, value in members.items():
            if name == "execute" or (name == "exec-oob" and self.oob_enabled):
                if not isinstance(value, str):
                    raise CommandError(f"QMP input member '{name}' must be a string")
                if verb is not None:
                    raise CommandError(f"QMP input member '{name}' clashes with '{verb}'")
                verb = name
            elif name == "arguments":
                if not isinstance(value, dict):
                    raise CommandError("QMP input member 'arguments' must be an object")
            elif name != "id":
                raise CommandError(f"QMP input member '{name}' is unexpected")
        if verb is None:
            raise CommandError("QMP input lacks member 'execute'")
        name = members[verb]
        call = Call(
            client=self,
            name=name,
            arguments=members.get("arguments", {}),
            id=ident,
            oob=verb == "exec-oob",
        )
        command = self.server.find(name) if self.negotiated or name == NEGOTIATE else None
        if command is None:
            text = f"The command {name} has not been found"
            if not self.negotiated:
                text = f"Expecting capabilities negotiation with '{NEGOTIATE}'"
            raise CommandError(text, "CommandNotFound")
        if call.oob and not command.oob:
            raise CommandError(f"The command {name} does not support OOB")
        return command, call

    def _finish_later(self, outcome: Any, call: Call) -> None:
        if not isinstance(outcome, Failure):
            reply = {"return": {} if outcome is None else outcome}
        elif isinstance(outcome.value, CommandError):
            reply = _error(outcome.value.error_class, outcome.value.desc)
        else:
            reply = self._failed(call, outcome)
        self._finish(call, reply)
        self._advance()

    def _failed(self, call: Call, failure: Failure) -> dict[str, Any]:
        """A handler failed by its own mistake: log it, and tell the client no more than that."""
        self.server.log.failure("command {command} failed", failure, command=call.name)
        return _error("GenericError", f"The command {call.name} has failed unexpectedly")

    def _finish(self, call: Call, reply: dict[str, Any]) -> None:
        if call.oob:
            self._oob_running -= 1
        else:
            self._running = None
        self._answer(call, call.id, reply)
        for callback in call.take_afterwards():
            try:
                callback()
            except Exception:
                self.server.log.failure("what follows command {command} failed", command=call.name)

    # Writing

    def _answer(self, call: Call | None, ident: Any, reply: dict[str, Any]) -> None:
        if self._leaving:
            self.server.replies_dropped += 1
            return
        name = call.name if call is not None else None
        self.transmit(self._reply_text(name, ident, reply), "reply", name)

    def _reply_text(self, name: str | None, ident: Any, reply: dict[str, Any]) -> bytes:
        failed = _error("GenericError", f"The command {name} has failed unexpectedly")
        for content in (reply, failed):
            # QEMU reads 1e999 as an id, and would write it in a way that is no JSON.
            for id_member in ({} if ident is NO_ID else {"id": ident}, {}):
                try:
                    return encode({**content, **id_member})
                except UnwritableError as error:
                    problem = error
            self.server.log.error(
                "the reply to {command} has no JSON text: {problem}", command=name, problem=problem
            )
        raise AssertionError("an error in our own words has a JSON text")

    def transmit(self, text: bytes, kind: Sent, command: str | None = None) -> None:
        """
        Write a message. All that goes to the client goes through here.

        :param text: its text, without a line end.
        :param kind: what it is.
        :param command: for the reply to a command that was called, the command's name.
        """
        self.write_bytes(text + b"\r\n")

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, within the limit for clients that do not read."""
        if self._output is not None:
            self._output.write(data)

    def send_event_text(self, text: bytes) -> None:
        """Send an event, given as its text, if the client has negotiated."""
        if self.negotiated and not self._leaving:
            self.transmit(text, "event")


def _is_oob(request: _Request) -> bool:
    """Whether a request is run at once; if it may not be, it is refused at once."""
    if isinstance(request, InputError) or not isinstance(request.value, dict):
        return False
    return "exec-oob" in request.value and "execute" not in request.value


def _error(error_class: str, desc: str) -> dict[str, Any]:
    return {"error": {"class": error_class, "desc": desc}}
