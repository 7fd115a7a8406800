"""File descriptors given to a simulated VM: ``getfd``, ``add-fd`` and what belongs to them."""

from __future__ import annotations

import os
from typing import Any

import attrs

from txqmp.server import QMPServerFactory
from txqmp.server.commands import Call, CommandError


def identity(descriptor: int) -> tuple[int, int]:
    """
    What tells whether two descriptors are of the same file: its device and inode.

    :param descriptor: an open one.
    """
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@attrs.frozen
class SetMember:
    """
    A file descriptor in a set.

    :ivar descriptor: its number in this process.
    :ivar opaque: the text given with it, or ``None``.
    """

    descriptor: int
    opaque: str | None = None


class SimulatedDescriptors:
    """
    The file descriptors that a simulated VM holds. They are real, and closed with
    :meth:`close`.

    :param server: where the commands are registered.

    :ivar named: the descriptors that ``getfd`` gave, by name.
    :ivar sets: the sets that ``add-fd`` made, by their number.
    """

    def __init__(self, server: QMPServerFactory) -> None:
        self.named: dict[str, int] = {}
        self.sets: dict[int, list[SetMember]] = {}
        server.register("getfd", self._getfd)
        server.register("closefd", self._closefd)
        server.register("add-fd", self._add_fd)
        server.register("remove-fd", self._remove_fd)
        server.register("query-fdsets", self._query_fdsets)

    def close_sets(self) -> None:
        """Close the sets: no monitor uses them any more (fact G34)."""
        sets, self.sets = self.sets, {}
        for members in sets.values():
            for member in members:
                os.close(member.descriptor)

    def close(self) -> None:
        """Close all."""
        self.close_sets()
        named, self.named = self.named, {}
        for descriptor in named.values():
            os.close(descriptor)

    def _getfd(self, call: Call, fdname: str) -> None:
        descriptor = call.take_descriptor()
        if fdname[:1].isdigit():
            os.close(descriptor)
            raise CommandError("Parameter 'fdname' expects a name not starting with a digit")
        previous = self.named.get(fdname)
        self.named[fdname] = descriptor
        if previous is not None:
            os.close(previous)

    def _closefd(self, call: Call, fdname: str) -> None:
        descriptor = self.named.pop(fdname, None)
        if descriptor is None:
            raise CommandError(f"File descriptor named '{fdname}' not found")
        os.close(descriptor)

    def _add_fd(
        self, call: Call, fdset_id: int | None = None, opaque: str | None = None
    ) -> dict[str, int]:
        descriptor = call.take_descriptor()
        if fdset_id is not None and fdset_id < 0:
            os.close(descriptor)
            raise CommandError("Parameter 'fdset-id' expects a non-negative value")
        if fdset_id is None:
            fdset_id = next(n for n in range(len(self.sets) + 1) if n not in self.sets)
        self.sets.setdefault(fdset_id, []).append(SetMember(descriptor, opaque))
        return {"fd": descriptor, "fdset-id": fdset_id}

    def _remove_fd(self, call: Call, fdset_id: int, fd: int | None = None) -> None:
        members = self.sets.get(fdset_id, [])
        removed = [each for each in members if fd is None or each.descriptor == fd]
        if not removed:
            which = f"fdset-id:{fdset_id}" + ("" if fd is None else f", fd:{fd}")
            raise CommandError(f"File descriptor named '{which}' not found")
        left = [each for each in members if each not in removed]
        if left:
            self.sets[fdset_id] = left
        else:
            del self.sets[fdset_id]
        for member in removed:
            os.close(member.descriptor)

    def _query_fdsets(self, call: Call) -> list[dict[str, Any]]:
        return [
            {"fds": [_describe(member) for member in self.sets[number]], "fdset-id": number}
            for number in sorted(self.sets, reverse=True)
        ]


def _describe(member: SetMember) -> dict[str, Any]:
    described: dict[str, Any] = {"fd": member.descriptor}
    if member.opaque is not None:
        described["opaque"] = member.opaque
    return described
