"""What a listener of HTTP/2 asks of its callers and tells of them by its options, and a router by its rules, through a whole router."""

from __future__ import annotations

import pytest

from h2_dialogue import H2Mesh, H2Side, called
from meshgw.wire.proxy_protocol import write_header
from support import h2_frames as f
from transcript import OK

CALLER, SEEN_AS = ("192.0.2.7", 56324), ("198.51.100.9", 80)
DONE = ((":status", "204"),)


def asking(*more: tuple[str, str], method: str = "GET", path: str = "/", name: str = "web") -> tuple[tuple[str, str], ...]:
    return ((":method", method), (":scheme", "http"), (":path", path), (":authority", name), *more)


def told(mesh: H2Mesh, fields: tuple[tuple[str, str], ...]) -> tuple[dict[str, str], bytes]:
    """The answer that the router itself gives to a request."""
    caller = mesh.calling().send(f.headers(1, fields))
    answer, body, _ = caller.awaited_answer()
    return answer, body


def passed(mesh: H2Mesh, *more: tuple[str, str], opening: bytes = f.OPENING) -> dict[str, str]:
    """The fields of a request as the service sees them."""
    service = mesh.service("web")
    mesh.calling(opening).send(f.headers(1, asking(*more)))
    return mesh.serving(service).awaited_request(1)


def pass_time(mesh: H2Mesh, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        mesh.clock.advance(0.25)
        mesh.pump()


# --- who calls


@pytest.mark.parametrize("version", [1, 2])
def test_the_address_behind_a_load_balancer_comes_before_the_preface(version: int) -> None:
    server = "proxyProtocol: {trusted: [127.0.0.1]}\nxForwardedHeaders: append\naddForwardedHeader: {for: {kind: ip}, by: {kind: ip}}"
    with H2Mesh(server=server) as mesh:
        fields = passed(mesh, opening=write_header(version, CALLER, SEEN_AS) + f.OPENING)
        assert fields["x-forwarded-for"] == "192.0.2.7"
        assert fields["forwarded"] == "by=198.51.100.9;for=192.0.2.7;host=web"


def test_forwarding_fields_tell_the_authority_as_host() -> None:
    with H2Mesh(server="xForwardedHeaders: replace\naddForwardedHeader: {by: {kind: router}}\ntimestampHeader: x-arrived") as mesh:
        fields = passed(mesh, ("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-forwarded-host", "other"))
        assert (fields["x-forwarded-for"], fields["x-forwarded-host"], fields["x-forwarded-proto"]) == ("127.0.0.1", "web", "http")
        assert fields["forwarded"].startswith("by=_h2;for=_")
        assert fields["forwarded"].endswith(";host=web")
        assert fields["x-arrived"] == "1000000"


def test_only_trusted_forwarders_are_believed() -> None:
    with H2Mesh(server="trustedForwarders: [127.0.0.1]\nxForwardedHeaders: append") as mesh:
        assert passed(mesh, ("x-forwarded-for", "192.0.2.7"))["x-forwarded-for"] == "192.0.2.7, 127.0.0.1"
    with H2Mesh(server="trustedForwarders: [192.0.2.1]\nxForwardedHeaders: append") as mesh:
        assert passed(mesh, ("x-forwarded-for", "192.0.2.7"))["x-forwarded-for"] == "127.0.0.1"


def test_an_edge_forgets_the_callers_context_and_tells_nothing_of_errors() -> None:
    with H2Mesh(server="clearContext: true") as mesh:
        fields = passed(mesh, ("l5d-dtab", "/svc/web => /nowhere"), ("l5d-sample", "1.0"), ("l5d-client-id", "me"), ("l5d-custom", "x"))
        assert not {"l5d-dtab", "l5d-ctx-dtab", "l5d-sample", "l5d-client-id", "l5d-custom"} & fields.keys()
        mesh.names.lead("gone")
        answer, body = told(mesh, asking(name="gone"))
        assert (answer[":status"], body) == ("502", b"")
        assert not [name for name in answer if name.startswith("l5d-")]


# --- what is let in


def test_health_checks_are_answered_and_told_of_draining() -> None:
    with H2Mesh(server="healthPath: /healthz") as mesh:
        answer, body = told(mesh, asking(path="/healthz?x"))
        assert (answer[":status"], body) == ("200", b"ok\n")
        assert told(mesh, asking(path="/healthz", method="HEAD"))[0][":status"] == "200"
        assert told(mesh, asking(path="/healthz", method="POST"))[0]["allow"] == "GET, HEAD, OPTIONS"
        caller = mesh.calling()
        mesh.settle()
        mesh.router.stop_accepting()
        caller.send(f.headers(1, asking(path="/healthz")))
        answer, body, _ = caller.awaited_answer()
        assert (answer[":status"], body) == ("503", b"draining\n")


def test_what_exceeds_the_limit_of_requests_is_answered_with_a_nack() -> None:
    with H2Mesh(server="maxConcurrentRequests: 1") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking()))
        caller.send(f.headers(3, asking()))
        answer, _, _ = caller.awaited_answer(3)
        assert (answer[":status"], answer["finagle-http-nack"], answer["retry-after"]) == ("503", "true", "0")
        upstream.send(f.headers(1, DONE))
        caller.awaited_answer(1)
        caller.send(f.headers(5, asking()))
        upstream.awaited_request(3)


