"""
The other end of the wire: :class:`QMPServerFactory`, a QMP server.

::

    factory = QMPServerFactory(reactor)

    @factory.command("set-level")
    def set_level(call, level: int, unit: str = "dB"):
        if level > 11:
            raise CommandError("Parameter 'level' expects a value between 0 and 11")
        factory.send_event("LEVEL_CHANGED", {"level": level})

    UNIXServerEndpoint(reactor, "/run/amplifier.sock", mode=0o600).listen(factory)

What a client sends is read as a stream of JSON values, with or without line ends (fact G15), and
what is wrong with it is answered in QEMU's words, in QEMU's order. Where a command has two faults
that QEMU finds in the order of its hash table, the first in the text is reported.
"""

from txqmp.server.commands import Call, CommandError, CommandTable, Handler
from txqmp.server.factory import QMPServerFactory
from txqmp.server.protocol import QMPServerProtocol


__all__ = [
    "Call",
    "CommandError",
    "CommandTable",
    "Handler",
    "QMPServerFactory",
    "QMPServerProtocol",
]
