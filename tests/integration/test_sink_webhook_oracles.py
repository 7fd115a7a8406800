"""What arrives, as the libraries of the specifications' own people see it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from greenlet import greenlet
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from support.records import NODE, RECORDS, SPOOL_ID
from support.waiting import within
from support.webhook import Arrived, Receiver, delivery
from txqmp.monitor.cloudevents import CloudEvent
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.signature import SigningKey
from txqmp.monitor.sinks.delivery import OutgoingEvent
from txqmp.monitor.sinks.settings import WebhookMode


pytest_plugins = ["support.sessions", "support.webhook"]

ENVELOPE = Envelope(node=NODE)
BATCHES = st.lists(RECORDS, min_size=1, max_size=4)
SECRETS = [b"the new one, which is long", b"the old one, which is long"]


def sent(batch: list[Any]) -> list[OutgoingEvent]:
    """The events of records, numbered in their order."""
    made = [ENVELOPE.event(record, SPOOL_ID, number) for number, record in enumerate(batch)]
    return [
        OutgoingEvent(id=each.id, type=each.type, vm=each.subject, text=each.structured())
        for each in made
    ]


def assert_same(attributes: Any, data: Any, ours: CloudEvent) -> None:
    wanted: dict[str, Any] = dict(ours.attributes)
    wanted["time"] = datetime.fromisoformat(ours.time.replace("Z", "+00:00"))
    assert attributes == wanted
    assert data == json.loads(ours.data)


def assert_signed(post: Arrived, id: str) -> None:
    assert post.headers["webhook-id"] == id
    for secret in SECRETS:
        judge = Webhook("whsec_" + base64.b64encode(secret).decode())
        judge.verify(post.body, post.headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            judge.verify(post.body + b" ", post.headers, json_parse=False)


def beside_the_reactor(function: Callable[[], None]) -> Deferred[None]:
    """Run a function that waits for Deferreds by ``blockon``, which tests themselves cannot."""
    done: Deferred[None] = Deferred()

    def run() -> None:
        from twisted.internet import reactor

        try:
            function()
        except BaseException:
            reactor.callLater(0, done.errback, Failure())
        else:
            reactor.callLater(0, done.callback, None)

    greenlet(run).switch()
    return done


@pytest.mark.parametrize("mode", WebhookMode)
@pytest_twisted.ensureDeferred
async def test_whatever_is_sent_is_accepted(mode: WebhookMode, receiver: Receiver) -> None:
    sink = delivery(receiver.url(), mode=mode, signing_keys=[*map(SigningKey, SECRETS)])

    @settings(max_examples=50)
    @given(BATCHES)
    def check(batch: list[Any]) -> None:
        events = sent(batch)
        receiver.arrived.clear()
        pytest_twisted.blockon(within(sink.deliver(events)))
        if mode is WebhookMode.BATCHED:
            (post,) = receiver.arrived
            assert post.headers["content-type"].startswith("application/cloudevents-batch+json")
            assert_signed(post, f"{events[0].id}_{events[-1].id}")
            # The library does not read batches: each of them is an event by itself.
            found = [json.dumps(each).encode() for each in json.loads(post.body)]
            messages = [
                HTTPMessage({"content-type": "application/cloudevents+json"}, text)
                for text in found
            ]
        else:
            for post, event in zip(receiver.arrived, events, strict=True):
                assert_signed(post, event.id)
            messages = [HTTPMessage(post.headers, post.body) for post in receiver.arrived]
        for message, event in zip(messages, events, strict=True):
            theirs = from_http_event(message)
            assert_same(theirs.get_attributes(), theirs.get_data(), event.cloudevent)

    try:
        await beside_the_reactor(check)
    finally:
        await within(sink.stop())
    assert receiver.connections == 1
