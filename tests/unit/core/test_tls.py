from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.internet.task import Clock

from fakes.tls import tls_server
from meshgw.core.certificates import CertificateStore, KeyPair
from meshgw.core.tls import (
    ClientSettings,
    ServerSettings,
    TlsConfigError,
    choose_protocol,
    client_context,
    explain,
    is_ip,
    name_problem,
    server_context,
)
from meshgw.core.tls_sides import LOG_SECONDS, MOST_SESSIONS, ClientSecurity, TlsClient, TlsServer
from meshgw.wire.cipher_suites import openssl_name
from meshgw.wire.client_hello import UNRECOGNIZED_NAME, ClientHello, HelloError
from support.certs import authority, pair_of

PAIR = pair_of(authority().leaf("web.example"))


def offered(**settings: object) -> list[str]:
    connection = SSL.Connection(server_context(PAIR, ServerSettings(**settings)), None)  # type: ignore[arg-type]
    return connection.get_cipher_list()


def test_only_forward_secret_authenticated_suites_are_offered() -> None:
    found = offered()
    assert found
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in found)
    assert all("GCM" in name or "CHACHA20" in name for name in found)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("ECDHE-RSA-AES128-GCM-SHA256",), "ECDHE-RSA-AES128-GCM-SHA256"),
        (("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",), "ECDHE-RSA-AES256-GCM-SHA384"),
        (("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",), "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (("TLS_AES_256_GCM_SHA384",), "TLS_AES_256_GCM_SHA384"),
    ],
)
def test_suites_are_known_by_both_names(given: tuple[str, ...], found: str) -> None:
    assert found in offered(ciphers=given)


@pytest.mark.parametrize(
    ("iana", "openssl"),
    [
        ("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
        ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "ECDHE-RSA-AES256-SHA384"),
        ("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "DHE-RSA-AES128-GCM-SHA256"),
        ("HIGH:!aNULL", "HIGH:!aNULL"),
    ],
)
def test_a_standard_name_becomes_that_of_openssl(iana: str, openssl: str) -> None:
    assert openssl_name(iana) == openssl


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ciphers": ("NO-SUCH-SUITE",)}, "ciphers: unknown cipher suite 'NO-SUCH-SUITE'"),
        ({"ciphers": ("ECDHE-RSA-AES128-GCM-SHA256", "Nö")}, "ciphers: unknown cipher suite 'Nö'"),
        ({"ciphers": ("TLS_AES_128_GCM_SHA256",), "protocols": ("TLSv1.2",)}, "ciphers: only suites of TLS 1.3"),
        ({"protocols": ("TLSv1",)}, "protocols: none of TLSv1 is offered; known: TLSv1.2, TLSv1.3"),
        ({"require_client_auth": True, "trust": b"nothing"}, "caCertPath: no PEM certificate in it"),
    ],
)
def test_settings_that_cannot_be_used_tell_why(settings: dict[str, object], text: str) -> None:
    with pytest.raises(TlsConfigError) as caught:
        server_context(PAIR, ServerSettings(**settings))  # type: ignore[arg-type]
    assert str(caught.value).startswith(text)


def test_a_client_with_bad_authorities_tells_so() -> None:
    with pytest.raises(TlsConfigError, match="trustCerts: no PEM certificate"):
        client_context(ClientSettings(trust=b"nothing"))


def test_the_systems_authorities_are_taken_when_none_are_given() -> None:
    assert client_context(ClientSettings()).get_verify_mode() == SSL.VERIFY_PEER


def test_settings_show_neither_keys_nor_authorities() -> None:
    shown = repr(ClientSettings(trust=authority().pem, pair=PAIR)) + repr(ServerSettings(trust=authority().pem))
    assert "PRIVATE" not in shown
    assert "BEGIN" not in shown


def test_a_weak_key_is_refused_with_openssls_reason() -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    weak = KeyPair(builder.sign(key, hashes.SHA256()), (), key, "weak.crt")
    with pytest.raises(TlsConfigError, match=r"weak.crt: .*key too small"):
        server_context(weak, ServerSettings())


@pytest.mark.parametrize(("name", "expected"), [("127.0.0.1", True), ("::1", True), ("web.example", False), ("", False), ("1.2.3", False)])
def test_addresses_are_told_from_names(name: str, expected: bool) -> None:
    assert is_ip(name) is expected


@pytest.mark.parametrize("name", ["", "no name", "a..b", "*.example.com"])
def test_what_is_no_host_name_matches_nothing(name: str) -> None:
    assert name_problem(authority().leaf("web.example").certificate, name)


