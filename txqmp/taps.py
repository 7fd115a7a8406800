"""
Taps: functions that see each message on its way in or out, to log, filter or rewrite it.

A tap takes a :class:`~txqmp.messages.Message` and returns it, or another one, or ``None`` to hold
it back. Taps run in the order in which they were added.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.logger import Logger, LogLevel

from txqmp.messages import Message
from txqmp.redaction import redact


Tap = Callable[[Message], Message | None]
"""A function that sees a message: it returns what goes on, or ``None`` to hold it back."""

_log = Logger()


@attrs.define(eq=False)
class TapHandle:
    """
    One added tap.

    :ivar failures: how many messages it raised on. An inbound message then goes on unchanged,
        an outbound one fails its caller.
    """

    tap: Tap
    _taps: list[TapHandle]
    failures: int = 0

    def see(self, message: Message) -> Message | None:
        """
        What the tap makes of a message.

        :raises TypeError: it is neither a message nor ``None``.
        """
        if self not in self._taps:
            return message
        try:
            passed = self.tap(message)
            if passed is not None and not isinstance(passed, Message):
                raise TypeError(f"a tap returns a Message or None, not {type(passed).__name__}")
        except Exception:
            self.failures += 1
            raise
        return passed

    def cancel(self) -> None:
        """Take the tap out again; a second time does nothing."""
        if self in self._taps:
            self._taps.remove(self)


@attrs.define(eq=False)
class Taps:
    """The taps of one connection, inbound and outbound."""

    _inbound: list[TapHandle] = attrs.Factory(list)
    _outbound: list[TapHandle] = attrs.Factory(list)

    def add_inbound(self, tap: Tap) -> TapHandle:
        """Let a tap see what the peer sends."""
        return self._add(self._inbound, tap)

    def add_outbound(self, tap: Tap) -> TapHandle:
        """Let a tap see what is sent to the peer."""
        return self._add(self._outbound, tap)

    @staticmethod
    def _add(taps: list[TapHandle], tap: Tap) -> TapHandle:
        handle = TapHandle(tap, taps)
        taps.append(handle)
        return handle

    def inbound(self, message: Message) -> Message | None:
        """
        What comes out when a message from the peer has passed all taps. A tap that raises is
        logged once and passed over: what the peer said is not lost to a faulty observer.
        """
        for handle in tuple(self._inbound):
            try:
                passed = handle.see(message)
            except Exception:
                if handle.failures == 1:
                    _log.failure("inbound tap {tap!r} raised; its message goes on", tap=handle.tap)
                continue
            if passed is None:
                return None
            message = passed
        return message

    def outbound(self, message: Message) -> Message | None:
        """What goes out when a message has passed all taps; what a tap raises is the caller's."""
        for handle in tuple(self._outbound):
            passed = handle.see(message)
            if passed is None:
                return None
            message = passed
        return message


def log_messages(log: Logger, direction: str, level: LogLevel = LogLevel.debug) -> Tap:
    """
    A tap that logs each message, secrets redacted, and lets it pass.

    :param log: where to.
    :param direction: what stands before the message, such as ``"<-"``.
    :param level: a :class:`twisted.logger.LogLevel`.
    """

    def tap(message: Message) -> Message:
        log.emit(
            level, "{direction} {message}", direction=direction, message=redact(message.members)
        )
        return message

    return tap
