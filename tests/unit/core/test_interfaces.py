"""The addresses of this machine."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from meshgw.core import interfaces


def test_interfaces_are_listed_again_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [frozenset({"10.0.0.1"}), frozenset({"10.0.0.2"})]
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: answers.pop(0))
    clock = Clock()
    local = interfaces.LocalAddresses(clock)
    assert local.now() == {"10.0.0.1"}
    clock.advance(9.9)
    assert local.now() == {"10.0.0.1"}
    clock.advance(0.2)
    assert local.now() == {"10.0.0.2"}


def test_last_known_interfaces_serve_when_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    local = interfaces.LocalAddresses(clock)
    known = local.now()

    def refuse() -> frozenset[str]:
        raise OSError(12, "no memory")

    monkeypatch.setattr(interfaces, "interface_addresses", refuse)
    clock.advance(11)
    assert local.now() == known


def test_this_machine_has_the_loopback_address() -> None:
    assert "127.0.0.1" in interfaces.interface_addresses()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("10.0.0.1", "10.0.0.1"), ("::FFFF:10.0.0.1", "10.0.0.1"), ("FE80::1%eth0", "fe80::1"), ("0:0::1", "::1"), ("odd", "odd")],
)
def test_addresses_compare_by_meaning(host: str, expected: str) -> None:
    assert interfaces.comparable(host) == expected
