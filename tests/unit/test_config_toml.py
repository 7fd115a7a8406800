"""A TOML file as what the daemon is to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.configs import SINK, SOURCE, ConfigFile
from txqmp.fleet.peers import Peers
from txqmp.monitor.config import HTTP, Config, ConfigError, Dial, Glob, Listen, Sink, load
from txqmp.monitor.config.model import default_node, default_state_dir
from txqmp.monitor.config.sinks import KINDS, common_keys
from txqmp.monitor.config.sources import kinds
from txqmp.monitor.config.toml import _MONITOR, _SPOOL, MAX_FILE, http_keys, state_directory
from txqmp.monitor.sinks.amqp.settings import AMQPTLS, AMQPSettings
from txqmp.monitor.sinks.settings import (
    ExecSettings,
    JSONLSettings,
    StdoutSettings,
    WebhookSettings,
)
from txqmp.monitor.spool import Filter, SpoolLimits, WhenFull


ROOT = Path(__file__).resolve().parents[2]

JSONL = ("path='a'", "path='/tmp/../HERE/a'\nname='b'")

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def config_file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


# What is in it


def test_the_least(config_file: ConfigFile) -> None:
    assert config_file.load(SOURCE + SINK) == Config(
        state_dir=None,
        sources=(Dial(where="tcp:h:1", name="h:1"),),
        sinks=(Sink(settings=StdoutSettings(), name="stdout"),),
    )


def test_the_example_of_the_documentation(config_file: ConfigFile) -> None:
    """All of it is as it stands there, but for the directories."""
    text = (ROOT / "docs" / "examples" / "qmp-monitor.toml").read_text(encoding="utf-8")
    here = str(config_file.directory)
    for directory in ("/etc/qmp-monitor", "/run/qmp-monitor", "/var/log/qmp-monitor"):
        assert directory in text
        text = text.replace(directory, here)
    for directory in ("/var/lib", "/var/run/qemu-server", "/run/vms"):
        assert directory in text
        text = text.replace(directory, f"{here}")
    for name in ("ops-hook", "old.key"):
        config_file.secret(name, KEY)
    for name in ("mq-key", "ca.pem", "node7.pem"):
        config_file.secret(name)
    config_file.environ["CREDENTIALS_DIRECTORY"] = here
    logger = Path("/usr/bin/logger")
    if not logger.exists():
        text = text.replace(str(logger), sys.executable)
        logger = Path(sys.executable)
    config = config_file.load(text)
    assert config.node == "node7.example"
    assert config.state_dir == f"{here}/qmp-monitor"
    assert config.sources == (
        Listen(
            where=f"unix:{here}/dialin.sock:mode=660",
            allow=Peers(uids=frozenset({0}), gids=frozenset()),
        ),
        Glob(patterns=(f"{here}/*.qmp",), rescan=5.0),
        Glob(patterns=(f"{here}/*/qmp.sock",), rescan=5.0),
        Dial(where="tcp:storage.example:4444", name="storage"),
    )
    assert config.spool == SpoolLimits(keep_seconds=86400.0)
    ops, bus, archive, pager = config.sinks
    assert ops.name == "ops"
    assert ops.max_age == 72 * 3600
    assert ops.filter == Filter(
        types=("org.qemu.qmp.BLOCK_IO_ERROR", "org.qemu.qmp.SHUTDOWN", "txqmp.monitor.*")
    )
    assert isinstance(ops.settings, WebhookSettings)
    assert len(ops.settings.signing_keys) == 2
    tls = AMQPTLS(ca=f"{here}/ca.pem", certificate=f"{here}/node7.pem", key=f"{here}/mq-key")
    assert bus.settings == AMQPSettings(host="mq.example", tls=tls)
    assert archive.settings == JSONLSettings(path=f"{here}/events.jsonl")
    assert pager.settings == ExecSettings(command=(str(logger), "--tag", "qmp"))
    assert pager.filter == Filter(types=("org.qemu.qmp.GUEST_PANICKED",), vms=("web-*", "db-*"))
    assert config.http == HTTP(listen=f"unix:{here}/http.sock")


def test_everything_but_sinks(config_file: ConfigFile) -> None:
    config = config_file.load(
        SINK
        + """
