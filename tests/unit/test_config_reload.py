"""Another configuration for a daemon that runs."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from support.configs import SINK, SOURCE, ConfigFile
from txqmp.monitor.config import (
    HTTP,
    Changes,
    Config,
    ConfigError,
    Dial,
    Differences,
    Glob,
    Listen,
    Sink,
    differences,
    reload,
)
from txqmp.monitor.config.reload import FIXED
from txqmp.monitor.sinks.settings import (
    JournaldSettings,
    StdoutSettings,
    SyslogSettings,
    WebhookSettings,
)
from txqmp.monitor.spool import SpoolLimits


KEYS = [f"whsec_{letter * 32}" for letter in "AB"]

SIGNED = (
    f"{SOURCE}[[sink]]\ntype = 'webhook'\nurl = 'https://a/'\n"
    "signing_keys = [{ file = 'key' }]\nauthorization = { file = 'token' }"
)


@pytest.fixture
def config_file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def dial(name: str, where: str) -> Dial:
    return Dial(where=where, name=name)


A, B, C = (Sink(settings=StdoutSettings(), name=name) for name in "abc")


def test_nothing_is_different() -> None:
    config = Config(sources=(dial("a", "tcp:a:1"), Glob(patterns=("/x",))), sinks=(A, B))
    other = Config(sources=(Glob(patterns=("/x",)), dial("a", "tcp:a:1")), sinks=(B, A))
    assert differences(config, other) == Differences()
    assert not differences(config, other)


def test_sinks() -> None:
    changed = attrs.evolve(B, max_age=1.0)
    other = Sink(settings=SyslogSettings(), name="a")
    found = differences(Config(sinks=(A, B)), Config(sinks=(C, changed)))
    assert found
    assert found.sinks == Changes(removed=(A,), changed=((B, changed),), added=(C,))
    assert attrs.evolve(found, sinks=Changes()) == Differences()
    # The name says which sink it is: its kind may change.
    found = differences(Config(sinks=(A,)), Config(sinks=(other,)))
    assert found.sinks == Changes(changed=((A, other),))


def test_sources(tmp_path: Path) -> None:
    one, two = Glob(patterns=("/x",)), Glob(patterns=("/y",))
    slower = attrs.evolve(one, rescan=60.0)
    path = f"{tmp_path}/a.sock"
    found = differences(
        Config(sources=(one, dial("a", path), Listen(where="tcp:1"))),
        Config(sources=(slower, two, dial("b", f"unix:{path}"))),
    )
    assert found.sources == Changes(
        removed=(Listen(where="tcp:1"),),
        changed=((one, slower), (dial("a", path), dial("b", f"unix:{path}"))),
        added=(two,),
    )


def test_http() -> None:
    one, two = HTTP(listen="tcp:1"), HTTP(listen="tcp:2")
    assert differences(Config(), Config(http=one)).http == Changes(added=(one,))
    assert differences(Config(http=one), Config()).http == Changes(removed=(one,))
    assert differences(Config(http=one), Config(http=two)).http == Changes(changed=((one, two),))


@pytest.mark.parametrize(
    "other", [Config(node="b"), Config(node="a", own_types="b"), Config(node="a", qemu_types="b")]
)
def test_envelope(other: Config) -> None:
    assert differences(Config(node="a"), other) == Differences(envelope=True)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("state_dir", Config(state_dir="/x")),
        ("events", Config(events=("STOP",))),
        ("spool", Config(spool=SpoolLimits(max_bytes=1))),
        ("demo", Config(demo=True)),
    ],
)
def test_what_cannot_be_changed(name: str, other: Config) -> None:
    assert name in FIXED
    assert differences(Config(), other) == Differences(fixed=(name,))


def test_every_member_is_compared() -> None:
    compared = {"sources", "sinks", "http", "node", "qemu_types", "own_types", *FIXED}
    assert {field.name for field in attrs.fields(Config)} == compared


def test_secrets_are_compared(config_file: ConfigFile) -> None:
    config_file.secret("key", KEYS[0])
    config_file.secret("token", "one")
    first = config_file.load(SIGNED)
    assert differences(first, config_file.load(SIGNED)) == Differences()
    config_file.secret("key", KEYS[1])
    second = config_file.load(SIGNED)
    assert differences(first, second).sinks.changed == ((first.sinks[0], second.sinks[0]),)
    config_file.secret("token", "two")
    third = config_file.load(SIGNED)
    assert differences(second, third).sinks.changed == ((second.sinks[0], third.sinks[0]),)


def test_configurations_can_be_keys(config_file: ConfigFile) -> None:
    config_file.secret("key", KEYS[0])
    config_file.secret("token", "one")
    configs = {config_file.load(SIGNED), config_file.load(SIGNED)}
    assert len(configs) == 1
    (settings,) = {each.settings for config in configs for each in config.sinks}
    assert isinstance(settings, WebhookSettings)


def test_reload(config_file: ConfigFile) -> None:
    old = config_file.load(SOURCE + SINK)
    path = config_file.write(f"{SOURCE}{SINK}[[sink]]\ntype = 'journald'")
    new = reload(path, old)
    assert differences(old, new).sinks.added == (Sink(settings=JournaldSettings()),)


def test_a_reload_that_cannot_be(config_file: ConfigFile) -> None:
    old = config_file.load(SOURCE + SINK)
    path = config_file.write(
        f"[monitor]\nstate_dir = '/tmp/x'\n[spool]\nmax_dead = 7\n{SOURCE}{SINK}"
    )
    with pytest.raises(ConfigError) as raised:
        reload(path, old)
    assert raised.value.problems == (
        "[monitor]: state_dir cannot be changed while the daemon runs: start it anew",
        "[spool] cannot be changed while the daemon runs: start it anew",
    )
    path = config_file.write("snik = 1")
    with pytest.raises(ConfigError, match="snik"):
        reload(path, old)
