from __future__ import annotations

import json

import pytest

from meshgw.bind import explain
from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.delegate import with_addresses
from meshgw.bind.explain import (
    addr_to_json,
    delegation_from_json,
    delegation_to_json,
    explain_steps,
    has_endpoints,
    render_delegation,
    verdict,
)
from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import PENDING, Failed, Live, Ok, Pending, Source, State, constant, current, live_map
from meshgw.errors import NamerError
from meshgw.kinds import Transformer
from meshgw.namers.rewrite import UTILITIES
from meshgw.naming.delegation import DelegateAlt, DelegateLeaf, DelegateNeg, Delegation
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree, map_leaves

FS = Path.read("/#/fs")


class Files:
    """Binds ``web``; its addresses are a source that a test drives."""

    def __init__(self) -> None:
        self.starts = 0
        self.addr: Source[Addr] = Source(self._start)

    def _start(self, source: Source[Addr]) -> object:
        self.starts += 1
        return lambda: None

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        if path.take(1) != Path.of("web"):
            return constant(NEG)
        answer: NameTree[Path | Bound] = Leaf(Bound(FS + path.take(1), self.addr, path.drop(1)))
        return constant(answer)


class Port4140:
    """A transformer as ``io.l5d.port`` is."""

    name = "io.l5d.port"

    can_delegate = True

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        prefix = Path.of("%", "io.l5d.port", "4140")
        return live_map(tree, lambda value: map_leaves(value, lambda b: Bound(prefix + b.id, b.addr, b.residual)))


def delegation(dtab: str, path: str, files: Files | None = None, transformers: tuple[Transformer, ...] = ()) -> Delegation:
    namer = files or Files()
    if files is None:
        namer.addr.set(Replicas((Address("10.0.0.1", 80), Address("::1", 81, 0.5))))
    builtin = BuiltinNamer(lambda host, port: constant(ADDR_NEG), UTILITIES)
    state = current(DefaultInterpreter([(FS, namer)], builtin, transformers=transformers).delegate(Dtab.read(dtab), Path.read(path)))
    assert isinstance(state, Ok), state
    return state.value


def test_the_text_marks_what_routing_takes_and_says_why_not() -> None:
    tree = delegation("/svc=>/#/fs;/svc/web=>/#/consul | 3*/$/nope & 1*~", "/svc/web/v1")
    assert render_delegation(tree) == [
        "> /svc/web/v1: the first of these that is known",
        "    1. /#/consul/v1 by /svc/web => /#/consul | 3.00*/$/nope & ~: no such name",
        "    2. /svc/web/v1 by /svc/web => /#/consul | 3.00*/$/nope & ~: a draw by weight",
        "      weight 3.00: /$/nope/v1 by /svc/web => /#/consul | 3.00*/$/nope & ~: failed: Unknown namer: nope for path: /$/nope/v1",
        "      weight 1.00: ~ by /svc/web => /#/consul | 3.00*/$/nope & ~: no such name, says the entry",
        ">   3. /#/fs/web/v1 by /svc => /#/fs: bound to /#/fs/web, residual /v1",
        ">     10.0.0.1:80",
        ">     [::1]:81 weight 0.5",
    ]


def test_a_bound_name_is_marked_to_its_addresses() -> None:
    assert render_delegation(delegation("/svc=>/zz | /#/fs", "/svc/web")) == [
        "> /svc/web: the first of these that is known",
        "    1. /zz/web by /svc => /zz | /#/fs: no such name",
        ">   2. /#/fs/web by /svc => /zz | /#/fs: bound to /#/fs/web",
        ">     10.0.0.1:80",
        ">     [::1]:81 weight 0.5",
    ]


def test_steps_are_short_lines_without_addresses() -> None:
    tree = delegation("/svc=>/zz | /#/fs", "/svc/web")
    assert explain_steps(tree) == tuple(line[2:] for line in render_delegation(tree)[:3])
    assert explain_steps(tree, 2) == ("/svc/web: the first of these that is known", "... and 2 more steps")
    long = delegation(f"/svc=>/{'x' * 500}", "/svc")
    assert max(map(len, explain_steps(long))) == 200


@pytest.mark.parametrize(
    ("dtab", "outcome"),
    [
        ("/s=>/#/fs/web", "leaf"),
        ("/s=>/zz", "neg"),
        ("/s=>~", "neg"),
        ("/s=>!", "fail"),
        ("/s=>/$/fail", "fail"),
        ("/s=>$ | /#/fs/web", "empty"),
        ("/s=>~ | ! | /#/fs/web", "fail"),
        ("/s=>/$/nope | /#/fs/web", "exception"),
        ("/s=>/$/nope & /#/fs/web", "leaf"),
        ("/s=>/$/nope & /$/nope", "exception"),
        ("/s=>! & /zz", "neg"),
        ("/s=>$ & /zz", "empty"),
    ],
)
def test_the_verdict_is_what_binding_gives(dtab: str, outcome: str) -> None:
    tree = delegation(dtab, "/s")
    assert verdict(tree) == outcome
    assert has_endpoints(tree) is (outcome == "leaf")


