from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.wire.authority import Authority, read_authority


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"example.com:443", "example.com:443"),
        (b"EXAMPLE.Com:443", "example.com:443"),
        (b"example.com.:443", "example.com:443"),
        (b"example.com:0443", "example.com:443"),
        (b"my_host:1", "my_host:1"),
        (b"xn--bcher-kva.example:65535", "xn--bcher-kva.example:65535"),
        (b"192.0.2.1:80", "192.0.2.1:80"),
        (b"[2001:DB8::0001]:443", "[2001:db8::1]:443"),
        (b"[::ffff:127.0.0.1]:443", "127.0.0.1:443"),
        (b"3com.com:443", "3com.com:443"),
    ],
)
def test_an_authority_has_one_spelling(text: bytes, shown: str) -> None:
    assert read_authority(text).show() == shown


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b":", b":443", b"example.com", b"example.com:", b"example.com:0", b"example.com:65536", b"example.com:+443", b"a:1:2"),
        *(b"example.com:443/", b"http://example.com:443", b"user@example.com:443", b"exa mple.com:443", b"ex%61mple.com:443"),
        *(b"a..b:443", b".a:443", b"-a.com:443", b"a-.com:443", b"*.com:443", b"example.com..:443", b"b\xc3\xbccher.example:443"),
        *(b"[::1:443", b"::1:443", b"[::1%eth0]:443", b"[::1]", b"[example.com]:443", b"[127.0.0.1]:443", b"[::1]x:443"),
        b"a" * 64 + b".com:443",
        b".".join([b"a" * 63] * 4) + b":443",
    ],
)
def test_what_is_no_authority_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_authority(text)


@pytest.mark.parametrize(
    "host", [b"127.1", b"2130706433", b"0x7f.1", b"0x7f000001", b"0177.0.0.1", b"127.0.0.1.", b"1.2.3.4.5", b"a.0x", b"a.1"]
)
def test_no_lenient_form_of_an_address_passes_for_a_name(host: bytes) -> None:
    with pytest.raises(ValueError):
        read_authority(host + b":443")


@given(st.ip_addresses(), st.integers(1, 65535))
def test_addresses_are_read_back_as_they_are_shown(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = ip if mapped is None else mapped
    shown = Authority(str(ip), port, ip).show()
    assert read_authority(shown.encode()) == Authority(str(ip), port, ip)


@given(st.binary(max_size=40))
def test_any_bytes_give_an_authority_that_is_read_back_or_an_error(text: bytes) -> None:
    try:
        found = read_authority(text)
    except ValueError:
        return
    assert read_authority(found.show().encode()) == found
