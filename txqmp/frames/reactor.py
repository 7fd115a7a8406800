"""What the two sides of a connection have in common: :class:`Reactor`."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class Reactor(ABC):
    """
    One side of a connection.

    :ivar error: what the peer broke the protocol with, ``None`` as long as it did not. After that
        whatever comes is answered with :class:`~txqmp.frames.actions.Failed` only.
    :ivar peer: what the peer offers, once the link is open; else ``None``.
    :ivar limits: how much is taken, held and sent.
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
        self._encodings = tuple(encodings)
        # By id; who asks for a stream with itself is not helped here, but need not look first.
        self._outputs: dict[int | OutputStream, OutputStream] = {}
        self._default_stream = self._next_stream = first_stream
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
            return [self._again()] if data or self.error is not None else []
        frames = self._decoder.feed(data)
        if len(frames) == 1 and self._decoder.error is None:
            return self._take(frames[0])
        actions: list[Action] = []
        for frame in frames:
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

    @abstractmethod
    def _room(self, request_id: int) -> int:
        """How many bytes of a request's message may still come."""

    @abstractmethod
    def _handle(self, frame: Frame, payload: bytes) -> list[Action]:
        """Take a frame whose stream is in order; ``payload`` is decoded."""

    def _again(self) -> Failed:
        if self.error is None:
            return self._fail(
                FrameProtocolError(Code.AFTER_END_OF_INPUT, "bytes after the end of the input")
            )
        return Failed(FrameProtocolError(Code.ALREADY_ERRORED, f"already errored: {self.error}"))

    def _fail(self, error: FrameProtocolError) -> Failed:
        if self.error is None:
            self.error = error
        return Failed(error, self._farewell(error))

    def _farewell(self, error: FrameProtocolError) -> bytes:
        """A frame that tells the peer what it did."""
        return b""

    # Output

    def open_stream(self, encoding: str = IDENTITY) -> OutputStream:
        """
        A new stream of ours. A stream stays open: each id is given once, 128 of them or, on a
        server, 127.

        :param encoding: one that the peer takes.
        :raises FrameUsageError: there is no such encoding; all ids are used; or, over a link, the
            peer does not take the encoding, or not one more stream.
        """
        if self._next_stream > 0xFF:
            raise FrameUsageError("all streams are used")
        peer = self.peer
        if peer is not None and encoding != IDENTITY:
            if encoding not in peer.encodings:
                raise FrameUsageError(f"the peer does not take {encoding}")
            encoded = sum(each.encoding != IDENTITY for each in self._outputs.values())
            if encoded >= peer.encoded_streams:
                raise FrameUsageError(f"the peer takes {encoded} streams with an encoding")
        return self._add_stream(self._next_stream, encoding)

    def stream(self, stream_id: int) -> OutputStream:
        """
        A stream of ours, by its id; one that is not open yet has no encoding.

        :raises FrameUsageError: it would be the peer's; or, over a link, the peer does not take one
            more stream.
        """
        stream = self._outputs.get(stream_id)
        if stream is None:
            if stream_id & 1 != self._next_stream & 1 or not 0 <= stream_id <= 0xFF:
                kind = "odd" if self._next_stream & 1 else "even"
                raise FrameUsageError(f"our streams have {kind} ids to 255, not {stream_id}")
            stream = self._add_stream(stream_id, IDENTITY)
        return stream

    def _output(self, stream: OutputStream | int) -> OutputStream:
        """One of our streams, by its id or itself."""
        return self.stream(stream.id if isinstance(stream, OutputStream) else stream)

    def _add_stream(self, stream_id: int, encoding: str) -> OutputStream:
        limits, peer = self.limits, self.peer
        largest = MAX_UNNEGOTIATED
        if peer is not None:
            largest = peer.max_frame
            # The one that is used by default, by the link too, is always there.
            if len(self._outputs) >= peer.streams and stream_id != self._default_stream:
                raise FrameUsageError(f"the peer takes {peer.streams} streams")
        if limits.send_frame > largest:
            limits = attrs.evolve(limits, send_frame=largest)
        stream = self._outputs[stream_id] = OutputStream(stream_id, encoding, limits)
        self._next_stream = max(self._next_stream, stream_id + 2)
        return stream

    # The link

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send; called by the link."""
        self.peer = peer
        for stream in self._outputs.values():
            stream.shrink(peer.max_frame)
        self._send_credit = SendCredit(peer.window, peer.connection_window)
        self._receive_credit = ReceiveCredit(self.limits.window, self.limits.connection_window)

    def granted(self, grant: Grant) -> None:
        """The peer lets us send more; called by the link."""
        assert self._send_credit is not None
        self._send_credit.grant(*grant)


def farewell_frame(error: FrameProtocolError, limits: Limits) -> bytes:
    """
    The frame with which a server says that the connection should be closed. It has a stream of its
    own, 0, so it can be sent before what was made earlier, and after what is made later.
    """
    text = str(error).encode("utf-8", "replace")[: min(limits.send_frame, 1024)]
    stream = OutputStream(0)
    return stream.frame(error.request_id or 0, *error_part(text, protocol=True), last=True)
