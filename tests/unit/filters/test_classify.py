from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.core.exchange import Exchange
from meshgw.errors import (
    BadResponse,
    BindingTimeout,
    CallerGone,
    ConnectFailed,
    InternalError,
    MeshError,
    NoEndpoint,
    Refused,
    UpstreamClosed,
)
from meshgw.filters.classify import (
    ALL_SUCCESSFUL,
    NON_RETRYABLE_5XX,
    NON_RETRYABLE_FAILURE,
    RETRYABLE_ALL_5XX,
    RETRYABLE_FAILURE,
    RETRYABLE_IDEMPOTENT_5XX,
    RETRYABLE_READ_5XX,
    SUCCESS,
    Verdict,
    is_success,
    write_success_class,
)
from meshgw.kinds import Kind
from meshgw.wire.headers import Headers

EVERY = (NON_RETRYABLE_5XX, RETRYABLE_READ_5XX, RETRYABLE_IDEMPOTENT_5XX, RETRYABLE_ALL_5XX, ALL_SUCCESSFUL)
CLOSED = UpstreamClosed(selected="10.0.0.1:80", reason="reset")
UNSENT = ConnectFailed(selected="10.0.0.1:80", reason="refused")


def exchange(method: bytes = b"GET", status: int = 0, error: MeshError | None = None, length: int = 0, **fields: bytes) -> Exchange:
    ex = Exchange()
    ex.method, ex.status, ex.error, ex.length = method, status, error, length
    ex.response = Headers([name.replace("_", "-").encode() + b": " + value for name, value in fields.items()])
    return ex


def verdict(kind: Kind, ex: Exchange, **options: Any) -> Verdict:
    found: Verdict = kind.build(kind.config(), Random(1), **options).classify(ex)
    return found


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: str(kind.id))
@pytest.mark.parametrize("status", [200, 204, 302, 404, 429, 499])
def test_answers_below_500_are_successes(kind: Kind, status: int) -> None:
    assert verdict(kind, exchange(status=status)) is SUCCESS


@pytest.mark.parametrize("outcome", [{"status": 500}, {"status": 599}, {"error": CLOSED}, {"error": UNSENT}], ids=str)
@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (NON_RETRYABLE_5XX, ""),
        (RETRYABLE_READ_5XX, "GET HEAD OPTIONS TRACE"),
        (RETRYABLE_IDEMPOTENT_5XX, "GET HEAD OPTIONS TRACE PUT DELETE"),
        (RETRYABLE_ALL_5XX, "GET HEAD OPTIONS TRACE PUT DELETE POST PATCH"),
    ],
    ids=lambda value: str(value.id) if isinstance(value, Kind) else "",
)
def test_a_failure_is_retryable_by_kind_and_method(kind: Kind, retryable: str, outcome: dict[str, Any]) -> None:
    methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "BREW", "get"]
    found = {method for method in methods if verdict(kind, exchange(method.encode(), **outcome)) is RETRYABLE_FAILURE}
    assert found == set(retryable.split())
    assert all(verdict(kind, exchange(method.encode(), **outcome)) is not SUCCESS for method in methods)


