"""The command line."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from support.configs import SINK, SOURCE
from txqmp.monitor.config import HTTP, Config, Dial, Glob, Listen, Sink, load
from txqmp.monitor.options import Options
from txqmp.monitor.sinks.settings import JSONLSettings, WebhookSettings


def dial(name: str, where: str) -> Dial:
    return Dial(where=where, name=name)


def webhook(url: str) -> Sink:
    return Sink(settings=WebhookSettings(url=url, allow_plaintext=url.startswith("http:")))


def parse(*words: str, runner: UsageOptions | None = None) -> Config:
    options = Options()
    options.parent = runner
    options.parseOptions(words)
    return options.config


def problem(*words: str, runner: UsageOptions | None = None) -> str:
    with pytest.raises(UsageError) as raised:
        parse(*words, runner=runner)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "out.jsonl")
    assert parse(
        *("--demo", "--quiet", "--listen", "tcp:4444", "--glob=/run/*.sock"),
        *("--events", "STOP,RESUME", "--events=BLOCK_*", "--jsonl", path),
        *("--webhook", "http://a/", "--webhook", "https://b/", "web=/nowhere/a", "/nowhere/b"),
        *("--node", "node7", "--state-dir", str(tmp_path / "state"), "--http", "tcp:9177"),
    ) == Config(
        node="node7",
        state_dir=str(tmp_path / "state"),
        sources=(
            Listen(where="tcp:4444"),
            dial("web", "/nowhere/a"),
            dial("b", "/nowhere/b"),
            Glob(patterns=("/run/*.sock",)),
        ),
        events=("STOP", "RESUME", "BLOCK_*"),
        sinks=(
            Sink(settings=JSONLSettings(path=path), name=f"jsonl {path}"),
            webhook("http://a/"),
            webhook("https://b/"),
        ),
        http=HTTP(listen="tcp:9177"),
        demo=True,
    )


def test_options_may_follow_endpoints() -> None:
    assert parse("/nowhere/a", "--events", "STOP", "/nowhere/b", "-q", "--webhook=http://a/") == (
        Config(
            sources=(dial("a", "/nowhere/a"), dial("b", "/nowhere/b")),
            events=("STOP",),
            sinks=(webhook("http://a/"),),
        )
    )


def test_what_is_printed_comes_first() -> None:
    config = parse("--demo", "--webhook", "http://a/")
    assert [sink.name for sink in config.sinks] == ["stdout", "webhook http://a/"]


def test_urls_that_differ_in_what_is_not_shown() -> None:
    config = parse("-q", "--demo", *(f"--webhook=http://a/?token={n}" for n in range(3)))
    assert [sink.name for sink in config.sinks] == [
        "webhook http://a/",
        "webhook http://a/ (2)",
        "webhook http://a/ (3)",
    ]


def test_the_page_alone_is_enough() -> None:
    config = parse("-q", "--demo", "--http", "tcp:9177")
    assert config.sinks == ()
    assert config.http == HTTP(listen="tcp:9177")


def test_endpoints_that_look_like_options() -> None:
    assert parse("--", "--demo").sources == (dial("--demo", "--demo"),)


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["qmp-monitor", "--demo"])
    options = Options()
    options.parseOptions()
    assert options.config.demo


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to watch: give an ENDPOINT, --listen, --glob or --demo"),
        (["--nonsense"], "option --nonsense not recognized"),
        (["--listen"], "option --listen requires argument"),
        (["--demo=1"], "option --demo must not have an argument"),
        (["-x"], "option -x not recognized"),
        (["nothing:here"], "'nothing:here' is no endpoint: Unknown endpoint type: 'nothing'"),
        (["--events", ""], "--events: '' is no list of events, such as STOP,BLOCK_*"),
        (["--glob", ""], "--glob: a pattern of sockets is empty"),
        (["--jsonl", "/nowhere/x"], "--jsonl: there is no directory /nowhere"),
        (["--webhook", "x"], "--webhook: 'x' is no URL, such as https://ops.example/qmp"),
        (["--listen", "/nowhere/x"], "--listen: there is no directory /nowhere"),
        (["--demo", "-q"], "nobody would be told: --quiet needs --jsonl or --webhook"),
        (["--node", "a b"], "--node: 'a b' is no name of a host"),
        (["--state-dir", ""], "--state-dir: the name of a directory is empty"),
        (["--state-dir", "/nowhere/x"], "--state-dir: there is no directory /nowhere"),
        (["--state-dir", "/etc/passwd"], "--state-dir: /etc/passwd is no directory"),
        (
            ["--http", "tcp:9177:interface=0.0.0.0"],
            "--http: 'tcp:9177:interface=0.0.0.0' is open to other hosts, which has to be allowed",
        ),
        (["--check-config"], "--check-config goes with --config"),
        (["--config", ""], "--config: the name of a file is empty"),
        (["--config", "a", "--config", "b"], "--config is given twice"),
        (
            ["--config", "a", "--demo"],
            "--config says all there is to do: --demo does not go with it",
        ),
        (["a", "--config", "a"], "--config says all there is to do: a does not go with it"),
        (["a=/run/a", "a=/run/b"], "two VMs would be called 'a': name them, as in NAME=ENDPOINT"),
        (
            ["--demo", "demo=/x"],
            "two VMs would be called 'demo': name them, as in NAME=ENDPOINT",
        ),
        (["a=/run/a", "b=/run/a"], "/run/a is given twice"),
        (["a=/run/a", "b=unix:/run/x/../a"], "unix:/run/x/../a is given twice"),
        (["--listen", "/tmp/a", "b=/tmp/a"], "/tmp/a is given twice"),
        (["a=tcp:h:1", "b=tcp:h:1"], "tcp:h:1 is given twice"),
        (["--listen", "tcp:1", "--listen", "tcp:1"], "tcp:1 is given twice"),
        (["--glob", "/x*", "--glob", "/x*"], "/x* is given twice"),
        (["--demo", "--jsonl", "/tmp/x", "--jsonl", "/tmp/x"], "/tmp/x is given twice"),
        (
            ["--demo", "--webhook", "http://x/?token=abc", "--webhook", "http://x/?token=abc"],
            "http://x/ is given twice",
        ),
    ],
)
def test_problems(words: list[str], text: str) -> None:
    assert problem(*words) == text


class Runner(UsageOptions):
    """The options of ``twistd``, as far as they matter."""

    def __init__(self, **members: object) -> None:
        super().__init__()
        self.update(members)


def test_usage_errors_under_twistd(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Twisted 26 it says what is wrong and ends with 0."""
    monkeypatch.setattr(sys, "argv", ["twistd", "-n", "qmp-monitor"])
    with pytest.raises(SystemExit) as raised:
        parse(runner=Runner(nodaemon=1, debug=False))
    assert raised.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Usage: twistd")
    assert lines[-1] == (
        "twistd -n: nothing to watch: give an ENDPOINT, --listen, --glob or --demo"
    )


