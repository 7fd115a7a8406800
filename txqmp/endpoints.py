"""
Where a monitor is, and how to get there.

Beside Twisted's endpoints and their strings this knows bare paths, ``(host, port)`` pairs,
``fd:N`` (an inherited or socketpair descriptor) and ``exec:COMMAND`` (a child process that speaks
QMP on its standard input and output). UNIX sockets are dialled here rather than by Twisted, which
cannot tell a full backlog from a clean close (fact G2) and waits for its time limit on a path that
is too long (fact G3).
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Union, cast

import attrs
from twisted.internet import error as tx_error
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    HostnameEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txqmp.errors import ConnectError, ConnectFailure, ConnectTimeoutError
from txqmp.inherited import InheritedServer


Place = Union[str, "os.PathLike[str]", "tuple[str, int]", Any]
"""A place: an endpoint string, a bare path, ``(host, port)``, or an endpoint object."""

MAX_UNIX_PATH = 107
"""The longest path that the kernel takes for a UNIX socket, in bytes (fact G3)."""

SOCKET_MODE = 0o600
"""The permissions of a UNIX socket that QEMU is to dial, where none are given."""

_KINDS = {
    errno.ENOENT: ConnectFailure.ABSENT,
    errno.ENOTDIR: ConnectFailure.ABSENT,
    errno.ECONNREFUSED: ConnectFailure.REFUSED,
    errno.EAGAIN: ConnectFailure.BUSY,
    errno.EACCES: ConnectFailure.DENIED,
    errno.EPERM: ConnectFailure.DENIED,
    errno.ENAMETOOLONG: ConnectFailure.PATH_TOO_LONG,
    errno.ECONNRESET: ConnectFailure.RESET,
    errno.EPIPE: ConnectFailure.RESET,
    errno.ENOTCONN: ConnectFailure.RESET,
}

_HINTS = {
    ConnectFailure.ABSENT: "there is no such socket",
    ConnectFailure.REFUSED: "nobody listens there",
    ConnectFailure.BUSY: "another client holds the monitor, and more wait for it",
    ConnectFailure.DENIED: "permission denied",
}


def shown(text: str) -> str:
    """A text that can be written: a byte of a path that is not UTF-8 shows as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def client_endpoint(reactor: Any, where: Place) -> IStreamClientEndpoint:
    """
    The endpoint to dial.

    :param reactor: what the endpoint will use.
    :param where: ``"/run/vm.sock"`` or another bare path, ``("::1", 4444)``, ``"unix:PATH"``,
        ``"tcp:HOST:PORT"``, ``"tls:HOST:PORT"`` and the other strings of Twisted, ``"fd:N"``,
        ``"exec:COMMAND ARGUMENTS"``, or an ``IStreamClientEndpoint``.
    :raises ValueError: it is none of these.
    """
    if IStreamClientEndpoint.providedBy(where):
        return where
    if isinstance(where, tuple):
        host, port = _host_and_port(where)
        return HostnameEndpoint(reactor, host, port)
    kind, rest = _split(where)
    if kind == "unix":
        path, _ = _unix_arguments(rest, ())
        return UNIXClient(reactor, path)
    if kind == "fd":
        return DescriptorClient(reactor, _descriptor(rest))
    if kind == "exec":
        return ChildClient(reactor, shlex.split(rest))
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, f"{kind}:{rest}")
    except Exception as error:  # whatever the parser of this kind of endpoint raises
        raise ValueError(f"{where!r} is no endpoint: {error}") from error
    return endpoint


def server_endpoint(
    reactor: Any, where: Place, *, mode: int = SOCKET_MODE
) -> IStreamServerEndpoint:
    """
    The endpoint to listen on.

    :param reactor: what the endpoint will use.
    :param where: a bare path or ``"unix:PATH[:mode=660]"``, ``("127.0.0.1", 4444)``, the strings
        of Twisted, or an ``IStreamServerEndpoint``. Of ``"systemd:domain=UNIX:name=NAME"`` the
        socket's file stays as it is: see :class:`~txqmp.inherited.InheritedServer`.
    :param mode: the permissions that a UNIX socket is made with, unless ``where`` says otherwise.
    :raises ValueError: it is none of these, or the path is longer than the kernel takes.
    """
    if IStreamServerEndpoint.providedBy(where):
        return where
    if isinstance(where, tuple):
        host, port = _host_and_port(where)
        return TCP4ServerEndpoint(reactor, port, interface=host)
    kind, rest = _split(where)
    if kind == "unix":
        path, options = _unix_arguments(rest, ("mode", "backlog", "lockfile"))
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise ValueError(f"{path!r} is longer than the {MAX_UNIX_PATH} bytes the kernel takes")
        try:
            return UNIXServerEndpoint(
                reactor,
                path,
                mode=int(options.get("mode", f"{mode:o}"), 8),
                backlog=int(options.get("backlog", "50")),
                wantPID=bool(int(options.get("lockfile", "1"))),
            )
        except ValueError as error:
            raise ValueError(f"{where!r} is no endpoint: {error}") from error
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, f"{kind}:{rest}")
    except LookupError as error:
        if kind != "systemd":
            raise ValueError(f"{where!r} is no endpoint: {error}") from error
        raise ValueError(f"{where!r} is no endpoint: no such socket was passed to us") from error
    except Exception as error:  # whatever the parser of this kind of endpoint raises
        raise ValueError(f"{where!r} is no endpoint: {error}") from error
    inherited: Any = endpoint if isinstance(endpoint, AdoptedStreamServerEndpoint) else None
    if inherited is not None and inherited.addressFamily == socket.AF_UNIX:
        return InheritedServer(reactor, inherited.fileno)
    return endpoint


