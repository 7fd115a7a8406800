"""Requests of which a part has come: :class:`HalfRequests`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from txqmp.frames.assembly import HalfRequest
from txqmp.frames.codec import COMMAND_ARGUMENT, COMMAND_DATA, Frame
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError
from txqmp.frames.limits import Limits


class HalfRequests:
    """
    Requests of which a part has come, bounded in number, size and time.

    :param clock: gives the time, in seconds.

    :ivar held: how many bytes they hold.
    """

    __slots__ = ("_clock", "_limits", "_requests", "held")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.held = 0
        self._limits = limits
        self._clock = clock
        # In the order in which they began.
        self._requests: dict[int, HalfRequest] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[int]:
        return iter(self._requests)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    @property
    def deadline(self) -> float | None:
        """When the oldest must be whole, by the clock; ``None`` where there is none."""
        for oldest in self._requests.values():
            return oldest.since + self._limits.half_received_seconds
        return None

    def overdue(self) -> FrameLimitError | None:
        """The error for a request that took too long to come, if there is one."""
        deadline = self.deadline
        if deadline is None or self._clock() < deadline:
            return None
        limit, oldest = self._limits.half_received_seconds, next(iter(self))
        return FrameLimitError(
            "half_received_seconds", limit, f"request {oldest} is not whole yet", oldest
        )

    def room(self, request_id: int) -> int:
        """How many bytes of a request may still come."""
        half = self._requests.get(request_id)
        return self._limits.message if half is None else half.room

    def begin(self, request_id: int, name: bytes, flags: int) -> None:
        """
        A request begins.

        :raises FrameLimitError: there are too many.
        """
        limit = self._limits.half_received
        if len(self._requests) >= limit:
            raise FrameLimitError("half_received", limit, "one more request", request_id)
        half = HalfRequest(request_id, name, flags, self._clock(), self._limits)
        self._requests[request_id] = half
        self.held += half.held
        self._check(request_id)

    def take(self, frame: Frame, payload: bytes) -> HalfRequest | None:
        """
        Take a frame of one of them.

        :param payload: the frame's, decoded.
        :returns: the request, if it is whole; it is none of these then.
        :raises FrameProtocolError: it is not expected, or malformed.
        :raises FrameLimitError: they hold too much.
        """
        request_id = frame.request_id
        half = self._requests[request_id]
        before = half.held
        if frame.type == COMMAND_ARGUMENT:
            whole = half.take_argument(frame.flags, payload)
        elif frame.type == COMMAND_DATA:
            whole = half.take_data(frame.flags, payload)
        else:
            raise FrameProtocolError(
                Code.UNEXPECTED_FRAME_TYPE,
                f"received unexpected frame type: {frame.type}",
                request_id,
            )
        self.held += half.held - before
        if whole:
            self.drop(request_id)
            return half
        self._check(request_id)
        return None

    def _check(self, request_id: int) -> None:
        limit = self._limits.half_received_bytes
        if self.held > limit:
            raise FrameLimitError(
                "half_received_bytes",
                limit,
                f"{self.held} bytes of requests that are not whole",
                request_id,
            )

    def drop(self, request_id: int) -> None:
        """Forget one of them."""
        self.held -= self._requests.pop(request_id).held
