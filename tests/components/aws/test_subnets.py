"""How a VPC is divided: for any VPC and zones, or refused with the rule."""

from __future__ import annotations

import ipaddress
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.aws import subnets

ZONES = ("a", "b", "c", "d")


@st.composite
def vpcs(draw: st.DrawFn) -> str:
    prefix = draw(st.integers(subnets.LARGEST_PREFIX, subnets.SMALLEST_PREFIX - 5))
    block = draw(st.sampled_from(subnets.PRIVATE_NETWORKS))
    if prefix <= block.prefixlen:
        return str(block)
    parts = 2 ** (prefix - block.prefixlen)
    address = int(block.network_address) + draw(st.integers(0, parts - 1)) * 2 ** (32 - prefix)
    return f"{ipaddress.IPv4Address(address)}/{prefix}"


@given(cidr=vpcs(), count=st.integers(1, 4))
def test_subnets_are_apart_inside_and_of_a_size_that_aws_takes(cidr: str, count: int) -> None:
    found = subnets.divide(cidr, ZONES[:count])
    networks = [ipaddress.IPv4Network(each) for zone in found for each in (zone.private, zone.public)]
    assert len(networks) == 2 * count
    assert all(each.subnet_of(ipaddress.IPv4Network(cidr)) for each in networks)
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    assert all(subnets.LARGEST_PREFIX <= each.prefixlen <= subnets.SMALLEST_PREFIX for each in networks)
    assert len({zone.private_addresses for zone in found}) == 1
    assert all(zone.private_addresses > ipaddress.IPv4Network(zone.public).num_addresses for zone in found)


@given(cidr=vpcs(), count=st.integers(1, 3))
def test_a_further_zone_moves_none_that_is_there(cidr: str, count: int) -> None:
    assert subnets.divide(cidr, ZONES[: count + 1])[:count] == subnets.divide(cidr, ZONES[:count])


@pytest.mark.parametrize(
    ("cidr", "zones"),
    [
        ("10.0.0.0/15", "ab"),
        ("10.0.0.0/24", "ab"),
        ("8.8.0.0/16", "ab"),
        ("100.64.0.0/16", "ab"),
        ("fd00::/64", "ab"),
        ("10.0.0.0/16", ""),
        ("10.0.0.0/16", "abcde"),
        ("10.0.0.0/16", "aa"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_a_way_out(cidr: str, zones: str) -> None:
    with pytest.raises(ValueError, match=r"^must be .+\|.+"):
        subnets.divide(cidr, tuple(zones))
