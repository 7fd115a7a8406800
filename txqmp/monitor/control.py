"""
Commands for a running daemon, over a UNIX socket in its state directory.

They are spoken in QMP: greeting, ``qmp_capabilities``, commands and their answers; any client of
QMP will do, such as :func:`txqmp.connect`. Only the daemon's own user and root are heard.

``status``
    answers with the daemon's ``version`` and ``pid``, and ``sinks``: a list with ``name``,
    ``kind``, ``state``, ``sent``, ``last-error`` and ``next-attempt``
    (:class:`~txqmp.monitor.web.source.SinkStatus`). All else is in the spool, which anybody who may
    can read (:class:`~txqmp.monitor.spool.Reader`).
``rewind``, with ``sink`` and ``position``
    has a sink deliver again what comes after a position; answers with the ``count``
``retry-dead`` and ``drop-dead``, with ``sink`` and ``numbers``, or without those for all
    has dead letters tried again, or forgotten; answers with the ``count``
``forget-sink``, with ``sink``
    keeps nothing for a sink any more. One that is in use is not forgotten.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txqmp.endpoints import SOCKET_MODE, server_endpoint
from txqmp.errors import ConnectError
from txqmp.fleet.records import timestamp, utc
from txqmp.monitor.spool import SpoolError, SpoolState
from txqmp.monitor.statedir import control_socket
from txqmp.monitor.web.source import SinkStatus
from txqmp.monitor.web.status import shown
from txqmp.server import Call, CommandError, QMPServerFactory, QMPServerProtocol


MAX_CLIENTS = 16
"""How many may be connected at once."""

LIFETIME = 120.0
"""How long one may be connected, in seconds."""

MAX_COMMAND = 1 << 20
"""The largest command, in bytes."""

_CREDENTIALS = struct.Struct("3i")
_T = TypeVar("_T")


class Controlled(Protocol):
    """What of a :class:`~txqmp.monitor.spool.Spool` the commands use."""

    @property
    def state(self) -> SpoolState: ...

    def rewind(self, sink: str, position: int) -> Deferred[int]: ...

    def retry_dead(self, sink: str, numbers: Sequence[int] | None = None) -> Deferred[int]: ...

    def drop_dead(self, sink: str, numbers: Sequence[int] | None = None) -> Deferred[int]: ...

    def forget_sink(self, sink: str) -> Deferred[None]: ...


class ControlService(Service):
    """
    Takes commands. It is to be started when the spool is open: then the state directory is ours,
    and a socket that is there was left by a daemon that has ended.

    :param directory: the state directory.
    :param spool: what the commands change.
    :param sinks: asked how the sinks stand.
    :param wake: called with the name of a sink that has dead letters to try again.
    :raises ValueError: the path of the socket is longer than the kernel takes.

    :ivar refused: how many clients were sent away, because of who they are.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: str,
        spool: Controlled,
        *,
        sinks: Callable[[], Sequence[SinkStatus]] = tuple,
        wake: Callable[[str], object] = lambda sink: None,
    ) -> None:
        self.refused = 0
        self.path = control_socket(directory)
        self._reactor = reactor
        self._spool = spool
        self._sinks = sinks
        self._wake = wake
        # No lock file: it would outlive a daemon that is killed, and name what may by then be the
        # number of any other process.
        escaped = self.path.replace("\\", "\\\\").replace(":", "\\:")
        self._endpoint = server_endpoint(reactor, f"unix:{escaped}:lockfile=0", mode=SOCKET_MODE)
        self._server = _Server(reactor, self)
        self._port: IListeningPort | None = None

    # Its life

    def startService(self) -> None:
        """
        Begin to listen.

        :raises ConnectError: that cannot be done.
        """
        super().startService()
        problems: list[Failure] = []
        _make_room(self.path)
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, self._server)
        listening.addCallbacks(self._listens, problems.append)
        if problems:
            problem = problems[0].value
            reason = getattr(problem, "socketError", None) or problem
            raise ConnectError(f"cannot listen on {self.path}: {reason}")

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Take no more commands; a Deferred that fires when all clients are gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._server.disconnect_all()

    # Commands

    def status(self, call: Call) -> dict[str, Any]:
        """How the daemon stands."""
        return {
            "version": version(),
            "pid": os.getpid(),
            "sinks": [_sink(each) for each in self._sinks()],
        }

    def rewind(self, call: Call, sink: str, position: int) -> Deferred[dict[str, int]]:
        """Have a sink deliver again."""
        self._log.info("{sink}: rewound to {position}", sink=sink, position=position)
        return _counted(self._spool.rewind(sink, position))

    def retry_dead(
        self, call: Call, sink: str, numbers: list[int] | None = None
    ) -> Deferred[dict[str, int]]:
        """Have dead letters tried again."""
        retrying = self._spool.retry_dead(sink, numbers)
        retrying.addCallback(self._retried, sink)
        return _counted(retrying)

    def _retried(self, count: int, sink: str) -> int:
        self._wake(sink)
        return count

    def drop_dead(
        self, call: Call, sink: str, numbers: list[int] | None = None
    ) -> Deferred[dict[str, int]]:
        """Forget dead letters."""
        self._log.info("{sink}: dead letters are dropped by command", sink=sink)
        return _counted(self._spool.drop_dead(sink, numbers))

    def forget_sink(self, call: Call, sink: str) -> Deferred[None]:
        """Keep nothing for a sink any more."""
        if any(each.name == sink and each.attached for each in self._spool.state.sinks):
            raise CommandError(f"the sink {sink!r} is in use: take it out of the configuration")
        self._log.info("{sink}: forgotten by command", sink=sink)
        return self._spool.forget_sink(sink).addErrback(_refuse)


