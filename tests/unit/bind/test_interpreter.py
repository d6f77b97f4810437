from __future__ import annotations

import pytest
from hypothesis import given, settings

from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.interpreter import TREE_WEIGHT_KEY, DefaultInterpreter
from meshgw.bind.lookup import MAX_COMPARED, MAX_LOOKUPS
from meshgw.core.address import ADDR_NEG, Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Pending, Source, State, constant, current, live_map
from meshgw.errors import NamerError
from meshgw.namers.rewrite import UTILITIES
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Alt, Leaf, NameTree, Union, Weighted, leaves, map_leaves, show_tree, simplified
from strategies import few_paths, meeting_dtabs

Answer = NameTree[Path | Bound]
N = Path.read("/#/n")


class Cells:
    """A namer whose answers a test sets: one cell for each path, shared by all who look it up."""

    def __init__(self, prefix: Path = N) -> None:
        self.prefix = prefix
        self.cells: dict[Path, Source[Answer]] = {}
        self.starts = 0

    def lookup(self, path: Path) -> Live[Answer]:
        return self.cell(path.show())

    def cell(self, path: str) -> Source[Answer]:
        def start(source: Source[Answer]) -> object:
            self.starts += 1
            return lambda: None

        return self.cells.setdefault(Path.read(path), Source(start))  # type: ignore[arg-type]

    def bound(self, path: str) -> Leaf[Bound]:
        return Leaf(Bound(self.prefix + Path.read(path), constant(Replicas((Address("127.0.0.1", 1),))), Path.ROOT))

    @property
    def observed(self) -> set[str]:
        return {path.show() for path, cell in self.cells.items() if cell.is_observed}


def interpreter(*namers: Cells) -> DefaultInterpreter:
    return DefaultInterpreter([(namer.prefix, namer) for namer in namers], BuiltinNamer(lambda host, port: constant(ADDR_NEG), UTILITIES))


def watch(live: Live[NameTree[Bound]]) -> tuple[list[State[NameTree[Bound]]], object]:
    seen: list[State[NameTree[Bound]]] = []
    return seen, live.observe(seen.append)


def shown(state: State[NameTree[Bound]]) -> str:
    if isinstance(state, Ok):
        return show_tree(state.value, Bound.show)
    return type(state).__name__


def test_an_alternative_waits_for_its_first_branch() -> None:
    namer = Cells()
    namer.cell("/b").set(namer.bound("/b"))
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/s=>/#/n/a | /#/n/b"), Path.read("/s")))
    assert seen == [Pending("/#/n/a")]
    assert namer.observed == {"/a"}


def test_an_error_does_not_fall_over_to_the_next_alternative() -> None:
    namer = Cells()
    namer.cell("/a").fail(NamerError(detail="down"))
    namer.cell("/b").set(namer.bound("/b"))
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/s=>/#/n/a | /#/n/b"), Path.read("/s")))
    assert shown(seen[-1]) == "Failed"


def test_a_branch_that_is_left_is_not_observed_any_more() -> None:
    namer = Cells()
    namer.cell("/a").set(NEG)
    namer.cell("/b").set(namer.bound("/b"))
    seen, observation = watch(interpreter(namer).bind(Dtab.read("/s=>/#/n/a | /#/n/b"), Path.read("/s")))
    assert namer.observed == {"/a", "/b"}
    namer.cell("/a").set(namer.bound("/a"))
    assert [shown(state) for state in seen] == ["/#/n/b", "/#/n/a"]
    assert namer.observed == {"/a"}
    namer.cell("/a").set(NEG)
    assert shown(seen[-1]) == "/#/n/b"
    observation.close()  # type: ignore[attr-defined]
    assert namer.observed == set()


def test_a_union_is_of_those_branches_that_are_known() -> None:
    namer = Cells()
    tree = Dtab.read("/s=>2*/#/n/a & 3*/#/n/b & /#/n/c")
    seen, observation = watch(interpreter(namer).bind(tree, Path.read("/s")))
    assert isinstance(seen[-1], Pending)
    namer.cell("/b").fail(NamerError(detail="down"))
    assert shown(seen[-1]) == "Failed"
    namer.cell("/a").set(namer.bound("/a"))
    assert shown(seen[-1]) == "/#/n/a"
    namer.cell("/c").set(namer.bound("/c"))
    assert shown(seen[-1]) == "2.00*/#/n/a & /#/n/c"
    namer.cell("/b").set(namer.bound("/b"))
    assert shown(seen[-1]) == "2.00*/#/n/a & 3.00*/#/n/b & /#/n/c"
    observation.close()  # type: ignore[attr-defined]
    assert namer.observed == set()


