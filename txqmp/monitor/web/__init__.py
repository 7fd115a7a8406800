"""
The HTTP face of ``qmp-monitor``: a page for people, a stream and a status for programs, metrics for
Prometheus, and two words for whoever restarts things.

``/``
    the page, and ``/static/`` what it is made of
``/events``
    what the daemon tells, as it comes or from any position on (:mod:`txqmp.monitor.web.events`)
``/api/v1/status``
    how everything stands, as JSON (:mod:`txqmp.monitor.web.status`)
``/metrics``
    the same in Prometheus's text format (:mod:`txqmp.monitor.metrics`)
``/healthz``
    the daemon answers
``/readyz``
    its configuration is loaded, its spool can be written and its listeners are open

It only shows: nothing can be changed through it. There is no login, so it listens on loopback or on
a UNIX socket unless it is told otherwise.
"""
