"""What a backend says of a service, with hosts that are resolved, as a live set of addresses."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.backends.endpoints import FEW_HOSTS, GATHER_SECONDS, NO_ENDPOINTS, Endpoint, Endpoints, Found, resolved
from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Constant, Failed, Live, Ok, Pending, Source, State
from meshgw.errors import NamerError

BROKEN = NamerError(detail="the backend is down")
SERVFAIL = NamerError(detail="SERVFAIL")


class Hosts:
    """Resolves literals at once and names as the test says. ``asked`` lists the names that are resolved."""

    def __init__(self) -> None:
        self.sources: dict[str, Source[Addr]] = {}
        self.asked: list[str] = []

    def resolve(self, host: str, port: int) -> Live[Addr]:
        if host[0].isdigit():
            return Constant(Ok(Replicas((Address(host, port),))))
        if host == "invalid":
            raise ValueError("label too long")
        if host == "no_name":
            return Constant(Ok(ADDR_NEG))
        self.asked.append(host)
        return self.sources.setdefault(host, Source())

    def says(self, host: str, *addresses: str, error: Exception | None = None) -> None:
        self.sources[host].put(Ok(Replicas(tuple(Address(address, 1) for address in addresses)), error))

    @property
    def observed(self) -> set[str]:
        return {host for host, source in self.sources.items() if source.is_observed}


class Case:
    """A service as the backend has it, and what came of it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.hosts, self.found, self.seen = Hosts(), Source[Found](), list[State[Addr]]()
        self.hold = resolved(self.found, self.hosts.resolve, "web", clock).observe(self.seen.append)

    def set(self, *endpoints: Endpoint, error: Exception | None = None, **meta: Any) -> None:
        self.found.put(Ok(Endpoints(endpoints, meta), error))

    @property
    def last(self) -> State[Addr]:
        return self.seen[-1]

    @property
    def shown(self) -> list[str]:
        assert isinstance(self.last, Ok) and isinstance(self.last.value, Replicas), self.last
        return [address.show() for address in self.last.value.addresses]


def test_literal_addresses_are_there_at_once_with_weight_and_metadata() -> None:
    case = Case()
    case.set(Endpoint("192.0.2.1", 80, 2.0, {"nodeName": "n1"}), Endpoint("192.0.2.2", 81), authority="web.example")
    assert case.last == Ok(
        Replicas((Address("192.0.2.1", 80, 2.0, {"nodeName": "n1"}), Address("192.0.2.2", 81)), {"authority": "web.example"})
    )
    assert case.hosts.asked == []


def test_every_address_of_a_host_counts_with_its_endpoints_port() -> None:
    case = Case()
    case.set(Endpoint("node1", 80, 3.0), Endpoint("node1", 81))
    assert case.last == Pending("DNS of web")
    case.hosts.says("node1", "192.0.2.1", "192.0.2.2")
    assert case.shown == ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.1:81", "192.0.2.2:81"]
    assert case.hosts.asked == ["node1"], "a host is resolved once, whatever its ports"


def test_a_host_that_is_not_known_yet_does_not_hold_back_the_others() -> None:
    case = Case()
    case.set(Endpoint("192.0.2.9", 80), Endpoint("node1", 80))
    assert case.shown == ["192.0.2.9:80"]
    case.hosts.says("node1", "192.0.2.1")
    assert case.shown == ["192.0.2.9:80", "192.0.2.1:80"]


def test_hosts_that_stay_are_not_asked_anew_and_those_that_go_are_let_go() -> None:
    case = Case()
    case.set(Endpoint("node1", 80), Endpoint("node2", 80))
    case.hosts.says("node1", "192.0.2.1")
    case.set(Endpoint("node1", 80), Endpoint("node3", 80))
    assert case.hosts.asked == ["node1", "node2", "node3"] and case.hosts.observed == {"node1", "node3"}
    case.found.put(Ok(NO_ENDPOINTS))
    assert case.last == Ok(ADDR_NEG) and case.hosts.observed == set()
    case.set(Endpoint("node1", 80))
    assert case.hosts.observed == {"node1"}
    case.hold.close()
    assert case.hosts.observed == set() and not case.found.is_observed


def test_a_service_that_exists_without_endpoints_is_not_unknown() -> None:
    case = Case()
    case.set()
    assert case.last == Ok(Replicas(()))
    case.found.put(Ok(NO_ENDPOINTS, BROKEN))
    assert case.last == Ok(ADDR_NEG, BROKEN)


def test_staleness_of_the_backend_and_of_dns_shows_and_goes() -> None:
    case = Case()
    case.set(Endpoint("node1", 80))
    case.hosts.says("node1", "192.0.2.1")
    case.set(Endpoint("node1", 80), error=BROKEN)
    assert isinstance(case.last, Ok) and case.last.error is BROKEN
    case.hosts.says("node1", "192.0.2.1", error=SERVFAIL)
    assert case.last.error is BROKEN, "the backend's comes first"
    case.set(Endpoint("node1", 80))
    assert isinstance(case.last, Ok) and case.last.error is SERVFAIL
    case.hosts.says("node1", "192.0.2.1")
    assert case.last == Ok(Replicas((Address("192.0.2.1", 80),)))
    assert case.hosts.asked == ["node1"]


