from __future__ import annotations

import pytest
from hypothesis import given

from meshgw.naming.dtab import WILDCARD, Delegation, Dentry, Dtab, DtabSyntaxError, NameSyntaxError, Prefix
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Alt, map_leaves, show_tree
from strategies import dtabs, few_paths, meeting_dtabs, name_text, paths


@given(dtabs())
def test_reading_what_is_shown_gives_the_same_dtab(dtab: Dtab) -> None:
    again = Dtab.read(dtab.show())
    assert again == dtab
    assert hash(again) == hash(dtab)
    assert again.show() == dtab.show()


@given(name_text)
def test_no_text_raises_anything_but_the_syntax_error(text: str) -> None:
    try:
        dtab = Dtab.read(text)
    except DtabSyntaxError as error:
        assert str(error)
        assert error.caret()
        assert error.line >= 1
        assert error.column >= 1
    else:
        assert Dtab.read(dtab.show()).show() == dtab.show()


@given(meeting_dtabs, few_paths)
def test_lookup_prefers_what_comes_later_and_keeps_the_rest_of_the_name(dtab: Dtab, path: Path) -> None:
    found = []
    for dentry in dtab:
        n = len(dentry.prefix)
        if n <= len(path) and all(element in (WILDCARD, label) for element, label in zip(dentry.prefix, path, strict=False)):
            found.insert(0, map_leaves(dentry.dst, lambda leaf, n=n: leaf + path.drop(n)))
    expected = NEG if not found else found[0] if len(found) == 1 else Alt(tuple(found))
    assert dtab.lookup(path) == expected


@given(paths, meeting_dtabs)
def test_a_name_without_matching_entry_is_neg(path: Path, dtab: Dtab) -> None:
    if not any(dentry.prefix.matches(path) for dentry in dtab):
        assert dtab.lookup(path) is NEG


@given(dtabs(), dtabs())
def test_stripping_what_was_put_in_front_gives_the_rest(one: Dtab, other: Dtab) -> None:
    assert (one + other).strip_prefix(one) == other
    assert type(one + other) is Dtab


def test_a_dtab_that_does_not_start_so_is_not_stripped() -> None:
    dtab = Dtab.read("/a=>/b;/c=>/d")
    assert dtab.strip_prefix(Dtab.read("/x=>/b")) == dtab
    assert Dtab.EMPTY.strip_prefix(dtab) == Dtab.EMPTY


def test_equivalence_looks_through_simplification() -> None:
    assert Dtab.read("/a=>~|/b").equivalent(Dtab.read("/a=>/b"))
    assert not Dtab.read("/a=>~|/b").equivalent(Dtab.read("/a=>/c"))
    assert Dtab.read("/a=>~|~;/c=>/d|~").simplified() == Dtab.read("/c=>/d")


def test_the_error_of_a_file_names_line_and_column() -> None:
    text = "/svc => /host;\n\t/host => /#/fs | ;\n/x => /y"
    with pytest.raises(DtabSyntaxError) as raised:
        Dtab.read(text)
    error = raised.value
    assert (error.line, error.column, error.found) == (2, 19, ";")
    assert error.caret() == "\t/host => /#/fs | ;\n\t" + " " * 17 + "^"
    assert "[;]" in str(error)
    assert DtabSyntaxError is NameSyntaxError


def test_entries_and_prefixes_are_read_alone() -> None:
    dentry = Dentry.read(" /a/* => /b ")
    assert dentry.prefix == Prefix.of("a", "*") == Prefix.read("/a/*")
    assert dentry.show() == "/a/*=>/b"
    assert show_tree(dentry.rewrite(Path.read("/a/b/c"))) == "/b/c"
    with pytest.raises(DtabSyntaxError):
        Dentry.read("/a=>/b;")
    with pytest.raises(DtabSyntaxError):
        Prefix.read("/a/ b")


def test_the_entry_of_the_root_of_a_delegation_can_be_written() -> None:
    assert Dentry(Prefix.of(b"/"), NEG).show() == "/\\x2f=>~"
    assert Delegation.__name__ == "Delegation"


def test_slices_are_dtabs_and_items_are_entries() -> None:
    dtab = Dtab.read("/a=>/b;/c=>/d")
    assert isinstance(dtab[1:], Dtab)
    assert dtab[0].show() == "/a=>/b"
    assert Dtab.of(dtab[:1]).show() == "/a=>/b"


def test_a_long_text_is_read_with_a_pause_after_each_entry() -> None:
    text = ";".join(f"/svc/{number} => /#/io.l5d.fs/{number}" for number in range(50))
    work = Dtab.reading(text)
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as ended:
            assert ended.value == Dtab.read(text)
            break
        pauses += 1
    assert pauses == 50
