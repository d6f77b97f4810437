"""``l5d-client-id`` is ours alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.core.secured import Secured
from meshgw.filters.context import TAKEN, ServerContext
from meshgw.filters.identity import ClientId, encoded
from meshgw.wire.headers import FieldTable

FORGED = b"L5d-Client-Id: spiffe://mesh/admin"


def arrived(*lines: bytes, identity: str | None = None) -> Exchange:
    ex = Exchange()
    ex.headers = section([b"Host: web", *lines], FieldTable(taken=TAKEN))
    ex.secured = Secured(identity=identity)
    ServerContext(lambda: 1, 0, lambda _ex: None).on_request(ex)
    return ex


def test_what_a_caller_says_of_its_identity_is_forgotten() -> None:
    ex = arrived(FORGED)
    ClientId().on_request(ex)
    assert ex.headers.lines == [b"Host: web"]
    assert ex.header(b"l5d-client-id") is None


def test_a_service_is_told_who_calls() -> None:
    ex = arrived(FORGED, identity="spiffe://mesh/ns/prod/sa/web")
    ClientId().on_request(ex)
    assert ex.headers.lines == [b"Host: web", b"l5d-client-id: spiffe://mesh/ns/prod/sa/web"]
    assert ex.header(b"l5d-client-id") == b"spiffe://mesh/ns/prod/sa/web"


def test_a_plaintext_connection_has_nothing_to_tell() -> None:
    ex = arrived()
    ex.secured = None
    ClientId().on_request(ex)
    assert ex.headers.lines == [b"Host: web"]


@pytest.mark.parametrize(
    ("identity", "value"), [("a b", b"a%20b"), ("a%20b", b"a%2520b"), ("ü", b"%C3%BC"), ("a\r\nX: 1", b"a%0D%0AX:%201")]
)
def test_identities_are_encoded_so_that_no_two_look_alike(identity: str, value: bytes) -> None:
    assert encoded(identity) == value


@given(st.text())
def test_an_encoded_identity_is_visible_ascii(identity: str) -> None:
    assert all(0x20 < byte < 0x7F for byte in encoded(identity))


def test_what_is_remembered_is_bounded() -> None:
    client_id = ClientId()
    for number in range(3000):
        client_id.on_request(arrived(identity=f"spiffe://mesh/{number}"))
    assert len(client_id._known) <= 1024
