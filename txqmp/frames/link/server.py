"""The server's end of a link: :class:`ServerLink`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txqmp.frames.actions import Action, GoingAway, LinkOpened, Pong, SendFrames
from txqmp.frames.codec import BYTES_RESPONSE, CONTINUATION, EOS
from txqmp.frames.commands import Part, error_part
from txqmp.frames.credit import Grant
from txqmp.frames.errors import FrameLimitError, FrameUsageError
from txqmp.frames.link.words import (
    CANCEL,
    COMMANDS,
    CREDIT,
    GOAWAY,
    LINK,
    PING,
    PONG,
    VERSION,
    Terms,
    argument,
    check_token,
    decode_grants,
    decode_number,
    encode_grants,
    one_line,
)
from txqmp.frames.sources import FrameSource


class LinkOwner(Protocol):
    """What a :class:`ServerLink` needs of its reactor."""

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send."""

    def link_source(
        self, request_id: int, parts: list[Part], done: Callable[[FrameSource], None], open: bool
    ) -> FrameSource:
        """The answer to one of the link's commands."""

    def answered(self, source: FrameSource) -> None:
        """The last frame of an answer has been given."""

    def granted(self, grant: Grant) -> None:
        """The client lets us send more."""

    def cancel_request(self, request_id: int) -> list[Action]:
        """The client does not want an answer any more."""


class ServerLink:
    """
    The server's end of a link.

    :param owner: the reactor.
    :param terms: what it offers.
    :param limit: how many answers to the link's commands may wait to be sent.

    :ivar waiting: how many do; the answer that stays open for the server's lines is one.
    """

    def __init__(self, owner: LinkOwner, terms: Terms, limit: int) -> None:
        self.waiting = 0
        self._owner = owner
        self._terms = terms
        self._limit = limit
        self._lines: FrameSource | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a link."""
        return self._lines is not None

    def owns(self, source: FrameSource) -> bool:
        """Whether it is the source of the server's lines."""
        return source is self._lines

    @staticmethod
    def takes(name: bytes) -> bool:
        """Whether a command is one of the link's."""
        return name in COMMANDS

    def run(
        self, request_id: int, name: bytes, arguments: dict[bytes, bytes], *, first: bool
    ) -> list[Action]:
        """
        Run one of the link's commands.

        :param first: whether no other command came before it.
        :raises FrameProtocolError: it makes no sense.
        :raises FrameLimitError: too many are not answered yet.
        """
        if self.waiting >= self._limit:
            raise FrameLimitError("control", self._limit, "one more control message", request_id)
        if name == LINK:
            return self._open(request_id, arguments, first)
        if not self.is_open:
            return [self._answer(request_id, error_part("there is no link", application=True))]
        if name == PING:
            return [self._answer(request_id, _eos(argument(arguments, b"token")))]
        actions: list[Action] = [self._answer(request_id, _eos())]
        if name == PONG:
            actions.append(Pong(argument(arguments, b"token")))
        elif name == GOAWAY:
            reason = argument(arguments, b"reason").decode("utf-8", "replace")
            actions.append(GoingAway(0, reason))
        elif name == CREDIT:
            for grant in decode_grants(argument(arguments, b"grants")):
                self._owner.granted(grant)
        else:
            assert name == CANCEL
            cancelled = decode_number(argument(arguments, b"request"))
            actions += self._owner.cancel_request(cancelled)
        return actions

    def _open(self, request_id: int, arguments: dict[bytes, bytes], first: bool) -> list[Action]:
        peer = Terms.decode(argument(arguments, b"terms"))
        version = decode_number(argument(arguments, b"version"))
        if version < VERSION or self.is_open or not first:
            why = f"a link is opened once, by the first command, in version {VERSION} or later"
            return [self._answer(request_id, error_part(why, application=True))]
        self._owner.link_opened(peer)
        self.waiting += 1
        self._lines = self._owner.link_source(request_id, [], self._answered, True)
        self.tell(b"link %d %s" % (VERSION, self._terms.encode()))
        return [SendFrames((self._lines,), urgent=True), LinkOpened(peer)]

    def _answer(self, request_id: int, part: Part) -> SendFrames:
        self.waiting += 1
        source = self._owner.link_source(request_id, [part], self._answered, False)
        return SendFrames((source,), urgent=True)

    def _answered(self, source: FrameSource) -> None:
        self.waiting -= 1
        self._owner.answered(source)

    # What the server says

    def tell(self, line: bytes) -> None:
        """
        Say a line.

        :raises FrameUsageError: there is no link.
        """
        if self._lines is None:
            raise FrameUsageError("there is no link")
        self._lines.add([(BYTES_RESPONSE, CONTINUATION, line + b"\n")])

    def ping(self, token: bytes) -> None:
        """Ask for a pong."""
        self.tell(b"ping " + check_token(token))

    def goaway(self, last_request: int, reason: str) -> None:
        """Say that no new requests are taken."""
        self.tell(b"goaway %d %s" % (last_request, one_line(reason)))

    def grant(self, grants: list[Grant]) -> None:
        """Let the client send more."""
        if grants:
            self.tell(b"credit " + encode_grants(grants))


def _eos(data: bytes = b"") -> Part:
    return BYTES_RESPONSE, EOS, data
