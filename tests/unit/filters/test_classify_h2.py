from __future__ import annotations

from random import Random
from typing import Any

import pytest

from meshgw.core.exchange import Exchange
from meshgw.errors import BindingTimeout, ConnectFailed, MeshError, Refused, StreamReset, UpstreamClosed
from meshgw.filters import classify_h2 as kinds
from meshgw.filters.classify import NON_RETRYABLE_FAILURE, RETRYABLE_FAILURE, SUCCESS, Verdict
from meshgw.kinds import Kind
from meshgw.wire.headers import Headers

GRPC = (kinds.GRPC_DEFAULT, kinds.GRPC_COMPLIANT, kinds.GRPC_ALWAYS, kinds.GRPC_NEVER, kinds.GRPC_LISTED)
CLOSED = UpstreamClosed(selected="10.0.0.1:80", reason="reset")
UNSENT = ConnectFailed(selected="10.0.0.1:80", reason="refused")


def exchange(status: int = 200, grpc: int | str | None = None, *, error: MeshError | None = None, at_once: bool = False) -> Exchange:
    """An exchange whose answer is whole; ``at_once`` tells that it has no trailers, but a status in its head."""
    ex = Exchange()
    ex.method, ex.status, ex.error, ex.length = b"POST", 0 if error else status, error, 0
    lines = [] if grpc is None else [f"grpc-status: {grpc}".encode()]
    ex.response, ex.answer_trailers = Headers(lines if at_once else []), [] if at_once else lines
    return ex


def reset(code: int) -> StreamReset:
    return StreamReset(selected="10.0.0.1:80", code="?", stream_code=code)


def built(kind: Kind, **config: Any) -> Any:
    return kind.build(kind.config(**config), Random(1))


def verdict(kind: Kind, ex: Exchange, **config: Any) -> Verdict:
    found: Verdict = built(kind, **config).classify(ex)
    return found


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("kind", "config", "retryable"),
    [
        (kinds.GRPC_DEFAULT, {}, {14}),
        (kinds.GRPC_COMPLIANT, {}, {14}),
        (kinds.GRPC_ALWAYS, {}, set(range(1, 18))),
        (kinds.GRPC_NEVER, {}, set()),
        (kinds.GRPC_LISTED, {"retryable_status_codes": (1, 9)}, {1, 9}),
        (kinds.GRPC_LISTED, {"retryable_status_codes": (0, 9)}, {9}),
    ],
)
def test_statuses_are_judged_by_kind(kind: Kind, config: dict[str, Any], retryable: set[int], at_once: bool) -> None:
    found = {status: verdict(kind, exchange(grpc=status, at_once=at_once), **config) for status in range(18)}
    assert found[0] is SUCCESS
    assert {status for status, judged in found.items() if judged is RETRYABLE_FAILURE} == retryable
    assert all(judged is not SUCCESS for status, judged in found.items() if status)


@pytest.mark.parametrize("kind", GRPC, ids=lambda kind: str(kind.id))
def test_success_codes_that_are_listed_replace_the_default(kind: Kind) -> None:
    assert verdict(kind, exchange(grpc=5), success_status_codes=(5, 14)) is SUCCESS
    assert verdict(kind, exchange(grpc=14), success_status_codes=(5, 14)) is SUCCESS
    assert verdict(kind, exchange(grpc=0), success_status_codes=(5, 14)) is not SUCCESS


@pytest.mark.parametrize("kind", GRPC, ids=lambda kind: str(kind.id))
@pytest.mark.parametrize("grpc", [None, "x", "-1", ""])
def test_an_answer_without_a_status_is_a_failure_that_is_not_retried(kind: Kind, grpc: str | None) -> None:
    for status in (200, 404, 500):
        assert verdict(kind, exchange(status, grpc)) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_compliant_retries_http_statuses_that_mean_unavailable(status: int) -> None:
    assert verdict(kinds.GRPC_COMPLIANT, exchange(status)) is RETRYABLE_FAILURE
    assert verdict(kinds.GRPC_DEFAULT, exchange(status)) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize("error", [CLOSED, UNSENT, reset(2), reset(7)], ids=str)
