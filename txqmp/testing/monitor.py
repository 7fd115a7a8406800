"""One client of a simulated VM, with the VM's faults in what it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.python.failure import Failure

from txqmp.server.protocol import NO_REASON, QMPServerProtocol, Sent
from txqmp.testing.faults import Outgoing, apply
from txqmp.testing.steps import Close, Player, Reset, reset_when_sent


if TYPE_CHECKING:
    from txqmp.testing.simulator import SimulatedVM


class SimulatedMonitor(QMPServerProtocol):
    """One client of a :class:`~txqmp.testing.SimulatedVM`."""

    _frozen = False
    _wants_reading = True

    def __init__(self, vm: SimulatedVM) -> None:
        super().__init__(vm)
        self.vm = vm
        self._player = Player(self.write_bytes, self._end, lambda: vm.clock)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        resets = self.vm.ends_by == "reset" or any(fault.resets for fault in self.vm.faults)
        if resets and hasattr(transport, "bufferSize"):
            # A UNIX socket is reset if it is closed with something unread in it.
            transport.bufferSize = 1
        super().connectionMade()

    def connectionLost(self, reason: Failure = NO_REASON) -> None:
        self._player.stop()
        super().connectionLost(reason)

    def transmit(self, text: bytes, kind: Sent, command: str | None = None) -> None:
        data = text + b"\r\n"
        if not self.vm.faults:
            self._player.play([data])
            return
        message = Outgoing(command or "", kind, data)
        if kind != "reply":
            name = kind if kind == "greeting" else message.message["event"]
            message = attrs.evolve(message, name=name)
        self._player.play(apply(self.vm.faults, message))

    def end(self, how: Close | Reset, *, at_once: bool = False) -> None:
        """
        End the connection.

        :param at_once: without what is still to be said, because it is frozen, pauses or is
            silent.
        """
        if at_once or self._player.silent:
            self._player.stop()
            self._end(how)
        else:
            self._player.play([how])

    def _end(self, how: Close | Reset) -> None:
        if isinstance(how, Reset):
            self._finish_writing(reset_when_sent)
        else:
            self.disconnect()

    def freeze(self) -> None:
        """Neither read nor write, and stay connected."""
        self._frozen = True
        self._player.hold()
        super()._set_reading(False)

    def thaw(self) -> None:
        """Go on after :meth:`freeze`."""
        self._frozen = False
        self._player.release()
        if not self.leaving:
            super()._set_reading(self._wants_reading)

    def _set_reading(self, reading: bool) -> None:
        self._wants_reading = reading
        super()._set_reading(reading and not self._frozen)