def test_an_unchanged_tree_is_not_announced_again() -> None:
    namer = Cells()
    namer.cell("/a").set(namer.bound("/a"))
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/s=>/#/n/a & /#/n/b"), Path.read("/s")))
    namer.cell("/b").set(NEG)
    namer.cell("/b").set(FAIL)
    assert [shown(state) for state in seen] == ["/#/n/a"]


def test_a_source_that_failed_after_a_good_answer_is_kept_and_its_error_carried() -> None:
    namer = Cells()
    namer.cell("/a").set(namer.bound("/a"))
    seen, _ = watch(interpreter(namer).bind(Dtab.EMPTY, Path.read("/#/n/a")))
    error = NamerError(detail="gone")
    namer.cell("/a").fail(error)
    assert isinstance(seen[-1], Ok)
    assert seen[-1].error is error
    assert shown(seen[-1]) == "/#/n/a"


def test_answers_are_shared_and_a_repeated_name_is_asked_once() -> None:
    namer = Cells()
    namer.cell("/a").set(namer.bound("/a"))
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/s=>/#/n/a & /t;/t=>/#/n/a"), Path.read("/s")))
    assert shown(seen[-1]) == "/#/n/a & /#/n/a"
    assert namer.starts == 1


def test_the_last_configured_namer_is_asked_first_and_neg_yields_to_the_next() -> None:
    wide, narrow = Cells(Path.read("/#")), Cells(N)
    wide.cell("/n/a").set(wide.bound("/wide"))
    narrow.cell("/a").set(narrow.bound("/narrow"))
    seen, _ = watch(interpreter(wide, narrow).bind(Dtab.EMPTY, Path.read("/#/n/a")))
    assert shown(seen[-1]) == "/#/n/narrow"
    narrow.cell("/a").set(NEG)
    assert shown(seen[-1]) == "/#/wide"
    assert narrow.observed == {"/a"}


def test_a_path_answered_by_a_namer_is_looked_up_from_the_start() -> None:
    namer = Cells()
    namer.cell("/a").set(Alt((Leaf(Path.read("/x/1")), Leaf(Path.read("/#/n/b")))))
    namer.cell("/b").set(namer.bound("/b"))
    seen, _ = watch(interpreter(namer).bind(Dtab.EMPTY, Path.read("/#/n/a")))
    assert shown(seen[-1]) == "/#/n/b"
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/x=>/$/nil"), Path.read("/#/n/a")))
    assert shown(seen[-1]) == "$"


def test_a_namer_that_raises_makes_the_name_failed() -> None:
    class Broken:
        def lookup(self, path: Path) -> Live[Answer]:
            raise RuntimeError("defect")

    broken = DefaultInterpreter([(N, Broken())], BuiltinNamer(lambda host, port: constant(ADDR_NEG), {}))
    state = current(broken.bind(Dtab.EMPTY, N))
    assert isinstance(state, Failed)
    assert str(state.error) == "defect"


def weights(state: State[NameTree[Bound]]) -> list[object]:
    assert isinstance(state, Ok)
    found = []
    for bound in leaves(state.value):
        addr = current(bound.addr)
        assert isinstance(addr, Ok)
        assert isinstance(addr.value, Replicas)
        found.append(addr.value.meta.get(TREE_WEIGHT_KEY))
    return found


def test_the_innermost_weight_is_in_the_metadata_of_the_addresses() -> None:
    namer = Cells()
    for name in ("/a", "/b", "/c"):
        namer.cell(name).set(namer.bound(name))
    dtab = Dtab.read("/s=>2*(3*/#/n/a & /#/n/b) & 4*(~ | /#/n/c)")
    assert weights(current(interpreter(namer).bind(dtab, Path.read("/s")))) == [3.0, 1.0, 4.0]
    assert weights(current(interpreter(namer).bind(dtab, Path.read("/#/n/a")))) == [None]


def test_computing_again_keeps_the_address_objects() -> None:
    namer = Cells()
    namer.cell("/a").set(namer.bound("/a"))
    seen, _ = watch(interpreter(namer).bind(Dtab.read("/s=>2*/#/n/a & /#/n/b"), Path.read("/s")))
    namer.cell("/b").set(namer.bound("/b"))
    trees = [state.value for state in seen if isinstance(state, Ok)]
    assert leaves(trees[0])[0].addr is leaves(trees[-1])[0].addr


