"""Leaders in ZooKeeper: who leads, and what a leader wrote down (linkerd-config spec 3.7 and 3.13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints
from meshgw.backends.zk_groups import Group
from meshgw.namers.zk_leader import found_leader, leading, read_leader
from meshgw.namers.zk_named import MOST_SERVERS, read_servers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["member_0000000009", "member_0000000010", "member_0000000011"], ["member_0000000009"]),
        (["member_10", "member_9"], ["member_9"]),
        (["lock", "member_x", "other_0000000001"], []),
        ([], []),
    ],
)
def test_the_candidate_with_the_lowest_number_leads(names: list[str], expected: list[str]) -> None:
    assert leading(names) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"10.0.0.1:80", (Endpoint("10.0.0.1", 80),)),
        (b"a.example:80,b.example:81\n", (Endpoint("a.example", 80), Endpoint("b.example", 81))),
        (b"[2001:db8::1]:80, a:80,a:80", (Endpoint("2001:db8::1", 80), Endpoint("a", 80))),
    ],
)
def test_a_leader_writes_down_hosts_and_ports(data: bytes, expected: tuple[Endpoint, ...]) -> None:
    assert read_leader(data) == expected


@pytest.mark.parametrize("data", [b"", b"a", b"a:0", b"a:65536", b"a:80,", b"http://a:80", b"\xff", b"2001:db8::1:80"])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_leader(data)


@given(st.binary())
def test_no_data_raises_anything_but_a_value_error(data: bytes) -> None:
    try:
        read_leader(data)
    except ValueError:
        pass


def test_a_group_without_leader_is_unknown() -> None:
    assert found_leader(Group(())) == found_leader(Group((), exists=False)) == NO_ENDPOINTS
    assert found_leader(Group(((Endpoint("a", 1),),))) == Endpoints((Endpoint("a", 1),))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (b"zk1:2181", (("zk1", 2181),)),
        (b"zk1:2181::10.0.0.1:2182", (("zk1", 2181), ("10.0.0.1", 2182))),
        (b"[2001:db8::1]:2181::zk:2181", (("2001:db8::1", 2181), ("zk", 2181))),
        (b"zk1", None),
        (b"zk1:", None),
        (b"zk1:0", None),
        (b"zk1:99999", None),
        (b"zk1:2181::", None),
        (b"zk1:2181,zk2:2181", None),
        (b"zk1/x:2181", None),
        (b"\xc3\xa4:2181", None),
        (b"::".join([b"zk:2181"] * (MOST_SERVERS + 1)), None),
    ],
)
def test_a_label_tells_the_servers_of_an_ensemble(label: bytes, expected: object) -> None:
    assert read_servers(label) == expected


@given(st.binary(min_size=1))
def test_any_label_is_read_or_refused(label: bytes) -> None:
    servers = read_servers(label)
    assert servers is None or all(host and 1 <= port <= 65535 for host, port in servers)
