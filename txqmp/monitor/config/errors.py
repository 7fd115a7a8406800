"""What is wrong with a configuration: :class:`ConfigError`."""

from __future__ import annotations

from collections.abc import Sequence

from txqmp.errors import QMPError


class ConfigError(QMPError):
    """
    A configuration cannot be used.

    :param where: the file.
    :param problems: all that is wrong with it, at least one thing, each in a line that says where
        in the file it is. No secret is shown.

    :ivar where: the file.
    :ivar problems: what is wrong with it.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{where}: {problem}" for problem in self.problems))