@pytest.mark.parametrize(
    "error",
    [
        NoEndpoint(service="/svc/web", bound="/#/io.l5d.fs/web"),
        BindingTimeout(name="/svc/web", seconds=10),
        CallerGone(),
        InternalError(where="a stack"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_not_retryable(error: MeshError) -> None:
    assert verdict(RETRYABLE_ALL_5XX, exchange(error=error)) is NON_RETRYABLE_FAILURE


def test_a_broken_answer_is_retryable_until_part_of_it_has_reached_the_caller() -> None:
    ex = exchange(error=BadResponse(selected="10.0.0.1:80", reason="chunk size"))
    assert verdict(RETRYABLE_READ_5XX, ex) is RETRYABLE_FAILURE
    ex.responded = True
    assert verdict(RETRYABLE_READ_5XX, ex) is NON_RETRYABLE_FAILURE


def test_an_answer_of_a_filter_is_judged_by_its_status_and_never_retryable() -> None:
    assert verdict(RETRYABLE_ALL_5XX, exchange(status=503, error=Refused(code=503))) is NON_RETRYABLE_FAILURE
    assert verdict(RETRYABLE_ALL_5XX, exchange(status=400, error=Refused(code=400))) is SUCCESS


@pytest.mark.parametrize("kind", EVERY[:-1], ids=lambda kind: str(kind.id))
@pytest.mark.parametrize("method", [b"GET", b"POST", b"BREW"])
def test_an_answer_that_says_so_makes_its_failure_retryable_whatever_the_method(kind: Kind, method: bytes) -> None:
    assert verdict(kind, exchange(method, 502, l5d_retryable=b"true")) is RETRYABLE_FAILURE


def test_the_retryable_header_counts_for_failures_only_and_only_when_true() -> None:
    assert verdict(NON_RETRYABLE_5XX, exchange(status=200, l5d_retryable=b"true")) is SUCCESS
    assert verdict(NON_RETRYABLE_5XX, exchange(status=502, l5d_retryable=b"false")) is NON_RETRYABLE_FAILURE


def test_all_successful_takes_any_answer_and_no_error() -> None:
    assert verdict(ALL_SUCCESSFUL, exchange(status=503, l5d_retryable=b"true")) is SUCCESS
    assert verdict(ALL_SUCCESSFUL, exchange(error=CLOSED)) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize("length", [-1, 3])
def test_a_request_whose_body_was_streamed_is_never_retryable(length: int) -> None:
    assert verdict(RETRYABLE_ALL_5XX, exchange(b"PUT", 500, length=length)) is NON_RETRYABLE_FAILURE
    assert verdict(RETRYABLE_ALL_5XX, exchange(b"PUT", 500, length=length, l5d_retryable=b"true")) is NON_RETRYABLE_FAILURE


def test_who_keeps_bodies_may_say_which_requests_can_be_replayed() -> None:
    def kept(ex: Exchange) -> bool:
        return ex.body_done

    ex = exchange(b"PUT", 500, length=3)
    assert verdict(RETRYABLE_ALL_5XX, ex, can_replay=kept) is RETRYABLE_FAILURE
    ex.body_done = False
    assert verdict(RETRYABLE_ALL_5XX, ex, can_replay=kept) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize(
    ("value", "status", "expected"),
    [
        (None, 200, True),
        (None, 404, True),
        (None, 500, False),
        (None, 0, False),
        (b"1.0", 500, True),
        (b"0.5", 500, True),
        (b"0.0", 200, False),
        (b"0", 200, False),
        (b"-1", 200, False),
        (b"nan", 200, False),
        (b"yes", 200, False),
        (b"", 200, False),
        (b"1.0, 1.0", 200, False),
    ],
)
def test_a_server_counts_by_the_success_class_and_else_by_status(value: bytes | None, status: int, expected: bool) -> None:
    response = Headers([] if value is None else [b"l5d-success-class: " + value])
    assert is_success(status, response) is expected


@pytest.mark.parametrize(("judged", "expected"), [(SUCCESS, b"1.0"), (NON_RETRYABLE_FAILURE, b"0.0"), (RETRYABLE_FAILURE, b"0.0")], ids=str)
def test_the_success_class_is_written_in_place_of_one_that_came(judged: Verdict, expected: bytes) -> None:
    response = Headers([b"L5d-Success-Class: 0.7", b"server: x"])
    write_success_class(response, judged)
    assert response.get_all(b"l5d-success-class") == [expected]
    assert is_success(500, response) is (judged is SUCCESS)


@given(st.binary(max_size=20), st.integers(0, 999))
def test_no_success_class_makes_a_server_fail(value: bytes, status: int) -> None:
    assert is_success(status, Headers([], {b"l5d-success-class": value})) in (True, False)
