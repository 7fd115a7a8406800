"""Who is at the other end of a UNIX socket, and who may be: :class:`Peers`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Any, cast

import attrs
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from txqmp.factory import MAX_REFUSALS
from txqmp.refusal import Refusal


_CREDENTIALS = struct.Struct("3i")


@attrs.frozen
class Credentials:
    """
    Who a process was when it connected, as the kernel says (``SO_PEERCRED``, unix(7)).

    :ivar pid: its number; 0 where it is in another namespace of processes.
    :ivar uid: its user.
    :ivar gid: its group; of several its primary one.
    """

    pid: int
    uid: int
    gid: int


def credentials(transport: Any) -> Credentials | None:
    """Who is at the other end; ``None`` where that is no UNIX socket, or nobody can tell."""
    try:
        handle = transport.getHandle()
        if handle.family != socket.AF_UNIX:
            return None
        found = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (AttributeError, OSError):
        return None
    return Credentials(*_CREDENTIALS.unpack(found))


def _numbers(numbers: Iterable[int]) -> frozenset[int]:
    return frozenset(numbers)


def _are_numbers(_: Any, attribute: Any, value: frozenset[int]) -> None:
    for number in value:
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} is none of {attribute.name}")


@attrs.frozen(kw_only=True)
class Peers:
    """
    Who may connect: a process whose user or whose primary group is listed.

    :ivar uids: numbers of users.
    :ivar gids: numbers of groups.
    :raises ValueError: they are no such numbers, or there are none: then nobody could connect.
    """

    uids: frozenset[int] = attrs.field(
        default=frozenset(), converter=_numbers, validator=_are_numbers
    )
    gids: frozenset[int] = attrs.field(
        default=frozenset(), converter=_numbers, validator=_are_numbers
    )

    def __attrs_post_init__(self) -> None:
        if not self.uids and not self.gids:
            raise ValueError("a list of those who may connect, and nobody on it")

    def admit(self, who: Credentials | None) -> bool:
        """Whether this one may connect; one that the kernel does not know may not."""
        return who is not None and (who.uid in self.uids or who.gid in self.gids)


class Doorkeeper(Factory):
    """
    Looks at who connects before anything is read or written, and lets only some of them to a
    factory. The others are refused gently (fact G48): a hundred of them at once, further ones are
    just closed.

    :param factory: for those who may connect.
    :param allowed: who may.
    :param where: what is listened on, for the log.
    :param limit: how long one that is refused gets to speak, in seconds.

    :ivar denied: how many were refused. The 1st, 2nd, 4th, 8th … one is logged.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        factory: IProtocolFactory,
        allowed: Peers,
        where: str,
        limit: float,
    ) -> None:
        self.denied = 0
        self._clock = clock
        self._factory = factory
        self._allowed = allowed
        self._where = where
        self._limit = limit
        self._refusals: set[Refusal] = set()

    def startFactory(self) -> None:
        self._factory.doStart()

    def stopFactory(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Door(self, addr)

    def choose(self, transport: ITransport, addr: IAddress | None) -> Any:
        """The protocol for a connection; ``None`` to close it."""
        who = credentials(transport)
        if self._allowed.admit(who):
            return self._factory.buildProtocol(cast(IAddress, addr))
        self.denied += 1
        if self.denied & (self.denied - 1) == 0:
            self._log.warn(
                "{where}: {who} may not connect ({count} so far)",
                where=self._where,
                who=who or "who is not known",
                count=self.denied,
            )
        if len(self._refusals) >= MAX_REFUSALS:
            return None
        refusal = Refusal(self._clock, self._limit, self._refusals.discard)
        self._refusals.add(refusal)
        return refusal

    def stop(self) -> None:
        """Close what is refused at the moment."""
        for refusal in tuple(self._refusals):
            refusal.abort()


class _Door(Protocol):
    """Stands for the protocol of a connection until it is known who is at the other end."""

    def __init__(self, keeper: Doorkeeper, addr: IAddress | None) -> None:
        self._keeper = keeper
        self._addr = addr

    def makeConnection(self, transport: Any) -> None:
        protocol = self._keeper.choose(transport, self._addr)
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
