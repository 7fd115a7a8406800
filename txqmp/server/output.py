"""
What goes through the transport of one of a server's clients: its output, bounded, and the file
descriptors that it sent.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from txqmp.jsontext import UnwritableError


_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_PIECE = 1 << 16


def _plain(value: Any) -> dict[Any, Any]:
    """A mapping that is no dict, as one."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON text")


_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


def encode(message: dict[str, Any]) -> bytes:
    """
    The text of a server's message: JSON in ASCII (QMP spec, *General Definitions*), of any size.

    :raises UnwritableError: it holds NaN or an infinity, a lone surrogate, or what has no JSON.
    """
    try:
        text = orjson.dumps(message, _plain, _OPTIONS)
    except TypeError:  # also where an integer is too large for it, or the nesting too deep
        sound = False
    else:
        # orjson writes NaN as null.
        if text.isascii() and b"null" not in text:
            return text
        sound = True
    try:
        text = _ascii(message).encode("ascii")
        if not sound:
            orjson.loads(text)  # refuses a lone surrogate
    except (TypeError, ValueError, RecursionError) as error:
        raise UnwritableError(str(error)) from None
    return text


@implementer(IPushProducer)
class BoundedOutput:
    """
    The output to one client. What its transport does not take is held, up to a limit.

    :param transport: where it goes.
    :param limit: when so many bytes are held, one message more is too much. A single message may
        be of any size.
    :param overflow: called once, when it is too much; nothing is written any more.
    :param relief: called when it is :attr:`congested` no more.

    :ivar held: how many bytes are held.
    """

    __slots__ = (
        "_close",
        "_limit",
        "_overflow",
        "_paused",
        "_relief",
        "_transport",
        "_waiting",
        "held",
    )

    def __init__(
        self,
        transport: Any,
        limit: int,
        overflow: Callable[[], None],
        relief: Callable[[], None],
    ) -> None:
        self._transport: Any | None = transport
        self._limit = limit
        self._overflow = overflow
        self._relief = relief
        self._waiting: deque[bytes] = deque()
        self._paused = False
        self._close: Callable[[Any], None] | None = None
        self.held = 0
        transport.registerProducer(self, True)

    @property
    def congested(self) -> bool:
        """Whether so much is held that what brings more about had better wait."""
        return self.held > self._limit // 4

    def write(self, data: bytes) -> None:
        """Write, now or when the client has read what came before."""
        if self._transport is None or self._close is not None:
            return
        if not self._paused:
            self._transport.write(data)
        elif self.held < self._limit:
            self._waiting.append(data)
            self.held += len(data)
        else:
            self.stopProducing()
            self._overflow()

    def finish(self, close: Callable[[Any], None]) -> None:
        """
        Write what is held, and no more.

        :param close: called with the transport, which has no producer then, when all is written.
        """
        self._close = close
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._close is not None and not self._waiting and self._transport is not None:
            transport, self._transport = self._transport, None
            transport.unregisterProducer()
            self._close(transport)

    # What the transport calls

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        congested = self.congested
        while self._waiting and not self._paused and self._transport is not None:
            pieces = [self._waiting.popleft()]
            size = len(pieces[0])
            while self._waiting and size < _PIECE:
                size += len(self._waiting[0])
                pieces.append(self._waiting.popleft())
            self.held -= size
            self._transport.write(b"".join(pieces))
        self._close_if_done()
        if congested and not self.congested:
            self._relief()

    def stopProducing(self) -> None:
        self._transport = None
        self._waiting.clear()
        self.held = 0


class ReceivedDescriptors:
    """
    The file descriptors that a client sent and no command has claimed, by QEMU's rule (fact G31):
    those of the latest receive that had any are kept, and one command gets one of them.
    """

    __slots__ = ("_complete", "_held")

    def __init__(self) -> None:
        self._held: list[int] = []
        self._complete = False

    def __len__(self) -> int:
        return len(self._held)

    def add(self, descriptor: int) -> None:
        """One more came; those of earlier receives are closed."""
        if self._complete:
            self.close()
        os.set_inheritable(descriptor, False)
        self._held.append(descriptor)

    def received(self) -> None:
        """The bytes came that these descriptors came with: the receive is complete."""
        self._complete = bool(self._held)

    def take(self) -> int | None:
        """Give the first away and close the others; ``None`` if there is none."""
        if not self._held:
            return None
        descriptor = self._held.pop(0)
        self.close()
        return descriptor

    def close(self) -> None:
        """Close all."""
        held, self._held = self._held, []
        self._complete = False
        for descriptor in held:
            os.close(descriptor)
