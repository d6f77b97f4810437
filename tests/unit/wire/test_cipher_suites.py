"""Which cipher suites HTTP/2 may use, by their names."""

from __future__ import annotations

import pytest

from meshgw.core.tls import CIPHERS
from meshgw.wire.cipher_suites import is_for_h2


@pytest.mark.parametrize(
    "cipher",
    [
        *CIPHERS.split(":"),
        "TLS_AES_128_GCM_SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ],
)
def test_ephemeral_suites_with_authenticated_encryption_are_for_http2(cipher: str) -> None:
    assert is_for_h2(cipher)


@pytest.mark.parametrize(
    "cipher",
    [
        "AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA",
        "DHE-RSA-AES128-SHA",
        "ECDH-RSA-AES128-GCM-SHA256",
        "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
        "NULL-SHA256",
    ],
)
def test_suites_on_the_block_list_are_not(cipher: str) -> None:
    assert not is_for_h2(cipher)
