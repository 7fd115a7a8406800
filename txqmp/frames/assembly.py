"""Messages put together again out of frames: :class:`Assembler`, :class:`HalfRequest`."""

from __future__ import annotations

import struct

from txqmp.frames.codec import ARGUMENT_CONTINUATION, END_OF_ARGUMENTS, HAVE_ARGS, HAVE_DATA
from txqmp.frames.commands import check_end
from txqmp.frames.errors import Code, FrameLimitError, FrameProtocolError
from txqmp.frames.limits import Limits


_lengths = struct.Struct("<HH")

#: Pieces of up to so many bytes are held as one: each by itself would take far more.
_SMALL = 512


class Assembler:
    """
    Puts together one message that comes in pieces.

    :param request_id: for errors.
    :param limits: how much and how many.

    :ivar size: how many bytes are held.
    """

    __slots__ = ("_empty", "_frames", "_limits", "_pieces", "request_id", "size")

    def __init__(self, request_id: int, limits: Limits) -> None:
        self.request_id = request_id
        self.size = 0
        self._limits = limits
        self._pieces: list[bytes | bytearray] = []
        self._frames = 0
        self._empty = 0

    def count(self, payload: bytes, last: bool) -> None:
        """
        Count a frame of the message.

        :raises FrameLimitError: it is one too many, or one empty one too many.
        """
        limits = self._limits
        self._frames += 1
        if self._frames > limits.message_frames:
            raise FrameLimitError(
                "message_frames", limits.message_frames, "one more frame", self.request_id
            )
        if not payload or self._empty:
            self.count_empty(payload, last)

    def count_empty(self, payload: bytes, last: bool) -> None:
        """
        Count a frame of a message that may have as many as it likes, if they are not empty.

        :raises FrameLimitError: it is one empty frame too many.
        """
        if payload or last:
            self._empty = 0
            return
        self._empty += 1
        if self._empty > self._limits.empty_frames:
            raise FrameLimitError(
                "empty_frames",
                self._limits.empty_frames,
                "one more empty frame",
                self.request_id,
            )

    def take(self, payload: bytes, last: bool) -> None:
        """
        Count a frame, and hold its payload.

        :raises FrameLimitError: the message is too large, or has too many frames.
        """
        self.count(payload, last)
        self.size += len(payload)
        if self.size > self._limits.message:
            raise FrameLimitError(
                "message", self._limits.message, f"a message of {self.size} bytes", self.request_id
            )
        pieces = self._pieces
        if len(payload) > _SMALL:
            pieces.append(payload)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += payload
        else:
            pieces.append(bytearray(payload))

    @property
    def room(self) -> int:
        """How many bytes may still come."""
        return self._limits.message - self.size

    def message(self) -> bytes:
        """What came, as one."""
        return b"".join(self._pieces)


class HalfRequest(Assembler):
    """
    A request that is being received.

    :ivar name: the command's name.
    :ivar arguments: those that are whole.
    :ivar argument_bytes: how many bytes of arguments are held.
    """

    __slots__ = (
        "_argument",
        "_expects_arguments",
        "_expects_data",
        "_had_arguments",
        "_value",
        "_value_left",
        "argument_bytes",
        "arguments",
        "name",
        "since",
    )

    def __init__(
        self, request_id: int, name: bytes, flags: int, since: float, limits: Limits
    ) -> None:
        super().__init__(request_id, limits)
        self.name = name
        self.since = since
        self.arguments: dict[bytes, bytes] = {}
        self.argument_bytes = 0
        self._had_arguments = self._expects_arguments = bool(flags & HAVE_ARGS)
        self._expects_data = bool(flags & HAVE_DATA)
        self._argument: bytes | None = None
        self._value: list[bytes] = []
        self._value_left = 0

    @property
    def held(self) -> int:
        """How many bytes are held, those of the name included."""
        return len(self.name) + self.argument_bytes + self.size

    @property
    def data(self) -> bytes | None:
        """The data that came; ``None`` where none was announced."""
        return self.message() if self._expects_data else None

    def take_argument(self, flags: int, payload: bytes) -> bool:
        """
        Take an argument frame.

        :returns: whether the request is whole.
        :raises FrameProtocolError: it is malformed, or not expected.
        """
        if not self._expects_arguments:
            code = Code.ARGUMENT_AFTER_END if self._had_arguments else Code.ARGUMENTS_NOT_EXPECTED
            raise self._error(
                code, "received command argument frame for request that is not expecting arguments"
            )
        more = bool(flags & ARGUMENT_CONTINUATION)
        if more and flags & END_OF_ARGUMENTS:
            raise self._error(
                Code.EXCLUSIVE_FLAGS, "an argument that continues and is the end of the arguments"
            )
        self.count(payload, False)
        self.argument_bytes += len(payload)
        if self.argument_bytes > self._limits.request_arguments:
            raise FrameLimitError(
                "request_arguments",
                self._limits.request_arguments,
                f"arguments of {self.argument_bytes} bytes",
                self.request_id,
            )
        if self._argument is None:
            payload = self._begin_argument(payload)
        self._value_left -= len(payload)
        self._value.append(payload)
        if self._value_left < 0 or (self._value_left and not more):
            raise self._error(
                Code.MALFORMED_ARGUMENT, "malformed argument frame: partial argument value"
            )
        if more:
            return False
        assert self._argument is not None
        self.arguments[self._argument] = b"".join(self._value)
        self._argument = None
        self._value = []
        if not flags & END_OF_ARGUMENTS:
            return False
        self._expects_arguments = False
        return not self._expects_data

    def _begin_argument(self, payload: bytes) -> bytes:
        """Read lengths and name; the rest is the value, or its beginning."""
        if len(payload) < _lengths.size:
            raise self._error(
                Code.MALFORMED_ARGUMENT, "malformed argument frame: partial argument header"
            )
        name_length, self._value_left = _lengths.unpack_from(payload)
        end = _lengths.size + name_length
        if len(payload) < end:
            raise self._error(
                Code.MALFORMED_ARGUMENT, "malformed argument frame: partial argument name"
            )
        name = payload[_lengths.size : end]
        if name in self.arguments:
            raise self._error(Code.DUPLICATE_ARGUMENT, f"argument {name!r:.60} came twice")
        self._argument = name
        return payload[end:]

    def take_data(self, flags: int, payload: bytes) -> bool:
        """
        Take a data frame.

        :returns: whether the request is whole.
        :raises FrameProtocolError: it is not expected, or its flags make no sense.
        """
        if not self._expects_data:
            raise self._error(
                Code.DATA_NOT_EXPECTED,
                "received command data frame for request that is not expecting data",
            )
        if self._expects_arguments:
            raise self._error(
                Code.DATA_BEFORE_END_OF_ARGUMENTS, "received data before the end of the arguments"
            )
        last = check_end(flags, "command data", self.request_id)
        self.take(payload, last)
        return last

    def _error(self, code: Code, text: str) -> FrameProtocolError:
        return FrameProtocolError(code, f"{text}: {self.request_id}", self.request_id)
