"""Listening on a UNIX socket that somebody else has made: :class:`InheritedServer`."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.errors import ConnectError


ACCEPT_AT_ONCE = 100
"""How many connections are taken in one turn of the reactor."""

REST = 1.0
"""How long no connection is taken when descriptors have run out, in seconds."""

_NO_MORE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOTHING = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})


@implementer(IStreamServerEndpoint)
class InheritedServer:
    """
    A UNIX socket that was inherited, as by systemd's socket activation (sd_listen_fds(3)). Its file
    is whose it was: Twisted would give it mode 0666 and delete it in the end. Here neither its
    permissions are changed, nor is it deleted; so it can be listened on again, too.

    :param descriptor: the socket's number; it stays open.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._descriptor}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Take connections.

        :raises ConnectError: (by the Deferred) the descriptor is no UNIX socket that listens.
        """
        try:
            duplicate = _duplicate(self._descriptor)
        except (OSError, OverflowError) as problem:
            return fail(ConnectError(f"descriptor {self._descriptor}: {problem}"))
        listens = duplicate.family == socket.AF_UNIX and duplicate.type == socket.SOCK_STREAM
        if not listens or not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            duplicate.close()
            return fail(
                ConnectError(f"descriptor {self._descriptor} is no UNIX socket that listens")
            )
        port = InheritedPort(self._reactor, duplicate, protocolFactory)
        port.startListening()
        return succeed(port)


def _duplicate(descriptor: int) -> socket.socket:
    number = os.dup(descriptor)
    try:
        return socket.socket(fileno=number)
    except OSError:
        os.close(number)
        raise


@implementer(IListeningPort, IReadDescriptor)
class InheritedPort:
    """A socket that listens. Made by :meth:`InheritedServer.listen`."""

    _log = Logger()

    def __init__(self, reactor: Any, sock: socket.socket, factory: IProtocolFactory) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._socket = sock
        self._factory = factory
        self._address = UNIXAddress(os.fsencode(sock.getsockname()))
        self._resting: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address!r}>"

    def logPrefix(self) -> str:
        return repr(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def getHost(self) -> UNIXAddress:
        """The address of the socket."""
        return self._address

    def startListening(self) -> None:
        """Begin to take connections."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> None:
        """Take no more connections. Those that wait are for the next one who listens."""
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.cancel()
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()
            self._factory.doStop()

    def doRead(self) -> None:
        """Take the connections that wait."""
        for _ in range(ACCEPT_AT_ONCE):
            if self._socket.fileno() < 0:
                return
            try:
                connection, _address = self._socket.accept()
            except OSError as problem:
                if problem.errno in _NO_MORE:
                    self._rest(problem)
                if problem.errno in _NO_MORE or problem.errno in _NOTHING:
                    return
                continue  # one that has gone again
            with connection:
                connection.setblocking(False)
                try:
                    self._reactor.adoptStreamConnection(
                        connection.fileno(), socket.AF_UNIX, self._factory
                    )
                except OSError as problem:
                    self._rest(problem)
                    return

    def _rest(self, problem: OSError) -> None:
        """The connections that wait make the reactor turn in vain: look away for a while."""
        self._log.warn("{port}: no connection is taken now: {why}", port=self, why=problem)
        self._reactor.removeReader(self)
        self._resting = self._reactor.callLater(REST, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        self._reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, or found the descriptor closed."""
        self.stopListening()
