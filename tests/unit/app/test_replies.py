from __future__ import annotations

import re
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.app.replies import ErrorReplies
from meshgw.errors import (
    BadRequest,
    BindingTimeout,
    ConnectFailed,
    MeshError,
    NamerError,
    NoEndpoint,
    TooManyWaiters,
    Unbound,
    UpstreamClosed,
)

WHOLE = re.compile(rb"(?:[A-Za-z0-9_.~+-]|%[0-9A-F]{2})*\Z")
LARGE = ErrorReplies(max_header=8192, max_body=1 << 20)


@given(st.text(max_size=60), st.integers(3, 80))
def test_the_header_is_never_cut_inside_an_escape(text: str, limit: int) -> None:
    reply = ErrorReplies(max_header=limit, max_body=10).reply(BadRequest(reason=text))
    value = dict(reply.headers)[b"l5d-err"]
    assert len(value) <= limit
    assert WHOLE.match(value)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_header_and_body_tell_the_message(text: str) -> None:
    reply = LARGE.reply(BadRequest(reason=text))
    assert unquote_plus(dict(reply.headers)[b"l5d-err"].decode()) == text
    assert reply.body.decode() == text


def test_a_message_cannot_add_header_lines() -> None:
    value = dict(LARGE.reply(BadRequest(reason="a\r\nSet-Cookie: b")).headers)[b"l5d-err"]
    assert value == b"a%0D%0ASet-Cookie%3A+b"


def test_the_body_is_cut_to_its_limit() -> None:
    assert ErrorReplies(max_header=100, max_body=4).reply(BadRequest(reason="abcdef")).body == b"abcd"


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        (BadRequest(reason="x"), 400, False),
        (BadRequest(reason="x", code=431), 431, False),
        (Unbound(name="/svc/x", outcome="neg"), 502, False),
        (NoEndpoint(service="/svc/x", bound="/#/x"), 502, False),
        (ConnectFailed(selected="a", reason="x"), 502, False),
        (BindingTimeout(name="/svc/x", seconds=10.0), 502, False),
        (NamerError(detail="x"), 502, True),
        (TooManyWaiters(selected="a", waiting=1), 502, True),
        (UpstreamClosed(selected="a", reason="x"), 502, False),
    ],
)
def test_only_a_request_known_to_be_unsent_is_marked_retryable(error: MeshError, status: int, retryable: bool) -> None:
    reply = LARGE.reply(error)
    assert reply.status == status
    assert ((b"l5d-retryable", b"true") in reply.headers) is retryable
