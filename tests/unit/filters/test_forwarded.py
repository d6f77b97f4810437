from __future__ import annotations

from random import Random

import pytest

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.filters.forwarded import (
    Forwarded,
    Timestamp,
    XForwarded,
    by_ip,
    by_ip_and_port,
    fixed,
    random_per_connection,
    random_per_request,
)
from meshgw.wire.headers import FieldTable, Headers


def exchange(peer: tuple[str, int] = ("192.0.2.1", 80)) -> Exchange:
    ex = Exchange()
    ex.peer, ex.local = peer, ("192.0.2.9", 4140)
    ex.headers = Headers([b"Forwarded: for=x"], {b"host": b"web"})
    return ex


@pytest.mark.parametrize(
    ("host", "ip", "ip_and_port"),
    [
        ("192.0.2.1", b"192.0.2.1", b'"192.0.2.1:80"'),
        ("2001:db8::1", b'"[2001:db8::1]"', b'"[2001:db8::1]:80"'),
        ("fe80::1%eth0", b'"[fe80::1]"', b'"[fe80::1]:80"'),
        ("0.0.0.0", b"unknown", b"unknown"),
        ("::", b"unknown", b"unknown"),
    ],
)
def test_addresses_are_shown_as_rfc_7239_asks(host: str, ip: bytes, ip_and_port: bytes) -> None:
    assert by_ip(exchange(), (host, 80)) == ip
    assert by_ip_and_port(exchange(), (host, 80)) == ip_and_port


def test_a_line_is_added_after_those_of_earlier_proxies() -> None:
    ex = exchange()
    Forwarded(fixed("edge"), by_ip).on_request(ex)
    assert ex.headers.lines == [b"Forwarded: for=x", b"Forwarded: by=_edge;for=192.0.2.1;host=web"]


def test_host_is_quoted_when_it_must_be_and_the_scheme_told_when_known() -> None:
    ex = exchange()
    ex.headers.seen[b"host"], ex.scheme = b"web:80", b"http"
    Forwarded(fixed("_edge"), by_ip).on_request(ex)
    assert ex.headers.lines[-1] == b'Forwarded: by=_edge;for=192.0.2.1;host="web:80";proto=http'


def test_random_names_last_as_long_as_they_say() -> None:
    request, connection, ex = random_per_request(Random(1)), random_per_connection(Random(1)), exchange()
    assert request(ex, ex.peer) != request(ex, ex.peer)
    assert connection(ex, ex.peer) == connection(ex, ex.peer)
    other = exchange(("192.0.2.1", 81))
    assert connection(ex, ex.peer) != connection(other, other.peer)
    assert len(request(ex, ex.peer)) == 7


def test_a_timestamp_is_added_and_does_not_replace() -> None:
    ex = exchange()
    stamp = Timestamp("x-at", lambda: 12.3456)
    stamp.on_request(ex)
    stamp.on_request(ex)
    assert ex.headers.lines[1:] == [b"x-at: 12345", b"x-at: 12345"]


def forwarded_fields(mode: str, *lines: bytes) -> list[bytes]:
    ex = Exchange()
    ex.headers = section([b"Host: web", *lines], FieldTable())
    ex.peer, ex.local = ("2001:db8::7", 1), ("::1", 2)
    XForwarded(replace=mode == "replace", scheme=b"http").on_request(ex)
    return sorted(line for line in ex.headers.lines if line.lower().startswith(b"x-forwarded-"))


CLAIMED = (b"X-Forwarded-For: 192.0.2.1", b"X-FORWARDED-FOR: 192.0.2.2", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop")


def test_append_adds_the_caller_and_fills_what_is_missing() -> None:
    expected = [b"x-forwarded-for: 2001:db8::7", b"x-forwarded-host: web", b"x-forwarded-proto: http"]
    assert forwarded_fields("append") == expected
    appended = [b"X-Forwarded-Host: shop", b"X-Forwarded-Proto: https", b"x-forwarded-for: 192.0.2.1, 192.0.2.2, 2001:db8::7"]
    assert forwarded_fields("append", *CLAIMED) == appended


def test_replace_believes_nothing_of_the_caller() -> None:
    assert forwarded_fields("replace", *CLAIMED) == forwarded_fields("append")
