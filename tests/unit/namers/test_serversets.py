"""Server sets: what a member's node tells, and what a name wants of a set (linkerd-config spec 3.3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints
from meshgw.backends.zk_groups import Group
from meshgw.namers.serversets import Member, SetName, member_data, members, read_member
from meshgw.naming.path import Path

PLACE = {"host": "10.0.0.1", "port": 80}


def written(**fields: Any) -> bytes:
    return json.dumps({"serviceEndpoint": PLACE, "additionalEndpoints": {}, "status": "ALIVE", **fields}).encode()


def test_a_member_tells_its_status_its_endpoints_and_its_shard() -> None:
    member = read_member(written(additionalEndpoints={"admin": {"host": "10.0.0.1", "port": 9990}}, shard=3))
    assert member == Member("ALIVE", {None: ("10.0.0.1", 80), "admin": ("10.0.0.1", 9990)}, 3)


def test_a_member_without_shard_and_additional_endpoints_is_one() -> None:
    assert read_member(json.dumps({"serviceEndpoint": PLACE, "status": "DEAD"}).encode()) == Member("DEAD", {None: ("10.0.0.1", 80)})


def test_what_we_announce_is_a_member() -> None:
    assert read_member(member_data("10.0.0.1", 80)) == Member("ALIVE", {None: ("10.0.0.1", 80)}, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"junk", "no JSON"),
        (b"\xff", "no JSON in UTF-8"),
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (written(status=None), "no status"),
        (written(serviceEndpoint=None), "no serviceEndpoint"),
        (written(serviceEndpoint={"host": "", "port": 80}), "serviceEndpoint is no host and port"),
        (written(serviceEndpoint={"host": "a", "port": "80"}), "serviceEndpoint is no host and port"),
        (written(serviceEndpoint={"host": "a", "port": True}), "serviceEndpoint is no host and port"),
        (written(serviceEndpoint={"host": "a", "port": 65536}), "serviceEndpoint is no host and port"),
        (written(additionalEndpoints={"admin": {"host": 1, "port": 80}}), "additionalEndpoints.admin is no host and port"),
    ],
)
def test_what_is_no_member_is_told_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_member(data)


@given(
    st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(lambda found: json.dumps(found).encode())
)
def test_no_data_raises_anything_else(data: bytes) -> None:
    try:
        read_member(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/prod/web", SetName("/prod/web")),
        ("/prod/web:admin", SetName("/prod/web", "admin")),
        ("/prod/web#7", SetName("/prod/web", None, 7)),
        ("/prod/web:admin#0", SetName("/prod/web", "admin", 0)),
        ("/prod:x/web", SetName("/prod:x/web")),
        ("/prod/web#x", None),
        ("/prod/web#1:admin", None),
        ("/prod/:admin", None),
        (r"/prod/a\x2fb", None),
        (r"/prod/../web", None),
        (r"/prod/a\x00b", None),
        (r"/prod/\xff", None),
    ],
)
def test_a_name_tells_a_set_an_endpoint_and_a_shard(path: str, expected: SetName | None) -> None:
    assert SetName.read(Path.read(path)) == expected


ONE = Member("ALIVE", {None: ("a", 1), "admin": ("a", 2)}, 0)
OTHER = Member("ALIVE", {None: ("b", 1)}, 1)
DYING = Member("STOPPING", {None: ("c", 1), "admin": ("c", 2)}, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (SetName("/web"), (Endpoint("a", 1), Endpoint("b", 1))),
        (SetName("/web", "admin"), (Endpoint("a", 2),)),
        (SetName("/web", None, 1), (Endpoint("b", 1),)),
        (SetName("/web", "admin", 1), ()),
        (SetName("/web", "none"), ()),
    ],
)
def test_only_members_that_are_alive_and_have_what_is_wanted_count(name: SetName, expected: tuple[Endpoint, ...]) -> None:
    assert name.found(Group((ONE, OTHER, DYING))) == (Endpoints(expected) if expected else NO_ENDPOINTS)


def test_a_set_without_members_is_unknown_like_one_that_does_not_exist() -> None:
    assert SetName("/web").found(Group(())) == SetName("/web").found(Group((), exists=False)) == NO_ENDPOINTS


def test_two_members_at_one_place_are_one_endpoint() -> None:
    assert SetName("/web").found(Group((ONE, ONE))) == Endpoints((Endpoint("a", 1),))


def test_only_children_called_members_are_read() -> None:
    assert members(["member_0000000001", "vector_0000000002", "lock"]) == ["member_0000000001"]
