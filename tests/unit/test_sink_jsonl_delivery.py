"""Events at the end of a file, on a real disk."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor

from support.outgoing import event, events, lines, refusal
from support.waiting import within
from txqmp.monitor.sinks import jsonl
from txqmp.monitor.sinks.delivery import OutgoingEvent, UnavailableError
from txqmp.monitor.sinks.jsonl import AppendedFile, jsonl_delivery
from txqmp.monitor.sinks.lines import WriteError
from txqmp.monitor.sinks.settings import JSONLSettings
from txqmp.monitor.sinks.threaded import ThreadedDelivery


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def target(path: Path) -> Iterator[AppendedFile]:
    target = AppendedFile(str(path))
    yield target
    target.close()


def write(target: AppendedFile, *batch: OutgoingEvent) -> None:
    target.write([each.text for each in batch])


def refused(target: AppendedFile, *batch: OutgoingEvent) -> WriteError:
    with pytest.raises(WriteError) as raised:
        write(target, *batch)
    return raised.value


@contextmanager
def largest(size: int) -> Iterator[None]:
    """Let no file become larger: a write ends early, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Calls:
    """What is asked of the kernel, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.problem: OSError | None = None
        for name in ("write", "fdatasync", "fsync"):
            monkeypatch.setattr(jsonl.os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            self.names.append(name)
            if name != "write" and self.problem is not None:
                raise self.problem
            return function(*args)

        return call


# Deliveries


@pytest_twisted.ensureDeferred
async def test_appends(path: Path) -> None:
    delivery = jsonl_delivery(reactor, JSONLSettings(path=str(path)))
    assert (delivery.name, delivery.batch) == (f"jsonl {path}", 1000)
    assert isinstance(delivery, ThreadedDelivery)
    delivery.start()
    delivery.reopen()
    await within(delivery.deliver([]))
    assert not path.exists()
    for start in (0, 1000):
        await within(delivery.deliver(events(1000, start=start)))
    assert path.read_bytes() == lines(events(2000))
    await within(delivery.stop())


@pytest_twisted.ensureDeferred
async def test_what_it_fails_with(tmp_path: Path) -> None:
    delivery = jsonl_delivery(reactor, JSONLSettings(path=str(tmp_path / "no" / "file")))
    problem = await refusal(delivery.deliver(events(3)))
    assert type(problem) is UnavailableError
    assert str(problem) == "cannot write: No such file or directory"
    assert problem.delivered == 0
    (tmp_path / "no").mkdir()
    await within(delivery.deliver(events(3)))
    await within(delivery.stop())


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        JSONLSettings(path=path)


# On the disk


def test_one_write_and_then_the_disk(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    calls = Calls(monkeypatch)
    target = AppendedFile(str(path))
    write(target, *events(1000))
    # The name first, then what it names.
    assert calls.names == ["fsync", "write", "fdatasync"]
    write(target, *events(1000))
    assert calls.names[3:] == ["write", "fdatasync"]
    target.close()


def test_what_may_not_be_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, path: Path, target: AppendedFile
) -> None:
    """After a failed fdatasync nothing of the batch counts, though all of it was written."""
    calls = Calls(monkeypatch)
    write(target, event(0))
    calls.problem = OSError(errno.EIO, "Input/output error")
    problem = refused(target, *events(2, start=1))
    assert (problem.errno, problem.written) == (errno.EIO, 0)
    # It is opened anew, which fails as long as the disk does.
    assert refused(target, *events(2, start=1)).errno == errno.EIO
    calls.problem = None
    write(target, *events(2, start=1))
    assert path.read_bytes() == lines(events(3)) + lines(events(2, start=1))


def test_permissions(path: Path, target: AppendedFile) -> None:
    before = os.umask(0o022)
    try:
        write(target, event(0))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_directory_that_cannot_be_synced(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    calls = Calls(monkeypatch)
    calls.problem = OSError(errno.EINVAL, "Invalid argument")
    monkeypatch.setattr(jsonl.os, "fdatasync", lambda _: None)
    target = AppendedFile(str(path))
    write(target, event(0))
    target.close()
    assert path.read_bytes() == lines([event(0)])


# Rotation


def test_rotated(path: Path, target: AppendedFile) -> None:
    write(target, event(0))
    path.rename(path.with_suffix(".1"))
    write(target, event(1))
    path.unlink()
    write(target, event(2))
    other = path.with_suffix(".2")
    other.write_bytes(lines([event(3)]))
    other.rename(path)
    write(target, event(4))
    assert path.with_suffix(".1").read_bytes() == lines([event(0)])
    assert path.read_bytes() == lines([event(3), event(4)])


def test_truncated(path: Path, target: AppendedFile) -> None:
    """As logrotate does with ``copytruncate``."""
    write(target, *events(3))
    os.truncate(path, 0)
    write(target, event(3))
    assert path.read_bytes() == lines([event(3)])


def test_others_append(path: Path, target: AppendedFile) -> None:
    write(target, event(0))
    with path.open("ab") as file:
        file.write(b'{"by":"others"}\n')
    write(target, event(1))
    assert path.read_bytes() == lines([event(0)]) + b'{"by":"others"}\n' + lines([event(1)])


# What is torn


TEXT = lines(events(3))
LARGE = event(7, data=b'{"text":"%b"}' % (b"x" * jsonl.MAX_TORN)).text


@given(place=st.integers(0, len(TEXT)), first=st.integers(0, 2))
def test_torn_by_a_crash(tmp_path_factory: pytest.TempPathFactory, place: int, first: int) -> None:
    """Nothing is lost, every line can be read, and what has been there stays."""
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    whole = TEXT[:place].count(b"\n")
    path.write_bytes(TEXT[:place])
    target = AppendedFile(str(path))
    # What was not acknowledged comes again, and may begin with what is whole.
    write(target, *events(3)[min(first, whole) :])
    target.close()
    text = path.read_bytes()
    assert text.startswith(TEXT[:place])
    ids = [orjson.loads(line)["id"] for line in text.splitlines()]
    assert list(dict.fromkeys(ids)) == [each.id for each in events(3)]
    assert text.endswith(b"\n")


@pytest.mark.parametrize(
    ("torn", "left"),
    [
        # The beginning of an event of ours that does not come again.
        (event(7).text[:-2], b""),
        # It only lacks the line end.
        (event(7).text, event(7).text + b"\n"),
        (b"17", b"17\n"),
        # Others' work.
        (event(7, spool="8f3c1d2a9b7e4c61").text[:-2], None),
        (b'{"by":"oth', None),
        (b"\0\0\0", None),
        # It is so long that its beginning is not looked at.
        (b"x" + LARGE[: jsonl.MAX_TORN], None),
        (b" " * (jsonl.MAX_TORN - 1), None),
        (b" " * jsonl.MAX_TORN, None),
        (b"x" * (jsonl.MAX_TORN + 1), None),
    ],
)
@pytest.mark.parametrize("before", [b"", b"{}\n"])
def test_torn_and_not_coming_again(
    path: Path, target: AppendedFile, before: bytes, torn: bytes, left: bytes | None
) -> None:
    path.write_bytes(before + torn)
    write(target, *events(3))
    expected = torn + b"\n" if left is None else left
    assert path.read_bytes() == before + expected + lines(events(3))


def test_what_cannot_be_cut_off(
    monkeypatch: pytest.MonkeyPatch, path: Path, target: AppendedFile
) -> None:
    """Such as a file that can only be appended to: then the line is ended."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(jsonl.os, "ftruncate", refuse)
    torn = event(7).text[:-2]
    path.write_bytes(torn)
    write(target, event(0))
    assert path.read_bytes() == torn + b"\n" + lines([event(0)])


