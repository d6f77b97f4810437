"""The vectors of the dtab specification that need namers: binding (8.6), chains, and delegation (8.7)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path as File
from typing import Any

import pytest

from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.explain import delegation_from_json, delegation_to_json
from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.core.address import Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, constant, current
from meshgw.namers.rewrite import UTILITIES
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree, show_tree

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((File(__file__).parent.parent / "naming" / "vectors.json").read_text("utf-8"))
ADDRESSES = Replicas((Address("127.0.0.1", 8080),))
ADDRESSES_JSON = '{"type":"bound","addrs":[{"ip":"127.0.0.1","port":8080,"meta":{}}],"meta":{}}'
LIMIT = "FAILED Max recursion level: 100 reached in Namer lookup"


class Table:
    """Binds the first label if it is one of ``known``."""

    def __init__(self, prefix: Path, known: Iterable[bytes]) -> None:
        self._prefix, self._known = prefix, frozenset(known)

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        if not path or path[0] not in self._known:
            return constant(NEG)
        answer: NameTree[Path | Bound] = Leaf(Bound(self._prefix + path.take(1), constant(ADDRESSES), path.drop(1)))
        return constant(answer)


def interpreter() -> DefaultInterpreter:
    n, m = Path.read("/#/n"), Path.read("/#/m")
    builtin = BuiltinNamer(lambda host, port: constant(Replicas((Address("192.0.2.1", port),))), UTILITIES)
    return DefaultInterpreter([(n, Table(n, [b"web", b"api"])), (m, Table(m, [b"web"]))], builtin)


def show_bound(bound: Bound) -> str:
    return bound.show() + (f" [residual {bound.residual.show()}]" if bound.residual else "")


def bound_text(dtab: str, path: str) -> str:
    state = current(interpreter().bind(Dtab.read(dtab), Path.read(path)))
    if isinstance(state, Failed):
        return f"FAILED {state.error}"
    assert isinstance(state, Ok)
    return show_tree(state.value, show_bound)


@pytest.mark.parametrize("vector", [pytest.param(row, id=str(row["n"])) for row in VECTORS["binds"]])
def test_name_is_bound_as_specified(vector: dict[str, Any]) -> None:
    assert bound_text(vector["dtab"], vector["path"]) == vector["result"]


def chain(hops: int) -> str:
    return ";".join(f"/c{number}=>/c{number + 1}" for number in range(hops - 1)) + f";/c{hops - 1}=>/$/inet/1"


@pytest.mark.parametrize(("hops", "result"), [(99, "/$/inet/1"), (100, LIMIT), (101, LIMIT)])
def test_the_hundred_and_first_lookup_fails(hops: int, result: str) -> None:
    assert bound_text(chain(hops), "/c0") == result


@pytest.mark.parametrize("vector", [pytest.param(row, id=str(row["n"])) for row in VECTORS["delegations"]])
def test_name_is_delegated_as_specified(vector: dict[str, Any]) -> None:
    state = current(interpreter().delegate(Dtab.read(vector["dtab"]), Path.read(vector["path"])))
    assert isinstance(state, Ok)
    shown = delegation_to_json(state.value)
    expected = vector["json"].replace("<ADDR>", ADDRESSES_JSON)
    assert shown == json.loads(expected)
    assert json.dumps(shown, separators=(",", ":")) == json.dumps(json.loads(expected), separators=(",", ":"))  # the keys' order too
    assert delegation_to_json(delegation_from_json(shown)) == shown