def test_the_servers_order_of_protocols_counts() -> None:
    assert choose_protocol((b"h2", b"http/1.1"), (b"http/1.1", b"h2")) == b"h2"
    assert choose_protocol((b"h2",), (b"http/1.1",)) is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]), "the peer answered with the alert 'unknown ca'"),
        (SSL.Error([("SSL routines", "", "tls alert handshake failure")]), "the peer answered with the alert 'handshake failure'"),
        (SSL.Error([("SSL routines", "", "tlsv1 unrecognized name")]), "the peer answered with the alert 'unrecognized name'"),
        (SSL.Error([("SSL routines", "", "wrong version number")]), "the peer does not speak TLS (wrong version number)"),
        (SSL.Error([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
        (SSL.Error([]), "OpenSSL gives no reason"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "Unexpected EOF"),
    ],
)
def test_errors_are_explained(error: SSL.Error, text: str) -> None:
    assert explain(error) == text


# --- a listener's


def test_contexts_are_made_once_and_let_go_with_their_certificate() -> None:
    tls = tls_server(PAIR)
    first = tls.choose(ClientHello("web.example"))
    assert tls.choose(ClientHello()) is first
    tls.store.set("test", [pair_of(authority().leaf("web.example"))])
    assert tls.choose(ClientHello()) is not first
    assert len(tls._contexts) == 1


def test_new_settings_make_new_contexts_and_equal_ones_do_not() -> None:
    tls = tls_server(PAIR)
    first = tls.choose(ClientHello())
    tls.settings = ServerSettings()
    assert tls.choose(ClientHello()) is first
    tls.settings = ServerSettings(protocols=("TLSv1.3",))
    assert tls.choose(ClientHello()) is not first


def test_a_listener_without_any_certificate_cannot_start_nor_serve() -> None:
    tls = TlsServer(CertificateStore(), ServerSettings(), clock=Clock().seconds, address="127.0.0.1:4443")
    with pytest.raises(TlsConfigError, match="TLS on 127.0.0.1:4443: there is no certificate"):
        tls.prepare()
    with pytest.raises(HelloError) as caught:
        tls.choose(ClientHello())
    assert caught.value.alert == UNRECOGNIZED_NAME


def test_failures_are_all_counted_but_logged_now_and_then(logged: list[str]) -> None:
    clock = Clock()
    tls = tls_server(PAIR, clock=clock)
    for _ in range(5):
        tls.failed("http", "127.0.0.1:1", "plain HTTP")
    tls.failed("garbage", "127.0.0.1:2", "neither TLS nor HTTP")
    assert logged == [
        "TLS on 127.0.0.1:4443: no connection with 127.0.0.1:1: plain HTTP",
        "TLS on 127.0.0.1:4443: no connection with 127.0.0.1:2: neither TLS nor HTTP",
    ]
    clock.advance(LOG_SECONDS)
    tls.failed("http", "127.0.0.1:3", "plain HTTP")
    assert logged[2:] == ["TLS on 127.0.0.1:4443: no connection with 127.0.0.1:3: plain HTTP (4 more of this kind since the last line)"]
    assert tls.failures == {"http": 6, "garbage": 1}


def test_callers_that_just_leave_are_not_worth_a_warning(logged: list[str]) -> None:
    tls = tls_server(PAIR)
    tls.failed("closed", "127.0.0.1:1", "the peer closed the connection")
    assert logged == []
    assert tls.failures == {"closed": 1}


# --- a client's


def test_validation_needs_a_name() -> None:
    with pytest.raises(TlsConfigError) as caught:
        TlsClient(ClientSecurity(ClientSettings()), None)
    assert str(caught.value) == "tls is configured with validation but 'commonName' is not set"
    assert caught.value.retry_safe


def test_a_name_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TlsConfigError, match="cannot be a host name"):
        TlsClient(ClientSecurity(ClientSettings(trust=authority().pem)), "ü" * 300)


def test_clients_of_one_block_share_a_context_until_it_changes() -> None:
    security = ClientSecurity(ClientSettings(trust=authority().pem))
    first = security.context
    assert security.context is first
    security.settings = ClientSettings(trust=authority().pem)
    assert security.context is first
    security.settings = ClientSettings(trust=authority("other").pem)
    assert security.context is not first


def test_kept_sessions_are_bounded() -> None:
    client = TlsClient(ClientSecurity(ClientSettings(trust=authority().pem)), "web.example")
    connection, _ = client.begin("x")
    session = object()
    connection.get_session = lambda: session  # type: ignore[method-assign,assignment,return-value]
    for number in range(MOST_SESSIONS + 10):
        client.keep(f"127.0.0.1:{number}", connection)
    assert len(client._sessions) == MOST_SESSIONS
    assert not client.has_session("127.0.0.1:0")
    assert client.has_session(f"127.0.0.1:{MOST_SESSIONS + 9}")
