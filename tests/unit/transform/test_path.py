"""``io.l5d.replace`` and ``io.l5d.const`` (linkerd-config spec 8.3)."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from meshgw.core.address import Addr, Bound, Replicas
from meshgw.core.live import PENDING, Live, Ok, Source, constant, current
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Leaf, NameTree, Union, Weighted, show_tree
from meshgw.transform.path import CONST, REPLACE

ADDR: Live[Addr] = constant(Replicas())
OTHER = Path.read("/$/inet/127.1/4140")


def leaf(name: str, residual: str = "/") -> NameTree[Bound]:
    return Leaf(Bound(Path.read(name), ADDR, Path.read(residual)))


def build(kind: Kind, bind: Any, **fields: Any) -> Any:
    nothing = cast(Any, None)
    runtime = Runtime(reactor=Clock(), metrics=nothing, random=Random(1), spawn=nothing, resolve=nothing, bind=bind)
    return kind.build(kind.config(path=OTHER, **fields), runtime)


def shown(live: Live[NameTree[Bound]]) -> str:
    state = current(live)
    assert isinstance(state, Ok)
    return show_tree(state.value, Bound.show)


def bound_to(tree: NameTree[Bound]) -> Any:
    def bind(path: Path) -> Live[NameTree[Bound]]:
        assert path == OTHER
        return constant(tree)

    return bind


@pytest.mark.parametrize("kind", [REPLACE, CONST])
def test_a_leaf_becomes_the_other_name_under_the_kinds_prefix(kind: Kind) -> None:
    transformer = build(kind, bound_to(leaf("/$/inet/127.1/4140")))
    assert shown(transformer.transform(constant(leaf("/#/a", "/rest")))) == f"/%/{kind.id}/$/inet/127.1/4140"
    assert not transformer.can_delegate
    assert transformer.name == kind.id


@pytest.mark.parametrize("kind", [REPLACE, CONST])
def test_prefix_can_be_given(kind: Kind) -> None:
    transformer = build(kind, bound_to(leaf("/$/inet/127.1/4140")), prefix=Path.read("/mine"))
    assert shown(transformer.transform(constant(leaf("/#/a")))) == "/%/mine/$/inet/127.1/4140"


@pytest.mark.parametrize("tree", [NEG, FAIL, EMPTY])
def test_replace_leaves_constants_alone_and_const_does_not(tree: NameTree[Bound]) -> None:
    other = bound_to(leaf("/x"))
    assert shown(build(REPLACE, other).transform(constant(tree))) == show_tree(tree, Bound.show)
    assert shown(build(CONST, other).transform(constant(tree))) == "/%/io.l5d.const/x"


def test_replace_keeps_the_weights_of_a_union() -> None:
    tree = Union((Weighted(0.5, leaf("/#/a")), Weighted(0.25, leaf("/#/b"))))
    assert shown(build(REPLACE, bound_to(leaf("/x"))).transform(constant(tree))) == "0.50*/%/io.l5d.replace/x & 0.25*/%/io.l5d.replace/x"


def test_replace_by_a_name_that_does_not_exist_is_negative() -> None:
    assert shown(build(REPLACE, bound_to(NEG)).transform(constant(leaf("/#/a")))) == "~"


def test_const_is_followed_and_does_not_watch_the_original() -> None:
    original: Source[NameTree[Bound]] = Source()
    other: Source[NameTree[Bound]] = Source()
    seen: list[Any] = []
    observation = build(CONST, lambda path: other).transform(original).observe(seen.append)
    assert seen == [PENDING]
    assert not original.is_observed
    other.set(leaf("/x"))
    other.set(NEG)
    assert [show_tree(state.value, Bound.show) for state in seen[1:]] == ["/%/io.l5d.const/x", "~"]
    observation.close()
    assert not other.is_observed


def test_replace_releases_what_it_watched() -> None:
    original: Source[NameTree[Bound]] = Source(initial=Ok(leaf("/#/a")))
    other: Source[NameTree[Bound]] = Source(initial=Ok(leaf("/x")))
    observation = build(REPLACE, lambda path: other).transform(original).observe(lambda state: None)
    assert other.is_observed
    original.set(NEG)
    observation.close()
    assert not other.is_observed
    assert not original.is_observed


@pytest.mark.parametrize("kind", [REPLACE, CONST])
def test_without_an_interpreter_the_kind_cannot_be_built(kind: Kind) -> None:
    with pytest.raises(NamerError, match=kind.id):
        build(kind, None)
