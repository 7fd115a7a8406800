"""The files of a spool: who owns them, who may read them, and what is wrong with them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.deferreds import failure, success
from support.spool import NOW, SpoolWorld, copy_spool, text_of
from txqmp import QMPError
from txqmp.monitor.spool import (
    Control,
    Filter,
    Reader,
    SpoolError,
    SpoolLimits,
    SpoolLockedError,
    SpoolStorageError,
    SpoolVersionError,
    StorageFailure,
    UnknownSinkError,
    database,
    errors,
    owner,
)
from txqmp.monitor.spool.store import Store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a spool is, or may be."""
    return tmp_path / "spool"


@pytest.fixture
def filled(directory: Path) -> Path:
    """A spool that is closed, with three records, one of them dead."""
    world = SpoolWorld(directory, SpoolLimits()).start()
    success(world.spool.add_sink("sink"))
    world.put("a", "b", "c")
    record, *_ = success(world.spool.read_for("sink")).records
    success(world.spool.bury("sink", record, "no", 1))
    success(world.spool.ack("sink", 1))
    world.close()
    return directory


def storage_failure(opening: Any, *args: Any, **options: Any) -> SpoolStorageError:
    with pytest.raises(SpoolStorageError) as raised:
        opening(*args, **options)
    return raised.value


def change(directory: Path, statement: str) -> None:
    db = sqlite3.connect(directory / "spool.db")
    db.execute(statement)
    db.commit()
    db.close()


# Errors


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    assert errors.__doc__ is not None
    every = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, SpoolError)
    ]
    assert len(every) == 8
    assert issubclass(SpoolError, QMPError)
    for each in every:
        assert f" {each.__name__} " in f"{errors.__doc__} ".replace("\n", " ")


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (sqlite3.OperationalError("database or disk is full"), StorageFailure.FULL),
        (sqlite3.OperationalError("unable to open database file"), StorageFailure.DENIED),
        (sqlite3.OperationalError("attempt to write a readonly database"), StorageFailure.DENIED),
        (sqlite3.OperationalError("disk I/O error"), StorageFailure.IO),
        (sqlite3.OperationalError("database is locked"), StorageFailure.IO),
        (sqlite3.DatabaseError("file is not a database"), StorageFailure.CORRUPT),
        (PermissionError(13, "Permission denied"), StorageFailure.DENIED),
        (OSError(30, "Read-only file system"), StorageFailure.DENIED),
        (OSError(28, "No space left on device"), StorageFailure.FULL),
        (OSError(122, "Disk quota exceeded"), StorageFailure.FULL),
        (OSError(5, "Input/output error"), StorageFailure.IO),
        (FileNotFoundError(2, "No such file or directory"), StorageFailure.ABSENT),
    ],
)
def test_storage_errors(problem: Exception, kind: StorageFailure) -> None:
    with pytest.raises(SpoolStorageError) as raised, errors.storage_errors("/spool"):
        raise problem
    assert raised.value.kind is kind
    assert raised.value.__cause__ is problem
    assert str(raised.value).startswith("/spool: ")


# Permissions


def test_modes(directory: Path) -> None:
    before = os.umask(0)
    try:
        world = SpoolWorld(directory, SpoolLimits()).start()
        world.put("a")
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in directory.iterdir()}
        assert modes == dict.fromkeys(
            ["spool.db", "spool.db-wal", "spool.db-shm", "spool.lock"], 0o600
        )
        world.close()
    finally:
        os.umask(before)


