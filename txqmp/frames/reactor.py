"""What the two sides of a connection have in common: :class:`Reactor`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from itertools import chain

import attrs

from txqmp.frames.actions import Action, Failed, StreamEncoded
from txqmp.frames.codec import (
    STREAM_SETTINGS,
    Frame,
    FrameDecoder,
    check_frame,
    too_large,
)
from txqmp.frames.commands import error_part
from txqmp.frames.credit import Grant, ReceiveCredit, SendCredit
from txqmp.frames.encodings import IDENTITY
from txqmp.frames.errors import Code, FrameProtocolError, FrameUsageError
from txqmp.frames.limits import MAX_UNNEGOTIATED, Limits
from txqmp.frames.link.words import Terms
from txqmp.frames.sources import FrameSource
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
        # Those that take no more messages, until their last frame has been made.
        self._closing: dict[int, OutputStream] = {}
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
        Take one frame from the peer, in place of its bytes. It is held to what bytes are.

        :returns: what to do, in order.
        :raises FrameUsageError: no bytes would be such a frame; or another has come in part, by
            :meth:`receive`. Nothing is taken then.
        """
        check_frame(frame)
        if self.error is not None or self._ended:
            return [self._again()]
        if self._decoder.held:
            raise FrameUsageError("a frame that came in part is not whole yet")
        length, largest = len(frame.payload), self._decoder.max_payload
        if length > largest:
            return [self._fail(too_large(length, largest, frame.request_id))]
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
    def _room(self, frame: Frame) -> int:
        """How many bytes of a frame's message may still come."""

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
        A new stream of ours. There are 128 ids or, on a server, 127; those of streams that were
        closed and have ended are given again when all have been.

        :param encoding: one that the peer takes.
        :raises FrameUsageError: there is no such encoding; all ids are used; or, over a link, the
            peer does not take the encoding, or not one more stream.
        """
        stream_id = self._free_stream_id()
        peer = self.peer
        if peer is not None and encoding != IDENTITY:
            if encoding not in peer.encodings:
                raise FrameUsageError(f"the peer does not take {encoding}")
            streams = chain(self._outputs.values(), self._closing.values())
            encoded = sum(each.encoding != IDENTITY for each in streams)
            if encoded >= peer.encoded_streams:
                raise FrameUsageError(f"the peer takes {encoded} streams with an encoding")
        stream = self._add_stream(stream_id, encoding)
        self._next_stream = stream_id + 2
        return stream

    def _free_stream_id(self) -> int:
        first, after = self._default_stream, self._next_stream
        for stream_id in chain(range(after, 0x100, 2), range(first, after, 2)):
            if stream_id not in self._outputs and stream_id not in self._closing:
                return stream_id
        raise FrameUsageError("all streams are used")

    def close_stream(self, stream: OutputStream | int) -> list[Action]:
        """
        End a stream of ours. It takes no new messages. Those that it has are sent to their end, and
        the last frame of the last carries ``stream-end``: so a stream that is closed before the
        frames of its only message are asked for ends with that. Where it has none, a frame of the
        link says it. The id is free when that frame has been given.

        What the peer still has to answer is not touched, and a response that is not begun can go on
        another stream. A stream that was never begun is over at once. Without a link, one whose
        last messages are all cancelled before their first frames stays open.

        :param stream: one that is open, or its id.
        :returns: what to send.
        :raises FrameUsageError: it is not open, or closed already; it is the one that is used where
            none is chosen; or no message is left that could end it, and there is no link.
        """
        output = self._outputs.get(stream)
        if output is None and isinstance(stream, OutputStream):
            output = self._output(stream)
        if output is None:
            raise FrameUsageError(f"stream {stream} is not open")
        if output.id == self._default_stream:
            raise FrameUsageError(f"stream {output.id} is for what has no other: it stays open")
        messages = {source for source in self._sources() if source.stream is output}
        if output.begun and not messages and not self._link_speaks:
            raise FrameUsageError(
                f"stream {output.id} has no message that could end it, and there is no link"
            )
        del self._outputs[output.id]
        self._closing[output.id] = output
        output.messages.update(messages)
        output.closing = True
        return self._settle(output)

    def _settle(self, stream: OutputStream) -> list[Action]:
        """End a stream that is being closed, if no message is left to do it."""
        if not stream.closing or stream.messages or stream.ended:
            return []
        if not stream.begun:
            stream.end_unbegun()
            return []
        if not self._link_speaks:
            return []
        return self._end_by_link(stream)

    @abstractmethod
    def _sources(self) -> Iterable[FrameSource]:
        """The messages that are not finished, but for those of the link."""

    @property
    @abstractmethod
    def _link_speaks(self) -> bool:
        """Whether there is a link on which something can be said."""

    @abstractmethod
    def _end_by_link(self, stream: OutputStream) -> list[Action]:
        """Say something on a stream that is being closed."""

    def _stream_ended(self, stream: OutputStream) -> None:
        """The last frame of a stream has been made: its id is free."""
        if self._outputs.get(stream.id) is stream:
            del self._outputs[stream.id]
        elif self._closing.get(stream.id) is stream:
            del self._closing[stream.id]

    def stream(self, stream_id: int) -> OutputStream:
        """
        A stream of ours, by its id; one that is not open yet has no encoding.

        :raises FrameUsageError: it would be the peer's; it is being closed; or, over a link, the
            peer does not take one more stream.
        """
        stream = self._outputs.get(stream_id)
        if stream is None:
            if stream_id in self._closing:
                raise FrameUsageError(f"stream {stream_id} is being closed")
            if stream_id & 1 != self._next_stream & 1 or not 0 <= stream_id <= 0xFF:
                kind = "odd" if self._next_stream & 1 else "even"
                raise FrameUsageError(f"our streams have {kind} ids to 255, not {stream_id}")
            stream = self._add_stream(stream_id, IDENTITY)
        return stream

    def _output(self, stream: OutputStream | int) -> OutputStream:
        """One of our streams, by its id or itself."""
        if not isinstance(stream, OutputStream):
            return self.stream(stream)
        if self._outputs.get(stream.id) is not stream:
            # Its id may be another's by now.
            raise FrameUsageError(f"this stream {stream.id} is not open: it is closed, or not ours")
        return stream

    def _add_stream(self, stream_id: int, encoding: str) -> OutputStream:
        limits, peer = self.limits, self.peer
        largest = MAX_UNNEGOTIATED
        if peer is not None:
            largest = peer.max_frame
            # The one that is used by default, by the link too, is always there.
            count = len(self._outputs) + len(self._closing)
            if count >= peer.streams and stream_id != self._default_stream:
                raise FrameUsageError(f"the peer takes {peer.streams} streams")
        if limits.send_frame > largest:
            limits = attrs.evolve(limits, send_frame=largest)
        stream = OutputStream(stream_id, encoding, limits, on_end=self._stream_ended)
        self._outputs[stream_id] = stream
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
