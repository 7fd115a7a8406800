"""What ``twistd qmp-monitor`` and ``twist qmp-monitor`` start from."""

from txqmp.monitor.options import Options
from txqmp.monitor.service import makeService


__all__ = ["Options", "makeService"]
