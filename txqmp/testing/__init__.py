"""
A kit for tests of programs that speak QMP: peers that behave, and peers that do not.

* :class:`SimulatedVM` is a VM that is not there, with the commands, events and timing of QEMU's;
  :mod:`txqmp.testing.faults` has what can be wrong with it.
* :class:`ScriptedServer` says what a script says, right or wrong.
* :func:`connect_in_memory` joins a session with either, without a reactor. Both are factories,
  too, to listen with on real sockets.

Nothing here depends on a test framework.
"""

from txqmp.testing.descriptors import SimulatedDescriptors, identity
from txqmp.testing.faults import (
    After,
    Altered,
    Before,
    Duplicate,
    Fault,
    Instead,
    JoinWrites,
    Late,
    NamedFault,
    Outgoing,
    Pretty,
    SplitWrites,
    Torn,
    huge,
    idless_errors,
    malformed,
    silent,
    without_id,
    wrong_id,
)
from txqmp.testing.hold import Hold
from txqmp.testing.jobs import SimulatedJob, SimulatedJobs
from txqmp.testing.memory import (
    Connection,
    InMemory,
    MemoryEndpoint,
    Pump,
    connect_in_memory,
)
from txqmp.testing.monitor import SimulatedMonitor
from txqmp.testing.script import Expect, Refuse, Reply, ScriptedServer
from txqmp.testing.simulator import SimulatedVM
from txqmp.testing.steps import (
    BAD_UTF8,
    BLANK_LINES,
    GARBAGE,
    IDLESS_ERROR,
    STALE_ERROR,
    STALE_SUCCESS,
    TWO_OBJECTS,
    Close,
    Pause,
    Reset,
    Silence,
    Step,
    greeting,
)
from txqmp.testing.transports import DescriptorTransport, MemoryTransport


__all__ = [
    "SimulatedVM",
    "ScriptedServer",
    "connect_in_memory",
    "InMemory",
    "Pump",
    "MemoryEndpoint",
    "Connection",
    "DescriptorTransport",
    "MemoryTransport",
    "SimulatedDescriptors",
    "identity",
    "After",
    "Altered",
    "Before",
    "Duplicate",
    "Fault",
    "Instead",
    "JoinWrites",
    "Late",
    "NamedFault",
    "Outgoing",
    "Pretty",
    "SplitWrites",
    "Torn",
    "huge",
    "idless_errors",
    "malformed",
    "silent",
    "without_id",
    "wrong_id",
    "SimulatedJob",
    "SimulatedJobs",
    "Expect",
    "Refuse",
    "Reply",
    "Hold",
    "SimulatedMonitor",
    "BAD_UTF8",
    "BLANK_LINES",
    "GARBAGE",
    "IDLESS_ERROR",
    "STALE_ERROR",
    "STALE_SUCCESS",
    "TWO_OBJECTS",
    "Close",
    "Pause",
    "Reset",
    "Silence",
    "Step",
    "greeting",
]
