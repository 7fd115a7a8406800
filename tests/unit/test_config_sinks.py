"""The sinks of a TOML file."""

from __future__ import annotations

import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from support.configs import HUSH, SOURCE, ConfigFile
from txqmp.monitor.config import Sink
from txqmp.monitor.config.model import SinkSettings, name_for
from txqmp.monitor.config.sinks import KINDS
from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.amqp.settings import AMQPTLS, AMQPSettings
from txqmp.monitor.sinks.settings import (
    ClientTLS,
    ExecSettings,
    JournaldSettings,
    JSONLSettings,
    StdoutSettings,
    SyslogSettings,
    WebhookMode,
    WebhookSettings,
)
from txqmp.monitor.spool import Filter, Start


KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def config_file(tmp_path: Path) -> ConfigFile:
    file = ConfigFile(tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        file.secret(name)
    file.secret("secret", f"{HUSH}\n")
    file.environ.update(KEY=KEY, CREDENTIALS_DIRECTORY=str(tmp_path))
    return file


def sink(file: ConfigFile, text: str) -> Sink:
    (found,) = file.load(f"{SOURCE}[[sink]]\n{text}").sinks
    assert HUSH not in repr(found)
    assert KEY not in repr(found)
    return found


def test_what_all_have(config_file: ConfigFile) -> None:
    assert sink(
        config_file,
        "type='stdout'\nname='a'\nevents=['STOP','txqmp.*']\nvms='web-*'\nmax_age='1h'\n"
        "start='beginning'",
    ) == Sink(
        settings=StdoutSettings(),
        name="a",
        filter=Filter(types=("org.qemu.qmp.STOP", "txqmp.*"), vms=("web-*",)),
        max_age=3600.0,
        start=Start.BEGINNING,
    )


def test_webhook(config_file: ConfigFile) -> None:
    here = config_file.directory
    found = sink(
        config_file,
        """
type = "webhook"
url = "https://ops.example/qmp?token=x"
mode = "batched"
signing_keys = [{ env = "KEY" }]
authorization = { file = "secret" }
timeout = "1m"
batch = 7
tls = { ca = "ca.pem", cert = "cert.pem", key = { file = "key.pem" } }
allow_plaintext = true
allow = ["169.254.7.0/24", "fe80::/10"]
deny = "10.0.0.0/8"
""",
    )
    assert found.name == "webhook https://ops.example/qmp"
    assert found.settings == WebhookSettings(
        url="https://ops.example/qmp?token=x",
        mode=WebhookMode.BATCHED,
        signing_keys=(SigningKey.parse(KEY),),
        authorization=HUSH,
        timeout=60.0,
        batch=7,
        tls=ClientTLS(ca=f"{here}/ca.pem", certificate=f"{here}/cert.pem", key=f"{here}/key.pem"),
        allow_plaintext=True,
        allow=(IPv4Network("169.254.7.0/24"), IPv6Network("fe80::/10")),
        deny=(IPv4Network("10.0.0.0/8"),),
    )


def test_plain_webhooks(config_file: ConfigFile) -> None:
    for rest in (
        "url = 'http://127.0.0.1/'",
        "url = 'http://localhost:1/'",
        "url = 'http://a/'\nallow_plaintext = true",
    ):
        assert isinstance(sink(config_file, f"type='webhook'\n{rest}").settings, WebhookSettings)


def test_amqp(config_file: ConfigFile) -> None:
    here = config_file.directory
    found = sink(
        config_file,
        """
type = "amqp"
host = "mq.example"
port = 1234
vhost = "v"
exchange = "e"
user = "u"
password = { credential = "secret" }
tls = { ca = "ca.pem", cert = "cert.pem", key = { credential = "key.pem" }, server_name = "mq" }
allow_plaintext = false
window = 7
connect_timeout = 1
heartbeat = "5s"
blocked_timeout = 2
confirm_timeout = 3
""",
    )
    assert found.name == "amqps://mq.example:1234 vhost v exchange e"
    assert found.settings == AMQPSettings(
        host="mq.example",
        port=1234,
        vhost="v",
        exchange="e",
        user="u",
        password=HUSH,
        tls=AMQPTLS(
            ca=f"{here}/ca.pem",
            certificate=f"{here}/cert.pem",
            key=f"{here}/key.pem",
            server_name="mq",
        ),
        window=7,
        connect_timeout=1.0,
        heartbeat=5,
        blocked_timeout=2.0,
        confirm_timeout=3.0,
    )
    plain = sink(config_file, "type='amqp'\nhost='mq'\nuser='u'\ntls={}").settings
    assert plain == AMQPSettings(host="mq", user="u", tls=AMQPTLS())


@pytest.mark.parametrize(
    ("text", "settings", "name"),
    [
        ("type='stdout'", StdoutSettings(), "stdout"),
        ("type='jsonl'\npath='/tmp/x'", JSONLSettings(path="/tmp/x"), "jsonl /tmp/x"),
        ("type='syslog'", SyslogSettings(), "syslog /dev/log"),
        (
            "type='syslog'\npath='/run/log'\nfacility='local7'",
            SyslogSettings(path="/run/log", facility="local7"),
            "syslog /run/log",
        ),
        ("type='journald'", JournaldSettings(), "journald"),
        ("type='journald'\npath='/run/j'", JournaldSettings(path="/run/j"), "journald"),
        (
            f"type='exec'\ncommand=['{sys.executable}', '']\ntimeout='5s'",
            ExecSettings(command=(sys.executable, ""), timeout=5.0),
            f"exec {sys.executable}",
        ),
    ],
)
def test_others(config_file: ConfigFile, text: str, settings: SinkSettings, name: str) -> None:
    assert sink(config_file, text) == Sink(settings=settings, name=name)
    assert name_for(settings) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", '"type" is missing: one of stdout, jsonl, webhook, amqp, syslog, journald, exec'),
        ("type = 7", "type: it must be text, and is a whole number"),
        ("type = 'weebhook'", 'type: "weebhook" is no kind of sink; did you mean "webhook"?'),
        (
            "type = '%'",
            f'type: "%" is no kind of sink; there are {", ".join(KINDS)}',
        ),
        ("type='stdout'\nname=''", "name: it is empty"),
        ("type='stdout'\nevnts='x'", 'unknown key "evnts"; did you mean "events"?'),
        ("type='stdout'\nevents=[]", "events: the list is empty"),
        ("type='stdout'\nevents=''", "events: it is empty"),
        ("type='stdout'\nvms=['a', 'b[']", "vms: number 2: 'b[' has a [ without its ]"),
        ("type='stdout'\nmax_age=0", "max_age: it must be at least 1 seconds"),
        ("type='stdout'\nstart='now'", 'start: it must be "end" or "beginning"'),
        ("type='jsonl'", '"path" is missing'),
        ("type='jsonl'\npath='/nowhere/x'", "path: there is no directory /nowhere"),
        ("type='jsonl'\npath='.'", "path: HERE is a directory"),
        ("type='webhook'\nurl='x'", "url: 'x' is no URL, such as https://ops.example/qmp"),
        (
            "type='webhook'\nurl='http://ops.example/'",
            "ops.example is another host: that needs https, or allow_plaintext",
        ),
        (
            "type='webhook'\nurl='http://localhost/'\ntls={ca='ca.pem'}",
            "http://localhost/ does not use TLS: that needs https",
        ),
        (
            "type='webhook'\nurl='https://a/'\ntls={cert='cert.pem'}",
            "tls: a client certificate needs its key, and a key its certificate",
        ),
        (
            "type='webhook'\nurl='https://a/'\ntls='ca.pem'",
            "tls: it must be a table, and is text",
        ),
        (
            "type='webhook'\nurl='https://a/'\ntls={ca='/nowhere'}",
            "tls: ca: /nowhere: No such file or directory",
        ),
        (
            "type='webhook'\nurl='https://a/'\nmode='x'",
            'mode: it must be "structured" or "binary" or "batched"',
        ),
        (
            "type='webhook'\nurl='https://a/'\ndeny=['10.0.0.1/8']",
            "deny: number 1: 10.0.0.1/8 has host bits set",
        ),
        (
            "type='amqp'\nhost='mq'\nuser='a'",
            "mq is another host: that needs TLS, or allow_plaintext",
        ),
        (
            "type='amqp'\nhost='localhost'",
            "without a user there must be a client certificate to say who we are",
        ),
        (
            "type='amqp'\nhost='localhost'\nuser='a'\nheartbeat='1500ms'",
            "heartbeat: it must be whole seconds, from 0 to 65535",
        ),
        (
            "type='syslog'\nfacility='deamon'",
            'facility: "deamon" is no facility; did you mean "daemon"?',
        ),
        (
            "type='syslog'\nfacility='%'",
            'facility: "%" is no facility, such as daemon or local0',
        ),
        (
            "type='exec'\ncommand='ls'",
            'command: it must be a list of the program and its arguments: ["/usr/bin/…", "…"]',
        ),
        ("type='exec'\ncommand=['ls']", "command: 'ls' is no absolute path of a program"),
        (
            "type='exec'\ncommand=['/nowhere/x']",
            "command: /nowhere/x is no program that can be run",
        ),
        ("type='exec'\ncommand=['/tmp']", "command: /tmp is no program that can be run"),
        ("type='exec'\ncommand=['/bin/sh', 1]", "command: number 2: it must be text"),
        ('type="exec"\ncommand=["/bin/sh", "a\\u0000"]', "command: number 2: it must be text"),
    ],
)
def test_problems(config_file: ConfigFile, text: str, problem: str) -> None:
    expected = problem.replace("HERE", str(config_file.directory))
    assert config_file.sink_problem(text) == expected


