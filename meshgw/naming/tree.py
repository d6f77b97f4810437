"""``NameTree``: alternatives and weighted unions of names, with the answers *no such name*, *stop* and *no replicas*.

Source: dtab spec 1 (meanings), 2.2 (notation), 3 (canonical text), 5.1 (simplification) and 5.2 (evaluation). Looking names up is
not done here but in ``bind``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Generic, Never, TypeVar

import attrs

from meshgw.naming.path import Path, scan_path
from meshgw.naming.text import NameSyntaxError, Scanner

__all__ = [
    "EMPTY",
    "FAIL",
    "NEG",
    "Alt",
    "Empty",
    "Fail",
    "Leaf",
    "NameSyntaxError",
    "NameTree",
    "Neg",
    "Union",
    "Weighted",
    "alt_of",
    "evaluate",
    "leaves",
    "map_leaves",
    "read_tree",
    "scan_tree",
    "show_tree",
    "show_weight",
    "simplified",
    "union_of",
]

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)

# Parentheses in parentheses: nobody writes more than a handful, and an unlimited number would exhaust the interpreter's stack.
MAX_NESTING = 50
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_CENT = Decimal("0.01")
_WIDE = Context(prec=400)  # the largest double has 309 digits


class NameTree(Generic[T_co]):
    """The common type. Trees are equal when they have the same shape, weights and leaves."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return _same(self, other) if isinstance(other, NameTree) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(_tokens(self)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {show_tree(self, _show_any)}>"


@attrs.frozen(eq=False, repr=False)
class Leaf(NameTree[T_co]):
    """One name."""

    value: T_co


@attrs.frozen(eq=False, repr=False)
class Alt(NameTree[T_co]):
    """The first of ``trees`` that is not neg."""

    trees: tuple[NameTree[T_co], ...]


@attrs.frozen
class Weighted(Generic[T_co]):
    """A branch of a union: its share is ``weight`` divided by the sum of all."""

    weight: float
    tree: NameTree[T_co]


@attrs.frozen(eq=False, repr=False)
class Union(NameTree[T_co]):
    """All of ``branches``; each request goes to one, drawn by weight."""

    branches: tuple[Weighted[T_co], ...]


class Neg(NameTree[Never]):
    """No such name here: the next alternative is tried."""

    __slots__ = ()


class Fail(NameTree[Never]):
    """Stop: no further alternative is tried."""

    __slots__ = ()


class Empty(NameTree[Never]):
    """The name exists and has no replicas; a positive answer."""

    __slots__ = ()


NEG = Neg()
FAIL = Fail()
EMPTY = Empty()
_CONSTANTS: dict[str, NameTree[Never]] = {"!": FAIL, "~": NEG, "$": EMPTY}


def _same(left: NameTree[object], right: NameTree[object]) -> bool:
    # With a stack of its own: a bound tree may nest a hundred unions, and comparing them by recursion costs eight calls each.
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        if one is other:
            continue
        if isinstance(one, Leaf) and isinstance(other, Leaf):
            if one.value != other.value:
                return False
        elif isinstance(one, Alt) and isinstance(other, Alt):
            if len(one.trees) != len(other.trees):
                return False
            waiting.extend(zip(one.trees, other.trees, strict=True))
        elif isinstance(one, Union) and isinstance(other, Union):
            if [branch.weight for branch in one.branches] != [branch.weight for branch in other.branches]:
                return False
            waiting.extend((a.tree, b.tree) for a, b in zip(one.branches, other.branches, strict=True))
        elif type(one) is not type(other):
            return False
    return True


def _tokens(tree: NameTree[object]) -> list[object]:
    tokens: list[object] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        tokens.append(type(node).__name__)
        if isinstance(node, Leaf):
            tokens.append(node.value)
        elif isinstance(node, Alt):
            tokens.append(len(node.trees))
            waiting.extend(node.trees)
        elif isinstance(node, Union):
            tokens.extend(branch.weight for branch in node.branches)
            waiting.extend(branch.tree for branch in node.branches)
    return tokens


def map_leaves(tree: NameTree[T], function: Callable[[T], U]) -> NameTree[U]:
    """The tree with ``function`` applied to the value of every leaf; shape, weights and constants stay."""
    if isinstance(tree, Leaf):
        return Leaf(function(tree.value))
    if isinstance(tree, Alt):
        return Alt(tuple([map_leaves(child, function) for child in tree.trees]))
    if isinstance(tree, Union):
        return Union(tuple([Weighted(branch.weight, map_leaves(branch.tree, function)) for branch in tree.branches]))
    return tree  # type: ignore[return-value]  # neg, fail and empty have no leaves


def leaves(tree: NameTree[T]) -> list[T]:
    """The values of all leaves from left to right, whether or not evaluation would reach them."""
    found: list[T] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Leaf):
            found.append(node.value)
        elif isinstance(node, Alt):
            waiting.extend(reversed(node.trees))
        elif isinstance(node, Union):
            waiting.extend(branch.tree for branch in reversed(node.branches))
    return found


def simplified(tree: NameTree[T]) -> NameTree[T]:
    """The equivalent tree without branches that can never answer (dtab spec 5.1)."""
    if isinstance(tree, Alt):
        kept: list[NameTree[T]] = []
        for child in tree.trees:
            simple = simplified(child)
            if not isinstance(simple, Neg):
                kept.append(simple)
            if isinstance(simple, Fail):
                break
        return alt_of(kept)
    if isinstance(tree, Union):
        return union_of([Weighted(branch.weight, simplified(branch.tree)) for branch in tree.branches])
    return tree


