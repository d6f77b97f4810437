"""Certificates with their keys, the names they are for, and a store of them by name.

Source: RFC 5280, RFC 9525 (wildcards stand for one whole label), RFC 7468 (PEM); linkerd-config spec 4.4. Certificates come as PEM bytes
from any source: files (``core.tls_files``) or objects of an API. Nothing here reads files or logs, and no text has a key in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL, crypto

MOST_NAMES_SHOWN: Final = 20
"""Names of a certificate that an error lists; some have hundreds."""
_UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    TypeError,
    SSL.Error,
    crypto.Error,
)
"""What the libraries raise for parts of a certificate that are broken or of an unknown kind, each part when it is asked for."""
_PROBLEMS: Final[Mapping[int, str]] = {  # X509_STORE_CTX_get_error(3)
    2: "the certificate of its issuer is missing and not among the trusted ones",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and not trusted",
    19: "its chain ends in a self-signed certificate that is not trusted",
    20: "its issuer is not trusted, or intermediate certificates were not sent",
    21: "its issuer is not trusted, or intermediate certificates were not sent",
    22: "its chain is too long",
    23: "it was revoked",
    24: "its issuer is no authority",
    25: "its chain is longer than an authority in it allows",
    26: "it is not meant for this purpose (extended key usage)",
    27: "it is not trusted",
    28: "it is rejected",
    47: "its name is not permitted by its authority",
    48: "its name is excluded by its authority",
    66: "its key is too weak",
    68: "its signature algorithm is too weak",
}


@attrs.frozen(eq=False)
class KeyPair:
    """A certificate, the certificates between it and a root, and its private key. ``origin`` says in messages where it comes from."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = attrs.field(repr=False)
    key: Any = attrs.field(repr=False)
    origin: str = ""
    names: frozenset[str] = frozenset()
    """DNS names it is for, in lower case; ``*.`` at the beginning stands for one label."""

    @property
    def not_after(self) -> datetime:
        """Until when it is valid."""
        return self.certificate.not_valid_after_utc


