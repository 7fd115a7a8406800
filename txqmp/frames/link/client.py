"""The client's end of a link: :class:`ClientLink`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

from txqmp.frames.actions import (
    Action,
    GoingAway,
    LinkOpened,
    Pong,
    RequestFailed,
    SendFrames,
    TextOutput,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_NAME,
    ERROR_RESPONSE,
    NAME_EOS,
    TEXT_OUTPUT,
    Frame,
)
from txqmp.frames.commands import Part, check_end, check_error
from txqmp.frames.credit import Grant
from txqmp.frames.errors import FrameLimitError, FrameUsageError
from txqmp.frames.link.words import (
    CANCEL,
    CREDIT,
    GOAWAY,
    LINK,
    MAX_LINE,
    MOST,
    PING,
    PONG,
    TOGETHER,
    VERSION,
    Terms,
    check_token,
    decode_grants,
    decode_number,
    decode_token,
    encode_grants,
    malformed,
    one_line,
)
from txqmp.frames.sources import FrameSource
from txqmp.frames.streams import OutputStream
from txqmp.frames.text import decode_text


class LinkOwner(Protocol):
    """What a :class:`ClientLink` needs of its reactor."""

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send."""

    def link_source(self, parts: Iterable[Part], stream: OutputStream | None = None) -> FrameSource:
        """A new request that is one of the link's commands, on the link's own stream or another."""

    def granted(self, grant: Grant) -> None:
        """The server lets us send more."""


Answered = Callable[[Frame, bytes], list[Action]]
"""Takes a frame of the answer to one of the link's commands, and its payload, decoded."""


class _Outbox:
    """
    What is to be said with commands of one word.

    :ivar items: what was not put into a command yet.
    :ivar ready: whether a command has been made whose frame was not asked for yet; it will say what
        is there then.
    :ivar unanswered: how many commands have no answer.
    """

    __slots__ = ("encode", "items", "ready", "unanswered", "word")

    def __init__(self, word: bytes, encode: Callable[[Iterable[Grant]], bytes]) -> None:
        self.word = word
        self.encode = encode
        self.items: dict[int, int] = {}
        self.ready = False
        self.unanswered = 0

    def parts(self) -> Iterator[Part]:
        """The command, made when its frame is asked for."""
        self.ready = False
        items = list(islice(self.items.items(), TOGETHER))
        for request_id, _ in items:
            del self.items[request_id]
        yield COMMAND_NAME, NAME_EOS, self.word + b" " + self.encode(items)


def _encode_requests(items: Iterable[Grant]) -> bytes:
    return b" ".join(b"%d" % request_id for request_id, _ in items)