def test_a_request_that_went_through_too_many_hops_is_refused() -> None:
    with H2Mesh(server="maxCallDepth: 2") as mesh:
        answer, body = told(mesh, asking(("via", "h2 linkerd, h2 linkerd, h2 linkerd")))
        assert answer[":status"] == "400"
        assert b"Maximum number of calls (2) has been exceeded" in body
        assert passed(mesh, ("via", "h2 a, 1.1 b"))["via"] == "h2 a, 1.1 b, h2 linkerd"


def test_a_malformed_local_dtab_is_answered_400() -> None:
    with H2Mesh() as mesh:
        answer, body = told(mesh, asking(("l5d-dtab", "/svc =>")))
        assert answer[":status"] == "400"
        assert body


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (asking(), "403"),
        (asking(path="/free/x"), "allowed"),
        (asking(name="open"), "allowed"),
        (asking(("l5d-dtab", "/svc/open => /svc/web"), name="open"), "403"),
        (asking(path="/free/../x"), "403"),
    ],
)
def test_rules_count_for_each_request_of_a_connection(fields: tuple[tuple[str, str], ...], status: str) -> None:
    rules = "accessControl:\n  rules:\n  - allow: {path: /free}\n  - allow: {service: /svc/open}"
    with H2Mesh(router=rules) as mesh:
        first = mesh.service("web")
        second = mesh.service("open")
        caller = mesh.calling().send(f.headers(1, asking(path="/free")))
        upstream = mesh.serving(first)
        upstream.awaited_request(1)
        upstream.send(f.headers(1, DONE))
        caller.awaited_answer(1)
        caller.send(f.headers(3, fields))
        if status == "allowed":
            to = upstream if dict(fields)[":authority"] == "web" else mesh.serving(second)
            to.until(lambda side: side.is_whole(3 if to is upstream else 1))
        else:
            assert caller.awaited_answer(3)[0][":status"] == status


# --- time


def test_a_timeout_of_the_server_is_answered_and_frees_the_endpoint() -> None:
    with H2Mesh(server="timeoutMs: 1000") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking()))
        mesh.clock.advance(1.1)
        assert caller.awaited_answer()[0][":status"] == "503"
        upstream.until(lambda side: side.code(1) == f.CANCEL)


def test_an_attempt_that_takes_too_long_is_answered() -> None:
    with H2Mesh(router="client: {requestAttemptTimeoutMs: 500}") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking()))
        mesh.clock.advance(0.6)
        answer, body, _ = caller.awaited_answer()
        assert answer[":status"] == "503"
        assert b"excluding retries" in body
        upstream.until(lambda side: side.code(1) == f.CANCEL)


def test_a_connection_without_a_preface_is_closed_in_time() -> None:
    with H2Mesh(server="headTimeoutMs: 3000") as mesh:
        caller = mesh.calling(f.PREFACE[:10])
        mesh.settle()
        pass_time(mesh, 5.0)
        mesh.until(lambda: caller.side.ending)


def test_a_head_that_does_not_end_closes_the_connection_in_time() -> None:
    with H2Mesh(server="headTimeoutMs: 3000") as mesh:
        caller = mesh.calling().send(f.headers(1, f.block(asking()), flags=0))
        mesh.settle()
        pass_time(mesh, 5.0)
        caller.until(lambda side: any(frame.kind == f.GOAWAY for frame in side.frames))


def test_a_body_that_does_not_come_ends_the_request_in_time() -> None:
    with H2Mesh(server="bodyTimeoutMs: 3000") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking(method="POST"), ends=False))
        pass_time(mesh, 5.0)
        caller.until(lambda side: side.has_section(1))
        assert caller.sections[1][0][":status"] == "408"
        upstream.until(lambda side: side.code(1) is not None)


