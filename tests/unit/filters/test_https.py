"""Rules of listeners that face browsers."""

from __future__ import annotations

import pytest

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.core.secured import Secured
from meshgw.filters.https import CheckServerName, RedirectToHttps, StrictTransport

SECURED = Secured(server_name="a.example", certificate_names=frozenset({"a.example", "b.example", "*.c.example"}))


def asked(host: bytes | None = b"a.example", target: bytes = b"/", *, secured: Secured | None = None, method: bytes = b"GET") -> Exchange:
    ex = Exchange()
    ex.method, ex.target, ex.secured = method, target, secured
    ex.headers = section([] if host is None else [b"Host: " + host])
    return ex


def test_answers_over_tls_keep_browsers_on_it_whatever_the_service_says() -> None:
    ex = asked(secured=SECURED)
    ex.response = section([b"Strict-Transport-Security: max-age=0", b"X-Kept: 1"])
    StrictTransport(max_age=60, include_sub_domains=True, preload=False).on_response(ex)
    assert ex.response.lines == [b"X-Kept: 1", b"strict-transport-security: max-age=60; includeSubDomains"]


def test_plaintext_answers_are_left_alone() -> None:
    ex = asked()
    ex.response = section([b"X-Kept: 1"])
    StrictTransport(max_age=60, include_sub_domains=False, preload=False).on_response(ex)
    assert ex.response.lines == [b"X-Kept: 1"]


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        (b"a.example", b"/x?y=z", b"https://a.example/x?y=z"),
        (b"a.example:80", b"/", b"https://a.example/"),
        (b"a.example.", b"/", b"https://a.example./"),
        (b"[2001:db8::1]:8080", b"/", b"https://[2001:db8::1]/"),
        (b"192.0.2.1", b"//evil.example/", b"https://192.0.2.1//evil.example/"),
        (b"a.example", b"*", b"https://a.example/"),
    ],
)
def test_plaintext_callers_are_sent_to_the_same_place_over_https(host: bytes, target: bytes, location: bytes) -> None:
    reply = RedirectToHttps(port=443, status=308).on_request(asked(host, target))
    assert reply is not None
    assert (reply.status, reply.body, reply.headers) == (308, b"", ((b"Location", location),))


def test_a_redirect_names_a_port_that_is_not_the_usual_one() -> None:
    reply = RedirectToHttps(port=8443, status=301).on_request(asked(b"a.example:8080", b"/x"))
    assert reply is not None
    assert (reply.status, dict(reply.headers)[b"Location"]) == (301, b"https://a.example:8443/x")


@pytest.mark.parametrize(
    "host", [None, b"", b"a b", b"evil.example%2f", b"a:b:c", b"-", b"a.example:x", b"[::1", b"a;b", b"$(x)", b".", b"a:80:80"]
)
def test_no_redirect_is_made_of_a_malformed_host(host: bytes | None) -> None:
    ex = asked(None)
    if host is not None:
        ex.headers.seen[b"host"] = host
    reply = RedirectToHttps(port=443, status=308).on_request(ex)
    assert reply is not None
    assert reply.status == 400


def test_nobody_is_redirected_over_tls_and_no_tunnel() -> None:
    redirect = RedirectToHttps(port=443, status=308)
    assert redirect.on_request(asked(secured=SECURED)) is None
    assert redirect.on_request(asked(method=b"CONNECT")) is None


@pytest.mark.parametrize("host", [b"a.example", b"A.Example:8443", b"a.example.", b"b.example", b"x.c.example"])
def test_requests_for_hosts_of_the_connection_pass(host: bytes) -> None:
    assert CheckServerName().on_request(asked(host, secured=SECURED)) is None


@pytest.mark.parametrize("host", [b"other.example", b"c.example", b"x.y.c.example", b"192.0.2.1", b"a.example%2e", b".c.example"])
def test_a_request_for_another_host_is_misdirected(host: bytes) -> None:
    check = CheckServerName()
    reply = check.on_request(asked(host, secured=SECURED))
    assert reply is not None
    assert reply.status == 421
    assert b"a.example" in reply.body
    assert check.refused == 1


def test_a_name_that_was_asked_for_passes_though_the_default_certificate_is_for_others() -> None:
    secured = Secured(server_name="new.example", certificate_names=frozenset({"a.example"}))
    assert CheckServerName().on_request(asked(b"new.example", secured=secured)) is None


@pytest.mark.parametrize(
    "ex",
    [asked(b"x.example"), asked(b"x.example", secured=Secured(certificate_names=frozenset({"a.example"}))), asked(None, secured=SECURED)],
)
def test_plaintext_connections_and_those_without_a_name_pass(ex: Exchange) -> None:
    assert CheckServerName().on_request(ex) is None
