"""What is known of a caller's connection once its TLS handshake is done; filters read it from ``Exchange.secured``.

Source: the SPIFFE X509-SVID standard; RFC 6066 section 3 (server name). Values only: they are gathered where connections are accepted.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Secured:
    """The facts about one connection, the same for all of its requests.

    ``identity`` is the SPIFFE id of a certificate that was verified, else its DNS name, else its common name; None without a certificate.
    ``server_name`` is the host name the caller asked for, in lower case. ``certificate_names`` are the DNS names of the certificate it was
    shown, in lower case; ``*.`` at the beginning stands for one label.
    """

    identity: str | None = None
    server_name: str | None = None
    certificate_names: frozenset[str] = frozenset()
    version: str = ""
    cipher: str = ""

    def is_for(self, host: str) -> bool:
        """Whether requests for ``host`` (lower case, without port) belong on this connection: it was asked for or is certified."""
        if host == self.server_name or host in self.certificate_names:
            return True
        first, dot, rest = host.partition(".")
        return bool(first and dot and rest) and f"*.{rest}" in self.certificate_names
