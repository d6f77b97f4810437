from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.core.networks import Network, Networks
from meshgw.filters.forwarders import MOST_HOPS, caller_address

TRUSTED = Networks([Network.read("10.0.0.0/8"), Network.read("2001:db8::/32")])


def told(peer: str, *lines: bytes) -> str:
    ex = Exchange()
    ex.headers = section([b"Host: web", *(b"X-Forwarded-For: " + line for line in lines)])
    ex.peer = (peer, 1)
    return caller_address(ex, TRUSTED)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"203.0.113.5"], "203.0.113.5"),
        ([b"1.2.3.4, 203.0.113.5"], "203.0.113.5"),
        ([b"1.2.3.4, 203.0.113.5, 10.9.9.9"], "203.0.113.5"),
        ([b"1.2.3.4", b"203.0.113.5,10.9.9.9"], "203.0.113.5"),
        ([b"203.0.113.5:4711"], "203.0.113.5"),
        ([b"[2001:470::5]:4711, [2001:db8::1]"], "2001:470::5"),
        ([b'"[2001:470::5]"'], "2001:470::5"),
        ([b"2001:470::5"], "2001:470::5"),
        ([b"10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ([b"1.2.3.4, unknown, 10.2.2.2"], "10.2.2.2"),
        ([b"1.2.3.4, , 10.2.2.2"], "10.2.2.2"),
        ([b'" onload="'], "10.0.0.1"),
        ([b"fe80::1%eth0"], "10.0.0.1"),
        ([b"203.0.113.5" + b" " * 60], "203.0.113.5"),
        ([], "10.0.0.1"),
    ],
)
def test_the_caller_is_the_last_one_that_no_trusted_proxy_is(lines: list[bytes], expected: str) -> None:
    assert told("10.0.0.1", *lines) == expected


def test_who_is_not_trusted_is_the_caller_whatever_it_says() -> None:
    assert told("198.51.100.1", b"203.0.113.5") == "198.51.100.1"


def test_only_so_many_proxies_are_followed() -> None:
    assert told("10.0.0.1", b"203.0.113.5" + b", 10.1.1.1" * (MOST_HOPS - 1)) == "203.0.113.5"
    assert told("10.0.0.1", b"203.0.113.5" + b", 10.1.1.1" * MOST_HOPS) == "10.1.1.1"


@given(invented=st.text("0123456789.,:[] af", max_size=40))
def test_nothing_a_caller_invents_changes_its_address(invented: str) -> None:
    assert told("10.0.0.1", invented.encode() + b", 203.0.113.5, 10.1.1.1") == "203.0.113.5"
