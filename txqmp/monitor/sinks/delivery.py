"""
How events are handed to a receiver: one interface (:class:`Delivery`) for all kinds of them.

Whoever calls it has the events on disk, and crosses them off when the receiver says that it has
them. So an event arrives at least once; one whose receipt got lost on the way arrives again, with
the same id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from txqmp.monitor.cloudevents import CloudEvent, attributes


@attrs.frozen(kw_only=True, slots=False)
class OutgoingEvent:
    """
    An event as a receiver gets it. What is no member is read from the text when it is asked for:
    most receivers get the text as it is.

    :ivar id: what tells it from all others: the same whenever it is sent.
    :ivar type: the CloudEvent's, such as ``org.qemu.qmp.STOP``.
    :ivar vm: the VM's name.
    :ivar text: the structured CloudEvent, JSON on one line, without a line end.
    """

    id: str
    type: str
    vm: str
    text: bytes

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """
        Its attributes, by name: what most receivers need who need more than the text.

        :raises ValueError: the text does not begin as an event does.
        """
        return attributes(self.text)

    @cached_property
    def cloudevent(self) -> CloudEvent:
        """
        All of its attributes and its data, and whether they are as they should be: that takes its
        time.

        :raises ValueError: the text is no event as :mod:`txqmp.monitor.cloudevents` writes it.
        """
        return CloudEvent.parse(self.text)


class DeliveryError(Exception):
    """
    A batch was not taken as a whole.

    :ivar reason: what is wrong, for people, without secrets.
    :ivar delivered: how many events from the front of the batch were taken.
    """

    def __init__(self, reason: str, delivered: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delivered = delivered


class EventRejectedError(DeliveryError):
    """The event after those that were taken is at fault: another attempt would end so too."""


class UnavailableError(DeliveryError):
    """
    The receiver is at fault: try again later.

    :ivar retry_after: how long the receiver asks us to wait, in seconds; ``None`` where it does
        not say.
    """

    def __init__(self, reason: str, delivered: int = 0, retry_after: float | None = None) -> None:
        super().__init__(reason, delivered)
        self.retry_after = retry_after


class GoneError(DeliveryError):
    """The receiver wants no more events, ever."""


class Delivery(Protocol):
    """
    Hands events to one receiver.

    :ivar name: of the receiver, for people and logs, without secrets.
    :ivar batch: how many events it takes at a time, at most.
    """

    name: str
    batch: int

    def start(self) -> None:
        """Begin. This returns at once."""

    def deliver(self, events: Sequence[OutgoingEvent]) -> Deferred[None]:
        """
        Hand over a batch. There is one at a time: the next one may come when this has ended.

        :returns: fires when the receiver has taken all of them, as durably as it says. When it is
            cancelled it fails as below.
        :raises DeliveryError: through the Deferred: not all were taken.
        """

    def reopen(self) -> None:
        """Open anew what may have been moved away, and try again what waits (SIGHUP)."""

    def stop(self) -> Deferred[None]:
        """
        End, within a limited time. A :meth:`deliver` that is under way fails. The Deferred does
        not fail.
        """
