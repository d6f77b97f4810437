from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.errors import (
    AccessDenied,
    AttemptTimeout,
    BadRequest,
    DeadlineExceeded,
    InternalError,
    MeshError,
    NoEndpoint,
    RequestTimeout,
    UpstreamClosed,
)
from meshgw.wire.grpc import LONGEST_MESSAGE, Status, broken_off, error_lines, is_grpc, show_timeout, status_in, status_of, timeout_ns
from meshgw.wire.headers import Headers

LATE = DeadlineExceeded(late=0.0)
CLOSED = UpstreamClosed(selected="10.0.0.1:80", reason="reset")


def headers(**fields: bytes) -> Headers:
    return Headers([name.replace("_", "-").encode() + b": " + value for name, value in fields.items()])


@pytest.mark.parametrize(
    ("kind", "is_call"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=x", True),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"text/plain", False),
        (None, False),
    ],
)
def test_calls_are_known_by_their_content_type(kind: bytes | None, is_call: bool) -> None:
    assert is_grpc(Headers() if kind is None else headers(content_type=kind)) is is_call


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoEndpoint(service="/svc/web", bound="/#/web"), Status.UNAVAILABLE),
        (CLOSED, Status.UNAVAILABLE),
        (LATE, Status.DEADLINE_EXCEEDED),
        (RequestTimeout(name="/svc/web", seconds=1.0, scope="total"), Status.DEADLINE_EXCEEDED),
        (AttemptTimeout(name="/svc/web", seconds=1.0), Status.DEADLINE_EXCEEDED),
        (AccessDenied(rule="default", method="POST", caller="?", service="/svc/web"), Status.PERMISSION_DENIED),
        (BadRequest(reason="too long", code=413), Status.RESOURCE_EXHAUSTED),
        (BadRequest(reason="too long", code=431), Status.RESOURCE_EXHAUSTED),
        (BadRequest(reason="what?"), Status.INTERNAL),
        (InternalError(where="here"), Status.UNKNOWN),
    ],
)
def test_errors_have_statuses(error: MeshError, status: Status) -> None:
    assert status_of(error, error.status) is status


def test_an_error_is_one_section_with_the_text_that_the_answer_tells() -> None:
    lines = error_lines(CLOSED, 502, headers(l5d_err=quote_plus("a b/%\n☺").encode()))
    assert lines == [b":status: 200", b"content-type: application/grpc", b"grpc-status: 14", b"grpc-message: a b/%25%0A%E2%98%BA"]
    assert error_lines(LATE, 503, Headers())[2:] == [b"grpc-status: 4", b"grpc-message: HTTP status 503"]


@given(st.text(max_size=3000))
def test_messages_are_printable_and_bounded(text: str) -> None:
    message = error_lines(CLOSED, 502, headers(l5d_err=quote_plus(text.encode("utf-8", "replace")).encode()))[3]
    assert all(0x20 <= byte < 0x7F for byte in message)
    assert len(message) <= len(b"grpc-message: ") + 12 * LONGEST_MESSAGE


def test_an_answer_that_breaks_off_tells_no_names() -> None:
    assert broken_off(CLOSED) == [b"grpc-status: 14", b"grpc-message: the answer broke off"]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"grpc-status: 0"], 0),
        ([b"x: y", b"Grpc-Status:14"], 14),
        ([b"grpc-status: \t5 "], 5),
        ([b"grpc-status: 4000"], 4000),
        ([b"grpc-status: -1"], None),
        ([b"grpc-status: "], None),
        ([b"grpc-status: 1 2"], None),
        ([b"grpc-status: 9999999999"], None),
        ([b"grpc-status-details-bin: 14"], None),
        ([b"x-grpc-status: 14"], None),
        ([], None),
    ],
)
def test_the_status_is_read_from_trailers(lines: list[bytes], status: int | None) -> None:
    assert status_in(lines) == status


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1n", 1),
        (b"99999999u", 99_999_999_000),
        (b"250m", 250_000_000),
        (b"0S", 0),
        (b"2M", 120_000_000_000),
        (b"1H", 3_600_000_000_000),
        (b"100000000S", None),
        (b"1s", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"S", None),
        (b"1S ", None),
        (b"1S\n", None),
        (b"", None),
    ],
)
def test_timeouts_are_read(text: bytes, nanoseconds: int | None) -> None:
    assert timeout_ns(text) == nanoseconds


@given(st.integers(0, 99_999_999 * 3600 * 10**9))
def test_a_timeout_is_shown_in_eight_digits_and_never_shorter(nanoseconds: int) -> None:
    text = show_timeout(nanoseconds)
    shown = timeout_ns(text)
    assert shown is not None
    assert nanoseconds <= shown <= nanoseconds * 1.0001 + 1


def test_what_eight_digits_cannot_say_is_the_longest_timeout() -> None:
    assert show_timeout(10**30) == b"99999999H"


@given(st.binary(max_size=20))
def test_no_text_breaks_the_readers(text: bytes) -> None:
    timeout_ns(text)
    status_in([b"grpc-status: " + text, text])
