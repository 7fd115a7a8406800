"""Events as posts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import txqmp
from support.outgoing import event, events
from txqmp.monitor.cloudevents import EventBatch
from txqmp.monitor.signature import SigningKey, verify
from txqmp.monitor.sinks.settings import WebhookMode
from txqmp.monitor.sinks.webhook.request import post


KEYS = [SigningKey(b"n" * 32), SigningKey(b"o" * 32)]


def test_structured() -> None:
    it = event(7, data=b'{"a":1}')
    found = post([it], WebhookMode.STRUCTURED)
    assert (found.id, found.body) == (it.id, it.text)
    assert found.form == {"content-type": "application/cloudevents+json; charset=utf-8"}


def test_binary() -> None:
    it = event(7, data=b'{"a":1}')
    found = post([it], WebhookMode.BINARY)
    assert (found.id, found.body) == (it.id, b'{"a":1}')
    assert found.form == it.cloudevent.headers()


def test_batched() -> None:
    some = events(3)
    batch = EventBatch(some)
    found = post(some, WebhookMode.BATCHED)
    assert (found.id, found.body) == (batch.id, batch.structured())
    assert found.body == b"[" + b",".join(each.text for each in some) + b"]"
    assert post(some[:1], WebhookMode.BATCHED).body == b"[" + some[0].text + b"]"


@pytest.mark.parametrize("mode", [WebhookMode.STRUCTURED, WebhookMode.BINARY])
def test_only_batches_are_of_several(mode: WebhookMode) -> None:
    with pytest.raises(ValueError, match="too many values"):
        post(events(2), mode)


def test_headers_of_an_attempt() -> None:
    found = post(events(1), WebhookMode.STRUCTURED)
    headers = found.headers(KEYS, 1000.9, "Bearer swordfish")
    assert list(headers) == [
        *("user-agent", "content-type"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "authorization"),
    ]
    assert headers["authorization"] == "Bearer swordfish"
    for key in KEYS:
        assert verify([key], headers, found.body, now=1000, tolerance=0) == found.id


def test_without_a_key() -> None:
    headers = post(events(1), WebhookMode.STRUCTURED).headers([], 1000.9)
    assert headers["webhook-id"] == events(1)[0].id
    assert headers["webhook-timestamp"] == "1000"
    assert "webhook-signature" not in headers
    assert "authorization" not in headers


def test_the_body_is_not_shown() -> None:
    found = post([event(1, data=b'{"secret":1}')], WebhookMode.BINARY)
    assert "secret" not in repr(found)


CODE = """
import txqmp.monitor.sinks.webhook, txqmp.monitor.sinks.settings
for module in ("twisted.internet.reactor", "treq", "twisted.web.client"):
    assert module not in sys.modules, module
"""


def test_importing_it_imports_next_to_nothing() -> None:
    """It is imported by who posts nothing too."""
    package = Path(txqmp.__file__).parent.parent
    code = f"import sys; sys.path.insert(0, {str(package)!r}){CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
