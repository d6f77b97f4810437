"""Retries of gRPC calls and other streams: by the status in the trailers, while the request and the answer are kept, and no longer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from h2_dialogue import ANSWER, CALL, H2Mesh, called, trailers
from support import h2_frames as f
from transcript import idle

UNAVAILABLE, ABORTED = 14, 10


def service_of(kind: str, more: str = "") -> str:
    return f"service:\n  responseClassifier: {{kind: io.l5d.h2.grpc.{kind}}}\n{more}"


def counters(mesh: H2Mesh) -> dict[str, int]:
    """The retry counters of the service that are not 0."""
    names = ("total", "request_stream_too_long", "response_stream_too_long", "classification_timeout", "backoffs_exhausted")
    return {name: count for name in names if (count := mesh.counter(f"service/svc/web/retries/{name}"))}


def outcomes(mesh: H2Mesh, scope: str) -> tuple[int, int]:
    """Successes and failures of a scope."""
    return mesh.counter(f"{scope}/success"), mesh.counter(f"{scope}/failures")


def failed(stream: int, status: int = UNAVAILABLE) -> bytes:
    """A whole answer with a message before its status."""
    return f.headers(stream, ANSWER, ends=False) + f.data(stream, b"\0\0\0\0\1x") + f.headers(stream, trailers(status))


def failed_at_once(stream: int, status: int = UNAVAILABLE) -> bytes:
    """An answer that is nothing but its status ("Trailers-Only")."""
    return f.headers(stream, (*ANSWER, *trailers(status)))


def good(stream: int) -> bytes:
    return f.headers(stream, ANSWER, ends=False) + f.data(stream, b"\0\0\0\0\2ok") + f.headers(stream, trailers(0))


@pytest.mark.parametrize("answer", [failed, failed_at_once])
@pytest.mark.parametrize(
    ("kind", "retried"),
    [
        ("default", {UNAVAILABLE}),
        ("compliant", {UNAVAILABLE}),
        ("alwaysRetryable", {UNAVAILABLE, ABORTED}),
        ("neverRetryable", set()),
        ("retryableStatusCodes, retryableStatusCodes: [10]", {ABORTED}),
        ("default, successStatusCodes: [14]", set()),
    ],
)
@pytest.mark.parametrize("status", [UNAVAILABLE, ABORTED])
def test_a_status_is_retried_as_the_classifier_says(kind: str, retried: set[int], status: int, answer: Callable[[int, int], bytes]) -> None:
    with H2Mesh(service_of(kind)) as mesh:
        caller, upstream = called(mesh)
        upstream.send(answer(1, status))
        if status in retried:
            again = upstream.awaited_request(3)
            assert again[":path"] == "/pkg.Svc/Do"
            upstream.send(good(3))
        _, body, end = caller.awaited_answer()
        if status in retried:
            assert body == b"\0\0\0\0\2ok"
            assert end == {"grpc-status": "0"}
            assert outcomes(mesh, "client/#/web") == (1, 1)
        else:
            assert (end or caller.sections[1][0])["grpc-status"] == str(status)
        assert counters(mesh) == ({"total": 1} if status in retried else {})
        is_success = status in retried or "[14]" in kind and status == UNAVAILABLE
        assert outcomes(mesh, "service/svc/web") == ((1, 0) if is_success else (0, 1))
        assert idle(mesh)


def test_the_request_is_sent_again_with_its_body_and_trailers() -> None:
    with H2Mesh(service_of("default")) as mesh:
        request = f.headers(1, CALL, ends=False) + f.data(1, b"first") + f.data(1, b"second") + f.headers(1, (("x-sum", "11"),))
        caller, upstream = called(mesh, request)
        upstream.awaited_request(1)
        upstream.send(failed_at_once(1))
        upstream.awaited_request(3)
        assert upstream.body(3) == b"firstsecond"
        assert upstream.sections[3][1] == {"x-sum": "11"}
        upstream.send(good(3))
        assert caller.awaited_answer()[2] == {"grpc-status": "0"}


def test_a_stream_that_is_not_complete_is_sent_again_as_far_as_it_came_and_goes_on() -> None:
    with H2Mesh(service_of("default")) as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL, ends=False) + f.data(1, b"first"))
        upstream.until(lambda side: side.body(1) == b"first")
        upstream.send(failed_at_once(1))
        upstream.until(lambda side: side.body(3) == b"first")
        assert upstream.code(1) == f.NO_ERROR
        caller.send(f.data(1, b"second", ends=True))
        upstream.until(lambda side: side.is_whole(3))
        assert upstream.body(3) == b"firstsecond"
        upstream.send(good(3))
        assert caller.awaited_answer()[1] == b"\0\0\0\0\2ok"
        assert counters(mesh) == {"total": 1}
        assert idle(mesh)


@pytest.mark.parametrize("size", [100, 101])
def test_a_request_is_retried_while_it_fits_the_buffer(size: int) -> None:
    with H2Mesh(service_of("default", "  retryBufferSize: {requestBytes: 100}\n")) as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL, ends=False) + f.data(1, bytes(size), ends=True))
        upstream.awaited_request(1)
        upstream.send(failed_at_once(1))
        if size == 100:
            upstream.awaited_request(3)
            upstream.send(good(3))
            assert caller.awaited_answer()[2] == {"grpc-status": "0"}
        else:
            assert caller.awaited_answer()[0]["grpc-status"] == "14"
        assert counters(mesh) == ({"total": 1} if size == 100 else {"request_stream_too_long": 1})


def test_a_request_longer_than_the_default_buffer_is_streamed_and_not_retried() -> None:
    with H2Mesh(service_of("default")) as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL, ends=False) + f.data(1, bytes(16384), ends=True))
        upstream.awaited_request(1)
        upstream.send(failed_at_once(1))
        assert caller.awaited_answer()[0]["grpc-status"] == "14"
        assert counters(mesh) == {"request_stream_too_long": 1}


@pytest.mark.parametrize("size", [50, 51])
def test_an_answer_is_kept_for_its_status_while_it_fits_the_buffer(size: int) -> None:
    with H2Mesh(service_of("default", "  retryBufferSize: {responseBytes: 50}\n")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, ANSWER, ends=False), f.data(1, bytes(size)))
        mesh.settle()
        assert caller.read().has_section(1) is (size > 50)
        upstream.send(f.headers(1, trailers(UNAVAILABLE)))
        if size == 50:
            upstream.awaited_request(3)
            upstream.send(good(3))
            assert caller.awaited_answer()[2] == {"grpc-status": "0"}
            assert counters(mesh) == {"total": 1}
        else:
            assert caller.awaited_answer()[2] == {"grpc-status": "14", "l5d-success-class": "0.0"}
            assert counters(mesh) == {"response_stream_too_long": 1}
            assert outcomes(mesh, "service/svc/web") == (0, 1)


def test_an_answer_is_kept_for_no_longer_than_configured() -> None:
    with H2Mesh(service_of("default", "  classificationTimeoutMs: 250\n")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, ANSWER, ends=False), f.data(1, b"slow"))
        mesh.settle()
        mesh.clock.advance(0.2)
        mesh.settle()
        assert not caller.read().has_section(1)
        mesh.clock.advance(0.1)
        caller.until(lambda side: side.body(1) == b"slow")
        upstream.send(f.headers(1, trailers(UNAVAILABLE)))
        assert caller.awaited_answer()[2] == {"grpc-status": "14", "l5d-success-class": "0.0"}
        assert counters(mesh) == {"classification_timeout": 1}


@pytest.mark.parametrize("how", ["neverRetryable", "retryableStatusCodes, retryableStatusCodes: [0]", "streaming", "no time"])
def test_an_answer_that_cannot_be_retried_is_not_delayed(how: str) -> None:
    kind = how if "etryable" in how else "default"
    with H2Mesh(service_of(kind, "  classificationTimeoutMs: 0\n" if how == "no time" else "")) as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL, ends=how != "streaming"))
        upstream.send(f.headers(1, ANSWER, ends=False), f.data(1, b"now"))
        caller.until(lambda side: side.body(1) == b"now")
        assert "l5d-success-class" not in caller.sections[1][0], "nobody knows yet"
        if how == "streaming":
            caller.send(f.data(1, ends=True))
        upstream.send(f.headers(1, trailers(0)))
        assert caller.awaited_answer()[2] == {"grpc-status": "0", "l5d-success-class": "1.0"}
        assert counters(mesh) == {}


def test_a_verdict_that_is_known_with_the_head_is_told_there() -> None:
    with H2Mesh(service_of("default")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(failed(1, ABORTED))
        head, _, end = caller.awaited_answer()
        assert head["l5d-success-class"] == "0.0"
        assert end == {"grpc-status": "10"}


def test_the_second_answer_is_judged_by_its_own_trailers() -> None:
    with H2Mesh(service_of("default")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(failed(1))
        upstream.awaited_request(3)
        upstream.send(f.headers(3, ANSWER, ends=False), f.data(3, b"long"))
        mesh.settle()
        mesh.clock.advance(0.2)  # it is passed on before its end
        caller.until(lambda side: side.body(1) == b"long")
        upstream.send(f.headers(3, trailers(0)))
        assert caller.awaited_answer()[2] == {"grpc-status": "0", "l5d-success-class": "1.0"}
        assert counters(mesh) == {"total": 1, "classification_timeout": 1}
        assert outcomes(mesh, "service/svc/web") == (1, 0)


def test_compliant_retries_what_grpc_maps_to_unavailable_and_default_does_not() -> None:
    for kind, status, is_retried in (("compliant", 503, True), ("compliant", 500, False), ("default", 503, False)):
        with H2Mesh(service_of(kind)) as mesh:
            caller, upstream = called(mesh)
            upstream.send(f.headers(1, ((":status", str(status)),)))
            if is_retried:
                upstream.awaited_request(3)
                upstream.send(good(3))
                assert caller.awaited_answer()[2] == {"grpc-status": "0"}
            else:
                assert caller.awaited_answer()[0][":status"] == str(status)
                assert outcomes(mesh, "service/svc/web") == (0, 1)


def test_an_answer_without_a_status_is_a_failure() -> None:
    with H2Mesh(service_of("alwaysRetryable")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, ANSWER, ends=False), f.data(1, b"x", ends=True))
        assert caller.awaited_answer()[0]["l5d-success-class"] == "0.0"
        assert outcomes(mesh, "service/svc/web") == (0, 1)
        assert counters(mesh) == {}


@pytest.mark.parametrize("kind", ["default", "compliant"])
def test_a_refused_stream_is_sent_again_whatever_the_classifier(kind: str) -> None:
    with H2Mesh(service_of(kind)) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.rst_stream(1, f.REFUSED_STREAM))
        upstream.awaited_request(3)
        upstream.send(good(3))
        assert caller.awaited_answer()[2] == {"grpc-status": "0"}
        assert mesh.counter("client/#/web/retries/requeues") == 1


def test_a_broken_stream_is_retried_if_unavailable_is() -> None:
    with H2Mesh(service_of("default")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.rst_stream(1, f.INTERNAL_ERROR))
        upstream.awaited_request(3)
        upstream.send(good(3))
        assert caller.awaited_answer()[2] == {"grpc-status": "0"}
    with H2Mesh(service_of("neverRetryable")) as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.rst_stream(1, f.INTERNAL_ERROR))
        caller.until(lambda side: side.code(1) == f.INTERNAL_ERROR)
        assert outcomes(mesh, "service/svc/web") == (0, 1)


def test_retries_stop_when_the_budget_is_used_up() -> None:
    more = "  retries: {budget: {minRetriesPerSec: 0, percentCanRetry: 0.0}}\n"
    with H2Mesh(service_of("default", more)) as mesh:
        caller, upstream = called(mesh)
        upstream.send(failed(1))
        assert caller.awaited_answer()[2] == {"grpc-status": "14"}
        assert mesh.counter("service/svc/web/retries/budget_exhausted") == 1


def test_http_statuses_decide_at_once_and_what_an_answer_says_of_itself_does_not() -> None:
    with H2Mesh("service:\n  responseClassifier: {kind: io.l5d.h2.retryableRead5XX}\n") as mesh:
        caller, upstream = called(mesh, f.headers(1))
        upstream.send(f.headers(1, ((":status", "500"),), ends=False))
        upstream.awaited_request(3)
        upstream.send(f.headers(3, ((":status", "200"),)))
        assert caller.awaited_answer()[0][":status"] == "200"
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1))
        upstream.send(f.headers(1, ((":status", "503"), ("l5d-retryable", "true"))))
        assert caller.awaited_answer()[0][":status"] == "503"
