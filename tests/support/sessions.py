"""Fixtures for tests of the client; a test module takes them by ``pytest_plugins``.

Whatever a test leaves open here is closed at its end, so that a test can be as short as its idea.

PYTEST_DONT_REWRITE: test modules import types from here before pytest sees that it is a plugin.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred

from support.scripted import Script, ScriptedPeer
from support.waiting import end_session, within
from txqmp import QMPClientFactory, QMPProtocol, connect


Dial = Callable[..., Awaitable[QMPProtocol]]
MakeFactory = Callable[..., QMPClientFactory]
MakePeer = Callable[[Script], Awaitable[ScriptedPeer]]


@pytest.fixture(scope="session", autouse=True)
def _reserved_descriptor() -> None:
    """From the first listening on Twisted keeps a descriptor in reserve: no leak of a test's."""
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory

    class Quiet(Factory):
        noisy = False

    port = reactor.listenTCP(0, Quiet(), interface="127.0.0.1")
    pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for a UNIX socket's, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="txqmp-") as directory:
        yield Path(directory)


@pytest_twisted.async_yield_fixture
async def dial() -> AsyncIterator[Dial]:
    """:func:`txqmp.connect` without its reactor."""
    from twisted.internet import reactor

    sessions: list[QMPProtocol] = []

    async def dial(where: Any, **options: Any) -> QMPProtocol:
        session = await within(connect(reactor, where, **options), what="connect()")
        sessions.append(session)
        return session

    yield dial
    for session in sessions:
        await end_session(session)


@pytest_twisted.async_yield_fixture
async def make_factory() -> AsyncIterator[MakeFactory]:
    """:class:`txqmp.QMPClientFactory` without its reactor."""
    from twisted.internet import reactor

    factories: list[QMPClientFactory] = []

    def make(**options: Any) -> QMPClientFactory:
        factory = QMPClientFactory(reactor, **options)
        factories.append(factory)
        return factory

    yield make
    for factory in factories:
        await within(factory.stop(), what="the factory's stop")


@pytest_twisted.async_yield_fixture
async def make_peer(place: Path) -> AsyncIterator[MakePeer]:
    """A :class:`ScriptedPeer` that listens."""
    from twisted.internet import reactor

    peers: list[ScriptedPeer] = []

    async def make(script: Script) -> ScriptedPeer:
        peer = ScriptedPeer(reactor, str(place / f"peer{len(peers)}.sock"), script)
        peers.append(peer)
        return await peer.open()

    yield make
    for peer in peers:
        await within(peer.close(), what="the scripted peer's end")
