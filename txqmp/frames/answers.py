"""The answers of a server: :class:`Answers`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from weakref import WeakSet

from txqmp.frames.actions import Action, Nothing, SendFrames
from txqmp.frames.codec import TEXT_OUTPUT
from txqmp.frames.commands import Part, error_part, response_parts
from txqmp.frames.errors import Code, FrameUsageError
from txqmp.frames.limits import Limits
from txqmp.frames.link.words import CANCELLED, REFUSED
from txqmp.frames.reactor import Reactor
from txqmp.frames.sources import FrameSource, ResponseWriter
from txqmp.frames.streams import OutputStream
from txqmp.frames.text import TextAtom, encode_text


#: What goes wrong at the end of the input only: what came before it can be answered.
_AT_THE_END = frozenset(
    {
        Code.INCOMPLETE_HEADER,
        Code.INCOMPLETE_PAYLOAD,
        Code.PARTIAL_REQUEST,
        Code.AFTER_END_OF_INPUT,
    }
)


class Answers(Reactor):
    """
    The half of a server that answers.

    :param defer_output: hold all answers until the input has ended.
    """

    def __init__(self, limits: Limits, encodings: Collection[str], defer_output: bool) -> None:
        super().__init__(client=False, limits=limits, encodings=encodings, first_stream=2)
        self._takes_settings = self._inputs.takes_settings
        self._defer = defer_output
        self._deferred: list[FrameSource] = []
        # Requests that are not answered: the source of each answer, once there is one.
        self._active: dict[int, FrameSource | None] = {}
        self._cancelled: set[int] = set()
        # Texts on their way; one that nobody sends is not held for that.
        self._texts: WeakSet[FrameSource] = WeakSet()

    @property
    def active(self) -> frozenset[int]:
        """The requests that are served, by id; those of the link are none."""
        return frozenset(self._active)

    def respond(
        self,
        request_id: int,
        data: bytes,
        stream: OutputStream | int = 2,
        *,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        """
        Answer a request.

        :param data: the response, whole.
        :param stream: one of ours, or its id.
        :param plain: leave the stream's encoding off.
        :returns: the frames; :class:`~txqmp.frames.actions.Nothing` where they wait for
            :meth:`end_of_input`.
        :raises FrameUsageError: the request is not active, or answered already; the stream is not
            ours; or the connection has failed. Nothing is sent then.
        """
        output = self._outputs.get(stream) or self._output(stream)
        return self._send(request_id, output, response_parts(data, output.max_payload), plain=plain)

    def respond_error(
        self,
        request_id: int,
        message: str | bytes,
        stream: OutputStream | int = 2,
        *,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        """
        Answer a request with an error of the application; for the rest like :meth:`respond`.

        :param message: for people; it must fit into one frame.
        """
        output = self._outputs.get(stream) or self._output(stream)
        part = error_part(message, application=True, max_payload=output.max_payload)
        return self._send(request_id, output, (part,), plain=plain)

    def respond_cancelled(self, request_id: int, *, may_have_run: bool) -> SendFrames | Nothing:
        """
        Answer a request by saying that it was cancelled.

        :param may_have_run: whether the command may have run, in part or whole.
        """
        return self.respond_error(request_id, CANCELLED if may_have_run else REFUSED)

    def open_response(
        self, request_id: int, stream: OutputStream | int = 2, *, plain: bool = False
    ) -> tuple[ResponseWriter, SendFrames | Nothing]:
        """
        Answer a request with a response that comes in pieces; for the rest like :meth:`respond`.

        :returns: what to write the pieces to, and the frames: its source has more whenever a piece
            was written, and should stay with a :class:`~txqmp.frames.sources.Scheduler`.
        """
        output = self._outputs.get(stream) or self._output(stream)
        action = self._send(request_id, output, (), open=True, plain=plain)
        source = self._active[request_id]
        assert source is not None
        return ResponseWriter(source, output.max_payload), action

    def write_text(
        self,
        request_id: int,
        atoms: Iterable[TextAtom],
        stream: OutputStream | int = 2,
        *,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        """
        Send text for people to read, until a request is answered; while a response in pieces is
        open, the text has its place among them. For the rest like :meth:`respond`.

        :param stream: one of ours, or its id; for a response in pieces it is the response's.
        :param plain: leave the stream's encoding off; a response in pieces has decided for itself.
        :raises FrameUsageError: the text does not fit into a frame.
        """
        self._check_answerable(request_id)
        answer = self._active[request_id]
        output = self._output(stream) if answer is None else answer.stream
        part = (TEXT_OUTPUT, 0, encode_text(atoms, output.max_payload))
        if answer is None:
            text = FrameSource(output, request_id, (part,), plain=plain, done=self._texts.discard)
            self._texts.add(text)
            return self._out(text)
        # A source of its own could come after the last piece, when the request is over.
        answer.add((part,))
        return Nothing() if self._defer else SendFrames((answer,))

    def _sources(self) -> Iterable[FrameSource]:
        yield from self._texts
        yield from filter(None, self._active.values())

    def _check_answerable(self, request_id: int) -> None:
        if self.error is not None and self.error.code not in _AT_THE_END:
            raise FrameUsageError(f"the connection has failed: {self.error}")
        if request_id not in self._active:
            raise FrameUsageError(f"request {request_id} is not active")

    def _send(
        self,
        request_id: int,
        stream: OutputStream,
        parts: Iterable[Part],
        *,
        open: bool = False,
        plain: bool = False,
    ) -> SendFrames | Nothing:
        active = self._active
        if self.error is not None or active.get(request_id, self) is not None:
            self._check_answerable(request_id)
            if active[request_id] is not None:
                raise FrameUsageError(f"request {request_id} is answered already")
        source = active[request_id] = FrameSource(
            stream,
            request_id,
            parts,
            open=open,
            credit=self._send_credit,
            plain=plain,
            done=self._answered,
        )
        return self._out(source) if self._defer else SendFrames((source,))

    def _out(self, source: FrameSource) -> SendFrames | Nothing:
        if self._defer:
            self._deferred.append(source)
            return Nothing()
        return SendFrames((source,))

    def _answered(self, source: FrameSource) -> None:
        """The last frame of an answer has been given: its request is over."""
        request_id = source.request_id
        del self._active[request_id]
        if self._send_credit is not None:
            self._cancelled.discard(request_id)
            self._send_credit.forget(request_id)

    def _refuse(self, request_id: int) -> SendFrames | Nothing:
        stream = self._output(2)
        message = REFUSED.encode("ascii")[: stream.max_payload]
        return self._send(request_id, stream, (error_part(message, application=True),))

    def _end_deferral(self) -> list[Action]:
        """The answers that were held; none are from now on."""
        self._defer = False
        deferred, self._deferred = self._deferred, []
        return [SendFrames(tuple(deferred))] if deferred else []
