"""Access control, identities and the rules of the edge, through a whole router."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fakes.answers import answer_of, pass_time
from meshgw.core.address import Address, Replicas
from meshgw.core.secured import Secured
from meshgw.naming.path import Path
from transcript import DONE, OK, Mesh, Side, asked

WEB = "spiffe://mesh/ns/prod/sa/web"
RULES = """accessControl:
  rules:
  - deny: {path: /admin}
  - allow: {identity: "spiffe://mesh/*", service: /svc/web}
  - allow: {service: /svc/web, methods: [GET], path: /public}"""
ENTRY = "client: {stripContext: true}"


def secure(mesh: Mesh, facts: Secured) -> None:
    """As the end of a handshake would."""
    mesh.settle()
    for connection in mesh.router.listeners[0]._open:
        cast(Any, connection).secured(facts)


def head_at(upstream: Side) -> list[bytes]:
    """The request's lines as they arrived at a service."""
    lines = upstream.expect(b"\r\n\r\n").partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line.lower() for line in lines]


def test_a_call_that_is_not_allowed_is_refused_before_anything_is_resolved() -> None:
    with Mesh(RULES) as mesh:
        mesh.service("web")
        fields, body = answer_of(mesh.caller().get(b"/private"), 403)
        assert "the default" in body
        assert "GET to /svc/web" in body
        assert "l5d-err" in fields
        assert "l5d-retryable" not in fields
        assert mesh.names.bound == []
        assert mesh.counter("access/denied") == 1
        assert mesh.counter("access/rules/default") == 1


def test_a_connection_goes_on_after_a_refusal() -> None:
    with Mesh(RULES) as mesh:
        service = mesh.service("web")
        caller = mesh.caller().get(b"/admin")
        answer_of(caller, 403)
        caller.get(b"/public")
        service.accept().send(OK)
        caller.expect(DONE)
        assert (mesh.counter("access/allowed"), mesh.counter("access/denied")) == (1, 1)
        assert (mesh.counter("access/rules/1"), mesh.counter("access/rules/3")) == (1, 1)


@pytest.mark.parametrize("target", [b"/admin", b"//admin", b"/x/%2e%2e/admin", b"/ADMIN/x", b"/public/..;/admin", b"/%61dmin"])
def test_a_denied_path_is_denied_in_every_spelling(target: bytes) -> None:
    with Mesh(RULES) as mesh:
        mesh.service("web")
        caller = mesh.caller()
        secure(mesh, Secured(identity=WEB))
        answer_of(caller.get(target), 403)


def test_an_identity_opens_what_is_allowed_to_it() -> None:
    with Mesh(RULES) as mesh:
        service = mesh.service("web")
        caller = mesh.caller()
        secure(mesh, Secured(identity=WEB))
        for times in range(1, 3):  # it belongs to the connection, not to its first request
            caller.get(b"/private")
            if times == 1:
                upstream = service.accept()
            upstream.expect(b"GET /private", times)
            upstream.send(OK)
            caller.expect(DONE, times)
        assert mesh.counter("access/rules/2") == 2


def test_delegations_of_callers_do_not_get_around_rules() -> None:
    with Mesh(RULES) as mesh:
        mesh.service("web")
        fields, body = answer_of(mesh.caller().get(b"/public", fields=b"l5d-dtab: /svc/web => /svc/secret\r\n"), 403)
        assert "dtabOverrides" in body
        assert mesh.names.bound == []


