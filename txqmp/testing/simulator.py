"""
A VM that is not there: :class:`SimulatedVM`, a QMP server with the commands and events of QEMU.

::

    vm = SimulatedVM(clock)
    client, server, pump = connect_in_memory(vm)       # or UNIXServerEndpoint(…).listen(vm)

    @vm.command("query-balloon")                        # what it lacks, or does otherwise
    def query_balloon(call):
        return {"actual": 1 << 30}

    held = vm.hold("blockdev-add")                      # a command that takes its time
    vm.freeze()                                         # SIGSTOP
    vm.shut_down(guest=True, reason="guest-shutdown")   # what happens to VMs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import attrs
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from txqmp.server import QMPServerFactory
from txqmp.server.commands import Call, CommandError, Handler, RegisteredCommand
from txqmp.server.protocol import QMPServerProtocol
from txqmp.testing.demo import Demo
from txqmp.testing.descriptors import SimulatedDescriptors
from txqmp.testing.faults import Fault
from txqmp.testing.hold import Hold
from txqmp.testing.jobs import SimulatedJobs
from txqmp.testing.monitor import SimulatedMonitor
from txqmp.testing.schema import schema
from txqmp.testing.steps import Close, Reset


NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What ``query-uuid`` returns where no UUID was chosen."""


