"""Both sides of the frame protocol, and the wire between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Generic, TypeVar

from txqmp.frames import (
    Action,
    ClientReactor,
    Failed,
    Frame,
    FrameDecoder,
    LinkOpened,
    Nothing,
    Scheduler,
    SendFrames,
    ServerReactor,
)
from txqmp.frames.codec import STREAM_SETTINGS


Side = TypeVar("Side", ClientReactor, ServerReactor)


class End(Generic[Side]):
    """A reactor that sends what it is told to.

    :ivar came: what its owner would have to deal with, in order.
    :ivar then: called with each of these.
    :ivar sent: the bytes that were sent, in all.
    """

    def __init__(self, reactor: Side) -> None:
        self.reactor: Side = reactor
        self.scheduler = Scheduler()
        self.came: list[Action] = []
        self.sent = bytearray()
        self.then: Callable[[Action], None] = lambda action: None

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, SendFrames):
                self.scheduler.add(*action.sources, urgent=action.urgent)
            elif not isinstance(action, Nothing):
                self.came.append(action)
                self.then(action)

    def send(self, size: int = 65_536) -> bytes:
        data = self.scheduler.data_to_send(size)
        self.sent += data
        return data

    def receive(self, data: bytes) -> None:
        self.do(self.reactor.receive(data))

    def take(self) -> list[Action]:
        """What came since this was called."""
        came, self.came = self.came, []
        return came


class Pair:
    """A client and a server, connected.

    :ivar rng: cuts what they send, at random; ``None`` to leave it whole.
    """

    def __init__(
        self,
        client: ClientReactor | None = None,
        server: ServerReactor | None = None,
        *,
        rng: Random | None = None,
    ) -> None:
        self.client: End[ClientReactor] = End(client or ClientReactor())
        self.server: End[ServerReactor] = End(server or ServerReactor())
        self.rng = rng

    def carry(self, sender: End[Side], data: bytes) -> None:
        """Bring what one side sent to the other."""
        other = self.server if isinstance(sender.reactor, ClientReactor) else self.client
        for piece in self.cut(data):
            other.receive(piece)

    def cut(self, data: bytes) -> list[bytes]:
        if self.rng is None:
            return [data]
        pieces = []
        while data:
            size = self.rng.choice([1, 7, 8, 9, 100, 5000, 70_000])
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    def run(self, size: int = 65_536) -> None:
        """Go on until neither has anything to send."""
        while True:
            there = self.client.send(size)
            self.carry(self.client, there)
            back = self.server.send(size)
            self.carry(self.server, back)
            if not there and not back:
                return

    def open_link(self) -> None:
        self.client.do([self.client.reactor.open_link()])
        self.run()
        for end in (self.client, self.server):
            (opened,) = end.take()
            assert isinstance(opened, LinkOpened)

    def request(self, name: str = "c", **options: object) -> int:
        """Make a request, which is sent by :meth:`run`."""
        request_id, frames = self.client.reactor.request(name, **options)  # type: ignore[arg-type]
        self.client.do([frames])
        return request_id

    def cancel(self, request_id: int) -> None:
        self.client.do(self.client.reactor.cancel(request_id))

    def unbroken(self) -> None:
        """Neither side has anything against the other."""
        for end in (self.client, self.server):
            assert end.reactor.error is None
            assert not [action for action in end.came if isinstance(action, Failed)]


def linked(client: ClientReactor | None = None, server: ServerReactor | None = None) -> Pair:
    """A client and a server with a link."""
    pair = Pair(client, server or ServerReactor(link=True))
    pair.open_link()
    return pair


def frames_in(data: bytes, *, settings: bool = False) -> list[Frame]:
    """The frames in bytes; those that set a stream's encoding where they are wanted."""
    frames = FrameDecoder((1 << 24) - 1).feed(data)
    return [frame for frame in frames if settings or frame.type != STREAM_SETTINGS]
