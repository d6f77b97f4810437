"""Services of Curator's discovery: what an instance's node tells (linkerd-config spec 3.7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.backends.endpoints import Endpoint, Endpoints
from meshgw.backends.zk_groups import Group
from meshgw.namers.curator import Instance, found_instances, read_instance


def written(**fields: Any) -> bytes:
    """As Curator writes an instance."""
    whole = {
        "name": "shop",
        "id": "4d2a",
        "address": "10.0.0.1",
        "port": 80,
        "sslPort": None,
        "payload": {"@class": "com.example.Details"},
        "registrationTimeUTC": 1500000000000,
        "serviceType": "DYNAMIC",
        "uriSpec": None,
        **fields,
    }
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (written(), Instance("10.0.0.1", 80)),
        (written(sslPort=443), Instance("10.0.0.1", 443, is_ssl=True)),
        (written(port=None, sslPort=443), Instance("10.0.0.1", 443, is_ssl=True)),
        (written(enabled=False), Instance("10.0.0.1", 80, is_enabled=False)),
        (written(enabled=True), Instance("10.0.0.1", 80)),
    ],
)
def test_an_instance_tells_where_it_is_and_how_it_is_spoken_to(data: bytes, expected: Instance) -> None:
    assert read_instance(data) == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"[]", b"\xff", written(address=None), written(address=""), written(port=None), written(port="80"), written(sslPort=0)],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_instance(data)


@given(st.binary())
def test_no_data_raises_anything_but_a_value_error(data: bytes) -> None:
    try:
        read_instance(data)
    except ValueError:
        pass


def test_a_service_with_any_instance_for_tls_says_ssl() -> None:
    plain, secure, disabled = Instance("a", 1), Instance("b", 2, is_ssl=True), Instance("c", 3, is_ssl=True, is_enabled=False)
    assert found_instances(Group((plain, secure))) == Endpoints((Endpoint("a", 1), Endpoint("b", 2)), {"ssl": True})
    assert found_instances(Group((plain, disabled))) == Endpoints((Endpoint("a", 1),), {"ssl": False})


def test_a_service_nobody_knows_has_no_endpoints_but_exists() -> None:
    assert found_instances(Group((), exists=False)) == Endpoints((), {"ssl": False})
