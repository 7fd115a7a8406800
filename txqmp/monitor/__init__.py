"""
``qmp-monitor``: a daemon that watches VMs and tells what happens to them.

The fleet (:mod:`txqmp.fleet`) makes the records, :mod:`txqmp.monitor.records` their JSON text, and
the sinks (:mod:`txqmp.monitor.sinks`) carry it to where people look.
"""
