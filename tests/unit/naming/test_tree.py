from __future__ import annotations

import pytest
from hypothesis import given

from meshgw.naming.dtab import DtabSyntaxError
from meshgw.naming.path import Path
from meshgw.naming.tree import (
    EMPTY,
    FAIL,
    NEG,
    Alt,
    Leaf,
    NameTree,
    Union,
    Weighted,
    evaluate,
    leaves,
    map_leaves,
    read_tree,
    show_tree,
    simplified,
)
from strategies import name_text, trees


@given(trees())
def test_reading_what_is_shown_gives_the_same_tree(tree: NameTree[Path]) -> None:
    assert read_tree(show_tree(tree)) == tree


@given(trees())
def test_equal_trees_have_equal_hashes(tree: NameTree[Path]) -> None:
    again = read_tree(show_tree(tree))
    assert hash(again) == hash(tree)
    assert Alt((tree, again)) != tree


@given(trees())
def test_simplifying_keeps_the_evaluation_and_is_idempotent(tree: NameTree[Path]) -> None:
    simple = simplified(tree)
    assert simplified(simple) == simple
    answer = evaluate(tree)
    if isinstance(answer, frozenset):
        assert evaluate(simple) == answer
    else:
        assert not isinstance(evaluate(simple), frozenset)


@given(name_text)
def test_no_text_raises_anything_but_the_syntax_error(text: str) -> None:
    try:
        tree = read_tree(text)
    except DtabSyntaxError as error:
        assert str(error)
        assert error.caret()
    else:
        show_tree(tree)


@given(trees())
def test_leaves_are_mapped_in_place(tree: NameTree[Path]) -> None:
    shown = map_leaves(tree, Path.show)
    assert leaves(shown) == [path.show() for path in leaves(tree)]


def test_many_parentheses_are_refused_and_do_not_exhaust_the_stack() -> None:
    with pytest.raises(DtabSyntaxError, match="parentheses"):
        read_tree("(" * 100_000)


def test_a_weight_beyond_all_doubles_is_refused() -> None:
    with pytest.raises(DtabSyntaxError, match="finite weight"):
        read_tree(f"{'9' * 5000}*/a & /b")


def test_the_largest_weight_is_shown_in_full() -> None:
    assert len(show_tree(read_tree(f"{'9' * 300}*/a & /b"))) > 300


@pytest.mark.parametrize(
    ("weight", "shown"), [(1.0, ""), (0.125, "0.13*"), (1.005, "1.01*"), (0.0, "0.00*"), (9.0, "9.00*"), (1.001, "1.00*")]
)
def test_weights_are_rounded_half_up_on_their_decimal_form(weight: float, shown: str) -> None:
    tree = Union((Weighted(weight, Leaf(Path.of("a"))), Weighted(1.0, NEG)))
    assert show_tree(tree) == f"{shown}/a & ~"


def test_single_branches_are_shown_as_the_branch() -> None:
    single: NameTree[Path] = Alt((Alt((Union((Weighted(2.0, Alt((FAIL, EMPTY))),)),)), NEG))
    assert show_tree(single) == "(! | $) | ~"
    assert show_tree(Alt(())) == "~"


def test_trees_of_hundreds_of_levels_are_compared_and_hashed() -> None:
    def deep() -> NameTree[str]:
        tree: NameTree[str] = Leaf("x")
        for _ in range(5000):
            tree = Union((Weighted(1.0, tree), Weighted(1.0, NEG)))
        return tree

    assert deep() == deep()
    assert hash(deep()) == hash(deep())


def test_weights_count_in_comparison() -> None:
    assert read_tree("2*/a & /b") != read_tree("3*/a & /b")
    assert read_tree("~") != read_tree("!")
    assert NEG != "~"
