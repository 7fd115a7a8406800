"""
Where may be posted to: :class:`AddressFilter`.

What is judged is the address that a connection is made to, after the name is resolved, each time
(:class:`FilteringResolver`). So it makes no difference how an address is written, or what a name
resolved to before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer


_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

DENIED: dict[_Network, str] = {
    ip_network(network): words
    for network, words in {
        "0.0.0.0/8": "no address of a host",
        "169.254.0.0/16": "link-local, where clouds serve credentials",
        "224.0.0.0/4": "multicast",
        "255.255.255.255/32": "broadcast",
        "::/128": "no address of a host",
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
        # Where clouds serve a machine's credentials on addresses that are not link-local: Amazon,
        # Google, Alibaba, Oracle, Azure.
        "fd00:ec2::/32": "a cloud's metadata service",
        "fd20:ce::254/128": "a cloud's metadata service",
        "100.100.100.200/32": "a cloud's metadata service",
        "192.0.0.192/32": "a cloud's metadata service",
        "168.63.129.16/32": "a cloud's metadata service",
    }.items()
}
"""What is not posted to unless it is allowed explicitly, and why. Private networks are not here."""

# Where an IPv6 address has an IPv4 address in it, which gateways or the kernel connect to: by how
# many bits from the right. IPv4-mapped and -compatible (RFC 4291), translated (RFC 2765), NAT64
# (RFC 6052), 6to4 (RFC 3056), Teredo's server (RFC 4380).
_EMBEDDING: list[tuple[IPv6Network, int]] = [
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
    (IPv6Network("2001::/32"), 64),
]
_TEREDO = IPv6Network("2001::/32")
_NAT64 = IPv6Network("64:ff9b:1::/48")
_ZEROS = IPv4Network("0.0.0.0/8")
_ALL_ONES = 0xFFFFFFFF


class AddressFilter:
    """
    Which addresses may be connected to.

    What is allowed may be, whatever denies it. An IPv6 address with an IPv4 address in it may be
    only if both may.

    :param allow: networks that may be connected to though they are denied.
    :param deny: networks that may not be, beside :data:`DENIED`.
    """

    def __init__(self, allow: Iterable[_Network] = (), deny: Iterable[_Network] = ()) -> None:
        self._allow = tuple(allow)
        self._deny = {**DENIED, **dict.fromkeys(deny, "denied by the settings")}

    def refusal(self, host: str) -> str | None:
        """
        Why an address may not be connected to; ``None`` where it may.

        :param host: an address in its usual form, with a zone or without.
        """
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return "not an address"
        for each in _forms(address):
            why = self._why_denied(each)
            if why is not None:
                return why if each == address else f"{each}, {why}"
        return None

    def _why_denied(self, address: _Address) -> str | None:
        if any(address in network for network in self._allow):
            return None
        return next((why for network, why in self._deny.items() if address in network), None)


def _forms(address: _Address) -> Iterator[_Address]:
    """An address, and those that are in it."""
    yield address
    if isinstance(address, IPv4Address) or int(address) <= 1:  # "::" and "::1" are what they are
        return
    number = int(address)
    for network, shift in _EMBEDDING:
        if address in network:
            yield IPv4Address(number >> shift & _ALL_ONES)
    if address in _TEREDO:  # the client's is written upside down
        yield IPv4Address(number & _ALL_ONES ^ _ALL_ONES)
    if address in _NAT64:
        yield from _local_nat64(f"{number:0128b}")


def _local_nat64(bits: str) -> Iterator[_Address]:
    """
    What a gateway of this site may make of an address (RFC 8215): its prefix has 48, 56, 64 or 96
    bits, of which we know nothing, and eight bits in the middle are left out (RFC 6052, 2.2).
    """
    found = (bits[48:64] + bits[72:88], bits[56:64] + bits[72:96], bits[72:104], bits[96:])
    for each in found:
        address = IPv4Address(int(each, 2))
        if address not in _ZEROS:  # it was another length
            yield address


@implementer(IHostnameResolver)
class FilteringResolver:
    """
    A resolver of names that finds only what may be connected to. It is for one connection.

    :param resolver: what resolves.
    :param filter: what may be connected to.

    :ivar refused: the addresses that were left out, each with the reason.
    :ivar found: how many were not.
    """

    def __init__(self, resolver: IHostnameResolver, filter: AddressFilter) -> None:
        self._resolver = resolver
        self._filter = filter
        self.refused: dict[str, str] = {}
        self.found = 0

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._resolver.resolveHostName(
            _Sieve(resolutionReceiver, self),
            hostName,
            portNumber,
            addressTypes,
            transportSemantics,
        )

    def judge(self, host: str) -> bool:
        """Whether an address may be connected to. It is counted."""
        why = self._filter.refusal(host)
        if why is None:
            self.found += 1
        else:
            self.refused[host] = why
        return why is None


@implementer(IResolutionReceiver)
class _Sieve:
    def __init__(self, receiver: IResolutionReceiver, resolver: FilteringResolver) -> None:
        self._receiver = receiver
        self._resolver = resolver

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: Any) -> None:
        if self._resolver.judge(address.host):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()
