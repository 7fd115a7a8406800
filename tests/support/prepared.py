"""Endpoints that let a test lay hands on a session before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from zope.interface import implementer

from txqmp import Message, QMPProtocol, client_endpoint


@implementer(IStreamClientEndpoint)
class Prepared:
    """Dials ``where``, and gives each session to ``prepare`` before it is connected.

    :param where: as for :func:`txqmp.connect`.
    :param prepare: called with the session.
    """

    def __init__(self, reactor: Any, where: Any, prepare: Callable[[QMPProtocol], Any]) -> None:
        self._endpoint = client_endpoint(reactor, where)
        self._prepare = prepare

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        prepare = self._prepare

        class Preparing:
            def doStart(self) -> None:
                factory.doStart()

            def doStop(self) -> None:
                factory.doStop()

            def buildProtocol(self, address: Any) -> IProtocol | None:
                protocol = factory.buildProtocol(address)
                if protocol is not None:
                    prepare(protocol)
                return protocol

        return self._endpoint.connect(Preparing())


def before_command(name: str, action: Callable[[], Any]) -> Callable[[QMPProtocol], None]:
    """For :class:`Prepared`: call ``action`` when a command is about to be written."""

    def prepare(session: QMPProtocol) -> None:
        def tap(message: Message) -> Message:
            if message.get("execute") == name:
                action()
            return message

        session.taps.add_outbound(tap)

    return prepare
