"""A program for each event: real ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from support.deferreds import pending, success
from support.outgoing import error, event, events, refusal
from support.waiting import until, within
from txqmp.monitor.sinks import exec as exec_module
from txqmp.monitor.sinks.delivery import EventRejectedError, OutgoingEvent, UnavailableError
from txqmp.monitor.sinks.exec import OUTPUT, STUCK, ExecDelivery, environment, exec_delivery
from txqmp.monitor.sinks.settings import ExecSettings


def shell(script: str, **options: float) -> ExecDelivery:
    """What runs a script in each event's honour; the tests' shell, not the product's."""
    command = ("/bin/sh", "-c", script)
    return exec_delivery(reactor, ExecSettings(command=command, **options))


def python(script: str, **options: float) -> ExecDelivery:
    command = (sys.executable, "-S", "-I", "-c", script)
    return exec_delivery(reactor, ExecSettings(command=command, **options))


async def outcome(delivery: ExecDelivery) -> str | None:
    """What becomes of one event; the sink is stopped."""
    try:
        await within(delivery.deliver([event(1)]))
    except UnavailableError as problem:
        return problem.reason
    finally:
        await within(delivery.stop())
    return None


def gone(pid: int) -> bool:
    """Whether a process has ended; one that is not ours, because who has started it is gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ()},
        {"command": ("true",)},
        {"command": ("/bin/true", "a\0b")},
        {"command": ("/bin/true",), "timeout": 0},
        {"command": ("/bin/true",), "grace": 0},
        {"command": ("/bin/true",), "grace": 61},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ExecSettings(**wrong)  # type: ignore[arg-type]


def test_its_name_has_no_arguments() -> None:
    delivery = exec_delivery(reactor, ExecSettings(command=("/bin/mail", "-p", "swordfish")))
    assert (delivery.name, delivery.batch) == ("exec /bin/mail", 1)
    delivery.start()
    delivery.reopen()


def test_environment() -> None:
    ours = {"HOME": "/root", "LC_TIME": "C", "PASSWORD": "swordfish", "LD_PRELOAD": "x.so"}
    assert environment(ours, event(7, called="a\0b\nc")) == {
        b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"HOME": b"/root",
        b"LC_TIME": b"C",
        b"TXQMP_EVENT_ID": b"8f3c1d2a9b7e4c60-00000000000000000007",
        b"TXQMP_EVENT_TYPE": b"org.qemu.qmp.STOP",
        b"TXQMP_VM": b"a?b?c",
    }
    assert environment({"PATH": "/bin"}, event(1))[b"PATH"] == b"/bin"


# What a program gets


@pytest_twisted.ensureDeferred
async def test_delivers(tmp_path: Path) -> None:
    delivery = shell(
        f"cat >> {tmp_path}/in; env > {tmp_path}/env; ps -o pid=,pgid=,sid= $$ >> {tmp_path}/ids"
    )
    await within(delivery.deliver([event(1, called="web")]))
    await within(delivery.deliver(events(2, start=2)))
    assert (tmp_path / "in").read_bytes() == b"".join(
        event(number).text + b"\n" for number in (1, 2, 3)
    )
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"PATH", "TXQMP_EVENT_ID", "TXQMP_EVENT_TYPE", "TXQMP_VM"} <= names
    assert not {name for name in names if name.startswith("PYTEST")}
    for line in (tmp_path / "ids").read_text().splitlines():
        pid, group, session = line.split()
        assert pid == group == session
    await within(delivery.stop())


@pytest_twisted.ensureDeferred
async def test_nothing_else_is_open() -> None:
    """No descriptor of ours goes to the program."""
    script = "import os, sys; sys.exit(len(os.listdir('/proc/self/fd')) - 4)"
    mine = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(mine, True)
    assert await outcome(python(script)) is None
    os.close(mine)


@pytest_twisted.ensureDeferred
async def test_an_event_that_is_large(tmp_path: Path) -> None:
    delivery = shell(f"cat > {tmp_path}/in")
    large = event(1, data=b'{"text":"%b"}' % (b"x" * 3_000_000))
    await within(delivery.deliver([large]))
    assert (tmp_path / "in").read_bytes() == large.text + b"\n"
    # Nobody has to read it.
    await within(shell("exec 0<&-; true").deliver([large]))
    await within(delivery.stop())


# How it ends


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", None),
        ("exit 1", "the program exited with 1"),
        ("exit 255", "the program exited with 255"),
        ("kill -9 $$", "the program was ended by signal 9"),
        ("kill -TERM $$", "the program was ended by signal 15"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ends(script: str, expected: str | None) -> None:
    assert await outcome(shell(script)) == expected


@pytest_twisted.ensureDeferred
async def test_rejects(tmp_path: Path) -> None:
    delivery = shell('case "$TXQMP_EVENT_ID" in *1) exit 65; esac')
    problem = await refusal(delivery.deliver(events(3)))
    assert type(problem) is EventRejectedError
    assert (problem.reason, problem.delivered) == ("the program exited with 65", 1)
    await within(delivery.deliver(events(1, start=2)))
    await within(delivery.stop())


@pytest.mark.parametrize(
    ("name", "content", "mode", "reason"),
    [
        ("missing", None, 0, "No such file or directory"),
        ("plain", "", 0o644, "may not be run"),
        ("directory", None, 0o755, "is no program"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_cannot_be_started(
    tmp_path: Path, name: str, content: str | None, mode: int, reason: str
) -> None:
    program = tmp_path / name
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    elif mode:
        program.mkdir()
    delivery = exec_delivery(reactor, ExecSettings(command=(str(program),)))
    problem = await outcome(delivery)
    assert problem is not None
    assert problem.startswith("cannot start the program: ")
    assert reason in problem


@pytest_twisted.ensureDeferred
async def test_its_interpreter_is_missing(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/missing/interpreter\n")
    program.chmod(0o755)
    delivery = exec_delivery(reactor, ExecSettings(command=(str(program),)))
    assert await outcome(delivery) == "the program exited with 127"


@pytest_twisted.ensureDeferred
async def test_no_session_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await outcome(shell("true")) == (
        "cannot start the program: there is no setsid on the PATH"
    )


@pytest_twisted.ensureDeferred
async def test_an_environment_that_is_too_large() -> None:
    delivery = shell("true")
    huge = OutgoingEvent(id="x", type="y", vm="z" * 1_000_000, text=b"{}")
    problem = await refusal(delivery.deliver([huge]))
    assert type(problem) is UnavailableError
    assert "Argument list too long" in problem.reason
    await within(delivery.deliver([event(1)]))
    await within(delivery.stop())


# What it prints


@pytest_twisted.ensureDeferred
async def test_what_it_printed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from twisted.logger import globalLogPublisher

    logged: list[object] = []
    globalLogPublisher.addObserver(seen := lambda each: logged.append(each.get("output")))
    try:
        assert await outcome(shell("echo no; echo never >&2; exit 3")) is not None
        flood = "import sys\nsys.stdout.write('x' * 10_000_000 + 'the end'); sys.exit(1)"
        assert await outcome(python(flood)) == "the program exited with 1"
    finally:
        globalLogPublisher.removeObserver(seen)
    first, second = [each for each in logged if isinstance(each, str)]
    assert sorted(first.splitlines()) == ["never", "no"]
    assert len(second) == OUTPUT
    assert second.endswith("xthe end")


@pytest_twisted.ensureDeferred
async def test_what_floods_is_ended() -> None:
    assert await outcome(shell("exec yes", timeout=0.2)) == (
        "the program has not ended within 0.2 s"
    )


@pytest_twisted.ensureDeferred
async def test_closes_what_it_could_print_to(tmp_path: Path) -> None:
    """It ends when it exits, not when its pipes do."""
    assert await outcome(shell(f"exec >&- 2>&-; cat > {tmp_path}/in; exit 4")) == (
        "the program exited with 4"
    )
    assert (tmp_path / "in").read_bytes() == event(1).text + b"\n"


# What takes too long


@pytest_twisted.ensureDeferred
async def test_a_deadline(tmp_path: Path) -> None:
    """The whole group is asked to end."""
    script = f"""
        trap 'echo asked >> {tmp_path}/log; exit 0' TERM
        sleep 1000 & echo $! > {tmp_path}/pid
        wait
    """
    delivery = shell(script, timeout=1.5)
    assert await outcome(delivery) == "the program has not ended within 1.5 s"
    assert (tmp_path / "log").read_text() == "asked\n"
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


@pytest_twisted.ensureDeferred
async def test_a_deadline_for_all(tmp_path: Path) -> None:
    """Those whom the program has started are asked too."""
    script = f"""
        sh -c 'trap "echo asked > {tmp_path}/log; exit" TERM; while :; do sleep 0.05; done' &
        trap : TERM
        wait
        wait
    """
    delivery = shell(script, timeout=1.5)
    assert await outcome(delivery) == "the program has not ended within 1.5 s"
    assert (tmp_path / "log").read_text() == "asked\n"


@pytest_twisted.ensureDeferred
async def test_who_does_not_end_with_the_program(tmp_path: Path) -> None:
    script = f"""
        sh -c 'trap "" TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done' &
        wait
    """
    delivery = shell(script, timeout=1.5)
    assert await outcome(delivery) == "the program has not ended within 1.5 s"
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


@pytest_twisted.ensureDeferred
async def test_will_not_end(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/pid; while :; do wait; done"
    delivery = shell(script, timeout=1.5, grace=0.2)
    begun = time.monotonic()
    assert await outcome(delivery) == "the program has not ended within 1.5 s"
    assert time.monotonic() - begun >= 1.7
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


@pytest_twisted.ensureDeferred
async def test_stops_itself() -> None:
    """SIGKILL ends even what has been stopped."""
    delivery = shell("kill -STOP $$", timeout=0.2, grace=0.1)
    assert await outcome(delivery) == "the program has not ended within 0.2 s"


@pytest.mark.parametrize(("status", "expected"), [(0, None), (3, "the program exited with 3")])
@pytest_twisted.ensureDeferred
async def test_what_it_leaves_behind(tmp_path: Path, status: int, expected: str | None) -> None:
    """A daemon that holds the pipes holds up nothing, and lives on."""
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid; exit {status}"
    assert await outcome(shell(script)) == expected
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: gone(pid))


@pytest_twisted.ensureDeferred
async def test_what_has_left_the_group(tmp_path: Path) -> None:
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid; wait"
    assert await outcome(shell(script, timeout=1.5)) == "the program has not ended within 1.5 s"
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    await until(lambda: gone(pid))


# When it is not wanted any more


def running(tmp_path: Path) -> Callable[[], bool]:
    return lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n")


@pytest_twisted.ensureDeferred
async def test_given_up(tmp_path: Path) -> None:
    delivery = shell(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    delivering = delivery.deliver([event(1)])
    with pytest.raises(RuntimeError, match="has not ended"):
        delivery.deliver([event(1)])
    await until(running(tmp_path))
    delivering.cancel()
    assert str(error(delivering)) == "given up"
    assert str(error(delivery.deliver([event(1)]))) == (
        "the program that was given up has not ended"
    )
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: gone(pid))
    await within(delivery.stop())
    # It was reaped.
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest_twisted.ensureDeferred
async def test_stops(tmp_path: Path) -> None:
    delivery = shell(f"trap '' TERM; echo $$ > {tmp_path}/pid; sleep 1000", grace=0.1)
    delivering = delivery.deliver([event(1)])
    await until(running(tmp_path))
    stopping = delivery.stop()
    assert str(error(delivering)) == "stopped"
    pending(stopping)
    await within(stopping)
    assert gone(int((tmp_path / "pid").read_text()))
    assert str(error(delivery.deliver([event(1)]))) == "stopped"
    await within(delivery.stop())


class Unkillable(Clock):
    """Starts a program that hangs in the kernel."""

    pid = -1

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[int] = []
        self.lost = 0

    def spawnProcess(self, protocol: object, *args: object, **options: object) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)  # type: ignore[attr-defined]

    def signalProcess(self, number: int) -> None:
        self.signals.append(number)

    def loseConnection(self) -> None:
        self.lost += 1


def test_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up neither the end nor, for ever, the events."""

    def nobody(group: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(exec_module.os, "killpg", nobody)
    kernel = Unkillable()
    delivery = ExecDelivery(kernel, ExecSettings(command=("/bin/true",), timeout=10, grace=2))
    delivering = delivery.deliver([event(1)])
    kernel.advance(10)
    kernel.advance(2)
    assert kernel.signals == [signal.SIGTERM, signal.SIGKILL]
    pending(delivering)
    kernel.advance(STUCK)
    assert str(error(delivering)) == ("the program has not ended within 10 s, and cannot be killed")
    assert kernel.lost == 1
    refused: Deferred[None] = delivery.deliver([event(1)])
    assert str(error(refused)) == "the program that was given up has not ended"
    # It comes back, and goes.
    kernel.protocol.processExited(Failure(ProcessDone(0)))  # type: ignore[attr-defined]
    kernel.protocol.processEnded(Failure(ProcessDone(0)))  # type: ignore[attr-defined]
    again = delivery.deliver([event(1)])
    pending(again)
    stopping = delivery.stop()
    assert str(error(again)) == "stopped"
    kernel.advance(2)
    pending(stopping)
    kernel.advance(STUCK)
    success(stopping)
    assert not kernel.getDelayedCalls()
