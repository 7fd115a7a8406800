"""VMs that are not there, in a process of their own: they raise events, and write down which.

A VM is what QEMU shows of one: a monitor with one client at a time, and a counter in each event.
Some listen, and are dialled; others dial, again and again (``reconnect=1``). What is raised while
nobody listens is gone (fact G37), and it is written down that nobody did.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from twisted.internet import protocol, task
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.protocols.basic import LineOnlyReceiver

from chaos import helper
from chaos.plan import name_of


EVENT = "BALLOON_CHANGE"
"""The event that they raise; its ``actual`` is the VM's counter."""

TICK = 0.01
"""How often events are raised, in seconds: each time as many as are due."""

RECONNECT = 1.0
"""How long a VM that dials waits after it has lost the other end, in seconds."""

_GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""},'
    b' "capabilities": ["oob"]}}\r\n'
)


class Monitor(LineOnlyReceiver):
    """The monitor's end of a connection."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 16

    def __init__(self, vm: VM) -> None:
        self._vm = vm
        self.negotiated = False

    def connectionMade(self) -> None:
        self._vm.connected(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._vm.disconnected(self)

    def greet(self) -> None:
        self.transport.write(_GREETING)

    def lineReceived(self, line: bytes) -> None:
        command = orjson.loads(line)
        name = command.get("execute", command.get("exec-oob"))
        reply: dict[str, Any] = {"id": command["id"]} if "id" in command else {}
        if name == "qmp_capabilities":
            self.negotiated = True
            reply["return"] = {}
        elif name in self._vm.answers:
            reply["return"] = self._vm.answers[name]
        else:
            reply["error"] = {"class": "CommandNotFound", "desc": f"{name} has not been found"}
        self.transport.write(orjson.dumps(reply) + b"\r\n")


class VM(protocol.Factory):
    """
    One VM.

    :ivar raised: when each of its events was raised, in the order of their counters from 1.
    :ivar heard: beside it, whether somebody listened.
    """

    def __init__(self, name: str, id: str) -> None:
        self.name = name
        self.answers: dict[str, Any] = {
            "query-name": {"name": name},
            "query-uuid": {"UUID": id},
            "query-status": {"status": "running", "running": True},
        }
        self.raised: list[float] = []
        self.heard: list[bool] = []
        # A monitor has one client; others wait without a word (fact G1).
        self._clients: list[Monitor] = []
        self.lost: Callable[[], object] = lambda: None

    def buildProtocol(self, address: Any) -> Monitor:
        return Monitor(self)

    def connected(self, client: Monitor) -> None:
        self._clients.append(client)
        if len(self._clients) == 1:
            client.greet()

    def disconnected(self, client: Monitor) -> None:
        first = self._clients[0] is client
        self._clients.remove(client)
        if first and self._clients:
            self._clients[0].greet()
        self.lost()

    def raise_event(self) -> None:
        now = time.time()
        self.raised.append(now)
        client = self._clients[0] if self._clients else None
        heard = client is not None and client.negotiated
        self.heard.append(heard)
        if client is not None and heard:
            seconds = int(now)
            client.transport.write(
                b'{"timestamp": {"seconds": %d, "microseconds": %d}, "event": "%b",'
                b' "data": {"actual": %d}}\r\n'
                % (seconds, int((now - seconds) * 1e6), EVENT.encode(), len(self.raised))
            )


class Dialler:
    """Connects a VM to where the daemon listens, whenever it is not."""

    def __init__(self, reactor: Any, vm: VM, path: str) -> None:
        self._reactor = reactor
        self._vm = vm
        self._endpoint = UNIXClientEndpoint(reactor, path)
        vm.lost = self._later

    def dial(self) -> None:
        self._endpoint.connect(self._vm).addErrback(lambda _: self._later())

    def _later(self) -> None:
        self._reactor.callLater(RECONNECT, self.dial)


class Host:
    """All VMs."""

    def __init__(self, reactor: Any, parameters: dict[str, Any]) -> None:
        self._reactor = reactor
        self._draw = random.Random(parameters["seed"])
        self._rate = parameters["rate"]
        self._record = parameters["record"]
        self._vms: list[VM] = []
        for number in range(parameters["vms"]):
            vm = VM(name_of(number), str(uuid.UUID(int=self._draw.getrandbits(128), version=4)))
            self._vms.append(vm)
            if number < parameters["vms"] - parameters["dialling"]:
                path = os.path.join(parameters["directory"], f"{vm.name}.sock")
                UNIXServerEndpoint(reactor, path).listen(vm)
            else:
                Dialler(reactor, vm, parameters["dial"]).dial()
        self._loop = task.LoopingCall(self._tick)
        self._began = 0.0
        self._raised = 0

    def begin(self) -> float:
        """Raise events; the time is told."""
        self._began = time.time()
        self._loop.start(TICK)
        return self._began

    def quiet(self) -> int:
        """Raise no more events; how many there were is told."""
        self._loop.stop()
        return self._raised

    def count(self) -> int:
        return self._raised

    def _tick(self) -> None:
        due = int((time.time() - self._began) * self._rate)
        while self._raised < due:
            self._raised += 1
            self._draw.choice(self._vms).raise_event()

    def end(self) -> None:
        """Write down what was raised, and whether anybody listened."""
        record = {vm.name: [vm.raised, vm.heard] for vm in self._vms}
        with open(self._record, "w") as file:
            json.dump(record, file)
        self._reactor.stop()


def main(parameters: dict[str, Any]) -> None:
    from twisted.internet import reactor

    host = Host(reactor, parameters)
    orders = {"begin": host.begin, "quiet": host.quiet, "count": host.count}
    helper.listen(orders, host.end)
    helper.answer("ready")
    reactor.run()  # type: ignore[attr-defined]
