"""A source: the VMs whose sockets globs find."""

from __future__ import annotations

import glob
import math
import os
import stat

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import UNIXClient, shown
from txqmp.fleet.dial import DialSource, inode
from txqmp.fleet.naming import clean, name_in_glob
from txqmp.fleet.registry import Fleet, NameTakenError, TooManyVMsError
from txqmp.fleet.vm import VMState


RESCAN = 5.0
"""How often to look for sockets, in seconds. A notification by the kernel can get lost unseen, and
a thousand sockets are looked through in a millisecond: so looking is what is done."""


class GlobSource(MultiService):
    """
    Dials every socket that matches a pattern, as they come. A socket that refuses is tried again;
    one that has vanished is dropped when its session has ended too. Where a socket was replaced by
    another, be it that a symbolic link leads elsewhere now, the session with the old one is ended,
    and the new one dialled.

    :param patterns: such as ``"/var/run/qemu-server/*.qmp"``.
    :param rescan: how often to look, in seconds.
    :raises ValueError: there is no pattern, or no such time.

    :ivar unwatched: matches that are not watched, because there are too many VMs, or nothing is
        left to call them.
    """

    _log = Logger()

    def __init__(self, fleet: Fleet, *patterns: str, rescan: float = RESCAN) -> None:
        super().__init__()
        if not patterns or not all(patterns):
            raise ValueError("a pattern of sockets is needed")
        if not 0 < rescan < math.inf:
            raise ValueError(f"{rescan!r} s is no time between one look and the next")
        self.patterns = patterns
        self.unwatched = 0
        self._fleet = fleet
        self._rescan_every = rescan
        self._found: dict[str, DialSource] = {}
        self._loop: LoopingCall | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(' '.join(self.patterns))}>"

    def startService(self) -> None:
        super().startService()
        self._loop = LoopingCall(self._rescan)
        self._loop.clock = self._fleet.reactor
        self._loop.start(self._rescan_every)

    def stopService(self) -> Deferred[object]:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
        stopped: Deferred[object] = super().stopService()
        return stopped

    def drop(self, reason: str) -> Deferred[object]:
        """Watch none of them any more."""
        stopped: Deferred[object] = maybeDeferred(self.disownServiceParent)
        for path, source in list(self._found.items()):
            self._drop(path, source, reason)
        return stopped

    def _rescan(self) -> None:
        try:
            self.scan()
        except Exception:
            # The next look may succeed.
            self._log.failure("{source} cannot look for sockets", source=self)

    def scan(self) -> None:
        """Look for sockets, once."""
        for path, source in list(self._found.items()):
            # Looked at by itself: where descriptors run out, a glob finds nothing and does not say.
            self._look_again(path, source)
        unwatched = 0
        for pattern in self.patterns:
            for path in sorted(glob.glob(pattern)):
                if path in self._found or not _is_socket(path):
                    continue
                if self._fleet.is_occupied(os.path.realpath(path)):
                    continue
                try:
                    self._add(pattern, path)
                except (TooManyVMsError, NameTakenError):
                    unwatched += 1
        if unwatched > self.unwatched:
            self._log.warn(
                "{source}: {count} sockets are not watched: there are too many VMs, or VMs called"
                " the same",
                source=self,
                count=unwatched,
            )
        self.unwatched = unwatched

    def _look_again(self, path: str, source: DialSource) -> None:
        """See whether a socket that is watched is still there, and still the same."""
        there = _is_socket(path)
        if not there:
            if source.vm.state is not VMState.UP:
                self._drop(path, source, "its socket has vanished")
        elif not source.move():
            self._drop(path, source, "its path leads to the socket of another VM now")
        elif source.vm.state is VMState.UP and source.socket not in (None, inode(path)):
            source.redial("its socket was replaced by another")

    def _add(self, pattern: str, path: str) -> None:
        where = UNIXClient(self._fleet.reactor, path)
        try:
            source = DialSource(self._fleet, where, called=name_in_glob(pattern, path))
        except NameTakenError:
            # Two patterns may call different sockets the same: the path tells them apart.
            source = DialSource(self._fleet, where, called=clean(shown(path)))
        self._found[path] = source
        source.setServiceParent(self)

    def _drop(self, path: str, source: DialSource, reason: str) -> None:
        del self._found[path]
        source.drop(reason).addErrback(self._cannot_drop, source)

    def _cannot_drop(self, failure: Failure, source: DialSource) -> None:
        self._log.failure("cannot stop watching {vm}", failure, vm=source.vm)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
