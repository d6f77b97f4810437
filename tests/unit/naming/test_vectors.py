"""Every vector of the dtab specification that needs no namer (8.1 to 8.5); those that need one are in unit/bind."""

from __future__ import annotations

import json
import re
from pathlib import Path as File
from typing import Any

import pytest

from meshgw.naming.dtab import Dtab, DtabSyntaxError
from meshgw.naming.path import Path
from meshgw.naming.tree import Alt, Fail, Leaf, NameTree, Neg, Union, evaluate, read_tree, show_tree, simplified

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(File(__file__).with_name("vectors.json").read_text("utf-8"))


def table(name: str) -> Any:
    return pytest.mark.parametrize("vector", [pytest.param(row, id=str(row["n"])) for row in VECTORS[name]])


def structure(tree: NameTree[Path]) -> str:
    if isinstance(tree, Leaf):
        return f"Leaf({tree.value.show()})"
    if isinstance(tree, Alt):
        return f"Alt({', '.join(map(structure, tree.trees))})"
    if isinstance(tree, Union):
        return f"Union({', '.join(f'{branch.weight:g}:{structure(branch.tree)}' for branch in tree.branches)})"
    return type(tree).__name__


def test_there_are_all_167_vectors() -> None:
    assert [row["n"] for rows in VECTORS.values() for row in rows] == list(range(1, 168))


@table("paths")
def test_path_is_read_and_shown_as_specified(vector: dict[str, Any]) -> None:
    if vector["result"] == "ERROR":
        with pytest.raises(DtabSyntaxError):
            Path.read(vector["input"])
    else:
        assert Path.read(vector["input"]).show() == vector["result"]


@table("trees")
def test_tree_is_read_and_shown_as_specified(vector: dict[str, Any]) -> None:
    if vector["structure"] == "ERROR":
        with pytest.raises(DtabSyntaxError):
            read_tree(vector["input"])
    else:
        tree = read_tree(vector["input"])
        assert (structure(tree), show_tree(tree)) == (vector["structure"], vector["show"])


@table("dtabs")
def test_dtab_is_read_and_shown_as_specified(vector: dict[str, Any]) -> None:
    if vector["result"] == "ERROR":
        with pytest.raises(DtabSyntaxError):
            Dtab.read(vector["input"])
    else:
        assert Dtab.read(vector["input"]).show() == vector["result"]


@table("lookups")
def test_lookup_rewrites_as_specified(vector: dict[str, Any]) -> None:
    tree = Dtab.read(vector["dtab"]).lookup(Path.read(vector["path"]))
    assert tree == read_tree(vector["result"])
    assert show_tree(tree) == vector["result"]


@table("evaluations")
def test_tree_is_evaluated_and_simplified_as_specified(vector: dict[str, Any]) -> None:
    tree = read_tree(vector["tree"])
    none = re.fullmatch(r"none \((Neg|Fail)\)", vector["eval"])
    answer = evaluate(tree)
    if none is not None:
        assert type(answer) is {"Neg": Neg, "Fail": Fail}[none.group(1)]
    else:
        expected = {Path.read(text) for text in vector["eval"].strip("{}").split(", ") if text}
        assert answer == expected
    assert simplified(tree) == read_tree(vector["simplified"])
