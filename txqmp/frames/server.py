"""
The server's side of a connection: :class:`ServerReactor`.

It is told of bytes and of finished work, and answers with actions. A frame is checked in a fixed
order: its stream, its type, its request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from txqmp.frames.actions import (
    Action,
    CancelCommand,
    Nothing,
    RunCommand,
    SendFrames,
    WantFrame,
)
from txqmp.frames.assembly import HalfRequest
from txqmp.frames.codec import (
    COMMAND_ARGUMENT,
    COMMAND_DATA,
    COMMAND_NAME,
    TEXT_OUTPUT,
    Frame,
)
from txqmp.frames.commands import Part, check_name, error_part, response_parts
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_LIMITS, Limits
from txqmp.frames.link.server import ServerLink
from txqmp.frames.link.words import CANCELLED, REFUSED
from txqmp.frames.reactor import Reactor, farewell_frame
from txqmp.frames.sources import FrameSource, ResponseWriter
from txqmp.frames.streams import OutputStream
from txqmp.frames.text import TextAtom, encode_text


class ServerReactor(Reactor):
    """
    The server's side of a connection.

    Requests are answered by :meth:`respond` and its like, in any order. A request is active until
    the last frame of its answer has been taken from its source.

    :param limits: how much is taken, held and sent.
    :param defer_output: hold all answers until the input has ended: for a transport that carries
        one direction at a time.
    :param encodings: the encodings in which the client may send, and that are offered by the link.
    :param link: whether the client may open a link (:mod:`txqmp.frames.link`).
    :param clock: gives the time, in seconds.
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        defer_output: bool = False,
        encodings: Collection[str] = (),
        link: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(client=False, limits=limits, encodings=encodings, first_stream=2)
        self._takes_settings = self._inputs.takes_settings
        self._defer = defer_output
        self._link = ServerLink(self, self._terms, limits.control)
        self._offers_link = link
        self._clock = clock
        self._half: dict[int, HalfRequest] = {}
        self._half_bytes = 0
        # Requests that are not answered: the source of each answer, once there is one.
        self._active: dict[int, FrameSource | None] = {}
        self._cancelled: set[int] = set()
        self._deferred: list[FrameSource] = []
        self._last_request = 0
        self._asked = False
        self._leaving = False

    # What is known

    @property
    def active(self) -> frozenset[int]:
        """The requests that are served, by id."""
        return frozenset(self._active)

    @property
    def half_received(self) -> frozenset[int]:
        """The requests that are being received, by id."""
        return frozenset(self._half)

    @property
    def deadline(self) -> float | None:
        """When :meth:`check_time` should be called, by the clock; ``None`` for never."""
        oldest = next(iter(self._half.values()), None)
        return None if oldest is None else oldest.since + self.limits.half_received_seconds

    def check_time(self) -> list[Action]:
        """See whether a request takes too long to come."""
        deadline = self.deadline
        if self.error is not None or deadline is None or self._clock() < deadline:
            return []
        limit = self.limits.half_received_seconds
        oldest = next(iter(self._half))
        return [
            self._fail(
                FrameLimitError(
                    "half_received_seconds", limit, f"request {oldest} is not whole yet", oldest
                )
            )
        ]

    # Input

    def end_of_input(self) -> list[Action]:
        """
        The client sends nothing more.

        :returns: a :class:`~txqmp.frames.actions.Failed` for each request that came in part, and
            the answers that were deferred. Those still to be made are sent as soon as they are.
        """
        if self._ended:
            return []
        self._ended = True
        actions: list[Action] = []
        cut = self._decoder.finish()
        if cut is not None and self.error is None:
            actions.append(self._fail(cut))
        if self.error is None or cut is not None:
            for request_id in self._half:
                error = FrameProtocolError(
                    Code.PARTIAL_REQUEST,
                    f"the input ended before request {request_id} was whole",
                    request_id,
                )
                actions.append(self._fail(error))
        self._half.clear()
        self._half_bytes = 0
        self._defer = False
        deferred, self._deferred = self._deferred, []
        if deferred:
            actions.append(SendFrames(tuple(deferred)))
        return actions

    def receive_frame(self, frame: Frame) -> list[Action]:
        """
        Take one frame from the client, in place of its bytes.

        :returns: what to do, in order; a :class:`~txqmp.frames.actions.WantFrame` where there is
            nothing to do before more has come.
        """
        actions = super().receive_frame(frame)
        return actions or [WantFrame("command-receiving" if self._half else "idle")]

    def _room(self, request_id: int) -> int:
        half = self._half.get(request_id)
        return half.room if half is not None else self.limits.message

    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        request_id, kind = frame.request_id, frame.type
        if kind == COMMAND_NAME:
            return self._command(frame, payload)
        if not self._half:
            raise FrameProtocolError(
                Code.EXPECTED_COMMAND, f"expected command frame; got {kind}", request_id
            )
        if request_id in self._active:
            raise FrameProtocolError(
                Code.STILL_ACTIVE,
                f"received frame for request that is still active: {request_id}",
                request_id,
            )
        half = self._half.get(request_id)
        if half is None:
            raise FrameProtocolError(
                Code.NOT_RECEIVING,
                f"received frame for request that is not receiving: {request_id}",
                request_id,
            )
        before = half.held
        if kind == COMMAND_ARGUMENT:
            whole = half.take_argument(frame.flags, payload)
        elif kind == COMMAND_DATA:
            whole = half.take_data(frame.flags, payload)
            if self._receive_credit is not None:
                # What is held is bounded by other limits: it counts as dealt with.
                self._receive_credit.receive(request_id, len(payload))
                self._link.grant(self._receive_credit.consume(request_id, len(payload)))
        else:
            raise FrameProtocolError(
                Code.UNEXPECTED_FRAME_TYPE, f"received unexpected frame type: {kind}", request_id
            )
        self._half_bytes += half.held - before
        if whole:
            self._drop_half(request_id)
            return self._begin(request_id, half.name, half.arguments, half.data)
        self._check_half_bytes(request_id)
        return []

    def _command(self, frame: Frame, name: bytes) -> list[Action]:
        request_id = frame.request_id
        if request_id in self._half:
            raise FrameProtocolError(
                Code.ALREADY_RECEIVING, f"request with ID {request_id} already received", request_id
            )
        if request_id in self._active:
            raise FrameProtocolError(
                Code.ALREADY_ACTIVE, f"request with ID {request_id} is already active", request_id
            )
        if not request_id & 1:
            raise FrameProtocolError(
                Code.WRONG_REQUEST_PARITY,
                f"a client's requests have odd ids, not {request_id}",
                request_id,
            )
        if not self._asked:
            self._asked = not (self._offers_link and self._link.takes(name))
        if check_name(frame.flags, name, request_id):
            return self._begin(request_id, name, {}, None)
        if len(self._half) >= self.limits.half_received:
            raise FrameLimitError(
                "half_received", self.limits.half_received, "one more request", request_id
            )
        self._half[request_id] = HalfRequest(
            request_id, name, frame.flags, self._clock(), self.limits
        )
        return []

    def _check_half_bytes(self, request_id: int) -> None:
        if self._half_bytes > self.limits.half_received_bytes:
            raise FrameLimitError(
                "half_received_bytes",
                self.limits.half_received_bytes,
                f"{self._half_bytes} bytes of requests that are not whole",
                request_id,
            )

    def _drop_half(self, request_id: int) -> HalfRequest:
        half = self._half.pop(request_id)
        self._half_bytes -= half.held
        if self._receive_credit is not None:
            self._link.grant(self._receive_credit.forget(request_id))
        return half

    def _begin(
        self, request_id: int, name: bytes, arguments: dict[bytes, bytes], data: bytes | None
    ) -> list[Action]:
        """A request is whole."""
        if self._offers_link and self._link.takes(name):
            return self._link.run(request_id, name, arguments, first=not self._asked)
        if len(self._active) - self._link.waiting >= self.limits.active:
            raise FrameLimitError("active", self.limits.active, "one more request", request_id)
        self._activate(request_id)
        if self._leaving:
            return [self._send(request_id, None, [error_part(REFUSED, application=True)])]
        self._last_request = request_id
        return [RunCommand(request_id, name, arguments, data)]

    def _activate(self, request_id: int) -> None:
        self._active[request_id] = None
        if self._send_credit is not None:
            self._send_credit.begin(request_id)

    # Answers

    def respond(
        self,
        request_id: int,
        data: bytes,
        stream: OutputStream | int | None = None,
        *,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        """
        Answer a request.

        :param data: the response, whole.
        :param stream: one of ours, or its id; the one that :meth:`stream` gives for 2 by default.
        :param plain: leave the stream's encoding off.
        :returns: the frames, which may have to wait for :meth:`end_of_input`.
        :raises FrameUsageError: the request is not active, or answered already; or the stream is
            not ours.
        """
        output = self._output(stream)
        return self._send(request_id, output, response_parts(data, output.max_payload), plain=plain)

    def respond_error(
        self, request_id: int, message: str | bytes, stream: OutputStream | int | None = None
    ) -> SendFrames | Nothing:
        """
        Answer a request with an error of the application; for the rest like :meth:`respond`.

        :param message: for people; it must fit into one frame.
        """
        output = self._output(stream)
        part = error_part(message, application=True, max_payload=output.max_payload)
        return self._send(request_id, output, [part])

    def respond_cancelled(self, request_id: int, *, may_have_run: bool) -> SendFrames | Nothing:
        """
        Answer a request by saying that it was cancelled.

        :param may_have_run: whether the command may have run, in part or whole.
        """
        return self.respond_error(request_id, CANCELLED if may_have_run else REFUSED)

    def open_response(
        self, request_id: int, stream: OutputStream | int | None = None, *, plain: bool = False
    ) -> tuple[ResponseWriter, SendFrames | Nothing]:
        """
        Answer a request with a response that comes in pieces; for the rest like :meth:`respond`.

        :returns: what to write the pieces to, and the frames: its source has more whenever a piece
            was written, and should stay with a :class:`~txqmp.frames.sources.Scheduler`.
        """
        output = self._output(stream)
        action = self._send(request_id, output, (), open=True, plain=plain)
        source = self._active[request_id]
        assert source is not None
        return ResponseWriter(source, output.max_payload), action

    def write_text(
        self, request_id: int, atoms: Iterable[TextAtom], stream: OutputStream | int | None = None
    ) -> SendFrames:
        """
        Send text for people to read, while a request is active.

        :raises FrameUsageError: it is not active, or the text does not fit into a frame.
        """
        output = self._output(stream)
        if request_id not in self._active:
            raise FrameUsageError(f"request {request_id} is not active")
        payload = encode_text(atoms, output.max_payload)
        return SendFrames((FrameSource(output, request_id, [(TEXT_OUTPUT, 0, payload)]),))

    def _output(self, stream: OutputStream | int | None) -> OutputStream:
        if stream is None:
            return self._outputs.get(2) or self.stream(2)
        if isinstance(stream, OutputStream):
            return self.stream(stream.id)
        return self.stream(stream)

    def _send(
        self,
        request_id: int,
        stream: OutputStream | None,
        parts: Iterable[Part],
        *,
        open: bool = False,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        if request_id not in self._active:
            raise FrameUsageError(f"request {request_id} is not active")
        if self._active[request_id] is not None:
            raise FrameUsageError(f"request {request_id} is answered already")
        source = FrameSource(
            stream or self.stream(2),
            request_id,
            parts,
            open=open,
            credit=self._send_credit,
            plain=plain,
            done=self.answered,
        )
        self._active[request_id] = source
        if self._defer:
            self._deferred.append(source)
            return Nothing()
        return SendFrames((source,))

    def answered(self, source: FrameSource) -> None:
        """The last frame of an answer has been given: its request is over."""
        self._active.pop(source.request_id, None)
        self._cancelled.discard(source.request_id)
        if self._send_credit is not None:
            self._send_credit.forget(source.request_id)

    def _farewell(self, error: FrameProtocolError) -> bytes:
        return farewell_frame(self.stream(2), error)

    # The link

    def ping(self, token: bytes) -> None:
        """
        Have the client answer with a :class:`~txqmp.frames.actions.Pong`.

        :param token: 1 to 64 printable ASCII characters, which come back.
        :raises FrameUsageError: there is no link, or the token is none.
        """
        self._link.ping(token)

    def goaway(self, reason: str = "") -> None:
        """
        Take no new requests: they are refused from now on, and the client is told, if there is a
        link. Those that were taken are answered.
        """
        self._leaving = True
        if self._link.is_open:
            self._link.goaway(self._last_request, reason)

    def link_source(
        self,
        request_id: int,
        parts: Iterable[Part],
        done: Callable[[FrameSource], None],
        open: bool,
    ) -> FrameSource:
        """For :class:`~txqmp.frames.link.server.LinkOwner`."""
        source = FrameSource(self.stream(2), request_id, parts, open=open, plain=True, done=done)
        self._active[request_id] = source
        return source

    def cancel_request(self, request_id: int) -> list[Action]:
        """For :class:`~txqmp.frames.link.server.LinkOwner`."""
        if request_id in self._half:
            self._drop_half(request_id)
            self._activate(request_id)
            return [self.respond_cancelled(request_id, may_have_run=False)]
        if request_id not in self._active or request_id in self._cancelled:
            return []
        source = self._active[request_id]
        if source is None:
            self._cancelled.add(request_id)
            return [CancelCommand(request_id)]
        if not self._link.owns(source):
            source.replace([error_part(CANCELLED, application=True)])
        return []
