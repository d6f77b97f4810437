"""``meshgw certs``: a certificate authority and certificates of it, for trying TLS out and for tests.

Source: RFC 5280 (profile), RFC 6125 and 9525 (names), the SPIFFE X509-SVID standard (URI names). It is no replacement for a real
authority: the key of the CA lies in a file. Keys are written with mode 0600, and nothing is overwritten without ``--force``.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 365
CLOCK_SKEW: Final = timedelta(minutes=5)  # machines whose clocks are a little behind take the certificate at once
RSA_BITS: Final = 2048
_LONGEST_COMMON_NAME: Final = 64  # RFC 5280, ub-common-name

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Write = Callable[[str], object]


class Trouble(Exception):
    """The command cannot be carried out; the text is for the operator."""


@attrs.frozen
class Issued:
    """A certificate, its key, and the certificates between it and its root."""

    certificate: x509.Certificate
    key: Key = attrs.field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, followed by its chain."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.chain))

    def key_pem(self, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
        """The key in PKCS#8, or with TraditionalOpenSSL in PKCS#1 or SEC1 form."""
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@attrs.frozen(kw_only=True)
class Wanted:
    """What a certificate is to be: its common name, other names, purpose, and validity."""

    name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    is_client: bool = False
    days: float = LEAF_DAYS
    key_type: str = "ec"


def new_key(kind: str) -> Key:
    """A new private key: ``ec`` on P-256, or ``rsa`` with 2048 bits."""
    return rsa.generate_private_key(65537, RSA_BITS) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def make_ca(
    name: str, now: datetime, *, days: float = CA_DAYS, key_type: str = "ec", issuer: Issued | None = None, path_length: int | None = None
) -> Issued:
    """An authority: a root, or with ``issuer`` an intermediate one."""
    key = new_key(key_type)
    builder = _builder(name, key, now, days, issuer)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(usage, critical=True)
    return _signed(builder, key, issuer)


def make_leaf(wanted: Wanted, ca: Issued, now: datetime) -> Issued:
    """A certificate that ``ca`` signs. Raises ValueError for a name that cannot be one."""
    key = new_key(wanted.key_type)
    builder = _builder(wanted.name, key, now, wanted.days, ca)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] if wanted.is_client else [ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.dns]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in wanted.ips]
    names += [x509.UniformResourceIdentifier(uri) for uri in wanted.uris]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, key, ca)


def _builder(name: str, key: Key, now: datetime, days: float, issuer: Issued | None) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_COMMON_NAME])])
    builder = x509.CertificateBuilder(serial_number=x509.random_serial_number())
    end = now + timedelta(days=days)
    builder = builder.subject_name(subject).issuer_name(issuer.certificate.subject if issuer is not None else subject)
    builder = builder.public_key(key.public_key()).not_valid_before(min(now, end) - CLOCK_SKEW).not_valid_after(end)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signer = issuer.key.public_key() if issuer is not None else key.public_key()
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _signed(builder: x509.CertificateBuilder, key: Key, issuer: Issued | None) -> Issued:
    if issuer is None:
        return Issued(builder.sign(key, hashes.SHA256()), key)
    is_root = issuer.certificate.subject == issuer.certificate.issuer
    chain = () if is_root else (issuer.certificate, *issuer.chain)
    return Issued(builder.sign(issuer.key, hashes.SHA256()), key, chain)


# Files


