"""Which records a reader wants."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Filter:
    """
    Which records a reader wants: those that fit all that is given.

    :ivar vms: names of VMs, or globs of names; none for all.
    :ivar types: names of types, or globs of names; none for all.
    :ivar since: nothing older, in seconds since the epoch; ``None`` for no limit.
    """

    vms: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    since: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.vms or self.types or self.since is not None)

    def condition(self) -> tuple[str, list[object]]:
        """
        The same in SQL, and its parameters. SQLite does the matching: it lets the other threads run
        meanwhile, which a function of ours would not.
        """
        terms: list[str] = []
        values: list[object] = []
        for column, patterns in (("vm", self.vms), ("type", self.types)):
            if patterns:
                terms.append("(" + " OR ".join([f"{column} GLOB ?"] * len(patterns)) + ")")
                # The one difference between its globs and those of Python's fnmatch.
                values += [pattern.replace("[!", "[^") for pattern in patterns]
        if self.since is not None:
            terms.append("time >= ?")
            values.append(self.since)
        return " AND ".join(terms) or "1", values


EVERYTHING = Filter()
"""Every record."""
