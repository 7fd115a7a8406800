"""How bad an event is, as system logs count it (RFC 5424, section 6.2.1)."""

from __future__ import annotations

import enum


class Severity(enum.IntEnum):
    """A severity; smaller is worse."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


_SEVERITIES = {
    # The guest, or its data, is broken.
    Severity.CRITICAL: """
        BLOCK_IMAGE_CORRUPTED GUEST_PANICKED MEMORY_FAILURE
    """,
    # Something failed.
    Severity.ERROR: """
        BLOCK_IO_ERROR BLOCK_JOB_ERROR COLO_EXIT GUEST_CRASHLOADED MEM_UNPLUG_ERROR
        DEVICE_UNPLUG_GUEST_ERROR QUORUM_FAILURE VFU_CLIENT_HANGUP WATCHDOG
        dropped refused
    """,
    # Somebody should look.
    Severity.WARNING: """
        BLOCK_WRITE_THRESHOLD COMMAND_DROPPED NETDEV_STREAM_DISCONNECTED
        NETDEV_VHOST_USER_DISCONNECTED PR_MANAGER_STATUS_CHANGED QUORUM_REPORT_BAD
        busy disconnected gap gone
    """,
    # A VM's life.
    Severity.NOTICE: """
        GUEST_PVSHUTDOWN POWERDOWN RESET RESUME SHUTDOWN STOP SUSPEND SUSPEND_DISK WAKEUP
        connected
    """,
}

_BY_NAME = {name: severity for severity, names in _SEVERITIES.items() for name in names.split()}


def short_name(type: str) -> str:
    """
    What an event is called, without what says whose word it is: ``STOP``, ``gap``. A vendor's
    begins with ``__``, and may hold full stops (QMP specification, "Downstream extensions").
    """
    _, vendor, rest = type.partition(".__")
    return f"__{rest}" if vendor else type.rpartition(".")[2]


def severity(type: str) -> Severity:
    """
    How bad an event is.

    :param type: the CloudEvent's.
    """
    return _BY_NAME.get(short_name(type), Severity.INFO)
