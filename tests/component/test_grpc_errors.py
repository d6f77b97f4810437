"""Errors made here are gRPC statuses for gRPC calls and HTTP answers for others; deadlines of calls; calls that break off."""

from __future__ import annotations

import pytest

from h2_dialogue import ANSWER, CALL, H2Mesh, H2Side, called, trailers
from meshgw.core.address import ADDR_NEG
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG
from meshgw.wire.context import decode_deadline
from support import h2_frames as f
from support.processes import free_port
from transcript import idle

OK, INTERNAL, UNAVAILABLE, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED = "0", "13", "14", "4", "7", "8"


def refused(caller: H2Side, stream: int = 1) -> tuple[str, str]:
    """Status and message of a call that was answered here: one section that ends the stream."""
    head, body, end = caller.awaited_answer(stream)
    assert (head[":status"], head["content-type"], body, end) == ("200", "application/grpc", b"", {})
    return head["grpc-status"], head.get("grpc-message", "")


def call(*more: tuple[str, str]) -> bytes:
    return f.headers(1, (*CALL, *more))


def timed_out(mesh: H2Mesh, seconds: float) -> None:
    mesh.settle()
    mesh.clock.advance(seconds)
    mesh.settle()


def test_no_route_is_unavailable() -> None:
    with H2Mesh() as mesh:
        mesh.names.tree(Path.of("svc", "web")).set(NEG)
        caller = mesh.calling().send(call())
        status, message = refused(caller)
        assert status == UNAVAILABLE
        assert message.startswith("Unable to route request!%0A")
        assert "/svc/web" in message
        assert "l5d-err" in caller.sections[1][0]
        assert mesh.counter("service/svc/web/failures") == 1
        assert idle(mesh)


def test_no_endpoint_is_unavailable() -> None:
    with H2Mesh() as mesh:
        mesh.names.lead("web")
        mesh.names.addr("/#/web").set(ADDR_NEG)
        assert refused(mesh.calling().send(call()))[0] == UNAVAILABLE


def test_a_refused_connect_is_unavailable() -> None:
    with H2Mesh() as mesh:
        mesh.names.lead("web", free_port())
        status, message = refused(mesh.calling().send(call()))
        assert status == UNAVAILABLE
        assert message.startswith("Unable to establish connection to 127.0.0.1:")


def test_a_lost_connection_is_unavailable() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh)
        upstream.side.close()
        assert refused(caller)[0] == UNAVAILABLE
        assert idle(mesh)


def test_no_binding_in_time_is_unavailable() -> None:
    with H2Mesh("bindingTimeoutMs: 500") as mesh:
        caller = mesh.calling().send(call())
        timed_out(mesh, 0.6)
        assert refused(caller)[0] == UNAVAILABLE


@pytest.mark.parametrize(
    ("router", "server"),
    [
        ("", "timeoutMs: 500"),
        ("service:\n  totalTimeoutMs: 500", ""),
        ("client:\n  requestAttemptTimeoutMs: 500", ""),
    ],
)
def test_limits_of_time_are_deadline_exceeded(router: str, server: str) -> None:
    with H2Mesh(router, server) as mesh:
        caller, upstream = called(mesh)
        timed_out(mesh, 0.7)
        assert refused(caller)[0] == DEADLINE_EXCEEDED
        upstream.until(lambda side: side.code(1) == f.CANCEL)
        assert idle(mesh)


def test_too_many_at_once_is_unavailable_and_says_that_it_was_not_looked_at() -> None:
    with H2Mesh(server="maxConcurrentRequests: 1") as mesh:
        caller, upstream = called(mesh)
        caller.send(f.headers(3, CALL))
        assert refused(caller, 3)[0] == UNAVAILABLE
        assert caller.sections[3][0]["finagle-http-nack"] == "true"
        upstream.send(f.headers(1, (*ANSWER, *trailers(0))))
        caller.awaited_answer(1)
        caller.send(f.headers(5, CALL))
        upstream.awaited_request(3)


def test_a_nack_of_another_gateway_is_sent_elsewhere() -> None:
    with H2Mesh("service: {responseClassifier: {kind: io.l5d.h2.grpc.default}}") as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, (*ANSWER, *trailers(14), ("finagle-http-nack", "true"))))
        upstream.awaited_request(3)
        upstream.send(f.headers(3, (*ANSWER, *trailers(0))))
        assert caller.awaited_answer()[0]["grpc-status"] == OK
        assert mesh.counter("client/#/web/retries/requeues") == 1
        assert mesh.counter("service/svc/web/retries/total") == 0


def test_access_control_is_permission_denied() -> None:
    with H2Mesh("accessControl: {default: deny, rules: []}") as mesh:
        mesh.service("web")
        assert refused(mesh.calling().send(call()))[0] == PERMISSION_DENIED


