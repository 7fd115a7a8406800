"""
What the daemon is to do, checked.

A :class:`Config` is frozen, and so is all that it holds: two of them can be compared, and what is
different between them told (:func:`differences`). It is made from a TOML file (:func:`load`) or
from a command line (:class:`~txqmp.monitor.options.Options`). Secrets are referred to in the file
(:mod:`~txqmp.monitor.config.secrets`), read with it, and shown by nothing.
"""

from txqmp.monitor.config.errors import ConfigError
from txqmp.monitor.config.model import (
    DEMO_NAME,
    HTTP,
    Config,
    Dial,
    Endpoint,
    Glob,
    Listen,
    Sink,
    SinkSettings,
    Source,
)
from txqmp.monitor.config.reload import Changes, Differences, differences, reload
from txqmp.monitor.config.toml import load, state_directory


__all__ = [
    "Config",
    "load",
    "reload",
    "differences",
    "state_directory",
    "ConfigError",
    "Dial",
    "Glob",
    "Listen",
    "Source",
    "Sink",
    "SinkSettings",
    "HTTP",
    "Differences",
    "Changes",
    "Endpoint",
    "DEMO_NAME",
]
