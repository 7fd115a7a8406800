"""Where may be posted to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import address as tcp

from txqmp.monitor.sinks.webhook.addresses import AddressFilter, FilteringResolver


USUAL = AddressFilter()


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("0.0.0.0", "no address of a host"),
        ("0.1.2.3", "no address of a host"),
        ("169.254.0.1", "link-local, where clouds serve credentials"),
        ("169.254.169.254", "link-local, where clouds serve credentials"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("100.100.100.200", "a cloud's metadata service"),
        ("192.0.0.192", "a cloud's metadata service"),
        ("168.63.129.16", "a cloud's metadata service"),
        ("::", "no address of a host"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("febf::1", "link-local"),
        ("ff02::1", "multicast"),
        ("fd00:ec2::254", "a cloud's metadata service"),
        ("fd20:ce::254", "a cloud's metadata service"),
    ],
)
def test_denied(host: str, why: str) -> None:
    assert USUAL.refusal(host) == why


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("192.0.2.1", "8.8.8.8", "169.253.255.255", "169.255.0.0", "223.255.255.255"),
        *("::1", "fd00::1", "fc00::1", "2001:db8::1", "2606:4700::1111", "fe00::1"),
    ],
)
def test_not_denied(host: str) -> None:
    assert USUAL.refusal(host) is None


def v6(number: int) -> str:
    return str(IPv6Address(number))


def embeddings(address: str) -> list[str]:
    """The IPv6 addresses by which something may end up at an IPv4 address."""
    number = int(IPv4Address(address))
    first, rest = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{address}",
        f"::ffff:0:{address}",
        f"64:ff9b::{address}",
        f"64:ff9b:1::{address}",
        f"64:ff9b:1:fffe:1:2:{address}",
        # RFC 6052, 2.2: prefixes of 48, 56 and 64 bits
        v6(int(IPv6Address("64:ff9b:1::")) | first << 64 | rest << 40),
        v6(int(IPv6Address("64:ff9b:1::")) | (number >> 24) << 64 | (number & 0xFFFFFF) << 32),
        v6(int(IPv6Address("64:ff9b:1::")) | number << 24),
        v6(0x2002 << 112 | number << 80 | 1),
        v6(0x20010000 << 96 | number << 64 | 0xFFFFFFFF ^ int(IPv4Address("8.8.8.8"))),
        v6(0x20010000 << 96 | int(IPv4Address("8.8.8.8")) << 64 | 0xFFFFFFFF ^ number),
    ]


@pytest.mark.parametrize("host", [*embeddings("169.254.169.254"), "::169.254.169.254"])
def test_denied_in_disguise(host: str) -> None:
    assert USUAL.refusal(host) == "169.254.169.254, link-local, where clouds serve credentials"


@pytest.mark.parametrize("host", embeddings("192.0.2.1") + embeddings("127.0.0.1"))
def test_others_in_disguise(host: str) -> None:
    assert USUAL.refusal(host) is None


@pytest.mark.parametrize(
    "host", ["", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5"]
)
def test_only_addresses_are_judged(host: str) -> None:
    assert USUAL.refusal(host) == "not an address"


def test_deny() -> None:
    filter = AddressFilter(deny=[ip_network("10.0.0.0/8"), ip_network("::1/128")])
    assert filter.refusal("10.1.2.3") == "denied by the settings"
    assert filter.refusal("::ffff:10.1.2.3") == "10.1.2.3, denied by the settings"
    assert filter.refusal("::1") == "denied by the settings"
    assert filter.refusal("11.1.2.3") is None
    assert filter.refusal("169.254.1.1") is not None


def test_allow_has_the_last_word() -> None:
    filter = AddressFilter(
        allow=[ip_network("169.254.7.0/24"), ip_network("192.0.2.0/24")],
        deny=[ip_network("0.0.0.0/0"), ip_network("::/0")],
    )
    assert filter.refusal("169.254.7.1") is None
    assert filter.refusal("169.254.8.1") is not None
    assert filter.refusal("192.0.2.1") is None
    assert filter.refusal("192.0.3.1") == "denied by the settings"
    # What is in it is allowed, but it is not.
    assert filter.refusal("::ffff:192.0.2.1") == "denied by the settings"


def test_who_allows_a_gateway_does_not_allow_what_is_behind_it() -> None:
    filter = AddressFilter(allow=[ip_network("64:ff9b::/96")])
    assert filter.refusal("64:ff9b::169.254.169.254") is not None
    assert filter.refusal("64:ff9b::192.0.2.1") is None


@given(st.ip_addresses())
def test_an_address_in_a_denied_network_is_denied(address: Any) -> None:
    filter = AddressFilter(deny=[ip_network("0.0.0.0/0"), ip_network("::/0")])
    assert filter.refusal(str(address)) is not None
    nothing = AddressFilter(allow=[ip_network("0.0.0.0/0"), ip_network("::/0")])
    assert nothing.refusal(str(address)) is None


@given(st.ip_addresses(v=4))
def test_a_disguise_changes_nothing(address: IPv4Address) -> None:
    assert (USUAL.refusal(f"::ffff:{address}") is None) == (USUAL.refusal(str(address)) is None)


class Names:
    """A resolver that knows the same addresses for each name."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[Any] = []

    def resolveHostName(self, receiver: Any, name: str, *more: Any) -> Any:
        self.asked.append((name, *more))
        receiver.resolutionBegan(self)
        for host in self.hosts:
            kind = tcp.IPv6Address if ":" in host else tcp.IPv4Address
            receiver.addressResolved(kind("TCP", host, 80))
        receiver.resolutionComplete()
        return self


class Found:
    def __init__(self) -> None:
        self.words: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        self.words.append("began")

    def addressResolved(self, address: Any) -> None:
        self.words.append(address.host)

    def resolutionComplete(self) -> None:
        self.words.append("complete")


def test_a_resolver_that_finds_only_what_is_allowed() -> None:
    names: Any = Names("169.254.169.254", "192.0.2.1", "::ffff:169.254.1.1", "2001:db8::1")
    found: Any = Found()
    resolver = FilteringResolver(names, USUAL)
    assert resolver.resolveHostName(found, "host.example", 80) is names
    assert found.words == ["began", "192.0.2.1", "2001:db8::1", "complete"]
    assert list(resolver.refused) == ["169.254.169.254", "::ffff:169.254.1.1"]
    assert resolver.found == 2
    assert names.asked == [("host.example", 80, None, "TCP")]
