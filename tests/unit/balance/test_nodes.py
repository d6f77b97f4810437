from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshgw.balance.nodes import ACCRUAL, FAIL_FAST, POOL, Node, Nodes, Status
from meshgw.core.address import Address
from simulator.endpoints import Plain

Make = Callable[..., Nodes[Any]]
Addresses = Callable[..., list[Address]]


def test_a_node_whose_address_stays_keeps_its_load_and_gets_the_new_weight(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2)
    first = nodes.all()[0]
    first.load = 3
    nodes.update(address_list(0, 4.0))
    assert nodes.all() == [first]
    assert (first.load, first.address.weight) == (3, 4.0)
    assert (nodes.adds, nodes.removes, nodes.updates) == (2, 1, 2)


def test_an_update_tells_whether_an_address_came_or_went(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2)
    assert not nodes.update(address_list(2))
    assert not nodes.update(address_list(0, 2.0, 3.0))
    assert nodes.update(address_list(3))
    assert nodes.update(address_list(1))
    assert nodes.update([])
    assert not nodes.update([])


def test_on_probation_an_address_goes_once_and_comes_back_once(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2, probation=True)
    assert nodes.update(address_list(1))
    assert not nodes.update(address_list(1))
    assert nodes.update(address_list(2))
    assert not nodes.update(address_list(2))


def test_a_node_that_returns_with_requests_under_way_is_the_same(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=1)
    (node,) = nodes.all()
    node.load = 2
    nodes.update([])
    assert node.status is Status.CLOSED
    assert not node.is_available
    assert nodes.leaving() == [node]
    nodes.update(address_list(1))
    assert nodes.all() == [node]
    assert (node.load, node.status) == (2, Status.OPEN)
    assert node.endpoint.told == ["retire", "revive"]
    assert nodes.leaving() == []


def test_a_node_that_returns_after_its_requests_have_ended_is_a_new_one(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=1)
    (node,) = nodes.all()
    node.load = 1
    nodes.update([])
    node.load = 0
    nodes.update(address_list(1))
    assert nodes.all() != [node]
    assert node.endpoint.told == ["retire"]


def test_a_node_that_returns_while_it_is_dead_is_still_dead(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=1)
    (node,) = nodes.all()
    node.load = 1
    node.mark(ACCRUAL, True)
    nodes.update([])
    nodes.update(address_list(1))
    assert node.status is Status.BUSY


def test_a_node_is_available_again_when_its_last_cause_ends(nodes_for: Make) -> None:
    nodes = nodes_for(count=1)
    (node,) = nodes.all()
    heard: list[bool] = []
    nodes.on_status = lambda node: heard.append(node.is_available)
    node.mark(ACCRUAL, True)
    node.mark(FAIL_FAST, True)
    assert node.holds == [ACCRUAL, FAIL_FAST]
    node.mark(ACCRUAL, False)
    assert node.status is Status.BUSY
    node.mark(FAIL_FAST, False)
    assert node.status is Status.OPEN
    assert heard == [False, True]


def test_what_is_marked_after_removal_does_not_make_a_node_available(nodes_for: Make) -> None:
    nodes = nodes_for(count=1)
    (node,) = nodes.all()
    node.mark(ACCRUAL, True)
    nodes.close()
    node.mark(ACCRUAL, False)
    assert not node.is_available
    assert len(nodes) == 0


def test_on_probation_a_removed_node_stays_while_it_is_healthy(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2, probation=True)
    gone = nodes.all()[1]
    nodes.update(address_list(1))
    assert gone in nodes.all()
    assert gone.is_on_probation
    gone.mark(POOL, True)
    assert gone in nodes.all()
    gone.mark(ACCRUAL, True)
    assert gone not in nodes.all()
    assert gone.status is Status.CLOSED
    assert gone not in nodes.classes[0][1]
    assert nodes.removes == 1


def test_an_ill_node_is_not_put_on_probation(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2, probation=True)
    gone = nodes.all()[1]
    gone.mark(FAIL_FAST, True)
    nodes.update(address_list(1))
    assert gone not in nodes.all()