def test_dns_that_fails_from_the_start_fails_the_set_and_later_is_no_set_of_others() -> None:
    case = Case()
    case.set(Endpoint("node1", 80))
    case.hosts.sources["node1"].put(Failed(SERVFAIL))
    assert case.last == Failed(SERVFAIL)
    case.hosts.says("node1", "192.0.2.1")
    assert case.shown == ["192.0.2.1:80"]
    case.set(Endpoint("node2", 80))
    assert case.shown == ["192.0.2.1:80"], "those before stay while the new host is being asked for"
    case.hosts.sources["node2"].put(Failed(SERVFAIL))
    assert case.last == Ok(Replicas(()), SERVFAIL), "and not when it turns out to have none: the backend says that they are gone"


def test_hosts_without_any_address_are_named() -> None:
    case = Case()
    case.set(*(Endpoint("no_name", port) for port in (80, 81)))
    assert isinstance(case.last, Failed) and str(case.last.error) == "web: no address for no_name"
    case = Case()
    case.set(*(Endpoint(f"node{number}", 80) for number in range(7)))
    for number in range(7):
        case.hosts.says(f"node{number}")
    assert isinstance(case.last, Failed)
    assert str(case.last.error) == "web: no address for node0, node1, node2, node3, node4 and 2 more"


def test_a_name_that_cannot_be_resolved_at_all_does_not_spoil_the_others() -> None:
    case = Case()
    case.set(Endpoint("invalid", 80), Endpoint("192.0.2.1", 80))
    assert case.shown == ["192.0.2.1:80"]
    assert isinstance(case.last, Ok) and str(case.last.error) == "label too long"


def test_errors_of_the_backend_pass_and_hosts_do_not_talk_over_them() -> None:
    case = Case()
    case.set(Endpoint("node1", 80))
    case.found.put(Failed(BROKEN))
    assert case.last == Failed(BROKEN)
    case.hosts.says("node1", "192.0.2.1")
    assert case.last == Failed(BROKEN)
    case.set(Endpoint("node1", 80))
    assert case.shown == ["192.0.2.1:80"]
    case.found.put(Pending("the backend"))
    assert case.last == Pending("the backend")


def test_changes_of_many_hosts_are_told_together() -> None:
    clock = Clock()
    case = Case(clock)
    count = FEW_HOSTS + 1
    case.set(*(Endpoint(f"node{number}", 80) for number in range(count)))
    for number in range(count):
        case.hosts.says(f"node{number}", f"192.0.2.{number}")
    assert case.shown == ["192.0.2.0:80"], "the first is told at once: requests wait for it"
    told = len(case.seen)
    clock.advance(GATHER_SECONDS)
    assert len(case.shown) == count and len(case.seen) == told + 1
    case.hosts.says("node0", "192.0.2.100")
    case.hold.close()
    assert clock.getDelayedCalls() == []


def test_changes_of_many_hosts_do_not_outlive_the_backends_word() -> None:
    clock = Clock()
    case = Case(clock)
    case.set(*(Endpoint(f"node{number}", 80) for number in range(FEW_HOSTS + 1)))
    for number in range(FEW_HOSTS + 1):
        case.hosts.says(f"node{number}", f"192.0.2.{number}")
    case.found.put(Ok(NO_ENDPOINTS))
    clock.advance(GATHER_SECONDS)
    assert case.last == Ok(ADDR_NEG) and clock.getDelayedCalls() == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.lists(st.sampled_from(["node1", "node2", "192.0.2.9"]), unique=True)),
        st.tuples(st.sampled_from(["says", "fails"]), st.sampled_from(["node1", "node2"])),
        st.tuples(st.just("gone"), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
def test_only_hosts_of_the_present_endpoints_are_watched_and_shown(steps: list[tuple[str, Any]]) -> None:
    case, wanted = Case(), list[str]()
    for step, value in steps:
        if step == "set":
            wanted = value
            case.set(*(Endpoint(host, 80) for host in value))
        elif step == "gone":
            wanted = []
            case.found.put(Ok(NO_ENDPOINTS))
        elif step == "says" and value in case.hosts.sources:
            case.hosts.says(value, f"192.0.2.{value[-1]}")
        elif step == "fails" and value in case.hosts.sources:
            case.hosts.sources[value].fail(SERVFAIL)
        assert case.hosts.observed == {host for host in wanted if host.startswith("node")}
        if isinstance(case.last, Ok) and isinstance(case.last.value, Replicas):
            assert len(set(case.shown)) == len(case.shown)
    case.hold.close()
    assert case.hosts.observed == set()


def test_address_of_an_endpoint_that_stays_is_the_same_object() -> None:
    case = Case()
    stays, named = Endpoint("192.0.2.1", 80), Endpoint("web.example", 80)
    case.hosts.sources["web.example"] = Source()
    case.hosts.says("web.example", "198.51.100.1")
    case.set(stays, named, Endpoint("192.0.2.2", 80))
    before = case.last
    case.set(stays, named)
    after = case.last
    case.hosts.says("web.example", "198.51.100.2")
    moved = case.last
    assert all(isinstance(state, Ok) and isinstance(state.value, Replicas) for state in (before, after, moved))
    first, second, third = (state.value.addresses for state in (before, after, moved))  # type: ignore[union-attr]
    assert [one is other for one, other in zip(first, second, strict=False)] == [True, True]
    assert third[0] is first[0]
    assert third[1] == Address("198.51.100.2", 80)
