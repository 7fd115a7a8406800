"""``qmp-monitor --config`` as an operator runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.configs import SINK, SOURCE
from support.daemon import RUNNERS, Daemon, run


pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("runner", RUNNERS)
def test_check_config(runner: str, tmp_path: Path) -> None:
    path = tmp_path / "qmp-monitor.toml"
    path.write_text(SOURCE + SINK)
    done = run(runner, "--config", str(path), "--check-config")
    assert (done.returncode, done.stdout) == (0, f"{path}: all of it is in order\n")
    assert done.stderr == ""


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("check", [("--check-config",), ()])
def test_a_file_that_is_wrong(runner: str, check: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "qmp-monitor.toml"
    path.write_text(f"{SOURCE}{SINK}tiemout = 7\nmax_age = 'long'")
    done = run(runner, "--config", str(path), *check)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[str(path), "[[sink]] number 1"]] * 2


def test_what_the_file_says_is_done(tmp_path: Path) -> None:
    path = tmp_path / "qmp-monitor.toml"
    path.write_text(f"[monitor]\ndemo = true\n{SINK}")
    with Daemon("--config", str(path)) as daemon:
        daemon.wait_for(bool)
        daemon.stop()
