"""From what is chosen about a sink to what delivers to it."""

from __future__ import annotations

from typing import Any

from txqmp.monitor.config import SinkSettings
from txqmp.monitor.sinks.amqp.settings import AMQPSettings
from txqmp.monitor.sinks.delivery import Delivery
from txqmp.monitor.sinks.settings import (
    ExecSettings,
    JournaldSettings,
    JSONLSettings,
    StdoutSettings,
    SyslogSettings,
    WebhookSettings,
)


_KINDS: dict[type[Any], str] = {
    StdoutSettings: "stdout",
    JSONLSettings: "jsonl",
    WebhookSettings: "webhook",
    AMQPSettings: "amqp",
    SyslogSettings: "syslog",
    JournaldSettings: "journald",
    ExecSettings: "exec",
}


def kind_of(settings: SinkSettings) -> str:
    """What kind of sink settings are for, as the configuration calls it."""
    return _KINDS[type(settings)]


def make_delivery(reactor: Any, settings: SinkSettings) -> Delivery:
    """
    What delivers to a sink.

    :raises ImportError: what it needs is not installed.
    """
    # Not above: some take their time to import, and are for those who use them.
    match settings:
        case StdoutSettings():
            from txqmp.monitor.sinks.stdout import stdout_delivery

            return stdout_delivery(reactor, settings)
        case JSONLSettings():
            from txqmp.monitor.sinks.jsonl import jsonl_delivery

            return jsonl_delivery(reactor, settings)
        case WebhookSettings():
            from txqmp.monitor.sinks.webhook import webhook_delivery

            return webhook_delivery(reactor, settings)
        case AMQPSettings():
            from txqmp.monitor.sinks.amqp import amqp_delivery

            return amqp_delivery(reactor, settings)
        case SyslogSettings():
            from txqmp.monitor.sinks.syslog import syslog_delivery

            return syslog_delivery(reactor, settings)
        case JournaldSettings():
            from txqmp.monitor.sinks.journald import journald_delivery

            return journald_delivery(reactor, settings)
        case ExecSettings():
            from txqmp.monitor.sinks.exec import exec_delivery

            return exec_delivery(reactor, settings)
