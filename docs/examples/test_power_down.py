"""Tests without QEMU, sockets or waiting: python -m twisted.trial test_power_down"""

from power_down import power_down
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txqmp import DisconnectedError, ExecuteTimeoutError
from txqmp.testing import SimulatedVM, connect_in_memory, silent


class PowerDownTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.vm = SimulatedVM(self.clock)
        self.vm.guest_delay = 10
        self.qmp, _, self.pump = connect_in_memory(self.vm)

    def power_down(self):
        done = ensureDeferred(power_down(self.qmp, self.clock, patience=60))
        self.pump()
        return done

    def test_guest_shuts_down(self):
        done = self.power_down()
        self.assertNoResult(done)
        self.pump.advance(10)
        assert self.successResultOf(done)

    def test_guest_does_not_care(self):
        self.vm.guest_delay = 1000
        done = self.power_down()
        self.pump.advance(60)
        assert not self.successResultOf(done)
        assert self.vm.exited

    def test_no_answer(self):
        self.vm.guest_delay = 1000
        self.vm.faults.append(silent("system_powerdown"))
        done = self.power_down()
        self.pump.advance(60)
        self.failureResultOf(done, ExecuteTimeoutError)

    def test_vm_is_killed(self):
        done = self.power_down()
        self.vm.kill()
        self.pump()
        self.failureResultOf(done, DisconnectedError)
