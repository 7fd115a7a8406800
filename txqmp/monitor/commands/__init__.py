"""
``qmp-monitor``, the program: the daemon in the foreground, and the operator's commands.

::

    qmp-monitor [options] [NAME=]ENDPOINT...    the daemon
    qmp-monitor status                          how it stands
    qmp-monitor events                          what the spool holds, as lines of JSON
    qmp-monitor replay                          have a sink deliver again
    qmp-monitor dead list|show|retry|drop       the dead letters
    qmp-monitor forget                          keep nothing for a sink any more

The commands work on a state directory, whether or not a daemon runs on it. They read the spool
themselves. What changes something is asked of the daemon (:mod:`txqmp.monitor.control`), or done
here where none runs.

Exit codes: 0 if all is well, 1 if there is a problem, told in one line on the standard error, 2 if
the command line is wrong. What comes from guests is shown in a way that no terminal takes for a
command.
"""

from txqmp.monitor.commands.main import main


__all__ = ["main"]
