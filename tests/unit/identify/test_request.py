"""Identifiers of HTTP requests (linkerd-config spec 5.2)."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.exchange import Exchange
from meshgw.errors import BadRequest
from meshgw.identify import request
from meshgw.identify.request import Declined, HeaderPath, HeaderToken, MethodAndHost, PathHeader, Static, UriPath, chain, unidentified
from meshgw.kinds import Runtime
from meshgw.naming.path import Path

SVC = Path.read("/svc")


class Request:
    """An exchange as far as identifiers look at it."""

    def __init__(self, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"1.1", **headers: bytes) -> None:
        self.method, self.target, self.version = method, target, version
        self.headers = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        self.peer = ("192.0.2.7", 4711)

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)

    @property
    def host(self) -> bytes | None:
        return self.headers.get(b"host")


def a_request(*args: Any, **kwargs: Any) -> Exchange:
    return cast(Exchange, Request(*args, **kwargs))


def named(identifier: Any, *args: Any, **kwargs: Any) -> str:
    found = identifier.identify(a_request(*args, **kwargs))
    return found.show() if isinstance(found, Path) else f"({found})"


@pytest.mark.parametrize("again", [1, 2], ids=["first", "remembered"])
@pytest.mark.parametrize(
    ("with_uri", "version", "host", "target", "expected"),
    [
        (False, b"1.1", b"Example.COM:8080", b"/a/b", "/svc/1.1/GET/example.com:8080"),
        (False, b"1.0", b"ignored", b"/a/b", "/svc/1.0/GET"),
        (True, b"1.1", b"web", b"/a/b?q=/c", "/svc/1.1/GET/web/a/b"),
        (True, b"1.1", b"web", b"//a//b/", "/svc/1.1/GET/web/a/b"),
        (True, b"1.0", b"web", b"/a", "/svc/1.0/GET/a"),
        (False, b"1.1", b"", b"/", "(HTTP/1.1 request missing hostname)"),
        (False, b"2.0", b"web", b"/", "(Unknown HTTP version HTTP/2.0)"),
    ],
)
def test_method_and_host(again: int, with_uri: bool, version: bytes, host: bytes, target: bytes, expected: str) -> None:
    identifier = MethodAndHost(SVC, with_uri=with_uri)
    for _ in range(again):
        assert named(identifier, b"GET", target, version, host=host) == expected


def test_methods_and_hosts_are_kept_apart() -> None:
    identifier = MethodAndHost(SVC)
    assert named(identifier, b"GET", host=b"a") == "/svc/1.1/GET/a"
    assert named(identifier, b"POST", host=b"a") == "/svc/1.1/POST/a"
    assert named(identifier, b"GET", b"/", b"1.0", host=b"a") == "/svc/1.0/GET"


@pytest.mark.parametrize(
    ("segments", "target", "expected"),
    [
        (1, b"/a/b", "/svc/a"),
        (2, b"/true/love/waits.php", "/svc/true/love"),
        (1, b"/", "(not enough segments in path)"),
        (1, b"/?a", "(not enough segments in path)"),
        (2, b"/a/", "(not enough segments in path)"),
        (2, b"/a?/b", "(not enough segments in path)"),
        (2, b"/a//", "(not enough segments in path)"),
        (1, b"//a", "(not enough segments in path)"),
        (1, b"*", "(not enough segments in path)"),
        (1, b"", "(not enough segments in path)"),
        (1, b"/a?x=/y", "/svc/a"),
        (1, b"/a%20b", "/svc/a%20b"),
        (3, b"/a/b/c", "/svc/a/b/c"),
    ],
)
def test_path_takes_the_first_segments(segments: int, target: bytes, expected: str) -> None:
    assert named(UriPath(SVC, segments=segments), b"GET", target) == expected


@pytest.mark.parametrize(
    ("segments", "target", "left"),
    [
        (1, b"/a", b"/"),
        (1, b"/a/", b"/"),
        (1, b"/a/b", b"/b"),
        (1, b"/a/b/", b"/b/"),
        (1, b"/a?x=1", b"/?x=1"),
        (1, b"/a/?x=1", b"/?x=1"),
        (2, b"/a/b/c?x=/1", b"/c?x=/1"),
        (2, b"/a", b"/a"),
    ],
)
def test_consumed_segments_are_cut_from_the_target(segments: int, target: bytes, left: bytes) -> None:
    identifier = UriPath(SVC, segments=segments, consume=True)
    for _ in range(2):
        ex = a_request(b"GET", target)
        identifier.identify(ex)
        assert ex.target == left


@given(st.lists(st.sampled_from([b"a", b"b", b"", b"?"]), max_size=6), st.integers(1, 3))
def test_path_agrees_with_splitting(parts: list[bytes], segments: int) -> None:
    target = b"/" + b"/".join(parts)
    expected = target.partition(b"?")[0].split(b"/")[1 : segments + 1]
    found = UriPath(SVC, segments=segments).identify(a_request(b"GET", target))
    if len(expected) < segments or b"" in expected:
        assert found == "not enough segments in path"
    else:
        assert found == SVC + tuple(expected)


def test_header_is_read_as_a_path() -> None:
    identifier = HeaderPath(SVC)
    for _ in range(2):
        assert named(identifier, l5d_name=b"/a/b") == "/svc/a/b"
    assert named(identifier) == "(l5d-name header is absent)"
    assert named(identifier, l5d_name=b"") == "(l5d-name header is absent)"


@pytest.mark.parametrize("value", [b"web", b"/a//b", b"/\xe9", b"/a b"])
def test_header_that_is_no_path_is_a_bad_request(value: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        HeaderPath(SVC, header="X-Name").identify(a_request(x_name=value))
    assert caught.value.status == 400
    assert "found" in str(caught.value)


def test_header_token_is_one_exact_label() -> None:
    assert named(HeaderToken(SVC), host=b"Web:80") == "/svc/Web:80"
    assert named(HeaderToken(SVC, header="My-Name"), my_name=b"a/b") == "/svc/\\x61\\x2f\\x62"
    assert named(HeaderToken(SVC, header="My-Name")) == "(My-Name header is absent)"
    assert named(HeaderToken(SVC)) == "(Host header is absent)"


@pytest.mark.parametrize(
    ("segments", "target", "expected"),
    [
        (2, b"/pkg.Svc/Do", "/svc/pkg.Svc/Do"),
        (1, b"/pkg.Svc/Do", "/svc/pkg.Svc"),
        (2, b"/pkg.Svc/Do/more?x=/y", "/svc/pkg.Svc/Do"),
        (3, b"/pkg.Svc/Do", "Path must have at least 3 segment(s)"),
        (2, b"/pkg.Svc/", "Path must have at least 2 segment(s)"),
        (2, b"/pkg.Svc//", "Path must have at least 2 segment(s)"),
        (1, b"/", "Missing destination path"),
        (1, b"/?x", "Missing destination path"),
        (1, b"*", "Missing destination path"),
        (None, b"/a/b/c/?d", "/svc/a/b/c"),
        (None, b"/a//b", "Path has an empty segment"),
    ],
)
def test_the_path_names_a_call(segments: int | None, target: bytes, expected: str) -> None:
    identifier = PathHeader(SVC, segments=segments)
    for _ in range(2):
        found = identifier.identify(a_request(b"POST", target))
        assert (found.show() if isinstance(found, Path) else found) == expected


def test_the_path_of_another_header_names_a_call() -> None:
    identifier = PathHeader(SVC, header="X-Path", segments=1)
    assert identifier.header_names == (b"x-path",)
    assert named(identifier, x_path=b"/a/b") == "/svc/a"
    assert named(identifier) == "(Missing destination path)"


def test_the_authority_is_what_a_host_header_is_elsewhere() -> None:
    assert named(HeaderToken(SVC, header=":authority"), host=b"web") == "/svc/web"
    assert named(HeaderToken(SVC, header=":authority")) == "(:authority header is absent)"


def test_static_names_every_request() -> None:
    assert named(Static(SVC, Path.read("/a/b"))) == "/svc/a/b"


def test_first_name_of_a_chain_counts() -> None:
    identifier = chain([HeaderPath(SVC), HeaderToken(SVC), Static(SVC, Path.read("/last"))])
    assert identifier.header_names == (b"l5d-name", b"host")
    assert named(identifier, l5d_name=b"/first", host=b"web") == "/svc/first"
    assert named(identifier, host=b"web") == "/svc/web"
    assert named(identifier) == "/svc/last"


def test_chain_without_a_name_tells_the_last_reason_and_all_that_were_tried() -> None:
    ex = a_request(b"GET", b"/")
    reason = chain([HeaderPath(SVC), UriPath(SVC)]).identify(ex)
    assert isinstance(reason, Declined)
    assert reason == "not enough segments in path"
    error = unidentified(ex, reason)
    assert str(error) == (
        'Unknown destination: Request("GET /", from /192.0.2.7:4711) / not enough segments in path\n'
        "  io.l5d.header: l5d-name header is absent\n  io.l5d.path: not enough segments in path"
    )


def test_an_identifier_that_raises_ends_the_chain() -> None:
    with pytest.raises(BadRequest):
        chain([HeaderPath(SVC), Static(SVC, Path.read("/x"))]).identify(a_request(l5d_name=b"x"))


def test_a_chain_of_one_is_the_identifier_itself() -> None:
    only = Static(SVC, Path.read("/x"))
    assert chain([only]) is only
    with pytest.raises(ValueError, match="at least one"):
        chain([])


def test_what_is_remembered_is_bounded() -> None:
    token, path = HeaderToken(SVC), UriPath(SVC)
    for number in range(3 * request.MOST_REMEMBERED):
        token.identify(a_request(host=b"h%d" % number))
    path.identify(a_request(b"GET", b"/" + b"x" * 4000))
    assert len(token._known) <= request.MOST_REMEMBERED
    assert not path._known


def test_a_repeated_request_is_given_the_same_path_object() -> None:
    for identifier, headers in ((MethodAndHost(SVC), {"host": b"a"}), (HeaderToken(SVC), {"host": b"a"}), (UriPath(SVC), {})):
        ex = a_request(b"GET", b"/x/y", **headers)
        assert identifier.identify(ex) is identifier.identify(ex)


def test_kinds_build_with_their_defaults() -> None:
    runtime = cast(Runtime, Random(1))
    cases = [
        (request.METHOD_AND_HOST, {}, "/svc/1.1/GET/web"),
        (request.PATH, {"segments": 2}, "/svc/a/b"),
        (request.HEADER, {}, "/svc/name"),
        (request.HEADER_TOKEN, {}, "/svc/web"),
        (request.STATIC, {"path": Path.read("/s")}, "/svc/s"),
    ]
    for kind, fields, expected in cases:
        identifier = kind.build(kind.config(**fields), runtime, prefix=SVC)
        assert named(identifier, b"GET", b"/a/b", host=b"web", l5d_name=b"/name") == expected