@pytest.mark.parametrize("name", ["a\\nb", " a", "a\\u00a0", "x" * 201])
def test_no_names(config_file: ConfigFile, name: str) -> None:
    problem = config_file.problem(f'{SOURCE}[[sink]]\ntype="stdout"\nname="{name}"')
    assert problem.endswith("is no name: up to 200 characters that print")


# Secrets


@pytest.mark.parametrize("text", [f"'{HUSH}'", f"['{HUSH}']", "7", "true"])
@pytest.mark.parametrize("key", ["authorization", "signing_keys", "tls.key"])
def test_secrets_are_not_written_here(config_file: ConfigFile, key: str, text: str) -> None:
    problem = config_file.problems(
        f"{SOURCE}[[sink]]\ntype='webhook'\nurl='https://a/'\n{key} = {text}"
    )[0]
    assert problem.endswith(
        ' { file = "…" }, { env = "…" } or { credential = "…" }',
    )


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("{}", "a secret is not written here: give one of"),
        ("{ file = 'secret', env = 'KEY' }", "a secret is not written here: give one of"),
        ("{ file = 7 }", "file: it must be text, and is a whole number"),
        ("{ fiel = 'secret' }", 'unknown key "fiel"; did you mean "file"?'),
        ("{ file = '' }", "file: it is empty"),
        ("{ file = 'nothing' }", "HERE/nothing: No such file or directory"),
        ("{ file = '.' }", "HERE: it is a directory"),
        ("{ file = 'empty' }", "HERE/empty is empty"),
        ("{ file = 'large' }", "HERE/large: it is larger than 64 KiB"),
        ("{ file = 'binary' }", "HERE/binary is not UTF-8 text"),
        ("{ file = 'lines' }", "the authorization is not visible ASCII on one line"),
        (
            "{ file = 'open' }",
            "HERE/open: it is open to others than its owner: its mode is 640 and must be 600",
        ),
        (
            "{ file = 'writable' }",
            "HERE/writable: it is open to others than its owner: its mode is 602 and must be 600",
        ),
        ("{ env = 'NONE' }", "the environment variable NONE is not set, or empty"),
        ("{ env = 'SPACE' }", "the environment variable SPACE is not set, or empty"),
        ("{ env = 'LARGE' }", "the environment variable LARGE is too large for a secret"),
        ("{ credential = 'nothing' }", "HERE/nothing: No such file or directory"),
        ("{ credential = '../secret' }", "'../secret' is no name of a credential"),
        ("{ credential = '..' }", "'..' is no name of a credential"),
    ],
)
def test_problems_of_secrets(config_file: ConfigFile, reference: str, problem: str) -> None:
    config_file.secret("empty", " \n")
    config_file.secret("large", HUSH * 10_000)
    config_file.secret("binary", b"\xff" + HUSH.encode())
    config_file.secret("lines", f"{HUSH}\n{HUSH}")
    config_file.secret("open", mode=0o640)
    config_file.secret("writable", mode=0o602)
    config_file.environ.update(SPACE=" ", LARGE=HUSH * 10_000)
    text = f"type='webhook'\nurl='https://a/'\nauthorization = {reference}"
    found = config_file.sink_problem(text).removeprefix("authorization: ")
    assert found.startswith(problem.replace("HERE", str(config_file.directory)))