def test_an_address_that_returns_ends_the_probation(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2, probation=True)
    node = nodes.all()[1]
    nodes.update(address_list(1))
    nodes.update(address_list(2))
    node.mark(ACCRUAL, True)
    assert node in nodes.all()


def test_a_node_on_probation_that_cannot_be_reached_is_dropped_at_once(nodes_for: Make, address_list: Addresses) -> None:
    nodes = nodes_for(count=2, probation=True)
    stays, gone = nodes.all()
    nodes.update(address_list(1))
    nodes.unreachable(stays)
    nodes.unreachable(gone)
    assert nodes.all() == [stays]


def test_a_weight_of_zero_gets_nothing_while_there_are_others(nodes_for: Make) -> None:
    nodes = nodes_for(0.0, 1.0, 3.0)
    assert [(share, len(members)) for share, members in nodes.classes] == [(0.25, 1), (0.75, 1)]
    assert [(share, len(members)) for share, members in nodes_for(0.0, 0.0).classes] == [(1.0, 2)]


steps = st.lists(st.tuples(st.sampled_from(["update", "begin", "end"]), st.integers(0, 2**6 - 1), st.integers(0, 63)), max_size=60)


@given(steps, st.booleans())
def test_loads_are_never_negative_nor_lost_whatever_comes_and_goes(history: list[tuple[str, int, int]], probation: bool) -> None:
    made: list[Node[Any]] = []

    class Noted(Plain):
        def attach(self, node: Node[Any]) -> None:
            made.append(node)

    nodes: Nodes[Noted] = Nodes(lambda _: Noted(), probation=probation)
    under_way: list[Node[Any]] = []
    for step, members, which in history:
        if step == "update":
            nodes.update([Address("10.0.0.1", port, 1.0 + port % 2) for port in range(6) if members >> port & 1])
        elif step == "begin" and nodes.all():
            node = nodes.all()[which % len(nodes)]
            node.load += 1
            under_way.append(node)
        elif step == "end" and under_way:
            under_way.pop(which % len(under_way)).load -= 1
        assert all(node.load == under_way.count(node) for node in made)
        known = nodes.all() + nodes.leaving()
        assert all(node in known for node in under_way)
        # An address with requests under way never has two nodes.
        assert len({node.address.port for node in known}) == len(known)
        assert sorted(node.address.port for _, group in nodes.classes for node in group) == sorted(n.address.port for n in nodes.all())


@given(st.data())
def test_updates_one_after_the_other_lead_where_the_last_one_alone_leads(data: st.DataObject) -> None:
    pool = [Address(f"10.0.0.{number % 4}", 80, weight) for number, weight in enumerate([1.0, 1.0, 2.0, 0.0, 1.0, 3.0])]
    nodes = Nodes(lambda _address: Plain())
    for _ in range(4):
        before = {node.address.host: node for node in nodes.all()}
        addresses = data.draw(st.lists(st.sampled_from(pool), max_size=5))
        is_changed = nodes.update(addresses)
        fresh = Nodes(lambda _address: Plain())
        fresh.update(addresses)
        now = {node.address.host: node for node in nodes.all()}
        assert {host: node.address.weight for host, node in now.items()} == {node.address.host: node.address.weight for node in fresh.all()}
        assert [(share, {node.address for node in members}) for share, members in nodes.classes] == [
            (share, {node.address for node in members}) for share, members in fresh.classes
        ]
        assert is_changed == (before.keys() != now.keys())
        assert all(now[host] is node for host, node in before.items() if host in now)
        assert (nodes.adds - nodes.removes) == len(nodes)


def test_addresses_that_are_the_same_objects_leave_the_classes_as_they_are(nodes_for: Make, address_list: Addresses) -> None:
    nodes, same = nodes_for(), address_list(3)
    nodes.update(same)
    before = nodes.classes
    assert not nodes.update(reversed(same))
    assert nodes.classes is before
