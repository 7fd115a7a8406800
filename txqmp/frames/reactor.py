"""What the two sides of a connection have in common: :class:`Reactor`."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from txqmp.frames.actions import Action, Failed, StreamEncoded
from txqmp.frames.codec import STREAM_SETTINGS, Frame, FrameDecoder
from txqmp.frames.commands import error_part
from txqmp.frames.credit import Grant, ReceiveCredit, SendCredit
from txqmp.frames.encodings import IDENTITY
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import MAX_UNNEGOTIATED, Limits
from txqmp.frames.link.words import Terms
from txqmp.frames.streams import InputStreams, OutputStream


class Reactor:
    """
    One side of a connection.

    :ivar error: what the peer broke the protocol with, ``None`` as long as it did not. After that
        every frame is answered with the same :class:`~txqmp.frames.actions.Failed`.
    :ivar peer: what the peer offers, once the link is open; else ``None``.
    """

    _takes_settings = True

    def __init__(
        self, *, client: bool, limits: Limits, encodings: Collection[str], first_stream: int
    ) -> None:
        self.error: FrameProtocolError | None = None
        self.peer: Terms | None = None
        self.limits = limits
        self._decoder = FrameDecoder(limits.receive_frame)
        self._inputs = InputStreams(not client, limits, encodings)
        self._terms = Terms(
            window=limits.window,
            connection_window=limits.connection_window,
            max_frame=limits.receive_frame,
            encodings=tuple(name for name in encodings if name != IDENTITY),
        )
        self._outputs: dict[int, OutputStream] = {}
        self._next_stream = first_stream
        self._send_credit: SendCredit | None = None
        self._receive_credit: ReceiveCredit | None = None
        self._ended = False

    # Input

    def receive(self, data: bytes) -> list[Action]:
        """
        Take bytes from the peer.

        :returns: what to do, in order.
        """
        if self.error is not None or self._ended:
            return [self._again()]
        actions: list[Action] = []
        for frame in self._decoder.feed(data):
            actions += self._take(frame)
            if self.error is not None:
                return actions
        if self._decoder.error is not None:
            actions.append(self._fail(self._decoder.error))
        return actions

    def receive_frame(self, frame: Frame) -> list[Action]:
        """
        Take one frame from the peer, in place of its bytes.

        :returns: what to do, in order.
        """
        if self.error is not None or self._ended:
            return [self._again()]
        return self._take(frame)

    def _take(self, frame: Frame) -> list[Action]:
        try:
            payload = self._inputs.accept(frame, self._room)
            if frame.type == STREAM_SETTINGS and self._takes_settings:
                encoding = self._inputs.set_encoding(frame, payload)
                return [StreamEncoded(frame.stream_id, encoding)]
            return self._handle(frame, payload)
        except FrameProtocolError as error:
            return [self._fail(error)]

    def _room(self, request_id: int) -> int:
        """How many bytes of a request's message may still come."""
        raise NotImplementedError

    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        """Take a frame whose stream is in order; ``payload`` is decoded."""
        raise NotImplementedError

    def _again(self) -> Failed:
        if self.error is None:
            return self._fail(
                FrameProtocolError(Code.AFTER_END_OF_INPUT, "bytes after the end of the input")
            )
        return Failed(FrameProtocolError(Code.ALREADY_ERRORED, f"already errored: {self.error}"))

    def _fail(self, error: FrameProtocolError) -> Failed:
        self.error = error
        return Failed(error, self._farewell(error))

    def _farewell(self, error: FrameProtocolError) -> bytes:
        """A frame that tells the peer what it did."""
        return b""

    # Output

    def open_stream(self, encoding: str = IDENTITY) -> OutputStream:
        """
        A new stream of ours.

        :param encoding: one that the peer takes.
        :raises FrameUsageError: all ids are used, or there is no such encoding.
        """
        if self._next_stream > 0xFF:
            raise FrameUsageError("all streams are used")
        stream = OutputStream(self._next_stream, encoding, self._output_limits())
        self._next_stream += 2
        self._outputs[stream.id] = stream
        return stream

    def stream(self, stream_id: int) -> OutputStream:
        """
        A stream of ours, by its id; one that is not open yet has no encoding.

        :raises FrameUsageError: it would be the peer's.
        """
        stream = self._outputs.get(stream_id)
        if stream is None:
            if stream_id & 1 != self._next_stream & 1 or not 0 <= stream_id <= 0xFF:
                kind = "odd" if self._next_stream & 1 else "even"
                raise FrameUsageError(f"our streams have {kind} ids to 255, not {stream_id}")
            stream = self._outputs[stream_id] = OutputStream(
                stream_id, IDENTITY, self._output_limits()
            )
            self._next_stream = max(self._next_stream, stream_id + 2)
        return stream

    def _output_limits(self) -> Limits:
        """Our limits, with frames no larger than the peer takes, nor than half of its window."""
        largest = MAX_UNNEGOTIATED
        if self.peer is not None:
            window = min(self.peer.window, self.peer.connection_window)
            largest = min(self.peer.max_frame, max(1, window // 2))
        if self.limits.send_frame <= largest:
            return self.limits
        return attrs.evolve(self.limits, send_frame=largest)

    # The link

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send; called by the link."""
        self.peer = peer
        self._send_credit = SendCredit(peer.window, peer.connection_window)
        self._receive_credit = ReceiveCredit(self.limits.window, self.limits.connection_window)

    def granted(self, grant: Grant) -> None:
        """The peer lets us send more; called by the link."""
        if self._send_credit is not None:
            self._send_credit.grant(*grant)


def farewell_frame(stream: OutputStream, error: FrameProtocolError) -> bytes:
    """The frame with which a server says that the connection should be closed."""
    type, flags, text = error_part(
        str(error).encode("utf-8", "replace")[: stream.max_payload], protocol=True
    )
    return stream.frame(error.request_id or 0, type, flags, text, plain=True)