def test_others_write_while_we_mend(
    monkeypatch: pytest.MonkeyPatch, path: Path, target: AppendedFile
) -> None:
    """What they append is not cut off with what we have torn."""
    torn, theirs = event(7).text[:-2], b'{"by":"others"}\n'
    path.write_bytes(torn)
    loads = orjson.loads

    def slow(text: bytes) -> object:
        with path.open("ab") as file:
            file.write(theirs)
        return loads(text)

    monkeypatch.setattr(jsonl.orjson, "loads", slow)
    write(target, event(0))
    assert path.read_bytes() == torn + theirs + b"\n" + lines([event(0)])


@pytest.mark.parametrize("spare", [0, 1, 300, len(TEXT) - 1])
def test_a_disk_that_becomes_full(path: Path, target: AppendedFile, spare: int) -> None:
    """What is whole counts; what is not is taken back at once."""
    before = lines(events(5, start=10))
    path.write_bytes(before)
    with largest(len(before) + spare):
        problem = refused(target, *events(3))
        whole = TEXT[:spare].count(b"\n")
        assert (problem.errno, problem.written) == (errno.EFBIG, whole)
        assert path.read_bytes() == before + lines(events(whole))
        assert refused(target, *events(3)[whole:]).written == 0
    write(target, *events(3)[whole:])
    assert path.read_bytes() == before + TEXT


def test_a_disk_that_is_full_while_it_mends(path: Path, target: AppendedFile) -> None:
    path.write_bytes(TEXT[:-10])
    with largest(len(TEXT) - 5):
        assert refused(target, *events(3)).written == 0
        assert path.read_bytes() == TEXT[:-10]
    with largest(len(TEXT) + 5):
        assert refused(target, *events(3)).written == 0
    write(target, *events(3))
    assert path.read_bytes() == TEXT + TEXT


# What is no regular file


def test_a_fifo(path: Path, target: AppendedFile) -> None:
    os.mkfifo(path)
    problem = refused(target, event(0))
    assert (problem.errno, str(problem)) == (errno.ENXIO, "[Errno 6] nobody reads the FIFO")
    for _ in range(2):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        write(target, *events(3))
        assert os.read(reader, 1 << 16) == TEXT
        os.close(reader)
        assert refused(target, event(0)).errno == errno.EPIPE


def test_a_device() -> None:
    target = AppendedFile("/dev/null")
    write(target, event(0))
    target.close()


def test_the_standard_output_by_name() -> None:
    reader, writer = os.pipe()
    target = AppendedFile(f"/proc/self/fd/{writer}")
    write(target, *events(3))
    assert os.read(reader, 1 << 16) == TEXT
    target.close()
    os.close(writer)
    os.close(reader)


def test_a_device_that_is_full() -> None:
    target = AppendedFile("/dev/full")
    problem = refused(target, *events(3))
    assert (problem.errno, problem.written) == (errno.ENOSPC, 0)


def test_symbolic_links(tmp_path: Path, path: Path, target: AppendedFile) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    write(target, event(0))
    write(target, event(1))
    assert (tmp_path / "elsewhere").read_bytes() == lines(events(2))
    path.unlink()
    path.symlink_to(path)
    assert refused(target, event(2)).errno == errno.ELOOP


def test_a_directory(tmp_path: Path) -> None:
    assert refused(AppendedFile(str(tmp_path)), event(0)).errno == errno.EISDIR


def test_a_socket(path: Path, target: AppendedFile) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert refused(target, event(0)).errno == errno.ENXIO


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_not_allowed(path: Path, target: AppendedFile) -> None:
    path.touch(0o440)
    assert refused(target, event(0)).errno == errno.EACCES
    path.chmod(0o640)
    write(target, event(0))
