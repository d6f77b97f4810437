"""What leaves the mesh, and what comes back."""

from __future__ import annotations

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.filters.strip import StripContext

INSIDE = [b"l5d-client-id: x", b"L5D-Name: /x", b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=10.0.0.1", b"X-Real-IP: 10.0.0.1"]


def outgoing() -> Exchange:
    ex = Exchange()
    ex.headers = section([b"Host: web", *INSIDE, b"X-Kept: 1"])
    return ex


def test_nothing_of_the_inside_leaves() -> None:
    ex = outgoing()
    StripContext().on_request(ex)
    assert ex.headers.lines == [b"Host: web", b"X-Kept: 1", b"Via: 1.1 linkerd"]
    ex.version = b"2"
    StripContext().on_request(ex)
    assert ex.headers.lines[-1] == b"Via: h2 linkerd"


def test_the_request_is_whole_again_for_the_next_attempt() -> None:
    ex, strip = outgoing(), StripContext()
    lines = ex.headers.lines
    for _ in range(2):
        strip.on_request(ex)
        strip.on_end(ex)
        assert ex.headers.lines is lines
        assert lines == [b"Host: web", *INSIDE, b"X-Kept: 1"]
    strip.on_end(ex)
    assert ex.headers.lines is lines


def test_an_answer_from_outside_brings_no_context() -> None:
    ex = outgoing()
    ex.response = section([b"L5d-Err: x", b"l5d-retryable: true", b"X-Kept: 1"])
    ex.response.seen[b"via"], ex.status_line = b"1.1 far", b"HTTP/1.1 200 OK"
    StripContext().on_response(ex)
    assert ex.response.lines == [b"X-Kept: 1", b"Via: 1.1 linkerd"]
    assert b"via" not in ex.response.seen
