"""Who is answered by default, and what the setting adds."""

from __future__ import annotations

import pytest

from hfpeer.errors import InvalidName
from hfpeer.net.address import IP, parse_ip
from hfpeer.net.networks import AllowedNetworks, own_networks, prefix_of

OWN = own_networks([("203.0.113.7", 26), ("2001:db8:7::5", 64), ("198.51.100.1", 32), ("8.8.8.8", 0), ("eth0", 24)])


def ip(text: str) -> IP:
    found = parse_ip(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.7.9", "169.254.3.4", "127.0.0.1"),
        *("100.64.0.1", "100.127.255.254", "fd00::1", "fc00::1", "fe80::1", "fe80::1%eth0", "::1"),
        *("::ffff:192.168.1.1", "::ffff:10.1.1.1", "203.0.113.1", "203.0.113.62", "2001:db8:7::abcd"),
        *("198.51.100.1", "::ffff:203.0.113.1"),
    ],
)
def test_private_and_own_networks_are_answered(address: str) -> None:
    assert AllowedNetworks().allow(ip(address), OWN)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.9.2", "11.0.0.1", "9.255.255.255", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1"),
        *("100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1", "0.0.0.0", "255.255.255.255"),
        *("2001:db8::1", "2001:db8:8::1", "fbff::1", "fe00::1", "fec0::1", "::", "::2", "::ffff:8.8.9.2"),
        *("203.0.113.64", "198.51.100.2", "64:ff9b::a00:1", "2002:a00:1::1"),
    ],
)
def test_all_others_are_not_until_the_owner_says_so(address: str) -> None:
    assert not AllowedNetworks().allow(ip(address), OWN)
    assert not AllowedNetworks.parse("192.0.2.0/24").allow(ip(address), OWN)
    assert AllowedNetworks.parse("any").allow(ip(address), OWN)


def test_the_setting_adds_networks_to_the_private_ones() -> None:
    allowed = AllowedNetworks.parse("private, 192.0.2.0/24,2001:db8:9::/48, 198.51.100.7")
    for address in ("192.0.2.9", "2001:db8:9:1::1", "198.51.100.7", "10.0.0.1"):
        assert allowed.allow(ip(address), ())
    assert not allowed.allow(ip("198.51.100.8"), ())
    assert AllowedNetworks.parse(str(allowed)) == allowed


@pytest.mark.parametrize("text", ["", "private", " PRIVATE ,"])
def test_the_default_is_private(text: str) -> None:
    assert str(AllowedNetworks.parse(text)) == "private"
    assert AllowedNetworks.parse(text) == AllowedNetworks()


@pytest.mark.parametrize("text", ["192.0.2.0/33", "lan", "192.0.2", "2001::/129", "10.0.0.1-10.0.0.9"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="not a network"):
        AllowedNetworks.parse(text)


def test_the_addresses_of_one_machine_have_one_prefix() -> None:
    assert prefix_of(ip("2001:db8::1")) == prefix_of(ip("2001:db8::ffff:1:2")) != prefix_of(ip("2001:db8:0:1::1"))
    assert prefix_of(ip("10.0.0.1")) is None
