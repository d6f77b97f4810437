"""Which addresses a server is announced with (linkerd-config spec 3.12)."""

from __future__ import annotations

import pytest

from meshgw.app.announcing import to_announce

LOCAL = {"127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fe80::1%eth0", "169.254.1.1", "2001:db8::1"}


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.0.0.1", ["10.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("0.0.0.0", ["10.0.0.1", "192.168.1.1"]),
        ("::", ["10.0.0.1", "192.168.1.1", "2001:db8::1"]),
    ],
)
def test_a_server_on_all_addresses_is_announced_with_each_that_others_can_reach(ip: str, expected: list[str]) -> None:
    assert to_announce(ip, LOCAL) == expected