def test_credentials_may_be_open(config_file: ConfigFile) -> None:
    """systemd sees to them."""
    config_file.secret("open", mode=0o440)
    text = "type='webhook'\nurl='https://a/'\nauthorization = { credential = 'open' }"
    settings = sink(config_file, text).settings
    assert isinstance(settings, WebhookSettings)
    assert settings.authorization == HUSH
    del config_file.environ["CREDENTIALS_DIRECTORY"]
    assert config_file.sink_problem(text) == (
        "authorization: there is no $CREDENTIALS_DIRECTORY: systemd gave no credentials"
    )


def test_the_end_of_a_line_is_no_part_of_it(config_file: ConfigFile) -> None:
    config_file.environ["TOKEN"] = f" {HUSH} \r\n"
    text = "type='amqp'\nhost='localhost'\nuser='u'\npassword = { env = 'TOKEN' }"
    settings = sink(config_file, text).settings
    assert isinstance(settings, AMQPSettings)
    assert settings.password == f" {HUSH}"


def test_signing_keys_that_are_none(config_file: ConfigFile) -> None:
    text = "type='webhook'\nurl='https://a/'\nsigning_keys = { file = 'secret' }"
    assert config_file.sink_problem(text) == (
        "signing_keys: this signing key does not begin with 'whsec_'"
    )