def test_a_header_section_that_is_too_large_is_resource_exhausted() -> None:
    with H2Mesh(server="maxHeaderListBytes: 2000") as mesh:
        mesh.service("web")
        assert refused(mesh.calling().send(call(("x-long", "x" * 2000))))[0] == RESOURCE_EXHAUSTED


def test_a_loop_is_internal() -> None:
    with H2Mesh(server="maxCallDepth: 2") as mesh:
        mesh.service("web")
        status, message = refused(mesh.calling().send(call(("via", "h2 linkerd, h2 linkerd, h2 linkerd"))))
        assert status == INTERNAL
        assert message.startswith("Maximum number of calls (2) has been exceeded.")


@pytest.mark.parametrize(
    ("kind", "is_call"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;x=y", True),
        ("application/grpc-web", False),
        ("application/json", False),
    ],
)
def test_only_grpc_is_answered_in_grpc(kind: str, is_call: bool) -> None:
    with H2Mesh() as mesh:
        mesh.names.tree(Path.of("svc", "web")).set(NEG)
        caller = mesh.calling().send(f.headers(1, (*CALL[:-1], ("content-type", kind))))
        head, body, _ = caller.awaited_answer()
        assert (head[":status"] == "200") is is_call
        assert bool(body) is not is_call


def test_messages_are_escaped_and_bounded() -> None:
    with H2Mesh() as mesh:
        name = "n" * 1500
        mesh.names.tree(Path.of("svc", name)).set(NEG)
        caller = mesh.calling().send(f.headers(1, (*CALL[:3], (":authority", name), CALL[-1])))
        _, message = refused(caller)
        assert len(message) < 1200
        assert "\n" not in message


@pytest.mark.parametrize("cause", ["no route", "timeout", "depth", "too many"])
def test_clear_context_tells_nothing_of_the_inside(cause: str) -> None:
    server = "clearContext: true\nmaxCallDepth: 1\ntimeoutMs: 500"
    with H2Mesh(server=server + ("\nmaxConcurrentRequests: 1" if cause == "too many" else "")) as mesh:
        stream = 1
        if cause == "no route":
            mesh.names.tree(Path.of("svc", "web")).set(NEG)
            caller = mesh.calling().send(call())
        elif cause == "depth":
            mesh.service("web")
            caller = mesh.calling().send(call(("via", "h2 a, h2 b, h2 c")))
        elif cause == "too many":
            caller, _ = called(mesh)
            caller.send(f.headers(3, CALL))
            stream = 3
        else:
            caller, _ = called(mesh)
            timed_out(mesh, 0.7)
        _, message = refused(caller, stream)
        assert message.startswith("HTTP status ")
        assert not [name for name in caller.sections[stream][0] if name.startswith("l5d-")]


def test_answers_of_services_lose_their_context_with_clear_context_and_keep_their_status() -> None:
    with H2Mesh(server="clearContext: true") as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, (*ANSWER, *trailers(5, ("grpc-message", "the service's own")))))
        head = caller.awaited_answer()[0]
        assert (head["grpc-status"], head["grpc-message"]) == ("5", "the service's own")
        assert not [name for name in head if name.startswith("l5d-")]


# --- deadlines


def left(upstream: H2Side, stream: int = 1) -> float | None:
    """The seconds that the service was told, None without."""
    text = upstream.awaited_request(stream).get("grpc-timeout")
    units = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
    return None if text is None else int(text[:-1]) * units[text[-1]]


def deadline(seconds: float) -> tuple[str, str]:
    """A context in which the request, made now, has so long; the clock begins at 1000."""
    return ("l5d-ctx-deadline", f"1000000000000 {int((1000 + seconds) * 1e9)}")


@pytest.mark.parametrize(
    ("said", "total", "told"),
    [
        ((("grpc-timeout", "3S"),), None, 3.0),
        ((("grpc-timeout", "3S"), deadline(2.0)), None, 2.0),
        ((("grpc-timeout", "1S"), deadline(2.0)), None, 1.0),
        ((("grpc-timeout", "3S"), deadline(2.0)), 1500, 1.5),
        ((("grpc-timeout", "500m"),), 1500, 0.5),
        ((("grpc-timeout", "5H"),), None, 18000.0),
        ((("grpc-timeout", "soon"),), None, None),
        ((), 1500, None),
        ((deadline(2.0),), None, None),
    ],
)
def test_the_strictest_limit_is_told_to_the_service(said: tuple[tuple[str, str], ...], total: int | None, told: float | None) -> None:
    with H2Mesh(f"service: {{totalTimeoutMs: {total}}}" if total else "") as mesh:
        _, upstream = called(mesh, call(*said))
        if ("grpc-timeout", "soon") in said:
            assert upstream.awaited_request(1)["grpc-timeout"] == "soon", "for the service to refuse"
        else:
            assert left(upstream) == (None if told is None else pytest.approx(told, abs=0.01))


