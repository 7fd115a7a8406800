"""
Who owns a spool: one process at a time, which holds a lock on a file beside the database.

The kernel lets go of the lock when the process ends, however that happens. So the file stays where
it is; what it says is of interest only while it is locked.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from txqmp.monitor.spool.errors import SpoolLockedError, storage_errors


LOCK_NAME = "spool.lock"
"""The name of the file that is locked."""

_LOCKS = "/proc/locks"

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def make_directory(path: str) -> None:
    """
    Make the directory of a spool, if it is not there. One that is there is left as it is: the files
    in it have permissions of their own.
    """
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        return
    # Else a power failure could take it away with all that was committed to it.
    sync_directory(os.path.dirname(os.path.abspath(path)))


def make_file(path: str) -> None:
    """Make a file, if it is not there, and take it away from everybody else."""
    # One that is there is not opened: to close it would take away the locks that SQLite has on it,
    # if it is read elsewhere in this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    os.chmod(path, FILE_MODE)


def sync_directory(path: str) -> None:
    """Have the names in a directory written to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Ownership:
    """
    The right to write to a spool, from the moment this is made.

    :param directory: of the spool.
    :raises SpoolLockedError: another process has it, or another part of this one.
    :raises SpoolStorageError: there is no way to tell.
    """

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, LOCK_NAME)
        with storage_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, FILE_MODE)
            try:
                os.fchmod(descriptor, FILE_MODE)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            except BlockingIOError:
                pid = _pid(os.pread(descriptor, 32, 0))
                os.close(descriptor)
                raise SpoolLockedError(directory, pid) from None
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it, once."""
        os.close(self._descriptor)


def holder(directory: str) -> int | None:
    """
    The process that owns a spool; ``None`` where none does. This takes no lock, not even for a
    moment, so that it stands in nobody's way.

    :param directory: of the spool.
    :raises SpoolStorageError: there is no way to tell.
    """
    path = os.path.join(directory, LOCK_NAME)
    with storage_errors(path):
        try:
            with open(path, "rb") as file:
                pid = _pid(file.read(32))
                inode = os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return None
        with open(_LOCKS, "rb") as locks:
            held = any(_is_lock(line.split(), pid, inode) for line in locks)
    return pid if held else None


def _is_lock(words: list[bytes], pid: int | None, inode: int) -> bool:
    """Whether a line of the kernel's says that a process has locked a file (proc_locks(5))."""
    # Which device a file is on it tells in another way than stat() on some file systems.
    return (
        len(words) >= 6
        and words[1] == b"FLOCK"
        and words[4] == b"%d" % (pid or 0)
        and words[5].rpartition(b":")[2] == b"%d" % inode
    )


def _pid(text: bytes) -> int | None:
    word = text.strip()
    return int(word) if word.isdigit() else None
