"""
Where records go: one module for each kind of sink, behind one interface
(:class:`~txqmp.monitor.sinks.base.Sink`).

A sink takes each record at once and never waits: what it cannot pass on yet is in its own bounded
queue (:mod:`~txqmp.monitor.sinks.queue`). So a sink that is slow, fails or hangs is nobody else's
trouble.
"""

from txqmp.monitor.sinks.base import Counters, Sink


__all__ = ["Counters", "Sink"]