def test_a_leaf_without_addresses_has_no_endpoints() -> None:
    files = Files()
    files.addr.set(Replicas())
    tree = delegation("/s=>/#/fs/web", "/s", files)
    assert verdict(tree) == "leaf"
    assert not has_endpoints(tree)
    assert render_delegation(tree)[-1] == ">     no addresses"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (PENDING, {"type": "pending"}),
        (Failed(NamerError(detail="down")), {"type": "failed", "cause": "down"}),
        (Ok(ADDR_NEG), {"type": "neg"}),
        (Ok(Replicas()), {"type": "bound", "addrs": [], "meta": {}}),
        (
            Ok(Replicas((Address("10.0.0.1", 80, 2.0, {"nodeName": "n1"}),), {"authority": "x"})),
            {
                "type": "bound",
                "addrs": [{"ip": "10.0.0.1", "port": 80, "meta": {"nodeName": "n1", "endpoint_addr_weight": 2.0}}],
                "meta": {"authority": "x"},
            },
        ),
    ],
)
def test_address_sets_are_shown_by_their_state(state: State[Addr], shown: dict[str, object]) -> None:
    assert addr_to_json(state) == shown


def test_a_transformer_is_a_step_between_the_ids() -> None:
    tree = delegation("/svc=>/#/fs", "/svc/web/x", transformers=(Port4140(),))
    shown = delegation_to_json(tree)
    inner = shown["delegate"]
    assert isinstance(inner, dict)
    assert (inner["type"], inner["path"], inner["name"]) == ("transformation", "/#/fs/web/x", "io.l5d.port")
    assert list(inner) == ["type", "path", "name", "bound", "tree"]
    assert inner["bound"]["id"] == "/#/fs/web"
    assert inner["tree"]["path"] == inner["tree"]["bound"]["id"] == "/%/io.l5d.port/4140/#/fs/web"
    assert json.dumps(delegation_to_json(delegation_from_json(shown))) == json.dumps(shown)
    assert has_endpoints(tree)
    assert any("transformed by io.l5d.port" in line for line in render_delegation(tree))


def test_addresses_are_awaited_and_released() -> None:
    files = Files()
    live = with_addresses(constant(delegation("/s=>/#/fs/web & /zz", "/s", files)))
    seen: list[State[Delegation]] = []
    observation = live.observe(seen.append)
    assert isinstance(seen[-1], Pending)
    files.addr.set(Replicas((Address("10.0.0.9", 80),)))
    state = seen[-1]
    assert isinstance(state, Ok)
    observation.close()
    assert not files.addr.is_observed
    files.addr.set(Replicas())
    assert has_endpoints(state.value)  # fixed as it was then


def test_a_delegation_without_leaves_has_nothing_to_wait_for() -> None:
    tree = delegation("", "/s")
    assert current(with_addresses(constant(tree))) == Ok(tree)
    assert isinstance(tree, DelegateNeg)


def test_a_rewriting_namer_is_a_step() -> None:
    tree = delegation("/svc=>/$/io.buoyant.http.anyMethod", "/svc/GET/#/fs/web")
    assert [line.strip("> ").split(" by ")[0] for line in render_delegation(tree)[:3]] == [
        "/svc/GET/#/fs/web",
        "/$/io.buoyant.http.anyMethod/GET/#/fs/web",
        "/#/fs/web",
    ]
    assert not isinstance(tree, DelegateLeaf)


def test_a_loop_is_an_exception_beside_its_neighbours() -> None:
    tree = delegation("/s=>/loop | /#/fs/web;/loop=>/loop", "/s")
    assert any("Max recursion level reached." in line for line in render_delegation(tree))


@pytest.mark.parametrize(
    "text", ["null", "[]", "{}", '{"type":"odd","path":"/"}', '{"type":"neg","path":"x"}', '{"type":"leaf","path":"/"}']
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        delegation_from_json(json.loads(text))


def test_the_entry_that_steps_repeat_may_not_fill_the_memory() -> None:
    (entry,) = Dtab.read("/a => " + " | ".join(f"/b{number}" for number in range(5000)))
    steps = DelegateAlt(Path.read("/a"), None, tuple(DelegateNeg(Path.read(f"/b{number}"), entry) for number in range(5000)))
    with pytest.raises(NamerError, match="more than 16 MiB of text"):
        delegation_to_json(steps)


def test_the_entry_that_steps_repeat_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(explain, "show_tree", lambda tree: shown.append(tree) or "/b | /c")
    (entry,) = Dtab.read("/a => /b | /c")
    steps = DelegateAlt(Path.read("/a"), None, tuple(DelegateNeg(Path.read(name), entry) for name in ("/b", "/c")))
    told = delegation_to_json(steps)["alt"]
    assert isinstance(told, list)
    assert [step["dentry"] for step in told] == [{"prefix": "/a", "dst": "/b | /c"}] * 2
    assert len(shown) == 1
