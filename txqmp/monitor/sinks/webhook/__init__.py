"""
The sink that posts: events to a URL, in order, one POST at a time.

An event is taken when the answer is 2xx. One that the receiver refuses for what it is (400, 413,
415, 422) is at fault itself; after anything else (no connection, no answer in time, a redirect,
401, 404, 429, 5xx …) it is the receiver that is, and the same event is posted again later. A
receiver may see an event twice: then it has the same id, which is in the ``webhook-id`` header too.

A receiver that answers 410 wants no more events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txqmp.monitor.sinks.settings import WebhookMode, WebhookSettings


if TYPE_CHECKING:
    from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery


__all__ = ["WebhookMode", "WebhookSettings", "webhook_delivery"]


def webhook_delivery(reactor: Any, settings: WebhookSettings) -> WebhookDelivery:
    """
    The sink that posts.

    :param reactor: it must run.
    """
    # Not above: treq and TLS take their time to import, and are for those who post.
    from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery

    return WebhookDelivery(reactor, settings)
