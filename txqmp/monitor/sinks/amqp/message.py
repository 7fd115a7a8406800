"""An event as a message: where it is routed to, and the properties that it has."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from txqmp.monitor.sinks.delivery import OutgoingEvent


MAX_KEY = 255
"""How long a routing key is at most, in bytes (AMQP 0-9-1, section 4.2.5.3)."""

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
"""What the body is (CloudEvents 1.0, structured mode)."""

_MAX_EVENT = 127

_PERSISTENT = 2

# A dot ends a word; "*" and "#" could not be bound to.
_UNFIT = re.compile(r"[\s.*#\x00-\x1f\x7f-\x9f]")


def routing_key(event: OutgoingEvent) -> str:
    """
    ``qmp.EVENT.VM``, three words: ``qmp.STOP.#`` binds a queue to an event of all VMs, ``qmp.*.VM``
    to all events of a VM.

    ``EVENT`` is the last word of the event's type. A vendor's event, which begins with ``__`` and
    may hold dots (QMP specification, "Downstream extensions"), is one word too. ``VM`` is the UUID:
    a name may hold dots, and may change.
    """
    name = event.type.rpartition(".")[2]
    _, vendor, rest = event.type.partition(".__")
    if vendor:
        name = f"__{rest}"
    word = _word(name, _MAX_EVENT)
    start = f"qmp.{word}."
    return start + _word(event.attributes["partitionkey"], MAX_KEY - len(start.encode()))


def properties(event: OutgoingEvent) -> dict[str, Any]:
    """
    The message's properties, by the names of AMQP.

    ``message_id`` is the event's id: an event that arrives twice has the same one.
    """
    seconds = int(datetime.fromisoformat(f"{event.attributes['time'][:-1]}+00:00").timestamp())
    return {
        "app_id": "qmp-monitor",
        "content_type": CONTENT_TYPE,
        "delivery_mode": _PERSISTENT,
        "message_id": event.id,
        # It has no sign.
        "timestamp": seconds if seconds >= 0 else None,
        "type": event.type,
    }


def _word(text: str, size: int) -> str:
    """A word of a routing key, of so many bytes at most."""
    fit = _UNFIT.sub("_", text) or "_"
    return fit.encode(errors="replace")[:size].decode(errors="ignore")