def test_a_reader_that_leaves_while_it_is_told_leaves_nothing_observed() -> None:
    namer = Cells()
    held: list[object] = []

    def notify(state: State[NameTree[Bound]]) -> None:
        if isinstance(state, Ok):
            held[0].close()  # type: ignore[attr-defined]

    held.append(interpreter(namer).bind(Dtab.read("/s=>/#/n/a | /#/n/b"), Path.read("/s")).observe(notify))
    namer.cell("/b").set(namer.bound("/b"))
    namer.cell("/a").set(NEG)
    assert namer.observed == set()


def test_entries_that_multiply_a_name_end_in_an_error() -> None:
    state = current(interpreter().bind(Dtab.read("/a=>/a/x & /a/y"), Path.read("/a")))
    assert isinstance(state, Failed)
    assert str(MAX_LOOKUPS) in str(state.error)


def test_a_dtab_that_is_too_long_for_so_many_names_ends_in_an_error() -> None:
    entries = 1900  # that many look-ups are allowed, but each goes through all of them
    state = current(interpreter().bind(Dtab.read(";".join(f"/a => /b{number}" for number in range(entries))), Path.read("/a")))
    assert isinstance(state, Failed)
    assert str(MAX_COMPARED) in str(state.error)


def test_a_long_dtab_is_no_trouble_where_few_names_come_of_it() -> None:
    long = ";".join(f"/svc/{number} => /$/inet/127.1/{1 + number}" for number in range(5000))
    assert isinstance(current(interpreter().bind(Dtab.read(long), Path.read("/svc/7"))), Ok)


@pytest.mark.parametrize("dst", ["/a & /$/nil", "/a | /x", "(~ | ~ | /a) | /x"])
def test_a_hundred_nested_unions_or_alternatives_do_not_exhaust_the_stack(dst: str) -> None:
    state = current(interpreter().bind(Dtab.read(f"/a=>{dst}"), Path.read("/a")))
    if isinstance(state, Ok):
        assert simplified(state.value) == map_leaves(state.value, lambda bound: bound)
        assert show_tree(state.value, Bound.show)
        assert isinstance(hash(state.value), int)
    else:
        assert isinstance(state, Failed)
        assert "Max recursion level: 100" in str(state.error)


@settings(max_examples=50)
@given(meeting_dtabs, few_paths)
def test_every_dtab_binds_or_fails_within_the_limits(dtab: Dtab, path: Path) -> None:
    namer = Cells()
    namer.cell("/web").set(namer.bound("/web"))
    chosen = interpreter(namer)
    live = chosen.bind(dtab, path)
    seen, observation = watch(live)
    state = seen[-1]
    if isinstance(state, Ok):
        assert simplified(state.value) == state.value
        assert "|" not in show_tree(state.value, Bound.show)
    else:
        assert isinstance(state, (Failed, Pending))
    observation.close()  # type: ignore[attr-defined]
    assert namer.observed == set()
    assert isinstance(current(chosen.delegate(dtab, path)), (Ok, Failed, Pending))
    assert namer.observed == set()


class Prefixing:
    """A transformer that marks every id."""

    can_delegate = True

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        return live_map(tree, lambda value: map_leaves(value, lambda b: Bound(Path.of("%", "mark") + b.id, b.addr, b.residual)))


class Inventing(Prefixing):
    can_delegate = False


def test_transformers_change_bound_trees_in_their_order() -> None:
    namer = Cells()
    namer.cell("/a").set(namer.bound("/a"))
    builtin = BuiltinNamer(lambda host, port: constant(ADDR_NEG), {})
    chosen = DefaultInterpreter([(N, namer)], builtin, transformers=[Prefixing()])
    assert shown(current(chosen.bind(Dtab.EMPTY, Path.read("/#/n/a")))) == "/%/mark/#/n/a"
    assert chosen.can_delegate


def test_a_transformer_that_invents_names_makes_delegation_impossible() -> None:
    chosen = DefaultInterpreter([], BuiltinNamer(lambda host, port: constant(ADDR_NEG), {}), transformers=[Inventing()])
    assert not chosen.can_delegate
    assert "Inventing" in str(current(chosen.delegate(Dtab.EMPTY, N)))


def test_an_empty_union_from_a_namer_is_neg() -> None:
    namer = Cells()
    namer.cell("/a").set(Union(()))
    namer.cell("/b").set(Union((Weighted(1.0, EMPTY),)))
    assert shown(current(interpreter(namer).bind(Dtab.EMPTY, Path.read("/#/n/a")))) == "~"
    assert shown(current(interpreter(namer).bind(Dtab.EMPTY, Path.read("/#/n/b")))) == "$"