class _Client(QMPServerProtocol):
    """One who gives commands."""

    server: _Server
    _end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if not self.server.may_command(self.transport):
            self.abort()
            return
        self._end = self.server.clock.callLater(LIFETIME, self.abort)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        end, self._end = self._end, None
        if end is not None and end.active():
            end.cancel()
        super().connectionLost(reason)


class _Server(QMPServerFactory):
    client_class = _Client

    def __init__(self, reactor: Any, service: ControlService) -> None:
        major, minor, micro = ([int(n) for n in version().split(".") if n.isdigit()] + [0] * 3)[:3]
        super().__init__(
            reactor,
            version=(major, minor, micro),
            package="qmp-monitor",
            capabilities=(),
            max_message=MAX_COMMAND,
        )
        self._service = service
        self.register("status", service.status)
        self.register("rewind", service.rewind)
        self.register("retry-dead", service.retry_dead)
        self.register("drop-dead", service.drop_dead)
        self.register("forget-sink", service.forget_sink)

    def buildProtocol(self, addr: IAddress | None) -> QMPServerProtocol | None:
        if len(self.clients) >= MAX_CLIENTS:
            self.refused += 1
            return None
        return super().buildProtocol(addr)

    def may_command(self, transport: Any) -> bool:
        """Whether somebody is heard: our own user, and root."""
        user = _user_of(transport)
        if user in (0, os.geteuid()):
            return True
        self._service.refused += 1
        self.log.warn("user {user} may not give commands", user=user)
        return False


def version() -> str:
    """The version of this package; ``"0"`` where it is not installed."""
    try:
        return importlib.metadata.version("txqmp")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _user_of(transport: Any) -> int | None:
    """Who is at the other end of a UNIX socket; ``None`` where nobody can tell."""
    with suppress(AttributeError, OSError):
        size = _CREDENTIALS.size
        found = transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(_CREDENTIALS.unpack(found)[1])
    return None


def _make_room(path: str) -> None:
    """
    Remove the socket of a daemon that has ended.

    :raises ConnectError: what is there is something else, or cannot be removed.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConnectError(f"cannot listen on {path}: something else is there")
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as problem:
        raise ConnectError(f"cannot listen on {path}: {problem.strerror}") from problem


def _counted(waiting: Deferred[int]) -> Deferred[dict[str, int]]:
    return waiting.addCallbacks(lambda count: {"count": count}, _refuse)


def _refuse(failure: Failure) -> Any:
    failure.trap(SpoolError)
    raise CommandError(str(failure.value)) from failure.value


def _sink(sink: SinkStatus) -> dict[str, Any]:
    due = sink.next_attempt
    return {
        "name": shown(sink.name),
        "kind": shown(sink.kind),
        "state": sink.state.value,
        "sent": sink.sent,
        "last-error": None if sink.last_error is None else shown(sink.last_error),
        "next-attempt": None if due is None else timestamp(utc(due)),
    }
