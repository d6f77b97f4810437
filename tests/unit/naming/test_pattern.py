from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.naming.path import Path
from meshgw.naming.pattern import PathMatcher, substitute, substitute_path
from meshgw.naming.text import NameSyntaxError


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("/", "/a/b", {}),
        ("", "/", {}),
        ("/svc/web", "/svc/web/x", {}),
        ("/svc/web", "/svc/webs", None),
        ("svc", "/svc", {}),
        ("/svc/*", "/svc", None),
        ("/*/web", "/svc/web", {}),
        ("/#/io.l5d.fs/{service}", "/#/io.l5d.fs/users/more", {"service": "users"}),
        ("/{A}-{B}", "/foo-bar-baz", {"A": "foo-bar", "B": "baz"}),
        ("/{a}{b}", "/xyz", {"a": "xyz", "b": ""}),
        ("/x{a}", "/y", None),
        ("/pre{a}", "/a-pre-post", {"a": "-post"}),  # searched, not anchored
        ("/{a}.com", "/www.example.com.org", {"a": "www.example"}),
        ("/a.c", "/abc", None),  # a dot is a dot
        ("/{a.b:c_d-e@F}", "/v", {"a.b:c_d-e@F": "v"}),
        ("/{a b}", "/v", None),
    ],
)
def test_pattern_matches_as_specified(pattern: str, path: str, captures: dict[str, str] | None) -> None:
    assert PathMatcher.read(pattern).match(Path.read(path)) == captures


pieces = st.lists(st.sampled_from(["", "-", ".", "a", "ab", "b-"]), min_size=2, max_size=4)


@given(pieces, st.text("ab-.", min_size=1, max_size=14))
def test_captures_are_those_of_a_searched_greedy_expression(literals: list[str], label: str) -> None:
    names = [f"v{number}" for number in range(len(literals) - 1)]
    segment = literals[0] + "".join(f"{{{name}}}{literal}" for name, literal in zip(names, literals[1:], strict=True))
    found = re.search("(.*)".join(re.escape(literal) for literal in literals), label)
    expected = None if found is None else dict(zip(names, found.groups(), strict=True))
    assert PathMatcher.read(f"/{segment}").match(Path.of(label)) == expected


def test_a_long_label_is_matched_in_no_time() -> None:
    assert PathMatcher.read("/{a}.{b}.{c}.svc").match(Path.of("." * 100_000)) is None


def test_unknown_variables_stay_as_they_are() -> None:
    assert substitute("{a}/{b}/{a}", {"a": "1"}) == "1/{b}/1"


def test_a_capture_of_any_bytes_becomes_part_of_a_label() -> None:
    captures = PathMatcher.read("/{a}").match(Path.of(b"x/\xff"))
    assert captures is not None
    assert substitute_path("/y/z-{a}", captures) == Path.of("y", b"z-x/\xff")


@pytest.mark.parametrize("template", ["/x/{unknown}", "/x/{empty}", "x"])
def test_a_template_that_gives_no_path_is_a_syntax_error(template: str) -> None:
    with pytest.raises(NameSyntaxError):
        substitute_path(template, {"empty": ""})


def test_the_names_of_captures_are_known() -> None:
    assert PathMatcher.read("/{a}-{b}/*/{c}").names == ("a", "b", "c")
