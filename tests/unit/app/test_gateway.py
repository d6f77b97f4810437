from __future__ import annotations

from typing import Any

from meshgw.app.described import namer_states, router_states
from meshgw.app.gateway import TransformedNamer
from meshgw.core.address import Address, Bound, Replicas
from meshgw.core.live import Live, Ok, constant, current, live_map
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree, map_leaves


class Fixed:
    """A namer with one answer."""

    def __init__(self, tree: NameTree[Path | Bound]) -> None:
        self._tree = tree

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        return constant(self._tree)


class Marking:
    """Puts a label before the ids of bound names."""

    can_delegate = True

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        return live_map(tree, lambda value: map_leaves(value, lambda bound: Bound(Path.of("%") + bound.id, bound.addr, bound.residual)))


def answer(tree: NameTree[Path | Bound]) -> NameTree[Path | Bound]:
    state = current(TransformedNamer(Fixed(tree), [Marking()]).lookup(Path.ROOT))
    assert isinstance(state, Ok)
    return state.value


def test_a_namers_transformers_change_what_it_binds() -> None:
    bound = Bound(Path.of("#", "web"), constant(Replicas((Address("127.0.0.1", 1),))), Path.ROOT)
    found = answer(Leaf(bound))
    assert isinstance(found, Leaf)
    assert isinstance(found.value, Bound)
    assert found.value.id == Path.of("%", "#", "web")


def test_a_namers_transformers_leave_names_to_be_looked_up_again_alone() -> None:
    assert answer(Leaf(Path.of("svc", "web"))) == Leaf(Path.of("svc", "web"))
    assert answer(NEG) == NEG


class Described(Fixed):
    """A namer that tells its state."""

    def __init__(self, state: str) -> None:
        super().__init__(NEG)
        self._state = state

    def describe(self) -> dict[str, Any]:
        return {"state": self._state}


def test_namers_that_can_are_described_by_their_prefix_with_transformers_or_without() -> None:
    transformed = TransformedNamer(Described("transformed"), [Marking()])
    silent = TransformedNamer(Fixed(NEG), [Marking()])
    namers: list[tuple[Path, Any]] = [
        (Path.of("#", "a", "b"), Described("plain")),
        (Path.of("#", "c"), transformed),
        (Path.of("#", "d"), silent),
        (Path.of("#", "e"), Fixed(NEG)),
    ]
    states = {path: describe() for path, describe in namer_states(namers).items()}
    assert states == {"/namer_state/a/b.json": {"state": "plain"}, "/namer_state/c.json": {"state": "transformed"}}


def test_of_two_namers_with_one_prefix_the_one_asked_first_is_described() -> None:
    namers: list[tuple[Path, Any]] = [(Path.of("#", "a"), Described("first")), (Path.of("#", "a"), Described("last"))]
    assert {path: describe() for path, describe in namer_states(namers).items()} == {"/namer_state/a.json": {"state": "last"}}


def test_interpreters_and_identifiers_of_a_router_are_described_by_label_and_kind() -> None:
    identifiers: list[tuple[str, Any]] = [("io.l5d.ingress", Described("rules")), ("io.l5d.path", object())]
    interpreter: Any = Described("streams")
    states = router_states("web", "io.l5d.mesh", interpreter, identifiers)
    assert {path: describe() for path, describe in states.items()} == {
        "/web/interpreter_state/io.l5d.mesh.json": {"state": "streams"},
        "/web/identifier_state/io.l5d.ingress.json": {"state": "rules"},
    }
