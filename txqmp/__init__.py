"""
QMP for Twisted: talk to QEMU from a program that has a reactor.

::

    from txqmp import connect

    qmp = yield connect(reactor, "/run/vm1/qmp.sock")
    status = yield qmp.execute("query-status")
"""

from txqmp.endpoints import client_endpoint, server_endpoint
from txqmp.errors import (
    ConnectError,
    ConnectFailure,
    ConnectTimeoutError,
    DescriptorError,
    DeserializationError,
    DisconnectedError,
    EventTimeoutError,
    ExecuteError,
    ExecuteTimeoutError,
    GreetingError,
    InvalidCommandError,
    ListenerError,
    ListenerOverflowError,
    MessageTooLongError,
    NegotiationError,
    ObjectTypeError,
    ProtocolError,
    QMPError,
    ServerParseError,
    StateError,
    TooManyCommandsError,
    UnexpectedTypeError,
)
from txqmp.events import EventHub, Subscription
from txqmp.factory import QMPClientFactory
from txqmp.lifecycle import RunState
from txqmp.listener import Listener
from txqmp.messages import Command, ErrorReply, Event, Greeting, Message, SuccessReply, Timestamp
from txqmp.observer import Gap, Snapshot
from txqmp.protocol import QMPProtocol
from txqmp.reconnect import Backoff
from txqmp.service import QMPService
from txqmp.settings import SessionSettings
from txqmp.single import connect, listen
from txqmp.timeouts import Timeouts


__all__ = [
    "connect",
    "listen",
    "QMPProtocol",
    "QMPClientFactory",
    "QMPService",
    "SessionSettings",
    "Timeouts",
    "Backoff",
    "RunState",
    "Event",
    "Greeting",
    "Command",
    "Message",
    "SuccessReply",
    "ErrorReply",
    "Timestamp",
    "EventHub",
    "Subscription",
    "Listener",
    "Gap",
    "Snapshot",
    "client_endpoint",
    "server_endpoint",
    "QMPError",
    "ConnectError",
    "ConnectFailure",
    "ConnectTimeoutError",
    "StateError",
    "ExecuteError",
    "ExecuteTimeoutError",
    "DisconnectedError",
    "InvalidCommandError",
    "DescriptorError",
    "TooManyCommandsError",
    "ListenerError",
    "ListenerOverflowError",
    "EventTimeoutError",
    "ProtocolError",
    "DeserializationError",
    "UnexpectedTypeError",
    "ObjectTypeError",
    "ServerParseError",
    "MessageTooLongError",
    "GreetingError",
    "NegotiationError",
]