def test_a_timeout_of_centuries_is_a_deadline_that_the_next_hop_can_read() -> None:
    with H2Mesh() as mesh:
        _, upstream = called(mesh, call(("grpc-timeout", "99999999H")))
        told = decode_deadline(upstream.awaited_request(1)["l5d-ctx-deadline"].encode())
        assert told is not None
        assert 2**62 < told[1] < 2**63


def test_time_that_passed_here_is_taken_off_for_a_retry() -> None:
    more = "service:\n  responseClassifier: {kind: io.l5d.h2.grpc.default}\n  retries: {backoff: {kind: constant, ms: 400}}"
    with H2Mesh(more) as mesh:
        _, upstream = called(mesh, call(("grpc-timeout", "2S")))
        upstream.send(f.headers(1, (*ANSWER, *trailers(14))))
        timed_out(mesh, 0.5)
        assert left(upstream, 3) == pytest.approx(1.5, abs=0.01)


def test_a_call_that_takes_too_long_is_given_up_on_both_sides() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, call(("grpc-timeout", "300m")))
        timed_out(mesh, 0.4)
        status, message = refused(caller)
        assert status == DEADLINE_EXCEEDED
        assert "(grpc-timeout)" in message
        upstream.until(lambda side: side.code(1) == f.CANCEL)
        assert idle(mesh)


def test_a_deadline_that_has_passed_is_not_sent() -> None:
    with H2Mesh() as mesh:
        service = mesh.service("web")
        caller = mesh.calling().send(call(("grpc-timeout", "3S"), deadline(-1.0)))
        assert refused(caller)[0] == DEADLINE_EXCEEDED
        caller.send(f.headers(3, (*CALL, ("grpc-timeout", "0n"))))
        assert refused(caller, 3)[0] == DEADLINE_EXCEEDED
        assert not service.has_more()


def test_an_answer_that_has_begun_may_take_longer() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, call(("grpc-timeout", "300m")))
        upstream.send(f.headers(1, ANSWER, ends=False))
        caller.until(lambda side: side.has_section(1))
        timed_out(mesh, 0.5)
        upstream.send(f.headers(1, trailers(0)))
        assert caller.awaited_answer()[2]["grpc-status"] == OK


# --- answers that break off


def test_a_call_that_loses_its_service_half_way_ends_with_a_status() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh)
        upstream.send(f.headers(1, ANSWER, ends=False), f.data(1, b"\0\0\0\0\1x"))
        caller.until(lambda side: side.body(1))
        upstream.side.close()
        _, body, end = caller.awaited_answer()
        assert (body, end) == (b"\0\0\0\0\1x", {"grpc-status": UNAVAILABLE, "grpc-message": "the answer broke off"})
        assert mesh.counter("service/svc/web/failures") == 1
        assert idle(mesh)
        caller.send(f.headers(3, CALL))  # the connection is in good order
        mesh.settle()
        assert caller.code(3) is None


def test_a_call_that_is_still_speaking_then_is_told_as_well() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1, CALL, ends=False))
        upstream.send(f.headers(1, ANSWER, ends=False))
        caller.until(lambda side: side.has_section(1))
        upstream.side.close()
        assert caller.awaited_answer()[2]["grpc-status"] == UNAVAILABLE
        caller.until(lambda side: side.code(1) == f.NO_ERROR)
        assert idle(mesh)


def test_what_is_no_call_is_reset_instead() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1))
        upstream.send(f.headers(1, ((":status", "200"),), ends=False), f.data(1, b"half"))
        caller.until(lambda side: side.body(1))
        upstream.side.close()
        caller.until(lambda side: side.code(1) == f.INTERNAL_ERROR)


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("code", [f.CANCEL, f.INTERNAL_ERROR, f.ENHANCE_YOUR_CALM, 4711])
def test_a_reset_passes_with_its_code_both_ways(code: int, has_begun: bool) -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh)
        if has_begun:
            upstream.send(f.headers(1, ANSWER, ends=False))
            caller.until(lambda side: side.has_section(1))
        upstream.send(f.rst_stream(1, code))
        caller.until(lambda side: side.code(1) == code)
        caller.send(f.headers(3, CALL))
        upstream.awaited_request(3)
        if has_begun:
            upstream.send(f.headers(3, ANSWER, ends=False))
            caller.until(lambda side: side.has_section(3))
        caller.send(f.rst_stream(3, code))
        upstream.until(lambda side: side.code(3) == code)
        assert idle(mesh)
