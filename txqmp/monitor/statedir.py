"""What is where in the directory in which a daemon keeps its state."""

from __future__ import annotations

import os
from collections.abc import Mapping

from txqmp.monitor.config.model import default_state_dir


DEFAULT_STATE_DIRECTORY = "/var/lib/qmp-monitor"
"""Where the state is if nobody says otherwise."""


def default_state_directory(environment: Mapping[str, str]) -> str:
    """
    Where the state is if nobody says otherwise: where systemd made a place for it
    (``StateDirectory=``), else :data:`DEFAULT_STATE_DIRECTORY`.
    """
    return default_state_dir(environment) or DEFAULT_STATE_DIRECTORY


def spool_directory(state: str) -> str:
    """Where the spool is."""
    return os.path.join(state, "spool")


def control_socket(state: str) -> str:
    """Where a running daemon takes commands (:mod:`txqmp.monitor.control`)."""
    return os.path.join(state, "control.sock")
