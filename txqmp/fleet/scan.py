"""A source: the VMs whose sockets globs find."""

from __future__ import annotations

import glob
import math
import os
from collections import deque
from collections.abc import Callable

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
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

AT_ONCE = 50
"""How many sockets are dialled in one turn of the reactor."""


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
        self._inodes: dict[str, tuple[int, int] | None] = {}
        # Sockets that are new, with their patterns, and how many of them could not be watched.
        self._new: deque[tuple[str, str]] = deque()
        self._more: IDelayedCall | None = None
        self._failed = 0
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
        self._cancel_more()
        stopped: Deferred[object] = super().stopService()
        return stopped

    def drop(self, reason: str) -> Deferred[object]:
        """Watch none of them any more."""
        stopped: Deferred[object] = maybeDeferred(self.disownServiceParent)
        for path, source in list(self._found.items()):
            self._drop(path, source, reason)
        return stopped

    def _rescan(self) -> None:
        self._guarded(self.scan)

    def _guarded(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception:
            # The next look may succeed.
            self._log.failure("{source} cannot look for sockets", source=self)

    def scan(self) -> None:
        """
        Look for sockets, once. Of those that are new the first 50 are dialled before this returns,
        the others in later turns of the reactor.
        """
        for path, source in list(self._found.items()):
            # Looked at by itself: where descriptors run out, a glob finds nothing and does not say.
            self._look_again(path, source)
        self._cancel_more()
        self._failed = 0
        self._new.extend(
            (pattern, path)
            for pattern in self.patterns
            for path in sorted(glob.glob(pattern))
            if path not in self._found and inode(path) is not None
        )
        self._add_some()

    def _look_again(self, path: str, source: DialSource) -> None:
        """See whether a socket that is watched is still there, and still the same."""
        up = source.vm.state is VMState.UP
        now = inode(path)
        if now is None:
            if not up:
                self._drop(path, source, "its socket has vanished")
            return
        if now != self._inodes[path]:
            self._inodes[path] = now
            if not source.move():
                self._drop(path, source, "its path leads to the socket of another VM now")
                return
        if up and source.socket not in (None, now):
            source.redial("its socket was replaced by another")

    def _add_some(self) -> None:
        """Dial some of the sockets that are new, and the others in later turns of the reactor."""
        self._more = None
        for _ in range(min(AT_ONCE, len(self._new))):
            pattern, path = self._new.popleft()
            if path in self._found or self._fleet.is_occupied(os.path.realpath(path)):
                continue
            try:
                self._add(pattern, path)
            except (TooManyVMsError, NameTakenError):
                self._failed += 1
        if self._new:
            self._more = self._fleet.reactor.callLater(0, self._guarded, self._add_some)
            return
        if self._failed > self.unwatched:
            self._log.warn(
                "{source}: {count} sockets are not watched: there are too many VMs, or VMs called"
                " the same",
                source=self,
                count=self._failed,
            )
        self.unwatched = self._failed

    def _cancel_more(self) -> None:
        self._new.clear()
        more, self._more = self._more, None
        if more is not None:
            more.cancel()

    def _add(self, pattern: str, path: str) -> None:
        where = UNIXClient(self._fleet.reactor, path)
        try:
            source = DialSource(self._fleet, where, called=name_in_glob(pattern, path))
        except NameTakenError:
            # Two patterns may call different sockets the same: the path tells them apart.
            source = DialSource(self._fleet, where, called=clean(shown(path)))
        self._found[path] = source
        self._inodes[path] = inode(path)
        source.setServiceParent(self)

    def _drop(self, path: str, source: DialSource, reason: str) -> None:
        del self._found[path], self._inodes[path]
        source.drop(reason).addErrback(self._cannot_drop, source)

    def _cannot_drop(self, failure: Failure, source: DialSource) -> None:
        self._log.failure("cannot stop watching {vm}", failure, vm=source.vm)
