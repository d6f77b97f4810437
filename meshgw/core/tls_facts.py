"""What can be asked about a TLS connection: its counters, what both sides agreed on, and who the peer is.

Source: DATAPATH.md, design point 6; RFC 7301; the SPIFFE X509-SVID standard. Reading only: nothing here changes a connection.
"""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL

from meshgw.core.certificates import PeerIdentity, identity_of
from meshgw.core.transport import Connection


class TlsFacts:
    """The facts about one TLS connection over the plain connection ``raw``."""

    __slots__ = ("_identity", "_raw", "_ssl")

    def __init__(self, raw: Connection) -> None:
        self._raw = raw
        self._ssl: SSL.Connection | None = None
        self._identity: PeerIdentity | None = None

    @property
    def received(self) -> int:
        """Bytes of the whole connection, as they came over the network."""
        return self._raw.received

    @property
    def sent(self) -> int:
        """Bytes of the whole connection, as they went over the network."""
        return self._raw.sent

    @property
    def blocked(self) -> float:
        """See :class:`meshgw.core.stream.Stream`."""
        return self._raw.blocked

    @property
    def flushed(self) -> int:
        """Bytes that had to wait and were sent then."""
        return self._raw.flushed

    @property
    def is_readable(self) -> bool:
        """Whether bytes or the end are there to be read. With TLS they may also be a session ticket, which no owner ever sees."""
        return self._raw.is_readable

    @property
    def alpn(self) -> bytes:
        """The protocol both sides agreed on; empty if they did not."""
        return self._ssl.get_alpn_proto_negotiated() if self._ssl is not None else b""

    @property
    def version(self) -> str:
        """The protocol's version, ``TLSv1.3`` for example."""
        return self._ssl.get_protocol_version_name() if self._ssl is not None else ""

    @property
    def cipher(self) -> str:
        """The cipher suite by OpenSSL's name."""
        return (self._ssl.get_cipher_name() if self._ssl is not None else None) or ""

    def peer_certificate(self) -> x509.Certificate | None:
        """The peer's certificate, if it showed one."""
        found = self._ssl.get_peer_certificate() if self._ssl is not None else None
        return found.to_cryptography() if found is not None else None

    def peer_identity(self) -> PeerIdentity | None:
        """Who the peer is by its certificate, which was verified unless validation is off; None without one."""
        if self._identity is None:
            certificate = self.peer_certificate()
            self._identity = identity_of(certificate) if certificate is not None else None
        return self._identity
