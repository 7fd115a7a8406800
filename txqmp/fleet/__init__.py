"""
Watching many VMs: which one it was, which session, which number.

A :class:`Fleet` is a service. Its sources (:class:`DialSource`, :class:`GlobSource`,
:class:`ListenSource`) bring it VMs; whatever happens to them becomes a :class:`Record` for its one
consumer::

    fleet = Fleet(reactor, print)
    DialSource(fleet, "/run/vm1.sock").setServiceParent(fleet)
    GlobSource(fleet, "/var/run/qemu-server/*.qmp").setServiceParent(fleet)
    fleet.startService()

It only watches: the commands it sends are a short fixed list of queries
(:data:`~txqmp.fleet.readonly.HARMLESS`).
"""

from txqmp.fleet.dial import DialSource
from txqmp.fleet.listen import ListenSource
from txqmp.fleet.peers import Peers
from txqmp.fleet.readonly import HARMLESS
from txqmp.fleet.records import Kind, Past, Record
from txqmp.fleet.registry import Fleet, NameTakenError, TooManyVMsError
from txqmp.fleet.scan import GlobSource
from txqmp.fleet.vm import VM, VMState


__all__ = [
    "HARMLESS",
    "VM",
    "DialSource",
    "Fleet",
    "GlobSource",
    "Kind",
    "ListenSource",
    "NameTakenError",
    "Past",
    "Peers",
    "Record",
    "TooManyVMsError",
    "VMState",
]
