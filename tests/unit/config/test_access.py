"""Patterns of ``accessControl``: what they match, what is no pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.access import AccessControl, IdentityPattern, PathPrefix
from meshgw.config.loader import LoadResult

ROUTER = "routers:\n- protocol: http\n  servers: [{port: 4140}]\n  accessControl:\n"


def control(loaded: Callable[[str], LoadResult], text: str) -> AccessControl:
    result = loaded(ROUTER + "".join(f"    {line}\n" for line in text.splitlines()))
    assert result.config is not None, [problem.show() for problem in result.problems]
    found = result.config.routers[0].config.access_control
    assert isinstance(found, AccessControl)
    return found


@pytest.mark.parametrize(
    ("pattern", "identity", "fits"),
    [
        ("spiffe://mesh/ns/prod/*", "spiffe://mesh/ns/prod/sa/web", True),
        ("spiffe://mesh/ns/prod/*", "spiffe://mesh/ns/prod/", True),
        ("spiffe://mesh/ns/prod/*", "spiffe://mesh/ns/prod", False),
        ("spiffe://*/sa/web", "spiffe://mesh/ns/prod/sa/web", True),
        ("spiffe://*/sa/web", "spiffe://mesh/ns/prod/sa/web2", False),
        ("web.example", "web.example", True),
        ("web.example", "Web.example", False),
        ("web?example", "web.example", False),
        ("web[.]example", "web.example", False),
        ("*.example", "a.b.example", True),
        ("a*a", "a", False),
        ("a*b*a", "aba", True),
        ("a*b*a", "aa", False),
        ("*", "anybody", True),
        ("*", None, False),
        ("**", None, False),
        ("", None, True),
        ("", "anybody", False),
        ("web", None, False),
    ],
)
def test_a_star_stands_for_any_characters_and_nothing_else_does(pattern: str, identity: str | None, fits: bool) -> None:
    assert IdentityPattern.read(pattern).matches(identity) is fits


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=12))
def test_patterns_agree_with_another_matcher(pattern: str, identity: str) -> None:
    assert IdentityPattern.read(pattern).matches(identity) is fnmatch.fnmatchcase(identity, pattern)


@pytest.mark.parametrize(
    ("text", "segments"),
    [("/", ()), ("/admin", ("admin",)), ("/admin/", ("admin",)), ("/.well-known/a.b", (".well-known", "a.b"))],
)
def test_a_path_prefix_is_its_segments(text: str, segments: tuple[str, ...]) -> None:
    assert PathPrefix.read(text).segments == segments


@pytest.mark.parametrize("text", ["", "admin", "//admin", "/a//b", "/a/../b", "/./a", "/%61dmin", "/a;x", "/a?b", "/a b", "/ü", "//"])
def test_what_could_be_written_otherwise_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"path"):
        PathPrefix.read(text)


def test_the_rules_of_a_file_keep_their_order_and_say_what_they_are(loaded: Callable[[str], LoadResult]) -> None:
    text = """mode: audit
default: allow
rules:
- deny: {identity: "", path: /admin/}
- allow: {identity: "spiffe://mesh/*", service: /svc/users, methods: [GET, HEAD]}
- deny: {}"""
    found = control(loaded, text)
    assert (found.mode, found.default, found.dtab_overrides) == ("audit", "allow", False)
    assert [rule.show() for rule in found.rules] == [
        "deny identity=none path=/admin",
        "allow identity=spiffe://mesh/* service=/svc/users methods=GET,HEAD",
        "deny everything",
    ]


def test_without_words_everything_is_denied(loaded: Callable[[str], LoadResult]) -> None:
    found = control(loaded, "rules: []")
    assert (found.mode, found.default) == ("enforce", "deny")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{allow: {}, deny: {}}", "a rule needs either allow or deny"),
        ("{}", "a rule needs either allow or deny"),
        ("{deny: {path: admin}}", "begins with '/'"),
        ("{deny: {service: users}}", "path"),
        ("{deny: {methods: []}}", "matches nothing"),
        ("{deny: {methods: ['a b']}}", "cannot be a method"),
        ("{deny: {who: me}}", "unknown field 'who'"),
    ],
)
def test_a_bad_rule_is_told_with_its_place(shown: Callable[[str], list[str]], rule: str, message: str) -> None:
    problems = shown(f"{ROUTER}    rules:\n    - {rule}\n")
    assert len(problems) == 1, problems
    assert message in problems[0]
    assert problems[0].startswith("l.yaml:6:")
