"""What the sides measure with."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time


Taken = tuple[float, float]
"""What a task took: seconds by the wall clock, and seconds of its process's processor time."""


class Stopwatch:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._processor = time.process_time()
        self._began = time.perf_counter()

    def read(self) -> Taken:
        """What it took so far."""
        return time.perf_counter() - self._began, time.process_time() - self._processor


def resident_bytes() -> int:
    """The memory that this process holds, without garbage; its peak, where this is not Linux."""
    gc.collect()
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def allow_connections(wanted: int) -> int:
    """
    Raise this process's limit on open files, and that of the processes that it starts.

    :returns: how many connections the limit allows, at most as many as wanted.
    """
    spare = 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + spare:
        highest = wanted + spare if hard == resource.RLIM_INFINITY else min(hard, wanted + spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        soft = highest
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - spare)
