"""
``qmp-monitor``: a daemon that watches VMs, keeps what happens to them, and delivers it.

The fleet (:mod:`txqmp.fleet`) makes records; :mod:`~txqmp.monitor.envelope` makes events of them;
the :mod:`~txqmp.monitor.spool` keeps these on the disk; a :mod:`~txqmp.monitor.pump` for each of
the :mod:`~txqmp.monitor.sinks` delivers them from there.
"""
