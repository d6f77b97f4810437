"""The ``tls`` blocks of servers, of the admin server, and of clients.

Source: linkerd-config spec 4.4. Which fields are required, and which exclude each other, is told as Linkerd tells it; what Linkerd only
finds out at the first request is asked by :meth:`ClientTls.problem` when a client is built. ``sni`` is meshgw's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import attrs

from meshgw.config.document import at_least, option
from meshgw.config.values import Captures, substitute
from meshgw.wire.cipher_suites import is_for_h2

OFFERED: Final = ("TLSv1.2", "TLSv1.3")
_KNOWN: Final = ("SSLv2Hello", "SSLv3", "TLSv1", "TLSv1.1", *OFFERED)

INCOMPLETE: Final = "tls is configured with validation but 'commonName' is not set"
BOTH_TRUSTS: Final = "Both trustCerts and trustCertsBundle have been set. Only one of them is allowed."


def _protocols(value: Any) -> str | None:
    unknown = [name for name in value if name not in _KNOWN]
    if unknown:
        return f"unknown protocol {unknown[0]!r}; known: {', '.join(OFFERED)}"
    if value and not any(name in OFFERED for name in value):
        return f"none of {', '.join(value)} is offered any more (RFC 8996); known: {', '.join(OFFERED)}"
    return None


def _old_protocols(value: Any) -> str | None:
    old = [name for name in value if name not in OFFERED]
    return f"{', '.join(old)}: not offered any more (RFC 8996), the others are" if old else None


def _present(value: Any) -> str | None:
    """A file is read at start, perhaps on another machine, so its absence here is no error yet."""
    return None if value is None or os.path.exists(value) else f"there is no {value} on this machine now"


def _trust_certs(value: Sequence[str]) -> str | None:
    missing = next((said for said in map(_present, value) if said is not None), None)
    return "deprecated: trustCertsBundle takes one file with all of them" + (f"; {missing}" if missing else "")


def _no_validation(value: Any) -> str | None:
    return "disableValidation: any certificate is taken, so that whoever is in between can read and change everything" if value else None


@attrs.frozen(kw_only=True)
class CertificateFiles:
    """One certificate and its key."""

    cert_path: str = option(notice=_present, doc="File of the certificate in PEM form; intermediate certificates may follow it.")
    key_path: str = option(notice=_present, doc="File of its private key in PEM form: PKCS#8, PKCS#1 or SEC1, without a password.")


@attrs.frozen(kw_only=True)
class SniConfig:
    """Further certificates of a listener, chosen by the server name a caller asks for (meshgw's own option).

    The names come from each certificate's subjectAltName. Changed, new and removed files are seen without restart.
    """

    certificates: tuple[CertificateFiles, ...] = option(default=(), doc="Certificates by their files.")
    directory: str | None = option(
        notice=_present,
        default=None,
        doc="Directory of certificates: `NAME.crt` with `NAME.key`, and `NAME/tls.crt` with `NAME/tls.key` as secrets are mounted.",
        effective="none",
    )
    ingress: bool = option(
        default=False,
        doc="Certificates of the secrets that ingresses name for their hosts; the router has an `io.l5d.ingress` identifier.",
    )
    strict: bool = option(
        default=False,
        doc="Refuse callers that ask for an unknown name, or for none, with the alert `unrecognized_name`; else they get the default.",
    )

    def __attrs_post_init__(self) -> None:
        if not self.certificates and self.directory is None and not self.ingress:
            raise ValueError("sni needs certificates, a directory, or ingress: true")


@attrs.frozen(kw_only=True)
class ServerTls:
    """TLS of a listener. Files are read again when they change; connections that are open stay as they are."""

    cert_path: str | None = option(
        notice=_present,
        default=None,
        doc="File of the certificate in PEM form; intermediate certificates may follow it. Required unless `sni` has some.",
        effective="the first of sni",
    )
    key_path: str | None = option(
        notice=_present,
        default=None,
        doc="File of its private key in PEM form: PKCS#8, PKCS#1 or SEC1, without a password. Required with certPath.",
        effective="the first of sni",
    )
    intermediate_certs_path: str | None = option(
        notice=_present,
        default=None,
        doc="File of the certificates between this one and its root, in PEM form.",
        effective="those in certPath",
    )
    ca_cert_path: str | None = option(
        notice=_present,
        default=None,
        doc="File of the authorities that may sign callers' certificates, in PEM form.",
        effective="the system's",
    )
    require_client_auth: bool = option(default=False, doc="Refuse callers without a certificate of a trusted authority.")
    ciphers: tuple[str, ...] = option(
        default=(),
        doc="Cipher suites in the order of preference, by the names of OpenSSL or IANA.",
    )
    protocols: tuple[str, ...] = option(
        default=(), doc="Versions to offer: TLSv1.2 and TLSv1.3; none given means both.", check=_protocols, notice=_old_protocols
    )
    handshake_timeout_ms: int = option(
        default=10000, doc="Milliseconds that a handshake may take (meshgw's own option).", check=at_least(1)
    )
    sni: SniConfig | None = option(default=None, doc="Further certificates, by server name (meshgw's own option).", effective="off")

    def __attrs_post_init__(self) -> None:
        for name, value in (("certPath", self.cert_path), ("keyPath", self.key_path)):
            other = self.key_path if name == "certPath" else self.cert_path
            if value is None and (self.sni is None or other is not None):
                raise ValueError(f"missing required field '{name}'")


@attrs.frozen(kw_only=True)
class ClientAuth:
    """The certificate to show to services."""

    cert_path: str = option(notice=_present, doc="File of the certificate in PEM form; intermediate certificates may follow it.")
    key_path: str = option(notice=_present, doc="File of its private key in PEM form: PKCS#8, PKCS#1 or SEC1, without a password.")
    intermediate_certs_path: str | None = option(
        notice=_present,
        default=None,
        doc="File of the certificates between this one and its root, in PEM form.",
        effective="those in certPath",
    )


@attrs.frozen(kw_only=True)
class ClientTls:
    """TLS to services."""

    enabled: bool = option(default=True, doc="False speaks plaintext, to take back what an earlier entry of `configs` says.")
    disable_validation: bool = option(
        default=False, doc="Take any certificate. A certificate of our own (clientAuth) is still shown.", notice=_no_validation
    )
    common_name: str | None = option(
        default=None,
        doc="Name, or IP address, that the service's certificate must be for; sent as server name too. `{var}` stands for what the "
        "entry's prefix captured. Required unless disableValidation.",
        effective="none",
    )
    trust_certs: tuple[str, ...] | None = option(
        default=None, doc="Files of trusted authorities in PEM form.", notice=_trust_certs, effective="the system's"
    )
    trust_certs_bundle: str | None = option(
        notice=_present, default=None, doc="File of all trusted authorities in PEM form.", effective="the system's"
    )
    client_auth: ClientAuth | None = option(default=None, doc="Certificate to show to services.", effective="off")
    protocols: tuple[str, ...] = option(
        default=(), doc="Versions to offer: TLSv1.2 and TLSv1.3; none given means both.", check=_protocols, notice=_old_protocols
    )

    def problem(self) -> str | None:
        """Why no client can be built with this, in Linkerd's words; Linkerd answers requests 502 with it, the file is accepted."""
        if not self.enabled:
            return None
        if not self.disable_validation and self.common_name is None:
            return INCOMPLETE
        if self.trust_certs is not None and self.trust_certs_bundle is not None:
            return BOTH_TRUSTS
        return None

    def name_for(self, captures: Captures) -> str | None:
        """The name to expect, with what the entry's prefix captured in it."""
        return substitute(self.common_name, captures) if self.common_name is not None else None

    @property
    def trust_files(self) -> tuple[str, ...]:
        """The files of trusted authorities; none means the system's."""
        if self.trust_certs_bundle is not None:
            return (self.trust_certs_bundle,)
        return self.trust_certs or ()


def client_tls_notice(value: ClientTls) -> str | None:
    """A remark for ``meshgw check`` on a client block that the first request will fail with."""
    problem = value.problem()
    return f"requests will be answered 502: {problem}" if problem is not None else None


def backend_tls_notice(value: ClientTls) -> str | None:
    """The same for the block of a backend, whose certificate must be for its host where no name is given."""
    return client_tls_notice(value if value.common_name is not None else attrs.evolve(value, common_name="host"))


def server_tls_notice(value: ServerTls) -> str | None:
    """A remark for ``meshgw check`` on what has no effect."""
    if value.ca_cert_path is not None and not value.require_client_auth:
        return "caCertPath has no effect without requireClientAuth: true"
    return None


def h2_server_tls_notice(value: ServerTls) -> str | None:
    """The same for a listener of HTTP/2."""
    bad = [cipher for cipher in value.ciphers if not is_for_h2(cipher)]
    if bad:
        return f"ciphers: {', '.join(bad)}: callers may refuse to speak HTTP/2 over it (RFC 9113, 9.2.2), so it is preferred to no other"
    return server_tls_notice(value)