def test_an_audit_refuses_nobody() -> None:
    with Mesh("accessControl: {mode: audit, rules: [{deny: {}}]}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        assert mesh.counter("access/audited") == 1
        assert mesh.counter("access/denied") == 0


def test_the_path_that_counts_is_the_callers_though_identification_cuts_it() -> None:
    rules = "accessControl: {default: allow, rules: [{deny: {path: /web/admin}}]}"
    with Mesh(f"identifier: {{kind: io.l5d.path, consume: true}}\n{rules}") as mesh:
        service = mesh.service("web")
        answer_of(mesh.caller().get(b"/web/admin/x"), 403)
        mesh.caller().get(b"/web/x")
        assert head_at(service.accept())[0] == b"get /x http/1.1"


def test_nobody_gives_himself_an_identity_and_no_service_gives_one_back() -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\nL5D-Client-ID: spiffe://mesh/admin\r\n\r\n")
        assert not [line for line in head_at(upstream) if line.startswith(b"l5d-client-id")]
        upstream.send(b"HTTP/1.1 200 OK\r\nl5d-client-id: x\r\nContent-Length: 2\r\n\r\nok")
        assert b"client-id" not in caller.expect(DONE)


# --- the edge


def test_a_plaintext_server_sends_callers_to_https() -> None:
    with Mesh("", "redirectToHttps: {port: 8443}\nclearContext: true\nhealthPath: /healthz") as mesh:
        caller = mesh.caller().get(b"/x?y", host=b"web.example:80")
        fields, _ = answer_of(caller, 308)
        assert fields["location"] == "https://web.example:8443/x?y"
        answer_of(mesh.caller().get(b"/healthz", host=b"web.example"), 200)
        assert mesh.names.bound == []


def test_a_slow_head_ends_after_its_time() -> None:
    with Mesh("", "headTimeoutMs: 3000") as mesh:
        caller = mesh.caller().send(b"GET / HTTP/1.1\r\n")
        for _ in range(5):  # a byte now and then does not help
            pass_time(mesh, 0.5)
            caller.send(b"X")
        assert caller.got == b""
        pass_time(mesh, 2.5)
        answer_of(caller, 408)


def test_a_body_that_stands_still_ends_after_its_time() -> None:
    with Mesh("", "bodyTimeoutMs: 3000") as mesh:
        mesh.service("web")
        caller = mesh.caller().send(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc")
        pass_time(mesh, 2.5)
        assert caller.got == b""
        pass_time(mesh, 2.5)
        answer_of(caller, 408)


# --- egress


def test_nothing_of_the_inside_leaves_and_retries_do_not_repeat_what_was_added() -> None:
    service = "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}"
    inside = b"GET / HTTP/1.1\r\nHost: web\r\nl5d-private: x\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.1 inner\r\nX-Kept: 1\r\n\r\n"
    with Mesh(f"{ENTRY}\n{service}") as mesh:
        caller, upstream, _ = asked(mesh, inside)
        expected = [b"get / http/1.1", b"host: web", b"x-kept: 1", b"via: 1.1 linkerd"]
        assert head_at(upstream) == expected
        upstream.take()
        upstream.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        assert head_at(upstream) == expected
        upstream.send(b"HTTP/1.1 200 OK\r\nl5d-err: x\r\nVia: 1.1 far\r\nContent-Length: 2\r\n\r\nok")
        answer = caller.expect(DONE)
        assert b"l5d-err" not in answer
        assert answer.count(b"Via: ") == 1
        assert b"far" not in answer


def test_internal_addresses_are_not_connected_to() -> None:
    with Mesh("egress: {}") as mesh:
        service = mesh.service("web")
        fields, body = answer_of(mesh.caller().get(), 403)
        assert body == "/#/web: 127.0.0.1 may not be connected to (egress.denyNetworks)"
        assert "l5d-retryable" not in fields
        assert not service.has_more()


def test_exceptions_from_internal_addresses_are_connected_to() -> None:
    with Mesh("egress: {allowNetworks: [127.0.0.1]}") as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        assert service.port


def test_a_name_that_begins_to_lead_inside_is_not_followed() -> None:
    with Mesh("egress: {denyNetworks: [127.0.0.2]}") as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.2", service.port),)))
        mesh.settle()
        (client,) = mesh.router.caches.clients()
        assert client.id == Path.read("/#/web")
        assert [node.address.host for node in client.nodes.all()] == ["127.0.0.1"]
        assert client.state()["state"].startswith("Failed: ")


def test_the_role_is_a_gauge() -> None:
    with Mesh("role: outgoing") as mesh:
        assert mesh.snapshot().gauges[("rt", "http", "role", "outgoing")] == 1