def _host_and_port(where: tuple[Any, ...]) -> tuple[str, int]:
    if len(where) != 2 or not isinstance(where[0], str) or type(where[1]) is not int:
        raise ValueError(f"{where!r} is no (host, port)")
    return where[0], where[1]


def _split(where: Place) -> tuple[str, str]:
    """The kind of endpoint and what follows it; a bare path is of the kind ``unix``."""
    if isinstance(where, os.PathLike):
        return "unix", _quoted(os.fspath(where))
    if not isinstance(where, str) or not where:
        raise ValueError(f"{where!r} is no endpoint")
    kind, colon, rest = where.partition(":")
    if not colon or "/" in kind:
        return "unix", _quoted(where)
    return kind, rest


def _quoted(path: str) -> str:
    return "path=" + path.replace("\\", "\\\\").replace(":", "\\:")


def _unix_arguments(rest: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The path and the named arguments of a ``unix:`` endpoint string."""
    options: dict[str, str] = {}
    for number, part in enumerate(re.split(r"(?<!\\):", rest)):
        text = re.sub(r"\\(.)", r"\1", part)
        name, equals, value = text.partition("=")
        if number == 0 and not (equals and name == "path"):
            options["path"] = text
        elif equals and name in ("path", *known):
            options[name] = value
        else:
            raise ValueError(f"'unix:{rest}' is no endpoint: {text!r} means nothing here")
    if not options.get("path"):
        raise ValueError("'unix:' lacks a path")
    return options.pop("path"), options


def _descriptor(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"'fd:{text}' is no endpoint: a descriptor is a number")
    return int(text)


def connect_error(failure: Failure) -> ConnectError:
    """What a failed attempt to connect means; the failure becomes the error's cause."""
    cause = failure.value
    if isinstance(cause, ConnectError):
        return cause
    number = getattr(cause, "osError", None) or getattr(cause, "errno", None)
    kind = _KINDS.get(number, ConnectFailure.OTHER) if number else ConnectFailure.OTHER
    error: ConnectError
    if isinstance(cause, (tx_error.TimeoutError, TimeoutError)):
        error = ConnectTimeoutError("no connection in time", ConnectFailure.SILENT)
    elif isinstance(cause, (CancelledError, tx_error.UserError)):
        error = ConnectError("the attempt to connect was cancelled", ConnectFailure.CANCELLED)
    elif isinstance(cause, tx_error.ConnectionDone) or type(cause) is tx_error.ConnectError:
        # Twisted's own UNIX client, where the queue of callers is full (fact G2).
        kind = kind if number else ConnectFailure.BUSY
        error = ConnectError(_HINTS.get(kind, failure.getErrorMessage()), kind)
    else:
        error = ConnectError(_HINTS.get(kind, failure.getErrorMessage()), kind)
    error.__cause__ = cause
    return error


def connect_in_time(
    reactor: Any, endpoint: IStreamClientEndpoint, factory: Any, limit: float | None
) -> Deferred[IProtocol]:
    """Connect within a time limit, in seconds."""
    attempt: Deferred[IProtocol] = maybeDeferred(endpoint.connect, factory)
    if limit is not None:

        def too_late(_: object, __: float) -> Failure:
            return Failure(
                ConnectTimeoutError(f"no connection within {limit:g} s", ConnectFailure.SILENT)
            )

        attempt.addTimeout(limit, reactor, onTimeoutCancel=too_late)
    return attempt


class _Capture:
    """A factory's stand-in for one connection, which remembers the protocol."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.protocol: IProtocol | None = None
        factory.doStart()

    def buildProtocol(self, address: Any) -> IProtocol | None:
        self.protocol = self._factory.buildProtocol(address)
        return self.protocol


def _adopt(reactor: Any, sock: socket.socket, factory: IProtocolFactory) -> Deferred[IProtocol]:
    capture = _Capture(factory)
    sock.setblocking(False)
    reactor.adoptStreamConnection(sock.fileno(), sock.family, capture)
    if capture.protocol is None:
        return fail(ConnectError("the factory takes no connection now"))
    return succeed(capture.protocol)


@implementer(IStreamClientEndpoint)
class UNIXClient:
    """
    A UNIX socket to dial. A path that is longer than the kernel takes is reached through its
    directory.

    :param path: of the socket.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self.path = path

    def __repr__(self) -> str:
        return f"unix:{shown(self.path)}"

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect; it is done, or has failed, when this returns.

        :raises ConnectError: (by the Deferred) its kind says why.
        """
        try:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
                _short_path(self.path) as path,
            ):
                sock.setblocking(False)
                sock.connect(path)
                return _adopt(self._reactor, sock, factory)
        except OSError as problem:
            kind = _KINDS.get(problem.errno or 0, ConnectFailure.OTHER)
            text = _HINTS.get(kind, problem.strerror or str(problem))
            error = ConnectError(f"{shown(self.path)}: {text}", kind)
            error.__cause__ = problem
            return fail(error)
        except ConnectError as error:
            return fail(error)


@contextmanager
def _short_path(path: str) -> Iterator[str]:
    """A path to the same socket that is short enough for the kernel."""
    if len(os.fsencode(path)) <= MAX_UNIX_PATH:
        yield "\0" + path[1:] if path.startswith("@") else path
        return
    directory, name = os.path.split(path)
    handle = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{handle}/{name}"
        if len(os.fsencode(short)) > MAX_UNIX_PATH:
            raise ConnectError(
                f"{shown(path)}: longer than the {MAX_UNIX_PATH} bytes the kernel takes",
                ConnectFailure.PATH_TOO_LONG,
            )
        yield short
    finally:
        os.close(handle)


@implementer(IStreamClientEndpoint)
class DescriptorClient:
    """
    A connected socket that was inherited or is one of a pair. It can be used once; then it is
    closed.

    :param descriptor: the socket's number.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor: int | None = descriptor

    def __repr__(self) -> str:
        return f"fd:{self._descriptor}"

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Use the descriptor.

        :raises ConnectError: (by the Deferred) it is no connected socket, or was used before.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return fail(ConnectError("the descriptor was used before", ConnectFailure.CLOSED))
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return fail(ConnectError(f"descriptor {descriptor} is no socket"))
            with socket.socket(fileno=descriptor) as sock:
                return _adopt(self._reactor, sock, factory)
        except (OSError, OverflowError) as problem:
            error = ConnectError(f"descriptor {descriptor}: {problem}")
            error.__cause__ = problem
            return fail(error)


@implementer(IStreamClientEndpoint)
class ChildClient:
    """
    A child process that speaks QMP on its standard input and output, such as a QEMU with
    ``-qmp stdio``. Its standard error is ours. Disconnecting closes the pipes; it does not end
    the process.

    :param command: the program and its arguments.
    :raises ValueError: there is no program.
    """

    def __init__(self, reactor: Any, command: list[str]) -> None:
        if not command:
            raise ValueError("'exec:' lacks a command")
        self._reactor = reactor
        self._command = command

    def __repr__(self) -> str:
        return f"exec:{shlex.join(self._command)}"

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Start the process.

        :raises ConnectError: (by the Deferred) the factory takes no connection.
        """
        factory.doStart()
        protocol = factory.buildProtocol(ProcessAddress(self._command[0]))
        if protocol is None:
            return fail(ConnectError("the factory takes no connection now"))
        child = _Child(protocol)
        try:
            self._reactor.spawnProcess(
                child,
                self._command[0],
                self._command,
                env=None,
                childFDs={0: "w", 1: "r", 2: 2},
            )
        except OSError as problem:
            error = ConnectError(f"{self}: cannot be started: {problem}")
            error.__cause__ = problem
            return fail(error)
        return succeed(protocol)


@implementer(IAddress)
@attrs.frozen
class ProcessAddress:
    """
    The address of a child process.

    :ivar program: its program.
    """

    program: str


class _Child(ProcessProtocol):
    """Makes of a process's two pipes one connection, which ends with its output."""

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol: IProtocol | None = protocol

    def connectionMade(self) -> None:
        assert self._protocol is not None and self.transport is not None
        self._protocol.makeConnection(cast(ITransport, self.transport))

    def outReceived(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.dataReceived(data)

    def outConnectionLost(self) -> None:
        self._lost(Failure(tx_error.ConnectionDone()))

    def processEnded(self, reason: Failure) -> None:
        self._lost(reason)

    def _lost(self, reason: Failure) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)
