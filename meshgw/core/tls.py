"""TLS contexts for both sides from settings and PEM bytes, the errors of handshakes, and who a peer is by its certificate.

Source: linkerd-config spec 4.4; RFC 8446, RFC 5246, RFC 9525 (names in certificates), the SPIFFE X509-SVID standard, and Mozilla's
"intermediate" recommendation for what is offered by default. Where certificates come from is ``core.certificates`` and
``core.tls_files``; the connection is ``core.tls_connection``. Keys and certificates are never logged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, cast

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern, verify_service_identity

from meshgw.core.certificates import KeyPair, alternative_names, describe_certificate, load_certificates, showing, tls_problem
from meshgw.errors import ConnectError
from meshgw.wire.cipher_suites import is_for_h2, openssl_name

TLS_1_2: Final = SSL.TLS1_2_VERSION
TLS_1_3: Final = SSL.TLS1_3_VERSION
PROTOCOLS: Final = {"TLSv1.2": TLS_1_2, "TLSv1.3": TLS_1_3}
"""Versions that are offered, by their name in the file. Older ones are broken (RFC 8996)."""
# Mozilla, server-side TLS, "intermediate", without its finite-field suites; those of TLS 1.3 are OpenSSL's own default.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
PRIORITIZE_CHACHA: Final = 1 << 21
"""SSL_OP_PRIORITIZE_CHACHA of OpenSSL, which its binding does not name."""
_SAFE: Final[int] = SSL.OP_NO_COMPRESSION | vars(SSL)["OP_NO_RENEGOTIATION"]  # a name that the published stubs lack
_SESSION_CONTEXT = b"meshgw"
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: what is trusted need not be self-signed, as with Java's trust stores


@attrs.frozen(kw_only=True)
class HandshakeFailed(ConnectError):
    """TLS with an endpoint could not be established; nothing of a request was sent."""

    selected: str
    reason: str

    def __str__(self) -> str:
        return f"TLS handshake with {self.selected} failed: {self.reason}"


@attrs.frozen(kw_only=True)
class VerificationFailed(HandshakeFailed):
    """The endpoint's certificate is not one that may be talked to. ``shown`` tells of the certificate, never its key."""

    expected: str
    shown: str

    def __str__(self) -> str:
        return f"TLS certificate of {self.selected} refused: {self.reason}; expected name: {self.expected}; certificate shown: {self.shown}"


@attrs.frozen(kw_only=True)
class TlsConfigError(ConnectError):
    """What TLS is configured with cannot be used: ``what`` names the file or option."""

    phase: ClassVar[str] = "config"
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" if self.what else self.reason


@attrs.frozen(kw_only=True)
class ServerSettings:
    """How a listener speaks TLS, apart from its certificates. ``trust`` is the PEM of the authorities of clients, empty the system's."""

    require_client_auth: bool = False
    trust: bytes = attrs.field(default=b"", repr=False)
    protocols: tuple[str, ...] = ()
    ciphers: tuple[str, ...] = ()
    alpn: tuple[bytes, ...] = ()


@attrs.frozen(kw_only=True)
class ClientSettings:
    """How TLS is spoken to endpoints. ``trust`` is the PEM of the trusted authorities, empty the system's; ``pair`` is our own."""

    validate: bool = True
    trust: bytes = attrs.field(default=b"", repr=False)
    pair: KeyPair | None = None
    protocols: tuple[str, ...] = ()
    alpn: tuple[bytes, ...] = ()


def server_context(pair: KeyPair, settings: ServerSettings) -> SSL.Context:
    """A context that shows ``pair``. Raises :class:`TlsConfigError`."""
    ciphers = settings.ciphers
    if b"h2" in settings.alpn:  # the others come last, for callers that know nothing better (RFC 9113 section 9.2.2)
        ciphers = tuple(sorted(ciphers, key=lambda cipher: not is_for_h2(cipher)))
    context = _context(SSL.TLS_SERVER_METHOD, settings.protocols, ciphers)
    use_pair(context, pair)
    # Sessions live in tickets that clients keep; OpenSSL's own cache would hold 20,000 of them for each certificate.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSION_CONTEXT)  # without it OpenSSL refuses to resume sessions with client certificates
    # The order is ours, but for clients that put ChaCha20 first, since they have no AES in hardware.
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | PRIORITIZE_CHACHA)
    if settings.require_client_auth:
        # The authorities are not listed for the client, which has one certificate as a rule; the binding's way to list them is deprecated.
        _trust(context, settings.trust, "caCertPath")
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    if settings.alpn:
        context.set_alpn_select_callback(lambda _connection, offered: choose_protocol(settings.alpn, offered) or settings.alpn[0])
    return context