[monitor]
node = "n"
state_dir = "state"
events = ["STOP", "BLOCK_*"]
qemu_types = "a.b"
own_types = "c"
demo = true
[spool]
max_bytes = "1GB"
when_full = "block"
keep_bytes = 0
keep_for = "1h30m"
max_waiting = "1MiB"
max_wait = 0.5
max_dead = 7
max_dead_bytes = "7 kB"
[http]
listen = "tcp:9177:interface=0.0.0.0"
names = ["Page.Example"]
remote = true
log_requests = true
"""
    )
    assert config == Config(
        node="n",
        state_dir=str(config_file.directory / "state"),
        events=("STOP", "BLOCK_*"),
        qemu_types="a.b",
        own_types="c",
        demo=True,
        spool=SpoolLimits(
            max_bytes=10**9,
            when_full=WhenFull.BLOCK,
            keep_bytes=0,
            keep_seconds=5400.0,
            max_waiting=1 << 20,
            max_wait=0.5,
            max_dead=7,
            max_dead_bytes=7000,
        ),
        http=HTTP(
            listen="tcp:9177:interface=0.0.0.0",
            names=("page.example",),
            remote=True,
            log_requests=True,
        ),
        sinks=config.sinks,
    )
    assert config.envelope().node == "n"


def test_prefixes_hold_for_filters(config_file: ConfigFile) -> None:
    config = config_file.load(
        f"{SOURCE}[monitor]\nqemu_types='a.b'\nown_types='c'\n{SINK}events=['STOP','c.*','a.b.X']"
    )
    assert config.sinks[0].filter == Filter(types=("a.b.STOP", "c.*", "a.b.X"))


def test_the_page_is_enough(config_file: ConfigFile) -> None:
    assert config_file.load(f'{SOURCE}[http]\nlisten = "tcp:1"').sinks == ()


@pytest.mark.parametrize(
    ("value", "peers"),
    [
        ("{ users = 'root' }", Peers(uids=frozenset({0}))),
        (
            "{ users = [0, 64055], groups = 'root' }",
            Peers(uids=frozenset({0, 64055}), gids=frozenset({0})),
        ),
    ],
)
def test_allowed_peers(config_file: ConfigFile, value: str, peers: Peers) -> None:
    config = config_file.load(f"{SINK}[[source]]\nlisten = '/tmp/in.sock'\nallow = {value}")
    assert config.sources == (Listen(where="/tmp/in.sock", allow=peers),)


def test_paths_begin_beside_the_file(
    config_file: ConfigFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (config_file.directory / "sockets").mkdir()
    config = config_file.load(
        "[[source]]\nglob = ['vms/*.sock', 'sockets']\n[[sink]]\ntype = 'jsonl'\npath = 'x.jsonl'"
    )
    assert [source.patterns for source in config.sources if isinstance(source, Glob)] == [
        (f"{config_file.directory}/vms/*.sock",),
        (f"{config_file.directory}/sockets/*",),
    ]
    assert config.sinks[0].settings == JSONLSettings(path=f"{config_file.directory}/x.jsonl")


def test_the_directory_that_systemd_made(config_file: ConfigFile) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}
    assert config_file.load(SOURCE + SINK, environ).state_dir == "/var/lib/a"
    own = f'[monitor]\nstate_dir = "/tmp/c"\n{SOURCE}{SINK}'
    assert config_file.load(own, environ).state_dir == "/tmp/c"
    assert default_state_dir({}) is None


@pytest.mark.parametrize(
    ("name", "node"),
    [("node7.example", "node7.example"), ("a b/c", "a-b-c"), ("(none)", "none"), ("", "localhost")],
)
def test_the_node_is_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, name: str, node: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert default_node() == node
    assert Config().node == node


def test_sockets_of_systemd(config_file: ConfigFile) -> None:
    """Only the daemon has them."""
    text = (
        f'{SINK}[[source]]\nlisten = "systemd:domain=UNIX:name=dialin"\nallow = {{ users = 0 }}\n'
        '[http]\nlisten = "systemd:domain=INET:name=http"'
    )
    assert [each.partition(": ")[0] for each in config_file.problems(text)] == [
        "[http]",
        "[[source]] number 1",
    ]
    config = load(str(config_file.path), inherited=False)
    assert config.http == HTTP(listen="systemd:domain=INET:name=http")
    for wrong in ("systemd:domain=UNIX", "systemd:domain=X:name=a", "systemd:name=a"):
        config_file.write(f'{SINK}[[source]]\nlisten = "{wrong}"')
        with pytest.raises(ConfigError, match="is no endpoint, such as systemd:"):
            load(str(config_file.path), inherited=False)


# The file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = \n", "it is no TOML: Invalid value (at line 1, column 5)"),
        ("a = 1\nb = [1,,]\n", "it is no TOML: Invalid value (at line 2, column 8)"),
        ("a = " + "[" * 20_000, "it is nested too deep"),
        (b"\xef\xbb\xbfa = 1", "it begins with a byte order mark, which TOML does not have"),
        (b"a = 1\nb = '\xff'", "it is not UTF-8 (at line 2, column 6)"),
        (b"# \xc3\xa4 \xff", "it is not UTF-8 (at line 1, column 5)"),
        ("#" * (MAX_FILE + 1), "it is larger than 1024 KiB"),
    ],
)
def test_no_toml(config_file: ConfigFile, text: str | bytes, problem: str) -> None:
    assert config_file.problem(text) == problem


def test_a_number_that_is_too_long(config_file: ConfigFile) -> None:
    assert config_file.problem("a = " + "9" * 5000).startswith("it is no TOML: Exceeds the limit")


def test_a_large_file(config_file: ConfigFile) -> None:
    text = SOURCE + SINK
    assert config_file.load(text + "#" * (MAX_FILE - len(text))).sources


def test_no_file(config_file: ConfigFile) -> None:
    pipe = config_file.directory / "pipe"
    os.mkfifo(pipe)
    for path, problem in [
        (str(config_file.path), "No such file or directory"),
        (str(config_file.directory), "it is a directory"),
        (str(pipe), "it is no file"),
        (f"{config_file.directory}/a\0b", "embedded null byte"),
    ]:
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert raised.value.problems == (problem,)


def test_no_permission(config_file: ConfigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError) as raised:
        load("/x")
    assert str(raised.value) == "/x: Permission denied"


# What can be wrong in it


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("snik = 1", 'unknown table "snik"; did you mean [[sink]]?'),
        (
            "['%&']",
            'unknown table "%&"; there are [monitor], [spool], [http], [[source]], [[sink]]',
        ),
        ("[[monitor]]", "[[monitor]] must be [monitor]: there is one such table"),
        ("spool = 7", "[spool] must be a table, and is a whole number"),
        ("[monitor]\nnode = 'a b'", "[monitor]: node: 'a b' is no name of a host"),
        (
            "[monitor]\nown_types = 'a..b'",
            "[monitor]: own_types: 'a..b' is nothing that types begin with, as 'org.qemu.qmp'",
        ),
        ("[monitor]\nevents = []", "[monitor]: events: the list is empty"),
        ("[monitor]\nevents = ['A', '']", "[monitor]: events: number 2: it is empty"),
        ("[monitor]\nevents = 'A['", "[monitor]: events: 'A[' has a [ without its ]"),
        ("[monitor]\ndemo = 1", "[monitor]: demo: it must be true or false, and is a whole number"),
        (
            "[monitor]\nnode = 1979-05-27",
            "[monitor]: node: it must be text, and is a date or a time",
        ),
        (
            "[monitor]\nstate_dir = '/nowhere/x'",
            "[monitor]: state_dir: there is no directory /nowhere",
        ),
        (
            "[monitor]\nstat_dir = '/nowhere/x'",
            '[monitor]: unknown key "stat_dir"; did you mean "state_dir"?',
        ),
        (
            "[http]\nlisten = 'tcp:1'\nport = 1",
            '[http]: unknown key "port"; there are "listen", "names", "remote", "log_requests"',
        ),
        ("[http]", '[http]: "listen" is missing'),
        ("[http]\nlisten = 'http.sock'", '"http.sock": the path of a socket must be absolute'),
        ("[http]\nlisten = 'tcp:99999'", "'tcp:99999' is no endpoint: ports end with 65535"),
        ("[http]\nlisten = 'tcp:1:interface=0.0.0.0'", "is open to other hosts"),
        ("[http]\nlisten = '/nowhere/a'", "[http]: listen: there is no directory /nowhere"),
        ("[http]\nlisten = 'tcp:1'\nnames = ['a b']", '[http]: names: number 1: "a b" is no name'),
        ("[spool]\nmax_bytes = 0", "[spool]: max_bytes: it must be from 1 bytes to 8 EiB"),
        ("[spool]\nmax_bytes = '99999999TiB'", "[spool]: max_bytes: it must be from 1 bytes"),
        ("[spool]\nwhen_full = 'drop'", 'when_full: it must be "drop_oldest" or "block"'),
        ("[spool]\nmax_dead = 1.0", "it must be a whole number, and is a number"),
        ("[spool]\nmax_dead = true", "it must be a whole number, and is true or false"),
        ("[spool]\nkeep_for = inf", "it must be a duration, and is no number from 0 on"),
    ],
)
def test_problems_of_tables(config_file: ConfigFile, text: str, problem: str) -> None:
    assert problem in config_file.problem(f"{text}\n{SOURCE}{SINK}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'a source has one of "dial", "glob" and "listen", and it has none'),
        (
            "dial = 'tcp:h:1'\nglob = 'x'",
            'a source has one of "dial", "glob" and "listen", and it has "dial" and "glob"',
        ),
        ("dial = 7", "dial: it must be text, and is a whole number"),
        ("dial = ''", "dial: it is empty"),
        ("dial = 'vm.sock'", 'dial: "vm.sock": the path of a socket must be absolute'),
        ("dial = 'unix:vm.sock'", 'dial: "unix:vm.sock": the path of a socket must be absolute'),
        ("dial = 'x:y'", "dial: 'x:y' is no endpoint: Unknown endpoint type: 'x'"),
        ("dial = '/etc/passwd'", "dial: /etc/passwd is no socket"),
        ("dial = 'tcp:h:1'\nname = \"a\\nb\"", 'name: "a\\nb" is no name for a VM'),
        ("dial = 'tcp:h:1'\nrescan = 5", '"rescan" goes with "glob", not with "dial"'),
        ("glob = '/x/*'\nallow = {}", '"allow" goes with "listen", not with "glob"'),
        ("dial = 'tcp:h:1'\nnmae = 'a'", 'unknown key "nmae"; did you mean "name"?'),
        ("glob = []", "glob: the list is empty"),
        ("glob = ['/x/*', 1]", "glob: number 2: it must be text, and is a whole number"),
        ("glob = '/x/*'\nrescan = '10ms'", "rescan: it must be from 0.1 to 86400 seconds"),
        ("listen = '/nowhere/x'", "listen: there is no directory /nowhere"),
        ("listen = 'in.sock'", 'listen: "in.sock": the path of a socket must be absolute'),
        (
            "listen = 'tcp:1'\nallow = { users = 0 }",
            '"allow" is for UNIX sockets: elsewhere nobody says who connects',
        ),
        ("listen = '/tmp/x'\nallow = {}", 'allow: nobody could connect: give "users" or "groups"'),
        (
            "listen = '/tmp/x'\nallow = { users = 'nobody-x' }",
            'allow: users: there is no user "nobody-x"',
        ),
        (
            "listen = '/tmp/x'\nallow = { groups = -1 }",
            "allow: groups: -1 is no number of a group",
        ),
        (
            "listen = '/tmp/x'\nallow = { groups = true }",
            "allow: groups: it must be the name or number of a group, and is true or false",
        ),
    ],
)
def test_problems_of_sources(config_file: ConfigFile, text: str, problem: str) -> None:
    found = config_file.problem(f"{SINK}[[source]]\n{text}")
    assert found.startswith("[[source]] number 1")
    assert found.endswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SINK, "nothing to watch: there is no [[source]]"),
        (SOURCE, "nobody would be told: there is no [[sink]] and no [http]"),
        (
            f"{SOURCE}[sink]\ntype = 'stdout'",
            "[[sink]] must be tables, each with two brackets around its name",
        ),
        (
            f"source = ['a']\n{SINK}",
            "[[source]] must be tables, each with two brackets around its name",
        ),
        (
            f"{SOURCE}{SINK}{SINK}name = 'b'\n",
            '[[sink]] number 2 ("b"): the standard output is in [[sink]] number 1 already',
        ),
        (
            f"{SOURCE}[[sink]]\ntype='journald'\nname='a'\n[[sink]]\ntype='syslog'\nname='a'",
            '[[sink]] number 2 ("a"): the name "a" is in [[sink]] number 1 ("a") already',
        ),
        (
            SOURCE + "".join(f"[[sink]]\ntype='jsonl'\n{rest}\n" for rest in JSONL),
            '[[sink]] number 2 ("b"): HERE/a is in [[sink]] number 1 already',
        ),
        (
            f"{SINK}{SOURCE}name='a'\n{SOURCE}name='b'",
            '[[source]] number 2 ("b"): tcp:h:1 is in [[source]] number 1 ("a") already',
        ),
        (
            f"{SINK}[[source]]\nglob='/x/*'\n[[source]]\nglob=['/y/*', '/x/*']",
            "[[source]] number 2: /x/* is in [[source]] number 1 already",
        ),
        (
            f"{SINK}{SOURCE}name='a'\n[[source]]\ndial='tcp:h:2'\nname='a'",
            '[[source]] number 2 ("a"): the name "a" is in [[source]] number 1 ("a") already',
        ),
        (
            f"[monitor]\ndemo=true\n{SINK}{SOURCE}name='demo'",
            '[[source]] number 1 ("demo"): the VM of the demonstration is called "demo" too',
        ),
    ],
)
def test_what_does_not_go_together(config_file: ConfigFile, text: str, problem: str) -> None:
    here = str(config_file.directory)
    found = config_file.problem(text.replace("/HERE", here).replace("HERE", here))
    assert found == problem.replace("HERE", here)


def test_twice_in_one_glob(config_file: ConfigFile) -> None:
    assert config_file.problem(f"{SINK}[[source]]\nglob = ['/x/*', '/x/*']") == (
        "[[source]] number 1: /x/* is here already"
    )


def test_all_problems_are_told(config_file: ConfigFile) -> None:
    assert config_file.problems(
        """
