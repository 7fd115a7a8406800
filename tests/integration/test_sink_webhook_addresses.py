"""Where a webhook connects to, and where it does not: servers on several loopback addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import address as tcp
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer

from support.outgoing import events
from support.waiting import until, within
from support.webhook import Receiver
from txqmp.monitor.sinks.delivery import UnavailableError
from txqmp.monitor.sinks.webhook.delivery import WebhookDelivery


pytest_plugins = ["support.sessions", "support.webhook"]

Make = Callable[..., WebhookDelivery]

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
OTHER = [ip_network("127.0.0.2/32")]


@implementer(IHostnameResolver)
class Names:
    """Knows what a test says of any name.

    :ivar answers: addresses, one list for each time; ``None`` to say nothing.
    """

    def __init__(self) -> None:
        self.answers: list[list[str] | None] = []
        self.waiting: list[Any] = []

    def resolveHostName(
        self,
        receiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        receiver.resolutionBegan(self)
        hosts = self.answers.pop(0)
        if hosts is None:
            self.waiting.append(receiver)
            return self
        for host in hosts:
            kind = tcp.IPv6Address if ":" in host else tcp.IPv4Address
            receiver.addressResolved(kind("TCP", host, portNumber))
        receiver.resolutionComplete()
        return self


@pytest.fixture
def names() -> Iterator[Names]:
    from twisted.internet import reactor

    names = Names()
    before = reactor.installNameResolver(names)
    yield names
    reactor.installNameResolver(before)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to."""
    from twisted.internet import reactor

    found: list[str] = []
    connect: Any = reactor.connectTCP

    def connectTCP(host: str, *args: Any, **options: Any) -> Any:
        found.append(host)
        return connect(host, *args, **options)

    monkeypatch.setattr(reactor, "connectTCP", connectTCP)
    return found


@pytest.fixture
def other(receiver: Receiver) -> Iterator[Receiver]:
    """A receiver at the same port of 127.0.0.2."""
    other = Receiver(interface="127.0.0.2", port=receiver.number)
    yield other
    pytest_twisted.blockon(within(other.stop()))


async def reason(sink: WebhookDelivery) -> str:
    """Why nothing is delivered."""
    with pytest.raises(UnavailableError) as caught:
        await within(sink.deliver(events(1)))
    return caught.value.reason


FORMS = [
    *("127.0.0.1", "localhost", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001"),
    *("017700000001", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
]


@pytest.mark.parametrize("host", FORMS)
@pytest_twisted.ensureDeferred
async def test_however_it_is_written(
    host: str, receiver: Receiver, make: Make, dialled: list[str]
) -> None:
    url = receiver.url(host)
    await within(make(url, allow_plaintext=True).deliver(events(1)))
    assert receiver.connections == 1
    dialled.clear()
    why = await reason(make(url, allow_plaintext=True, deny=LOOPBACK))
    assert why.startswith(f"{host.strip('[]')} may not be posted to: ")
    assert "denied by the settings" in why
    assert (receiver.connections, dialled) == (1, [])


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "2852039166", "0xa9fea9fe", "0.0.0.0", "0", "255.255.255.255"),
        *("224.0.0.1", "[::]", "[fe80::1]", "[ff02::1]", "[fd00:ec2::254]"),
        *("[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_never_makes_sense(
    host: str, receiver: Receiver, make: Make, dialled: list[str]
) -> None:
    why = await reason(make(receiver.url(host), allow_plaintext=True))
    assert why.startswith(f"{host.strip('[]')} may not be posted to: ")
    assert (receiver.connections, dialled) == (0, [])


@pytest_twisted.ensureDeferred
async def test_an_ipv6_address(make: Make) -> None:
    receiver = Receiver(interface="::1")
    await within(make(receiver.url("[::1]")).deliver(events(1)))
    assert receiver.arrived[0].headers["host"] == f"[::1]:{receiver.number}"
    await within(receiver.stop())


@pytest_twisted.ensureDeferred
async def test_what_is_allowed_may_be_posted_to(receiver: Receiver, make: Make) -> None:
    """On Linux this is loopback too."""
    allow = [ip_network("0.0.0.0/32")]
    await within(
        make(receiver.url("0.0.0.0"), allow_plaintext=True, allow=allow).deliver(events(1))
    )
    assert receiver.connections == 1


@pytest_twisted.ensureDeferred
async def test_only_the_addresses_that_are_allowed(
    receiver: Receiver, other: Receiver, make: Make, names: Names, dialled: list[str]
) -> None:
    names.answers = [["127.0.0.2", "169.254.169.254", "127.0.0.1"]]
    sink = make(receiver.url("ops.example"), allow_plaintext=True, deny=OTHER)
    await within(sink.deliver(events(1)))
    assert (receiver.connections, other.connections) == (1, 0)
    assert dialled == ["127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_name_that_comes_to_mean_another_address(
    receiver: Receiver, other: Receiver, make: Make, names: Names, dialled: list[str]
) -> None:
    names.answers = [["127.0.0.1"], ["127.0.0.2"]]
    sink = make(receiver.url("ops.example"), allow_plaintext=True, deny=OTHER)
    await within(sink.deliver(events(2)))
    receiver.cut()
    await until(lambda: not sink._endpoint.open)
    assert await reason(sink) == (
        "ops.example may not be posted to: 127.0.0.2 (denied by the settings)"
    )
    assert (receiver.connections, other.connections) == (1, 0)
    assert dialled == ["127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_many_addresses_none_of_them_allowed(make: Make, names: Names) -> None:
    names.answers = [[f"169.254.0.{number}" for number in range(5)]]
    why = await reason(make("https://ops.example/"))
    assert why.count("169.254.0.") == 3
    assert why.endswith(" and 2 more")


@pytest_twisted.ensureDeferred
async def test_a_name_that_nobody_knows(make: Make, names: Names) -> None:
    names.answers = [[]]
    why = await reason(make("https://ops.example/"))
    assert why == "no connection: DNS lookup failed: no results for hostname lookup: ops.example"


@pytest_twisted.ensureDeferred
async def test_a_name_that_nobody_answers_for(
    receiver: Receiver, make: Make, names: Names, dialled: list[str]
) -> None:
    names.answers = [None, None, None]
    sink = make(receiver.url("localhost"), timeout=0.1)
    assert await reason(sink) == "no connection within 0.1 s"
    sink = make(receiver.url("localhost"))
    work = sink.deliver(events(1))
    work.cancel()
    with pytest.raises(UnavailableError, match="given up"):
        await within(work)
    work = sink.deliver(events(1))
    stopping = sink.stop()
    with pytest.raises(UnavailableError, match="stopped"):
        await within(work)
    await within(stopping)
    for late in names.waiting:
        late.addressResolved(tcp.IPv4Address("TCP", "127.0.0.1", receiver.number))
        late.resolutionComplete()
    assert dialled == []


@pytest_twisted.ensureDeferred
async def test_a_host_that_does_not_answer(make: Make) -> None:
    """Its queue is full, so the kernel says nothing."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        port = listening.getsockname()[1]
        sink = make(f"http://127.0.0.1:{port}/", timeout=0.3)
        assert await reason(sink) == "no connection within 0.3 s"
        await within(sink.stop())
