"""No name leads to a network that is not to be connected to."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.config.egress import INTERNAL
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Source, constant, current
from meshgw.core.networks import Network
from meshgw.errors import AddressDenied
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import Leaf, NameTree
from meshgw.transform.external import ExternalOnly

ID = Path.read("/$/inet/x/443")


class Binds:
    """Binds everything to the same addresses."""

    def __init__(self, addr: Live[Addr]) -> None:
        self.addr = addr

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        return constant(Leaf(Bound(ID, self.addr, path)))


class Explains(Binds):
    def delegate(self, dtab: Dtab, path: Path) -> Any:
        return "explained"


def only(addr: Live[Addr], *allowed: str) -> Live[Addr]:
    inner = Binds(addr)
    external = ExternalOnly(inner, denied=INTERNAL, allowed=[Network.read(text) for text in allowed])
    state = current(external.bind(Dtab.EMPTY, Path.of("rest")))
    assert isinstance(state, Ok)
    assert isinstance(state.value, Leaf)
    assert (state.value.value.id, state.value.value.residual) == (ID, Path.of("rest"))
    return state.value.value.addr


def replicas(*hosts: str) -> Replicas:
    return Replicas(tuple(Address(host, 443) for host in hosts))


INSIDE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "64:ff9b::169.254.169.254",
    "2002:a00:1::1",
    "::127.0.0.1",
    "no.address",
]


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_of_the_inside_are_refused(host: str) -> None:
    state = current(only(constant(replicas(host))))
    assert isinstance(state, Failed)
    assert isinstance(state.error, AddressDenied)
    assert state.error.status == 403
    assert f"/$/inet/x/443: {host} may not" in str(state.error)


@pytest.mark.parametrize(
    "host", ["93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_outside_are_not(host: str) -> None:
    assert current(only(constant(replicas(host)))) == Ok(replicas(host))


def test_only_those_of_the_outside_are_kept() -> None:
    assert current(only(constant(replicas("10.0.0.1", "8.8.8.8", "::1")))) == Ok(replicas("8.8.8.8"))


def test_exceptions_come_first() -> None:
    assert current(only(constant(replicas("10.0.0.1", "10.0.0.2")), "10.0.0.2")) == Ok(replicas("10.0.0.2"))


def test_names_without_addresses_stay_as_they_are() -> None:
    assert current(only(constant(Replicas()))) == Ok(Replicas())
    assert current(only(constant(ADDR_NEG))) == Ok(ADDR_NEG)


def test_a_host_that_changes_its_mind_is_refused_then() -> None:
    source: Source[Addr] = Source()
    source.set(replicas("8.8.8.8"))
    states: list[Any] = []
    observation = only(source).observe(states.append)
    source.set(replicas("127.0.0.1"))
    observation.close()
    assert states[0] == Ok(replicas("8.8.8.8"))
    assert isinstance(states[-1], Failed)


def test_many_refused_addresses_are_not_all_told() -> None:
    state = current(only(constant(replicas(*(f"10.0.0.{number}" for number in range(20))))))
    assert isinstance(state, Failed)
    assert "and 15 more" in str(state.error)


def test_explanations_are_those_of_the_interpreter_behind() -> None:
    external: Any = ExternalOnly(Explains(constant(ADDR_NEG)), denied=INTERNAL, allowed=())
    assert external.delegate(Dtab.EMPTY, Path.of("x")) == "explained"
    assert not hasattr(ExternalOnly(Binds(constant(ADDR_NEG)), denied=INTERNAL, allowed=()), "delegate")
