"""The sink that appends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from txqmp.monitor.sinks.jsonl import AppendedFile
from txqmp.monitor.sinks.lines import WriteError


def test_appends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for line in (b"one", b"two"):
        target = AppendedFile(str(path))
        target.write([line])
        target.close()
        target.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_is_made_when_there_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    target = AppendedFile(str(path))
    assert not path.exists()
    before = os.umask(0o022)
    try:
        target.write([b"one"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    target.close()


def test_reopens_after_a_rotation(tmp_path: Path) -> None:
    path, old = tmp_path / "out.jsonl", tmp_path / "out.1"
    target = AppendedFile(str(path))
    target.write([b"one"])
    path.rename(old)
    target.reopen()
    target.write([b"two"])
    target.close()
    assert old.read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_cannot_be_opened(tmp_path: Path) -> None:
    target = AppendedFile(str(tmp_path / "missing" / "out.jsonl"))
    with pytest.raises(WriteError, match="No such file") as raised:
        target.write([b"one"])
    assert raised.value.written == 0
    (tmp_path / "missing").mkdir()
    target.write([b"one"])
    target.close()