def test_errors_count_as_unavailable(error: MeshError) -> None:
    for kind, config in ((kinds.GRPC_DEFAULT, {}), (kinds.GRPC_ALWAYS, {}), (kinds.GRPC_LISTED, {"retryable_status_codes": (14,)})):
        assert verdict(kind, exchange(error=error), **config) is RETRYABLE_FAILURE
    assert verdict(kinds.GRPC_NEVER, exchange(error=error)) is NON_RETRYABLE_FAILURE
    begun = exchange(error=error)
    begun.responded = True
    assert verdict(kinds.GRPC_ALWAYS, begun) is NON_RETRYABLE_FAILURE


def test_what_was_answered_or_not_bound_here_is_not_retried() -> None:
    assert verdict(kinds.GRPC_ALWAYS, exchange(error=Refused(code=503))) is NON_RETRYABLE_FAILURE
    assert verdict(kinds.GRPC_ALWAYS, exchange(error=Refused(code=400))) is SUCCESS
    assert verdict(kinds.GRPC_ALWAYS, exchange(error=BindingTimeout(name="/svc/web", seconds=1.0))) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize("kind", GRPC, ids=lambda kind: str(kind.id))
def test_an_answer_that_is_passed_on_is_judged_at_its_end_and_not_retried(kind: Kind) -> None:
    ex = exchange()
    ex.answer_trailers = None
    classifier = built(kind)
    assert classifier.classify(ex) is SUCCESS
    assert classifier.conclude(ex, [b"grpc-status: 0"]) is SUCCESS
    assert classifier.conclude(ex, [b"grpc-status: 14"]) is NON_RETRYABLE_FAILURE
    assert classifier.conclude(ex, []) is NON_RETRYABLE_FAILURE
    ex.status = 503
    assert classifier.classify(ex) is NON_RETRYABLE_FAILURE


def test_answers_are_awaited_where_their_end_may_lead_to_a_retry() -> None:
    assert [built(kind).awaits_end for kind in GRPC] == [True, True, True, False, False]
    assert built(kinds.GRPC_LISTED, retryable_status_codes=(14,)).awaits_end
    assert not built(kinds.GRPC_LISTED, retryable_status_codes=(14,), success_status_codes=(0, 14)).awaits_end


@pytest.mark.parametrize("kind", GRPC, ids=lambda kind: str(kind.id))
def test_nothing_is_retried_that_cannot_be_sent_again(kind: Kind) -> None:
    classifier = kind.build(kind.config(), Random(1), can_replay=lambda _ex: False)
    assert classifier.classify(exchange(grpc=14)) is NON_RETRYABLE_FAILURE
    assert classifier.classify(exchange(error=CLOSED)) is NON_RETRYABLE_FAILURE


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (kinds.NON_RETRYABLE_5XX, ""),
        (kinds.RETRYABLE_READ_5XX, "GET HEAD OPTIONS TRACE"),
        (kinds.RETRYABLE_IDEMPOTENT_5XX, "GET HEAD OPTIONS TRACE PUT DELETE"),
        (kinds.RETRYABLE_ALL_5XX, "GET HEAD OPTIONS TRACE PUT DELETE POST PATCH"),
    ],
    ids=lambda value: str(value.id) if isinstance(value, Kind) else "",
)
def test_http_statuses_are_retried_by_method_and_not_because_the_answer_says_so(kind: Kind, retryable: str) -> None:
    found = set()
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"):
        ex = exchange(503)
        ex.method, ex.response = method.encode(), Headers([b"l5d-retryable: true"])
        judged = verdict(kind, ex)
        assert judged is not SUCCESS
        if judged is RETRYABLE_FAILURE:
            found.add(method)
    assert found == set(retryable.split())
    assert verdict(kind, exchange(499)) is SUCCESS


def test_all_kinds_are_for_http2_only() -> None:
    ids = {kind.id: kind.protocols for kind in vars(kinds).values() if isinstance(kind, Kind)}
    assert len(ids) == 10
    assert set(ids.values()) == {frozenset({"h2"})}