def test_keys_of_certificates(config_file: ConfigFile) -> None:
    config_file.secret("open.pem", mode=0o644)
    config_file.environ["TLS_KEY"] = "key.pem"
    text = "type='webhook'\nurl='https://a/'\ntls = { cert = {credential='cert.pem'}, key = KEY }"
    settings = sink(config_file, text.replace("KEY", "{ env = 'TLS_KEY' }")).settings
    assert isinstance(settings, WebhookSettings)
    assert settings.tls == ClientTLS(
        certificate=f"{config_file.directory}/cert.pem", key=f"{config_file.directory}/key.pem"
    )
    assert "its mode is 644" in config_file.sink_problem(text.replace("KEY", "{file='open.pem'}"))
    sink(config_file, text.replace("KEY", "{ credential = 'open.pem' }"))


def test_a_key_in_a_variable_that_is_to_name_its_file(config_file: ConfigFile) -> None:
    config_file.environ["TLS_KEY"] = f"-----BEGIN PRIVATE KEY-----\n{HUSH}"
    text = "type='webhook'\nurl='https://a/'\ntls = { cert='cert.pem', key = { env = 'TLS_KEY' } }"
    assert config_file.sink_problem(text) == (
        "tls: key: the file that $TLS_KEY names: No such file or directory"
    )


def test_many_authorities(config_file: ConfigFile) -> None:
    """Their file is no secret, and may be large."""
    config_file.secret("ca.pem", "x" * 300_000, mode=0o644)
    sink(config_file, "type='webhook'\nurl='https://a/'\ntls = { ca='ca.pem' }")


def test_urls_with_passwords(config_file: ConfigFile) -> None:
    for url in (
        f"https://user:{HUSH}@host/",
        f"https://{HUSH}@host/",
        f"https://user:{HUSH}@ho st/",
        f"https://ho st/?token={HUSH}",
        f"x://host/?token={HUSH}",
    ):
        config_file.sink_problem(f"type='webhook'\nurl='{url}'")
