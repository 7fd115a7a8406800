"""
What goes into a spool and what comes out of it.

A record is bytes that the spool does not look into, and the little that it is found by. With
its commit it gets a *position*: 1, 2, 3 … without a hole, and never again as long as the spool is
kept.
"""

from __future__ import annotations

import math

import attrs


OVERHEAD = 72
"""What a record takes up on the disk beside its data and its names, in bytes."""


@attrs.frozen(slots=True)
class Item:
    """
    A record that is to be put into the spool.

    :ivar vm: the VM that it is about.
    :ivar type: what kind of thing it tells, such as the name of the event.
    :ivar time: when it came to our notice, in seconds since the epoch.
    :ivar data: the record itself.
    :ivar session: the number of the VM's session.
    :ivar seq: the record's number among the VM's own; 0 for one that has none.
    :ivar identity: what identified the VM; ``""`` for its name.
    :ivar over: whether this is the last that is to be said of the VM, if it does not return.
    :raises ValueError: a name cannot be written as UTF-8, or the time is no number.
    :raises TypeError: the data is not bytes.
    """

    vm: str
    type: str
    time: float
    data: bytes
    session: int = 0
    seq: int = 0
    identity: str = ""
    over: bool = False

    def __attrs_post_init__(self) -> None:
        # Here and not in the thread that writes: one bad record is not to fail its whole group.
        self.vm.encode()
        self.type.encode()
        self.identity.encode()
        if not math.isfinite(self.time):
            raise ValueError(f"{self.time} is no time")
        if not isinstance(self.data, bytes):
            raise TypeError(f"the data of a record is bytes, not {type(self.data).__name__}")

    @property
    def size(self) -> int:
        """How many bytes it counts for."""
        return len(self.data) + len(self.vm) + len(self.type) + OVERHEAD


@attrs.frozen(slots=True)
class Stored:
    """
    A record that is in the spool, or was.

    :ivar position: its place.
    :ivar run: a random number of 63 bits, which is another each time the spool is opened.
    """

    position: int
    run: int
    vm: str
    type: str
    time: float
    data: bytes

    @property
    def id(self) -> str:
        """
        What tells it from all others, for good: the same whenever it is read.

        The position alone would not do: a disk that lost what it said it had written, or a spool
        that was put back from a copy, gives one out a second time.
        """
        return f"{self.run:016x}-{self.position:020d}"


@attrs.frozen(slots=True)
class SpoolGap:
    """
    Records that a reader has not had and cannot have any more.

    :ivar first: the position of the first one.
    :ivar last: the position of the last one.
    :ivar since: the time of the first one in seconds since the epoch, ``None`` where it is not
        known; it may be that of an earlier one, which the reader has had.
    :ivar until: the time of the last one, likewise.
    """

    first: int
    last: int
    since: float | None = None
    until: float | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


@attrs.frozen(slots=True)
class Batch:
    """
    What a reader gets at once, in order.

    :ivar gap: what is missing before the first record; ``None`` where nothing is.
    :ivar records: the records that were asked for.
    :ivar through: the position up to which this is all that there is: where to read on, and what
        to acknowledge when all of it is delivered.
    """

    gap: SpoolGap | None
    records: tuple[Stored, ...]
    through: int


@attrs.frozen(slots=True)
class DeadLetter:
    """
    A record that a sink could not deliver.

    :ivar number: what it is called by.
    :ivar sink: whose it is.
    :ivar record: the record.
    :ivar reason: why it was not delivered, in words.
    :ivar attempts: how often that was tried.
    :ivar time: when it was given up, in seconds since the epoch.
    :ivar retrying: whether it is to be tried again.
    """

    number: int
    sink: str
    record: Stored
    reason: str
    attempts: int
    time: float
    retrying: bool