def test_a_daemon_has_no_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Runner(nodaemon=0, debug=False)
    with pytest.raises(SystemExit):
        parse("--demo", runner=daemon)
    assert "use twistd -n" in capsys.readouterr().out
    config = parse("--demo", "--jsonl", str(tmp_path / "x"), runner=daemon)
    assert config.stdout is False


@pytest.mark.parametrize(
    "runner", [Runner(nodaemon=1, debug=False), Runner(nodaemon=0, debug=True), Runner()]
)
def test_others_have(runner: UsageOptions) -> None:
    assert parse("--demo", runner=runner).stdout is True


def test_a_standard_output_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor may be a VM's monitor by now."""
    monkeypatch.setattr(sys, "__stdout__", None)
    assert problem("--demo").startswith("there is no standard output")
    assert parse("--demo", "--jsonl", str(tmp_path / "x")).stdout is False


# A file


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(SOURCE + SINK)
    options = Options()
    options.parseOptions(["--config", "a.toml"])
    assert options.config == load("a.toml")
    assert options.config_file == str(tmp_path / "a.toml")


def test_no_file() -> None:
    options = Options()
    options.parseOptions(["--demo"])
    assert options.config_file is None


@pytest.mark.parametrize("check", [True, False])
def test_a_file_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    path = tmp_path / "a.toml"
    path.write_text("snik = 1")
    with pytest.raises(SystemExit) as raised:
        parse("--config", str(path), *(["--check-config"] if check else []))
    assert raised.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f'{path}: unknown table "snik"; did you mean [[sink]]?',
        f"{path}: nothing to watch: there is no [[source]]",
        f"{path}: nobody would be told: there is no [[sink]] and no [http]",
    ]


def test_a_file_that_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    # There is no standard output, and no such socket; the daemon that is to run may have both.
    path.write_text(f'{SINK}[[source]]\nlisten = "systemd:domain=UNIX:name=a"')
    with pytest.raises(SystemExit) as raised:
        parse("--check-config", "--config", str(path), runner=Runner(nodaemon=0, debug=False))
    assert raised.value.code == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}: all of it is in order\n"
    assert captured.err == ""


def test_a_file_that_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text(SOURCE + SINK)
    with pytest.raises(SystemExit) as raised:
        parse("--config", str(path), runner=Runner(nodaemon=0, debug=False))
    assert raised.value.code == 1
    assert capsys.readouterr().err == (
        f"{path}: there is no standard output to print to: use twistd -n\n"
    )
    assert parse("--config", str(path), runner=Runner(nodaemon=1, debug=False)).stdout


def test_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["qmp-monitor"])
    text = str(Options())
    assert "[NAME=]ENDPOINT..." in text
    for option in (
        *("check-config", "config=", "demo", "events=", "glob=", "http=", "jsonl=", "listen="),
        *("node=", "quiet", "state-dir=", "webhook="),
    ):
        assert f"--{option}" in text
    assert "twistd -n qmp-monitor --demo" in text
    # Twisted does not fold what is said of an option.
    assert "   is " not in text


@pytest.mark.parametrize("installed", [True, False])
def test_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: bool
) -> None:
    def version(name: str) -> str:
        if not installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit) as raised:
        parse("--version")
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"txqmp {'1.2.3' if installed else '(not installed)'}\n"