class SimulatedVM(QMPServerFactory):
    """
    A simulated VM: a QMP server that knows the commands below, and more with :meth:`register`.

    Of the machine: ``query-status``, ``query-name``, ``query-uuid``, ``query-version``,
    ``query-commands``, ``query-qmp-schema``, ``stop``, ``cont``, ``system_reset``,
    ``system_powerdown``, ``quit``, ``human-monitor-command``. Out of band: ``query-yank``,
    ``migrate-pause``. Of descriptors: :class:`~txqmp.testing.descriptors.SimulatedDescriptors`.
    Of block nodes and jobs: :class:`~txqmp.testing.jobs.SimulatedJobs`.

    :param clock: where its time comes from; the reactor by default.
    :param name: the VM's name, ``None`` for none.
    :param uuid: its UUID.
    :param running: whether it runs; if not it waits for ``cont``, as with ``-S``.
    :param faults: what is wrong with it (:mod:`txqmp.testing.faults`).
    :param ends_by: how its connections end when it does: both are real (fact G26).
    :param options: as for :class:`~txqmp.server.QMPServerFactory`. One client is served at a time,
        unless ``exclusive`` says otherwise.

    :ivar status: as ``query-status`` gives it, such as ``"running"``.
    :ivar exited: whether it has ended; then it takes no connections.
    :ivar frozen: whether it is stopped, as by SIGSTOP.
    :ivar faults: what is wrong with it; the list may be changed at any time.
    :ivar hmp: the replies of ``human-monitor-command`` by command line, as texts or as functions
        of the command line.
    :ivar guest_delay: how long the guest takes to shut down, in seconds.
    :ivar descriptors: the file descriptors it holds.
    :ivar jobs: its block nodes and jobs.
    """

    client_class = SimulatedMonitor

    def __init__(
        self,
        clock: IReactorTime | None = None,
        *,
        name: str | None = None,
        uuid: str = NIL_UUID,
        running: bool = True,
        faults: Iterable[Fault] = (),
        ends_by: Literal["eof", "reset"] = "eof",
        exclusive: bool = True,
        version: tuple[int, int, int] = (7, 2, 22),
        **options: Any,
    ) -> None:
        super().__init__(clock, exclusive=exclusive, version=version, **options)
        self.name = name
        self.uuid = uuid
        self.status = "running" if running else "prelaunch"
        self.exited = False
        self.frozen = False
        self.faults = list(faults)
        self.ends_by = ends_by
        self.guest_delay = 1.0
        self.hmp: dict[str, str | Callable[[str], str]] = {}
        self._holds: dict[str, Hold] = {}
        self._guest: IDelayedCall | None = None
        self._demo: Demo | None = None
        self.descriptors = SimulatedDescriptors(self)
        self.jobs = SimulatedJobs(self)
        handlers: dict[str, Handler] = {
            "query-status": self._query_status,
            "query-name": lambda call: {} if self.name is None else {"name": self.name},
            "query-uuid": lambda call: {"UUID": self.uuid},
            "query-version": lambda call: self.version_info(),
            "query-commands": self._query_commands,
            "query-qmp-schema": lambda call: schema(self.commands),
            "stop": lambda call: self.pause(),
            "cont": lambda call: self.resume(),
            "system_reset": lambda call: self.reset(),
            "system_powerdown": self._system_powerdown,
            "quit": self._quit,
            "human-monitor-command": self._human_monitor_command,
        }
        for command, handler in handlers.items():
            self.register(command, handler)
        self.register("query-yank", lambda call: [], oob=True)
        self.register("migrate-pause", self._migrate_pause, oob=True)

    # What happens to VMs

    @property
    def running(self) -> bool:
        """Whether the guest runs."""
        return self.status == "running"

    def pause(self) -> None:
        """Stop the guest, as ``stop`` does."""
        if self.running:
            self.status = "paused"
            self.send_event("STOP")

    def resume(self) -> None:
        """Let the guest run, as ``cont`` does."""
        if not self.running:
            self.status = "running"
            self.send_event("RESUME")

    def reset(self, *, guest: bool = False, reason: str = "host-qmp-system-reset") -> None:
        """Reset the guest; ``guest=True, reason="guest-reset"`` where it does so itself."""
        self.send_event("RESET", {"guest": guest, "reason": reason})

    def shut_down(self, *, guest: bool = True, reason: str = "guest-shutdown") -> None:
        """The VM shuts down, and ends: with a SHUTDOWN event."""
        self.send_event("SHUTDOWN", {"guest": guest, "reason": reason})
        self._exit()

    def terminate(self) -> None:
        """End it as SIGTERM does: with a SHUTDOWN event (fact G27)."""
        self.shut_down(guest=False, reason="host-signal")

    def kill(self) -> None:
        """End it as SIGKILL does: without a word (fact G27), even if it is frozen."""
        self._exit(at_once=True)

    def freeze(self) -> None:
        """
        Stop it as SIGSTOP does (fact G5): nothing is read, sent or greeted. What was read before
        still runs, and its clock goes on; what comes of it waits to be sent.
        """
        self.frozen = True
        for client in self.clients:
            assert isinstance(client, SimulatedMonitor)
            client.freeze()

    def thaw(self) -> None:
        """Let it go on as SIGCONT does: now come the replies."""
        self.frozen = False
        for client in self.clients:
            assert isinstance(client, SimulatedMonitor)
            client.thaw()
        self.serve_waiting()

    def boot(self, *, running: bool = True) -> None:
        """Start it anew after its end: connections are taken again."""
        self.exited = self.frozen = False
        self.status = "running" if running else "prelaunch"

    def _exit(self, *, at_once: bool = False) -> None:
        self.exited = True
        self.status = "shutdown"
        self.stop_demo()
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.cancel()
        self.jobs.stop()
        self.descriptors.close()
        for waiting in self.waiting:
            waiting.disconnect()
        for client in self.clients:
            assert isinstance(client, SimulatedMonitor)
            client.end(Reset() if self.ends_by == "reset" else Close(), at_once=at_once)

    # What tests and demonstrations want

    def hold(self, name: str) -> Hold:
        """
        Have a command wait: its calls do not run until the hold is released. Commands behind it
        wait too, as it is in band; those out of band do not (fact G22).

        :param name: the command's name.
        """
        if name not in self._holds:
            self._holds[name] = Hold(name, lambda: self._holds.pop(name))
        return self._holds[name]

    def run_demo(self, clock: IReactorTime | None = None, *, interval: float = 1.0) -> Demo:
        """
        Have something happen time and again, until :meth:`stop_demo` or the VM's end.

        :param clock: where the time comes from; the VM's clock by default.
        :param interval: the time between, in seconds.
        """
        self.stop_demo()
        self._demo = Demo(self, self.clock if clock is None else clock, interval)
        return self._demo

    def stop_demo(self) -> None:
        """End :meth:`run_demo`."""
        demo, self._demo = self._demo, None
        if demo is not None:
            demo.stop()

    # For the server

    def find(self, name: str) -> RegisteredCommand | None:
        command = super().find(name)
        hold = self._holds.get(name)
        if command is None or hold is None:
            return command
        return attrs.evolve(command, handler=hold.wrap(command.handler))

    def may_serve(self) -> bool:
        return not self.frozen and super().may_serve()

    def client_lost(self, client: QMPServerProtocol) -> None:
        if len(self.clients) == 1 and client in self.clients:
            self.descriptors.close_sets()
        super().client_lost(client)

    def buildProtocol(self, addr: IAddress | None) -> QMPServerProtocol | None:
        return None if self.exited else super().buildProtocol(addr)

    # Commands

    def _query_status(self, call: Call) -> dict[str, Any]:
        return {"status": self.status, "singlestep": False, "running": self.running}

    def _query_commands(self, call: Call) -> list[dict[str, str]]:
        return [{"name": "qmp_capabilities"}, *({"name": each.name} for each in self.commands)]

    def _system_powerdown(self, call: Call) -> None:
        self.send_event("POWERDOWN")
        if self.running and self._guest is None:
            self._guest = self.clock.callLater(self.guest_delay, self._guest_shuts_down)

    def _guest_shuts_down(self) -> None:
        self._guest = None
        self.shut_down()

    def _quit(self, call: Call) -> None:
        self.send_event("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        call.after_reply(self._exit)

    def _migrate_pause(self, call: Call) -> None:
        raise CommandError("migrate-pause is currently only supported during postcopy-active state")

    def _human_monitor_command(
        self, call: Call, command_line: str, cpu_index: int | None = None
    ) -> str:
        if cpu_index is not None and cpu_index != 0:
            raise CommandError("Parameter 'cpu-index' expects a CPU number")
        reply = self.hmp.get(command_line)
        if reply is not None:
            return reply if isinstance(reply, str) else reply(command_line)
        if command_line == "info status":
            return f"VM status: {self.status}\r\n"
        dump = re.fullmatch(r"xp /(\d+)xb \w+", command_line)
        if dump:
            return _dump(int(dump[1]))
        word = command_line.split(" ", 1)[0]
        return f"unknown command: '{word}'\r\n"


def _dump(size: int) -> str:
    """So many bytes of memory, all zero, as HMP's ``xp`` shows them."""
    lines = [f"{start:016x}:" + " 0x00" * min(8, size - start) for start in range(0, size, 8)]
    return "".join(f"{each}\r\n" for each in lines)
