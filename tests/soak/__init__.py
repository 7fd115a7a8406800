"""Long runs against a real QEMU: ``python tests/soak NAME [--count N]``.

Each module is one run. Its ``run(reactor, count)`` returns a :class:`~soak.report.Report`: what it
counted, and what went wrong. The integration tests call the same functions with small counts.
"""
