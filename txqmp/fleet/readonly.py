"""
Sessions that only watch.

QMP has no read-only mode: who is connected can do anything to the VM. So the fleet's sessions have
a fixed list of what they may send, and nothing else leaves them.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress

from txqmp.factory import QMPClientFactory
from txqmp.messages import Message
from txqmp.protocol import QMPProtocol
from txqmp.refusal import Refusal


HARMLESS = frozenset({"qmp_capabilities", "query-name", "query-uuid", "query-status"})
"""All that the fleet ever sends."""

_MEMBERS = frozenset({"execute", "id"})


class WatchingFactory(QMPClientFactory):
    """
    Makes sessions that send nothing but :data:`HARMLESS` commands. Any other command fails with an
    :exc:`~txqmp.errors.InvalidCommandError`, and nothing of it is written.
    """

    def buildProtocol(self, addr: IAddress | None) -> QMPProtocol | Refusal | None:
        session = super().buildProtocol(addr)
        if isinstance(session, QMPProtocol):
            session.taps.add_outbound(_let_pass)
        return session

    def session_ready(self, session: QMPProtocol) -> None:
        keep_alive = getattr(session.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            # Who watches writes nothing: else the end of a host that fell silent is never noticed.
            keep_alive(True)
        super().session_ready(session)


def _let_pass(message: Message) -> Message:
    """
    :raises PermissionError: the message is no harmless command.
    """
    name = message.get("execute")
    if not isinstance(name, str) or name not in HARMLESS:
        raise PermissionError("the fleet only watches, and sends nothing like this")
    more = set(message) - _MEMBERS
    if more and (name != "qmp_capabilities" or more != {"arguments"}):
        raise PermissionError(f"the fleet only watches, and sends no {name} of this kind")
    return message
