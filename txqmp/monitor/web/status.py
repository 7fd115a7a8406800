"""
``/api/v1/status``: how everything stands, as a JSON object.

``version``, ``node``, ``time``, ``started``
    who answers, when, and since when the daemon runs
``vms``
    a list with ``name``, ``where``, ``state`` (``connecting``, ``busy``, ``up``, ``gap`` or
    ``gone``), ``session``, ``sequence``, ``last_event``, ``events`` and ``problem``
``sinks``
    a list with ``name``, ``kind``, ``state`` (``up``, ``waiting``, ``failing`` or ``disabled``),
    ``lag_events``, ``lag_seconds``, ``sent``, ``attempts``, ``dead``, ``last_error`` and
    ``next_attempt``
``spool``
    ``events``, ``bytes``, ``max_bytes``, ``oldest_age_seconds`` and ``dropped``; or null
``config``
    ``successful``, whether the configuration could be used when it was last loaded, and ``loaded``,
    when the one in force was
``rate``
    ``interval_seconds``, ``until`` and ``events_per_second``, a list with the oldest first
``feed``
    of ``/events``: its ``identity``, and the positions of the ``first`` and the ``last`` event
``streams``
    the clients of ``/events``: ``clients``, ``refused``, ``stalled`` and ``skipped``

Times are as ``"2026-11-21T01:20:00.123456Z"``. What there is nothing to say of is null. Texts are
cut at 1000 characters.
"""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from txqmp.fleet.records import timestamp, utc
from txqmp.monitor.web.source import (
    ConfigStatus,
    Feed,
    Rates,
    SinkStatus,
    SpoolStatus,
    Status,
    VMStatus,
)
from txqmp.monitor.web.stream import StreamCounters


MAX_TEXT = 1000
"""How many characters of a text are shown."""


def shown(text: str) -> str:
    """A text of bearable length that can be written as UTF-8."""
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT - 1]}…"
    return text.encode(errors="backslashreplace").decode()


def write_status(status: Status, feed: Feed, streams: StreamCounters, now: float) -> bytes:
    """
    The JSON text.

    :param now: in seconds since the epoch.
    """
    members = {
        "version": shown(status.version),
        "node": shown(status.node),
        "time": _moment(now),
        "started": _moment(status.started),
        "vms": [_vm(each) for each in status.vms],
        "sinks": [_sink(each) for each in status.sinks],
        "spool": None if status.spool is None else _spool(status.spool),
        "config": _config(status.config),
        "rate": _rate(status.rates),
        "feed": {"identity": shown(feed.identity), "first": feed.first, "last": feed.last},
        "streams": attrs.asdict(streams),
    }
    # A number that is none is written as null: that is what there is to say of it.
    return orjson.dumps(members)


def _vm(vm: VMStatus) -> dict[str, Any]:
    return {
        "name": shown(vm.name),
        "where": shown(vm.where),
        "state": vm.state.value,
        "session": vm.session,
        "sequence": vm.sequence,
        "last_event": _moment(vm.last_event),
        "events": vm.events,
        "problem": _maybe(vm.problem),
    }


def _sink(sink: SinkStatus) -> dict[str, Any]:
    return {
        "name": shown(sink.name),
        "kind": shown(sink.kind),
        "state": sink.state.value,
        "lag_events": sink.lag_events,
        "lag_seconds": sink.lag_seconds,
        "sent": sink.sent,
        "attempts": sink.attempts,
        "dead": sink.dead,
        "last_error": _maybe(sink.last_error),
        "next_attempt": _moment(sink.next_attempt),
    }


def _spool(spool: SpoolStatus) -> dict[str, Any]:
    return {
        "events": spool.events,
        "bytes": spool.size,
        "max_bytes": spool.max_size,
        "oldest_age_seconds": spool.oldest_age,
        "dropped": spool.dropped,
    }


def _config(config: ConfigStatus) -> dict[str, Any]:
    return {"successful": config.successful, "loaded": _moment(config.loaded)}


def _rate(rates: Rates) -> dict[str, Any]:
    return {
        "interval_seconds": rates.interval,
        "until": _moment(rates.until),
        "events_per_second": rates.values,
    }


def _maybe(text: str | None) -> str | None:
    return None if text is None else shown(text)


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return timestamp(utc(seconds))
    except (OverflowError, OSError, ValueError):
        return None  # no time that a calendar knows
