"""
The database of a spool: its tables, and how it is opened.

``event``
    the records, in the order of their positions. ``ends`` counts the bytes of all records up to and
    with this one, so that the size of any run of records is one subtraction. There are no indexes
    beside the position's: one for the names would halve the rate at which records are taken in, and
    to look through all of 256 MiB takes a tenth of a second.
``cursor``
    a row for each sink: up to where it has acknowledged, and what it has lost
``dead``
    the dead letters, which are copies: the records themselves are trimmed as always
``vm``
    a row for each VM: its last numbers, when it was heard last, and who it was
``meta``
    one row
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from urllib.parse import quote

from txqmp.monitor.spool.errors import (
    SpoolStorageError,
    SpoolVersionError,
    StorageFailure,
    storage_errors,
)
from txqmp.monitor.spool.owner import make_file, sync_directory


DATABASE_NAME = "spool.db"
"""The name of the file with the database; SQLite puts two more beside it."""

VERSION = 1
"""Of the tables. What has a greater one was made by a later version of this program."""

_APPLICATION = int.from_bytes(b"txqm", "big")

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE meta (identity TEXT NOT NULL);
CREATE TABLE event (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    time REAL NOT NULL,
    vm TEXT NOT NULL,
    type TEXT NOT NULL,
    size INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE cursor (
    sink TEXT PRIMARY KEY,
    acked INTEGER NOT NULL,
    attached INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0,
    lost_since REAL,
    lost_until REAL,
    dead INTEGER NOT NULL DEFAULT 0,
    dead_size INTEGER NOT NULL DEFAULT 0,
    dead_dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    position INTEGER NOT NULL,
    run INTEGER NOT NULL,
    vm TEXT NOT NULL,
    type TEXT NOT NULL,
    time REAL NOT NULL,
    data BLOB NOT NULL,
    size INTEGER NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    since REAL NOT NULL,
    retrying INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sink, run, position)
);
CREATE TABLE vm (
    vm TEXT PRIMARY KEY,
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time REAL NOT NULL,
    identity TEXT NOT NULL,
    over INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dead_of_sink ON dead (sink);
CREATE INDEX dead_to_retry ON dead (sink) WHERE retrying;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""

_BUSY_TIMEOUT = 10.0
_WAL_LEFT = 8 << 20


def open_for_writing(directory: str, *, create: bool) -> sqlite3.Connection:
    """
    Open the database, and make it where it is missing. It must be owned
    (:class:`~txqmp.monitor.spool.owner.Ownership`).

    :param create: whether to make it.
    :raises SpoolVersionError: it is of a later version.
    :raises SpoolStorageError: it cannot be opened.
    """
    path = os.path.join(directory, DATABASE_NAME)
    with storage_errors(path):
        if create:
            make_file(path)
        db = _connect(path, "rw")
        try:
            _check(db, path, new=create)
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":  # as on network file systems
                raise SpoolStorageError(
                    f"{path}: this file system cannot hold a spool", StorageFailure.DENIED
                )
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = OFF")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_LEFT}")
            if not _version(db):
                db.executescript(_SCHEMA)
                db.execute("INSERT INTO meta VALUES (?)", (secrets.token_hex(8),))
                db.execute("COMMIT")
                sync_directory(directory)
        except BaseException:
            db.close()
            raise
        return db


def open_for_reading(directory: str) -> sqlite3.Connection:
    """
    Open the database to read it, whether or not somebody writes to it.

    :raises SpoolVersionError: it is of a later version.
    :raises SpoolStorageError: it cannot be opened.
    """
    path = os.path.join(directory, DATABASE_NAME)
    with storage_errors(path):
        db = _connect(path, "ro")
        try:
            _check(db, path, new=False)
        except BaseException:
            db.close()
            raise
        return db


def _connect(path: str, mode: str) -> sqlite3.Connection:
    os.stat(path)  # SQLite does not say that there is no such file
    return sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,  # transactions are begun and ended by us
    )


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check(db: sqlite3.Connection, path: str, *, new: bool) -> None:
    """Whether it is a spool, before anything is changed in it."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if not (application or tables) and new:
        return
    if application != _APPLICATION:
        raise SpoolStorageError(f"{path}: this is not a spool", StorageFailure.CORRUPT)
    version = _version(db)
    if version > VERSION:
        raise SpoolVersionError(
            f"{path} is of version {version}, and this program knows none above {VERSION}:"
            " it was made by a later one"
        )
