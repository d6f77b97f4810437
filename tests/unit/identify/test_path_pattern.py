"""Regular expressions over whole paths (linkerd-config spec 5.2), in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.identify.path_pattern import MOST_POSITIONS, PathPattern


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeated = st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{0,2}", "{1,}", "{2,}", "{0}", "{1,3}?"])).map(
        lambda pair: f"(?:{pair[0]}){pair[1]}"
    )
    return repeated | st.tuples(inner, inner).map("".join) | st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})")


atoms = st.sampled_from(["a", "b", "/", ".", r"\.", r"\d", r"\w", r"\S", "[ab]", "[^a/]", r"[\d-]", "[a-c/]", r"[^\W]", ""])
expressions = st.recursive(atoms, grown, max_leaves=8)
paths = st.text("ab/.1-_", max_size=12)


@given(expressions, paths)
def test_it_matches_what_a_backtracking_engine_matches(expression: str, path: str) -> None:
    assert PathPattern(expression).matches(path) == bool(re.fullmatch(expression, path))


@given(st.text("ab/.*+?{}()[]|^$\\-,0129dwDW:<>=!&", max_size=20) | st.text(max_size=30), paths)
def test_any_text_is_read_or_refused_with_a_reason(expression: str, path: str) -> None:
    try:
        pattern = PathPattern(expression)
    except ValueError as error:
        assert str(error)
    else:
        assert pattern.matches(path) in (True, False)


@pytest.mark.parametrize(
    ("expression", "matching", "other"),
    [
        ("/api", ["/api"], ["/api/", "/ap", "/api2", ""]),
        ("/api/.*", ["/api/", "/api/a/b"], ["/api", "/apis/x"]),
        ("/api(/.*)?", ["/api", "/api/x"], ["/apix"]),
        ("^/api$", ["/api"], ["^/api$"]),
        (r"/cost\$", ["/cost$"], ["/cost", r"/cost\$"]),
        (r"/end\\$", ["/end\\"], ["/end", "/end$"]),
        ("/(?<user>[a-z]+)/(?:photos|films)", ["/ann/photos", "/bob/films"], ["/ann/", "/Ann/photos"]),
        ("/[^/]+/x", ["/a/x", "/ab/x"], ["//x", "/a/b/x"]),
        ("/v[12]/.+", ["/v1/a", "/v2/b"], ["/v3/a", "/v1/"]),
        (r"/[a\-z]", ["/a", "/-", "/z"], ["/b"]),
        (r"/\w{2,3}", ["/ab", "/a_1"], ["/a", "/abcd"]),
        ("/a{0}b", ["/b"], ["/ab"]),
        ("", [""], ["/"]),
    ],
)
def test_paths_match_as_a_whole(expression: str, matching: list[str], other: list[str]) -> None:
    pattern = PathPattern(expression)
    assert [path for path in [*matching, *other] if pattern.matches(path)] == matching


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("/(a", "the ( at character 2 is not closed"),
        ("/a)", "unmatched ) at character 3"),
        ("/[a", "the [ at character 2 is not closed"),
        ("/[]a]", "nothing in it"),
        ("/[z-a]", "the wrong way round"),
        ("/[[:alpha:]]", "sets within sets"),
        ("/[a&&b]", "sets within sets"),
        ("*", "nothing to repeat before *"),
        ("/a**", "a quantifier follows another"),
        ("/a++", "possessive"),
        ("/a{x}", "a number of repetitions"),
        ("/a{3,2}", "the wrong way round"),
        (r"/(a)\1", r"\1 at character 5 is not supported"),
        (r"/\bx", r"\b at character 2 is not supported"),
        ("/(?=a)a", "(?= at character 2 is not supported"),
        ("/(?<!a)b", "is not supported"),
        ("(?i)/a", "(?i at character 1 is not supported"),
        ("/a^b", "^ at character 3"),
        ("/a\\", "it ends too early"),
        ("(" * 60 + ")" * 60, "nested deeper"),
        ("(a{99}){99}", f"longer than {MOST_POSITIONS}"),
        ("(a?b?c?d?e?f?g?h?i?j?k?l?m?n?o?p?q?r?s?t?u?v?w?x?y?z?){4}", "too many"),
    ],
)
def test_what_cannot_be_matched_in_linear_time_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        PathPattern(expression)


@pytest.mark.parametrize("expression", ["(a+)+b", "(a|aa)*b", "(.*)*(.*)*(.*)*b", "(a?){50}a{50}b", "((((){9999}){9999}){9999}){9999}"])
def test_what_makes_other_engines_stand_still_takes_no_time(expression: str) -> None:
    began = time.process_time()
    assert not PathPattern(expression).matches("a" * 20_000)
    assert time.process_time() - began < 1.0
