"""
Where events are delivered to: for each kind of sink what is chosen about it (:mod:`.settings`) and
what delivers to it, behind one interface (:class:`~txqmp.monitor.sinks.delivery.Delivery`).

None has a queue, or tries again: the events are in the spool, and what becomes of those that are
not taken is decided by a :class:`~txqmp.monitor.pump.SinkPump`.
"""