snik = 1
[monitor]
node = "a b"
stat_dir = "x"
[spool]
max_bytes = "256Mb"
max_dead = 0
[http]
[[source]]
dial = 7
[[source]]
[[sink]]
name = "ops"
type = "webhook"
tiemout = "x"
batch = 0
[[sink]]
type = "exec"
command = []
"""
    ) == [
        'unknown table "snik"; did you mean [[sink]]?',
        "[monitor]: node: 'a b' is no name of a host",
        '[monitor]: unknown key "stat_dir"; did you mean "state_dir"?',
        "[spool]: max_bytes: '256Mb' is no size, such as 256MiB or 1GB",
        "[spool]: max_dead: it must be from 1 to 10000000",
        '[http]: "listen" is missing',
        "[[source]] number 1: dial: it must be text, and is a whole number",
        '[[source]] number 2: a source has one of "dial", "glob" and "listen", and it has none',
        '[[sink]] number 1 ("ops"): unknown key "tiemout"; did you mean "timeout"?',
        '[[sink]] number 1 ("ops"): batch: it must be from 1 to 1000',
        '[[sink]] number 1 ("ops"): "url" is missing',
        "[[sink]] number 2: command: the list is empty",
    ]


def test_a_problem_is_a_line(config_file: ConfigFile) -> None:
    """Whatever it is about."""
    found = config_file.problem(f'{SOURCE}{SINK}"a\\nb\\u001b[2J" = 1')
    assert found.startswith('[[sink]] number 1: unknown key "a\\nb\\u001b[2J"; ')
    found = config_file.problem(f'{SOURCE}[[sink]]\ntype = "jsonl"\npath = "/nowhere\\n/\\u0007/x"')
    assert found == "[[sink]] number 1: path: there is no directory /nowhere?/?"
    found = config_file.problem(f'{SOURCE}{SINK}"{"x" * 5000}" = 1')
    assert len(found) < 300


# What is said of it


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
    tables = {
        "[monitor]": list(_MONITOR),
        "[spool]": list(_SPOOL),
        "[http]": list(http_keys()),
        "[[source]]": [key for keys in kinds(True).values() for key in keys],
        "[[sink]]": [
            *common_keys("a", "b"),
            *(key for kind in KINDS.values() for key in kind.keys),
        ],
    }
    for title, keys in tables.items():
        (section,) = [part for part in page.split("\n\n\n") if part.split("\n-")[0].endswith(title)]
        missing = [key for key in keys if f"   * - ``{key}``\n" not in section]
        assert missing == [], title


CODE = """
import sys
from txqmp.monitor.options import Options
for words in (["--demo", "-q", "--webhook", "http://x/"], ["--config", sys.argv[1]]):
    options = Options()
    options.parseOptions(words)
    unwanted = {"pika", "treq", "prometheus_client", "twisted.web", "twisted.internet.reactor"}
    if words[0] == "--demo":
        unwanted |= {"tomllib", "tomli"}
    assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