def test_idle_connections_end_with_goaway_after_their_time() -> None:
    with H2Mesh(server="serverSession: {idleTimeMs: 5000}") as mesh:
        mesh.names.lead("web")  # to nowhere
        caller = mesh.calling()
        mesh.settle()
        pass_time(mesh, 8.0)
        caller.until(lambda side: any(frame.kind == f.GOAWAY for frame in side.frames))
        caller.send(f.headers(1, asking(path="/late")))  # it was on its way
        caller.send(*(f.ping(frame.payload, ack=True) for frame in caller.frames if frame.kind == f.PING and not frame.is_ack))
        assert caller.awaited_answer()[0][":status"] == "502"
        caller.until(lambda side: [frame.number for frame in side.frames if frame.kind == f.GOAWAY] == [f.LARGEST, 1])
        mesh.until(lambda: caller.side.ending)
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/idle") == 1


def test_idle_connections_of_callers_that_are_gone_end_too() -> None:
    with H2Mesh(server="serverSession: {idleTimeMs: 5000}\nheadTimeoutMs: 3000") as mesh:
        caller = mesh.calling()
        mesh.settle()
        pass_time(mesh, 15.0)
        mesh.until(lambda: caller.side.ending)
        caller.read()
        assert [frame.number for frame in caller.frames if frame.kind == f.GOAWAY] == [f.LARGEST, 0]


def test_old_connections_end_with_their_last_request() -> None:
    with H2Mesh(server="serverSession: {lifeTimeMs: 5000}") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking()))
        pass_time(mesh, 6.0)
        caller.until(lambda side: any(frame.kind == f.GOAWAY for frame in side.frames))
        caller.send(*(f.ping(frame.payload, ack=True) for frame in caller.frames if frame.kind == f.PING and not frame.is_ack))
        mesh.settle()
        assert not caller.side.ending
        upstream.send(f.headers(1, DONE))
        assert caller.awaited_answer()[0][":status"] == "204"
        mesh.until(lambda: caller.side.ending)
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/lifetime") == 1


# --- who is called


def test_connections_to_an_endpoint_grow_old_and_idle_too() -> None:
    with H2Mesh(router="client: {clientSession: {idleTimeMs: 2000}}") as mesh:
        caller, upstream = called(mesh, f.headers(1, asking()))
        upstream.send(f.headers(1, DONE))
        caller.awaited_answer()
        pass_time(mesh, 5.0)
        upstream.until(lambda side: any(frame.kind == f.GOAWAY for frame in side.frames))


def test_a_client_may_speak_http1_while_another_does_not() -> None:
    router = "client:\n  kind: io.l5d.static\n  configs:\n  - {prefix: /#/old, protocol: http/1.1, proxyProtocol: v1}"
    with H2Mesh(router=router) as mesh:
        old = mesh.service("old")
        caller = mesh.calling().send(f.headers(1, asking(name="old")))
        side = old.accept()
        side.expect(b"\r\n\r\n")
        assert side.got.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        assert b"GET / HTTP/1.1\r\n" in side.got
        side.send(OK)
        assert caller.awaited_answer()[1] == b"ok"
        assert passed(mesh)[":path"] == "/"


def test_proxy_headers_for_a_client_of_http2_are_an_error_that_says_why() -> None:
    router = "client:\n  kind: io.l5d.static\n  configs:\n  - {prefix: /#/old, protocol: http/1.1}\n  - {prefix: /, proxyProtocol: v1}"
    with H2Mesh(router=router) as mesh:
        mesh.service("web")
        answer, body = told(mesh, asking())
        assert answer[":status"] == "502"
        assert b"proxyProtocol tells of one caller for a whole connection" in body


def test_what_leaves_the_mesh_says_nothing_of_its_inside() -> None:
    with H2Mesh(router="client: {stripContext: true}") as mesh:
        service = mesh.service("web")
        caller = mesh.calling().send(f.headers(1, asking(("l5d-custom", "x"), ("x-forwarded-for", "10.0.0.1"), ("via", "1.1 inside"))))
        upstream: H2Side = mesh.serving(service)
        fields = upstream.awaited_request(1)
        assert fields["via"] == "h2 linkerd"
        assert not [name for name in fields if name.startswith(("l5d-", "x-forwarded-"))]
        upstream.send(f.headers(1, (*DONE, ("l5d-success-class", "0.0"), ("via", "h2 far"))))
        answer = caller.awaited_answer()[0]
        assert (answer["via"], answer["l5d-success-class"]) == ("h2 linkerd", "1.0")
