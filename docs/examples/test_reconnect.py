"""Reconnecting, and a peer that breaks off: python -m twisted.trial test_reconnect"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txqmp import DeserializationError, DisconnectedError, QMPClientFactory
from txqmp.testing import (
    GARBAGE,
    Expect,
    MemoryEndpoint,
    Pump,
    Reply,
    ScriptedServer,
    SimulatedVM,
    connect_in_memory,
    greeting,
)


class GapTests(SynchronousTestCase):
    def test_gap(self):
        clock = Clock()
        vm = SimulatedVM(clock)
        pump = Pump(clock)
        factory = QMPClientFactory(clock)
        gaps, snapshots = [], []
        factory.observe(gap=gaps.append, snapshot=snapshots.append)
        factory.dial(MemoryEndpoint(pump, vm))
        pump()

        vm.kill()
        pump.advance(5)
        vm.boot(running=False)
        pump.advance(5)

        assert len(gaps) == 1
        assert 5 < gaps[0].until - gaps[0].since < 10
        assert snapshots[0].results["query-status"]["status"] == "prelaunch"
        factory.stop()
        pump()


class ScriptTests(SynchronousTestCase):
    def test_garbage(self):
        server = ScriptedServer(
            [greeting(), Expect("qmp_capabilities"), Reply(), Expect("query-status"), GARBAGE]
        )
        qmp, _, pump = connect_in_memory(server)
        status = qmp.execute("query-status")
        pump()
        error = self.failureResultOf(status, DisconnectedError).value
        assert error.may_have_run
        assert isinstance(error.__cause__, DeserializationError)
