"""A simulated VM with something happening every second, for demonstrations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure


if TYPE_CHECKING:
    from txqmp.testing.simulator import SimulatedVM


class Demo:
    """
    Has something happen to a VM time and again: it is paused and resumed, reset, its devices
    change, and jobs run. Made by :meth:`~txqmp.testing.SimulatedVM.run_demo`.

    :param vm: the VM.
    :param clock: where the time comes from.
    :param interval: the time between, in seconds.

    :ivar happened: how many things happened.
    """

    _log = Logger()

    def __init__(self, vm: SimulatedVM, clock: IReactorTime, interval: float) -> None:
        self.happened = 0
        self._vm = vm
        self._plan = self._make_plan()
        self._loop = LoopingCall(self._happen)
        self._loop.clock = clock
        self._loop.start(interval, now=False).addErrback(self._failed)

    def stop(self) -> None:
        """Let nothing happen any more."""
        if self._loop.running:
            self._loop.stop()

    def _happen(self) -> None:
        self.happened += 1
        next(self._plan)()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the demonstration has failed", failure)

    def _make_plan(self) -> Iterator[Callable[[], object]]:
        vm = self._vm
        send = vm.send_event
        for number in itertools.count(1):
            begin = partial(
                vm.jobs.start, "mirror", f"mirror{number}", length=1 << 30, duration=2.5
            )
            yield vm.pause
            yield vm.resume
            yield lambda: send("RTC_CHANGE", {"offset": 0, "qom-path": "/machine/rtc"})
            yield begin
            yield lambda: send("VSERPORT_CHANGE", {"open": True, "id": "channel0"})
            yield lambda: send("BALLOON_CHANGE", {"actual": 1 << 30})
            yield self._complete_jobs
            yield lambda: send("NIC_RX_FILTER_CHANGED", {"name": "net0", "path": "/machine/net0"})
            yield lambda: send("VSERPORT_CHANGE", {"open": False, "id": "channel0"})
            yield partial(vm.reset, guest=True, reason="guest-reset")
            yield lambda: send("WATCHDOG", {"action": "none"})
            yield lambda: send("DEVICE_UNPLUG_GUEST_ERROR", {"path": "/machine/disk0"})

    def _complete_jobs(self) -> None:
        for job in tuple(self._vm.jobs.by_id.values()):
            if job.status == "ready":
                job.finish()
