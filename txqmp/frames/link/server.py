"""The server's end of a link: :class:`ServerLink`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

from txqmp.frames.actions import Action, GoingAway, LinkOpened, Pong, SendFrames
from txqmp.frames.codec import BYTES_RESPONSE, CONTINUATION, EOS
from txqmp.frames.commands import Part, error_part
from txqmp.frames.credit import Grant
from txqmp.frames.errors import FrameLimitError, FrameUsageError
from txqmp.frames.link.words import (
    COMMANDS,
    CREDIT,
    GOAWAY,
    LINK,
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


class LinkOwner(Protocol):
    """What a :class:`ServerLink` needs of its reactor."""

    def link_opened(self, peer: Terms) -> None:
        """From now on both sides count what they send."""

    def link_source(
        self,
        request_id: int,
        parts: Iterable[Part],
        done: Callable[[FrameSource], None] | None = None,
    ) -> FrameSource:
        """The answer to one of the link's commands; one without ``done`` stays open."""

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

    :ivar requests: the link's commands whose answers wait, by id.
    :ivar lines: the answer that stays open for what the server says; ``None`` without a link.
    """

    def __init__(self, owner: LinkOwner, terms: Terms, limit: int) -> None:
        self.requests: set[int] = set()
        self.lines: FrameSource | None = None
        self._owner = owner
        self._terms = terms
        self._limit = limit
        self._grants: dict[int, int] = {}
        self._granting = False
        self._goaway = b""
        self._pings: list[bytes] = []

    @staticmethod
    def takes(name: bytes) -> bool:
        """Whether a command is one of the link's."""
        return name.startswith(LINK) and name.partition(b" ")[0] in COMMANDS

    def uses(self, request_id: int) -> bool:
        """Whether an id is in use for one of the link's commands."""
        return request_id in self.requests or (
            self.lines is not None and self.lines.request_id == request_id
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a link of which the client knows."""
        return self.lines is not None and self.lines.begun

    def run(self, request_id: int, line: bytes, *, first: bool) -> list[Action]:
        """
        Run one of the link's commands.

        :param first: whether no other command came before it.
        :raises FrameProtocolError: it makes no sense.
        :raises FrameLimitError: too many are not answered yet.
        """
        if len(self.requests) >= self._limit:
            raise FrameLimitError("control", self._limit, "one more control message", request_id)
        word, _, rest = line.partition(b" ")
        if word == LINK:
            return self._open(request_id, rest, first)
        if self.lines is None:
            return [self._answer(request_id, error_part("there is no link", application=True))]
        if word == PING:
            return [self._answer(request_id, (BYTES_RESPONSE, EOS, decode_token(rest)))]
        actions: list[Action] = [self._answer(request_id, (BYTES_RESPONSE, EOS, b""))]
        if word == PONG:
            if rest not in self._pings:
                raise malformed(line)
            self._pings.remove(rest)
            actions.append(Pong(rest))
        elif word == GOAWAY:
            actions.append(GoingAway(0, rest.decode("utf-8", "replace")))
        elif word == CREDIT:
            for grant in decode_grants(rest):
                self._owner.granted(grant)
        else:
            for each in rest.split():
                actions += self._owner.cancel_request(decode_number(each))
        return actions

    def _open(self, request_id: int, rest: bytes, first: bool) -> list[Action]:
        version, _, terms = rest.partition(b" ")
        if decode_number(version) < VERSION or self.lines is not None or not first:
            why = f"a link is opened once, by the first command, in version {VERSION} or later"
            return [self._answer(request_id, error_part(why, application=True))]
        peer = Terms.decode(terms)
        self._owner.link_opened(peer)
        self.lines = self._owner.link_source(request_id, ())
        self._tell(b"link %d %s" % (VERSION, self._terms.encode()))
        if self._goaway:
            self._tell(self._goaway)
        return [SendFrames((self.lines,), urgent=True), LinkOpened(peer)]

    def _answer(self, request_id: int, part: Part) -> SendFrames:
        self.requests.add(request_id)
        source = self._owner.link_source(request_id, (part,), self._answered)
        return SendFrames((source,), urgent=True)

    def _answered(self, source: FrameSource) -> None:
        self.requests.discard(source.request_id)

    # What the server says

    def _tell(self, line: bytes) -> None:
        assert self.lines is not None
        self.lines.add((_line(line),))

    def ping(self, token: bytes) -> None:
        """Ask for a pong."""
        check_token(token)
        if self.lines is None:
            raise FrameUsageError("there is no link")
        if len(self._pings) >= MOST:
            raise FrameUsageError(f"{MOST} pings are not answered yet")
        self._tell(b"ping " + token)
        self._pings.append(token)

    def goaway(self, last_request: int, reason: str) -> None:
        """Say that no new requests are taken, as soon as there is a link."""
        self._goaway = b"goaway %d %s" % (last_request, one_line(reason))
        if self.lines is not None:
            self._tell(self._goaway)

    def end_stream(self, stream: OutputStream) -> SendFrames:
        """Say, on a stream that is being closed, that nothing is granted."""
        assert self.lines is not None
        source = FrameSource(stream, self.lines.request_id, (_line(b"credit"),), plain=True)
        stream.messages.add(source)
        return SendFrames((source,), urgent=True)

    def grant(self, grants: Iterable[Grant]) -> None:
        """Let the client send more."""
        self._grants.update(grants)
        if self._grants and not self._granting and self.lines is not None:
            self._granting = True
            self.lines.add(self._grant_lines())

    def _grant_lines(self) -> Iterator[Part]:
        # Made when they are asked for: until then a later grant takes the place of an earlier one,
        # so what waits is bounded, however much is granted while nothing can be sent.
        while self._grants:
            grants = list(islice(self._grants.items(), TOGETHER))
            for request_id, _ in grants:
                del self._grants[request_id]
            yield _line(b"credit " + encode_grants(grants))
        self._granting = False

    def forget(self, request_id: int) -> None:
        """A request is over: what was to be granted to it is not any more."""
        self._grants.pop(request_id, None)


def _line(line: bytes) -> Part:
    return BYTES_RESPONSE, CONTINUATION, line + b"\n"