"""


def test_reading_imports_next_to_nothing(config_file: ConfigFile) -> None:
    config_file.write(
        f"{SOURCE}[http]\nlisten = 'tcp:1'\n[[sink]]\ntype = 'webhook'\nurl = 'https://x/'\n"
        "[[sink]]\ntype = 'amqp'\nhost = 'localhost'\nuser = 'guest'"
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(config_file.path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# The state directory alone


def test_the_state_directory_alone(config_file: ConfigFile) -> None:
    """All else may be wrong, or refer to what is not there."""
    path = config_file.write(
        "[monitor]\nstate_dir = 'state'\nnonsense = 1\n"
        "[[sink]]\ntype = 'webhook'\nsigning_keys = { file = '/nowhere/key' }\n"
    )
    assert state_directory(path) == str(config_file.directory / "state")
    assert state_directory(config_file.write("[monitor]\nstate_dir = '/nowhere/x'\n")) == (
        "/nowhere/x"
    )


@pytest.mark.parametrize("text", ["", "[spool]\n", "[monitor]\nnode = 'n'\n"])
def test_a_file_without_a_state_directory(config_file: ConfigFile, text: str) -> None:
    assert state_directory(config_file.write(text)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[monitor]\nstate_dir = 5\n", "[monitor]: state_dir: it must be text"),
        ("[monitor]\nstate_dir = ''\n", "[monitor]: state_dir: it is empty"),
        ("[[monitor]]\n", "[[monitor]] must be [monitor]"),
        ("[monitor", "it is no TOML"),
    ],
)
def test_a_state_directory_that_is_none(config_file: ConfigFile, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        state_directory(config_file.write(text))
    (told,) = raised.value.problems
    assert told.startswith(problem)
