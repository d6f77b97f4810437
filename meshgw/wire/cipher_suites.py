"""What names of TLS cipher suites tell. OpenSSL itself is asked in ``core.tls`` only.

Source: RFC 5246 appendix C and IANA's registry for their names; RFC 9113 section 9.2.2 and appendix A for what HTTP/2 may not use.
"""

from __future__ import annotations


def openssl_name(cipher: str) -> str:
    """OpenSSL's name of a cipher suite that is given by the name that IANA and Java use; other names stay as they are."""
    exchange, found, rest = cipher.removeprefix("TLS_").partition("_WITH_")
    if not found or not cipher.startswith("TLS_"):
        return cipher
    name = rest.replace("AES_", "AES").replace("_CBC", "").replace("_", "-").replace("POLY1305-SHA256", "POLY1305")
    return name if exchange == "RSA" else f"{exchange.replace('_', '-')}-{name}"


def is_for_h2(cipher: str) -> bool:
    """Whether a cipher suite, by either name, may be used with HTTP/2: an ephemeral key exchange and AEAD (RFC 9113 appendix A)."""
    name = openssl_name(cipher)
    return name.startswith("TLS_") or (name.startswith(("ECDHE-", "DHE-")) and any(mode in name for mode in ("-GCM-", "CHACHA20", "-CCM")))
