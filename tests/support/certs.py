"""Certificates for tests, made by the same code as ``meshgw certs``: an authority, leaves of it, and those that must be refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.serialization import PrivateFormat

from meshgw.cli.certs import Issued, Wanted, make_ca, make_leaf
from meshgw.core.certificates import KeyPair, load_pair

PKCS1_OR_SEC1 = PrivateFormat.TraditionalOpenSSL
SPIFFE = "spiffe://mesh.example/ns/prod/sa/web"


@attrs.frozen
class Authority:
    """A root and what it signs."""

    root: Issued

    @property
    def pem(self) -> bytes:
        return self.root.certificate_pem

    def leaf(
        self,
        *dns: str,
        name: str = "leaf",
        ips: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        client: bool = False,
        key_type: str = "ec",
        days: float = 30,
        issued: datetime | None = None,
    ) -> Issued:
        """A certificate for these names; ``issued`` in the past with few ``days`` makes it expired."""
        wanted = Wanted(name=name, dns=dns, ips=ips, uris=uris, is_client=client, days=days, key_type=key_type)
        return make_leaf(wanted, self.root, issued or datetime.now(UTC))

    def expired(self, *dns: str) -> Issued:
        """One that ended yesterday."""
        return self.leaf(*dns, issued=datetime.now(UTC) - timedelta(days=31))

    def intermediate(self, name: str = "intermediate") -> Authority:
        """An authority below this one."""
        return Authority(make_ca(name, datetime.now(UTC), issuer=self.root, path_length=0))


@cache
def authority(name: str = "tests") -> Authority:
    """The authority of that name; the same one in a whole run, as making keys takes time."""
    return Authority(make_ca(name, datetime.now(UTC)))


def pair_of(issued: Issued, origin: str = "") -> KeyPair:
    """As it is loaded for serving."""
    return load_pair(issued.certificate_pem, issued.key_pem(), origin=origin)


def write_files(issued: Issued, directory: Path, name: str, *, form: PrivateFormat = PrivateFormat.PKCS8) -> tuple[str, str]:
    """``NAME.crt`` and ``NAME.key``; their paths."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    key.write_bytes(issued.key_pem(form))
    certificate.write_bytes(issued.certificate_pem)
    return str(certificate), str(key)
