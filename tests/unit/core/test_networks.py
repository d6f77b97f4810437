from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.networks import Network, Networks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_read_and_shown(text: str, shown: str) -> None:
    assert Network.read(text).show() == shown
    assert Network.read(shown) == Network.read(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("10.0.0.0/33", "expected a network"),
        ("localhost", "expected a network"),
        ("", "expected a network"),
        ("10.0.0", "expected a network"),
        ("fe80::1%eth0", "expected a network"),
    ],
)
def test_other_text_is_refused_with_what_was_meant(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Network.read(text)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32))
def test_an_address_is_in_its_network_and_only_there(
    first: ipaddress.IPv4Address | ipaddress.IPv6Address, second: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    network = ipaddress.ip_network(f"{first}/{length}", strict=False)
    networks = Networks([Network(network)])
    assert networks.contains(str(first))
    mapped = getattr(second, "ipv4_mapped", None)
    assert networks.contains(str(second)) == (second in network or (mapped is not None and mapped in network))


def test_ipv4_callers_of_a_listener_for_both_families_count_by_their_own_address() -> None:
    networks = Networks([Network.read("10.0.0.0/8")])
    assert networks.contains("::ffff:10.1.2.3")
    assert not networks.contains("::ffff:11.1.2.3")


def test_a_zone_is_no_part_of_an_address_and_other_text_is_in_no_network() -> None:
    networks = Networks([Network.read("fe80::/10"), Network.read("0.0.0.0/0")])
    assert networks.contains("fe80::1%eth0")
    assert not networks.contains("localhost")
    assert not networks.contains("")
