"""What ``twistd`` and ``twist`` can run. Nothing is imported here but what lists it."""

from twisted.application.service import ServiceMaker


qmp_monitor = ServiceMaker(
    "txqmp qmp-monitor",
    "txqmp.monitor.tap",
    "Watch QEMU virtual machines and tell their events",
    "qmp-monitor",
)
