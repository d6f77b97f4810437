from __future__ import annotations

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
