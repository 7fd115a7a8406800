"""The client's side of a connection: :class:`ClientReactor`."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
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
from txqmp.frames.assembly import Assembler
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    ERROR_RESPONSE,
    TEXT_OUTPUT,
    Frame,
)
from txqmp.frames.commands import Name, check_end, check_error, command_parts
from txqmp.frames.credit import Grant
from txqmp.frames.encodings import ENCODINGS
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_LIMITS, Limits
from txqmp.frames.link.client import ClientLink
from txqmp.frames.link.words import REFUSED
from txqmp.frames.reactor import Reactor
from txqmp.frames.sources import FrameSource
from txqmp.frames.streams import OutputStream
from txqmp.frames.text import decode_text


class RequestIds:
    """
    Hands out request ids: each is the one before and ``step``, from ``first`` again after 65,535.

    :param first: 1 for a client, 0 for a server.
    """

    def __init__(self, first: int = 1, step: int = 2) -> None:
        self._first = self._next = first
        self._step = step

    def allocate(self, used: Container[int]) -> int:
        """
        The next id that is not in use.

        :raises FrameUsageError: all are.
        """
        start = self._next
        while True:
            request_id = self._next
            self._next += self._step
            if self._next > 0xFFFF:
                self._next = self._first
            if request_id not in used:
                return request_id
            if self._next == start:
                raise FrameUsageError("all request ids are in use")


class _Request(Assembler):
    """A request that is not answered yet; it holds what came of a response that is given whole."""

    __slots__ = ("cancelled", "source", "whole")

    def __init__(self, source: FrameSource, whole: bool, limits: Limits) -> None:
        super().__init__(source.request_id, limits)
        self.source = source
        self.whole = whole
        self.cancelled = False


class ClientReactor(Reactor):
    """
    The client's side of a connection.

    :param limits: how much is taken, held and sent.
    :param encodings: the encodings in which the server may send, best first.
    """

    def __init__(
        self, *, limits: Limits = DEFAULT_LIMITS, encodings: Collection[str] = tuple(ENCODINGS)
    ) -> None:
        super().__init__(client=True, limits=limits, encodings=encodings, first_stream=1)
        self._ids = RequestIds()
        self._requests: dict[int, _Request] = {}
        self._asked = False
        self._link = ClientLink(self, self._terms)

    @property
    def active(self) -> frozenset[int]:
        """The requests that are not answered yet, by id."""
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

        :param name: the command's name: ASCII, not empty.
        :param arguments: values by name, of at most 65,535 bytes.
        :param data: data, or a file to read them from while they are sent.
        :param whole: give the response as one; else in pieces, as they come, of which
            :meth:`consumed` wants to be told over a link.
        :param stream: one of ours, or its id.
        :param plain: leave the stream's encoding off.
        :returns: the request's id, and its frames.
        :raises FrameUsageError: it cannot be sent; too many requests are active; the server is
            going away; or the connection has failed.
        """
        self._check_usable()
        if self._link.opening:
            raise FrameUsageError("the link is being opened: requests must wait")
        if len(self._requests) >= self.limits.active:
            raise FrameUsageError(f"{len(self._requests)} requests are active")
        output = self.stream(stream.id if isinstance(stream, OutputStream) else stream)
        parts = command_parts(name, arguments, data, output.max_payload)
        request_id = self._allocate()
        self._asked = True
        source = FrameSource(output, request_id, parts, credit=self._send_credit, plain=plain)
        if self._send_credit is not None:
            self._send_credit.begin(request_id)
        self._requests[request_id] = _Request(source, whole, self.limits)
        return request_id, SendFrames((source,))

    def _allocate(self) -> int:
        if self._link.requests:
            return self._ids.allocate({*self._requests, *self._link.requests})
        return self._ids.allocate(self._requests)

    def _check_open(self) -> None:
        if self.error is not None:
            raise FrameUsageError(f"the connection has failed: {self.error}")
        if self._ended:
            raise FrameUsageError("the connection has ended")

    def _check_usable(self) -> None:
        if self.error is not None or self._ended:
            self._check_open()
        if self._link.leaving:
            raise FrameUsageError(f"no new requests: {self._link.leaving}")

    def cancel(self, request_id: int) -> list[Action]:
        """
        Want no answer to a request any more. It is over when
        :class:`~txqmp.frames.actions.RequestCancelled` comes, at once where nothing was sent yet;
        a server without a link answers it all the same, and that is swallowed.

        :raises FrameUsageError: it is not active.
        """
        request = self._requests.get(request_id)
        if request is None or request.cancelled:
            raise FrameUsageError(f"request {request_id} is not active")
        request.cancelled = True
        if not request.source.begun:
            request.source.drop()
            return [*self._over(request_id), RequestCancelled(request_id, may_have_run=False)]
        if self.peer is None or self.error is not None or self._ended:
            return []
        request.source.drop()
        return [self._link.cancel(request_id)]

    def consumed(self, request_id: int, size: int) -> list[Action]:
        """
        So many bytes of a response that comes in pieces have been dealt with: over a link, the
        server may send more.
        """
        if self._receive_credit is None:
            return []
        return self._grant(self._receive_credit.consume(request_id, size))

    # Input

    def end_of_input(self) -> list[Action]:
        """
        The server sends nothing more.

        :returns: a :class:`~txqmp.frames.actions.Failed` if a frame was cut short, and a
            :class:`~txqmp.frames.actions.RequestLost` for each request that has no answer.
        """
        if self._ended:
            return []
        self._ended = True
        actions: list[Action] = []
        cut = self._decoder.finish()
        if cut is not None and self.error is None:
            actions.append(self._fail(cut))
        requests, self._requests = self._requests, {}
        self._link.requests.clear()
        for request_id, request in requests.items():
            begun = request.source.begun
            request.source.drop()
            if request.cancelled:
                actions.append(RequestCancelled(request_id, may_have_run=begun))
            else:
                actions.append(RequestLost(request_id, may_have_run=begun))
        return actions

    def _room(self, request_id: int) -> int:
        request = self._requests.get(request_id)
        if request is None or not request.whole:
            return self.limits.message
        return request.room

    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        request_id, kind = frame.request_id, frame.type
        if kind == ERROR_RESPONSE and check_error(frame.flags, request_id):
            raise FrameProtocolError(
                Code.REPORTED_BY_PEER,
                f"the server reports: {payload.decode('utf-8', 'replace')}",
                request_id,
            )
        answered = self._link.requests.get(request_id)
        if answered is not None:
            return answered(frame, payload)
        request = self._requests.get(request_id)
        if request is None:
            raise FrameProtocolError(
                Code.INACTIVE_REQUEST,
                f"received frame for inactive request ID: {request_id}",
                request_id,
            )
        if kind == BYTES_RESPONSE:
            return self._response(frame, request, payload)
        if kind == ERROR_RESPONSE:
            message = payload.decode("utf-8", "replace")
            ran = message != REFUSED
            cancelled = request.cancelled
            actions = self._over(request_id)
            if cancelled:
                return [*actions, RequestCancelled(request_id, ran)]
            return [*actions, RequestFailed(request_id, message, ran)]
        if kind == TEXT_OUTPUT:
            request.count(payload, False)
            if request.cancelled:
                return []
            return [TextOutput(request_id, decode_text(payload, request_id))]
        raise FrameProtocolError(
            Code.UNEXPECTED_FRAME_TYPE, f"received unexpected frame type: {kind}", request_id
        )

    def _response(self, frame: Frame, request: _Request, payload: bytes) -> list[Action]:
        request_id = frame.request_id
        last = check_end(frame.flags, "bytes response", request_id)
        actions: list[Action] = []
        held = request.whole and not request.cancelled
        if held:
            request.take(payload, last)
        else:
            request.count_empty(payload, last)
        if self._receive_credit is not None:
            self._receive_credit.receive(request_id, len(payload))
            if request.whole or request.cancelled:
                actions += self._grant(self._receive_credit.consume(request_id, len(payload)))
        if held and last:
            actions.append(Response(request_id, request.message()))
        elif not held and not request.cancelled:
            actions.append(ResponseData(request_id, payload, last))
        if last:
            actions += self._over(request_id)
            if request.cancelled:
                actions.append(RequestCancelled(request_id))
        return actions

    def _over(self, request_id: int) -> list[Action]:
        """A request is over: its id is free."""
        request = self._requests.pop(request_id)
        if not request.source.finished:
            request.source.drop()
        if self._send_credit is not None:
            self._send_credit.forget(request_id)
        if self._receive_credit is not None:
            return self._grant(self._receive_credit.forget(request_id))
        return []

    # The link

    def open_link(self) -> SendFrames:
        """
        Ask the server for a link, before any request. The answer is a
        :class:`~txqmp.frames.actions.LinkOpened`, or a
        :class:`~txqmp.frames.actions.RequestFailed` for request :attr:`link_request`: then the
        server knows nothing of it, and the connection can be used without.

        :raises FrameUsageError: there was a request already.
        """
        self._check_usable()
        if self._link.request is not None or self._asked:
            raise FrameUsageError("a link is opened once, before any request")
        return self._link.open()

    @property
    def link_request(self) -> int | None:
        """The id of the request that opens the link; ``None`` where there is none."""
        return self._link.request

    def ping(self, token: bytes) -> SendFrames:
        """
        Have the server answer with a :class:`~txqmp.frames.actions.Pong`.

        :param token: 1 to 64 printable ASCII characters, which come back.
        :raises FrameUsageError: there is no link, or the token is none.
        """
        self._check_open()
        return self._link.ping(token)

    def goaway(self, reason: str = "") -> SendFrames:
        """
        Make no new requests, and tell the server so.

        :raises FrameUsageError: there is no link.
        """
        self._check_open()
        return self._link.goaway(reason)

    def link_source(self, name: bytes, arguments: dict[Name, bytes]) -> FrameSource:
        """For :class:`~txqmp.frames.link.client.LinkOwner`."""
        output = self.stream(1)
        parts = command_parts(name, arguments, None, output.max_payload)
        return FrameSource(output, self._allocate(), parts, plain=True)

    def _grant(self, grants: list[Grant]) -> list[Action]:
        if not grants or self.error is not None or self._ended:
            return []
        return [self._link.grant(grants)]