def alt_of(trees: list[NameTree[T]]) -> NameTree[T]:
    """An alternative, or less than one if there are fewer than two trees."""
    if len(trees) > 1:
        return Alt(tuple(trees))
    return trees[0] if trees else NEG


def union_of(branches: list[Weighted[T]]) -> NameTree[T]:
    """A union of simplified branches: neg and fail are left out, a single branch loses its weight."""
    kept = [branch for branch in branches if not isinstance(branch.tree, (Neg, Fail))]
    if len(kept) > 1:
        return Union(tuple(kept))
    return kept[0].tree if kept else NEG


def evaluate(tree: NameTree[T]) -> frozenset[T] | Neg | Fail:
    """The values a tree stands for, weights ignored (dtab spec 5.2): a set, perhaps empty, or why there is none."""
    if isinstance(tree, Leaf):
        return frozenset((tree.value,))
    if isinstance(tree, Empty):
        return frozenset()
    if isinstance(tree, Alt):
        for child in tree.trees:
            answer = evaluate(child)
            if not isinstance(answer, Neg):
                return answer
        return NEG
    if isinstance(tree, Union):
        answers = [evaluate(branch.tree) for branch in tree.branches]
        sets = [answer for answer in answers if isinstance(answer, frozenset)]
        return frozenset[T]().union(*sets) if sets else NEG
    return FAIL if isinstance(tree, Fail) else NEG


def show_weight(weight: float) -> str:
    """A weight with two decimals, rounded half up on its shortest decimal form (dtab spec 3)."""
    return format(Decimal(repr(weight)).quantize(_CENT, rounding=ROUND_HALF_UP, context=_WIDE), "f")


def _show_path(path: Path) -> str:
    return path.show()


def _show_any(value: object) -> str:
    show = getattr(value, "show", None)
    return str(show()) if callable(show) else repr(value)


def show_tree(tree: NameTree[T], show: Callable[[T], str] = _show_path) -> str:  # type: ignore[assignment]  # paths by default
    """The canonical text; ``show`` gives the text of a leaf's value."""
    tree = _without_single_branches(tree)
    if isinstance(tree, Leaf):
        return show(tree.value)
    if isinstance(tree, Alt):
        return " | ".join([_operand(child, show, (Alt,)) for child in tree.trees]) or "~"
    if isinstance(tree, Union):
        shown = []
        for branch in tree.branches:
            weight = "" if branch.weight == 1.0 else f"{show_weight(branch.weight)}*"
            shown.append(weight + _operand(branch.tree, show, (Alt, Union)))
        return " & ".join(shown) or "~"
    if isinstance(tree, Fail):
        return "!"
    return "$" if isinstance(tree, Empty) else "~"


def _operand(tree: NameTree[T], show: Callable[[T], str], wrapped: tuple[type, ...]) -> str:
    tree = _without_single_branches(tree)
    text = show_tree(tree, show)
    several = (isinstance(tree, Alt) and len(tree.trees) > 1) or (isinstance(tree, Union) and len(tree.branches) > 1)
    return f"({text})" if several and isinstance(tree, wrapped) else text


def _without_single_branches(tree: NameTree[T]) -> NameTree[T]:
    while True:
        if isinstance(tree, Alt) and len(tree.trees) == 1:
            tree = tree.trees[0]
        elif isinstance(tree, Union) and len(tree.branches) == 1:
            tree = tree.branches[0].tree
        else:
            return tree


def read_tree(text: str) -> NameTree[Path]:
    """Parse a whole text. Raises :class:`NameSyntaxError`."""
    scanner = Scanner(text)
    tree = scan_tree(scanner)
    scanner.skip_blank()
    scanner.expect_end()
    return tree


def scan_tree(scanner: Scanner, nesting: int = 0) -> NameTree[Path]:
    """The tree at the scanner's position; one operand makes no node of its own."""
    trees = [_scan_union(scanner, nesting)]
    while _scan_operator(scanner, "|"):
        trees.append(_scan_union(scanner, nesting))
    return Alt(tuple(trees)) if len(trees) > 1 else trees[0]


def _scan_union(scanner: Scanner, nesting: int) -> NameTree[Path]:
    branches = [_scan_weighted(scanner, nesting)]
    while _scan_operator(scanner, "&"):
        branches.append(_scan_weighted(scanner, nesting))
    return Union(tuple(branches)) if len(branches) > 1 else branches[0].tree


def _scan_operator(scanner: Scanner, operator: str) -> bool:
    scanner.skip_blank()
    return scanner.accept(operator)


def _scan_weighted(scanner: Scanner, nesting: int) -> Weighted[Path]:
    scanner.skip_blank()
    number = _NUMBER.match(scanner.text, scanner.offset)
    if number is None:
        return Weighted(1.0, _scan_simple(scanner, nesting))
    weight = float(number.group())
    if weight == float("inf"):
        scanner.fail("a finite weight")
    scanner.offset = number.end()
    scanner.skip_blank()
    scanner.expect("*")
    return Weighted(weight, _scan_simple(scanner, nesting))


def _scan_simple(scanner: Scanner, nesting: int) -> NameTree[Path]:
    scanner.skip_blank()
    character = scanner.peek()
    if character == "/":
        return Leaf(scan_path(scanner))
    constant = _CONSTANTS.get(character)
    if constant is not None:
        scanner.offset += 1
        return constant
    if character != "(":
        scanner.fail("a path, '(', '!', '~' or '$'")
    if nesting == MAX_NESTING:
        scanner.fail(f"at most {MAX_NESTING} parentheses within one another")
    scanner.offset += 1
    tree = scan_tree(scanner, nesting + 1)
    scanner.skip_blank()
    scanner.expect(")")
    return tree
