"""The public face: names, their order, and what importing them costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import txqmp
from txqmp.errors import QMPError


#: By importance: what a program needs first, comes first.
NAMES = [
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


def test_the_public_names_and_their_order_are_these() -> None:
    assert txqmp.__all__ == NAMES


def test_every_public_name_is_there_and_documented() -> None:
    for name in txqmp.__all__:
        assert inspect.getdoc(getattr(txqmp, name)), name


def test_every_exception_is_public() -> None:
    public = {getattr(txqmp, name) for name in txqmp.__all__}
    left = [QMPError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind.__module__ == "txqmp.errors" and not kind.__name__.startswith("_"):
            assert kind in public, kind


def test_importing_installs_no_reactor() -> None:
    code = (
        "import sys, txqmp;"
        "assert 'twisted.internet.reactor' not in sys.modules;"
        "assert 'treq' not in sys.modules"
    )
    package = Path(txqmp.__file__).parent.parent
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"],
        check=True,
    )


def test_the_types_are_shipped() -> None:
    assert (Path(txqmp.__file__).parent / "py.typed").exists()
