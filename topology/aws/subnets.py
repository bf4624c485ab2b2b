"""How a VPC's addresses are divided: for each zone a large private subnet and a small public one.

The division depends on the VPC's network and a zone's place alone, so that a further zone moves no subnet that exists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

#: What AWS allows of a VPC and of a subnet.
LARGEST_PREFIX, SMALLEST_PREFIX = 16, 28
PRIVATE_NETWORKS = tuple(ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
#: Every VPC is divided for so many zones, however many are used.
MOST_ZONES = 4
#: Bits that a zone's part has and its subnets have more than the VPC: half of the part is private, an eighth public.
_ZONE_BITS, _PRIVATE_BITS, _PUBLIC_BITS = 2, 3, 5
#: Addresses of every subnet that AWS keeps for itself.
RESERVED_ADDRESSES = 5


@dataclass(frozen=True)
class ZoneSubnets:
    """The subnets of one zone, as networks."""

    zone: str
    private: str
    public: str

    @property
    def private_addresses(self) -> int:
        """Addresses that nodes, pods and data stores can have in the private subnet."""
        return ipaddress.ip_network(self.private).num_addresses - RESERVED_ADDRESSES


def divide(cidr: str, zones: Sequence[str]) -> tuple[ZoneSubnets, ...]:
    """The subnets of each of `zones` in the VPC `cidr`.

    ValueError, as "rule|way out", for a network that is no VPC's, or is too small or has too many zones to be divided.
    """
    network = ipaddress.ip_network(cidr)
    smallest = SMALLEST_PREFIX - _PUBLIC_BITS
    if not isinstance(network, ipaddress.IPv4Network) or not LARGEST_PREFIX <= network.prefixlen <= smallest:
        raise ValueError(f"must be an IPv4 network from /{LARGEST_PREFIX} to /{smallest}|Write it as in 10.40.0.0/16")
    if not any(network.subnet_of(each) for each in PRIVATE_NETWORKS):
        raise ValueError("must be a private network (RFC 1918)|Write it as in 10.40.0.0/16")
    if not 1 <= len(zones) <= MOST_ZONES:
        raise ValueError(f"must be from 1 to {MOST_ZONES} zones|Leave out some, or name one")
    if len(set(zones)) < len(zones):
        raise ValueError("must be different zones|Name each once")
    parts = list(network.subnets(prefixlen_diff=_ZONE_BITS))
    return tuple(
        ZoneSubnets(
            zone,
            private=str(next(iter(part.subnets(prefixlen_diff=_PRIVATE_BITS - _ZONE_BITS)))),
            # The first eighth of the second half; the rest of it stays free.
            public=str(list(part.subnets(prefixlen_diff=_PUBLIC_BITS - _ZONE_BITS))[4]),
        )
        for zone, part in zip(zones, parts, strict=False)
    )
