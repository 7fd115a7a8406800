"""The client's side of a connection: :class:`ClientReactor`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import BinaryIO

from txqmp.frames.actions import (
    Action,
    RequestCancelled,
    RequestFailed,
    RequestLost,
    Response,
    ResponseData,
    SendFrames,
    TextOutput,
)
from txqmp.frames.codec import BYTES_RESPONSE, ERROR_RESPONSE, TEXT_OUTPUT, Frame
from txqmp.frames.commands import Name, Part, check_end, check_error, command_parts
from txqmp.frames.credit import Grant
from txqmp.frames.encodings import ENCODINGS
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_LIMITS, Limits
from txqmp.frames.link.client import ClientLink
from txqmp.frames.link.words import REFUSED, Terms
from txqmp.frames.reactor import Reactor
from txqmp.frames.requests import Request, RequestIds
from txqmp.frames.sources import FrameSource, Gate
from txqmp.frames.streams import OutputStream
from txqmp.frames.text import decode_text


#: With a link, this many requests at most are active: the link needs ids too.
_MOST_WITH_LINK = 30_000


class ClientReactor(Reactor):
    """
    The client's side of a connection.

    :param limits: how much is taken, held and sent.
    :param encodings: the encodings in which the server may send, best first.
    :raises FrameUsageError: there is no such encoding.
    """

    def __init__(
        self, *, limits: Limits = DEFAULT_LIMITS, encodings: Collection[str] = tuple(ENCODINGS)
    ) -> None:
        super().__init__(client=True, limits=limits, encodings=encodings, first_stream=1)
        self._ids = RequestIds()
        self._requests: dict[int, Request] = {}
        self._gate = Gate(limits.half_received, limits.half_received_bytes)
        self._most = limits.active
        self._asked = False
        # How many bytes of responses are held.
        self._held = 0
        self._link = ClientLink(self, limits.control)

    @property
    def active(self) -> frozenset[int]:
        """The requests that are not answered yet, by id; those of the link are none."""
        return frozenset(self._requests)

    # Requests

    def request(
        self,
        name: Name,
        arguments: Mapping[Name, bytes] | None = None,
        data: bytes | BinaryIO | None = None,
        *,
        whole: bool = True,
        stream: OutputStream | int = 1,
        plain: bool = False,
    ) -> tuple[int, SendFrames]:
        """
        Make a request.

        It waits in its source, if need be, until the server can take it: until fewer are sent in
        part, and until credit is there for its data.

        :param name: the command's name: ASCII, not empty.
        :param arguments: values by name, of at most 65,535 bytes.
        :param data: data, or a file to read them from while they are sent. If that raises, so does
            who asks for the frames, and no more are given: cancel the request then, over a link; a
            server without one waits for the rest, so the connection must be closed.
        :param whole: give the response as one; else in pieces, as they come, of which
            :meth:`consumed` wants to be told over a link.
        :param stream: one of ours, or its id.
        :param plain: leave the stream's encoding off.
        :returns: the request's id, and its frames.
        :raises FrameUsageError: it cannot be sent; too many requests are active; the server is
            going away; or the connection has failed.
        """
        if self.error is not None or self._ended or self._link.closed:
            self._check_open()
            raise FrameUsageError(f"no new requests: {self._link.closed}")
        if len(self._requests) >= self._most:
            raise FrameUsageError(f"{len(self._requests)} requests are active")
        output = self._outputs.get(stream) or self._output(stream)
        parts = command_parts(name, arguments, data, output.max_payload)
        gate, size = None, 0
        if arguments or data is not None:
            gate, size = self._gate, self._size(name, arguments or {}, data)
        request_id = self._ids.allocate(self._requests, self._link.requests)
        self._asked = True
        source = FrameSource(
            output, request_id, parts, credit=self._send_credit, gate=gate, plain=plain
        )
        if size:
            source.size = size
        self._requests[request_id] = Request(source, whole)
        return request_id, SendFrames((source,))

    def _size(
        self, name: Name, arguments: Mapping[Name, bytes], data: bytes | BinaryIO | None
    ) -> int:
        """
        How much the server holds before it has all of a request, at most.

        :raises FrameUsageError: it takes less.
        """
        peer = self.peer
        held = sum(4 + len(key) + len(value) for key, value in arguments.items())
        if peer is not None and held > peer.request_arguments:
            raise FrameUsageError(f"arguments of {held} bytes, more than {peer.request_arguments}")
        held += len(name)
        if data is None:
            return held
        if hasattr(data, "read"):
            return held + (self.limits if peer is None else peer).message
        if peer is not None:
            most = min(peer.message, peer.half_received_bytes - held)
            if len(data) > most:
                raise FrameUsageError(f"data of {len(data)} bytes, more than {most}")
        return held + len(data)

    def _check_open(self) -> None:
        if self.error is not None:
            raise FrameUsageError(f"the connection has failed: {self.error}")
        if self._ended:
            raise FrameUsageError("the connection has ended")

    def cancel(self, request_id: int) -> list[Action]:
        """
        Want no answer to a request any more. It is over when
        :class:`~txqmp.frames.actions.RequestCancelled` comes: at once where nothing was sent yet.
        Without a link the rest of it is sent, the server answers, and that is swallowed.

        :raises FrameUsageError: it is not active, or was cancelled already.
        """
        request = self._requests.get(request_id)
        if request is None or request.cancelled:
            raise FrameUsageError(f"request {request_id} is not active")
        self._held -= request.held
        request.cancel()
        source = request.source
        if not source.begun:
            source.drop()
            return [*self._over(request_id), RequestCancelled(request_id, may_have_run=False)]
        if self.peer is None or self.error is not None:
            return []
        source.drop()
        return self._link.cancel(request_id)

    def consumed(self, request_id: int, size: int) -> list[Action]:
        """
        So many bytes of a response that comes in pieces have been dealt with: over a link, the
        server may send more. What is not told of, is told when the response ends.
        """
        if self._receive_credit is None:
            return []
        return self._grant(self._receive_credit.consume(request_id, size))

    # Input

    def end_of_input(self) -> list[Action]:
        """
        The server sends nothing more.

        :returns: a :class:`~txqmp.frames.actions.Failed` if a frame was cut short; for each request
            without an answer a :class:`~txqmp.frames.actions.RequestLost`, or
            :class:`~txqmp.frames.actions.RequestCancelled`.
        """
        if self._ended:
            return []
        self._ended = True
        actions: list[Action] = []
        cut = self._decoder.finish()
        if cut is not None and self.error is None:
            actions.append(self._fail(cut))
        requests, self._requests = self._requests, {}
        self._held = 0
        self._link.requests.clear()
        for request_id, request in requests.items():
            kind = RequestCancelled if request.cancelled else RequestLost
            actions.append(kind(request_id, request.may_have_run))
            request.source.drop()
        return actions

    def _room(self, frame: Frame) -> int:
        # A text or an error is no part of the response.
        request = self._requests.get(frame.request_id) if frame.type == BYTES_RESPONSE else None
        if request is None or not request.whole or request.assembler is None:
            return self.limits.message
        return request.assembler.room

    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        request_id, kind = frame.request_id, frame.type
        request = self._requests.get(request_id)
        if kind == BYTES_RESPONSE and request is not None:
            return self._response(frame, request, payload)
        if kind == ERROR_RESPONSE and check_error(frame.flags, request_id):
            raise FrameProtocolError(
                Code.REPORTED_BY_PEER,
                f"the server reports: {payload[:1024].decode('utf-8', 'replace')}",
                request_id,
            )
        answered = self._link.requests.get(request_id)
        if answered is not None:
            return answered(frame, payload)
        if request is None:
            raise FrameProtocolError(
                Code.INACTIVE_REQUEST,
                f"received frame for inactive request ID: {request_id}",
                request_id,
            )
        if kind == ERROR_RESPONSE:
            return self._error(request_id, request, payload)
        if kind == TEXT_OUTPUT:
            # Nothing of it is held, so there may be any number.
            request.assemble(self.limits).count_empty(payload, False)
            atoms = decode_text(payload, request_id)
            return [] if request.cancelled else [TextOutput(request_id, atoms)]
        raise FrameProtocolError(
            Code.UNEXPECTED_FRAME_TYPE, f"received unexpected frame type: {kind}", request_id
        )

    def _response(self, frame: Frame, request: Request, payload: bytes) -> list[Action]:
        request_id = frame.request_id
        last = check_end(frame.flags, "bytes response", request_id)
        if not request.source.finished:
            raise _answered_early(request_id)
        actions: list[Action] = []
        whole = request.whole
        if whole and last and request.assembler is None and len(payload) <= self.limits.message:
            actions.append(Response(request_id, payload))
        elif whole:
            assembler = request.assemble(self.limits)
            assembler.take(payload, last)
            self._hold(request_id, len(payload))
            if last:
                actions.append(Response(request_id, assembler.message()))
        else:
            request.assemble(self.limits).count_empty(payload, last)
            if not request.cancelled:
                actions.append(ResponseData(request_id, payload, last))
        credit = self._receive_credit
        if credit is not None:
            credit.receive(request_id, len(payload))
            if not last and (whole or request.cancelled):
                actions += self._grant(credit.consume(request_id, len(payload)))
        if last:
            actions += self._over(request_id)
            if request.cancelled:
                actions.append(RequestCancelled(request_id, request.may_have_run))
        return actions

    def _hold(self, request_id: int, size: int) -> None:
        self._held += size
        if self._held > self.limits.response_bytes:
            raise FrameLimitError(
                "response_bytes",
                self.limits.response_bytes,
                f"{self._held} bytes of responses that are not whole",
                request_id,
            )

    def _error(self, request_id: int, request: Request, payload: bytes) -> list[Action]:
        if not request.source.finished:
            raise _answered_early(request_id)
        message = payload.decode("utf-8", "replace")
        ran = request.may_have_run and message != REFUSED
        actions = self._over(request_id)
        if request.cancelled:
            actions.append(RequestCancelled(request_id, ran))
        else:
            actions.append(RequestFailed(request_id, message, ran))
        return actions

    def _over(self, request_id: int) -> list[Action]:
        """A request is over: its id is free."""
        request = self._requests.pop(request_id)
        if request.assembler is not None:
            self._held -= request.held
        source = request.source
        if source.cut and source.gate is not None:
            source.gate.leave(source)
        settled = self._settle(source.stream) if source.stream.closing else []
        if self._send_credit is None or self._receive_credit is None:
            return settled
        self._link.forget(request_id)
        self._send_credit.forget(request_id)
        return settled + self._grant(self._receive_credit.forget(request_id))

    # The link

    def open_link(self) -> SendFrames:
        """
        Ask the server for a link, before any request. The answer is a
        :class:`~txqmp.frames.actions.LinkOpened`, or a
        :class:`~txqmp.frames.actions.RequestFailed` for request :attr:`link_request`: then there is
        none, and the connection can be used without.

        :raises FrameUsageError: there was a request already; the frames that the limits allow are
            too small; or the connection has failed.
        """
        self._check_open()
        if self._link.request is not None or self._asked:
            raise FrameUsageError("a link is opened once, before any request")
        return self._link.open(Terms.of(self.limits, self._encodings))

    @property
    def link_request(self) -> int | None:
        """The id of the request that asked for the link; ``None`` where none did."""
        return self._link.request

    def ping(self, token: bytes) -> SendFrames:
        """
        Have the server answer with a :class:`~txqmp.frames.actions.Pong`.

        :param token: 1 to 64 printable ASCII characters, which come back.
        :raises FrameUsageError: there is no link, or the token is none; too many pings are not
            answered yet; or the connection has failed.
        """
        self._check_open()
        return self._link.ping(token)

    def goaway(self, reason: str = "") -> SendFrames:
        """
        Make no new requests, and tell the server so, the first time.

        :raises FrameUsageError: there is no link, or the connection has failed.
        """
        self._check_open()
        return self._link.goaway(reason)

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send; called by the link."""
        super().link_opened(peer)
        self._gate.limit = peer.half_received
        self._gate.size_limit = peer.half_received_bytes
        self._most = min(self.limits.active, peer.active, _MOST_WITH_LINK)

    def link_source(self, parts: Iterable[Part], stream: OutputStream | None = None) -> FrameSource:
        """For :class:`~txqmp.frames.link.client.LinkOwner`."""
        request_id = self._ids.allocate(self._requests, self._link.requests)
        source = FrameSource(stream or self.stream(1), request_id, parts, plain=True)
        if stream is not None:
            stream.messages.add(source)
        return source

    def _sources(self) -> Iterable[FrameSource]:
        sources = (request.source for request in self._requests.values())
        return (source for source in sources if not source.finished)

    @property
    def _link_speaks(self) -> bool:
        return self.peer is not None and self.error is None and not self._ended

    def _end_by_link(self, stream: OutputStream) -> list[Action]:
        return self._link.end_stream(stream)

    def _grant(self, grants: list[Grant]) -> list[Action]:
        if not grants or self.error is not None or self._ended:
            return []
        return self._link.grant(grants)


def _answered_early(request_id: int) -> FrameProtocolError:
    return FrameProtocolError(
        Code.ANSWERED_EARLY, "an answer to a request that is not sent yet", request_id
    )
