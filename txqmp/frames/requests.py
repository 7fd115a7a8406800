"""What a client knows of its requests: :class:`RequestIds`, :class:`Request`."""

from __future__ import annotations

from collections.abc import Container

from txqmp.frames.assembly import Assembler
from txqmp.frames.errors import FrameUsageError
from txqmp.frames.limits import Limits
from txqmp.frames.sources import FrameSource


class RequestIds:
    """
    Hands out request ids: each is the one before and ``step``. After 65,535 they begin again with
    the lowest that ``first`` and ``step`` lead to: 1 where they are odd, 0 where they are even.

    :param first: odd for a client, even for a server.
    """

    def __init__(self, first: int = 1, step: int = 2) -> None:
        self._next = first
        self._lowest = first % step
        self._step = step

    def allocate(self, *used: Container[int]) -> int:
        """
        The next id that is not in use.

        :param used: where those are that are.
        :raises FrameUsageError: all are.
        """
        start = self._next
        while True:
            request_id = self._next
            self._next += self._step
            if self._next > 0xFFFF:
                self._next = self._lowest
            for each in used:
                if request_id in each:
                    break
            else:
                return request_id
            if self._next == start:
                raise FrameUsageError("all request ids are in use")


class Request:
    """
    A request that is not answered yet.

    :ivar source: its frames.
    :ivar whole: whether the response is given as one.
    :ivar cancelled: whether nobody wants it.
    :ivar assembler: holds what came of the response; ``None`` as long as nothing did.
    """

    __slots__ = ("assembler", "cancelled", "source", "whole")

    def __init__(self, source: FrameSource, whole: bool) -> None:
        self.source = source
        self.whole = whole
        self.cancelled = False
        self.assembler: Assembler | None = None

    @property
    def may_have_run(self) -> bool:
        """Whether all of it was given to be sent: nobody runs less."""
        return self.source.finished and not self.source.cut

    @property
    def held(self) -> int:
        """How many bytes of the response are held."""
        return 0 if self.assembler is None else self.assembler.size

    def assemble(self, limits: Limits) -> Assembler:
        """The assembler of the response."""
        if self.assembler is None:
            self.assembler = Assembler(self.source.request_id, limits)
        return self.assembler

    def cancel(self) -> None:
        """Hold nothing any more."""
        self.cancelled = True
        self.whole = False
        self.assembler = None