def test_files_are_taken_away_from_others(filled: Path) -> None:
    for name in ("spool.db", "spool.lock"):
        (filled / name).chmod(0o666)
    filled.chmod(0o750)
    SpoolWorld(filled).start().close()
    assert stat.S_IMODE((filled / "spool.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((filled / "spool.lock").stat().st_mode) == 0o600
    # A directory may be somebody else's.
    assert stat.S_IMODE(filled.stat().st_mode) == 0o750


def test_no_links_are_followed(directory: Path, tmp_path: Path) -> None:
    """Who may write to the directory shall not have us spoil another file."""
    directory.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("here")
    (directory / "spool.lock").symlink_to(victim)
    assert storage_failure(Store, str(directory)).kind is StorageFailure.DENIED
    assert victim.read_text() == "here"


# Ownership


def test_one_owner(filled: Path) -> None:
    first = Store(str(filled))
    with pytest.raises(SpoolLockedError, match=f"process {os.getpid()} holds the spool") as raised:
        Store(str(filled))
    assert raised.value.pid == os.getpid()
    assert str(filled) in str(raised.value)
    with pytest.raises(SpoolLockedError):
        Control(str(filled))
    first.close()
    first.close()
    Store(str(filled)).close()


def test_owner_in_another_process(filled: Path) -> None:
    code = f"""
import sys
from txqmp.monitor.spool.store import Store
store = Store({str(filled)!r})
print(flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(SpoolLockedError) as raised:
            Store(str(filled))
        assert raised.value.pid == process.pid
        assert owner.holder(str(filled)) == process.pid
        process.kill()
    # However it ended.
    assert owner.holder(str(filled)) is None
    Store(str(filled)).close()


def test_owner_that_has_not_said_who_it_is(filled: Path) -> None:
    descriptor = os.open(filled / "spool.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    with pytest.raises(SpoolLockedError, match="another process") as raised:
        Store(str(filled))
    assert raised.value.pid is None
    os.close(descriptor)


def test_holder(filled: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = filled / "spool.lock"
    assert owner.holder(str(filled)) is None
    store = Store(str(filled))
    assert owner.holder(str(filled)) == os.getpid()
    # Another process is in the file, or another file is in its place.
    lock.write_text("1\n")
    assert owner.holder(str(filled)) is None
    lock.write_text("\n")
    assert owner.holder(str(filled)) is None
    lock.write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(owner, "_LOCKS", str(filled / "missing"))
    assert storage_failure(owner.holder, str(filled)).kind is StorageFailure.ABSENT
    monkeypatch.undo()
    lock.rename(filled / "moved")
    lock.write_text(f"{os.getpid()}\n")
    assert owner.holder(str(filled)) is None
    lock.unlink()
    assert owner.holder(str(filled)) is None
    store.close()


def test_no_lock_can_be_had(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(owner.fcntl, "flock", fail)
    assert storage_failure(Store, str(directory)).kind is StorageFailure.DENIED


def test_mode_cannot_be_set(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(owner.os, "fchmod", fail)
    assert storage_failure(Store, str(directory)).kind is StorageFailure.DENIED


# What cannot be opened


def test_parents_are_not_made(tmp_path: Path) -> None:
    error = storage_failure(Store, str(tmp_path / "missing" / "spool"))
    assert error.kind is StorageFailure.ABSENT
    assert "No such file or directory" in str(error)


def test_no_directory(directory: Path) -> None:
    directory.write_text("")
    assert storage_failure(Store, str(directory)).kind is StorageFailure.DENIED


@pytest.mark.parametrize("opening", [Reader, Control])
def test_there_is_none(directory: Path, opening: Any) -> None:
    assert storage_failure(opening, str(directory)).kind is StorageFailure.ABSENT
    directory.mkdir()
    assert storage_failure(opening, str(directory)).kind is StorageFailure.ABSENT
    assert not (directory / "spool.db").exists()


@pytest.mark.parametrize("opening", [Store, Reader, Control])
def test_later_version(filled: Path, opening: Any) -> None:
    change(filled, "PRAGMA user_version = 2")
    before = (filled / "spool.db").read_bytes()
    with pytest.raises(SpoolVersionError, match=r"of version 2.* above 1"):
        opening(str(filled))
    assert (filled / "spool.db").read_bytes() == before


@pytest.mark.parametrize("opening", [Store, Reader, Control])
def test_something_else(directory: Path, opening: Any) -> None:
    directory.mkdir()
    change(directory, "CREATE TABLE event (position)")
    before = (directory / "spool.db").read_bytes()
    error = storage_failure(opening, str(directory))
    assert error.kind is StorageFailure.CORRUPT
    assert "not a spool" in str(error)
    assert (directory / "spool.db").read_bytes() == before


@pytest.mark.parametrize("opening", [Store, Reader, Control])
def test_no_database(directory: Path, opening: Any) -> None:
    directory.mkdir()
    (directory / "spool.db").write_bytes(b"no database at all" * 1000)
    assert storage_failure(opening, str(directory)).kind is StorageFailure.CORRUPT


def test_damaged(filled: Path) -> None:
    """What is damaged further in shows when it is read."""
    path = filled / "spool.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    world = SpoolWorld(filled)
    error = failure(world.spool.start(), SpoolStorageError).value
    assert isinstance(error, SpoolStorageError)
    assert error.kind is StorageFailure.CORRUPT
    world.close()
    with Reader(str(filled)) as reader:
        assert storage_failure(reader.state).kind is StorageFailure.CORRUPT


def test_a_crash_while_it_was_made(directory: Path) -> None:
    directory.mkdir()
    (directory / "spool.db").touch()
    world = SpoolWorld(directory, SpoolLimits()).start()
    assert success(world.put("a")[0]) == 1
    world.close()


def test_file_system_that_is_not_fit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfit(sqlite3.Connection):
        def execute(self, statement: str, *args: Any) -> Any:
            return super().execute(statement.replace("= WAL", "= DELETE"), *args)

    real = sqlite3.connect
    monkeypatch.setattr(
        database.sqlite3, "connect", lambda *args, **options: real(*args, factory=Unfit, **options)
    )
    error = storage_failure(Store, str(directory))
    assert error.kind is StorageFailure.DENIED
    assert "file system" in str(error)


def test_names_that_are_special_to_sqlite(tmp_path: Path) -> None:
    directory = tmp_path / "a?mode=memory#%20b"
    world = SpoolWorld(directory, SpoolLimits()).start()
    world.put("a")
    world.close()
    with Reader(str(directory)) as reader:
        assert reader.state().last == 1


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SpoolWorld("spool").start().close()
    assert (tmp_path / "spool" / "spool.db").exists()


# Readers


def test_reads_while_the_daemon_runs(directory: Path) -> None:
    world = SpoolWorld(directory, SpoolLimits()).start()
    success(world.spool.add_sink("sink"))
    world.put("a", "b", kind="STOP")
    world.put("c", kind="RESUME")
    with Reader(str(directory)) as reader:
        assert reader.state() == world.spool.state
        world.put("d")
        batch = reader.read(wanted=Filter(types=("STOP",)))
        assert [text_of(each.data) for each in batch.records] == ["a", "b", "d"]
        assert reader.read_for("sink").through == 4
        with pytest.raises(UnknownSinkError):
            reader.read_for("nobody")
        assert reader.dead() == []
    reader.close()
    world.close()


def test_reads_while_no_daemon_runs(filled: Path) -> None:
    with Reader(str(filled)) as reader:
        state = reader.state()
        assert (state.depth, state.last, state.since) == (3, 3, NOW)
        (sink,) = state.sinks
        assert (sink.acked, sink.lag, sink.dead, sink.attached) == (1, 2, 1, True)
        assert len(reader.read().records) == 3
        assert [each.number for each in reader.dead("sink")] == [1]


def test_reads_after_a_crash(directory: Path, tmp_path: Path) -> None:
    world = SpoolWorld(directory, SpoolLimits()).start()
    world.put("a", "b")
    copy_spool(str(directory), str(tmp_path / "copy"))
    world.close()
    with Reader(str(tmp_path / "copy")) as reader:
        assert reader.state().last == 2


def test_a_reader_changes_nothing(filled: Path) -> None:
    before = (filled / "spool.db").read_bytes()
    with Reader(str(filled)) as reader:
        assert reader.read().through == 3
    assert (filled / "spool.db").read_bytes() == before


# Control


def test_control(filled: Path) -> None:
    with Control(str(filled)) as control:
        assert control.retry_dead("sink") == 1
        assert control.retry_dead("sink", [7]) == 0
        with pytest.raises(UnknownSinkError):
            control.drop_dead("nobody")
    with Reader(str(filled)) as reader:
        assert [each.retrying for each in reader.dead()] == [True]
        # Neither records nor the daemon's notes are touched.
        state = reader.state()
        assert (state.depth, state.sinks[0].attached) == (3, True)
    with Control(str(filled)) as control:
        assert control.drop_dead("sink", [1]) == 1
        control.forget_sink("sink")
    with Reader(str(filled)) as reader:
        assert reader.state().sinks == ()
        assert reader.dead() == []


def test_no_control_while_a_daemon_runs(filled: Path) -> None:
    world = SpoolWorld(filled).start()
    with pytest.raises(SpoolLockedError):
        Control(str(filled))
    world.close()
