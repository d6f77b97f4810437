from __future__ import annotations

import pytest
from hypothesis import given

from meshgw.naming.dtab import DtabSyntaxError
from meshgw.naming.path import ROOT, Path
from strategies import name_text, paths


@given(paths)
def test_reading_what_is_shown_gives_the_same_path(path: Path) -> None:
    assert Path.read(path.show()) == path


@given(name_text)
def test_no_text_raises_anything_but_the_syntax_error(text: str) -> None:
    try:
        path = Path.read(text)
    except DtabSyntaxError as error:
        assert 0 <= error.offset <= len(text)
        assert str(error)
        assert "^" in error.caret()
    else:
        assert Path.read(path.show()) == path


@given(paths, paths)
def test_concatenation_starts_with_the_first_and_leaves_the_second(one: Path, other: Path) -> None:
    whole = one + other
    assert type(whole) is Path
    assert whole.startswith(one)
    assert whole.take(len(one)) == one
    assert whole.drop(len(one)) == whole[len(one) :] == other


def test_slices_are_paths_and_items_are_labels() -> None:
    path = Path.of("a", b"b", "c")
    assert isinstance(path[1:], Path)
    assert path[1] == b"b"
    assert path[-1] == b"c"


def test_a_path_equals_and_hashes_like_its_tuple() -> None:
    assert Path.of("a", "b") == (b"a", b"b")
    assert hash(Path.of("a")) == hash((b"a",))
    assert not hasattr(Path.of("a"), "__dict__")


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Path.of("a", "")


def test_the_root_is_shown_as_a_slash_and_prefixes_all() -> None:
    assert Path.ROOT is ROOT
    assert str(ROOT) == "/"
    assert Path.of("a").startswith(ROOT)


def test_an_error_shows_the_offending_character_in_brackets() -> None:
    with pytest.raises(DtabSyntaxError) as raised:
        Path.read("/foo^bar")
    error = raised.value
    assert "'/foo[^]bar'" in str(error)
    assert (error.text, error.offset, error.found, error.line, error.column) == ("/foo^bar", 4, "^", 1, 5)
    assert error.caret() == "/foo^bar\n    ^"
    assert isinstance(error, ValueError)


def test_an_error_at_the_end_shows_empty_brackets() -> None:
    with pytest.raises(DtabSyntaxError) as raised:
        Path.read("/foo/bar/")
    assert "'/foo/bar/[]'" in str(raised.value)
    assert raised.value.expected == "a label character"
    assert raised.value.found == ""
