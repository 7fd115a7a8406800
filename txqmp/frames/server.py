"""
The server's side of a connection: :class:`ServerReactor`.

It is told of bytes and of finished work, and answers with actions. A frame is checked in a fixed
order: its stream, its type, its request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from txqmp.frames.actions import Action, CancelCommand, RunCommand, WantFrame
from txqmp.frames.answers import Answers
from txqmp.frames.codec import COMMAND_DATA, COMMAND_NAME, Frame
from txqmp.frames.commands import Part, check_name, error_part
from txqmp.frames.credit import Grant
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import DEFAULT_LIMITS, Limits
from txqmp.frames.link.server import ServerLink
from txqmp.frames.link.words import CANCELLED, Terms, malformed
from txqmp.frames.reactor import farewell_frame
from txqmp.frames.receiving import HalfRequests
from txqmp.frames.sources import FrameSource
from txqmp.frames.streams import OutputStream


class ServerReactor(Answers):
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
    :raises FrameUsageError: there is no such encoding; or a link cannot be, with deferred output or
        with such small frames.
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
        super().__init__(limits, encodings, defer_output)
        if link and defer_output:
            raise FrameUsageError("a link needs both directions at once")
        self._half = HalfRequests(limits, clock)
        self._link: ServerLink | None = None
        if link:
            self._link = ServerLink(self, Terms.of(limits, encodings), limits.control)
        self._last_request = 0
        self._asked = False
        self._leaving = False

    # What is known

    @property
    def half_received(self) -> frozenset[int]:
        """The requests that are being received, by id."""
        return frozenset(self._half)

    @property
    def deadline(self) -> float | None:
        """When :meth:`check_time` should be called, by the clock; ``None`` for never."""
        return self._half.deadline if self.error is None else None

    def check_time(self) -> list[Action]:
        """See whether a request takes too long to come."""
        error = self._half.overdue() if self.error is None else None
        return [] if error is None else [self._fail(error)]

    # Input

    def end_of_input(self) -> list[Action]:
        """
        The client sends nothing more.

        What is active can still be answered, and is sent as soon as it is; a farewell goes after
        that, as a client takes nothing after it. Over a link, though, no more credit comes, so a
        response that waits for some waits for ever.

        :returns: the answers that were deferred; then a :class:`~txqmp.frames.actions.Failed` if a
            frame was cut short, and one for each request that came in part.
        """
        if self._ended:
            return []
        self._ended = True
        actions = self._end_deferral()
        if self.error is None:
            cut = self._decoder.finish()
            if cut is not None:
                actions.append(self._fail(cut))
            for request_id in tuple(self._half):
                self._half.drop(request_id)
                error = FrameProtocolError(
                    Code.PARTIAL_REQUEST,
                    f"the input ended before request {request_id} was whole",
                    request_id,
                )
                actions.append(self._fail(error))
        return actions

    def receive_frame(self, frame: Frame) -> list[Action]:
        """
        Take one frame from the client, in place of its bytes.

        :returns: what to do, in order; a :class:`~txqmp.frames.actions.WantFrame` where there is
            nothing to do before more has come.
        :raises FrameUsageError: no bytes would be such a frame; or another has come in part, by
            :meth:`receive`. Nothing is taken then.
        """
        actions = super().receive_frame(frame)
        return actions or [WantFrame("command-receiving" if self._half else "idle")]

    def _room(self, frame: Frame) -> int:
        return self._half.room(frame.request_id)

    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        request_id, kind = frame.request_id, frame.type
        if kind == COMMAND_NAME:
            return self._command(frame, payload)
        if not self._half:
            raise FrameProtocolError(
                Code.EXPECTED_COMMAND, f"expected command frame; got {kind}", request_id
            )
        link = self._link
        if request_id in self._active or (link is not None and link.uses(request_id)):
            raise FrameProtocolError(
                Code.STILL_ACTIVE,
                f"received frame for request that is still active: {request_id}",
                request_id,
            )
        if request_id not in self._half:
            raise FrameProtocolError(
                Code.NOT_RECEIVING,
                f"received frame for request that is not receiving: {request_id}",
                request_id,
            )
        half = self._half.take(frame, payload)
        if self._receive_credit is not None and kind == COMMAND_DATA:
            self._receive_credit.receive(request_id, len(payload))
            if half is None:
                # What is held is bounded by other limits: it counts as dealt with.
                self._grant(self._receive_credit.consume(request_id, len(payload)))
        if half is None:
            return []
        self._uncount(request_id)
        return self._begin(request_id, half.name, half.arguments, half.data)

    def _command(self, frame: Frame, name: bytes) -> list[Action]:
        request_id = frame.request_id
        if request_id in self._half:
            raise FrameProtocolError(
                Code.ALREADY_RECEIVING, f"request with ID {request_id} already received", request_id
            )
        link = self._link
        if request_id in self._active or (link is not None and link.uses(request_id)):
            raise FrameProtocolError(
                Code.ALREADY_ACTIVE, f"request with ID {request_id} is already active", request_id
            )
        if not request_id & 1:
            raise FrameProtocolError(
                Code.WRONG_REQUEST_PARITY,
                f"a client's requests have odd ids, not {request_id}",
                request_id,
            )
        whole = check_name(frame.flags, name, request_id)
        if link is not None and link.takes(name):
            if not whole:
                raise malformed(name)
            return link.run(request_id, name, first=not self._asked)
        self._asked = True
        if whole:
            return self._begin(request_id, name, {}, None)
        self._half.begin(request_id, name, frame.flags)
        return []

    def _begin(
        self, request_id: int, name: bytes, arguments: dict[bytes, bytes], data: bytes | None
    ) -> list[Action]:
        """A request is whole."""
        self._activate(request_id)
        if self._leaving:
            return [self._refuse(request_id)]
        self._last_request = request_id
        return [RunCommand(request_id, name, arguments, data)]

    def _activate(self, request_id: int) -> None:
        if len(self._active) >= self.limits.active:
            raise FrameLimitError("active", self.limits.active, "one more request", request_id)
        self._active[request_id] = None

    def _farewell(self, error: FrameProtocolError) -> bytes:
        return farewell_frame(error, self.limits)

    # The link

    def ping(self, token: bytes) -> None:
        """
        Have the client answer with a :class:`~txqmp.frames.actions.Pong`. The source of the answer
        to ``link``, which went to the :class:`~txqmp.frames.sources.Scheduler` when the link was
        opened, has a frame more.

        :param token: 1 to 64 printable ASCII characters, which come back.
        :raises FrameUsageError: there is no link, or the token is none; too many pings are not
            answered yet; or the connection has failed.
        """
        if self._link is None or self.error is not None or self._ended:
            raise FrameUsageError("there is no link")
        self._link.ping(token)

    def goaway(self, reason: str = "") -> None:
        """
        Take no new requests: they are refused from now on, and the client is told, if there is a
        link. Those that were taken are answered.
        """
        if not self._leaving:
            self._leaving = True
            if self._link is not None:
                self._link.goaway(self._last_request, reason)

    def link_source(
        self,
        request_id: int,
        parts: Iterable[Part],
        done: Callable[[FrameSource], None] | None = None,
    ) -> FrameSource:
        """For :class:`~txqmp.frames.link.server.LinkOwner`."""
        return FrameSource(
            self.stream(2), request_id, parts, open=done is None, plain=True, done=done
        )

    @property
    def _link_speaks(self) -> bool:
        return self._link is not None and self._link.is_open and self.error is None

    def _end_by_link(self, stream: OutputStream) -> list[Action]:
        assert self._link is not None
        return [self._link.end_stream(stream)]

    def cancel_request(self, request_id: int) -> list[Action]:
        """For :class:`~txqmp.frames.link.server.LinkOwner`."""
        if request_id in self._half:
            self._half.drop(request_id)
            self._uncount(request_id)
            self._activate(request_id)
            return [self._refuse(request_id)]
        if request_id not in self._active or request_id in self._cancelled:
            return []
        self._cancelled.add(request_id)
        source = self._active[request_id]
        if source is None:
            return [CancelCommand(request_id)]
        if not source.fails:
            source.replace((error_part(CANCELLED, application=True),))
        return [CancelCommand(request_id, answered=True)]

    def _uncount(self, request_id: int) -> None:
        """All data of a request have come: more of them need not be granted."""
        if self._receive_credit is not None and self._link is not None:
            self._link.forget(request_id)
            self._grant(self._receive_credit.forget(request_id))

    def _grant(self, grants: list[Grant]) -> None:
        if grants and self._link is not None:
            self._link.grant(grants)
