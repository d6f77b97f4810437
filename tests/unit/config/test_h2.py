"""Blocks of routers of protocol ``h2``: their options, and those that are another protocol's (linkerd-config spec 6.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshgw.config.egress import EgressConfig
from meshgw.config.h2 import H2RouterConfig
from meshgw.config.loader import LoadResult
from meshgw.config.problems import Severity
from meshgw.naming.path import Path

Shown = Callable[[str], list[str]]
Loaded = Callable[[str], LoadResult]
RINET = Path.read("/$/io.buoyant.rinet/443/www.example.com")


def file(fields: str = "", server: str = "{}") -> str:
    return f"routers:\n- protocol: h2\n  servers: [{server}]\n  {fields}\n"


def router(loaded: Loaded, fields: str = "", server: str = "{}") -> H2RouterConfig:
    result = loaded(file(fields, server))
    assert result.config is not None, [problem.show() for problem in result.problems]
    config = result.config.routers[0].config
    assert isinstance(config, H2RouterConfig)
    return config


def test_a_router_without_options_is_linkerds(loaded: Loaded) -> None:
    config = router(loaded)
    server, client, service = config.servers[0], config.client.for_name(RINET)[0], config.service.for_name(RINET)[0]
    assert (config.label, server.port, server.ip, config.identifier[0].kind.id) == ("h2", 4142, "127.0.0.1", "io.l5d.header.token")
    assert (server.window_update_ratio, server.max_concurrent_streams_per_connection, server.max_call_depth) == (0.99, 1000, 1000)
    assert (client.window_update_ratio, client.max_frame_bytes, client.protocol) == (0.99, None, None)
    assert service.classification_timeout_ms == 100
    assert (service.retry_buffer_size.request_bytes, service.retry_buffer_size.response_bytes) == (16383, 16383)


SERVERS = {
    "windowUpdateRatio: 0": "windowUpdateRatio: ratio must be on (0.0, 1.0), exclusive",
    "windowUpdateRatio: 1.0": "windowUpdateRatio: ratio must be on (0.0, 1.0), exclusive",
    "headerTableBytes: -1": "headerTableBytes: must be between 0 and 4294967295, not -1",
    "headerTableBytes: 4294967296": "headerTableBytes: must be between 0 and 4294967295, not 4294967296",
    "initialStreamWindowBytes: 0": "initialStreamWindowBytes: must be between 1 and 2147483647, not 0",
    "initialStreamWindowBytes: 2147483648": "initialStreamWindowBytes: must be between 1 and 2147483647, not 2147483648",
    "maxFrameBytes: 16383": "maxFrameBytes: must be between 16384 and 16777215, not 16383",
    "maxFrameBytes: 16777216": "maxFrameBytes: must be between 16384 and 16777215, not 16777216",
    "maxHeaderListBytes: 0": "maxHeaderListBytes: must be between 1 and 4294967295, not 0",
}
ONLY_SERVERS = {
    "maxConcurrentStreamsPerConnection: 0": "maxConcurrentStreamsPerConnection: must be between 1 and 2147483647, not 0",
    "maxConcurrentStreamsPerConnection: 3e9": "maxConcurrentStreamsPerConnection: expected a whole number, found '3e9'",
}


@pytest.mark.parametrize("option", [*SERVERS, *ONLY_SERVERS])
def test_bad_value_of_a_server_is_told_in_full(option: str, shown: Shown) -> None:
    expected = f"l.yaml:3:13: routers[0].servers[0].{(SERVERS | ONLY_SERVERS)[option]}"
    place = len(option.partition(": ")[0]) + 2 if "not supported" not in expected else 0
    assert shown(file(server=f"{{{option}}}")) == [expected.replace(":3:13:", f":3:{14 + place}:")]


@pytest.mark.parametrize("option", SERVERS)
def test_bad_value_of_a_client_is_told_in_full(option: str, shown: Shown) -> None:
    told = [problem.partition(": ")[2] for problem in shown(file(f"client: {{{option}}}"))]
    assert told == [f"routers[0].client.{SERVERS[option]}"]


@pytest.mark.parametrize("option", ["classificationTimeoutMs: -1", "retryBufferSize: {requestBytes: -1}", "retryBufferSize: {kept: 1}"])
def test_bad_value_of_a_service_is_told(option: str, shown: Shown) -> None:
    (told,) = shown(file(f"service: {{{option}}}"))
    assert told.partition(": ")[2].startswith(f"routers[0].service.{option.partition(':')[0]}")


ELSEWHERE = {
    "maxHeadersKB: 8": "maxHeaderListBytes of servers and clients",
    "maxInitialLineKB: 4": "for routers of protocol http",
    "maxRequestKB: 4": "for routers of protocol http",
    "streamAfterContentLengthKB: 4": "retryBufferSize of services",
    "compressionLevel: 0": "for routers of protocol http",
    "httpAccessLog: x": "did you mean 'h2AccessLog'?",
    "httpAccessLogRollPolicy: daily": "did you mean 'h2AccessLogRollPolicy'?",
    "servers: [{connect: {}}]": "HTTP/2 has no tunnels here",
    "servers: [{redirectToHttps: {}}]": "for servers in routers of protocol http",
    "servers: [{maxHeaderListByts: 5}]": "maxHeaderListBytes",
    "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}": "did you mean 'io.l5d.h2.retryableRead5XX'?",
}


@pytest.mark.parametrize("line", ELSEWHERE)
def test_option_of_another_protocol_is_refused_with_what_to_do(line: str, shown: Shown) -> None:
    text = f"routers:\n- protocol: h2\n  {line}\n" + ("" if line.startswith("servers") else "  servers: [{}]\n")
    (told,) = shown(text)
    assert told.startswith("l.yaml:3:")
    assert told.rpartition("; ")[2].endswith(ELSEWHERE[line]) or ELSEWHERE[line] in told.partition("; known: ")[2].partition("; ")[2]


def test_option_of_h2_is_refused_on_other_routers_with_what_to_do(shown: Shown) -> None:
    text = (
        "routers:\n- protocol: http\n  servers: [{maxHeaderListBytes: 5, maxFrameBytes: 16384}]\n  client: {initialStreamWindowBytes: 5}\n"
    )
    limit, frame, window = shown(text)
    assert limit.endswith("; it is for servers in routers of protocol h2; here the router's maxHeadersKB bounds headers")
    assert frame.endswith("; it is for servers in routers of protocol h2")
    assert window.endswith("; it is for clients in routers of protocol h2; here those with `protocol: h2` have the defaults")


@pytest.mark.parametrize("name", ["requestAuthorizers: []", "client: {forwardClientCert: true}"])
def test_what_is_not_supported_yet_is_told_as_such(name: str, shown: Shown) -> None:
    (told,) = shown(file(name))
    assert "not supported yet: " in told


# --- PROXY headers and streams of several callers


CALLERS = {
    "client: {proxyProtocol: v1}": False,
    "client: {proxyProtocol: v2, protocol: auto}": False,
    "client: {proxyProtocol: v2, protocol: h2}": False,
    "client: {proxyProtocol: v2, protocol: http/1.1}": True,
    "client: {proxyProtocol: none}": True,
    "client: {kind: io.l5d.static, configs: [{prefix: /, proxyProtocol: v1}]}": False,
    "client: {kind: io.l5d.static, configs: [{prefix: /, protocol: http/1.1}, {prefix: /a, proxyProtocol: v1}]}": True,
}


@pytest.mark.parametrize("line", CALLERS)
def test_proxy_headers_need_a_connection_for_each_caller(line: str, shown: Shown) -> None:
    told = shown(file(line))
    assert (not told) is CALLERS[line]
    assert all("HTTP/2 shares between callers; it needs `protocol: http/1.1`" in problem for problem in told)


def test_tunnels_are_remarked_on(loaded: Loaded) -> None:
    result = loaded(file("client: {tunnels: connect}"))
    assert result.config is not None
    assert [(problem.severity, problem.path) for problem in result.problems] == [(Severity.NOTICE, "routers[0].client.tunnels")]


# --- roles


def test_an_ingress_believes_nothing_and_bounds_everything(loaded: Loaded) -> None:
    server = router(loaded, "role: ingress").servers[0]
    assert server.clear_context
    assert server.x_forwarded_headers == "replace"
    assert (server.head_timeout_ms, server.body_timeout_ms, server.server_session.idle_time_ms) == (5000, 30000, 60000)
    assert (server.max_concurrent_requests, server.max_concurrent_streams_per_connection) == (10000, 100)
    assert server.check_server_name is None


def test_an_ingress_with_tls_checks_server_names(loaded: Loaded) -> None:
    server = "{tls: {certPath: /dev/null, keyPath: /dev/null}, maxConcurrentStreamsPerConnection: 7}"
    found = router(loaded, "role: ingress", server).servers[0]
    assert found.check_server_name is True
    assert found.max_concurrent_streams_per_connection == 7


def test_an_incoming_server_with_an_authority_asks_for_certificates(loaded: Loaded) -> None:
    found = router(loaded, "role: incoming", "{tls: {certPath: /dev/null, keyPath: /dev/null, caCertPath: /dev/null}}").servers[0]
    assert found.tls is not None
    assert found.tls.require_client_auth


def test_an_outgoing_router_is_the_first_of_a_chain(loaded: Loaded) -> None:
    assert router(loaded, "role: outgoing").originator


def test_an_egress_leads_outside_over_whatever_tls_agrees_on(loaded: Loaded) -> None:
    config = router(loaded, "role: egress\n  client: {failFast: true}")
    assert config.egress == EgressConfig()
    params, captured = config.client.for_name(RINET)
    assert params.tls is not None
    assert (params.tls.name_for(captured["tls"]), params.protocol) == ("www.example.com", "auto")
    assert (params.strip_context, params.fail_fast) == (True, True)
    assert config.client.for_name(Path.read("/#/inside"))[0].protocol is None


# --- TLS


def test_cipher_suites_that_http2_may_not_use_are_remarked_on(loaded: Loaded) -> None:
    tls = "certPath: /dev/null, keyPath: /dev/null, ciphers: [AES128-SHA, ECDHE-RSA-AES128-GCM-SHA256]"
    result = loaded(file(server=f"{{tls: {{{tls}}}}}"))
    (remark,) = result.problems
    assert (remark.severity, remark.path) == (Severity.NOTICE, "routers[0].servers[0].tls")
    assert remark.message.startswith("ciphers: AES128-SHA: callers may refuse")
    assert loaded(file(server=f"{{tls: {{{tls}}}}}").replace("h2", "http")).problems == ()