def write_pair(issued: Issued, certificate: Path, key: Path, *, force: bool) -> None:
    """Write both files. Raises :class:`Trouble` if one exists already and ``force`` is not given."""
    for path in (certificate, key):
        if path.exists() and not force:
            raise Trouble(f"{path} exists already; --force replaces it")
    _replace(key, issued.key_pem(), 0o600)
    _replace(certificate, issued.certificate_pem, 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a complete file into place; the key is never readable by others, not even for a moment."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.replace(path)


def read_ca(directory: Path) -> Issued:
    """The authority that ``meshgw certs ca`` made in ``directory``. Raises :class:`Trouble`."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except FileNotFoundError as error:
        raise Trouble(f"{error.filename} does not exist; make a CA first: meshgw certs ca --dir {directory}") from error
    except (OSError, ValueError, TypeError) as error:
        raise Trouble(f"the CA in {directory} cannot be read: {error.__class__.__name__}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Trouble(f"the key of the CA in {directory} is neither EC nor RSA")
    return Issued(certificate, key)


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.description = "Make a certificate authority and certificates of it, for trying TLS out."
    commands = parser.add_subparsers(required=True, metavar="{ca,leaf}")
    ca = commands.add_parser("ca", help="make an authority: ca.crt and ca.key")
    ca.add_argument("--name", default="meshgw test CA", help="its name (default: %(default)s)")
    _common(ca, CA_DAYS)
    ca.set_defaults(make=_make_ca)
    leaf = commands.add_parser("leaf", help="make a certificate of the authority in the directory: NAME.crt and NAME.key")
    leaf.add_argument("--name", required=True, help="its common name, and the name of its files; also a DNS name if no other is given")
    leaf.add_argument("--dns", action="append", default=[], metavar="NAME", help="a DNS name; may be repeated, *.NAME is a wildcard")
    leaf.add_argument("--ip", action="append", default=[], metavar="ADDRESS", help="an IP address; may be repeated")
    leaf.add_argument("--uri", action="append", default=[], metavar="URI", help="a URI such as spiffe://mesh.example/web; may be repeated")
    leaf.add_argument("--client", action="store_true", help="for a client that shows it to servers")
    _common(leaf, LEAF_DAYS)
    leaf.set_defaults(make=_make_leaf)


def _common(parser: argparse.ArgumentParser, days: int) -> None:
    parser.add_argument("--dir", required=True, type=Path, help="directory of the files; it is made if need be")
    parser.add_argument("--days", type=float, default=days, help="days until it expires (default: %(default)s)")
    parser.add_argument("--key-type", choices=("ec", "rsa"), default="ec", help="kind of key (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def run(options: argparse.Namespace, write: Write) -> int:
    """Carry the subcommand out; the exit status."""
    try:
        if options.days <= 0:
            raise Trouble("--days must be positive")
        options.dir.mkdir(parents=True, exist_ok=True)
        options.make(options, write)
    except (Trouble, OSError, ValueError) as error:
        sys.stderr.write(f"meshgw certs: {error}\n")
        return 2
    return 0


def _make_ca(options: argparse.Namespace, write: Write) -> None:
    ca = make_ca(options.name, datetime.now(UTC), days=options.days, key_type=options.key_type)
    _write(ca, options, "ca", write)


def _make_leaf(options: argparse.Namespace, write: Write) -> None:
    name = options.name
    if name in ("", ".", "..", "ca") or "/" in name or "\0" in name:
        raise Trouble(f"--name {name!r} cannot be the name of a file beside the CA's")
    dns = tuple(options.dns)
    if not (dns or options.ip or options.uri):
        dns = (name,)
    wanted = Wanted(
        name=name,
        dns=dns,
        ips=tuple(options.ip),
        uris=tuple(options.uri),
        is_client=options.client,
        days=options.days,
        key_type=options.key_type,
    )
    _write(make_leaf(wanted, read_ca(options.dir), datetime.now(UTC)), options, name, write)


def _write(issued: Issued, options: argparse.Namespace, name: str, write: Write) -> None:
    certificate, key = options.dir / f"{name}.crt", options.dir / f"{name}.key"
    write_pair(issued, certificate, key, force=options.force)
    write(f"{certificate}\n{key}\n")


def main(argv: Sequence[str], write: Write) -> int:
    """Run ``certs`` with its own arguments; for tests and other tools."""
    parser = argparse.ArgumentParser(prog="meshgw certs")
    add_arguments(parser)
    return run(parser.parse_args(list(argv)), write)
