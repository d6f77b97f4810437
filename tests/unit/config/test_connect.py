from __future__ import annotations

import pytest

from meshgw.config.connect import ConnectPattern
from meshgw.config.loader import load
from meshgw.kinds import Registry
from meshgw.wire.authority import read_authority


def allows(pattern: str, authority: str) -> bool:
    return ConnectPattern.read(pattern).matches(read_authority(authority.encode()))


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("api.example.com:443", "api.example.com:443"),
        ("API.example.com.:443", "api.EXAMPLE.com:443"),
        ("*.example.com:443", "a.example.com:443"),
        ("*.example.com:443", "a.b.example.com:443"),
        ("api-*.example.com:443", "api-7.example.com:443"),
        ("*:443", "example.com:443"),
        ("*:*", "example.com:1"),
        ("example.com:8000-8999", "example.com:8999"),
        ("192.0.2.1:443", "192.0.2.1:443"),
        ("192.0.2.0/24:443", "192.0.2.77:443"),
        ("192.0.2.0/24:443", "[::ffff:192.0.2.77]:443"),
        ("[2001:db8::/32]:443", "[2001:db8:1::1]:443"),
        ("[2001:db8::1]:443", "[2001:DB8:0::1]:443"),
    ],
)
def test_a_pattern_allows(pattern: str, authority: str) -> None:
    assert allows(pattern, authority)


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("api.example.com:443", "api.example.com:80"),
        ("api.example.com:443", "api.example.com.evil.example:443"),
        ("apiXexample.com:443", "api.example.com:443"),
        ("*.example.com:443", "example.com:443"),
        ("*.example.com:443", "evilexample.com:443"),
        ("*:443", "192.0.2.1:443"),
        ("*:443", "[2001:db8::1]:443"),
        ("example.com:8000-8999", "example.com:7999"),
        ("192.0.2.0/24:443", "198.51.100.1:443"),
        ("[2001:db8::/32]:443", "192.0.2.1:443"),
        ("[::/0]:443", "[::ffff:127.0.0.1]:443"),
        ("0.0.0.0/0:443", "example.com:443"),
    ],
)
def test_a_pattern_does_not_allow(pattern: str, authority: str) -> None:
    assert not allows(pattern, authority)


@pytest.mark.parametrize(
    "text",
    [
        *("example.com", ":443", "example.com:", "example.com:0", "example.com:70000", "example.com:9-8", "example.com:https"),
        *("2001:db8::1:443", "[2001:db8::1:443", "[::ffff:10.0.0.1]:443", "10.0.0.1/8:443", "300.1.1.1:443", "127.1:443"),
        *("http://example.com:443", "exa mple:443", "a..b:443", "example.com:443,444"),
    ],
)
def test_a_slip_in_a_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ConnectPattern.read(text)


def configured(connect: str) -> list[str]:
    text = f"routers:\n- protocol: http\n  servers:\n  - port: 0\n    connect: {connect}\n"
    return [problem.show() for problem in load(text, "test.yml", Registry()).problems]


def test_the_block_is_read_from_the_file() -> None:
    assert configured('{allow: ["*.example.com:443", "10.0.0.0/8:443"]}') == []


@pytest.mark.parametrize("block", ["{}", "{allow: []}", "{allow: [example.com]}", "{allow: [':443']}", "{deny: ['a:1']}"])
def test_a_block_that_says_nothing_usable_is_a_problem(block: str) -> None:
    assert any("connect" in problem for problem in configured(block))
