"""What the roles of routers add to a file, and that they take nothing away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshgw.config.egress import EgressConfig
from meshgw.config.loader import LoadResult
from meshgw.config.models import HttpRouterConfig
from meshgw.naming.path import Path

RINET = Path.read("/$/io.buoyant.rinet/443/www.example.com")
Loaded = Callable[[str], LoadResult]


def router(loaded: Loaded, text: str) -> HttpRouterConfig:
    result = loaded("routers:\n- protocol: http\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    assert result.config is not None, [problem.show() for problem in result.problems]
    found = result.config.routers[0].config
    assert isinstance(found, HttpRouterConfig)
    return found


def test_an_ingress_believes_nothing_and_bounds_everything(loaded: Loaded) -> None:
    server = router(loaded, "role: ingress\nservers: [{port: 4140}, {port: 4141}]").servers[1]
    assert server.clear_context
    assert server.x_forwarded_headers == "replace"
    assert (server.head_timeout_ms, server.body_timeout_ms) == (5000, 30000)
    assert server.server_session.idle_time_ms == 60000
    assert server.max_concurrent_requests == 10000
    assert server.check_server_name is None


def test_what_is_written_stays_as_it_is(loaded: Loaded) -> None:
    text = "role: ingress\nservers: [{port: 4140, clearContext: false, maxConcurrentRequests: null, serverSession: {lifeTimeMs: 7}}]"
    server = router(loaded, text).servers[0]
    assert not server.clear_context
    assert server.max_concurrent_requests is None
    assert (server.server_session.idle_time_ms, server.server_session.life_time_ms) == (60000, 7)


def test_an_ingress_with_tls_checks_server_names(loaded: Loaded) -> None:
    servers = "[{port: 1, tls: {certPath: /dev/null, keyPath: /dev/null}}, {port: 2, tls: null}]"
    first, second = router(loaded, f"role: ingress\nservers: {servers}").servers
    assert first.check_server_name is True
    assert second.check_server_name is None


def test_an_incoming_server_with_an_authority_asks_for_certificates(loaded: Loaded) -> None:
    tls = "certPath: /dev/null, keyPath: /dev/null"
    authority = "caCertPath: /dev/null"
    servers = f"[{{port: 1, tls: {{{tls}, {authority}}}}}, {{port: 2, tls: {{{tls}}}}}, {{port: 3}}]"
    asking, plain, open_ = router(loaded, f"role: incoming\nservers: {servers}").servers
    assert asking.tls is not None
    assert asking.tls.require_client_auth
    assert plain.tls is not None
    assert not plain.tls.require_client_auth
    assert open_.tls is None


def test_an_outgoing_router_is_the_first_of_a_chain(loaded: Loaded) -> None:
    assert router(loaded, "role: outgoing\nservers: [{port: 4140}]").originator
    assert not router(loaded, "role: outgoing\noriginator: false\nservers: [{port: 4140}]").originator


def test_an_egress_leads_outside_over_verified_tls(loaded: Loaded) -> None:
    config = router(loaded, "role: egress\nservers: [{port: 4140}]")
    assert config.egress == EgressConfig()
    params, captured = config.client.for_name(RINET)
    assert params.strip_context
    assert params.tls is not None
    assert params.tls.name_for(captured["tls"]) == "www.example.com"
    assert config.client.for_name(Path.read("/#/inside"))[0].strip_context


@pytest.mark.parametrize(
    "client", ["{failFast: true}", "{kind: io.l5d.global, failFast: true}", "{kind: io.l5d.static, configs: [{prefix: /, failFast: true}]}"]
)
def test_tls_of_an_egress_is_not_lost_by_writing_another_option(loaded: Loaded, client: str) -> None:
    params, _ = router(loaded, f"role: egress\nservers: [{{port: 4140}}]\nclient: {client}").client.for_name(RINET)
    assert params.fail_fast
    assert params.strip_context
    assert params.tls is not None


@pytest.mark.parametrize(
    "client",
    [
        "{tls: {enabled: false}, stripContext: false}",
        "{kind: io.l5d.static, configs: [{prefix: /, tls: {enabled: false}, stripContext: false}]}",
    ],
)
def test_tls_of_an_egress_is_taken_back_by_saying_so(loaded: Loaded, client: str) -> None:
    params, _ = router(loaded, f"role: egress\nservers: [{{port: 4140}}]\nclient: {client}").client.for_name(RINET)
    assert params.tls is not None
    assert not params.tls.enabled
    assert not params.strip_context


def test_an_egress_keeps_a_dtab_of_its_own(loaded: Loaded) -> None:
    assert router(loaded, "role: egress\ndtab: /svc => /#/x\nservers: [{port: 4140}]").dtab.show() == "/svc=>/#/x"


def test_a_file_without_roles_is_as_before(loaded: Loaded) -> None:
    config = router(loaded, "servers: [{port: 4140}]")
    assert config.role is None
    assert config.egress is None
    assert config.servers[0].head_timeout_ms == 30_000
    assert config == router(loaded, "role: null\nservers: [{port: 4140}]")


def test_a_problem_with_a_default_points_at_the_role(shown: Callable[[str], list[str]]) -> None:
    text = "routers:\n- protocol: http\n  role: ingress\n  servers: [{port: 4140, headTimeoutMs: 5}]\n"
    assert shown(text)[0].startswith("l.yaml:4:")
    text = "routers:\n- protocol: http\n  servers: [{port: 4140}]\n  client: {kind: io.l5d.stati}\n  role: egress\n"
    assert "unknown kind 'io.l5d.stati'" in shown(text)[0]


def test_an_unknown_role_is_told(shown: Callable[[str], list[str]]) -> None:
    problems = shown("routers:\n- protocol: http\n  role: gateway\n  servers: [{port: 4140}]\n")
    assert problems == ["l.yaml:3:9: routers[0].role: must be one of incoming, outgoing, ingress, egress, not gateway"]


@pytest.mark.parametrize(
    "text", ["routers: 3", "routers: [3]", "routers:\n- protocol: http\n  role: [a]", "[]", "routers:\n- role: ingress"]
)
def test_documents_of_another_shape_are_told_as_ever(shown: Callable[[str], list[str]], text: str) -> None:
    assert shown(text)


@pytest.mark.parametrize("servers", ["3", "[3]", "[{tls: 3}]", "{}"])
@pytest.mark.parametrize("role", ["incoming", "outgoing", "ingress", "egress"])
def test_servers_of_another_shape_are_told_as_ever(shown: Callable[[str], list[str]], role: str, servers: str) -> None:
    assert shown(f"routers:\n- protocol: http\n  role: {role}\n  client: 7\n  servers: {servers}\n")


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("hsts: {preload: true}", "preload needs includeSubDomains"),
        ("hsts: {maxAge: -1}", "at least 0"),
        ("redirectToHttps: {status: 200}", "must be one of 301, 302, 307, 308"),
        ("hsts: {}", "hsts means nothing on a server without tls"),
        ("checkServerName: true", "checkServerName means nothing on a server without tls"),
        ("redirectToHttps: {}, tls: {certPath: /dev/null, keyPath: /dev/null}", "redirectToHttps is for plaintext servers"),
    ],
)
def test_bad_rules_of_the_edge_are_told(shown: Callable[[str], list[str]], server: str, message: str) -> None:
    problems = shown(f"routers:\n- protocol: http\n  servers: [{{port: 4140, {server}}}]\n")
    assert any(message in problem for problem in problems), problems
