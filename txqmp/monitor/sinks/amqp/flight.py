"""What is on its way to the broker, and what became of it: :class:`Flight`. Without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


class Flight:
    """
    A batch on its way through a channel in confirm mode.

    The broker numbers what is published on a channel by *delivery tags*, and settles them in any
    order, one at a time or all up to one. It returns what no queue takes before it confirms it.
    The tags of different batches on a channel do not mix, because a batch is over before the next
    one begins.

    :param ids: of the events, in their order; none twice.
    :param window: how many may be unsettled at a time.
    :param careful: send the first one alone, and the others when the broker has taken it.

    :ivar taken: how many from the front the broker has taken.
    :ivar problem: why the one after them was not taken; ``None`` while nothing is wrong.
    """

    def __init__(self, ids: Sequence[str], window: int, *, careful: bool = False) -> None:
        self._ids = ids
        self._window = window
        self._careful = careful
        self._next = 0
        self._end = len(ids)
        # By tag, in the order in which they were published.
        self._unsettled: dict[int, int] = {}
        self._returned: dict[str, str] = {}
        self._confirmed = bytearray(len(ids))
        self._problems: dict[int, str] = {}
        self.taken = 0

    @property
    def over(self) -> bool:
        """Whether nothing more happens: all are settled that were published, and no more are."""
        return not self._unsettled and (self._next >= self._end or bool(self._problems))

    @property
    def problem(self) -> str | None:
        return self._problems.get(self.taken)

    def to_publish(self) -> int | None:
        """The place of the event to publish now, ``None`` where none is to be."""
        room = 1 if self._careful else self._window
        if self._next >= self._end or len(self._unsettled) >= room or self._problems:
            return None
        return self._next

    def published(self, tag: int) -> None:
        """The event was published under this tag."""
        self._unsettled[tag] = self._next
        self._next += 1

    def end_here(self) -> None:
        """Publish no more: neither the next event nor those behind it."""
        self._end = self._next

    def returned(self, event_id: str, problem: str) -> None:
        """An event came back: no queue took it. It is settled later, as others are."""
        self._returned[event_id] = problem

    def settled(self, tag: int, multiple: bool, problem: str | None = None) -> None:
        """
        The broker has settled an event.

        :param tag: of the event.
        :param multiple: all up to it too.
        :param problem: why it was refused; ``None`` where it was taken, unless it was returned.
        """
        if multiple:
            tags = list(takewhile(lambda each: each <= tag, self._unsettled))
        else:
            tags = [tag] if tag in self._unsettled else []
        for each in tags:
            place = self._unsettled.pop(each)
            why = self._returned.pop(self._ids[place], None) or problem
            if why is None:
                self._confirmed[place] = True
            else:
                self._problems[place] = why
        while self.taken < len(self._confirmed) and self._confirmed[self.taken]:
            self.taken += 1
            self._careful = False

    def lost(self, problem: str) -> None:
        """The channel is gone: what is unsettled stays so."""
        self._unsettled.clear()
        if self.taken < self._end:
            self._problems.setdefault(self.taken, problem)