def load_pair(certificate: bytes, key: bytes, *, intermediates: bytes = b"", origin: str = "") -> KeyPair:
    """Read PEM: the certificate with or without its intermediates, and its key in PKCS#8, PKCS#1 or SEC1 form.

    Raises ValueError, whose text says what is wrong with which of them.
    """
    first, *rest = load_certificates(certificate)
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise ValueError("the private key is encrypted; it must be readable without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:  # their texts are left out: no byte of a key belongs in a message
        raise ValueError("the private key cannot be read; expected PEM in PKCS#8, PKCS#1 or SEC1 form") from error
    try:
        first.not_valid_after_utc, first.not_valid_before_utc, first.subject  # noqa: B018 - what is broken is found when it is looked at
        is_its_own = _public_bytes(first.public_key()) == _public_bytes(private.public_key())
    except _UNREADABLE as error:
        raise ValueError(f"a part of the certificate cannot be used: {error}") from error
    if not is_its_own:
        raise ValueError("the private key does not belong to the certificate")
    chain = (*rest, *(load_certificates(intermediates) if intermediates else ()))
    pair = KeyPair(first, chain, private, origin, names_of(first))
    _probe(pair)
    return pair


def _probe(pair: KeyPair) -> None:
    """Whether OpenSSL takes it: it refuses keys that are too weak."""
    context: Any = SSL.Context(SSL.TLS_METHOD)
    try:
        context.use_certificate(pair.certificate)
        context.use_privatekey(pair.key)
        for one in pair.chain:
            context.add_extra_chain_cert(one)
    except (SSL.Error, crypto.Error) as error:
        reasons = "; ".join(str(reason[2]) for reason in error.args[0]) if error.args else ""
        raise ValueError(f"the certificate is refused: {reasons or 'no reason given'}") from error
    except (TypeError, ValueError) as error:
        raise ValueError("the key is of a kind that TLS does not use") from error


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text, at least one. Raises ValueError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise ValueError("no PEM certificate in it") from error
        raise ValueError(f"a certificate in it cannot be read: {error}") from error


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """The certificate's names as the extension has them; None without a readable one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):  # broken extensions count as none
        return None


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names of the certificate's subjectAltName."""
    names = alternative_names(certificate)
    return (
        frozenset(name.lower().removesuffix(".") for name in names.get_values_for_type(x509.DNSName)) if names is not None else frozenset()
    )


# What people read


def showing(text: str) -> str:
    """Text out of a certificate, fit for a line of a log: its maker may have put anything there."""
    return "".join(char if char.isprintable() else "?" for char in text[:1000])


def describe_certificate(certificate: x509.Certificate) -> str:
    """Subject, names, issuer and validity on one line."""
    try:
        return _described(certificate)
    except _UNREADABLE as error:
        return showing(f"one that cannot be read: {error}")


def _described(certificate: x509.Certificate) -> str:
    found = alternative_names(certificate)
    names = [f"{_KIND.get(type(name), 'other')}:{name.value}" for name in found] if found is not None else []
    more = f" and {len(names) - MOST_NAMES_SHOWN} more" if len(names) > MOST_NAMES_SHOWN else ""
    return showing(
        f"subject {certificate.subject.rfc4514_string() or '(empty)'}, names {', '.join(names[:MOST_NAMES_SHOWN]) or '(none)'}{more}, "
        f"issuer {certificate.issuer.rfc4514_string() or '(empty)'}, "
        f"valid {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    )


_KIND: Final[Mapping[type[x509.GeneralName], str]] = {
    x509.DNSName: "DNS",
    x509.IPAddress: "IP",
    x509.UniformResourceIdentifier: "URI",
    x509.RFC822Name: "email",
}


def tls_problem(code: int) -> str:
    """OpenSSL's verification error in words, after "the certificate: "."""
    return _PROBLEMS.get(code, f"verification failed (X509 error {code})")


@attrs.frozen
class PeerIdentity:
    """Who a peer is: ``kind`` is ``spiffe``, ``dns`` or ``cn``, after where in the certificate the name stands."""

    name: str
    kind: str

    def __str__(self) -> str:
        return self.name


def identity_of(certificate: x509.Certificate) -> PeerIdentity | None:
    """The SPIFFE id, else the first DNS name, else the common name; None if the certificate has none of them."""
    found = alternative_names(certificate)
    if found is not None:
        spiffe = [uri for uri in found.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith("spiffe://")]
        if len(spiffe) == 1:  # X509-SVID section 2: more than one is no identity at all
            return PeerIdentity(spiffe[0], "spiffe")
        names = [name for name in found.get_values_for_type(x509.DNSName) if not _poses(name)]
        if names:
            return PeerIdentity(names[0].lower(), "dns")
    try:
        common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    except _UNREADABLE:
        return None
    return PeerIdentity(showing(common[0]), "cn") if common and not _poses(common[0]) else None


def _poses(name: str) -> bool:
    """Whether a name that authorities check less strictly looks like a SPIFFE id; by name alone the two could not be told apart."""
    return name.lower().startswith("spiffe:")


# By name


@attrs.frozen(kw_only=True)
class SourceState:
    """One source of certificates, for the admin pages: each certificate's origin, names and end; each error by what it concerns."""

    source: str
    certificates: tuple[tuple[str, tuple[str, ...], datetime], ...]
    errors: Mapping[str, str]


@attrs.frozen(eq=False)
class _Source:
    pairs: tuple[KeyPair, ...]
    errors: Mapping[str, str] = attrs.field(factory=dict)


class CertificateStore:
    """Certificates of several sources by the names they are for; a source replaces its own ones as a whole.

    Exact names come before wildcards; of two certificates for a name the one of the earlier source, and there the first, counts.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self.version = 0
        """Changes with every change of the certificates."""

    def set(self, source: str, pairs: Sequence[KeyPair], errors: Mapping[str, str] | None = None) -> None:
        """Make ``pairs`` the certificates of ``source``; ``errors`` tells of those that could not be had, for the admin pages."""
        self._sources[source] = _Source(tuple(pairs), dict(errors or {}))
        self._changed()

    def remove(self, source: str) -> None:
        """Forget a source."""
        if self._sources.pop(source, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.__dict__.pop("_index", None)

    @cached_property
    def _index(self) -> dict[str, KeyPair]:
        index: dict[str, KeyPair] = {}
        for pair in self.pairs:
            for name in pair.names:
                index.setdefault(name, pair)
        return index

    @property
    def pairs(self) -> tuple[KeyPair, ...]:
        """All certificates, those of earlier sources first."""
        return tuple(pair for source in self._sources.values() for pair in source.pairs)

    @property
    def default(self) -> KeyPair | None:
        """The first of all."""
        return next((pair for source in self._sources.values() for pair in source.pairs), None)

    def of(self, source: str) -> tuple[KeyPair, ...]:
        """The certificates of one source."""
        found = self._sources.get(source)
        return found.pairs if found is not None else ()

    def find(self, server_name: str) -> KeyPair | None:
        """The certificate for a host name in lower case."""
        found = self._index.get(server_name)
        if found is None:
            first, dot, rest = server_name.partition(".")
            if first and dot:
                found = self._index.get(f"*.{rest}")
        return found

    def state(self) -> tuple[SourceState, ...]:
        """What each source has, and what is wrong with it."""
        return tuple(
            SourceState(
                source=name,
                certificates=tuple((pair.origin, tuple(sorted(pair.names)), pair.not_after) for pair in source.pairs),
                errors=source.errors,
            )
            for name, source in self._sources.items()
        )