def client_context(settings: ClientSettings) -> SSL.Context:
    """A context for connections to endpoints. Raises :class:`TlsConfigError`."""
    context = _context(SSL.TLS_CLIENT_METHOD, settings.protocols, ())
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # sessions are kept by ``core.tls_sides``, which knows the server's name
    if settings.validate:
        _trust(context, settings.trust, "trustCerts")
        context.set_verify(SSL.VERIFY_PEER, _verify)
    else:
        context.set_verify(SSL.VERIFY_NONE, _accept)
    if settings.pair is not None:
        use_pair(context, settings.pair)
    if settings.alpn:
        context.set_alpn_protos(list(settings.alpn))
    return context


def choose_protocol(ours: Sequence[bytes], offered: Sequence[bytes]) -> bytes | None:
    """The first of ``ours`` that the client offers too (RFC 7301 leaves the choice to the server)."""
    return next((protocol for protocol in ours if protocol in offered), None)


def _context(method: int, protocols: Sequence[str], ciphers: Sequence[str]) -> SSL.Context:
    context = SSL.Context(method)
    context.set_options(_SAFE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # measured: half the memory of an idle connection (54 for 108 KB a pair), no time
    versions = [PROTOCOLS[name] for name in protocols if name in PROTOCOLS] or list(PROTOCOLS.values())
    if protocols and not any(name in PROTOCOLS for name in protocols):
        raise TlsConfigError(what="protocols", reason=f"none of {', '.join(protocols)} is offered; known: {', '.join(PROTOCOLS)}")
    older, newer = _suites(ciphers)
    if ciphers and not older:
        versions = [version for version in versions if version == TLS_1_3]
        if not versions:
            raise TlsConfigError(what="ciphers", reason="only suites of TLS 1.3, which `protocols` leaves out")
    context.set_min_proto_version(min(versions))
    context.set_max_proto_version(max(versions))
    context.set_cipher_list((":".join(older) or CIPHERS).encode())
    if newer:
        context.set_tls13_ciphersuites(":".join(newer).encode())
    return context


def _suites(ciphers: Iterable[str]) -> tuple[list[str], list[str]]:
    """The suites of TLS 1.2 and of TLS 1.3, as OpenSSL calls them, each found to exist. Raises :class:`TlsConfigError`."""
    older: list[str] = []
    newer: list[str] = []
    for cipher in ciphers:
        is_new = cipher.startswith("TLS_") and "_WITH_" not in cipher
        name = cipher if is_new else openssl_name(cipher)
        probe = SSL.Context(SSL.TLS_METHOD)
        if is_new and not hasattr(probe, "set_tls13_ciphersuites"):
            raise TlsConfigError(what="ciphers", reason=f"choosing {cipher!r} needs pyOpenSSL 25.2 or later")
        try:
            if is_new:
                probe.set_tls13_ciphersuites(name.encode())
            else:
                probe.set_cipher_list(name.encode())
        except (SSL.Error, UnicodeError) as error:
            raise TlsConfigError(what="ciphers", reason=f"unknown cipher suite {cipher!r}") from error
        (newer if is_new else older).append(name)
    return older, newer


def use_pair(context: SSL.Context, pair: KeyPair) -> None:
    """Make ``context`` show ``pair``. Raises :class:`TlsConfigError`."""
    try:
        # cast: the published stubs know only the older wrappers, which the library itself warns about
        context.use_certificate(cast("Any", pair.certificate))
        context.use_privatekey(cast("Any", pair.key))
        for one in pair.chain:
            context.add_extra_chain_cert(cast("Any", one))
        context.check_privatekey()
    except SSL.Error as error:
        raise TlsConfigError(what=pair.origin, reason=explain(error)) from error


def _trust(context: SSL.Context, pem: bytes, what: str) -> None:
    """Trust the authorities in ``pem``, or the system's when it is empty."""
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(_PARTIAL_CHAIN)
    if not pem:
        context.set_default_verify_paths()
        return
    try:
        authorities = load_certificates(pem)
    except ValueError as error:
        raise TlsConfigError(what=what, reason=str(error)) from error
    for one in authorities:
        store.add_cert(crypto.X509.from_cryptography(one))


# Verification


class Check:
    """What one connection expects of its peer's certificate, and why that was refused; OpenSSL's callback writes it down."""

    __slots__ = ("expected", "ran", "reason", "shown")

    def __init__(self, expected: str | None) -> None:
        self.expected = expected
        """The name to look for; None takes any certificate of a trusted authority."""
        self.reason = self.shown = ""
        self.ran = False
        """Whether a certificate was looked at; a resumed session has none to look at, its first handshake had."""


class CheckedConnection(SSL.Connection):
    """A connection that carries its check. Its app data would be the place for that, but Twisted puts its own protocol there."""

    check: Check


def _verify(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
    """OpenSSL asks for each certificate from the root down, and once for the first that is in error."""
    check = cast("CheckedConnection", connection).check
    check.ran = True
    if not ok:
        chain = connection.get_peer_cert_chain()
        check.shown = describe_certificate((chain[0] if chain else certificate).to_cryptography())
        whose = "" if depth == 0 else f" (of the issuer {showing(certificate.to_cryptography().subject.rfc4514_string())})"
        check.reason = tls_problem(code) + whose
        return False
    if depth == 0 and check.expected is not None:
        leaf = certificate.to_cryptography()
        problem = name_problem(leaf, check.expected)
        if problem:
            check.reason, check.shown = problem, describe_certificate(leaf)
            return False
    return True


def _accept(_connection: SSL.Connection, _certificate: crypto.X509, _code: int, _depth: int, _ok: int) -> bool:
    return True


def name_problem(certificate: x509.Certificate, expected: str) -> str:
    """Why the certificate is not one of ``expected``, a host name or an IP address; empty when it is."""
    try:
        wanted = IPAddress_ID(expected) if is_ip(expected) else DNS_ID(expected)
        patterns = _patterns(certificate)
        if not patterns:
            return "the certificate has no subjectAltName that could match (its common name does not count)"
        verify_service_identity(patterns, [wanted], [])
    except VerificationError:
        return "the certificate is for other names"
    except (CertificateError, ValueError) as error:  # the expected name is none, or the extension is broken
        return f"the names cannot be compared: {error}"
    return ""


def _patterns(certificate: x509.Certificate) -> list[DNSPattern | IPAddressPattern]:
    """The names to compare; one that is none, ``*.local`` for example, does not spoil the others."""
    names = alternative_names(certificate)
    found: list[DNSPattern | IPAddressPattern] = []
    if names is not None:
        for name in names.get_values_for_type(x509.DNSName):
            try:
                found.append(DNSPattern.from_bytes(name.encode("utf-8")))
            except CertificateError:
                continue
        addresses = names.get_values_for_type(x509.IPAddress)
        found += [IPAddressPattern(ip) for ip in addresses if isinstance(ip, ipaddress.IPv4Address | ipaddress.IPv6Address)]
    return found


def is_ip(name: str) -> bool:
    """Whether a name is a literal IP address, for which no server name is sent (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def explain(error: SSL.Error) -> str:
    """What OpenSSL says, with an alert of the peer named as such."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    texts = [str(reason[2]) for reason in reasons if reason[2]]
    if not texts:
        return str(error.args[-1]) if isinstance(error, SSL.SysCallError) else "OpenSSL gives no reason"
    text = texts[0]
    _, is_alert, name = text.partition(" alert ")
    if not is_alert and text.startswith("tlsv1 "):  # OpenSSL leaves the word out in some: "tlsv1 unrecognized name"
        is_alert, name = " ", text.removeprefix("tlsv1 ")
    if is_alert:
        return f"the peer answered with the alert {name!r}"
    if text in ("wrong version number", "http request", "packet length too long"):
        return f"the peer does not speak TLS ({text})"
    return "; ".join(texts)