class ClientLink:
    """
    The client's end of a link.

    :param owner: the reactor.
    :param limit: how many pongs may be unanswered.

    :ivar request: the id of the request that asked for the link; ``None`` where none did.
    :ivar is_open: whether there is a link.
    :ivar closed: why no new requests can be made; empty while they can.
    :ivar requests: what takes the answer to each of the link's commands, by request id.
    """

    def __init__(self, owner: LinkOwner, limit: int) -> None:
        self.request: int | None = None
        self.is_open = False
        self.closed = ""
        self.requests: dict[int, Answered] = {}
        self._owner = owner
        self._limit = limit
        self._line = b""
        self._gone = False
        self._pings = 0
        self._pongs = 0
        self._grants = _Outbox(CREDIT, encode_grants)
        self._cancels = _Outbox(CANCEL, _encode_requests)
        # Streams that a command is to end; in the order in which they were closed.
        self._ends: dict[OutputStream, None] = {}

    # What the client says

    def open(self, terms: Terms) -> SendFrames:
        """
        Ask for a link.

        :param terms: what the client offers.
        """
        action = self._command(b"%s %d %s" % (LINK, VERSION, terms.encode()), self._take_lines)
        self.request = action.sources[0].request_id
        self.closed = "the link is being opened"
        return action

    def ping(self, token: bytes) -> SendFrames:
        """Ask for a pong."""
        check_token(token)
        self._check()
        if self._pings >= MOST:
            raise FrameUsageError(f"{MOST} pings are not answered yet")

        def answered(frame: Frame, payload: bytes) -> list[Action]:
            self._done(frame, payload, token)
            self._pings -= 1
            return [Pong(token)]

        self._pings += 1
        return self._command(PING + b" " + token, answered)

    def goaway(self, reason: str) -> SendFrames:
        """Say that no new requests are made."""
        self._check()
        if self._gone:
            return SendFrames(())
        self._gone = True
        self.closed = self.closed or "we are going away"
        return self._command(GOAWAY + b" " + one_line(reason))

    def cancel(self, request_id: int) -> list[Action]:
        """Say that an answer is not wanted any more."""
        self._cancels.items[request_id] = 0
        return self._say(self._cancels)

    def grant(self, grants: Iterable[Grant]) -> list[Action]:
        """Let the server send more."""
        self._grants.items.update(grants)
        return self._say(self._grants)

    def end_stream(self, stream: OutputStream) -> list[Action]:
        """Say, on a stream that is being closed, that nothing is granted."""
        self._ends[stream] = None
        return self._say_ends()

    def _say_ends(self) -> list[Action]:
        box, actions = self._grants, list[Action]()

        def answered(frame: Frame, payload: bytes) -> list[Action]:
            self._done(frame, payload)
            box.unanswered -= 1
            return self._say(box) + self._say_ends()

        while self._ends and box.unanswered < MOST:
            stream = next(iter(self._ends))
            del self._ends[stream]
            box.unanswered += 1
            actions.append(self._send(((COMMAND_NAME, NAME_EOS, CREDIT),), answered, stream))
        return actions

    def forget(self, request_id: int) -> None:
        """A request is over: nothing has to be said of it any more."""
        self._grants.items.pop(request_id, None)
        self._cancels.items.pop(request_id, None)

    def _check(self) -> None:
        if not self.is_open:
            raise FrameUsageError("there is no link")

    def _say(self, box: _Outbox) -> list[Action]:
        if not box.items or box.ready or box.unanswered >= MOST:
            return []  # the command that is ready says it, or one that is made after an answer

        def answered(frame: Frame, payload: bytes) -> list[Action]:
            self._done(frame, payload)
            box.unanswered -= 1
            # Neither what is granted nor the ends of streams, which are credit too, waits for all
            # of the other.
            return (self._say_ends() if box is self._grants else []) + self._say(box)

        box.ready = True
        box.unanswered += 1
        return [self._send(box.parts(), answered)]

    def _command(self, line: bytes, answered: Answered | None = None) -> SendFrames:
        return self._send(((COMMAND_NAME, NAME_EOS, line),), answered or self._taken)

    def _send(
        self, parts: Iterable[Part], answered: Answered, stream: OutputStream | None = None
    ) -> SendFrames:
        source = self._owner.link_source(parts, stream)
        self.requests[source.request_id] = answered
        return SendFrames((source,), urgent=True)

    # What the server says

    def _done(self, frame: Frame, payload: bytes, wanted: bytes = b"") -> None:
        """The server has taken a command."""
        last = frame.type == BYTES_RESPONSE and check_end(frame.flags, "answer", frame.request_id)
        if not last or payload != wanted:
            raise malformed(payload)
        del self.requests[frame.request_id]

    def _taken(self, frame: Frame, payload: bytes) -> list[Action]:
        self._done(frame, payload)
        return []

    def _take_lines(self, frame: Frame, payload: bytes) -> list[Action]:
        if frame.type == ERROR_RESPONSE and not self.is_open:
            check_error(frame.flags, frame.request_id)
            del self.requests[frame.request_id]
            self.closed = ""
            message = payload.decode("utf-8", "replace")
            return [RequestFailed(frame.request_id, message, may_have_run=False)]
        if frame.type == TEXT_OUTPUT and payload and not self.is_open:
            # A server without links may say something to people before it refuses.
            return [TextOutput(frame.request_id, decode_text(payload, frame.request_id))]
        if frame.type != BYTES_RESPONSE or check_end(frame.flags, "link", frame.request_id):
            raise malformed(payload)
        if not payload:
            raise malformed(payload)  # nobody has nothing to say, but can say it for ever
        *lines, self._line = (self._line + payload).split(b"\n")
        actions: list[Action] = []
        for line in lines:
            actions += self._take_line(line)
        if len(self._line) > MAX_LINE:
            raise malformed(self._line)
        return actions

    def _take_line(self, line: bytes) -> list[Action]:
        word, _, rest = line.partition(b" ")
        if len(line) > MAX_LINE:
            raise malformed(line)
        if not self.is_open:
            version, _, terms = rest.partition(b" ")
            if word != LINK or decode_number(version) < VERSION:
                raise malformed(line)
            peer = Terms.decode(terms)
            self.closed = ""
            self.is_open = True
            self._owner.link_opened(peer)
            return [LinkOpened(peer)]
        if word == b"ping":
            return [self._pong(decode_token(rest))]
        if word == b"credit":
            for grant in decode_grants(rest):
                self._owner.granted(grant)
            return []
        if word == b"goaway":
            last, _, reason = rest.partition(b" ")
            text = reason.decode("utf-8", "replace")
            self.closed = f"the server is going away: {text}"
            return [GoingAway(decode_number(last), text)]
        raise malformed(line)

    def _pong(self, token: bytes) -> SendFrames:
        if self._pongs >= self._limit:
            raise FrameLimitError("control", self._limit, "one more ping")

        def answered(frame: Frame, payload: bytes) -> list[Action]:
            self._done(frame, payload)
            self._pongs -= 1
            return []

        self._pongs += 1
        return self._command(PONG + b" " + token, answered)
