"""A source: the VMs whose sockets a glob finds."""

from __future__ import annotations

import glob
import os
import stat

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.fleet.dial import DialSource
from txqmp.fleet.naming import name_in_glob
from txqmp.fleet.registry import Fleet, NameTakenError, TooManyVMsError
from txqmp.fleet.vm import VMState


RESCAN = 5.0
"""How often to look for sockets, in seconds. A notification by the kernel can get lost unseen, and
a thousand sockets are looked through in a millisecond: so looking is what is done."""


class GlobSource(MultiService):
    """
    Dials every socket that matches a pattern, as they come. A socket that refuses is tried again;
    one that has vanished is dropped when its session has ended too.

    :param pattern: such as ``"/var/run/qemu-server/*.qmp"``.
    :param interval: how often to look, in seconds.

    :ivar unwatched: matches that are not watched, because there are too many VMs.
    """

    _log = Logger()

    def __init__(self, fleet: Fleet, pattern: str, interval: float = RESCAN) -> None:
        super().__init__()
        self.pattern = pattern
        self.unwatched = 0
        self._fleet = fleet
        self._interval = interval
        self._found: dict[str, DialSource] = {}
        self._loop: LoopingCall | None = None

    def startService(self) -> None:
        super().startService()
        self._loop = LoopingCall(self._rescan)
        self._loop.clock = self._fleet.reactor
        self._loop.start(self._interval)

    def stopService(self) -> Deferred[object]:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
        stopped: Deferred[object] = super().stopService()
        return stopped

    def _rescan(self) -> None:
        try:
            self.scan()
        except Exception:
            # The next look may succeed.
            self._log.failure("cannot look for {pattern}", pattern=self.pattern)

    def scan(self) -> None:
        """Look for sockets, once."""
        paths = {path for path in glob.glob(self.pattern) if _is_socket(path)}
        for path, source in list(self._found.items()):
            # Looked at by itself: where descriptors run out, a glob finds nothing and does not say.
            if source.vm.state is not VMState.UP and not _is_socket(path):
                del self._found[path]
                source.drop("its socket has vanished").addErrback(self._cannot_drop, source)
        unwatched = 0
        for path in sorted(paths - self._found.keys()):
            if self._fleet.is_occupied(os.path.realpath(path)):
                continue
            try:
                self._add(path)
            except TooManyVMsError:
                unwatched += 1
        if unwatched > self.unwatched:
            self._log.warn(
                "{pattern}: {count} sockets are not watched: there are too many VMs",
                pattern=self.pattern,
                count=unwatched,
            )
        self.unwatched = unwatched

    def _add(self, path: str) -> None:
        where = "unix:" + path.replace("\\", "\\\\").replace(":", "\\:")
        try:
            source = DialSource(self._fleet, where, name_in_glob(self.pattern, path))
        except NameTakenError:
            # Two patterns may call different sockets the same: the path tells them apart.
            source = DialSource(self._fleet, where, path)
        self._found[path] = source
        source.setServiceParent(self)

    def _cannot_drop(self, failure: Failure, source: DialSource) -> None:
        self._log.failure("cannot stop watching {vm}", failure, vm=source.vm)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
