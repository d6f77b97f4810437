from __future__ import annotations

import pytest

from meshgw.bind.builtin import MAX_FIXED, BuiltinNamer, numeric_host
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Source, State, constant, current
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Leaf, NameTree


class Resolver:
    """Records what was asked and gives one live value for each host and port."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.cells: dict[tuple[str, int], Source[Addr]] = {}

    def __call__(self, host: str, port: int) -> Live[Addr]:
        self.asked.append((host, port))
        return self.cells.setdefault((host, port), Source())


def state_of(path: str | Path, resolve: Resolver | None = None) -> State[object]:
    namer = BuiltinNamer(resolve or Resolver(), {b"up": lambda rest: Leaf(rest)})
    return current(namer.lookup((Path.read(path) if isinstance(path, str) else path).drop(1)))


def bound_of(path: str | Path, resolve: Resolver | None = None) -> Bound:
    state = state_of(path, resolve)
    assert isinstance(state, Ok)
    assert isinstance(state.value, Leaf)
    assert isinstance(state.value.value, Bound)
    return state.value.value


def addresses_of(path: str | Path) -> tuple[str, ...]:
    state = current(bound_of(path).addr)
    assert isinstance(state, Ok)
    assert isinstance(state.value, Replicas)
    return tuple(address.show() for address in state.value.addresses)


@pytest.mark.parametrize(
    ("path", "id", "residual", "address"),
    [
        ("/$/inet/127.0.0.1/80/rest/of", "/$/inet/127.0.0.1/80", "/rest/of", "127.0.0.1:80"),
        ("/$/inet/127.1/80", "/$/inet/127.1/80", "/", "127.0.0.1:80"),
        ("/$/inet/::1/80/x", "/$/inet/::1/80", "/x", "[::1]:80"),
        ("/$/inet/8080/rest", "/$/inet/8080", "/rest", "127.0.0.1:8080"),
        ("/$/inet/8080", "/$/inet/8080", "/", "127.0.0.1:8080"),
        ("/$/inet/8080/9090", "/$/inet/8080/9090", "/", "0.0.31.144:9090"),
        ("/$/fixedinet/10.0.0.1/80/x", "/$/fixedinet/10.0.0.1/80", "/x", "10.0.0.1:80"),
        ("/$/fixedinet/80", "/$/fixedinet/80", "/", "127.0.0.1:80"),
        ("/$/io.buoyant.rinet/80/10.0.0.1/x", "/$/io.buoyant.rinet/80/10.0.0.1", "/x", "10.0.0.1:80"),
        ("/$/io.buoyant.rinet/80/::1", "/$/io.buoyant.rinet/80/::1", "/", "[::1]:80"),
    ],
)
def test_a_literal_address_is_bound_at_once(path: str, id: str, residual: str, address: str) -> None:
    bound = bound_of(path)
    assert (bound.id.show(), bound.residual.show(), addresses_of(path)) == (id, residual, (address,))


def test_an_ipv6_address_in_brackets_is_accepted() -> None:
    assert addresses_of(Path.of("$", "inet", "[2001:db8::1]", "443")) == ("[2001:db8::1]:443",)


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("/$", NEG),
        ("/$/nil", EMPTY),
        ("/$/nil/x", EMPTY),
        ("/$/fail/x", FAIL),
        ("/$/io.buoyant.rinet/80", NEG),
        ("/$/io.buoyant.rinet/web/80", NEG),
        ("/$/inet/\\xff/80", NEG),
        ("/$/up/a/b", Leaf(Path.read("/a/b"))),
    ],
)
def test_other_names_are_constants_or_rewritten(path: str, tree: object) -> None:
    assert state_of(path) == Ok(tree)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/$/inet", "Unknown namer: inet for path: /$/inet"),
        ("/$/inet/host", "Unknown namer: inet for path: /$/inet/host"),
        ("/$/nope/x", "Unknown namer: nope for path: /$/nope/x"),
        ("/$/inet/host/99999", "/$/inet/host/99999: 99999 is not a port, which is at most 65535"),
    ],
)
def test_a_name_that_does_not_exist_fails(path: str, text: str) -> None:
    state = state_of(path)
    assert isinstance(state, Failed)
    assert str(state.error) == text


def test_a_host_name_is_left_to_the_resolver() -> None:
    resolver = Resolver()
    bound = bound_of("/$/inet/web.example/80/x", resolver)
    assert resolver.asked == [("web.example", 80)]
    assert bound.addr is resolver.cells["web.example", 80]


def test_a_fixed_host_is_resolved_once_and_released() -> None:
    resolver = Resolver()
    namer = BuiltinNamer(resolver, {})
    path = Path.read("/fixedinet/web/80")
    states: list[State[Addr]] = []

    def addr() -> Live[Addr]:
        state = current(namer.lookup(path))
        assert isinstance(state, Ok)
        assert isinstance(state.value, Leaf)
        assert isinstance(state.value.value, Bound)
        return state.value.value.addr

    observation = addr().observe(states.append)
    cell = resolver.cells["web", 80]
    cell.set(ADDR_NEG)  # not known yet: that is not kept
    cell.set(Replicas((Address("10.0.0.1", 80),)))
    assert not cell.is_observed
    cell.set(Replicas((Address("10.0.0.2", 80),)))
    assert states[-1] == Ok(Replicas((Address("10.0.0.1", 80),)))
    observation.close()
    assert current(addr()) == states[-1]
    assert resolver.asked == [("web", 80)]


def test_the_memory_for_fixed_hosts_is_limited() -> None:
    resolver = Resolver()
    namer = BuiltinNamer(resolver, {})
    for number in range(MAX_FIXED + 1):
        namer.lookup(Path.read(f"/fixedinet/h{number}/80"))
    namer.lookup(Path.read(f"/fixedinet/h{MAX_FIXED}/80"))
    assert len(resolver.asked) == MAX_FIXED + 1
    namer.lookup(Path.read("/fixedinet/h0/80"))
    assert len(resolver.asked) == MAX_FIXED + 2


@pytest.mark.parametrize(
    ("text", "address"),
    [("1.2.3.4", "1.2.3.4"), ("0x7f.1", "127.0.0.1"), ("::", "::"), ("[::1]", "::1"), ("a", None), ("1.2.3.4.5", None), ("x:y", None)],
)
def test_literal_addresses_are_told_from_names(text: str, address: str | None) -> None:
    assert numeric_host(text) == address


def test_a_namer_among_the_built_in_names_is_asked_for_the_rest() -> None:
    asked: list[Path] = []

    class Asked:
        def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
            asked.append(path)
            return constant(NEG)

    namer = BuiltinNamer(Resolver(), {}, {b"asked": Asked()})
    assert current(namer.lookup(Path.read("/asked/a/b"))) == Ok(NEG)
    assert asked == [Path.read("/a/b")]
