"""Whatever a file says: it is a configuration or an error, and no secret is shown."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.configs import HUSH
from txqmp.monitor.config import Config, ConfigError, differences, load
from txqmp.monitor.config.sinks import KINDS, common_keys
from txqmp.monitor.config.sources import http_keys, kinds
from txqmp.monitor.config.toml import _MONITOR, _SPOOL
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.settings import WebhookSettings


SIGNING_KEY = f"whsec_{HUSH.replace('-', '') * 4:A<44}"[:50]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="txqmp-config-") as name:
        path = Path(name)
        for file, content in (("secret", HUSH), ("key", SIGNING_KEY)):
            (path / file).write_text(content)
            (path / file).chmod(0o600)
        yield path


def load_here(directory: Path, content: bytes) -> Config | ConfigError:
    """What a file comes to; anything else fails the test."""
    path = directory / "a.toml"
    path.write_bytes(content)
    environ = {"SECRET": HUSH, "KEY": SIGNING_KEY, "CREDENTIALS_DIRECTORY": str(directory)}
    found: Config | ConfigError
    try:
        found = load(str(path), environ=environ)
    except ConfigError as error:
        found = error
    if isinstance(found, ConfigError):
        assert found.problems
        assert len(str(found).splitlines()) == len(found.problems)
    for shown in (str(found), repr(found), f"{getattr(found, '__cause__', None)!r}"):
        assert HUSH not in shown
        assert SIGNING_KEY not in shown
    return found


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"{value:f}".replace("infinity", "inf")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return f"{{{', '.join(f'{toml(key)} = {toml(each)}' for key, each in value.items())}}}"


# Any document


@given(st.binary(max_size=200))
def test_any_bytes(directory: Path, content: bytes) -> None:
    load_here(directory, content)


@given(st.text("[]{}=.,'\"#\n \\abin0179-:+_eéT\x00\x7f", max_size=80))
def test_any_text(directory: Path, text: str) -> None:
    load_here(directory, text.encode())


# Without surrogates, which no file in UTF-8 has, and which json.dumps writes in pairs.
_TEXT = st.text(st.characters(codec="ascii"), max_size=20)
_ANY = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | _TEXT
    | st.sampled_from(
        ["5s", "1MiB", "/tmp/x", "https://a/", "tcp:h:1", "unix:/tmp/x", "*", "root"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_REFERENCE = st.sampled_from(
    [
        *({"file": "secret"}, {"file": "key"}, {"env": "SECRET"}, {"env": "KEY"}),
        *({"credential": "secret"}, {"credential": "key"}, HUSH, [HUSH], {"value": HUSH}),
    ]
)
_SECRETS = ("signing_keys", "authorization", "password", "key")
_WORDS = st.sampled_from([*KINDS, "end", "block", "structured", "local0"])


def a_table(*names: str, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with some of the keys that there are, and perhaps one that there is not."""
    values = {
        name: (_REFERENCE | st.lists(_REFERENCE)) if name in _SECRETS else _ANY | _WORDS
        for name in names
        if name not in fixed
    }
    known = st.fixed_dictionaries(fixed, optional=values)
    return st.tuples(known, st.dictionaries(_TEXT, _ANY, max_size=1)).map(lambda p: p[1] | p[0])


_TLS = a_table("ca", "cert", "key", "server_name")
_SINK = st.one_of(
    *(
        a_table(*common_keys("a", "b"), *kind.keys, type=st.just(name))
        for name, kind in KINDS.items()
    ),
    a_table("name", "type"),
    a_table("password", "host", type=st.just("amqp"), tls=_TLS),
    a_table("signing_keys", "authorization", type=st.just("webhook"), url=_TEXT, tls=_TLS),
)
_SOURCE = st.one_of(
    *(a_table(*keys) for keys in kinds(True).values()),
    st.just({"dial": "tcp:h:1"}),
)
_DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "monitor": a_table(*_MONITOR) | _ANY,
        "spool": a_table(*_SPOOL) | _ANY,
        "http": a_table(*http_keys()) | _ANY,
        "source": st.lists(_SOURCE, max_size=3) | _ANY,
        "sink": st.lists(_SINK, max_size=3) | _ANY,
    },
)


@given(_DOCUMENT)
def test_any_tables(directory: Path, document: dict[str, Any]) -> None:
    lines = (f"{toml(name)} = {toml(value)}\n" for name, value in document.items())
    load_here(directory, "".join(lines).encode())


# Documents that are good, but for the secrets in them


@given(
    password=_REFERENCE,
    authorization=_REFERENCE,
    keys=st.lists(_REFERENCE, max_size=3),
    tls_key=_REFERENCE,
)
def test_secrets_are_not_shown(
    directory: Path, password: Any, authorization: Any, keys: list[Any], tls_key: Any
) -> None:
    document = {
        "source": [{"dial": "tcp:h:1"}],
        "sink": [
            {"type": "amqp", "host": "localhost", "user": "u", "password": password},
            {
                "type": "webhook",
                "url": "https://a/",
                "authorization": authorization,
                "signing_keys": keys,
                "tls": {"cert": "secret", "key": tls_key},
            },
        ],
    }
    content = "".join(f"{name} = {toml(value)}\n" for name, value in document.items()).encode()
    found = load_here(directory, content)
    again = load_here(directory, content)
    if isinstance(found, Config) and isinstance(again, Config):
        assert found == again
        assert not differences(found, again)
        amqp, webhook = (sink.settings for sink in found.sinks)
        assert isinstance(amqp, AMQPSettings)
        assert isinstance(webhook, WebhookSettings)
        assert {amqp.password, webhook.authorization} <= {HUSH, SIGNING_KEY}
        assert len(webhook.signing_keys) == len(keys)
        assert os.path.dirname(webhook.tls.key if webhook.tls and webhook.tls.key else "") == (
            str(directory)
        )
