"""The client's end of a link: :class:`ClientLink`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txqmp.frames.actions import Action, GoingAway, LinkOpened, Pong, RequestFailed, SendFrames
from txqmp.frames.codec import BYTES_RESPONSE, ERROR_RESPONSE, Frame
from txqmp.frames.commands import Name, check_end, check_error
from txqmp.frames.credit import Grant
from txqmp.frames.errors import FrameUsageError
from txqmp.frames.link.words import (
    CANCEL,
    CREDIT,
    GOAWAY,
    LINK,
    MAX_LINE,
    PING,
    PONG,
    VERSION,
    Terms,
    check_token,
    decode_grants,
    decode_number,
    encode_grants,
    malformed,
    one_line,
)
from txqmp.frames.sources import FrameSource


class LinkOwner(Protocol):
    """What a :class:`ClientLink` needs of its reactor."""

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send."""

    def link_source(self, name: bytes, arguments: dict[Name, bytes]) -> FrameSource:
        """A new request that is one of the link's commands."""

    def granted(self, grant: Grant) -> None:
        """The server lets us send more."""


Answered = Callable[[Frame, bytes], list[Action]]
"""Takes a frame of the answer to one of the link's commands, and its payload, decoded."""


class ClientLink:
    """
    The client's end of a link.

    :param owner: the reactor.
    :param terms: what it offers.

    :ivar request: the id of the request that opens the link; ``None`` where it was not asked for.
    :ivar opening: whether it was asked for and is not answered yet.
    :ivar is_open: whether there is a link.
    :ivar leaving: why no new requests can be made; empty while they can.
    :ivar requests: what takes the answer to each of the link's commands, by request id.
    """

    def __init__(self, owner: LinkOwner, terms: Terms) -> None:
        self.request: int | None = None
        self.opening = False
        self.is_open = False
        self.leaving = ""
        self.requests: dict[int, Answered] = {}
        self._owner = owner
        self._terms = terms
        self._line = b""

    # What the client says

    def open(self) -> SendFrames:
        """Ask for a link."""
        arguments: dict[Name, bytes] = {
            b"terms": self._terms.encode(),
            b"version": b"%d" % VERSION,
        }
        action = self._command(LINK, arguments, self._take_lines)
        self.request = action.sources[0].request_id
        self.opening = True
        return action

    def ping(self, token: bytes) -> SendFrames:
        """Ask for a pong."""
        self._check()
        check_token(token)

        def answered(frame: Frame, payload: bytes) -> list[Action]:
            if payload != token:
                raise malformed(payload)
            return [*self._done(frame, payload), Pong(token)]

        return self._command(PING, {b"token": token}, answered)

    def goaway(self, reason: str) -> SendFrames:
        """Say that no new requests are made."""
        self._check()
        self.leaving = "we are going away"
        return self._command(GOAWAY, {b"reason": one_line(reason)})

    def cancel(self, request_id: int) -> SendFrames:
        """Say that an answer is not wanted any more."""
        return self._command(CANCEL, {b"request": b"%d" % request_id})

    def grant(self, grants: list[Grant]) -> SendFrames:
        """Let the server send more."""
        return self._command(CREDIT, {b"grants": encode_grants(grants)})

    def _check(self) -> None:
        if not self.is_open:
            raise FrameUsageError("there is no link")

    def _command(
        self, name: bytes, arguments: dict[Name, bytes], answered: Answered | None = None
    ) -> SendFrames:
        source = self._owner.link_source(name, arguments)
        self.requests[source.request_id] = answered or self._done
        return SendFrames((source,), urgent=True)

    # What the server says

    def _done(self, frame: Frame, payload: bytes) -> list[Action]:
        """The server has taken a command."""
        if frame.type != BYTES_RESPONSE or not check_end(frame.flags, "answer", frame.request_id):
            raise malformed(payload)
        del self.requests[frame.request_id]
        return []

    def _take_lines(self, frame: Frame, payload: bytes) -> list[Action]:
        if frame.type == ERROR_RESPONSE and not self.is_open:
            check_error(frame.flags, frame.request_id)
            del self.requests[frame.request_id]
            self.request = None
            self.opening = False
            message = payload.decode("utf-8", "replace")
            return [RequestFailed(frame.request_id, message, may_have_run=False)]
        if frame.type != BYTES_RESPONSE or check_end(frame.flags, "link", frame.request_id):
            raise malformed(payload)
        *lines, self._line = (self._line + payload).split(b"\n")
        if len(self._line) > MAX_LINE:
            raise malformed(self._line)
        actions: list[Action] = []
        for line in lines:
            actions += self._take_line(line)
        return actions

    def _take_line(self, line: bytes) -> list[Action]:
        word, _, rest = line.partition(b" ")
        if not self.is_open:
            version, _, terms = rest.partition(b" ")
            if word != b"link" or decode_number(version) < VERSION:
                raise malformed(line)
            peer = Terms.decode(terms)
            self.opening = False
            self.is_open = True
            self._owner.link_opened(peer)
            return [LinkOpened(peer)]
        if word == b"ping":
            return [self._command(PONG, {b"token": rest})]
        if word == b"credit":
            for grant in decode_grants(rest):
                self._owner.granted(grant)
            return []
        if word == b"goaway":
            last, _, reason = rest.partition(b" ")
            text = reason.decode("utf-8", "replace")
            self.leaving = f"the server is going away: {text}"
            return [GoingAway(decode_number(last), text)]
        raise malformed(line)
