from __future__ import annotations

import pytest
from hypothesis import given

from meshgw.core.live import Failed, Ok, current
from meshgw.namers.rewrite import KIND, UTILITIES, RewriteConfig, RewriteNamer
from meshgw.naming.path import Path
from meshgw.naming.pattern import PathMatcher
from meshgw.naming.tree import NEG, Leaf, Neg
from strategies import paths


def rewritten(name: str, path: str | Path) -> str:
    tree = UTILITIES[f"io.buoyant.{name}".encode()](Path.read(path) if isinstance(path, str) else path)
    return tree.value.show() if isinstance(tree, Leaf) else "~"


@pytest.mark.parametrize(
    ("name", "path", "result"),
    [
        ("hostportPfx", "/pfx/host:80/rest/x", "/pfx/host/80/rest/x"),
        ("hostportPfx", "/pfx/host:http-alt", "/pfx/host/http-alt"),
        ("hostportPfx", "/pfx/host:-http", "~"),
        ("hostportPfx", "/pfx/host:HTTP", "~"),
        ("hostportPfx", f"/pfx/host:{'a' * 64}", "~"),
        ("hostportPfx", "/pfx/host", "~"),
        ("hostportPfx", "/pfx/host:80:90", "~"),
        ("hostportPfx", "/pfx/host:", "~"),
        ("hostportPfx", "/pfx/:80", "~"),
        ("hostportPfx", "/pfx", "~"),
        ("hostportPfx", "/", "~"),
        ("porthostPfx", "/pfx/host:80/rest", "/pfx/80/host/rest"),
        ("porthostPfx", "/pfx/host", "~"),
        ("http.anyMethod", "/GET/foo/bar", "/foo/bar"),
        ("http.anyMethod", "/get/foo", "~"),
        ("http.anyMethod", "/", "~"),
        ("http.anyMethodPfx", "/pfx/GET/foo", "/pfx/foo"),
        ("http.anyMethodPfx", "/pfx", "~"),
        ("http.anyHost", "/www.example.com:80/foo", "/foo"),
        ("http.anyHost", "/foo%/bar", "~"),
        ("http.anyHostPfx", "/pfx/example.com/foo", "/pfx/foo"),
        ("http.anyHostPfx", "/", "~"),
        ("http.subdomainOf", "/buoyant.io/foo.buoyant.io/rest", "/foo/rest"),
        ("http.subdomainOf", "/buoyant.io/a.b.buoyant.io:8080", "/a.b"),
        ("http.subdomainOf", "/buoyant.io/.buoyant.io", "~"),
        ("http.subdomainOf", "/buoyant.io/buoyant.io", "~"),
        ("http.subdomainOf", "/buoyant.io/foobuoyant.io", "~"),
        ("http.subdomainOf", "/buoyant.io/foo.example.com", "~"),
        ("http.subdomainOf", "/buoyant.io", "~"),
        ("http.subdomainOfPfx", "/buoyant.io/pfx/foo.buoyant.io:80/rest", "/pfx/foo/rest"),
        ("http.subdomainOfPfx", "/buoyant.io/pfx", "~"),
        ("http.domainToPath", "/foo.buoyant.io/rest", "/io/buoyant/foo/rest"),
        ("http.domainToPath", "/foo.io:80", "/io:80/foo"),
        ("http.domainToPath", "/", "~"),
        ("http.domainToPathPfx", "/pfx/foo.buoyant.io/rest", "/pfx/io/buoyant/foo/rest"),
        ("http.domainToPathPfx", "/pfx", "~"),
    ],
)
def test_utility_rewrites_as_specified(name: str, path: str, result: str) -> None:
    assert rewritten(name, path) == result


@pytest.mark.parametrize(
    ("name", "labels", "result"),
    [
        ("hostportPfx", ("pfx", "[::1]:80", "rest"), "/pfx/::1/80/rest"),
        ("porthostPfx", ("pfx", "[2001:db8::2]:http"), "/pfx/http/2001:db8::2"),
        ("hostportPfx", ("pfx", "[fe80::1%eth0]:80"), "/pfx/fe80::1%eth0/80"),
        ("hostportPfx", ("pfx", "[::1]"), "~"),
        ("hostportPfx", ("pfx", "[nonsense]:80"), "~"),
        ("hostportPfx", ("pfx", "[1:2:3]:80"), "~"),
        ("http.anyHost", ("[::1]:80", "foo"), "/foo"),
        ("http.anyHostPfx", ("pfx", "[::1]", "foo"), "/pfx/foo"),
        ("http.subdomainOf", ("example.com", "[::1]:80"), "~"),
        ("http.domainToPath", ("[::ffff:1.2.3.4]:80", "rest"), f"{Path.of('[::ffff:1.2.3.4]:80').show()}/rest"),
    ],
)
def test_utility_understands_ipv6_in_brackets(name: str, labels: tuple[str, ...], result: str) -> None:
    assert rewritten(name, Path.of(*labels)) == result


@given(paths)
def test_no_path_raises_and_every_answer_is_a_path(path: Path) -> None:
    for rewrite in UTILITIES.values():
        tree = rewrite(path)
        if isinstance(tree, Leaf):
            assert b"" not in tuple(tree.value)
        else:
            assert isinstance(tree, Neg)


def namer(pattern: str, name: str) -> RewriteNamer:
    config = RewriteConfig(prefix=Path.read("/rewrite"), pattern=PathMatcher.read(pattern), name=name)
    built = KIND.build(config, None)
    assert isinstance(built, RewriteNamer)
    return built


def test_a_matching_name_is_rewritten_and_the_rest_is_dropped() -> None:
    state = current(namer("/{service}/api", "/svc/{service}").lookup(Path.read("/users/api/v1/x")))
    assert state == Ok(Leaf(Path.read("/svc/users")))


def test_a_name_that_does_not_match_is_neg() -> None:
    assert current(namer("/{service}/api", "/svc/{service}").lookup(Path.read("/users"))) == Ok(NEG)


def test_captured_bytes_are_kept() -> None:
    state = current(namer("/{a}", "/svc/x-{a}").lookup(Path.of(b"\xff /")))
    assert state == Ok(Leaf(Path.of("svc", b"x-\xff /")))


@pytest.mark.parametrize("name", ["/svc/{other}", "svc", "/svc/{b}"])
def test_a_name_that_is_no_path_fails_the_lookup_and_says_which(name: str) -> None:
    state = current(namer("/{a}{b}", name).lookup(Path.read("/x")))
    assert isinstance(state, Failed)
    assert name in str(state.error)


def test_the_prefix_is_required() -> None:
    with pytest.raises(TypeError, match="prefix"):
        RewriteConfig(pattern=PathMatcher.read("/"), name="/x")
